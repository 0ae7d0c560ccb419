"""Which pointers a block needs to reach its memory accesses, and where each stands: plain data.

All accesses of one group (one buffer, the same strides in the enclosing loops) differ only by a constant. A pointer
reaches a window around itself; an access outside of it moves a pointer. A pointer's position is chosen late: a
*segment* of accesses that one position can serve keeps
the interval of positions that suit all of them, so that a window centres
itself. Items are visited in program order, the least recently used pointer moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MOVE_COST = 3
"""A move breaks the chain of loads, stalls the next address, and is an instruction itself (measured, see docs)."""
MULTIPLE_MOVE_COST = 1
"""Multiple loads and stores are in no chain: a move in front of one is an instruction and no more."""
POINTER_COST = 1
"""The addition at the end of a loop's body that moves a pointer to where the next round needs it."""
MAX_POINTERS = 4
MOST_CORE_VALUES = 11
"""Pointers and counters in a loop beyond which no buffer gets more pointers than it needs: 13 registers are free."""


@dataclass(frozen=True, slots=True)
class Item:
    """One use of a pointer: it must stand within [low, high]; the use itself then moves it by `after` bytes."""

    low: int
    high: int
    after: int = 0


@dataclass(slots=True)
class Segment:
    """A stretch of items that one position of pointer `pointer` serves: any start in [low, high]."""

    pointer: int
    low: int
    high: int
    drift: int = 0
    start: int = 0
    move_cost: int = MOVE_COST


@dataclass(slots=True)
class PointerPlan:
    """`segments` in the order in which they begin; `served[i]` = (segment of item i, drift before it)."""

    pointers: int
    segments: list[Segment]
    served: list[tuple[int, int]]
    begins: dict[int, int] = field(default_factory=dict)
    """Item → the segment that begins at it."""

    def first(self, pointer: int) -> Segment:
        return next(s for s in self.segments if s.pointer == pointer)

    def last(self, pointer: int) -> Segment:
        return next(s for s in reversed(self.segments) if s.pointer == pointer)

    def settle(self, entry: int, advance: int | None) -> None:
        """Fixes every segment's start: pointer 0 enters near `entry`; a loop's pointers end at start + `advance`."""
        position: dict[int, int] = {}
        for segment in self.segments:
            here = position.get(segment.pointer, entry)
            segment.start = min(max(here, segment.low), segment.high)
            position[segment.pointer] = segment.start + segment.drift
        if advance is None:
            return
        for pointer in range(self.pointers):
            first, last = self.first(pointer), self.last(pointer)
            if first is not last:
                wanted = first.start + advance - last.drift
                last.start = min(max(wanted, last.low), last.high)


def plan_pointers(items: Sequence[Item], stride: int = 0, most: int = MAX_POINTERS) -> PointerPlan:
    """The cheapest plan with 1 to 4 pointers; fewer pointers win a draw.

    In a loop that advances by `stride` bytes, multiple loads or stores of as many bytes leave their pointer where the
    next round needs it. Where each of several does, each gets its own pointer, `most` in all.
    """
    best = _plan(items, 1)
    best_cost = _cost(best, stride)
    for count in range(2, MAX_POINTERS + 1):
        if best_cost <= count * POINTER_COST:
            break
        plan = _plan(items, count)
        if plan.pointers == count and _cost(plan, stride) < best_cost:
            best, best_cost = plan, _cost(plan, stride)
    if stride and best_cost and len(items) <= most and all(item.after == stride for item in items):
        own = _plan(items, len(items))
        if own.pointers == len(items):
            return own
    return best


def _cost(plan: PointerPlan, stride: int) -> int:
    first = {s.pointer: s for s in reversed(plan.segments)}
    moves = sum(s.move_cost for s in plan.segments if s is not first[s.pointer])
    bumped = {s.pointer for s in plan.segments if s is not first[s.pointer] or not stride or s.drift != stride}
    return moves + POINTER_COST * len(bumped)


def _plan(items: Sequence[Item], count: int) -> PointerPlan:
    segments: list[Segment] = []
    current: list[int] = []  # segment of each pointer
    recent: list[int] = []  # pointers, most recently used first
    served: list[tuple[int, int]] = []
    begins: dict[int, int] = {}
    for number, item in enumerate(items):
        chosen = -1
        for pointer in recent:
            segment = segments[current[pointer]]
            low, high = max(segment.low, item.low - segment.drift), min(segment.high, item.high - segment.drift)
            if low <= high:
                segment.low, segment.high, chosen = low, high, pointer
                break
        if chosen < 0:
            if len(current) < count:
                chosen = len(current)
                current.append(0)
            else:
                chosen = recent[-1]
            current[chosen] = len(segments)
            begins[number] = len(segments)
            cost = MOVE_COST if item.low < item.high else MULTIPLE_MOVE_COST
            segments.append(Segment(chosen, item.low, item.high, move_cost=cost))
        segment = segments[current[chosen]]
        served.append((current[chosen], segment.drift))
        segment.drift += item.after
        if chosen in recent:
            recent.remove(chosen)
        recent.insert(0, chosen)
    return PointerPlan(len(current), segments, served, begins)
