"""Circular and hyperbolic functions and their inverses, as sequences of float32 operations without branches.

The polynomials are minimax fits made like those of `elementary_transcendental`; the remaining error is given with each,
relative to the function it serves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ml4f.backend.loop.elementary_transcendental import NAN_BITS, ROUNDING, horner, log_normal, negative_or, scaled_exp

if TYPE_CHECKING:
    from ml4f.backend.loop.elementary import Emitter

Value = Any

HALF_PI = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
"""pi/2 in three float32 (Cody and Waite): what is missing is less than 2^-76."""
LARGEST_ANGLE = 2.0**20
"""Angles from here on have no sine: their quarter turns would need a longer 2/pi, and neighbouring float32 are an
eighth of a radian apart.
"""

SIN = (-0.1666666716337204, 0.008333373814821243, -0.0001985017443075776, 2.798435616568895e-06)
"""(sin(r) - r) / r^3 in r^2, on |r| <= 0.83; below 0.01 * 2^-24."""
COS = (0.04166663810610771, -0.00138869509100914, 2.4392225896008313e-05)
"""(cos(r) - 1 + r^2/2) / r^4 in r^2, on |r| <= 0.83; below 0.01 * 2^-24."""
ATAN = (
    -0.33333298563957214,
    0.1999852955341339,
    -0.14264015853405,
    0.10950880497694016,
    -0.08399306237697601,
    0.05788138881325722,
    -0.031096985563635826,
    0.010868685320019722,
    -0.0017828206764534116,
)
"""(atan(t) - t) / t^3 in t^2, on |t| <= 1; 0.04 * 2^-24."""
ASIN = (0.16666752099990845, 0.074953094124794, 0.04546914994716644, 0.024184778332710266, 0.042158305644989014)
"""(asin(t) - t) / t^3 in t^2, on |t| <= 1/2; 0.08 * 2^-24."""
SINH = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)
"""(sinh(x) - x) / x^3 in x^2, on |x| <= 1; 0.01 * 2^-24."""
ASINH = (-0.1666664332151413, 0.07498640567064285, -0.04438295215368271, 0.02816091850399971, -0.013222870416939259)
"""(asinh(x) - x) / x^3 in x^2, on |x| <= 1/2; 0.02 * 2^-24."""
ATANH = (
    0.33333301544189453,
    0.2000245451927185,
    0.14223745465278625,
    0.11816761642694473,
    0.05158964917063713,
    0.17639920115470886,
)
"""(atanh(x) - x) / x^3 in x^2, on |x| <= 1/2; 0.02 * 2^-24."""


def _odd(e: Emitter, x: Value, square: Value, coefficients: tuple[float, ...]) -> Value:
    """x + x^3 P(x^2)."""
    return e.fadd(x, e.fmul(e.fmul(x, square), horner(e, square, coefficients)))


def _turned(e: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """(quarter turns in the low bits, sin(r), cos(r)) where x is r and those quarter turns.

    |r| <= pi/4 + 0.042: at the largest angle 2/pi in float32 is wrong by 0.027 turns.
    """
    magic = e.constant(ROUNDING)
    shifted = e.fma(x, e.constant(2 / math.pi), magic)
    turns = e.fsub(shifted, magic)
    r = x
    for part in HALF_PI:
        r = e.fma(turns, e.constant(-part), r)
    square = e.fmul(r, r)
    sine = _odd(e, r, square, SIN)
    tail = e.fmul(e.fmul(square, square), horner(e, square, COS))
    cosine = e.fadd(e.fsub(e.constant(1.0), e.fmul(square, e.constant(0.5))), tail)
    return e.bits(shifted), sine, cosine


def _within_range(e: Emitter, x: Value, result: Value) -> Value:
    """The result, or NaN of angles that are too large and of infinities."""
    return e.fselect("lt", e.fabs(x), e.constant(LARGEST_ANGLE), result, e.from_bits(e.int_constant(NAN_BITS)))


def _circular(e: Emitter, x: Value, ahead: int) -> Value:
    """The sine of x and so many quarter turns."""
    turns, sine, cosine = _turned(e, x)
    if ahead:
        turns = e.iadd(turns, ahead)
    size = e.iselect("ne", e.iand(turns, 1), 0, cosine, sine)
    sign = e.ishl(e.ilshr(turns, 1), 31)
    return _within_range(e, x, e.from_bits(e.ixor(e.bits(size), sign)))


def sin(e: Emitter, x: Value) -> Value:
    """By the remainder of quarter turns; NaN from `LARGEST_ANGLE` on."""
    return _circular(e, x, 0)


def cos(e: Emitter, x: Value) -> Value:
    """The sine a quarter turn ahead; NaN from `LARGEST_ANGLE` on."""
    return _circular(e, x, 1)


def tan(e: Emitter, x: Value) -> Value:
    """sin / cos, or -cos / sin in every other quarter; NaN from `LARGEST_ANGLE` on."""
    turns, sine, cosine = _turned(e, x)
    odd = e.iand(turns, 1)
    upper = e.iselect("ne", odd, 0, cosine, sine)
    lower = e.iselect("ne", odd, 0, e.fneg(sine), cosine)
    return _within_range(e, x, e.fdiv(upper, lower))


def atan(e: Emitter, x: Value) -> Value:
    """A polynomial where |x| <= 1, else pi/2 minus that of 1 / |x|."""
    a, one = e.fabs(x), e.constant(1.0)
    t = e.fselect("gt", a, one, e.fdiv(one, a), a)
    small = _odd(e, t, e.fmul(t, t), ATAN)
    y = e.fselect("gt", a, one, e.fsub(e.constant(HALF_PI[0]), small), small)
    return negative_or(e, x, e.fneg(y), y)


def _arc(e: Emitter, a: Value) -> Value:
    """asin(a) where a <= 1/2, else asin(sqrt((1 - a) / 2)), which is (pi/2 - asin(a)) / 2; NaN where a > 1."""
    half = e.constant(0.5)
    square = e.fselect("gt", a, half, e.fmul(e.fsub(e.constant(1.0), a), half), e.fmul(a, a))
    t = e.fselect("gt", a, half, e.fsqrt(square), a)
    return _odd(e, t, square, ASIN)


def asin(e: Emitter, x: Value) -> Value:
    """NaN outside of -1 to 1."""
    a = e.fabs(x)
    arc = _arc(e, a)
    rest = e.fsub(e.constant(HALF_PI[0]), e.fsub(e.fadd(arc, arc), e.constant(HALF_PI[1])))
    y = e.fselect("gt", a, e.constant(0.5), rest, arc)
    return negative_or(e, x, e.fneg(y), y)


def acos(e: Emitter, x: Value) -> Value:
    """pi/2 - asin(x), without loss near 1; NaN outside of -1 to 1."""
    a = e.fabs(x)
    arc = _arc(e, a)
    twice = e.fadd(arc, arc)
    outer = negative_or(e, x, e.fsub(e.constant(2 * HALF_PI[0]), twice), twice)
    inner = e.fsub(e.constant(HALF_PI[0]), negative_or(e, x, e.fneg(arc), arc))
    return e.fselect("gt", a, e.constant(0.5), outer, inner)


def _quarter_exp(e: Emitter, a: Value) -> Value:
    """exp(a) / 4 of a >= 0, infinite where exp(a) / 2 is."""
    return scaled_exp(e, e.fmin(a, e.constant(90.0)), -2)


def sinh(e: Emitter, x: Value) -> Value:
    """A polynomial where |x| < 1, else (exp(|x|) - exp(-|x|)) / 2 with x's sign."""
    a = e.fabs(x)
    quarter = _quarter_exp(e, a)
    large = e.fsub(e.fadd(quarter, quarter), e.fdiv(e.constant(0.125), quarter))
    y = e.fselect("lt", a, e.constant(1.0), _odd(e, a, e.fmul(a, a), SINH), large)
    return negative_or(e, x, e.fneg(y), y)


