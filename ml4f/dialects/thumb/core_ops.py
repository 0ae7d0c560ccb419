"""Integer arithmetic and logic on core registers.

16-bit encodings set the flags; that is fine because no flags live across operations. Encodings: ARM DDI 0403E, A7.7.
A form's operands stand in the order of its last syntax: d, n, m or immediate, shift.
"""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, StringAttr
from xdsl.irdl import BaseAttr, irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.thumb.encoding import Form, Values, form
from ml4f.backend.thumb.operand_kinds import NO_SHIFT
from ml4f.dialects.thumb.base import ThumbOp
from ml4f.dialects.thumb.registers import CoreRegisterType, number

CORE = BaseAttr(CoreRegisterType)
IN_PLACE = ((0, 0),)

MODIFIED = "{=d:r}, {n:r}, {i:mod}"
SHIFTED = "{=d:r}, {n:r}, {m:r}{ti:shift}"
LOW_TIED = "{=d:l}, {n~d}, {m:l}{t:unshifted}"


class CoreUnary(ThumbOp):
    """Base: core → core."""

    m = operand_def(CORE)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[0])


class CoreBinary(ThumbOp):
    """Base: core, core → core."""

    n = operand_def(CORE)
    m = operand_def(CORE)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        n, m = self._operands
        return number(self.results[0]), number(n), number(m)


class CoreImmediate(ThumbOp):
    """Base: core, immediate → core."""

    n = operand_def(CORE)
    immediate = prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        immediate = self.properties["immediate"]
        assert isinstance(immediate, IntegerAttr)
        return number(self.results[0]), number(self._operands[0]), immediate.value.data


class CoreConstant(ThumbOp):
    """Base: immediate → core."""

    REMATERIALISABLE: ClassVar[bool] = True
    immediate = prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), self.immediate.value.data & 0xFFFFFFFF


def shift_of(op: CoreShifted | MvnOp) -> tuple[str, int]:
    """The (kind, amount) of an operation with a shifted second operand."""
    if op.shift is None:
        return NO_SHIFT
    assert op.amount is not None
    return op.shift.data, op.amount.value.data


def verify_shift(op: CoreShifted | MvnOp) -> None:
    """`shift` is lsl, lsr, asr or ror and comes with an `amount`."""
    if (op.shift is None) != (op.amount is None):
        raise VerifyException("a shift needs a kind and an amount")
    if op.shift is not None and op.shift.data not in ("lsl", "lsr", "asr", "ror"):
        raise VerifyException(f"the shift is lsl, lsr, asr or ror, not {op.shift.data}")


class CoreShifted(ThumbOp):
    """Base: core, core shifted by a constant → core; `shift` is "lsl", "lsr", "asr" or "ror"."""

    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    n = operand_def(CORE)
    m = operand_def(CORE)
    shift = opt_prop_def(StringAttr)
    amount = opt_prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def verify_operands(self) -> None:
        verify_shift(self)

    def values(self) -> Values:
        n, m = self._operands
        return number(self.results[0]), number(n), number(m), shift_of(self) if self.properties else NO_SHIFT


# Moves and constants


@irdl_op_definition
class MovOp(CoreUnary):
    """`d = m`."""

    name = "thumb.mov"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0110 d mmmm ddd", "mov<c>.n {=d:r}, {m:r}"),
        ("1110 1010 0100 1111 0000 dddd 0000 mmmm", "mov<c>.w {=d:r}, {m:r}"),
    )


@irdl_op_definition
class MovImmOp(CoreConstant):
    """`d = immediate`, a constant that one instruction can build: 16 bits, or a modified immediate, or its
    complement.
    """

    name = "thumb.mov_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0010 0ddd iiiiiiii", "movs.n {=d:l}, {i:u}"),
        ("11110 i 00010 0 1111 0 iii dddd iiiiiiii", "mov.w {=d:r}, {i:mod}"),
        ("11110 i 00011 0 1111 0 iii dddd iiiiiiii", "mvn.w {=d:r}, {i:inv}"),
        ("11110 i 100100 jjjj 0 iii dddd iiiiiiii", "movw {=d:r}, {ij:wide}"),
    )


@irdl_op_definition
class MovwOp(CoreConstant):
    """`d = immediate`, 16 bits."""

    name = "thumb.movw"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 100100 jjjj 0 iii dddd iiiiiiii", "movw {=d:r}, {ij:wide}"))


