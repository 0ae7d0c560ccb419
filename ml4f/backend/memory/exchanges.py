"""Schedules that a kernel may have instead of its own so that its output can overwrite more of its input.

Smaller tiles along pixels, with more filters in exchange; smaller tiles only at one end (where a growing output catches
up with its input); and for depthwise kernels that walk down columns the plain order, rows outermost. Each costs some
cycles, which are estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ml4f.backend.loop.nest import Nest, Schedule, Segments, uniform_segments
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.schedules import mac_schedule, pixel_dims, split, tile_dims

PLAIN_TILES = (8, 6, 5, 4, 3, 2)
"""Pixels of a tile of the plain order."""
PLAIN_POINTS = (9, 27)
"""Reduction points of its body."""


MORE_FILTERS = 1.3
"""How much larger, in accumulators, a tile may get that has fewer pixels and more filters."""


def _guarded(nest: Nest, dim: str) -> bool:
    return any(g.expr.mentions(dim) for g in (*nest.guards, *nest.pool_guards))


def step_of(schedule: Schedule, dim: str) -> int:
    """The extent of whole tiles along a dim."""
    return max(s for s, _ in schedule.segments[dim])


def _smaller_tiles(nest: Nest, schedule: Schedule, dim: str) -> Iterator[tuple[int, Segments]]:
    for smaller in range(step_of(schedule, dim) - 1, 0, -1):
        guarded = _guarded(nest, dim)
        yield smaller, uniform_segments(nest, dim, smaller) if guarded else split(nest.extents[dim], smaller)


def _tapered(extent: int, step: int) -> Iterator[Segments]:
    """Whole tiles, at one end some smaller ones: several of one size, or getting smaller and smaller."""
    for large in range(step, step // 2, -1):
        for whole in range(max(extent // large - 1, 1), extent // large + 1):
            rest = extent - whole * large
            tails = [((small, rest // small),) for small in range(large - 1, 0, -1) if rest and not rest % small]
            if large >= step - 1:
                pairs = [
                    (a, b) for a in range(1, rest) for b in range(a + 1, large) if rest - a - b >= b or rest == a + b
                ]
                tails += [((b, 1), (a, 1)) for a, b in pairs if rest == a + b]
                tails += [((rest - a - b, 1), (b, 1), (a, 1)) for a, b in pairs if b < rest - a - b < large]
            for tail in tails:
                yield (large, whole), *tail
                yield *tail[::-1], (large, whole)


def _schedules(nest: Nest, schedule: Schedule) -> Iterator[Schedule]:
    if schedule.roll is not None:
        pixel, _ = tile_dims(nest)
        for points in PLAIN_POINTS:
            for size in PLAIN_TILES:
                if pixel is not None and size <= nest.extents[pixel]:
                    yield mac_schedule(nest, {pixel: size}, points)
        return
    for dim, segments in schedule.loops:
        if dim not in pixel_dims(nest) or dim not in schedule.tile or dim in nest.window_dims:
            continue
        step = step_of(schedule, dim)
        for smaller, instead in _smaller_tiles(nest, schedule, dim):
            fewer = _with(schedule, {dim: instead})
            yield fewer
            for filters in (f for f in nest.filter_dims if f in schedule.tile and not _guarded(nest, f)):
                own = step_of(schedule, filters)
                for more in range(own + 1, min(int(own * step / smaller * MORE_FILTERS), nest.extents[filters]) + 1):
                    yield _with(fewer, {filters: split(nest.extents[filters], more)})
        if not _guarded(nest, dim):
            for instead in _tapered(nest.extents[dim], step):
                if instead != segments:
                    yield _with(schedule, {dim: instead})


def _with(schedule: Schedule, segments: dict[str, Segments]) -> Schedule:
    return replace(schedule, loops=tuple((d, segments.get(d, s)) for d, s in schedule.loops))


def exchanges(nest: Nest, schedule: Schedule, most: float) -> list[tuple[Schedule, float]]:
    """Other schedules with the estimated cycles that each costs more, at most `most`; cheapest first."""
    own = price(nest, schedule)
    if own is None:
        return []
    found: list[tuple[float, int, Schedule]] = []
    for instead in dict.fromkeys(_schedules(nest, schedule)):
        its = price(nest, instead)
        if its is not None and its.feasible and its.cycles - own.cycles <= most:
            found.append((max(its.cycles - own.cycles, 0.0), its.code_bytes, instead))
    found.sort(key=lambda f: f[:2])
    return [(instead, extra) for extra, _, instead in found]
