"""Loads and stores, single and multiple, and the frame's slots.

Encodings: ARM DDI 0403E, A7.7. Every access names its `space`: accesses of different spaces never alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, StringAttr, SymbolRefAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    BaseAttr,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.thumb.encoding import Form, Part, Values, addition_steps, form
from ml4f.dialects.thumb.base import MemoryAccess, Placement, ThumbOp
from ml4f.dialects.thumb.core_ops import AddImmOp
from ml4f.dialects.thumb.registers import CoreRegisterType, SingleRegisterType, number

CORE = BaseAttr(CoreRegisterType)
SINGLE = BaseAttr(SingleRegisterType)
SPACES = ("arena", "const")
LONGEST_MULTIPLE = 32
"""Registers in one VLDM or VSTM."""


def verify_space(space: str) -> None:
    """Only the spaces that exist."""
    if space not in SPACES:
        raise VerifyException(f"the space is {' or '.join(SPACES)}, not {space}")


class SingleLoad(ThumbOp):
    """Base: `t = memory[n + offset]`."""

    TIMING: ClassVar[str] = "load"
    SIZE: ClassVar[int] = 4
    n = operand_def(CORE)
    offset = prop_def(IntegerAttr)
    space = prop_def(StringAttr)
    traits = traits_def(MemoryReadEffect())

    def verify_operands(self) -> None:
        verify_space(self.space.data)

    def values(self) -> Values:
        offset = self.properties["offset"]
        assert isinstance(offset, IntegerAttr)
        return number(self.results[0]), number(self._operands[0]), offset.value.data

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("read", self.space.data, self._operands[0], self.offset.value.data, self.SIZE)


class SingleStore(ThumbOp):
    """Base: `memory[n + offset] = t`."""

    TIMING: ClassVar[str] = "store"
    SIZE: ClassVar[int] = 4
    n = operand_def(CORE)
    offset = prop_def(IntegerAttr)
    space = prop_def(StringAttr)
    traits = traits_def(MemoryWriteEffect())

    def verify_operands(self) -> None:
        verify_space(self.space.data)

    def values(self) -> Values:
        offset = self.properties["offset"]
        assert isinstance(offset, IntegerAttr)
        return number(self._operands[0]), number(self._operands[1]), offset.value.data

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("write", self.space.data, self._operands[1], self.offset.value.data, self.SIZE)


@irdl_op_definition
class LdrOp(SingleLoad):
    """`t = word at n + offset`."""

    name = "thumb.ldr"
    FORM: ClassVar[Form] = form(
        "load",
        ("0110 1 iiiii nnn ttt", "ldr.n {=t:l}, [{n:l}{i:o4}]"),
        ("1111 1000 1101 nnnn tttt iiiiiiiiiiii", "ldr.w {=t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0101 nnnn tttt 1100 iiiiiiii", "ldr.w {=t:r}, [{n:r}{i:below}]"),
    )
    t = result_def(CORE)


@irdl_op_definition
class LdrhOp(SingleLoad):
    """`t = halfword at n + offset`, zero-extended."""

    name = "thumb.ldrh"
    SIZE: ClassVar[int] = 2
    FORM: ClassVar[Form] = form(
        "load",
        ("1000 1 iiiii nnn ttt", "ldrh.n {=t:l}, [{n:l}{i:o2}]"),
        ("1111 1000 1011 nnnn tttt iiiiiiiiiiii", "ldrh.w {=t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0011 nnnn tttt 1100 iiiiiiii", "ldrh.w {=t:r}, [{n:r}{i:below}]"),
    )
    t = result_def(CORE)


@irdl_op_definition
class LdrbOp(SingleLoad):
    """`t = byte at n + offset`, zero-extended."""

    name = "thumb.ldrb"
    SIZE: ClassVar[int] = 1
    FORM: ClassVar[Form] = form(
        "load",
        ("0111 1 iiiii nnn ttt", "ldrb.n {=t:l}, [{n:l}{i:o1}]"),
        ("1111 1000 1001 nnnn tttt iiiiiiiiiiii", "ldrb.w {=t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0001 nnnn tttt 1100 iiiiiiii", "ldrb.w {=t:r}, [{n:r}{i:below}]"),
    )
    t = result_def(CORE)


@irdl_op_definition
class StrOp(SingleStore):
    """`word at n + offset = t`."""

    name = "thumb.str"
    FORM: ClassVar[Form] = form(
        "store",
        ("0110 0 iiiii nnn ttt", "str.n {t:l}, [{n:l}{i:o4}]"),
        ("1111 1000 1100 nnnn tttt iiiiiiiiiiii", "str.w {t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0100 nnnn tttt 1100 iiiiiiii", "str.w {t:r}, [{n:r}{i:below}]"),
    )
    t = operand_def(CORE)
    n = operand_def(CORE)


@irdl_op_definition
class StrhOp(SingleStore):
    """`halfword at n + offset = low half of t`."""

    name = "thumb.strh"
    SIZE: ClassVar[int] = 2
    FORM: ClassVar[Form] = form(
        "store",
        ("1000 0 iiiii nnn ttt", "strh.n {t:l}, [{n:l}{i:o2}]"),
        ("1111 1000 1010 nnnn tttt iiiiiiiiiiii", "strh.w {t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0010 nnnn tttt 1100 iiiiiiii", "strh.w {t:r}, [{n:r}{i:below}]"),
    )
    t = operand_def(CORE)
    n = operand_def(CORE)


@irdl_op_definition
class StrbOp(SingleStore):
    """`byte at n + offset = low byte of t`."""

    name = "thumb.strb"
    SIZE: ClassVar[int] = 1
    FORM: ClassVar[Form] = form(
        "store",
        ("0111 0 iiiii nnn ttt", "strb.n {t:l}, [{n:l}{i:o1}]"),
        ("1111 1000 1000 nnnn tttt iiiiiiiiiiii", "strb.w {t:r}, [{n:r}{i:o1}]"),
        ("1111 1000 0000 nnnn tttt 1100 iiiiiiii", "strb.w {t:r}, [{n:r}{i:below}]"),
    )
    t = operand_def(CORE)
    n = operand_def(CORE)


@irdl_op_definition
class VldrOp(SingleLoad):
    """`d = float at n + offset`; offsets are multiples of 4 up to ±1020."""

    name = "thumb.vldr"
    TIMING: ClassVar[str] = "vload"
    FORM: ClassVar[Form] = form("vload", ("1110 1101 uD01 nnnn dddd 1010 iiiiiiii", "vldr {=dD:s}, [{n:r}{ui:so4}]"))
    d = result_def(SINGLE)


@irdl_op_definition
class VstrOp(SingleStore):
    """`float at n + offset = d`; offsets are multiples of 4 up to ±1020."""

    name = "thumb.vstr"
    TIMING: ClassVar[str] = "vstore"
    FORM: ClassVar[Form] = form("vstore", ("1110 1101 uD00 nnnn dddd 1010 iiiiiiii", "vstr {dD:s}, [{n:r}{ui:so4}]"))
    d = operand_def(SINGLE)
    n = operand_def(CORE)


def _first(values: Sequence[SSAValue]) -> tuple[int, int] | None:
    first = number(values[0])
    return None if first is None else (first, len(values))


@irdl_op_definition
class VldmiaOp(ThumbOp):
    """`d0, d1, … = floats at n, n + 4, …`; the last result is n advanced behind them."""

    name = "thumb.vldmia"
    TIMING: ClassVar[str] = "multiple_load"
    FORM: ClassVar[Form] = form(
        "multiple_load", ("1110 1100 1D11 nnnn dddd 1010 iiiiiiii", "vldmia {+n:r}!, {=dDi:slist}")
    )
    n = operand_def(CORE)
    space = prop_def(StringAttr)
    all_results = var_result_def(BaseAttr(CoreRegisterType) | BaseAttr(SingleRegisterType))
    traits = traits_def(MemoryReadEffect())

    def ties(self) -> tuple[tuple[int, int], ...]:
        return ((0, len(self.results) - 1),)

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        return (tuple(self.results[:-1]),)

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("read", self.space.data, self._operands[0], 0, 4 * (len(self.results) - 1))

    def verify_operands(self) -> None:
        verify_space(self.space.data)
        if not 2 <= len(self.results) <= LONGEST_MULTIPLE + 1:
            raise VerifyException(f"transfers 1 to {LONGEST_MULTIPLE} registers")

    def values(self) -> Values:
        return number(self._operands[0]), _first(self.results[:-1])


@irdl_op_definition
class VldmOp(ThumbOp):
    """`d0, d1, … = floats at n, n + 4, …`; n stays where it is."""

    name = "thumb.vldm"
    TIMING: ClassVar[str] = "multiple_load"
    FORM: ClassVar[Form] = form(
        "multiple_load", ("1110 1100 1D01 nnnn dddd 1010 iiiiiiii", "vldmia {n:r}, {=dDi:slist}")
    )
    n = operand_def(CORE)
    space = prop_def(StringAttr)
    d = var_result_def(SINGLE)
    traits = traits_def(MemoryReadEffect())

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        return (tuple(self.results),)

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("read", self.space.data, self._operands[0], 0, 4 * len(self.results))

    def verify_operands(self) -> None:
        verify_space(self.space.data)
        if not 1 <= len(self.results) <= LONGEST_MULTIPLE:
            raise VerifyException(f"transfers 1 to {LONGEST_MULTIPLE} registers")

    def values(self) -> Values:
        return number(self._operands[0]), _first(self.results)


@irdl_op_definition
class VstmiaOp(ThumbOp):
    """`floats at n, n + 4, … = d0, d1, …`; the result is n advanced behind them."""

    name = "thumb.vstmia"
    TIMING: ClassVar[str] = "multiple_store"
    FORM: ClassVar[Form] = form(
        "multiple_store", ("1110 1100 1D10 nnnn dddd 1010 iiiiiiii", "vstmia {+n:r}!, {dDi:slist}")
    )
    TIES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    n = operand_def(CORE)
    d = var_operand_def(SINGLE)
    space = prop_def(StringAttr)
    advanced = result_def(CORE)
    traits = traits_def(MemoryWriteEffect())

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        return (tuple(self._operands[1:]),)

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("write", self.space.data, self._operands[0], 0, 4 * (len(self._operands) - 1))

    def verify_operands(self) -> None:
        verify_space(self.space.data)
        if not 2 <= len(self.operands) <= LONGEST_MULTIPLE + 1:
            raise VerifyException(f"transfers 1 to {LONGEST_MULTIPLE} registers")

    def values(self) -> Values:
        return number(self._operands[0]), _first(self._operands[1:])


# The frame: spill slots, and the two pointers that the entry function keeps in it

LOAD_FRAME = form(
    "load",
    ("1001 1 ttt iiiiiiii", "ldr.n {=t:l}, [sp{i:o4}]"),
    ("1111 1000 1101 1101 tttt iiiiiiiiiiii", "ldr.w {=t:r}, [sp{i:o1}]"),
)
STORE_FRAME = form(
    "store",
    ("1001 0 ttt iiiiiiii", "str.n {t:l}, [sp{i:o4}]"),
    ("1111 1000 1100 1101 tttt iiiiiiiiiiii", "str.w {t:r}, [sp{i:o1}]"),
)


@irdl_op_definition
class FrameLoadOp(ThumbOp):
    """`t = frame slot`; `slot` is its byte offset among the function's spill slots."""

    name = "thumb.frame_load"
    TIMING: ClassVar[str] = "load"
    FORM: ClassVar[Form] = LOAD_FRAME
    slot = prop_def(IntegerAttr)
    t = result_def(CORE)
    traits = traits_def(MemoryReadEffect())

    def values(self) -> Values:
        return number(self.results[0]), self.slot.value.data

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("read", "frame", None, self.slot.value.data, 4)

    def parts(self, placement: Placement) -> Sequence[Part]:
        return (Part(self.FORM, (number(self.results[0]), placement.frame_offset(self.slot.value.data))),)


