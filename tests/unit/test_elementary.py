"""Every activation function, evaluated operation by operation in numpy, against its exact definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ml4f.backend.loop import elementary_power
from ml4f.backend.loop.builder import Interleaved
from ml4f.backend.loop.elementary import ACTIVATIONS, fused_multiply_add, prelu

PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "clip": [
        (0.0, 6.0),
        (-1.5, 0.75),
        (-1.0, -0.0),
        (-math.inf, 1.5),
        (-1.0, math.inf),
        (0.5, 2.0),
        (-math.inf, math.inf),
    ],
    "leaky_relu": [(0.01,), (0.2,), (0.0,)],
    "thresholded_relu": [(1.0,), (0.1,), (-0.5,)],
    "keras_relu": [(math.inf, 0.0, 0.0), (6.0, 0.1, 1.0), (6.0, 0.0, 2.0), (1e9, 0.25, 0.0)],
    "hard_sigmoid": [(0.2, 0.5), (1 / 6, 0.5)],
    "elu": [(1.0,), (0.7,)],
    "selu": [(1.6732632, 1.0507009)],
    "celu": [(1.0,), (0.7,), (3.0,)],
}
CASES = [(name, p) for name in ACTIVATIONS if name != "to_int32" for p in PARAMETERS.get(name, [()])]
SPECIAL_POINTS = (0, 0.1, 1 / 3, 0.34657, 0.5, 0.69315, 0.7071, 0.9, 1, 1.4142, 1.5, 2, 2.5, 3, 3.9375, 6, 9, 9.01, 10)
SPECIAL_POINTS += tuple(turns * math.pi / 4 for turns in (1, 2, 3, 4, 5, 6, 7, 8, 354, 10_000, 222_222, 667_001))
SPECIAL_POINTS += (
    10.8125,
    14.625,
    17.3,
    18,
    20,
    87.336,
    88.7228,
    89,
    89.416,
    103.97,
    104,
    110,
    2**20,
    2**22,
    2**23,
    2**24,
    2**30,
)
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "uno": lambda a, b: np.isnan(a) | np.isnan(b),
}


class NumpyEmitter:
    """The operations on float32 and int32 arrays."""

    def constant(self, x: float) -> Any:
        return np.float32(x)

    def int_constant(self, x: int) -> Any:
        return np.int32(x)

    def fadd(self, a: Any, b: Any) -> Any:
        return a + b

    def fsub(self, a: Any, b: Any) -> Any:
        return a - b

    def fmul(self, a: Any, b: Any) -> Any:
        return a * b

    def fdiv(self, a: Any, b: Any) -> Any:
        return a / b

    def fmax(self, a: Any, b: Any) -> Any:
        return np.where(a < b, b, a)

    def fmin(self, a: Any, b: Any) -> Any:
        return np.where(a > b, b, a)

    def fneg(self, a: Any) -> Any:
        return -a

    def fabs(self, a: Any) -> Any:
        return np.abs(a)

    def fsqrt(self, a: Any) -> Any:
        return np.sqrt(a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return fused_multiply_add(a, b, c)

    def to_int(self, a: Any) -> Any:
        whole = np.trunc(np.nan_to_num(a.astype(np.float64), nan=0.0, posinf=2.0**31, neginf=-(2.0**31)))
        return np.clip(whole, -(2.0**31), 2.0**31 - 1).astype(np.int32)

    def to_int_nearest(self, a: Any) -> Any:
        return self.to_int(np.rint(a))

    def to_float(self, i: Any) -> Any:
        return i.astype(np.float32)

    def bits(self, a: Any) -> Any:
        return a.view(np.int32)

    def from_bits(self, i: Any) -> Any:
        return i.view(np.float32)

    def relu_bits(self, a: Any) -> Any:
        return a & ~(a >> 31)

    def isub(self, a: Any, b: Any) -> Any:
        return a - np.int32(b) if isinstance(b, int) else a - b

    def ishl(self, a: Any, b: int) -> Any:
        return a << np.int32(b)

    def iashr(self, a: Any, b: int) -> Any:
        return a >> np.int32(b)

    def iadd(self, a: Any, b: int) -> Any:
        return a + np.int32(b)

    def iand(self, a: Any, b: int) -> Any:
        return a & np.int32(b)

    def ixor(self, a: Any, b: Any) -> Any:
        return a ^ b

    def ilshr(self, a: Any, b: int) -> Any:
        return (a.view(np.uint32) >> np.uint32(b)).view(np.int32)

    def fselect(self, predicate: str, a: Any, b: Any, t: Any, f: Any) -> Any:
        return np.where(COMPARE[predicate](a, b), t, f)

    def iselect(self, predicate: str, a: Any, b: Any, t: Any, f: Any) -> Any:
        if predicate == "hi":
            return np.where(np.asarray(a).view(np.uint32) > np.asarray(b).view(np.uint32), t, f)
        return self.fselect(predicate, a, b, t, f)

    isel = iselect


NUMPY: Any = NumpyEmitter()


def samples(per_exponent: int = 1500) -> np.ndarray:
    """Every exponent with random mantissas, both signs; special values and what is near them."""
    random = np.random.default_rng(1)
    exponents = np.arange(255, dtype=np.uint32)[:, None] << 23
    mantissas = random.integers(0, 1 << 23, (255, per_exponent), dtype=np.uint32)
    mantissas[:, :2] = 0, (1 << 23) - 1
    magnitudes = [(exponents | mantissas).ravel().view(np.float32)]
    for point in SPECIAL_POINTS:
        near = np.float32(point).view(np.int32) + np.arange(-300, 300, dtype=np.int32)
        magnitudes.append(near[near >= 0].view(np.float32))
    magnitudes += [random.uniform(0, limit, 60_000).astype(np.float32) for limit in (1, 4, 16, 110)]
    positive = np.concatenate([*magnitudes, np.array([math.inf], np.float32)])
    return np.concatenate([positive, -positive, np.array([math.nan], np.float32)])


SAMPLES = samples()


def ulp_error(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance in units of the exact result's last place as a float32; infinite where only one is NaN.

    Beyond the largest float32 the exact value counts as 2^128, and so does an infinite result.
    """
    limit = 2.0**128
    clipped, wide = np.clip(exact, -limit, limit), np.clip(actual.astype(np.float64), -limit, limit)
    exponent = np.clip(np.frexp(clipped)[1] - 1, -126, 127)
    error = np.abs(wide - clipped) / np.ldexp(1.0, exponent - 23)
    nan = np.isnan(exact)
    error = np.where(nan == np.isnan(actual), np.where(nan, 0.0, error), math.inf)
    return np.where(np.isinf(exact) & (actual != exact), math.inf, error)


