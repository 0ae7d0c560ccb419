"""Exponentials, logarithms and what is made of them, as sequences of float32 operations without branches.

All exponentials come from one reduction, exp(x) = 2^n * (1 + m) with |r| = |x - n ln 2| <= ln(2)/2 and
m = r + r^2 Q(r). The coefficients here are minimax fits of this project's own (Lawson's iteration on Chebyshev nodes
in float64, each coefficient rounded to float32 before the remaining ones are fitted again); the error that remains
is given with each, relative to the function it serves. Cycles are the Cortex-M4's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml4f.backend.loop.elementary import Emitter

Value = Any

LOG2_E = math.log2(math.e)
LN2_HIGH = 0.693359375
"""ln 2 in nine bits: its product with any n in use is exact (Cody and Waite)."""
LN2_LOW = math.log(2) - LN2_HIGH

ROUNDING = 1.5 * 2.0**23
"""Added to |t| < 2^22 it rounds t to an integer and leaves it in the low bits of the sum's bit pattern."""

EXP_Q = (0.4999999701976776, 0.1666654497385025, 0.04166746139526367, 0.008366432040929794, 0.0013868435053154826)
"""(e^r - 1 - r) / r^2 on |r| <= ln(2)/2; 0.24 * 2^-24 of e^r - 1."""

LOG1P = (
    1.0,
    -0.4999993145465851,
    0.33330464363098145,
    -0.24958020448684692,
    0.1969212144613266,
    -0.15344977378845215,
    0.10661371052265167,
    -0.0574604868888855,
    0.020088469609618187,
    -0.0032910797744989395,
)
"""log(1 + u) / u on 0 <= u <= 1; 0.09 * 2^-24."""

LOG = (
    0.3333333134651184,
    -0.250008225440979,
    0.20001250505447388,
    -0.1662331521511078,
    0.14201273024082184,
    -0.13160189986228943,
    0.12764763832092285,
    -0.07638189196586609,
)
"""(log(1 + f) - f + f^2/2) / f^3 for 1 + f from sqrt(1/2) to sqrt(2); 0.1 * 2^-24 of log(1 + f)."""


NORMAL_TAIL_CENTRE = 0.28125
NORMAL_TAIL = (
    0.7142118811607361,
    1.3475475311279297,
    0.24171632528305054,
    -2.3032126426696777,
    0.8303163647651672,
    5.240904331207275,
    -9.636805534362793,
    -3.1192357540130615,
    41.461280822753906,
    -33.75575256347656,
    -79.0674819946289,
)
"""(a + 2) * exp(a^2 / 2) * erfc(a / sqrt(2)) / 2 in 1 / (a + 2) - NORMAL_TAIL_CENTRE, on 0 <= a <= 14.64;
0.45 * 2^-24."""

ERF_SMALL = (
    1.1283791065216064,
    -0.37612226605415344,
    0.11279173195362091,
    -0.026675313711166382,
    0.004864703863859177,
    -0.0005358972121030092,
)
"""erf(x) / x in x^2, on 0 <= x <= 0.9; 0.9 * 2^-24, nearly all of it the first coefficient's rounding."""

ERF_LARGE = (
    0.0018222518265247345,
    1.1203978061676025,
    0.6504538655281067,
    0.09132266044616699,
    -0.01565249264240265,
    0.0012613700237125158,
)
"""-log(erfc(x)) on 0.9 <= x <= 3.95, to 0.46 * 2^-24 of erf."""

GELU_LINEAR = math.sqrt(8 / math.pi)
GELU_CUBIC = GELU_LINEAR * 0.044715
"""2u = x * (GELU_LINEAR + GELU_CUBIC * x^2) in the tanh form of GELU."""


