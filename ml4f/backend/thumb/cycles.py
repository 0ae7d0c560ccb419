"""Counts cycles of a run by the rules of the cycle model: how often each block ran, times what the block costs.

A block's cost depends on the instruction in front of it (a hazard across the boundary, a taken or untaken branch), so
blocks are counted together with their predecessor. This works on final bytes, apart from the compiler's own pricing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml4f.backend.thumb.decoder import Decoded, decode
from ml4f.backend.thumb.hazards import HazardRules, TimingRow
from ml4f.backend.thumb.operand_kinds import SP
from ml4f.backend.thumb.timing import MISALIGNED_TARGET, PIPELINE_REFILL, TAKEN_BRANCH, UNTAKEN_BRANCH

BLOCK_MULTIPLES = {"multiple_load", "multiple_store", "push", "pop"}
_STACK = {"push": TimingRow(1, cycles_per_word=1, store=True), "pop": TimingRow(1, cycles_per_word=1, any_load=True)}
_BRANCH = TimingRow(0)

Edge = tuple[int, int, int]
"""A block's predecessor's start (-1: none), its own address and its size."""


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
    aligned: bool


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
        aligned = instruction.address % 4 == 0
        return _Facts(timing, cycles, reads, writes, address, is_branch, row.size, aligned)

    @staticmethod
    def _address_registers(syntax: str, reads: tuple[int, ...], writes: tuple[int, ...]) -> tuple[int, ...]:
        """The core register that a memory access takes its address from."""
        if "[sp" in syntax or syntax.startswith(("push", "pop", "vpush", "vpop")):
            return (SP,)
        if "[{n" in syntax:
            if syntax.startswith(("str", "vst")):
                return tuple(register for register in reads[-1:] if register < 16)
            return reads[:1]
        if "ia {+n" in syntax:
            return tuple(register for register in reads if register < 16)
        return ()

    def count(self, edges: Mapping[Edge, int], ends: Mapping[int, int]) -> dict[int, int]:
        """Cycles by block address; `ends` gives the end address of the block that starts at an address."""
        cycles: dict[int, int] = {}
        for (previous, address, size), times in edges.items():
            cost = self.block(previous, ends.get(previous, -1), address, size)
            cycles[address] = cycles.get(address, 0) + cost * times
        return cycles

    def block(self, previous: int, previous_end: int, address: int, size: int) -> int:
        """Cycles of one execution of a block behind its predecessor."""
        return sum(cost for _, cost in self.instruction_costs(previous, previous_end, address, size))

    def instruction_costs(self, previous: int, previous_end: int, address: int, size: int) -> list[tuple[int, int]]:
        """(address, cycles) of each instruction; the branch that led here counts with the first one."""
        before: _Facts | None = None
        entry = run = 0
        if previous_end == address and previous >= 0:
            tail = self._tail(previous, previous_end)
            if tail.is_branch:
                entry = UNTAKEN_BRANCH
            else:
                before = tail
        elif previous >= 0:
            first = self.facts(address)
            entry = self.leave(previous, previous_end)
            entry += MISALIGNED_TARGET if first.size == 4 and not first.aligned else 0
        costs: list[tuple[int, int]] = []
        time = busy_until = 0
        position = address
        while position < address + size:
            facts = self.facts(position)
            start = time
            if facts.row.floating_point and busy_until > time:
                time = busy_until
            time += self._pair(before, facts)
            if facts.row.unit_busy:
                busy_until = time + facts.row.unit_busy
            run = run + 1 if facts.size == 4 and not facts.aligned else 0
            if run == self.rules.misaligned_run:
                time += self.rules.misaligned_stall
            costs.append((position, time - start + entry))
            entry = 0
            before = facts
            position += facts.size
        if busy_until > time and costs:
            costs[-1] = (costs[-1][0], costs[-1][1] + busy_until - time)
        return costs

    def leave(self, start: int, end: int) -> int:
        """Cycles of the jump at a block's end, beyond what the block itself was charged: a branch, or a pop of PC."""
        return TAKEN_BRANCH if self._tail(start, end).is_branch else PIPELINE_REFILL

    def _tail(self, start: int, end: int) -> _Facts:
        position = start
        facts = self.facts(position)
        while position + facts.size < end:
            position += facts.size
            facts = self.facts(position)
        return facts

    def _pair(self, before: _Facts | None, facts: _Facts) -> int:
        cycles = facts.cycles
        if before is None:
            return cycles
        rules = self.rules
        if before.row.arithmetic and any(register in before.writes for register in facts.reads):
            cycles += rules.result_stall
        if any(register in before.writes for register in facts.address):
            cycles += rules.address_stall
        elif facts.row.single_load and before.row.single_load:
            cycles -= rules.load_pairing
        if facts.row.any_load and before.row.store:
            cycles += rules.load_after_store
        if facts.row is rules.rows["it"] and before.size == 2:
            cycles -= 1
        return cycles
