"""A thumb function as plain data: what scheduling, register allocation and their checker work on.

Values are small integers; nothing in here knows about xDSL (`function_view.py` converts). A function's body is a list
of steps, each an `Instruction` or a `Loop`; the lists are edited in place, instructions are edited by replacing their
tuples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

CORE = "r"
"""Register class of the core registers r0 to r15."""
SINGLE = "s"
"""Register class of the single-precision registers s0 to s31."""

REGISTER_COUNT = {CORE: 16, SINGLE: 32}
RESERVED = {CORE: frozenset({13, 15}), SINGLE: frozenset[int]()}
"""Never allocated: the stack pointer and the program counter."""

WORD = 4
"""Bytes of a register and of a spill slot."""

COPY = "copy"
FRAME_LOAD = "frame_load"
FRAME_STORE = "frame_store"


class Group(NamedTuple):
    """`length` operands (or results) from index `start` that must lie in consecutive ascending registers."""

    of_results: bool
    start: int
    length: int


class MemoryAccess(NamedTuple):
    """Which bytes an instruction touches: `size` bytes at value `base` plus `offset`, in a space that aliases no other.

    `base` is None where the address is not one value plus a constant.
    """

    is_store: bool
    space: str
    base: int | None
    offset: int
    size: int


@dataclass(slots=True, eq=False)
class Instruction:
    """One machine instruction, or one bundle that nothing may part.

    opcode: the mnemonic-like name; `timing`: its row in the core table; `halfwords`: its size in units of 2 bytes.
    ties: (operand index, result index) pairs that must share a register; `soft_ties`: that had better share one.
    fixed_uses: (operand index, register) pairs (arguments of a call).
    early_clobber: results that are not tied may be written before all operands are read.
    clobbers_all: no register of either class survives (a call).
    rematerialisable: has no operands and no effect, so it can be computed again anywhere.
    slot: byte offset of the frame slot of a frame load or store; `spilled`: the value that the slot must hold, if
    known.
    origin: whatever the producer wants to find again; `is_clone` asks for a copy of it.
    """

    opcode: str
    timing: str
    uses: tuple[int, ...] = ()
    defs: tuple[int, ...] = ()
    ties: tuple[tuple[int, int], ...] = ()
    soft_ties: tuple[tuple[int, int], ...] = ()
    groups: tuple[Group, ...] = ()
    fixed_uses: tuple[tuple[int, int], ...] = ()
    memory: MemoryAccess | None = None
    halfwords: int = 2
    early_clobber: bool = False
    clobbers_all: bool = False
    rematerialisable: bool = False
    slot: int | None = None
    spilled: int | None = None
    origin: object = None
    is_clone: bool = False


class SlotCarried(NamedTuple):
    """A loop-carried value that lives in a frame slot instead of a register."""

    slot: int
    init: int
    arg: int
    yielded: int
    result: int


@dataclass(slots=True, eq=False)
class Loop:
    """`do { body } while (--count != 0)`; args, inits, yields and results correspond one to one.

    `count` is consumed: its register becomes `counter`, a value that is alive throughout the body and never used by it.
    With a `counter_slot` the counter lives in the frame instead: the count was stored there before the loop, every
    iteration loads `reloaded_counter` from the slot, and the loop's end decrements and stores it.
    """

    count: int
    counter: int
    inits: list[int] = field(default_factory=list)
    args: list[int] = field(default_factory=list)
    yields: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    body: list[Step] = field(default_factory=list)
    counter_slot: int | None = None
    reloaded_counter: int | None = None
    slot_carried: list[SlotCarried] = field(default_factory=list)
    origin: object = None


Step = Instruction | Loop


@dataclass(slots=True, eq=False)
class Function:
    """A function: `classes[v]` is the register class of value v, `registers[v]` its register once allocated.

    `fixed` are the values whose register is given: the arguments, and whatever the producer pinned. `frame` is the
    number of bytes of spill slots.
    """

    name: str
    classes: list[str] = field(default_factory=list)
    args: list[int] = field(default_factory=list)
    fixed: dict[int, int] = field(default_factory=dict)
    body: list[Step] = field(default_factory=list)
    frame: int = 0
    registers: list[int | None] = field(default_factory=list)

    def new_value(self, register_class: str) -> int:
        """A fresh value id."""
        self.classes.append(register_class)
        if self.registers:
            self.registers.append(None)
        return len(self.classes) - 1

    def new_slot(self) -> int:
        """The byte offset of a fresh one-word frame slot."""
        self.frame += WORD
        return self.frame - WORD


def instructions(steps: Iterable[Step]) -> Iterator[Instruction]:
    """Every instruction, in program order, those of loop bodies included."""
    for step in steps:
        if isinstance(step, Loop):
            yield from instructions(step.body)
        else:
            yield step


def loops(steps: Iterable[Step]) -> Iterator[Loop]:
    """Every loop, outer ones before those in them."""
    for step in steps:
        if isinstance(step, Loop):
            yield step
            yield from loops(step.body)


def rename_uses(steps: Iterable[Step], names: dict[int, int]) -> None:
    """Replace every use of a value in `names`, loop operands and yields included."""

    def renamed(values: list[int]) -> list[int]:
        return [names.get(value, value) for value in values]

    for step in steps:
        if isinstance(step, Loop):
            step.count = names.get(step.count, step.count)
            step.inits, step.yields = renamed(step.inits), renamed(step.yields)
            rename_uses(step.body, names)
        elif not names.keys().isdisjoint(step.uses):
            replace_uses(step, names)


def replace_uses(instruction: Instruction, names: dict[int, int]) -> None:
    """Replace operands of one instruction, the base of its memory access included."""
    instruction.uses = tuple(names.get(value, value) for value in instruction.uses)
    memory = instruction.memory
    if memory is not None and memory.base in names:
        instruction.memory = memory._replace(base=names[memory.base])


def register_name(register_class: str, register: int) -> str:
    """The assembler's name: r0, sp, lr, s31."""
    special = {13: "sp", 14: "lr", 15: "pc"}
    if register_class == CORE and register in special:
        return special[register]
    return f"{register_class}{register}"
