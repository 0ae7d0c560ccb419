"""Webs: values that must share a register, or lie at a fixed distance from each other's register.

A weighted union-find: every value's register is its root's plus an offset. Each web knows the time slots in which each
of its offsets is occupied, so that a union of values that are alive at the same time is refused. The physical registers
of a class form one web of their own, register k at offset k; a value with a given register joins it.
"""

from __future__ import annotations

from ml4f.backend.thumb.function_data import CORE, REGISTER_COUNT, RESERVED, SINGLE, Function, Instruction, Loop, Step
from ml4f.backend.thumb.liveness import Liveness

ALWAYS = -1
"""The occupancy mask with every slot set."""


class Webs:
    """Union-find over the values of a function and the two files of physical registers.

    `occupied[root]` maps an offset to the slots (a bit mask) in which that register is taken.
    """

    def __init__(self, function: Function, liveness: Liveness):
        count = len(function.classes)
        self.physical = {CORE: count, SINGLE: count + 1}
        self.parent = list(range(count + 2))
        self.offset = [0] * (count + 2)
        start, end = liveness.start, liveness.end
        self.occupied: list[dict[int, int]] = [
            {0: ((1 << (end[value] - start[value])) - 1) << start[value]} for value in range(count)
        ]
        self.files = {node: REGISTER_COUNT[file] for file, node in self.physical.items()}
        calls = sum(1 << slot for slot in liveness.calls)
        for file in (CORE, SINGLE):
            taken = dict.fromkeys(range(REGISTER_COUNT[file]), calls) if calls else {}
            self.occupied.append({**taken, **dict.fromkeys(RESERVED[file], ALWAYS)})

    def find(self, value: int) -> tuple[int, int]:
        """(root, offset): register(value) = register(root) + offset."""
        parent, offset = self.parent, self.offset
        above = parent[value]
        if above == value:
            return value, 0
        if parent[above] == above:
            return above, offset[value]
        root, distance = self.find(above)
        parent[value] = root
        offset[value] += distance
        return root, offset[value]

    def is_physical(self, root: int) -> bool:
        """Whether this is the root of a web of physical registers, whose offsets are register numbers."""
        return root in self.files

    def join(self, first: int, second: int, distance: int = 0) -> bool:
        """Demand register(second) = register(first) + distance; False, and nothing done, if that cannot be."""
        root, root_offset = self.find(first)
        other, other_offset = self.find(second)
        shift = root_offset + distance - other_offset
        if root == other:
            return shift == 0
        if other in self.files or (root not in self.files and len(self.occupied[other]) > len(self.occupied[root])):
            root, other, shift = other, root, -shift
        taken, added = self.occupied[root], self.occupied[other]
        if any(taken.get(offset + shift, 0) & mask for offset, mask in added.items()):
            return False
        limit = self.files.get(root)
        if limit is not None and (other in self.files or not all(0 <= offset + shift < limit for offset in added)):
            return False
        for offset, mask in added.items():
            taken[offset + shift] = taken.get(offset + shift, 0) | mask
        self.occupied[other] = {}
        self.parent[other] = root
        self.offset[other] = shift
        return True


class Constraint:
    """register(second) = register(first) + distance, demanded by `step`.

    What a copy could satisfy is operand `index` of the step, or yield, init or count of a loop (`kind`).
    """

    __slots__ = ("distance", "first", "index", "kind", "second", "step")

    def __init__(self, first: int, second: int, distance: int, step: Step | None, kind: str, index: int):
        self.first = first
        self.second = second
        self.distance = distance
        self.step = step
        self.kind = kind
        self.index = index


USE, INIT, COUNT, YIELD, ARGUMENT = "use", "init", "count", "yield", "argument"


def hard_constraints(function: Function, physical: dict[str, int] | None) -> list[Constraint]:
    """All constraints that must hold, in program order; without those on given registers if `physical` is None."""
    found: list[Constraint] = []
    if physical is not None:
        for value, register in function.fixed.items():
            found.append(Constraint(physical[function.classes[value]], value, register, None, ARGUMENT, value))
    _collect(function.body, function, physical, found)
    return found


def _collect(steps: list[Step], function: Function, physical: dict[str, int] | None, found: list[Constraint]) -> None:
    for step in steps:
        if isinstance(step, Loop):
            if step.counter_slot is None:
                found.append(Constraint(step.counter, step.count, 0, step, COUNT, 0))
            for index, (arg, init) in enumerate(zip(step.args, step.inits, strict=True)):
                found.append(Constraint(arg, init, 0, step, INIT, index))
            _collect(step.body, function, physical, found)
            for index, (arg, value) in enumerate(zip(step.args, step.yields, strict=True)):
                found.append(Constraint(arg, value, 0, step, YIELD, index))
            for index, (arg, result) in enumerate(zip(step.args, step.results, strict=True)):
                found.append(Constraint(arg, result, 0, step, INIT, index))
        elif step.ties or step.groups or step.fixed_uses:
            _collect_instruction(step, function, physical, found)


def _collect_instruction(
    step: Instruction, function: Function, physical: dict[str, int] | None, found: list[Constraint]
) -> None:
    for use, result in step.ties:
        found.append(Constraint(step.defs[result], step.uses[use], 0, step, USE, use))
    for group in step.groups:
        values = step.defs if group.of_results else step.uses
        first = values[group.start]
        for distance in range(1, group.length):
            index = group.start + distance
            found.append(Constraint(first, values[index], distance, step, USE, index))
    if physical is not None:
        for use, register in step.fixed_uses:
            value = step.uses[use]
            found.append(Constraint(physical[function.classes[value]], value, register, step, USE, use))
