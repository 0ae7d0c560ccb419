"""Exponentials, logarithms and what is made of them, as sequences of float32 operations without branches.

All exponentials come from one reduction, exp(x) = 2^n * (1 + m) with |r| = |x - n ln 2| <= ln(2)/2 and
m = r + r^2 Q(r). The coefficients here are minimax fits of this project's own (Lawson's iteration on Chebyshev nodes
in float64, each coefficient rounded to float32 before the remaining ones are fitted again); the error that remains
is given with each, relative to the function it serves. Cycles are the Cortex-M4's.
"""

from __future__ import annotations

import math
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


def horner(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with these coefficients, lowest power first."""
    result = e.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = e.fadd(e.fmul(result, x), e.constant(coefficient))
    return result


class Reduced:
    """exp(±x) as 2^n * (1 + m), of a finite x with |n| < 512: 19 cycles.

    `n` is held as the low bits of `shifted`, plus `offset`; `m` is `head + tail`, |tail| < 0.17 |head|.
    """

    def __init__(self, e: Emitter, x: Value, offset: int, negate: bool = False):
        sign = -1 if negate else 1
        magic = e.constant(ROUNDING + offset)
        self._e = e
        self.shifted = e.fadd(e.fmul(x, e.constant(sign * LOG2_E)), magic)
        n = e.fsub(self.shifted, magic)
        high, low = e.fmul(n, e.constant(LN2_HIGH)), e.fmul(n, e.constant(LN2_LOW))
        self.head = e.fsub(e.fmul(n, e.constant(-LN2_HIGH)), x) if negate else e.fsub(x, high)
        r = e.fsub(self.head, low)
        self.tail = e.fsub(e.fmul(e.fmul(r, r), horner(e, r, EXP_Q)), low)

    def scale(self) -> Value:
        """2^(n + offset - 127): 3 cycles; n + offset from 1 to 254."""
        return self._e.from_bits(self._e.ishl(self._e.bits(self.shifted), 23))

    def m(self) -> Value:
        return self._e.fadd(self.head, self.tail)

    def mantissa(self) -> Value:
        """1 + m."""
        return self._e.fadd(self.m(), self._e.constant(1.0))
