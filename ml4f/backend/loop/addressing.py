"""Which pointers a block needs to reach its memory accesses, and where each stands: plain data.

All accesses of one group (one buffer, the same strides in the enclosing loops) differ only by a constant. A pointer
reaches a window around itself; an access outside of it moves a pointer. A pointer's position is chosen late: a
*segment* of accesses that one position can serve keeps
the interval of positions that suit all of them, so that a window centres
itself. Items are visited in program order; the pointer moves whose window is needed again last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOVE_COST = 3
"""A move breaks the chain of loads, stalls the next address, and is an instruction itself (measured, see docs)."""
MULTIPLE_MOVE_COST = 1
"""Multiple loads and stores are in no chain: a move in front of one is an instruction and no more."""
POINTER_COST = 1
"""The addition at the end of a loop's body that moves a pointer to where the next round needs it."""
MAX_POINTERS = 4
LOOK_AHEAD = 64
"""Items among which the next use of a pointer is sought before it is moved away."""
AHEAD_POINTERS = 2
"""Pointers that take turns at multiple stores and serve the loads in between; more where more places are loaded by
multiple loads before the first of them is stored to."""
LARGEST_ADDEND = 4095
"""What ADD has as an immediate operand; a larger number is moved into a register before."""
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
    round: int = 0
    """If not 0, pointers move on by so many bytes in all, for the next round, as soon as they have served this one."""

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


def plan_pointers(
    items: Sequence[Item], stride: int = 0, most: int = MAX_POINTERS, in_place: bool = False
) -> PointerPlan:
    """The cheapest plan with 1 to 4 pointers; fewer pointers win a draw.

    In a loop that advances by `stride` bytes, multiple loads or stores of as many bytes leave their pointer where the
    next round needs it. Where each of several does, each gets its own pointer, `most` in all. `in_place`: there are
    multiple stores, and what they overwrite is loaded with the same pointers, see `_plan_ahead`.
    """
    if in_place and (ahead := _plan_ahead(items, stride, most)) is not None:
        return ahead
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


def moves_between(offsets: Sequence[int], reach: int) -> tuple[int, int]:
    """How often pointers are moved to reach these offsets, one after the other, and by how many instructions."""
    plan = plan_pointers([Item(offset - reach, offset + reach) for offset in offsets])
    at: dict[int, int] = {}
    instructions = 0
    for segment in plan.segments:
        if segment.pointer in at:
            instructions += 1 if abs(segment.low - at[segment.pointer]) <= LARGEST_ADDEND else 2
        at[segment.pointer] = segment.low
    return len(plan.segments) - plan.pointers, instructions


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
                following = items[number + 1 : number + 1 + LOOK_AHEAD] if count > 1 else ()
                chosen = _needed_last([segments[current[p]] for p in recent], following)
            current[chosen] = len(segments)
            cost = MOVE_COST if item.low < item.high else MULTIPLE_MOVE_COST
            segments.append(Segment(chosen, item.low, item.high, move_cost=cost))
        segment = segments[current[chosen]]
        served.append((current[chosen], segment.drift))
        segment.drift += item.after
        if chosen in recent:
            recent.remove(chosen)
        recent.insert(0, chosen)
    return PointerPlan(len(current), segments, served)


def _needed_last(segments: Sequence[Segment], following: Sequence[Item]) -> int:
    """The pointer whose window no item needs for the longest time (Belady's rule); a draw is for the last of them."""
    waits: list[int] = []
    for segment in segments:
        fits = (
            n
            for n, item in enumerate(following)
            if item.low - segment.drift <= segment.high and segment.low <= item.high - segment.drift
        )
        waits.append(next(fits, len(following)))
    return max(zip(reversed(waits), reversed(segments), strict=True), key=lambda found: found[0])[1].pointer


def _plan_ahead(items: Sequence[Item], stride: int, most: int) -> PointerPlan | None:
    """Pointers that take turns at multiple stores, and move on to their next place at once.

    Loads are served by the pointer that was moved longest ago, so that none waits for its address, and nothing is added
    for them. None where an item is out of reach.
    """
    exact = [n for n, item in enumerate(items) if item.low == item.high]
    wanted = max(AHEAD_POINTERS, _loaded_together(items))
    moving = {items[n].low for n in exact if items[n].after}
    segments: list[Segment] = []
    own: list[list[int]] = [[] for _ in range(max(min(wanted, len(moving), most), 1))]
    members: list[list[int]] = []
    served: dict[int, tuple[int, int]] = {}
    order: list[int] = []  # pointers, least recently used first
    for number in exact:
        item = items[number]
        standing = [p for p in order if segments[own[p][-1]].start + segments[own[p][-1]].drift == item.low]
        unused = [p for p in range(len(own)) if not own[p]]
        pointer = (standing or unused or order)[0]
        if not standing:
            own[pointer].append(len(segments))
            segments.append(Segment(pointer, item.low, item.low, start=item.low, move_cost=MULTIPLE_MOVE_COST))
            members.append([])
        segment = segments[own[pointer][-1]]
        served[number] = own[pointer][-1], segment.drift
        members[own[pointer][-1]].append(number)
        segment.drift += item.after
        order = [p for p in order if p != pointer] + [pointer]
    for number, item in enumerate(items):
        if item.low == item.high:
            continue
        best: tuple[int, int, int] | None = None  # (moved behind item, segment, drift)
        for mine in filter(None, own):
            at, since = 0, -1
            while at + 1 < len(mine) and members[mine[at]][-1] < number:
                since = members[mine[at]][-1]
                at += 1
            before = [n for n in members[mine[at]] if n < number and items[n].after]
            drift = sum(items[n].after for n in before)
            since = before[-1] if before else since
            if item.low <= segments[mine[at]].start + drift <= item.high and (best is None or since < best[0]):
                best = since, mine[at], drift
        if best is None:
            return None
        served[number] = best[1:]
    return PointerPlan(sum(map(bool, own)), segments, [served[n] for n in range(len(items))], stride)


def _loaded_together(items: Sequence[Item]) -> int:
    """At most how many places multiple loads leave a pointer at that waits for the store."""
    waiting: set[int] = set()
    most = 0
    for item in items:
        if item.low == item.high:
            waiting = waiting - {item.low} if item.after else waiting | {item.low}
            most = max(most, len(waiting))
    return most