@irdl_op_definition
class MovtOp(ThumbOp):
    """`d = old` with its upper halfword replaced by `immediate`."""

    name = "thumb.movt"
    TIMING: ClassVar[str] = "alu"
    TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 101100 jjjj 0 iii dddd iiiiiiii", "movt {+d:r}, {ij:wide}"))
    old = operand_def(CORE)
    immediate = prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), self.immediate.value.data


@irdl_op_definition
class MvnOp(ThumbOp):
    """`d = ~(m shifted)`."""

    name = "thumb.mvn"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0011 11 mmm ddd", "mvns.n {=d:l}, {m:l}{t:unshifted}"),
        ("1110 1010 0110 1111 0 iii dddd ii tt mmmm", "mvn.w {=d:r}, {m:r}{ti:shift}"),
    )
    m = operand_def(CORE)
    shift = opt_prop_def(StringAttr)
    amount = opt_prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def verify_operands(self) -> None:
        verify_shift(self)

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[0]), shift_of(self)


# Addition, multiplication, division


@irdl_op_definition
class AddImmOp(CoreImmediate):
    """`d = n + immediate`; 0 to 4095 or a modified immediate."""

    name = "thumb.add_imm"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0011 0ddd iiiiiiii", "adds.n {=d:l}, {n~d}, {i:u}"),
        ("0001 110 iii nnn ddd", "adds.n {=d:l}, {n:l}, {i:u}"),
        ("11110 i 01000 0 nnnn 0 iii dddd iiiiiiii", "add.w " + MODIFIED),
        ("11110 i 10000 0 nnnn 0 iii dddd iiiiiiii", "addw {=d:r}, {n:r}, {i:u}"),
    )


@irdl_op_definition
class SubImmOp(CoreImmediate):
    """`d = n - immediate`; 0 to 4095 or a modified immediate."""

    name = "thumb.sub_imm"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0011 1ddd iiiiiiii", "subs.n {=d:l}, {n~d}, {i:u}"),
        ("0001 111 iii nnn ddd", "subs.n {=d:l}, {n:l}, {i:u}"),
        ("11110 i 01101 0 nnnn 0 iii dddd iiiiiiii", "sub.w " + MODIFIED),
        ("11110 i 10101 0 nnnn 0 iii dddd iiiiiiii", "subw {=d:r}, {n:r}, {i:u}"),
    )


@irdl_op_definition
class RsbImmOp(CoreImmediate):
    """`d = immediate - n`; a modified immediate."""

    name = "thumb.rsb_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0010 01 nnn ddd", "rsbs.n {=d:l}, {n:l}, {i:zero}"),
        ("11110 i 01110 0 nnnn 0 iii dddd iiiiiiii", "rsb.w " + MODIFIED),
    )


@irdl_op_definition
class AddOp(CoreShifted):
    """`d = n + (m shifted)`."""

    name = "thumb.add"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0001 100 mmm nnn ddd", "adds.n {=d:l}, {n:l}, {m:l}{t:unshifted}"),
        ("0100 0100 d mmmm ddd", "add.n {=d:r}, {n~d}, {m:r}{t:unshifted}"),
        ("1110 1011 0000 nnnn 0 iii dddd ii tt mmmm", "add.w " + SHIFTED),
    )


@irdl_op_definition
class SubOp(CoreShifted):
    """`d = n - (m shifted)`."""

    name = "thumb.sub"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0001 101 mmm nnn ddd", "subs.n {=d:l}, {n:l}, {m:l}{t:unshifted}"),
        ("1110 1011 1010 nnnn 0 iii dddd ii tt mmmm", "sub.w " + SHIFTED),
    )


@irdl_op_definition
class MulOp(CoreBinary):
    """`d = n * m`, the low 32 bits."""

    name = "thumb.mul"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0011 01 nnn ddd", "muls.n {=d:l}, {n:l}, {m~d}"),
        ("1111 1011 0000 nnnn 1111 dddd 0000 mmmm", "mul.w {=d:r}, {n:r}, {m:r}"),
    )


class CoreTernary(ThumbOp):
    """Base: core, core, core → core."""

    n = operand_def(CORE)
    m = operand_def(CORE)
    a = operand_def(CORE)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        n, m, a = self._operands
        return number(self.results[0]), number(n), number(m), number(a)


