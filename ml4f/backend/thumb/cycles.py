"""Counts cycles of a run by the rules of the cycle model: how often each block ran, times what the block costs.

A block's cost depends on the instruction in front of it (a hazard across the boundary, a taken or untaken branch), so
blocks are counted together with their predecessor. This works on final bytes, apart from the compiler's own pricing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ml4f.backend.thumb.decoder import Decoded, decode
from ml4f.backend.thumb.hazards import HazardRules, TimingRow
from ml4f.backend.thumb.operand_kinds import SP
from ml4f.backend.thumb.timing import MISALIGNED_TARGET, PIPELINE_REFILL, TAKEN_BRANCH, UNTAKEN_BRANCH

BLOCK_MULTIPLES = {"multiple_load", "multiple_store", "push", "pop"}
_STACK = {"push": TimingRow(1, cycles_per_word=1, store=True), "pop": TimingRow(1, cycles_per_word=1, any_load=True)}
_BRANCH = TimingRow(0)


STALL_KINDS = ("result", "address", "store", "division", "alignment", "branch target")
"""Why an instruction waits: its operand or address was computed directly before, it loads behind a store, the divider
is busy, it is the third wide instruction in a row off a word boundary, or a wide branch target off a word boundary."""


@dataclass(slots=True)
class Cost:
    """Cycles of one instruction, stalls included; `stalls` says how many of them are lost, by kind."""

    address: int
    cycles: int = 0
    stalls: dict[str, int] = field(default_factory=dict)

    def stall(self, kind: str, cycles: int) -> None:
        """Add lost cycles."""
        self.cycles += cycles
        self.stalls[kind] = self.stalls.get(kind, 0) + cycles


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the rules need to know about one decoded instruction."""

    row: TimingRow
    cycles: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    address: tuple[int, ...]
    is_branch: bool
    size: int
    is_misaligned_wide: bool


class CycleCounter:
    """Prices the blocks of one object."""

    def __init__(self, binary: bytes, rules: HazardRules, base: int = 0):
        self.binary = binary
        self.rules = rules
        self.base = base
        self._facts: dict[int, _Facts] = {}

    def facts(self, address: int) -> _Facts:
        known = self._facts.get(address)
        if known is None:
            known = self._facts[address] = self._examine(decode(self.binary, address - self.base, address))
        return known

    def _examine(self, instruction: Decoded) -> _Facts:
        row, values = instruction.row, instruction.values
        kind = "it" if row.mnemonic == "it" else row.timing
        is_branch = kind == "branch"
        timing = _BRANCH if is_branch else _STACK.get(kind) or self.rules.rows[kind]
        reads, writes = row.reads(values), row.writes(values)
        cycles = timing.cycles
        if kind in BLOCK_MULTIPLES:
            base_registers = 1 if kind.startswith("multiple") else 0
            words = len(set(reads) | set(writes)) - base_registers
            cycles += timing.cycles_per_word * words
        address = self._address_registers(row.syntax, reads, writes)
        if kind in _STACK or row.syntax.partition(" ")[2].startswith("sp,"):
            writes = (*writes, SP)
        if timing.late_addend:
            tied = set(writes)
            operands = [register for register in reads if register not in tied]
            repeated = [r for r in tied if list(values[1:]).count(r - 16)]
            reads = tuple(operands + repeated)
        is_misaligned_wide = row.size == 4 and instruction.address % 4 != 0
        return _Facts(timing, cycles, reads, writes, address, is_branch, row.size, is_misaligned_wide)

    @staticmethod
    def _address_registers(syntax: str, reads: tuple[int, ...], writes: tuple[int, ...]) -> tuple[int, ...]:
        """The core register that a memory access takes its address from."""
        if "[sp" in syntax or syntax.startswith(("push", "pop", "vpush", "vpop")):
            return (SP,)
        if "[{n" in syntax:
            if syntax.startswith(("str", "vst")):
                return tuple(register for register in reads[-1:] if register < 16)
            return reads[:1]
        if "ia {+n" in syntax or "ia {n" in syntax:
            return tuple(register for register in reads if register < 16)
        return ()

    def block(self, previous: int, previous_end: int, address: int, size: int) -> int:
        """Cycles of one execution of a block behind its predecessor."""
        return sum(cost for _, cost in self.instruction_costs(previous, previous_end, address, size))

    def instruction_costs(self, previous: int, previous_end: int, address: int, size: int) -> list[tuple[int, int]]:
        """(address, cycles) of each instruction; the branch that led here counts with the first one."""
        return [(cost.address, cost.cycles) for cost in self.explain(previous, previous_end, address, size)]

    def explain(self, previous: int, previous_end: int, address: int, size: int) -> list[Cost]:
        """The same with the stalls in it, by kind."""
        before: _Facts | None = None
        pending = Cost(address)
        run = time = busy_until = 0
        if previous_end == address and previous >= 0:
            tail, run = self._tail(previous, previous_end)
            if tail.is_branch:
                pending.cycles = UNTAKEN_BRANCH
            else:
                before = tail
        elif previous >= 0:
            first = self.facts(address)
            pending.cycles = self.leave(previous, previous_end)
            if first.is_misaligned_wide:
                pending.stall("branch target", MISALIGNED_TARGET)
        costs: list[Cost] = []
        position = address
        while position < address + size:
            facts = self.facts(position)
            cost, pending = pending, Cost(position + facts.size)
            start = time - cost.cycles
            if facts.row.floating_point and busy_until > time:
                cost.stall("division", busy_until - time)
            self._pair(before, facts, cost)
            time = start + cost.cycles
            if facts.row.unit_busy:
                busy_until = time + facts.row.unit_busy
            run = run + 1 if facts.is_misaligned_wide else 0
            if run == self.rules.misaligned_run:
                cost.stall("alignment", self.rules.misaligned_stall)
                time += self.rules.misaligned_stall
            costs.append(cost)
            before = facts
            position += facts.size
        if busy_until > time and costs:
            costs[-1].stall("division", busy_until - time)
        return costs

    def leave(self, start: int, end: int) -> int:
        """Cycles of the jump at a block's end, beyond what the block itself was charged: a branch, or a pop of PC."""
        return TAKEN_BRANCH if self._tail(start, end)[0].is_branch else PIPELINE_REFILL

    def _tail(self, start: int, end: int) -> tuple[_Facts, int]:
        """A block's last instruction, and how many wide instructions off their words it ends with."""
        facts = self.facts(start)
        run = int(facts.is_misaligned_wide)
        position = start + facts.size
        while position < end:
            facts = self.facts(position)
            run = run + 1 if facts.is_misaligned_wide else 0
            position += facts.size
        return facts, run

    def _pair(self, before: _Facts | None, facts: _Facts, cost: Cost) -> None:
        """Add what an instruction costs behind another one (None: behind a branch)."""
        cost.cycles += facts.cycles
        if before is None:
            return
        rules = self.rules
        if before.row.arithmetic and any(register in before.writes for register in facts.reads):
            cost.stall("result", rules.result_stall)
        if any(register in before.writes for register in facts.address):
            cost.stall("address", rules.address_stall)
        elif facts.row.single_load and before.row.single_load:
            cost.cycles -= rules.load_pairing
        if facts.row.any_load and before.row.store:
            cost.stall("store", rules.load_after_store)
        if facts.row is rules.rows["it"] and before.size == 2:
            cost.cycles -= 1
