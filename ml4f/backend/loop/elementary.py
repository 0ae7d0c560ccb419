"""Activation functions as short, branch-free sequences of float32 and int32 operations.

Each function is written once against an abstract `Emitter`: a builder turns it into operations, an estimator into
cycles, a numpy evaluator into numbers. `ACTIVATIONS` maps the names of the nn dialect to those functions, to their
exact definitions in float64 (`elementary_reference`) and to the error they may have. Functions see emitters and
parameters, never values. Those that need an exponential or a logarithm are in `elementary_transcendental`, sines and
their like in `elementary_trigonometric`.

Where the sign decides, the bit pattern is compared instead of the value: that needs no constant in a register.
NaN gives NaN, but where values are limited to a range with 0 in it (`limit_bits`): that compares bit patterns, in
which NaN lies beyond infinity. It becomes the limit on the side of its sign bit, and stays where there is none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ml4f.backend.loop import elementary_reference as reference
from ml4f.backend.loop import elementary_transcendental as transcendental
from ml4f.backend.loop import elementary_trigonometric as trigonometric

Value = Any
"""A value of the emitter."""


class Emitter(Protocol):
    """The operations a function may use; `ml4f.dialects.loop.values` defines each exactly."""

    def constant(self, x: float) -> Value: ...
    def int_constant(self, x: int) -> Value: ...
    def fadd(self, a: Value, b: Value) -> Value: ...
    def fsub(self, a: Value, b: Value) -> Value: ...
    def fmul(self, a: Value, b: Value) -> Value: ...
    def fdiv(self, a: Value, b: Value) -> Value: ...
    def fmax(self, a: Value, b: Value) -> Value: ...
    def fmin(self, a: Value, b: Value) -> Value: ...
    def fneg(self, a: Value) -> Value: ...
    def fabs(self, a: Value) -> Value: ...
    def fsqrt(self, a: Value) -> Value: ...
    def fma(self, a: Value, b: Value, c: Value) -> Value: ...
    def to_int(self, a: Value) -> Value: ...
    def to_int_nearest(self, a: Value) -> Value: ...
    def to_float(self, i: Value) -> Value: ...
    def bits(self, a: Value) -> Value: ...
    def from_bits(self, i: Value) -> Value: ...
    def relu_bits(self, a: Value) -> Value: ...
    def imax(self, a: Value, b: Value) -> Value: ...
    def iadd(self, a: Value, b: Value | int) -> Value: ...
    def isub(self, a: Value, b: Value | int) -> Value: ...
    def imul(self, a: Value, b: Value | int) -> Value: ...
    def iand(self, a: Value, b: Value | int) -> Value: ...
    def ior(self, a: Value, b: Value | int) -> Value: ...
    def ixor(self, a: Value, b: Value | int) -> Value: ...
    def ibic(self, a: Value, b: Value | int) -> Value: ...
    def ishl(self, a: Value, b: int) -> Value: ...
    def ilshr(self, a: Value, b: int) -> Value: ...
    def iashr(self, a: Value, b: int) -> Value: ...
    def fselect(self, predicate: str, a: Value, b: Value, t: Value, f: Value) -> Value: ...
    def iselect(self, predicate: str, a: Value, b: Value | int, t: Value, f: Value) -> Value: ...
    def isel(self, predicate: str, a: Value, b: Value | int, t: Value, f: Value) -> Value: ...


@dataclass(frozen=True)
class ActivationInfo:
    """One function.

    `emit(emitter, x, *parameters)` is its value in float32 operations; `reference(x, *parameters)` its exact definition
    on float64 arrays; `max_ulp` the largest error of `emit` against the reference, in units of the float32 result's
    last place, over all float32; `live` roughly how many float registers it needs at once, hoisted constants aside.
    Parameters are Python floats that are rounded to float32 first, by both.

    `limits(*parameters)` is a range (low, high) to which the result is limited by the last thing that `emit` does, or
    None; `inner` is what it does before that, or None for nothing. Who wants the result in a core register does the
    two by himself.
    """

    emit: Callable[..., Value]
    reference: Callable[..., np.ndarray]
    max_ulp: float
    live: int
    limits: Callable[..., tuple[float, float] | None] = lambda *parameters: None
    inner: Callable[..., Value] | None = None


def _linear(e: Emitter, x: Value) -> Value:
    return x


def _relu(e: Emitter, x: Value) -> Value:
    return e.from_bits(e.relu_bits(e.bits(x)))


def around_zero(low: float, high: float) -> tuple[float, float] | None:
    """The range, if `limit_bits` can limit to it."""
    return (low, high) if low <= 0 <= high else None


def limit_bits(e: Emitter, bits: Value, low: float, high: float) -> Value:
    """The bit pattern of a float limited to a range with 0 in it.

    Unsigned, the patterns of negative numbers grow with the magnitude, beyond those of all others; signed, those of
    positive numbers do, above those of all others.
    """
    if low == 0:
        bits = e.relu_bits(bits)
    elif low > -math.inf:
        lowest = e.int_constant(float_bits(low))
        bits = e.isel("hi", bits, lowest, lowest, bits)
    if high < math.inf:
        highest = e.int_constant(float_bits(high + 0.0))  # -0.0 is no upper limit
        bits = e.isel("gt", bits, highest, highest, bits)
    return bits


def float_bits(x: float) -> int:
    """The bit pattern of the nearest float32, as a signed number."""
    return struct.unpack("<i", struct.pack("<f", x))[0]


def _limited(e: Emitter, x: Value, low: float, high: float) -> Value:
    return e.from_bits(limit_bits(e, e.bits(x), low, high))


def _relu6(e: Emitter, x: Value) -> Value:
    return _limited(e, x, 0.0, 6.0)


def _clip(e: Emitter, x: Value, low: float, high: float) -> Value:
    if around_zero(low, high):
        return _limited(e, x, low, high) if low > -math.inf or high < math.inf else x
    return _between(e, x, low, high)


def _between(e: Emitter, x: Value, low: float, high: float) -> Value:
    """The same by comparing floats."""
    if low > -math.inf:
        x = e.fmax(x, e.constant(low))
    if high < math.inf:
        x = e.fmin(x, e.constant(high))
    return x


def prelu(e: Emitter, x: Value, slope: Value) -> Value:
    """`x` where `x >= 0`, else `slope * x`."""
    return e.iselect("ge", e.bits(x), e.int_constant(0), x, e.fmul(x, slope))


def where(e: Emitter, x: Value, mask: Value) -> Value:
    """`x` where the mask is not 0, else 0: also where x is infinite or no number."""
    zero = e.constant(0.0)
    return e.fselect("ne", mask, zero, x, zero)


def _leaky_relu(e: Emitter, x: Value, alpha: float) -> Value:
    if 0 < alpha <= 1:
        return e.fmax(x, e.fmul(x, e.constant(alpha)))
    return prelu(e, x, e.constant(alpha))


def _thresholded_relu(e: Emitter, x: Value, alpha: float) -> Value:
    return e.fselect("le", x, e.constant(alpha), e.constant(0.0), x)


def _keras_limits(max_value: float, negative_slope: float, threshold: float) -> tuple[float, float] | None:
    return around_zero(0.0, max_value) if negative_slope == 0 and threshold == 0 else None


def _keras_relu(e: Emitter, x: Value, max_value: float, negative_slope: float, threshold: float) -> Value:
    if _keras_limits(max_value, negative_slope, threshold) is not None:
        return _limited(e, x, 0.0, max_value)
    if negative_slope == 0 and threshold == 0:
        y = e.fmax(x, e.constant(0.0))
    elif negative_slope == 0:
        y = e.fselect("lt", x, e.constant(threshold), e.constant(0.0), x)
    elif threshold == 0:
        y = _leaky_relu(e, x, negative_slope)
    else:
        limit = e.constant(threshold)
        y = e.fselect("lt", x, limit, e.fmul(e.fsub(x, limit), e.constant(negative_slope)), x)
    if max_value < math.inf:
        top = e.constant(max_value)
        y = e.fselect("ge", x, top, top, y)
    return y


def _line(e: Emitter, x: Value, alpha: float, beta: float) -> Value:
    # Rounded once, so that nothing cancels where alpha * x is close to -beta.
    return e.fma(x, e.constant(alpha), e.constant(beta))


def _hard_sigmoid(e: Emitter, x: Value, alpha: float, beta: float) -> Value:
    return _limited(e, _line(e, x, alpha, beta), 0.0, 1.0)


def _hard_swish(e: Emitter, x: Value) -> Value:
    # x + 3 is exact near -3, where x / 6 + 0.5 would cancel; below, the factor is 0 and x must not be -inf.
    x = _limited(e, x, -3.0, math.inf)
    gate = _limited(e, e.fadd(x, e.constant(3.0)), -math.inf, 6.0)
    return e.fmul(x, e.fmul(gate, e.constant(1 / 6)))


def _softsign(e: Emitter, x: Value) -> Value:
    # 2^30 is far beyond where the result is 1, and keeps infinities out of the quotient.
    x = _between(e, x, -(2.0**30), 2.0**30)
    return e.fdiv(x, e.fadd(e.fabs(x), e.constant(1.0)))


def _sqrt(e: Emitter, x: Value) -> Value:
    return e.fsqrt(x)


def _reciprocal(e: Emitter, x: Value) -> Value:
    return e.fdiv(e.constant(1.0), x)


def _abs(e: Emitter, x: Value) -> Value:
    return e.fabs(x)


def _neg(e: Emitter, x: Value) -> Value:
    return e.fneg(x)


def _square(e: Emitter, x: Value) -> Value:
    return e.fmul(x, x)


def _keep_integers(e: Emitter, x: Value, rounded: Value) -> Value:
    """`rounded`, but x itself from 2^23 up, where every float32 is an integer, and for NaN."""
    return e.fselect("lt", e.fabs(x), e.constant(2.0**23), rounded, x)


def _floor(e: Emitter, x: Value) -> Value:
    towards_zero = e.to_float(e.to_int(x))
    below = e.fsub(towards_zero, e.constant(1.0))
    return _keep_integers(e, x, e.fselect("gt", towards_zero, x, below, towards_zero))


def _ceil(e: Emitter, x: Value) -> Value:
    towards_zero = e.to_float(e.to_int(x))
    above = e.fadd(towards_zero, e.constant(1.0))
    return _keep_integers(e, x, e.fselect("lt", towards_zero, x, above, towards_zero))


def _round(e: Emitter, x: Value) -> Value:
    return _keep_integers(e, x, e.to_float(e.to_int_nearest(x)))


def _step(e: Emitter, x: Value) -> Value:
    zero = e.constant(0.0)
    return e.fselect("gt", x, zero, e.constant(1.0), zero)


def _is_nan(e: Emitter, x: Value) -> Value:
    return e.fselect("uno", x, x, e.constant(1.0), e.constant(0.0))


def _sign(e: Emitter, x: Value) -> Value:
    zero = e.constant(0.0)
    return e.fselect("gt", x, zero, e.constant(1.0), e.fselect("lt", x, zero, e.constant(-1.0), x))


def _to_int32(e: Emitter, x: Value) -> Value:
    """The bits of the integer: the last thing that is done to an output."""
    return e.to_int(x)


ACTIVATIONS: dict[str, ActivationInfo] = {
    "linear": ActivationInfo(_linear, reference.linear, 0, 0),
    "relu": ActivationInfo(_relu, reference.relu, 0, 1, lambda: (0.0, math.inf)),
    "relu6": ActivationInfo(_relu6, reference.relu6, 0, 2, lambda: (0.0, 6.0)),
    "clip": ActivationInfo(_clip, reference.clip, 0, 2, around_zero),
    "leaky_relu": ActivationInfo(_leaky_relu, reference.leaky_relu, 0.5, 2),
    "thresholded_relu": ActivationInfo(_thresholded_relu, reference.thresholded_relu, 0, 3),
    "keras_relu": ActivationInfo(_keras_relu, reference.keras_relu, 1.5, 4, _keras_limits),
    "hard_sigmoid": ActivationInfo(_hard_sigmoid, reference.hard_sigmoid, 0.5, 3, lambda a, b: (0.0, 1.0), _line),
    "hard_swish": ActivationInfo(_hard_swish, reference.hard_swish, 3, 3),
    "softsign": ActivationInfo(_softsign, reference.softsign, 1.5, 3),
    "sqrt": ActivationInfo(_sqrt, reference.sqrt, 0.5, 1),
    "reciprocal": ActivationInfo(_reciprocal, reference.reciprocal, 0.5, 2),
    "abs": ActivationInfo(_abs, reference.absolute, 0, 1),
    "neg": ActivationInfo(_neg, reference.negative, 0, 1),
    "square": ActivationInfo(_square, reference.square, 0.5, 1),
    "floor": ActivationInfo(_floor, reference.floor, 0, 4),
    "ceil": ActivationInfo(_ceil, reference.ceil, 0, 4),
    "round": ActivationInfo(_round, reference.round_half_even, 0, 4),
    "sign": ActivationInfo(_sign, reference.sign, 0, 4),
    "to_int32": ActivationInfo(_to_int32, reference.to_int32, 0, 1),
    "step": ActivationInfo(_step, reference.step, 0, 3),
    "exp": ActivationInfo(transcendental.exp, reference.exp, 1, 7),
    "exp_nonpositive": ActivationInfo(transcendental.exp_nonpositive, reference.exp, 1, 7),
    "elu": ActivationInfo(transcendental.elu, reference.elu, 4, 8),
    "selu": ActivationInfo(transcendental.selu, reference.selu, 4, 8),
    "celu": ActivationInfo(transcendental.celu, reference.celu, 4, 8),
    "sigmoid": ActivationInfo(transcendental.sigmoid, reference.sigmoid, 4, 8),
    "tanh": ActivationInfo(transcendental.tanh, reference.tanh, 4, 7),
    "softplus": ActivationInfo(transcendental.softplus, reference.softplus, 4, 8),
    "silu": ActivationInfo(transcendental.silu, reference.silu, 4, 10),
    "mish": ActivationInfo(transcendental.mish, reference.mish, 4, 9),
    "log": ActivationInfo(transcendental.log, reference.log, 4, 7),
    "gelu": ActivationInfo(transcendental.gelu, reference.gelu, 4, 10),
    "gelu_tanh": ActivationInfo(transcendental.gelu_tanh, reference.gelu_tanh, 4, 10),
    "erf": ActivationInfo(transcendental.erf, reference.erf, 4, 9),
    "sin": ActivationInfo(trigonometric.sin, reference.sin, 4, 9),
    "cos": ActivationInfo(trigonometric.cos, reference.cos, 4, 9),
    "tan": ActivationInfo(trigonometric.tan, reference.tan, 4, 9),
    "asin": ActivationInfo(trigonometric.asin, reference.asin, 4, 6),
    "acos": ActivationInfo(trigonometric.acos, reference.acos, 4, 7),
    "atan": ActivationInfo(trigonometric.atan, reference.atan, 4, 6),
    "sinh": ActivationInfo(trigonometric.sinh, reference.sinh, 4, 9),
    "cosh": ActivationInfo(trigonometric.cosh, reference.cosh, 4, 7),
    "asinh": ActivationInfo(trigonometric.asinh, reference.asinh, 4, 9),
    "acosh": ActivationInfo(trigonometric.acosh, reference.acosh, 4, 9),
    "atanh": ActivationInfo(trigonometric.atanh, reference.atanh, 4, 9),
    "is_nan": ActivationInfo(_is_nan, reference.is_nan, 0, 3),
}
"""By the name of the nn dialect's activation."""