@irdl_op_definition
class MlaOp(CoreTernary):
    """`d = a + n * m`."""

    name = "thumb.mla"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("1111 1011 0000 nnnn aaaa dddd 0000 mmmm", "mla {=d:r}, {n:r}, {m:r}, {a:r}"))


@irdl_op_definition
class MlsOp(CoreTernary):
    """`d = a - n * m`."""

    name = "thumb.mls"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("1111 1011 0000 nnnn aaaa dddd 0001 mmmm", "mls {=d:r}, {n:r}, {m:r}, {a:r}"))


@irdl_op_definition
class SdivOp(CoreBinary):
    """`d = n / m` of signed integers, towards zero; 0 if m is 0."""

    name = "thumb.sdiv"
    TIMING: ClassVar[str] = "divide"
    FORM: ClassVar[Form] = form(TIMING, ("1111 1011 1001 nnnn 1111 dddd 1111 mmmm", "sdiv {=d:r}, {n:r}, {m:r}"))


@irdl_op_definition
class UdivOp(CoreBinary):
    """`d = n / m` of unsigned integers; 0 if m is 0."""

    name = "thumb.udiv"
    TIMING: ClassVar[str] = "divide"
    FORM: ClassVar[Form] = form(TIMING, ("1111 1011 1011 nnnn 1111 dddd 1111 mmmm", "udiv {=d:r}, {n:r}, {m:r}"))


# Logic


@irdl_op_definition
class AndOp(CoreShifted):
    """`d = n & (m shifted)`."""

    name = "thumb.and"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0000 00 mmm ddd", "ands.n " + LOW_TIED),
        ("1110 1010 0000 nnnn 0 iii dddd ii tt mmmm", "and.w " + SHIFTED),
    )


@irdl_op_definition
class OrrOp(CoreShifted):
    """`d = n | (m shifted)`."""

    name = "thumb.orr"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0011 00 mmm ddd", "orrs.n " + LOW_TIED),
        ("1110 1010 0100 nnnn 0 iii dddd ii tt mmmm", "orr.w " + SHIFTED),
    )


@irdl_op_definition
class EorOp(CoreShifted):
    """`d = n ^ (m shifted)`."""

    name = "thumb.eor"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0000 01 mmm ddd", "eors.n " + LOW_TIED),
        ("1110 1010 1000 nnnn 0 iii dddd ii tt mmmm", "eor.w " + SHIFTED),
    )


@irdl_op_definition
class BicOp(CoreShifted):
    """`d = n & ~(m shifted)`; ReLU on raw bits is `bic(x, x, asr 31)`."""

    name = "thumb.bic"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0011 10 mmm ddd", "bics.n " + LOW_TIED),
        ("1110 1010 0010 nnnn 0 iii dddd ii tt mmmm", "bic.w " + SHIFTED),
    )


@irdl_op_definition
class AndImmOp(CoreImmediate):
    """`d = n & immediate`, a modified immediate."""

    name = "thumb.and_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 00000 0 nnnn 0 iii dddd iiiiiiii", "and.w " + MODIFIED))


@irdl_op_definition
class OrrImmOp(CoreImmediate):
    """`d = n | immediate`, a modified immediate."""

    name = "thumb.orr_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 00010 0 nnnn 0 iii dddd iiiiiiii", "orr.w " + MODIFIED))


@irdl_op_definition
class EorImmOp(CoreImmediate):
    """`d = n ^ immediate`, a modified immediate."""

    name = "thumb.eor_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 00100 0 nnnn 0 iii dddd iiiiiiii", "eor.w " + MODIFIED))


@irdl_op_definition
class BicImmOp(CoreImmediate):
    """`d = n & ~immediate`, a modified immediate."""

    name = "thumb.bic_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("11110 i 00001 0 nnnn 0 iii dddd iiiiiiii", "bic.w " + MODIFIED))


# Shifts


@irdl_op_definition
class LslImmOp(CoreImmediate):
    """`d = n << immediate`, 1 to 31."""

    name = "thumb.lsl_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0000 0 iiiii nnn ddd", "lsls.n {=d:l}, {n:l}, {i:n}"),
        ("1110 1010 0100 1111 0 iii dddd ii 00 nnnn", "lsl.w {=d:r}, {n:r}, {i:n}"),
    )


