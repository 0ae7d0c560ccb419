"""Live ranges of the values of a structured thumb function, on one linear time line.

Step number p reads its operands in time slot 2p and writes its results in slot 2p+1. A loop takes one step where it is
entered and one where it ends: operands are read, then block arguments written, at the entry; yielded values are read
and results written at the end; a counter is alive all the way. A range is half open, [start, end); it never has holes:
a value that is used in a loop it was defined outside of lives to the loop's end.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml4f.backend.thumb.function_data import Function, Instruction, Loop, Step

LOOP_WEIGHT = 10
"""How many times as often a loop body is taken to run as the code around it."""


@dataclass(slots=True)
class Liveness:
    """`start[v]`, `end[v]`: the live range of value v; `weight[v]`: its definitions and uses, times `LOOP_WEIGHT` a
    loop.

    `calls` are the slots in which calls write every register; `slots` is the length of the time line.
    """

    start: list[int]
    end: list[int]
    weight: list[int]
    calls: list[int]
    slots: int

    def mask(self, value: int) -> int:
        """The live range as a set of slots: bit t is set when the value is alive in slot t."""
        start = self.start[value]
        return ((1 << (self.end[value] - start)) - 1) << start


class _Walk:
    """The state of one pass over a function, in program order."""

    def __init__(self, function: Function):
        count = len(function.classes)
        self.start = [0] * count
        self.end = [0] * count
        self.weight = [0] * count
        self.depth_of = [0] * count
        self.depth = 0
        self.position = 0
        self.factor = 1
        self.calls: list[int] = []
        self.pending: list[list[int]] = []
        """For every open loop, the values used in it that are defined outside it (but inside the next outer one)."""

    def use(self, value: int) -> None:
        self.weight[value] += self.factor
        depth = self.depth_of[value]
        if depth == self.depth:
            self.end[value] = 2 * self.position + 1
        else:
            self.pending[depth].append(value)

    def define(self, value: int, slot: int) -> None:
        self.weight[value] += self.factor
        self.start[value] = slot
        self.end[value] = 2 * self.position + 2
        self.depth_of[value] = self.depth

    def instruction(self, step: Instruction) -> None:
        position = self.position = self.position + 1
        weight, factor, depth_of, depth, end = self.weight, self.factor, self.depth_of, self.depth, self.end
        last = 2 * position + 1
        if step.clobbers_all:
            self.calls.append(last)
        for value in step.uses:
            weight[value] += factor
            if depth_of[value] == depth:
                end[value] = last
            else:
                self.pending[depth_of[value]].append(value)
        for index, value in enumerate(step.defs):
            early = step.early_clobber and all(index != result for _, result in step.ties)
            weight[value] += factor
            self.start[value] = last - 1 if early else last
            end[value] = last + 1
            depth_of[value] = depth

    def loop(self, step: Loop) -> None:
        self.position += 1
        for value in step.inits:
            self.use(value)
        if step.counter_slot is None:
            self.use(step.count)
        self.pending.append([])
        self.depth += 1
        self.factor *= LOOP_WEIGHT
        for value in step.args:
            self.define(value, 2 * self.position + 1)
        if step.counter_slot is None:
            self.define(step.counter, 2 * self.position + 1)
        self.steps(step.body)
        self.position += 1
        for value in step.yields:
            self.use(value)
        self.use(step.counter if step.reloaded_counter is None else step.reloaded_counter)
        self.depth -= 1
        self.factor //= LOOP_WEIGHT
        for value in self.pending.pop():
            self.end[value] = 2 * self.position + 1
        for value in step.results:
            self.define(value, 2 * self.position + 1)

    def steps(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Loop):
                self.loop(step)
            else:
                self.instruction(step)


def analyse_liveness(function: Function) -> Liveness:
    """The live ranges of all values of `function`; arguments are written in slot 1."""
    walk = _Walk(function)
    for value in function.args:
        walk.define(value, 1)
    walk.steps(function.body)
    return Liveness(walk.start, walk.end, walk.weight, walk.calls, 2 * walk.position + 2)
