"""Single-precision arithmetic, conversions, and moves between the register files.

Encodings: ARM DDI 0403E, A7.5 and A7.7. Results that are tied show so in the syntax: `{+dD:s}`.
"""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import SSAValue
from xdsl.irdl import BaseAttr, irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from ml4f.backend.thumb.encoding import Form, Values, form
from ml4f.dialects.thumb.base import ThumbOp
from ml4f.dialects.thumb.registers import CoreRegisterType, SingleRegisterType, number

CORE = BaseAttr(CoreRegisterType)
SINGLE = BaseAttr(SingleRegisterType)

DNM = "{=dD:s}, {nN:s}, {mM:s}"
ADNM = "{+dD:s}, {nN:s}, {mM:s}"
DM = "{=dD:s}, {mM:s}"


class SingleBinary(ThumbOp):
    """Base: S, S → S."""

    n = operand_def(SINGLE)
    m = operand_def(SINGLE)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        n, m = self._operands
        return number(self.results[0]), number(n), number(m)


class SingleUnary(ThumbOp):
    """Base: S → S."""

    m = operand_def(SINGLE)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[0])


class SingleMultiplyAccumulate(ThumbOp):
    """Base: accumulator, S, S → S, the accumulator tied to the result."""

    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    acc = operand_def(SINGLE)
    n = operand_def(SINGLE)
    m = operand_def(SINGLE)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        _, n, m = self._operands
        return number(self.results[0]), number(n), number(m)


@irdl_op_definition
class VaddOp(SingleBinary):
    """`d = n + m`."""

    name = "thumb.vadd"
    TIMING: ClassVar[str] = "fp"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D11 nnnn dddd 1010 N0M0 mmmm", "vadd.f32 " + DNM))


@irdl_op_definition
class VsubOp(SingleBinary):
    """`d = n - m`."""

    name = "thumb.vsub"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D11 nnnn dddd 1010 N1M0 mmmm", "vsub.f32 " + DNM))


@irdl_op_definition
class VmulOp(SingleBinary):
    """`d = n * m`."""

    name = "thumb.vmul"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D10 nnnn dddd 1010 N0M0 mmmm", "vmul.f32 " + DNM))


@irdl_op_definition
class VnmulOp(SingleBinary):
    """`d = -(n * m)`."""

    name = "thumb.vnmul"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D10 nnnn dddd 1010 N1M0 mmmm", "vnmul.f32 " + DNM))


@irdl_op_definition
class VdivOp(SingleBinary):
    """`d = n / m`."""

    name = "thumb.vdiv"
    TIMING: ClassVar[str] = "fp_divide"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D00 nnnn dddd 1010 N0M0 mmmm", "vdiv.f32 " + DNM))


@irdl_op_definition
class VnegOp(SingleUnary):
    """`d = -m` (the sign bit flipped, NaN included)."""

    name = "thumb.vneg"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0001 dddd 1010 01M0 mmmm", "vneg.f32 " + DM))


@irdl_op_definition
class VabsOp(SingleUnary):
    """`d = |m|` (the sign bit cleared)."""

    name = "thumb.vabs"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0000 dddd 1010 11M0 mmmm", "vabs.f32 " + DM))


@irdl_op_definition
class VsqrtOp(SingleUnary):
    """`d = sqrt(m)`, correctly rounded."""

    name = "thumb.vsqrt"
    TIMING: ClassVar[str] = "fp_divide"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0001 dddd 1010 11M0 mmmm", "vsqrt.f32 " + DM))


@irdl_op_definition
class VmovOp(SingleUnary):
    """`d = m`."""

    name = "thumb.vmov"
    TIMING: ClassVar[str] = "vmov"
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0000 dddd 1010 01M0 mmmm", "vmov<c>.f32 " + DM))


@irdl_op_definition
class VmlaOp(SingleMultiplyAccumulate):
    """`d = acc + n * m`, rounded twice."""

    name = "thumb.vmla"
    TIMING: ClassVar[str] = "fp_mac"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D00 nnnn dddd 1010 N0M0 mmmm", "vmla.f32 " + ADNM))


@irdl_op_definition
class VmlsOp(SingleMultiplyAccumulate):
    """`d = acc - n * m`, rounded twice."""

    name = "thumb.vmls"
    TIMING: ClassVar[str] = "fp_mac"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0D00 nnnn dddd 1010 N1M0 mmmm", "vmls.f32 " + ADNM))


@irdl_op_definition
class VfmaOp(SingleMultiplyAccumulate):
    """`d = acc + n * m`, rounded once."""

    name = "thumb.vfma"
    TIMING: ClassVar[str] = "fp_mac"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D10 nnnn dddd 1010 N0M0 mmmm", "vfma.f32 " + ADNM))


