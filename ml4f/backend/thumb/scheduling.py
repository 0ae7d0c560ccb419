"""Local instruction scheduling in source order with a small window.

A block is cut at its loops and calls; each straight-line segment is scheduled greedily from the next few unscheduled
instructions in source order. Anything more ambitious (critical-path list scheduling) hoists more loads than there are
registers. The result is never slower than the input by the static cost of `hazards.py`: if it is, the input order
stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ml4f.backend.thumb.function_data import (
    CORE,
    REGISTER_COUNT,
    RESERVED,
    SINGLE,
    Function,
    Instruction,
    Loop,
    MemoryAccess,
    Step,
)
from ml4f.backend.thumb.hazards import HazardRules, Note, pair_cost, price
from ml4f.backend.thumb.liveness import Liveness, analyse_liveness

WINDOW = 6
"""Unscheduled instructions looked at; 3 to 10 give the same kernels, 32 breaks dense layers."""
FILLER_REACH = 16
"""How far away something is looked for that can stand in the place of a stall."""
SINGLE_LIMIT = REGISTER_COUNT[SINGLE]
CORE_LIMIT = REGISTER_COUNT[CORE] - len(RESERVED[CORE])


@dataclass(slots=True)
class ScheduleReport:
    """Static cycles of all segments before and after, each counted once."""

    cycles_before: int = 0
    cycles_after: int = 0
    stalls_after: int = 0
    changed: list[list[Step]] = field(default_factory=list)
    """The bodies whose order changed."""


def schedule_function(function: Function, rules: HazardRules, window: int = WINDOW) -> ScheduleReport:
    """Reorder the instructions of every body of `function` in place."""
    liveness = analyse_liveness(function)
    report = ScheduleReport()
    scheduler = _FunctionScheduler(function, liveness, rules, window, report)
    scheduler.body(function.body, None)
    return report


class _FunctionScheduler:
    """Walks the structure, keeping the step count in line with the liveness' time line."""

    def __init__(self, function: Function, liveness: Liveness, rules: HazardRules, window: int, report: ScheduleReport):
        self.function = function
        self.liveness = liveness
        self.rules = rules
        self.window = window
        self.report = report
        self.position = 0
        self.alive = {file: _live_at(function, liveness, file) for file in (SINGLE, CORE)}

    def body(self, steps: list[Step], loop: Loop | None) -> None:
        carried = {} if loop is None else dict(zip(loop.yields, loop.args, strict=True))
        ordered: list[Step] = []
        segment: list[Instruction] = []
        changed = False

        def flush() -> None:
            nonlocal changed
            if segment:
                whole = len(segment) == len(steps) and loop is not None
                order = self.segment(segment, carried, whole)
                changed = changed or order is not segment
                ordered.extend(order)
                segment.clear()

        for step in steps:
            if isinstance(step, Instruction) and not step.clobbers_all:
                segment.append(step)
                continue
            flush()
            ordered.append(step)
            self.position += 1
            if isinstance(step, Loop):
                self.body(step.body, step)
                self.position += 1
        flush()
        if changed:
            self.report.changed.append(steps)
            steps[:] = ordered

    def moves_pointer(self, instruction: Instruction) -> bool:
        """Whether the instruction changes a core register in place and does nothing else."""
        return (
            instruction.memory is None
            and len(instruction.uses) == len(instruction.defs) == 1
            and instruction.soft_ties == ((0, 0),)
            and self.function.classes[instruction.defs[0]] == CORE
        )

    def segment(
        self, instructions: list[Instruction], carried: dict[int, int], is_loop_body: bool
    ) -> list[Instruction]:
        """The best order found for a straight-line segment; the very list given if that is the input order."""
        first = 2 * (self.position + 1)
        self.position += len(instructions)
        notes = [Note(instruction, self.rules) for instruction in instructions]
        source = price(notes, self.rules, is_loop_body)
        order = range(len(instructions))
        best = source
        if len(instructions) > 1:
            alive = {file: counts[first] for file, counts in self.alive.items()}
            state = _Segment(self, instructions, notes, alive, 2 * self.position + 1)
            graph = dependences(instructions, carried, self.liveness.end)
            order = state.run((graph[0], graph[1].copy()))
            best = price([notes[index] for index in order], self.rules, is_loop_body)
            if best.stalls:
                order = _fill_stalls(order, instructions, notes, graph[0], self)
                best = price([notes[index] for index in order], self.rules, is_loop_body)
            if state.worst and best.cycles < source.cycles:
                source_order = _Segment(self, instructions, notes, alive, 2 * self.position + 1)
                if source_order.follow() < state.worst:
                    best = source  # the faster order needs more registers than there are
        self.report.cycles_before += source.cycles
        if best.cycles >= source.cycles:
            self.report.cycles_after += source.cycles
            self.report.stalls_after += source.stalls
            return instructions
        self.report.cycles_after += best.cycles
        self.report.stalls_after += best.stalls
        return [instructions[index] for index in order]