def test_there_are_a_million_samples():
    assert len(np.unique(SAMPLES)) > 1_000_000


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=lambda v: v if isinstance(v, str) else str(v))
def test_error_is_below_the_stated_bound(name: str, parameters: tuple[float, ...]):
    info = ACTIVATIONS[name]
    x = SAMPLES[~(SAMPLES > 0)] if name == "exp_nonpositive" else SAMPLES
    x = x if info.limits(*parameters) is None else x[~np.isnan(x)]  # see the test of NaN
    exact = info.reference(x.astype(np.float64), *parameters)
    with np.errstate(all="ignore"):
        actual = info.emit(NUMPY, x, *parameters)
        error = ulp_error(actual, exact)
    worst = int(np.argmax(error))
    assert actual.dtype == np.float32
    assert error[worst] <= info.max_ulp, f"{name}({x[worst]!r}) = {actual[worst]!r}, not {exact[worst]!r}"


INFINITE = {
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
    "erf": (-1, 1),
    "softsign": (-1, 1),
    "softplus": (0, math.inf),
    "silu": (0, math.inf),
    "gelu": (0, math.inf),
    "gelu_tanh": (0, math.inf),
    "mish": (0, math.inf),
    "hard_swish": (0, math.inf),
    "exp": (0, math.inf),
    "relu": (0, math.inf),
    "sinh": (-math.inf, math.inf),
    "cosh": (math.inf, math.inf),
    "asinh": (-math.inf, math.inf),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinities_give_the_limits(name: str):
    x = np.array([-math.inf, math.inf], np.float32)
    with np.errstate(all="ignore"):
        actual = ACTIVATIONS[name].emit(NUMPY, x)
    assert tuple(actual) == INFINITE[name]
    assert tuple(ACTIVATIONS[name].reference(x)) == INFINITE[name]


def test_log_outside_its_domain():
    x = np.array([0.0, -0.0, -1.0, -math.inf, math.inf, math.nan], np.float32)
    with np.errstate(all="ignore"):
        actual = ACTIVATIONS["log"].emit(NUMPY, x)
    np.testing.assert_array_equal(actual, [-math.inf, -math.inf, math.nan, math.nan, math.inf, math.nan])


def test_integers_are_kept_as_bits():
    x = np.array([0, 1, 7.9, -3.5, 2**24], np.float32)
    expected = np.array([0, 1, 7, -3, 2**24], np.int32)
    np.testing.assert_array_equal(ACTIVATIONS["to_int32"].emit(NUMPY, x), expected)
    np.testing.assert_array_equal(ACTIVATIONS["to_int32"].reference(x).view(np.int32), expected)


def test_nan_stays_and_is_beyond_infinity_where_values_are_limited():
    x = np.array([0x7FC00000, 0xFFC00000], dtype=np.uint32).view(np.float32)
    for name, parameters in CASES:
        with np.errstate(all="ignore"):
            actual = ACTIVATIONS[name].emit(NUMPY, x, *parameters)
        if name in ("step", "is_nan"):  # comparisons
            assert (actual == (name == "is_nan")).all()
            continue
        low, high = ACTIVATIONS[name].limits(*parameters) or (-math.inf, math.inf)
        low = 0 if name == "hard_swish" else low  # of what it limits -3 is mapped to
        assert np.isnan(actual[0]) if high == math.inf else actual[0] == high, name
        assert np.isnan(actual[1]) if low == -math.inf else actual[1] == low, name


def test_limits_are_what_is_done_last():
    for name, parameters in CASES:
        info = ACTIVATIONS[name]
        limits = info.limits(*parameters)
        if limits is None:
            assert info.inner is None, name
            continue
        x = SAMPLES[~np.isnan(SAMPLES)]
        with np.errstate(all="ignore"):
            inner = x if info.inner is None else info.inner(NUMPY, x, *parameters)
            actual = info.emit(NUMPY, x, *parameters)
        np.testing.assert_array_equal(actual, np.clip(inner, *(np.float32(v) for v in limits)))


def test_power():
    """Bases and exponents of every size; results up to the largest float32, and denormal ones."""
    random = np.random.default_rng(3)
    base = np.exp2(random.uniform(-140, 127, 300_000)) * random.choice([1, 1, -1], 300_000)
    exponent = random.uniform(-100, 89, 300_000) / np.log(np.abs(base) + 1e-300)
    exponent[::2] = np.rint(exponent[::2])
    near = 1 + random.uniform(-0.5, 0.6, 100_000)
    base, exponent = np.append(base, near), np.append(exponent, random.uniform(-100, 88, 100_000) / np.log(near))
    special = [0, 0.5, 1, 2, 3, 2.0**24, math.inf]
    special = np.array([sign * v for v in special for sign in (1, -1)] + [math.nan])
    pairs = np.array(np.meshgrid(special, special)).reshape(2, -1)
    x, y = (np.append(a, b).astype(np.float32) for a, b in zip((base, exponent), pairs, strict=True))
    with np.errstate(all="ignore"):
        exact = elementary_power.reference(x, y)
        error = ulp_error(elementary_power.power(NUMPY, x, y), exact)
    worst = int(np.argmax(error))
    assert error[worst] <= 24, f"{x[worst]!r}^{y[worst]!r}"


def test_prelu():
    x = np.array([-2.0, -0.0, 0.0, 3.0, math.nan, -math.inf], np.float32)
    actual = prelu(NUMPY, x, np.array([0.5, 7.0, 7.0, 0.5, 1.0, 2.0], np.float32))
    np.testing.assert_array_equal(actual, np.array([-1.0, 0.0, 0.0, 3.0, math.nan, -math.inf], np.float32))


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=lambda v: v if isinstance(v, str) else str(v))
def test_interleaved_lanes_give_the_same_as_one(name: str, parameters: tuple[float, ...]):
    x = np.linspace(-5, 5, 64, dtype=np.float32)
    emit = ACTIVATIONS[name].emit
    lanes = Interleaved(NUMPY, 2, {})
    with np.errstate(all="ignore"):
        first, second = emit(lanes, (x[:32], x[32:]), *parameters)
        np.testing.assert_array_equal(np.concatenate([first, second]), emit(NUMPY, x, *parameters))


