"""Powers of computed values, as a sequence of float32 operations without branches: `power`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ml4f.backend.loop.elementary_transcendental import (
    LN2_HIGH,
    LN2_LOW,
    LOG,
    NAN_BITS,
    SQRT_HALF_BITS,
    horner,
    reduce_product,
)

if TYPE_CHECKING:
    from ml4f.backend.loop.elementary import Emitter

Value = Any

ALL_EVEN = 2.0**24
"""Every float32 from here on is an even number."""


def _log_parts(e: Emitter, a: Value) -> tuple[Value, Value]:
    """log(a) as a float32 and what is missing in it, for a >= 0.

    The sum n ln 2 + f - f^2 / 2 is carried with its errors (fast two-sums: each summand is larger than the next).
    """
    smallest_normal, zero = e.constant(2.0**-126), e.constant(0.0)
    normal = e.fselect("lt", a, smallest_normal, e.fmul(a, e.constant(2.0**24)), a)
    correction = e.fselect("lt", a, smallest_normal, e.constant(24.0), zero)
    bits = e.bits(normal)
    exponent = e.iashr(e.isub(bits, e.int_constant(SQRT_HALF_BITS)), 23)
    f = e.fsub(e.from_bits(e.isub(bits, e.ishl(exponent, 23))), e.constant(1.0))
    n = e.fsub(e.to_float(exponent), correction)
    square, half = e.fmul(f, f), e.constant(0.5)
    square_error = e.fma(f, f, e.fneg(square))
    high = e.fmul(n, e.constant(LN2_HIGH))
    first = e.fadd(high, f)
    error = e.fsub(f, e.fsub(first, high))
    part = e.fmul(square, half)
    second = e.fsub(first, part)
    error = e.fsub(error, e.fsub(part, e.fsub(first, second)))
    tail = e.fmul(e.fmul(square, f), horner(e, f, LOG))
    tail = e.fadd(e.fsub(tail, e.fmul(square_error, half)), e.fmul(n, e.constant(LN2_LOW)))
    tail = e.fadd(tail, error)
    total = e.fadd(second, tail)
    missing = e.fsub(tail, e.fsub(total, second))
    total = e.fselect("lt", a, e.constant(math.inf), total, a)
    return e.fselect("eq", a, zero, e.constant(-math.inf), total), missing


def power(e: Emitter, x: Value, y: Value) -> Value:
    """x^y = exp(y log |x|), negative where x is and y is odd; NaN where x < 0 and y is no integer; 1 where y is 0.

    The logarithm and its product with y are carried in two floats: within 24 units of the last place, nearly always
    within two. Zeros count as positive.
    """
    size, one, zero = e.fabs(x), e.constant(1.0), e.constant(0.0)
    log_size, missing = _log_parts(e, size)
    shifted, head, tail = reduce_product(e, y, log_size, missing, 2 * 127)
    bits = e.bits(shifted)
    half = e.iashr(bits, 1)
    first = e.from_bits(e.ishl(half, 23))
    second = e.from_bits(e.ishl(e.isub(bits, half), 23))
    result = e.fmul(e.fmul(e.fadd(e.fadd(head, tail), one), first), second)
    exponent = e.fmul(y, log_size)
    result = e.fselect("gt", exponent, e.constant(89.0), e.constant(math.inf), result)
    result = e.fselect("lt", exponent, e.constant(-104.0), zero, result)
    result = e.fselect("eq", size, one, one, result)
    limit = e.constant(ALL_EVEN)
    clamped = e.fmin(e.fmax(y, e.fneg(limit)), limit)
    whole = e.to_int(clamped)
    signed = e.from_bits(e.ixor(e.bits(result), e.ishl(whole, 31)))
    signed = e.fselect("eq", e.to_float(whole), clamped, signed, e.from_bits(e.int_constant(NAN_BITS)))
    result = e.fselect("lt", x, zero, signed, result)
    return e.fselect("eq", y, zero, one, result)


def reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The exact definition, in float64."""
    with np.errstate(all="ignore"):
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        powers = np.power(np.where(x == 0, 0.0, x), y)
        return np.where((x < 0) & (y != np.trunc(y)), math.nan, powers)
