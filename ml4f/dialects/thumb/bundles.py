"""Bundles: a comparison, IT, and the instruction that it predicates, as one operation that no pass can part.

Floats compare by VCMP and VMRS: after an unordered comparison N=0 Z=0 C=1 V=1 (ARM DDI 0403E, A2.5.2), hence MI and LS
for "less". Values: `d = if_true` when the predicate holds, else `if_false`, which is tied to the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, StringAttr
from xdsl.irdl import (
    BaseAttr,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.thumb.encoding import Form, Part, Values, form
from ml4f.backend.thumb.operand_kinds import CONDITIONS
from ml4f.dialects.thumb.base import Placement, ThumbOp
from ml4f.dialects.thumb.core_ops import MovOp
from ml4f.dialects.thumb.float_ops import VmovOp
from ml4f.dialects.thumb.registers import CoreRegisterType, SingleRegisterType, number

CORE = BaseAttr(CoreRegisterType)
SINGLE = BaseAttr(SingleRegisterType)

CORE_CONDITION = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "hi": "hi"}
SINGLE_CONDITION = {"eq": "eq", "ne": "ne", "lt": "mi", "le": "ls", "gt": "gt", "ge": "ge", "uno": "vs"}

CMP = form(
    "alu",
    ("0100 0010 10 mmm nnn", "cmp.n {n:l}, {m:l}"),
    ("0100 0101 n mmmm nnn", "cmp.n {n:r}, {m:r}"),
    ("1110 1011 1011 nnnn 0000 1111 0000 mmmm", "cmp.w {n:r}, {m:r}"),
)
CMP_IMM = form(
    "alu",
    ("0010 1nnn iiiiiiii", "cmp.n {n:l}, {i:u}"),
    ("11110 i 01101 1 nnnn 0 iii 1111 iiiiiiii", "cmp.w {n:r}, {i:mod}"),
)
CMN_IMM = form("alu", ("11110 i 01000 1 nnnn 0 iii 1111 iiiiiiii", "cmn.w {n:r}, {i:mod}"))
VCMP = form("fp_compare", ("1110 1110 1D11 0100 dddd 1010 01M0 mmmm", "vcmp.f32 {dD:s}, {mM:s}"))
VMRS = form("vmov", ("1110 1110 1111 0001 1111 1010 0001 0000", "vmrs APSR_nzcv, fpscr"))
IT = form("it", ("1011 1111 cccc 1000", "it {c:cond}"))


def condition(name: str) -> Part:
    """The IT instruction for one condition."""
    return Part(IT, (CONDITIONS.index(name),))


@irdl_op_definition
class SelectOp(ThumbOp):
    """`d = if_true if n <predicate> m (or immediate) else if_false`, signed, but for hi: CMP, IT, MOV."""

    name = "thumb.select"
    TIMING: ClassVar[str] = "select"
    FORM: ClassVar[Form] = CMP
    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    if_false = operand_def(CORE)
    if_true = operand_def(CORE)
    n = operand_def(CORE)
    m = operand_def(CORE)
    predicate = prop_def(StringAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def verify_operands(self) -> None:
        if self.predicate.data not in CORE_CONDITION:
            raise VerifyException(f"the predicate is one of {', '.join(CORE_CONDITION)}")

    def values(self) -> Values:
        return number(self._operands[2]), number(self._operands[3])

    def size_bound(self) -> int:
        return 6

    def parts(self, placement: Placement) -> Sequence[Part]:
        name = CORE_CONDITION[self.predicate.data]
        move = (number(self.results[0]), number(self._operands[1]))
        return (Part(CMP, self.values()), condition(name), Part(MovOp.FORM, move, name))


@irdl_op_definition
class SelectImmOp(ThumbOp):
    """`d = if_true if n <predicate> immediate else if_false`, signed, but for hi; the immediate or its negative is
    a modified one.
    """

    name = "thumb.select_imm"
    TIMING: ClassVar[str] = "select"
    FORM: ClassVar[Form] = CMP_IMM
    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    if_false = operand_def(CORE)
    if_true = operand_def(CORE)
    n = operand_def(CORE)
    immediate = prop_def(IntegerAttr)
    predicate = prop_def(StringAttr)
    d = result_def(CORE)
    traits = traits_def(Pure())

    def verify_operands(self) -> None:
        if self.predicate.data not in CORE_CONDITION:
            raise VerifyException(f"the predicate is one of {', '.join(CORE_CONDITION)}")

    def encodable(self) -> bool:
        return self._compare().form.accepts(self._compare().values)

    def _compare(self) -> Part:
        n, immediate = number(self._operands[2]), self.immediate.value.data
        if immediate < 0:
            return Part(CMN_IMM, (n, -immediate))
        return Part(CMP_IMM, (n, immediate))

    def values(self) -> Values:
        return number(self._operands[2]), self.immediate.value.data

    def size_bound(self) -> int:
        return 8

    def parts(self, placement: Placement) -> Sequence[Part]:
        name = CORE_CONDITION[self.predicate.data]
        move = (number(self.results[0]), number(self._operands[1]))
        return (self._compare(), condition(name), Part(MovOp.FORM, move, name))


@irdl_op_definition
class VselectOp(ThumbOp):
    """`d = if_true if n <predicate> m else if_false`, floats; false when unordered, but for ne and uno: VCMP, VMRS, IT,
    VMOV.
    """

    name = "thumb.vselect"
    TIMING: ClassVar[str] = "vselect"
    FORM: ClassVar[Form] = VCMP
    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    if_false = operand_def(SINGLE)
    if_true = operand_def(SINGLE)
    n = operand_def(SINGLE)
    m = operand_def(SINGLE)
    predicate = prop_def(StringAttr)
    d = result_def(SINGLE)
    traits = traits_def(Pure())

    def verify_operands(self) -> None:
        if self.predicate.data not in SINGLE_CONDITION:
            raise VerifyException(f"the predicate is one of {', '.join(SINGLE_CONDITION)}")

    def values(self) -> Values:
        return number(self._operands[2]), number(self._operands[3])

    def size_bound(self) -> int:
        return 14

    def parts(self, placement: Placement) -> Sequence[Part]:
        name = SINGLE_CONDITION[self.predicate.data]
        move = (number(self.results[0]), number(self._operands[1]))
        return (Part(VCMP, self.values()), Part(VMRS, ()), condition(name), Part(VmovOp.FORM, move, name))


BUNDLE_OPS = [SelectOp, SelectImmOp, VselectOp]
