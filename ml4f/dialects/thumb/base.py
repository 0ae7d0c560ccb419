"""What every instruction operation of the thumb dialect offers to scheduling, register allocation and encoding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, Self

from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.thumb.encoding import Form, Part, Values
from ml4f.dialects.text import parse_entries, parse_value, parse_values, print_entries
from ml4f.dialects.thumb.registers import number


class MemoryAccess(NamedTuple):
    """`size` bytes at `base + offset`, `kind` "read" or "write". Different spaces never alias; no base: the frame."""

    kind: str
    space: str
    base: SSAValue | None
    offset: int
    size: int


class Placement(Protocol):
    """What layout tells the operations whose instructions depend on it."""

    def frame_offset(self, slot: str | int) -> int:
        """Offset from sp of the object's pointer ("object"), the arena's ("arena"), or a spill slot (a byte offset)."""
        ...

    def data_offset(self, symbol: str) -> int:
        """Offset of a `thumb.data` from the start of the object."""
        ...


class ThumbOp(IRDLOperation):
    """Base of all instruction operations: one machine instruction, or one bundle that nothing may part.

    FORM: the encodings of a single instruction. TIMING: key into a core's timing table. TIES: (operand, result) pairs
    that must share a register; SOFT_TIES: that had better (the encoding gets shorter). EARLY_CLOBBER: results that are
    not tied may be written before all operands are read. REMATERIALISABLE: no operands and no effect, so it can be
    computed again.
    REQUIRES: a core feature ("fpv5") or "".

    Text: `%d = thumb.vadd %n, %m : !thumb.s`; properties and attributes share one dictionary; only results show types.
    """

    FORM: ClassVar[Form]
    TIMING: ClassVar[str]
    TIES: ClassVar[tuple[tuple[int, int], ...]] = ()
    SOFT_TIES: ClassVar[tuple[tuple[int, int], ...]] = ()
    EARLY_CLOBBER: ClassVar[bool] = False
    REMATERIALISABLE: ClassVar[bool] = False
    REQUIRES: ClassVar[str] = ""

    def ties(self) -> tuple[tuple[int, int], ...]:
        """(operand index, result index) pairs that must share a register."""
        return self.TIES

    def soft_ties(self) -> tuple[tuple[int, int], ...]:
        """(operand index, result index) pairs that had better share a register."""
        return self.SOFT_TIES

    def groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        """Values that must lie in consecutive ascending registers."""
        return ()

    def ascending_groups(self) -> tuple[tuple[SSAValue, ...], ...]:
        """Values that must lie in ascending, not necessarily consecutive registers."""
        return ()

    def memory(self) -> MemoryAccess | None:
        """The bytes that the operation reads or writes."""
        return None

    def values(self) -> Values:
        """The operands of FORM, in its order; None for a register that is not allocated."""
        raise NotImplementedError(self.name)

    def parts(self, placement: Placement) -> Sequence[Part]:
        """The machine instructions, in order; all registers are allocated."""
        return (Part(self.FORM, self.values()),)

    def size_bound(self) -> int:
        """Bytes; the encoder may stay below while registers are not allocated."""
        form = self.FORM
        return form.rows[0].size if len(form.rows) == 1 else form.largest(self.values())

    def verify_(self) -> None:
        self.verify_operands()
        self.verify_registers()
        if not self.encodable():
            given = ", ".join(f"{k} = {_value_text(v)}" for k, v in self.properties.items() if k != "space")
            raise VerifyException(f"no encoding of '{self.FORM.rows[-1].syntax}' takes {given or 'these registers'}")

    def verify_operands(self) -> None:
        """Checks of the operation's own, before those of registers and encoding."""

    def encodable(self) -> bool:
        """Whether some encoding takes the immediates and the registers known so far."""
        return self.FORM.accepts(self.values())

    def verify_registers(self) -> None:
        """Ties and groups of registers that are allocated."""
        for operand, result in self.ties():
            a, b = number(self.operands[operand]), number(self.results[result])
            if a is not None and b is not None and a != b:
                raise VerifyException(f"operand {operand} and result {result} must share a register")
        for group in self.groups():
            numbers = [number(value) for value in group]
            for a, b in itertools.pairwise(numbers):
                if a is not None and b is not None and b != a + 1:
                    raise VerifyException(f"registers {a} and {b} are not consecutive")
        for group in self.ascending_groups():
            known = [n for value in group if (n := number(value)) is not None]
            if known != sorted(set(known)):
                raise VerifyException("registers of a list must ascend")

    def print(self, printer: Printer) -> None:
        if self.operands:
            printer.print_string(" ")
            printer.print_list(self.operands, printer.print_ssa_value)
        print_entries(printer, self)
        if self.results:
            printer.print_string(" : ")
            printer.print_list(self.result_types, printer.print_attribute)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands = parse_values(parser)
        properties, attributes = parse_entries(parser, cls)
        types: Sequence[Attribute] = ()
        if parser.parse_optional_punctuation(":"):
            types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        return cls.create(operands=operands, result_types=types, properties=properties, attributes=attributes)


def _value_text(attribute: Attribute) -> str:
    return str(attribute.value.data) if isinstance(attribute, IntegerAttr) else str(attribute)


__all__ = ["MemoryAccess", "Placement", "ThumbOp", "parse_entries", "parse_value", "parse_values", "print_entries"]