@irdl_op_definition
class VfmsOp(SingleMultiplyAccumulate):
    """`d = acc - n * m`, rounded once."""

    name = "thumb.vfms"
    TIMING: ClassVar[str] = "fp_mac"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D10 nnnn dddd 1010 N1M0 mmmm", "vfms.f32 " + ADNM))


@irdl_op_definition
class VmovImmOp(ThumbOp):
    """`d = value`, one of the 256 floats ±(16..31)/16 * 2^(-3..4)."""

    name = "thumb.vmov_imm"
    TIMING: ClassVar[str] = "vmov"
    REMATERIALISABLE: ClassVar[bool] = True
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 iiii dddd 1010 0000 iiii", "vmov.f32 {=dD:s}, {i:f8}"))
    value = prop_def(FloatAttr)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), self.value.value.data


# Conversions. float32 and int32 both live in S registers


@irdl_op_definition
class VcvtS32F32Op(SingleUnary):
    """`d = int32(m)`, towards zero; saturates, NaN gives 0."""

    name = "thumb.vcvt_s32_f32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 1101 dddd 1010 11M0 mmmm", "vcvt.s32.f32 " + DM))


@irdl_op_definition
class VcvtrS32F32Op(SingleUnary):
    """`d = int32(m)`, to nearest, ties to even; saturates, NaN gives 0."""

    name = "thumb.vcvtr_s32_f32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 1101 dddd 1010 01M0 mmmm", "vcvtr.s32.f32 " + DM))


@irdl_op_definition
class VcvtF32S32Op(SingleUnary):
    """`d = float(int32 m)`."""

    name = "thumb.vcvt_f32_s32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 1000 dddd 1010 11M0 mmmm", "vcvt.f32.s32 " + DM))


@irdl_op_definition
class VcvtF32U32Op(SingleUnary):
    """`d = float(uint32 m)`."""

    name = "thumb.vcvt_f32_u32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 1000 dddd 1010 01M0 mmmm", "vcvt.f32.u32 " + DM))


@irdl_op_definition
class VcvtbF32F16Op(SingleUnary):
    """`d = float(float16 in bits 0-15 of m)`."""

    name = "thumb.vcvtb_f32_f16"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0010 dddd 1010 01M0 mmmm", "vcvtb.f32.f16 " + DM))


@irdl_op_definition
class VcvttF32F16Op(SingleUnary):
    """`d = float(float16 in bits 16-31 of m)`."""

    name = "thumb.vcvtt_f32_f16"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0010 dddd 1010 11M0 mmmm", "vcvtt.f32.f16 " + DM))


class IntoHalf(ThumbOp):
    """Base: old word, S → S; one half of the word is replaced, so the old word is tied to the result."""

    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    old = operand_def(SINGLE)
    m = operand_def(SINGLE)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[1])


@irdl_op_definition
class VcvtbF16F32Op(IntoHalf):
    """`d = old` with bits 0-15 replaced by `float16(m)`."""

    name = "thumb.vcvtb_f16_f32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0011 dddd 1010 01M0 mmmm", "vcvtb.f16.f32 {+dD:s}, {mM:s}"))


@irdl_op_definition
class VcvttF16F32Op(IntoHalf):
    """`d = old` with bits 16-31 replaced by `float16(m)`."""

    name = "thumb.vcvtt_f16_f32"
    TIMING: ClassVar[str] = "fp"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 1D11 0011 dddd 1010 11M0 mmmm", "vcvtt.f16.f32 {+dD:s}, {mM:s}"))


# Moves between the register files


@irdl_op_definition
class VmovRSOp(ThumbOp):
    """`t = bits of n`: S register to core register."""

    name = "thumb.vmov_r_s"
    TIMING: ClassVar[str] = "vmov"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0001 nnnn tttt 1010 N001 0000", "vmov {=t:r}, {nN:s}"))
    n = operand_def(SINGLE)
    t = result_def(CORE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[0])


@irdl_op_definition
class VmovSROp(ThumbOp):
    """`n = float with the bits t`: core register to S register."""

    name = "thumb.vmov_s_r"
    TIMING: ClassVar[str] = "vmov"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1110 0000 nnnn tttt 1010 N001 0000", "vmov {=nN:s}, {t:r}"))
    t = operand_def(CORE)
    n = result_def(SINGLE)
    traits = traits_def(Pure())

    def values(self) -> Values:
        return number(self.results[0]), number(self._operands[0])


