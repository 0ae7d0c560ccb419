"""Taps that depend on the place: tables of bounds for loops over taps, and the edges of a row that share such a loop.

A tile of several pixels needs the same taps for all of them. At the edges of a padded row each pixel has its own, so
that it needs code of its own, or a loop over taps with bounds from a table: slower, and small. Nothing here is about
code; see `Schedule.trim` and `Schedule.edge`.
"""

from __future__ import annotations

from dataclasses import replace

from ml4f.backend.loop.nest import Guard, Linear, Nest, Operand, Schedule, Segments

BYTES_OF_BOUNDS = 2
"""An entry of the table: first tap and number of taps, one byte each."""
MOST = 255
"""The largest extent that a table's bytes can hold."""


def guard_bounds(nest: Nest, guard: Guard, outer: str, inner: str) -> list[tuple[int, int]]:
    """For each point of `outer`: the first point of `inner` where the guard holds, and for how many it holds."""
    bounds = []
    for o in range(nest.extents[outer]):
        holds = [
            i
            for i in range(nest.extents[inner])
            if 0
            <= guard.expr.constant + guard.expr.coefficient(outer) * o + guard.expr.coefficient(inner) * i
            < guard.extent
        ]
        bounds.append((holds[0], len(holds)) if holds else (0, 0))
    return bounds


def _guard_of(nest: Nest, inner: str) -> Guard:
    return next(g for g in nest.guards if g.expr.mentions(inner))


def edge_taps(nest: Nest, pixel: str) -> str | None:
    """The reduction dim that one guard couples to `pixel`, and nothing else does; None if there is none."""
    guards = [g for g in (*nest.guards, *nest.pool_guards) if g.expr.mentions(pixel)]
    if len(guards) != 1 or guards[0] in nest.pool_guards or len(guards[0].expr.terms) != 2:
        return None
    inner = next(d for d, _ in guards[0].expr.terms if d != pixel)
    others = [g for g in nest.guards if g is not guards[0] and g.expr.mentions(inner)]
    if inner not in nest.reduction_dims or others or max(nest.extents[inner], nest.extents[pixel]) > MOST:
        return None
    return inner if all(count for _, count in guard_bounds(nest, guards[0], pixel, inner)) else None


def _lacking(nest: Nest, pixel: str, inner: str) -> tuple[int, int]:
    """How many pixels lack taps at the beginning and at the end."""
    complete = [n == nest.extents[inner] for _, n in guard_bounds(nest, _guard_of(nest, inner), pixel, inner)]
    if True not in complete:
        return len(complete), 0
    return complete.index(True), complete[::-1].index(True)


def edge_segments(nest: Nest, pixel: str, inner: str, size: int) -> Segments | None:
    """Single pixels at the edges and whole tiles of `size` between; equally many at both edges, which share code.

    None where tiles do not fill the middle, or no pixel lacks taps.
    """
    first, last = _lacking(nest, pixel, inner)
    extent = nest.extents[pixel]
    if first and last:
        first = last = max(first, last)
        while (extent - first - last) % size and first + last < extent:
            first = last = first + 1
    elif last:
        last += (extent - last) % size
    elif first:
        first += (extent - first) % size
    tiles, rest = divmod(extent - first - last, size)
    if rest or tiles < 1 or not first + last:
        return None
    return tuple(s for s in ((1, first), (size, tiles), (1, last)) if s[1])


def edges(nest: Nest, schedule: Schedule) -> tuple[int, int]:
    """How many pixels the schedule counts to the edge at the beginning and at the end."""
    assert schedule.edge is not None
    pixel, inner = schedule.edge
    first, last = _lacking(nest, pixel, inner)
    segments = schedule.segments[pixel]
    return segments[0][1] if first else 0, segments[-1][1] if last else 0


def bounds_of(nest: Nest, schedule: Schedule) -> dict[str, list[tuple[int, int]]]:
    """The bounds that each looped dim of taps has, in the order of the table; empty if all are known before."""
    bounds: dict[str, list[tuple[int, int]]] = {}
    if schedule.trim is not None:
        outer, inner = schedule.trim
        bounds[inner] = guard_bounds(nest, _guard_of(nest, inner), outer, inner)
    if schedule.edge is not None:
        outer, inner = schedule.edge
        first, last = edges(nest, schedule)
        its = guard_bounds(nest, _guard_of(nest, inner), outer, inner)
        bounds[inner] = its[:first] + its[len(its) - last :]
    return bounds


def bounds_table(nest: Nest, schedule: Schedule) -> bytes:
    """The table of all bounds."""
    return bytes(n for entries in bounds_of(nest, schedule).values() for entry in entries for n in entry)


def with_bounds(nest: Nest, schedule: Schedule) -> Nest:
    """The nest with the operand `bounds`, the table, if the schedule needs one and the nest lacks it."""
    outer = schedule.trim or schedule.edge
    if outer is None or nest.has("bounds"):
        return nest
    operand = Operand("bounds", Linear.of(**{outer[0]: BYTES_OF_BOUNDS}))
    return replace(nest, operands=(*nest.operands, operand))