@irdl_op_definition
class LsrImmOp(CoreImmediate):
    """`d = n >> immediate`, unsigned, 1 to 32."""

    name = "thumb.lsr_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0000 1 iiiii nnn ddd", "lsrs.n {=d:l}, {n:l}, {i:c32}"),
        ("1110 1010 0100 1111 0 iii dddd ii 01 nnnn", "lsr.w {=d:r}, {n:r}, {i:c32}"),
    )


@irdl_op_definition
class AsrImmOp(CoreImmediate):
    """`d = n >> immediate`, signed, 1 to 32."""

    name = "thumb.asr_imm"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0001 0 iiiii nnn ddd", "asrs.n {=d:l}, {n:l}, {i:c32}"),
        ("1110 1010 0100 1111 0 iii dddd ii 10 nnnn", "asr.w {=d:r}, {n:r}, {i:c32}"),
    )


@irdl_op_definition
class LslOp(CoreBinary):
    """`d = n << (m & 255)`."""

    name = "thumb.lsl"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0000 10 mmm ddd", "lsls.n {=d:l}, {n~d}, {m:l}"),
        ("1111 1010 0000 nnnn 1111 dddd 0000 mmmm", "lsl.w {=d:r}, {n:r}, {m:r}"),
    )


@irdl_op_definition
class LsrOp(CoreBinary):
    """`d = n >> (m & 255)`, unsigned."""

    name = "thumb.lsr"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0000 11 mmm ddd", "lsrs.n {=d:l}, {n~d}, {m:l}"),
        ("1111 1010 0010 nnnn 1111 dddd 0000 mmmm", "lsr.w {=d:r}, {n:r}, {m:r}"),
    )


@irdl_op_definition
class AsrOp(CoreBinary):
    """`d = n >> (m & 255)`, signed."""

    name = "thumb.asr"
    TIMING: ClassVar[str] = "alu"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = IN_PLACE
    FORM: ClassVar[Form] = form(
        TIMING,
        ("0100 0001 00 mmm ddd", "asrs.n {=d:l}, {n~d}, {m:l}"),
        ("1111 1010 0100 nnnn 1111 dddd 0000 mmmm", "asr.w {=d:r}, {n:r}, {m:r}"),
    )


# Bits and saturation


@irdl_op_definition
class ClzOp(CoreUnary):
    """`d =` number of leading zero bits of m."""

    name = "thumb.clz"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("1111 1010 1011 mmmm 1111 dddd 1000 kkkk", "clz {=d:r}, {mk:rr}"))


class Saturate(ThumbOp):
    """Base: core → core, saturated to `bits` bits."""

    n = operand_def(CORE)
    bits = prop_def(IntegerAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), self.bits.value.data, number(self._operands[0])


@irdl_op_definition
class SsatOp(Saturate):
    """`d = n` clamped to -2^(bits-1) .. 2^(bits-1) - 1; bits 1 to 32."""

    name = "thumb.ssat"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("1111 0011 0000 nnnn 0000 dddd 000 iiiii", "ssat {=d:r}, {i:u1}, {n:r}"))


@irdl_op_definition
class UsatOp(Saturate):
    """`d = n` (signed) clamped to 0 .. 2^bits - 1; bits 0 to 31."""

    name = "thumb.usat"
    TIMING: ClassVar[str] = "alu"
    FORM: ClassVar[Form] = form(TIMING, ("1111 0011 1000 nnnn 0000 dddd 000 iiiii", "usat {=d:r}, {i:u}, {n:r}"))


CORE_OPS = [
    MovOp,
    MovImmOp,
    MovwOp,
    MovtOp,
    MvnOp,
    AddImmOp,
    SubImmOp,
    RsbImmOp,
    AddOp,
    SubOp,
    MulOp,
    MlaOp,
    MlsOp,
    SdivOp,
    UdivOp,
    AndOp,
    OrrOp,
    EorOp,
    BicOp,
    AndImmOp,
    OrrImmOp,
    EorImmOp,
    BicImmOp,
    LslImmOp,
    LsrImmOp,
    AsrImmOp,
    LslOp,
    LsrOp,
    AsrOp,
    ClzOp,
    SsatOp,
    UsatOp,
]