def exact_fma(a: float, b: float, c: float) -> np.float32:
    """Rounds the rational a * b + c by comparing it with the neighbours of a first guess."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    guess = np.float32(float(exact))
    candidates = [np.nextafter(guess, np.float32(-math.inf)), guess, np.nextafter(guess, np.float32(math.inf))]
    return min(candidates, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.int32)) & 1))


def test_fused_multiply_add_is_rounded_once():
    random = np.random.default_rng(2)
    a, b = (random.uniform(1, 2, 6000).astype(np.float32) for _ in range(2))
    a[:3000] = np.float32(1) + random.integers(0, 64, 3000).astype(np.float32) * np.float32(2.0**-12)
    b[:3000] = np.float32(1) + random.integers(0, 64, 3000).astype(np.float32) * np.float32(2.0**-12)
    c = (random.choice([-1, 1], 6000) * np.exp2(random.integers(-70, 30, 6000).astype(np.float64))).astype(np.float32)
    c[::7] = -(a * b)[::7]
    a[::11] *= np.float32(2.0**-130)
    expected = np.array([exact_fma(*map(float, v)) for v in zip(a, b, c, strict=True)])
    np.testing.assert_array_equal(fused_multiply_add(a, b, c), expected)


def test_fused_multiply_add_of_special_values():
    assert fused_multiply_add(1 + 2.0**-23, 1 + 2.0**-23, -(1 + 2.0**-22)) == 2.0**-46
    assert fused_multiply_add(1 + 2.0**-12, 1 + 2.0**-12, 2.0**-80) == np.float32(1 + 2.0**-11 + 2.0**-23)
    assert fused_multiply_add(3e38, 3e38, -math.inf) == -math.inf
    assert fused_multiply_add(3e38, 3e38, 0) == math.inf
    assert fused_multiply_add(2.0**-149, 0.5, 2.0**-149) == 2.0**-148
    assert math.isnan(fused_multiply_add(math.inf, 0, 1))
    assert fused_multiply_add(1.0, 2.0, 3.0).dtype == np.float32
