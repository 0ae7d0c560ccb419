"""Insert the copies without which no register allocation can exist.

A constraint (a tie, a group, a loop-carried position, a given register) that would put two values that are alive at the
same time into one register is satisfied by copying the operand right before its use. Constants are computed again
instead. Permuted yields turn into sequential copies with one temporary a cycle, because a copy that still conflicts is
copied again behind the others.
"""

from __future__ import annotations

from collections import defaultdict

from ml4f.backend.thumb.function_data import (
    COPY,
    CORE,
    Function,
    Instruction,
    Loop,
    Step,
    instructions,
    rename_uses,
)
from ml4f.backend.thumb.liveness import analyse_liveness
from ml4f.backend.thumb.webs import COUNT, INIT, USE, YIELD, Constraint, Webs, hard_constraints
from ml4f.errors import InternalError

ROUNDS = 8
"""A conflict needs one copy; a cycle of yields or a contested group two. More rounds than this are a bug."""

COPY_TIMING = {CORE: "alu", "s": "vmov"}


def legalize_ties(function: Function) -> int:
    """Insert copies until every hard constraint of `function` can be satisfied; returns how many."""
    copies: set[int] = set()
    for _ in range(ROUNDS):
        conflicts = _conflicts(function, copies)
        if not conflicts:
            if copies:
                _remove_dead_constants(function)
            return len(copies)
        _Copier(function, copies).satisfy(conflicts)
    raise InternalError(f"{function.name}: register constraints still conflict after {ROUNDS} rounds of copies")


def _conflicts(function: Function, copies: set[int]) -> list[tuple[Step | None, str, int]]:
    """The places (step, kind, index) whose operand must be copied, in program order, each once."""
    webs = Webs(function, analyse_liveness(function))
    places: dict[tuple[Step | None, str, int], None] = {}
    for instruction in instructions(function.body):
        if instruction.early_clobber:
            for use, _ in instruction.ties:
                if instruction.uses.count(instruction.uses[use]) > 1:
                    places[instruction, USE, use] = None
    for constraint in hard_constraints(function, webs.physical):
        if not webs.join(constraint.first, constraint.second, constraint.distance):
            for index in _operands_to_copy(constraint, copies):
                places[constraint.step, constraint.kind, index] = None
    return list(places)


def _operands_to_copy(constraint: Constraint, copies: set[int]) -> list[int]:
    """The constraint's own operand; all of its group if that one is a copy already."""
    step, index = constraint.step, constraint.index
    if isinstance(step, Instruction) and constraint.second in copies:
        for group in step.groups:
            if not group.of_results and group.start <= index < group.start + group.length:
                return list(range(group.start, group.start + group.length))
    return [index]


class _Copier:
    """Puts copies in front of the places found, in one rebuilding walk over the function."""

    def __init__(self, function: Function, copies: set[int]):
        self.function = function
        self.copies = copies
        self.constants = {
            instruction.defs[0]: instruction
            for instruction in instructions(function.body)
            if instruction.rematerialisable
        }
        self.before: defaultdict[Step, list[Step]] = defaultdict(list)
        self.at_end: defaultdict[Step, list[Step]] = defaultdict(list)

    def satisfy(self, places: list[tuple[Step | None, str, int]]) -> None:
        at_entry: list[Step] = []
        for step, kind, index in places:
            if step is None:
                at_entry.append(self.argument_copy(index))
            elif isinstance(step, Loop):
                self.loop_operand(step, kind, index)
            else:
                assert kind == USE
                old, new = self.copy_before(step, step.uses[index], self.before)
                step.uses = (*step.uses[:index], new, *step.uses[index + 1 :])
                if step.memory is not None and step.memory.base == old:
                    step.memory = step.memory._replace(base=new)
        self.rebuild(self.function.body)
        self.function.body[:0] = at_entry

    def argument_copy(self, value: int) -> Instruction:
        """A copy, at the function's start, of a value with a given register; everything reads the copy."""
        made = self.make(value)
        rename_uses(self.function.body, {value: made.defs[0]})
        made.uses = (value,)
        return made

    def loop_operand(self, loop: Loop, kind: str, index: int) -> None:
        if kind == YIELD:
            loop.yields[index] = self.copy_before(loop, loop.yields[index], self.at_end)[1]
        elif kind == INIT:
            loop.inits[index] = self.copy_before(loop, loop.inits[index], self.before)[1]
        else:
            assert kind == COUNT
            loop.count = self.copy_before(loop, loop.count, self.before)[1]

    def copy_before(self, step: Step, value: int, where: defaultdict[Step, list[Step]]) -> tuple[int, int]:
        made = self.make(value)
        where[step].append(made)
        return value, made.defs[0]

    def make(self, value: int) -> Instruction:
        register_class = self.function.classes[value]
        new = self.function.new_value(register_class)
        self.copies.add(new)
        constant = self.constants.get(value)
        if constant is not None:
            return clone_constant(constant, new)
        return Instruction(COPY, COPY_TIMING[register_class], (value,), (new,), soft_ties=((0, 0),))

    def rebuild(self, steps: list[Step]) -> None:
        rebuilt: list[Step] = []
        for step in steps:
            rebuilt.extend(self.before.get(step, ()))
            rebuilt.append(step)
            if isinstance(step, Loop):
                self.rebuild(step.body)
                step.body.extend(self.at_end.get(step, ()))
        steps[:] = rebuilt


def clone_constant(constant: Instruction, value: int) -> Instruction:
    """The same rematerialisable instruction, defining another value."""
    return Instruction(
        constant.opcode,
        constant.timing,
        (),
        (value,),
        memory=constant.memory,
        halfwords=constant.halfwords,
        rematerialisable=True,
        origin=constant.origin,
        is_clone=True,
    )


def _remove_dead_constants(function: Function) -> None:
    """Drop constants that nothing reads any more."""
    used: set[int] = set()

    def collect(steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Loop):
                used.update(step.inits, step.yields, (step.count,))
                collect(step.body)
            else:
                used.update(step.uses)

    def drop(steps: list[Step]) -> None:
        steps[:] = [
            step
            for step in steps
            if isinstance(step, Loop) or not step.rematerialisable or not used.isdisjoint(step.defs)
        ]
        for step in steps:
            if isinstance(step, Loop):
                drop(step.body)

    collect(function.body)
    drop(function.body)
