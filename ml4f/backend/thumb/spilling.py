"""Move webs of core registers into frame slots, cheapest first.

A spilled web is stored behind every definition and loaded in front of every use; the loaded value lives for one step.
The members of a web are never alive together, so one slot serves them all, a loop-carried position included
(`SlotCarried`), and a loop counter. A constant is not stored but computed again at every use.
"""

from __future__ import annotations

from ml4f.backend.thumb.function_data import (
    CORE,
    FRAME_LOAD,
    FRAME_STORE,
    WORD,
    Function,
    Instruction,
    Loop,
    MemoryAccess,
    SlotCarried,
    Step,
    instructions,
    loops,
    replace_uses,
)
from ml4f.backend.thumb.legalisation import clone_constant
from ml4f.backend.thumb.liveness import Liveness
from ml4f.backend.thumb.webs import Webs, hard_constraints

SHORTEST_SPILL = 6
"""Slots: spilling a live range of less than three steps frees nothing."""


class Spiller:
    """Chooses and rewrites one web at a time; remembers what must not be spilled again."""

    def __init__(self, function: Function):
        self.function = function
        self.settled: set[int] = set()
        """Values that are spilled, or loaded for one use: nothing is gained by spilling them."""

    def spill(self, liveness: Liveness, wanted: int) -> bool:
        """Spill the cheapest web that is alive in one of the slots `wanted`; False if there is none."""
        constants = {
            instruction.defs[0]: instruction
            for instruction in instructions(self.function.body)
            if instruction.rematerialisable and self.function.classes[instruction.defs[0]] == CORE
        }
        best: tuple[float, int, list[int]] | None = None
        for members in self.webs(liveness):
            taken = 0
            for value in members:
                taken |= liveness.mask(value)
            length = taken.bit_count()
            if not taken & wanted or length < SHORTEST_SPILL or not self.settled.isdisjoint(members):
                continue
            cost = sum(liveness.weight[value] for value in members)
            if len(members) == 1 and members[0] in constants:
                cost /= 2
            candidate = (cost / length, members[0], members)
            if best is None or candidate < best:
                best = candidate
        if best is None:
            return False
        members = best[2]
        self.settled.update(members)
        if len(members) == 1 and members[0] in constants:
            _Rewriter(self, {members[0]}, None, constants[members[0]]).run()
        else:
            _Rewriter(self, set(members), self.function.new_slot(), None).run()
        return True

    def webs(self, liveness: Liveness) -> list[list[int]]:
        """The members of every web of core registers, given registers left out."""
        webs = Webs(self.function, liveness)
        for constraint in hard_constraints(self.function, None):
            webs.join(constraint.first, constraint.second, constraint.distance)
        members: dict[tuple[int, int], list[int]] = {}
        for value, own in enumerate(self.function.classes):
            if own == CORE and liveness.end[value]:
                members.setdefault(webs.find(value), []).append(value)
        return list(members.values())


class _Rewriter:
    """Rewrites the function for one spilled web: a slot, or a constant that is computed again."""

    def __init__(self, spiller: Spiller, members: set[int], slot: int | None, constant: Instruction | None):
        self.function = spiller.function
        self.settled = spiller.settled
        self.members = members
        self.slot = slot
        self.constant = constant

    def run(self) -> None:
        for loop in loops(self.function.body):
            self.shorten(loop)
        self.rewrite(self.function.body)
        stores = [self.store(value) for value in self.function.args if value in self.members]
        self.function.body[:0] = stores

    def shorten(self, loop: Loop) -> None:
        """Take the web's positions out of the loop's lists."""
        if self.slot is None:
            return
        for index in reversed(range(len(loop.args))):
            if loop.args[index] in self.members:
                lists = (loop.inits, loop.args, loop.yields, loop.results)
                init, arg, yielded, result = (values.pop(index) for values in lists)
                loop.slot_carried.append(SlotCarried(self.slot, init, arg, yielded, result))
        if loop.counter_slot is None and loop.counter in self.members:
            loop.counter_slot = self.slot
            load = self.load(loop.counter)
            loop.body.append(load)
            loop.reloaded_counter = load.defs[0]

    def rewrite(self, steps: list[Step]) -> None:
        rewritten: list[Step] = []
        for step in steps:
            if isinstance(step, Loop):
                self.operands(step, rewritten)
                self.rewrite(step.body)
                self.yields(step)
                rewritten.append(step)
                continue
            if step is self.constant:
                continue
            names: dict[int, int] = {}
            for value in step.uses:
                if value in self.members and value not in names:
                    load = self.load(value)
                    names[value] = load.defs[0]
                    rewritten.append(load)
            if names:
                replace_uses(step, names)
            rewritten.append(step)
            if self.slot is not None:
                rewritten.extend(self.store(value) for value in step.defs if value in self.members)
        steps[:] = rewritten

    def operands(self, loop: Loop, rewritten: list[Step]) -> None:
        """Loads in front of a loop for its operands (inits of other webs cannot be members, constants can)."""
        for index, value in enumerate(loop.inits):
            if value in self.members:
                load = self.load(value)
                loop.inits[index] = load.defs[0]
                rewritten.append(load)
        if loop.counter_slot is None and loop.count in self.members:
            load = self.load(loop.count)
            loop.count = load.defs[0]
            rewritten.append(load)

    def yields(self, loop: Loop) -> None:
        for index, value in enumerate(loop.yields):
            if value in self.members:
                load = self.load(value)
                loop.yields[index] = load.defs[0]
                loop.body.append(load)

    def load(self, value: int) -> Instruction:
        """A fresh value equal to a spilled one."""
        new = self.function.new_value(CORE)
        self.settled.add(new)
        if self.constant is not None:
            return clone_constant(self.constant, new)
        assert self.slot is not None
        access = MemoryAccess(False, "frame", None, self.slot, WORD)
        return Instruction(FRAME_LOAD, "load", (), (new,), memory=access, slot=self.slot, spilled=value)

    def store(self, value: int) -> Instruction:
        assert self.slot is not None
        access = MemoryAccess(True, "frame", None, self.slot, WORD)
        return Instruction(FRAME_STORE, "store", (value,), (), memory=access, slot=self.slot, spilled=value)