def _fill_stalls(
    order: list[int],
    instructions: Sequence[Instruction],
    notes: Sequence[Note],
    successors: Sequence[Sequence[int]],
    scheduler: _FunctionScheduler,
) -> list[int]:
    """Moves a pointer on a little later where an instruction would wait: in the window's order it came too early.

    Only additions to a core register in place are moved, which need no register longer or earlier than before.
    """
    rules, order = scheduler.rules, list(order)
    for place in range(2, len(order)):
        before, note = notes[order[place - 1]], notes[order[place]]
        if not _waits(before, note, rules):
            continue
        for earlier in range(place - 2, max(place - FILLER_REACH, 0), -1):
            moved = order[earlier]
            between = order[earlier + 1 : place]
            if not scheduler.moves_pointer(instructions[moved]) or not set(between).isdisjoint(successors[moved]):
                continue
            old = [order[earlier - 1], moved, *between, order[place]]
            new = [order[earlier - 1], *between, moved, order[place]]
            if _pairs(new, notes, rules) < _pairs(old, notes, rules):
                order[earlier - 1 : place + 1] = new
                break
    return order


def _waits(before: Note, note: Note, rules: HazardRules) -> bool:
    """Whether an instruction stalls directly behind another one."""
    paired = note.row.single_load and before.row.single_load
    return pair_cost(before, note, rules) > (note.least if paired else note.cycles)


def _pairs(order: Sequence[int], notes: Sequence[Note], rules: HazardRules) -> int:
    """Cycles of all but the first of some instructions in this order."""
    return sum(pair_cost(notes[a], notes[b], rules) for a, b in pairwise(order))


def _live_at(function: Function, liveness: Liveness, register_class: str) -> list[int]:
    """How many values of a class are alive in each time slot."""
    change = [0] * (liveness.slots + 2)
    for value, own in enumerate(function.classes):
        if own == register_class and liveness.end[value]:
            change[liveness.start[value]] += 1
            change[liveness.end[value]] -= 1
    live = 0
    for slot, step in enumerate(change):
        live += step
        change[slot] = live
    return change


def dependences(
    instructions: Sequence[Instruction], carried: dict[int, int], ends: Sequence[int]
) -> tuple[list[list[int]], list[int]]:
    """Successors and number of predecessors of every instruction of a segment.

    Beyond operands: whatever writes an operand's register in place (a tie, a soft tie of the value's last reader, the
    value yielded for a loop argument) stays behind the other readers that it was behind; and memory keeps its order.
    """
    count = len(instructions)
    successors: list[list[int]] = [[] for _ in range(count)]
    predecessors = [0] * count
    writer: dict[int, int] = {}
    readers: defaultdict[int, list[int]] = defaultdict(list)
    for index, instruction in enumerate(instructions):
        for value in instruction.uses:
            source = writer.get(value)
            if source is not None:
                successors[source].append(index)
                predecessors[index] += 1
            readers[value].append(index)
        for value in instruction.defs:
            writer[value] = index

    def behind_readers(value: int, index: int, only_if_last: bool) -> None:
        others = readers[value]
        if only_if_last and others[-1] > index:
            return
        for reader in others:
            if reader < index:
                successors[reader].append(index)
                predecessors[index] += 1

    for index, instruction in enumerate(instructions):
        for use, _ in instruction.ties:
            behind_readers(instruction.uses[use], index, False)
        for use, _ in instruction.soft_ties:
            behind_readers(instruction.uses[use], index, True)
        if carried:
            for value in instruction.defs:
                arg = carried.get(value)
                if arg is not None and arg in readers:
                    behind_readers(arg, index, False)
    _memory_dependences(instructions, successors, predecessors)
    return successors, predecessors


def _memory_dependences(
    instructions: Sequence[Instruction], successors: list[list[int]], predecessors: list[int]
) -> None:
    """Stores of one space stay in order; loads stay on their side of every store that may touch the same bytes."""
    stores: defaultdict[str, list[tuple[int, MemoryAccess]]] = defaultdict(list)
    loads: defaultdict[str, list[tuple[int, MemoryAccess]]] = defaultdict(list)

    def order(first: int, second: int) -> None:
        successors[first].append(second)
        predecessors[second] += 1

    for index, instruction in enumerate(instructions):
        access = instruction.memory
        if access is None:
            continue
        before = stores[access.space]
        if not access.is_store:
            for store, other in reversed(before):
                if _may_overlap(access, other):
                    order(store, index)
                    break
            loads[access.space].append((index, access))
            continue
        if before:
            order(before[-1][0], index)
        before.append((index, access))
        waiting = []
        for load, other in loads[access.space]:
            if _may_overlap(access, other):
                order(load, index)
            else:
                waiting.append((load, other))
        loads[access.space] = waiting


