"""Checks that a reordered function still does what it did, from nothing but its order before and after.

Independent of the scheduler: no dependence graph. In each body the same steps must stand; loops and calls part it into
segments whose members may not change; a value is read behind its definition; and two accesses that may touch the same
byte, one of them a store, keep their order. Whether registers suffice is the allocation's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from ml4f.backend.thumb.function_data import Function, Instruction, Loop, MemoryAccess, Step
from ml4f.errors import InternalError

Order = list[tuple[Step, ...]]
"""The steps of every body, outer bodies before those of the loops in them."""


def order_of(function: Function) -> Order:
    """The order to compare with later."""
    return list(_bodies(function.body))


def _bodies(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    yield tuple(steps)
    for step in steps:
        if isinstance(step, Loop):
            yield from _bodies(step.body)


def check_schedule(before: Order, function: Function) -> list[str]:
    """Everything that is wrong with the function's order now, compared with that of before; empty if all is right."""
    after = order_of(function)
    if len(before) != len(after):
        return [f"{len(before)} bodies became {len(after)}"]
    problems: list[str] = []
    for old, new in zip(before, after, strict=True):
        problems += _check_body(old, new)
    return [*problems, *_undefined_uses(function)]


def verify_schedule(before: Order, function: Function) -> None:
    """Raise InternalError with the first few problems, if there are any."""
    problems = check_schedule(before, function)
    if problems:
        listed = "\n".join(f"  * {problem}" for problem in problems[:10])
        raise InternalError(f"{function.name}: wrong instruction order ({len(problems)} problems):\n{listed}")


def _segments(steps: Sequence[Step]) -> list[list[Step]]:
    """Straight-line runs and, between them, loops and calls alone."""
    segments: list[list[Step]] = [[]]
    for step in steps:
        if isinstance(step, Loop) or step.clobbers_all:
            segments += [[step], []]
        else:
            segments[-1].append(step)
    return segments


def _check_body(old: Sequence[Step], new: Sequence[Step]) -> Iterator[str]:
    before, after = _segments(old), _segments(new)
    if len(before) != len(after):
        yield "loops and calls are not what they were"
        return
    for number, (source, result) in enumerate(zip(before, after, strict=True)):
        if sorted(map(id, source)) != sorted(map(id, result)):
            yield f"segment {number} lost or won an instruction, or has one twice"
        else:
            yield from _check_memory(source, result)


def _check_memory(source: Sequence[Step], result: Sequence[Step]) -> Iterator[str]:
    places = {id(step): place for place, step in enumerate(result)}
    spaces: dict[str, list[tuple[Instruction, MemoryAccess]]] = {}
    for step in source:
        if isinstance(step, Instruction) and step.memory is not None:
            spaces.setdefault(step.memory.space, []).append((step, step.memory))
    for space, accesses in spaces.items():
        if not any(access.is_store for _, access in accesses):
            continue
        for (first, one), (second, other) in combinations(accesses, 2):
            if places[id(first)] > places[id(second)] and (one.is_store or other.is_store) and _touch(one, other):
                yield f"{second.opcode} at {_text(other)} went in front of {first.opcode} at {_text(one)} in {space}"


def _touch(one: MemoryAccess, other: MemoryAccess) -> bool:
    """Whether two accesses of one space may have a byte in common; of different bases that is unknown."""
    if one.base != other.base:
        return True
    low, high = sorted((one, other), key=lambda access: access.offset)
    return low.offset + low.size > high.offset


def _text(access: MemoryAccess) -> str:
    return f"%{access.base} + {access.offset}"


def _undefined_uses(function: Function) -> Iterator[str]:
    """Reads of values that are not defined yet; a loop's arguments count in its body, its results behind it."""
    defined = set(function.args)

    def need(values: Sequence[int], reader: str) -> Iterator[str]:
        for value in values:
            if value not in defined:
                yield f"{reader} reads %{value} before it is defined"

    def walk(steps: Sequence[Step]) -> Iterator[str]:
        for step in steps:
            if isinstance(step, Instruction):
                yield from need(step.uses, step.opcode)
                defined.update(step.defs)
                continue
            yield from need([step.count, *step.inits], "a loop")
            defined.update((step.counter, *step.args))
            yield from walk(step.body)
            yield from need(step.yields, "a yield")
            defined.update(step.results)

    yield from walk(function.body)