def horner(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with these coefficients, lowest power first."""
    result = e.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = e.fadd(e.fmul(result, x), e.constant(coefficient))
    return result


def _reduce(e: Emitter, x: Value, offset: int, negate: bool = False) -> tuple[Value, Value, Value]:
    """(shifted, head, tail) with exp(x) = 2^n * (1 + head + tail), or exp(-x): 18 cycles. x is finite or NaN.

    `shifted` holds n + offset in its low bits. `head` is exact; `tail` is less than a fifth of it.
    """
    magic = e.constant(ROUNDING + offset)
    shifted = e.fadd(e.fmul(x, e.constant(-LOG2_E if negate else LOG2_E)), magic)
    n = e.fsub(shifted, magic)
    if negate:
        head = e.fsub(e.fmul(n, e.constant(-LN2_HIGH)), x)
    else:
        head = e.fsub(x, e.fmul(n, e.constant(LN2_HIGH)))
    return shifted, head, _tail(e, head, e.fmul(n, e.constant(LN2_LOW)))


def _tail(e: Emitter, head: Value, low: Value) -> Value:
    """r + r^2 Q(r) - head where r = head - low."""
    r = e.fsub(head, low)
    return e.fsub(e.fmul(e.fmul(r, r), horner(e, r, EXP_Q)), low)


def _power_of_two(e: Emitter, shifted: Value) -> Value:
    """2^(n + offset - 127) where n + offset is from 1 to 254, and 0 where it is 0: 3 cycles."""
    return e.from_bits(e.ishl(e.bits(shifted), 23))


def scaled_exp(e: Emitter, x: Value, exponent: int, negate: bool = False) -> Value:
    """exp(x) * 2^exponent, or exp(-x) * 2^exponent, where that is a normal number: 24 cycles."""
    return _assemble(e, *_reduce(e, x, 127 + exponent, negate))


def _assemble(e: Emitter, shifted: Value, head: Value, tail: Value) -> Value:
    """2^(n + offset - 127) * (1 + head + tail)."""
    return e.fmul(e.fadd(e.fadd(head, tail), e.constant(1.0)), _power_of_two(e, shifted))


def reduce_product(e: Emitter, a: Value, b: Value, error: Value | None, offset: int) -> tuple[Value, Value, Value]:
    """`_reduce` of a * (b + error) as if the product were not rounded: `error` is the rest of b.

    An error in the last place of a * b would be one of 2^-24 * |a * b| in the exponential.
    """
    magic = e.constant(ROUNDING + offset)
    shifted = e.fadd(e.fmul(e.fmul(a, b), e.constant(LOG2_E)), magic)
    n = e.fsub(shifted, magic)
    head = e.fma(a, b, e.fmul(n, e.constant(-LN2_HIGH)))
    low = e.fmul(n, e.constant(LN2_LOW))
    if error is not None:
        low = e.fsub(low, e.fmul(a, error))
    return shifted, head, _tail(e, head, low)


def _expm1(e: Emitter, x: Value) -> Value:
    """exp(x) - 1 for -87 < x < 88: 24 cycles."""
    shifted, head, tail = _reduce(e, x, 127)
    scale = _power_of_two(e, shifted)
    return e.fadd(e.fsub(scale, e.constant(1.0)), e.fmul(scale, e.fadd(head, tail)))


def exp(e: Emitter, x: Value) -> Value:
    """Scaled by two powers of two, so that denormal results and those above 2^127 come out right."""
    x = e.fmin(e.fmax(x, e.constant(-104.0)), e.constant(89.0))
    shifted, head, tail = _reduce(e, x, 2 * 127)
    bits = e.bits(shifted)
    half = e.iashr(bits, 1)
    first = e.from_bits(e.ishl(half, 23))
    second = e.from_bits(e.ishl(e.isub(bits, half), 23))
    return e.fmul(e.fmul(e.fadd(e.fadd(head, tail), e.constant(1.0)), first), second)


def exp_nonpositive(e: Emitter, x: Value) -> Value:
    """exp(x) of x <= 0."""
    x = e.fmax(x, e.constant(-104.0))
    return e.fmul(scaled_exp(e, x, 32), e.constant(2.0**-32))


def negative_or(e: Emitter, x: Value, negative: Value, otherwise: Value) -> Value:
    """By the sign bit of x."""
    return e.iselect("lt", e.bits(x), 0, negative, otherwise)


def elu(e: Emitter, x: Value, alpha: float) -> Value:
    """x, or alpha * (exp(x) - 1) where x < 0."""
    below = _expm1(e, e.fmax(x, e.constant(-18.0)))
    return negative_or(e, x, below if alpha == 1 else e.fmul(below, e.constant(alpha)), x)


def selu(e: Emitter, x: Value, alpha: float, gamma: float) -> Value:
    """gamma * elu(x, alpha)."""
    below = _expm1(e, e.fmax(x, e.constant(-18.0)))
    return e.fmul(negative_or(e, x, e.fmul(below, e.constant(alpha)), x), e.constant(gamma))


def celu(e: Emitter, x: Value, alpha: float) -> Value:
    """x, or alpha * (exp(x / alpha) - 1) where x < 0; alpha > 0."""
    if alpha == 1:
        return elu(e, x, 1.0)
    below = _expm1(e, e.fmax(e.fmul(x, e.constant(1 / alpha)), e.constant(-18.0)))
    return negative_or(e, x, e.fmul(below, e.constant(alpha)), x)


def sigmoid(e: Emitter, x: Value) -> Value:
    """1 / (1 + exp(-x)), both terms times 2^-32 so that exp(104) is in range."""
    x = e.fmin(e.fmax(x, e.constant(-104.0)), e.constant(20.0))
    one = e.constant(2.0**-32)
    return e.fdiv(one, e.fadd(scaled_exp(e, x, -32, negate=True), one))


def tanh(e: Emitter, x: Value) -> Value:
    """y / (y + 2) with y = exp(2x) - 1, which keeps its relative precision where x is small."""
    x = e.fmin(e.fmax(x, e.constant(-10.0)), e.constant(10.0))
    y = _expm1(e, e.fadd(x, x))
    return e.fdiv(y, e.fadd(y, e.constant(2.0)))


def softplus(e: Emitter, x: Value) -> Value:
    """max(x, 0) + log(1 + exp(-|x|))."""
    u = scaled_exp(e, e.fmin(e.fabs(x), e.constant(104.0)), 32, negate=True)
    u = e.fmul(u, e.constant(2.0**-32))
    return e.fadd(e.fmul(u, horner(e, u, LOG1P)), e.fmax(x, e.constant(0.0)))


def silu(e: Emitter, x: Value) -> Value:
    """x / (1 + exp(-x)), the divisor times 2^-32; x itself above 20."""
    y = e.fmax(x, e.constant(-110.0))
    small = e.constant(2.0**-32)
    divisor = e.fadd(scaled_exp(e, y, -32, negate=True), small)
    return e.fselect("gt", x, e.constant(20.0), x, e.fmul(e.fdiv(y, divisor), small))


def mish(e: Emitter, x: Value) -> Value:
    """x * tanh(log(1 + w)) = x * w (w + 2) / (w (w + 2) + 2) with w = exp(x); x itself above 20."""
    y = e.fmax(x, e.constant(-110.0))
    scaled, small, two = scaled_exp(e, y, 32), e.constant(2.0**-32), e.constant(2.0)
    w = e.fmul(scaled, small)
    product = e.fmul(y, scaled)
    numerator = e.fma(product, w, e.fadd(product, product))
    quotient = e.fdiv(numerator, e.fadd(e.fmul(w, e.fadd(w, two)), two))
    return e.fselect("gt", x, e.constant(20.0), x, e.fmul(quotient, small))


def erf(e: Emitter, x: Value) -> Value:
    """x * P(x^2) where |x| < 0.9, else 1 - exp(-L(|x|)) with x's sign (the two parts of N. Juffa's erff)."""
    a = e.fmin(e.fabs(x), e.constant(3.9375))
    tail = scaled_exp(e, horner(e, a, ERF_LARGE), 0, negate=True)
    large = e.fsub(e.constant(1.0), tail)
    large = negative_or(e, x, e.fneg(large), large)
    small = e.fmul(x, horner(e, e.fmul(x, x), ERF_SMALL))
    return e.fselect("lt", a, e.constant(0.9), small, large)


def gelu(e: Emitter, x: Value) -> Value:
    """x * T where x < 0, else x - x * T, T = exp(-x^2 / 2) * t * S(t) the normal distribution's tail.

    Here t = 1 / (|x| + 2), corrected for the rounding of sum and quotient: its true value is t * (1 + error).
    The exponential is scaled by 2^32, so that it stays normal where x times it still counts. Above 6 the result is x.
    """
    y = e.fmax(x, e.constant(-14.625))
    shifted, head, tail = reduce_product(e, y, e.fmul(y, e.constant(-0.5)), None, 127 + 32)
    a, two = e.fabs(y), e.constant(2.0)
    divisor = e.fadd(a, two)
    divisor_error = e.fsub(a, e.fsub(divisor, two))
    t = e.fdiv(e.constant(1.0), divisor)
    error = e.fsub(e.fma(e.fneg(t), divisor, e.constant(1.0)), e.fmul(t, divisor_error))
    u = e.fma(t, error, e.fsub(t, e.constant(NORMAL_TAIL_CENTRE)))
    product = e.fmul(e.fmul(y, horner(e, u, NORMAL_TAIL)), t)
    product = e.fma(product, e.fadd(e.fadd(head, tail), error), product)
    product = e.fmul(e.fmul(product, _power_of_two(e, shifted)), e.constant(2.0**-32))
    return e.fselect("gt", x, e.constant(6.0), x, negative_or(e, x, product, e.fsub(y, product)))


def gelu_tanh(e: Emitter, x: Value) -> Value:
    """x / (1 + exp(-2u)), 2u = x * (GELU_LINEAR + GELU_CUBIC * x^2), the divisor times 2^-32; x itself above 6.

    The factor in brackets is carried in two floats. `linear` has so few bits that `linear - factor` is exact.
    """
    y = e.fmax(x, e.constant(-10.8125))
    linear, cubic = math.floor(GELU_LINEAR * 2**20) / 2**20, _single(GELU_CUBIC)
    linear_value, cubic_value = e.constant(linear), e.constant(cubic)
    square = e.fmul(y, y)
    square_error = e.fma(y, y, e.fneg(square))
    factor = e.fma(cubic_value, square, linear_value)
    error = e.fma(cubic_value, square, e.fsub(linear_value, factor))
    rest = e.fadd(e.fmul(square, e.constant(GELU_CUBIC - cubic)), e.constant(GELU_LINEAR - linear))
    error = e.fadd(error, e.fadd(rest, e.fmul(cubic_value, square_error)))
    small = e.constant(2.0**-32)
    divisor = e.fadd(_assemble(e, *reduce_product(e, e.fneg(y), factor, error, 127 - 32)), small)
    return e.fselect("gt", x, e.constant(6.0), x, e.fmul(e.fdiv(y, divisor), small))


def _single(x: float) -> float:
    """The nearest float32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