def _may_overlap(first: MemoryAccess, second: MemoryAccess) -> bool:
    """Whether two accesses of one space may touch the same byte: not if they are disjoint pieces of one base."""
    if first.base != second.base:
        return True
    return first.offset < second.offset + second.size and second.offset < first.offset + first.size


class _Segment:
    """The greedy choice over one segment."""

    def __init__(
        self,
        scheduler: _FunctionScheduler,
        instructions: list[Instruction],
        notes: list[Note],
        alive: dict[str, int],
        last_slot: int,
    ):
        self.rules = scheduler.rules
        self.window = scheduler.window
        self.classes = scheduler.function.classes
        self.instructions = instructions
        self.notes = notes
        self.singles = alive[SINGLE]
        self.cores = alive[CORE]
        self.worst = 0
        """By how many values the limits are exceeded at most."""
        self.remaining: dict[int, int] = {}
        ends = scheduler.liveness.end
        for instruction in instructions:
            for value in set(instruction.uses):
                survives = ends[value] > last_slot + 1
                self.remaining[value] = self.remaining.get(value, 1 if survives else 0) + 1
            for value in instruction.defs:
                self.remaining.setdefault(value, 1 if ends[value] > last_slot + 1 else 0)

    def run(self, graph: tuple[list[list[int]], list[int]]) -> list[int]:
        """The chosen order, as indices."""
        successors, predecessors = graph
        count, window = len(self.instructions), self.window
        order: list[int] = []
        pending = list(range(min(window, count)))
        following = len(pending)
        before: Note | None = None
        time = busy_until = halfwords = 0
        while pending:
            ready = [index for index in pending if not predecessors[index]]
            chosen = ready[0] if len(ready) == 1 else self.choose(ready, before, halfwords, busy_until - time)
            pending.remove(chosen)
            if following < count:
                pending.append(following)
                following += 1
            note = self.notes[chosen]
            if note.row.floating_point and busy_until > time:
                time = busy_until
            time += pair_cost(before, note, self.rules)
            if note.row.unit_busy:
                busy_until = time + note.row.unit_busy
            halfwords += note.halfwords
            self.worst = max(self.worst, self.exceeds(self.instructions[chosen]))
            self.retire(self.instructions[chosen])
            for successor in successors[chosen]:
                predecessors[successor] -= 1
            order.append(chosen)
            before = note
        return order

    def follow(self) -> int:
        """By how many values the order in the source exceeds the limits."""
        for instruction in self.instructions:
            self.worst = max(self.worst, self.exceeds(instruction))
            self.retire(instruction)
        return self.worst

    def choose(self, ready: list[int], before: Note | None, halfwords: int, busy: int) -> int:
        """The ready instruction with the least key; the order in the source decides between equals."""
        best, best_key = ready[0], None
        behind_load = before is not None and before.row.single_load
        opcode = None if before is None else before.opcode
        for index in ready:
            note = self.notes[index]
            cost = pair_cost(before, note, self.rules) - note.least
            if busy > 0 and note.row.floating_point:
                cost += busy
            key = (
                self.exceeds(self.instructions[index]),
                cost,
                (halfwords + note.halfwords) & 1,
                behind_load and not note.row.single_load,
                note.row.arithmetic and note.opcode == opcode,
            )
            if best_key is None or key < best_key:
                best, best_key = index, key
        return best

    def exceeds(self, instruction: Instruction) -> int:
        """By how many values the register limits are exceeded right behind the instruction, or, where it overwrites an
        operand that is read later, in front of it: a copy is made there.
        """
        if self.singles + len(instruction.defs) <= SINGLE_LIMIT and self.cores + len(instruction.defs) <= CORE_LIMIT:
            return 0
        singles, cores = self.change(instruction)
        for use, _ in instruction.ties:
            value = instruction.uses[use]
            if self.remaining[value] > 1:
                if self.classes[value] == SINGLE:
                    singles = max(singles, 1)
                else:
                    cores = max(cores, 1)
        over = max(0, self.singles + singles - SINGLE_LIMIT) if singles > 0 else 0
        return over + (max(0, self.cores + cores - CORE_LIMIT) if cores > 0 else 0)

    def change(self, instruction: Instruction) -> tuple[int, int]:
        """By how much the numbers of live values of both files grow."""
        singles = cores = 0
        for value in instruction.defs:
            if self.classes[value] == SINGLE:
                singles += 1
            else:
                cores += 1
        for value in set(instruction.uses):
            if self.remaining[value] == 1:
                if self.classes[value] == SINGLE:
                    singles -= 1
                else:
                    cores -= 1
        return singles, cores

    def retire(self, instruction: Instruction) -> None:
        """Account for a chosen instruction."""
        singles, cores = self.change(instruction)
        for value in set(instruction.uses):
            self.remaining[value] -= 1
        for value in instruction.defs:
            if not self.remaining[value]:
                if self.classes[value] == SINGLE:
                    singles -= 1
                else:
                    cores -= 1
        self.singles += singles
        self.cores += cores