@irdl_op_definition
class FrameStoreOp(ThumbOp):
    """`frame slot = t`."""

    name = "thumb.frame_store"
    TIMING: ClassVar[str] = "store"
    FORM: ClassVar[Form] = STORE_FRAME
    slot = prop_def(IntegerAttr)
    t = operand_def(CORE)
    traits = traits_def(MemoryWriteEffect())

    def values(self) -> Values:
        return number(self._operands[0]), self.slot.value.data

    def memory(self) -> MemoryAccess | None:
        return MemoryAccess("write", "frame", None, self.slot.value.data, 4)

    def parts(self, placement: Placement) -> Sequence[Part]:
        return (Part(self.FORM, (number(self._operands[0]), placement.frame_offset(self.slot.value.data))),)


def _address_parts(register: int | None, slot: str, amount: int, placement: Placement) -> list[Part]:
    """Load a pointer from the frame and advance it by a constant."""
    parts = [Part(LOAD_FRAME, (register, placement.frame_offset(slot)))]
    parts += [Part(AddImmOp.FORM, (register, register, step)) for step in addition_steps(amount)]
    return parts


@irdl_op_definition
class ArenaAddressOp(ThumbOp):
    """`t = arena + offset` in the entry function, which keeps the arena's address in its frame."""

    name = "thumb.arena_address"
    TIMING: ClassVar[str] = "load"
    FORM: ClassVar[Form] = LOAD_FRAME
    offset = prop_def(IntegerAttr)
    t = result_def(CORE)

    def values(self) -> Values:
        return number(self.results[0]), 0

    def parts(self, placement: Placement) -> Sequence[Part]:
        return _address_parts(number(self.results[0]), "arena", self.offset.value.data, placement)

    def size_bound(self) -> int:
        return 4 + 4 * len(addition_steps(self.offset.value.data))


@irdl_op_definition
class DataAddressOp(ThumbOp):
    """`t = address of a thumb.data` in the entry function, which keeps the object's address in its frame."""

    name = "thumb.data_address"
    TIMING: ClassVar[str] = "load"
    FORM: ClassVar[Form] = LOAD_FRAME
    symbol = prop_def(SymbolRefAttr)
    t = result_def(CORE)

    def values(self) -> Values:
        return number(self.results[0]), 0

    def parts(self, placement: Placement) -> Sequence[Part]:
        offset = placement.data_offset(self.symbol.root_reference.data)
        return _address_parts(number(self.results[0]), "object", offset, placement)

    def size_bound(self) -> int:
        return 4 + 3 * 4


MEMORY_OPS = [
    LdrOp,
    LdrhOp,
    LdrbOp,
    StrOp,
    StrhOp,
    StrbOp,
    VldrOp,
    VstrOp,
    VldmiaOp,
    VldmOp,
    VstmiaOp,
    FrameLoadOp,
    FrameStoreOp,
    ArenaAddressOp,
    DataAddressOp,
]