SQRT_HALF_BITS = 0x3F3504F3
NAN_BITS = 0x7FC00000


def log_normal(e: Emitter, x: Value, correction: Value) -> Value:
    """log(x) - correction * ln 2 of a positive normal number x; 128 ln 2 where it is infinite."""
    bits = e.bits(x)
    exponent = e.iashr(e.isub(bits, e.int_constant(SQRT_HALF_BITS)), 23)
    f = e.fsub(e.from_bits(e.isub(bits, e.ishl(exponent, 23))), e.constant(1.0))
    n = e.fsub(e.to_float(exponent), correction)
    square = e.fmul(f, f)
    tail = e.fmul(e.fmul(square, f), horner(e, f, LOG))
    tail = e.fadd(e.fsub(tail, e.fmul(square, e.constant(0.5))), e.fmul(n, e.constant(LN2_LOW)))
    return e.fadd(e.fadd(tail, f), e.fmul(n, e.constant(LN2_HIGH)))


def log(e: Emitter, x: Value) -> Value:
    """e ln 2 + log(1 + f) where x = 2^e * (1 + f), 1 + f from sqrt(1/2) to sqrt(2)."""
    smallest_normal = e.constant(2.0**-126)
    normal = e.fselect("lt", x, smallest_normal, e.fmul(x, e.constant(2.0**24)), x)
    correction = e.fselect("lt", x, smallest_normal, e.constant(24.0), e.constant(0.0))
    result = log_normal(e, normal, correction)
    zero = e.constant(0.0)
    finite = e.fselect("lt", x, e.constant(math.inf), result, x)
    outside = e.fselect("eq", x, zero, e.constant(-math.inf), e.from_bits(e.int_constant(NAN_BITS)))
    return e.fselect("le", x, zero, outside, finite)