@irdl_op_definition
class VmovRrSsOp(ThumbOp):
    """`t, u = bits of m0, m1`: two consecutive S registers to two core registers, which must differ."""

    name = "thumb.vmov_rr_ss"
    TIMING: ClassVar[str] = "vmov2"
    FORM: ClassVar[Form] = form(
        TIMING,
        ("1110 1100 0101 uuuu tttt 1010 00M1 mmmm", "vmov {=t:r}, {=u:r}, {mM:pair}"),
        check=lambda values: values[0] != values[1],
    )
    m0 = operand_def(SINGLE)
    m1 = operand_def(SINGLE)
    t = result_def(CORE)
    u = result_def(CORE)
    traits = traits_def(Pure())

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        return (tuple(self._operands),)

    def values(self) -> Values:
        t, u = self.results
        return number(t), number(u), number(self._operands[0])


@irdl_op_definition
class VmovSsRrOp(ThumbOp):
    """`m0, m1 = floats with the bits t, u`: two core registers to two consecutive S registers."""

    name = "thumb.vmov_ss_rr"
    TIMING: ClassVar[str] = "vmov2"
    FORM: ClassVar[Form] = form(TIMING, ("1110 1100 0100 uuuu tttt 1010 00M1 mmmm", "vmov {=mM:pair}, {t:r}, {u:r}"))
    t = operand_def(CORE)
    u = operand_def(CORE)
    m0 = result_def(SINGLE)
    m1 = result_def(SINGLE)
    traits = traits_def(Pure())

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        return (tuple(self.results),)

    def values(self) -> Values:
        t, u = self._operands
        return number(self.results[0]), number(t), number(u)


# FPv5: Cortex-M7 and Cortex-M33 only


@irdl_op_definition
class VmaxnmOp(SingleBinary):
    """`d = max(n, m)`, IEEE maxNum: a number wins over a quiet NaN."""

    name = "thumb.vmaxnm"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D00 nnnn dddd 1010 N0M0 mmmm", "vmaxnm.f32 " + DNM), requires=REQUIRES
    )


@irdl_op_definition
class VminnmOp(SingleBinary):
    """`d = min(n, m)`, IEEE minNum: a number wins over a quiet NaN."""

    name = "thumb.vminnm"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D00 nnnn dddd 1010 N1M0 mmmm", "vminnm.f32 " + DNM), requires=REQUIRES
    )


@irdl_op_definition
class VrintaOp(SingleUnary):
    """`d = m` rounded to an integral float, ties away from zero."""

    name = "thumb.vrinta"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D11 1000 dddd 1010 01M0 mmmm", "vrinta.f32 " + DM), requires=REQUIRES
    )


@irdl_op_definition
class VrintnOp(SingleUnary):
    """`d = m` rounded to an integral float, ties to even."""

    name = "thumb.vrintn"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D11 1001 dddd 1010 01M0 mmmm", "vrintn.f32 " + DM), requires=REQUIRES
    )


@irdl_op_definition
class VrintpOp(SingleUnary):
    """`d = ceil(m)`."""

    name = "thumb.vrintp"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D11 1010 dddd 1010 01M0 mmmm", "vrintp.f32 " + DM), requires=REQUIRES
    )


@irdl_op_definition
class VrintmOp(SingleUnary):
    """`d = floor(m)`."""

    name = "thumb.vrintm"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1111 1110 1D11 1011 dddd 1010 01M0 mmmm", "vrintm.f32 " + DM), requires=REQUIRES
    )


@irdl_op_definition
class VrintzOp(SingleUnary):
    """`d = trunc(m)`."""

    name = "thumb.vrintz"
    TIMING: ClassVar[str] = "fp"
    REQUIRES: ClassVar[str] = "fpv5"
    FORM: ClassVar[Form] = form(
        TIMING, ("1110 1110 1D11 0110 dddd 1010 11M0 mmmm", "vrintz.f32 " + DM), requires=REQUIRES
    )


FLOAT_OPS = [
    VaddOp,
    VsubOp,
    VmulOp,
    VnmulOp,
    VdivOp,
    VnegOp,
    VabsOp,
    VsqrtOp,
    VmovOp,
    VmlaOp,
    VmlsOp,
    VfmaOp,
    VfmsOp,
    VmovImmOp,
    VcvtS32F32Op,
    VcvtrS32F32Op,
    VcvtF32S32Op,
    VcvtF32U32Op,
    VcvtbF32F16Op,
    VcvttF32F16Op,
    VcvtbF16F32Op,
    VcvttF16F32Op,
    VmovRSOp,
    VmovSROp,
    VmovRrSsOp,
    VmovSsRrOp,
    VmaxnmOp,
    VminnmOp,
    VrintaOp,
    VrintnOp,
    VrintpOp,
    VrintmOp,
    VrintzOp,
]