NEVER_DECREASING = frozenset(
    {"linear", "relu", "relu6", "clip", "sigmoid", "tanh", "exp", "exp_nonpositive", "softplus", "softsign"}
)
"""Never decreasing, whatever their parameters; not sqrt and log, which have no value below 0."""

SLOPES = {"leaky_relu": 1, "hard_sigmoid": 1, "elu": 1, "celu": 1, "selu": 2}
"""Those that never decrease if their first parameters, so many, are not negative."""


def monotone(function: str, parameters: Sequence[float]) -> bool:
    """Whether an activation never decreases: ends of a range map to ends, and it may be applied behind a maximum."""
    if function in SLOPES:
        return all(p >= 0 for p in parameters[: SLOPES[function]])
    return function in NEVER_DECREASING


def fused_multiply_add(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` on float32 (scalars or arrays), rounded to float32 once.

    The product of two float32 is exact in float64. The sum is rounded to odd there (Boldo and Melquiond, "Emulation of
    FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008), which makes its second rounding, to
    float32, the right one.
    """
    with np.errstate(all="ignore"):
        a, b, c = (np.asarray(v, dtype=np.float32).astype(np.float64) for v in (a, b, c))
        product = a * b
        total = np.asarray(product + c)
        back = total - product  # Knuth's two-sum: error = product + c - total exactly
        error = (product - (total - back)) + (c - back)
        pattern = total.view(np.int64)
        step = np.where((error > 0) == (total > 0), 1, -1)
        inexact = np.isfinite(total) & (error != 0) & (pattern & 1 == 0)
        odd = np.where(inexact, pattern + step, pattern).view(np.float64)
        return odd.astype(np.float32)[()]
