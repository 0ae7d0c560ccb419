"""What a straight-line block costs under a core's timing table: cycles, of which stalls.

The rules are those of `timing.py`; this module applies them to neighbouring instructions of the plain-data view, before
or after register allocation. A loop's `subs; bne` clears every hazard between neighbours, so the back edge costs
nothing here but what is left of a division.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ml4f.backend.thumb.function_data import Instruction


@dataclass(frozen=True, slots=True)
class TimingRow:
    """How one timing class behaves.

    cycles: without any hazard; `cycles_per_word`: in addition, for each word transferred by a multiple load or store.
    single_load: directly behind another single load it takes one cycle less. store: a load directly behind waits.
    arithmetic: its floating-point result cannot be read by the very next instruction without a stall; `late_addend`:
    its tied operand can. unit_busy: cycles during which the floating-point unit takes no other instruction (division).
    """

    cycles: int = 1
    cycles_per_word: int = 0
    single_load: bool = False
    any_load: bool = False
    store: bool = False
    arithmetic: bool = False
    late_addend: bool = False
    unit_busy: int = 0
    floating_point: bool = False


@dataclass(frozen=True, slots=True)
class HazardRules:
    """A core's rows by timing class, and the penalties between neighbours, in cycles."""

    rows: dict[str, TimingRow]
    result_stall: int = 1
    address_stall: int = 1
    load_after_store: int = 1
    load_pairing: int = 1
    misaligned_run: int = 3
    misaligned_stall: int = 2


class Note:
    """What the pricing of neighbours needs to know about one instruction, worked out once."""

    __slots__ = ("address", "cycles", "halfwords", "least", "opcode", "results", "row", "sensitive", "written")

    def __init__(self, instruction: Instruction, rules: HazardRules):
        self.opcode = instruction.opcode
        row = self.row = rules.rows[instruction.timing]
        memory = instruction.memory
        words = 0 if memory is None else memory.size // 4
        self.cycles = row.cycles + row.cycles_per_word * words
        self.least = self.cycles - (rules.load_pairing if row.single_load else 0)
        self.address = None if memory is None else memory.base
        self.written = instruction.defs
        self.results = instruction.defs if row.arithmetic else ()
        self.halfwords = instruction.halfwords
        if row.late_addend:
            tied = {use for use, _ in instruction.ties}
            self.sensitive = tuple(value for use, value in enumerate(instruction.uses) if use not in tied)
        else:
            self.sensitive = instruction.uses


def pair_cost(before: Note | None, note: Note, rules: HazardRules) -> int:
    """Cycles of an instruction directly behind another one (None: behind a branch)."""
    cycles = note.cycles
    if before is None:
        return cycles
    row, row_before = note.row, before.row
    if before.results:
        for value in note.sensitive:
            if value in before.results:
                cycles += rules.result_stall
                break
    address = note.address
    if address is not None and address in before.written:
        cycles += rules.address_stall
    elif row.single_load and row_before.single_load:
        cycles -= rules.load_pairing
    if row.any_load and row_before.store:
        cycles += rules.load_after_store
    return cycles


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Cycles of a straight-line block; `stalls` of them lost to results, addresses, stores, division and alignment."""

    cycles: int
    stalls: int
    halfwords: int


def block_cost(instructions: Iterable[Instruction], rules: HazardRules, is_loop_body: bool = False) -> BlockCost:
    """Price a block that starts word aligned; in a loop body what is left of a division delays the next round."""
    return price([Note(instruction, rules) for instruction in instructions], rules, is_loop_body)


def price(notes: Iterable[Note], rules: HazardRules, is_loop_body: bool = False) -> BlockCost:
    """The same for instructions that are noted already."""
    time = stalls = halfwords = busy_until = run = 0
    before: Note | None = None
    for note in notes:
        if note.row.floating_point and busy_until > time:
            stalls += busy_until - time
            time = busy_until
        cost = pair_cost(before, note, rules)
        pairs = before is not None and note.row.single_load and before.row.single_load
        stalls += max(0, cost - note.cycles + (rules.load_pairing if pairs else 0))
        time += cost
        if note.row.unit_busy:
            busy_until = time + note.row.unit_busy
        run = run + 1 if halfwords & 1 and note.halfwords == 2 else 0
        if run == rules.misaligned_run:
            time += rules.misaligned_stall
            stalls += rules.misaligned_stall
        halfwords += note.halfwords
        before = note
    if is_loop_body and busy_until > time:
        stalls += busy_until - time
        time = busy_until
    return BlockCost(time, stalls, halfwords)