def cosh(e: Emitter, x: Value) -> Value:
    """(exp(|x|) + exp(-|x|)) / 2."""
    quarter = _quarter_exp(e, e.fabs(x))
    return e.fadd(e.fadd(quarter, quarter), e.fdiv(e.constant(0.125), quarter))


def _asinh(e: Emitter, a: Value) -> Value:
    """Of a >= 0: a polynomial where a < 1/2, else log(a + sqrt(a^2 + 1))."""
    half, square = e.constant(0.5), e.fmul(a, a)
    root = e.fselect("gt", a, e.constant(2.0**30), a, e.fsqrt(e.fadd(square, e.constant(1.0))))
    middle = e.fadd(e.fmul(a, half), e.fmul(root, half))
    large = log_normal(e, middle, e.constant(-1.0))
    large = e.fselect("lt", a, e.constant(math.inf), large, a)
    return e.fselect("lt", a, half, _odd(e, a, square, ASINH), large)


def asinh(e: Emitter, x: Value) -> Value:
    """sign(x) * log(|x| + sqrt(x^2 + 1))."""
    y = _asinh(e, e.fabs(x))
    return negative_or(e, x, e.fneg(y), y)


def acosh(e: Emitter, x: Value) -> Value:
    """2 asinh(sqrt((x - 1) / 2)), which loses nothing near 1; NaN where x < 1."""
    y = _asinh(e, e.fsqrt(e.fmul(e.fsub(x, e.constant(1.0)), e.constant(0.5))))
    return e.fadd(y, y)


def atanh(e: Emitter, x: Value) -> Value:
    """A polynomial where |x| < 1/2, else log((1 + |x|) / (1 - |x|)) / 2 with x's sign; NaN beyond -1 and 1."""
    a, one, half = e.fabs(x), e.constant(1.0), e.constant(0.5)
    quotient = e.fdiv(e.fadd(one, a), e.fsub(one, a))
    large = e.fmul(log_normal(e, quotient, e.constant(0.0)), half)
    outside = e.fselect("eq", a, one, e.constant(math.inf), e.from_bits(e.int_constant(NAN_BITS)))
    y = e.fselect("lt", a, half, _odd(e, a, e.fmul(a, a), ATANH), e.fselect("lt", a, one, large, outside))
    return negative_or(e, x, e.fneg(y), y)
