"""Schedules that a kernel may have instead of its own so that its output can overwrite more of its input.

Smaller tiles along pixels, with more filters in exchange; smaller tiles only at one end (where a growing output catches
up with its input); and for depthwise kernels that walk down columns the plain order, rows outermost. Each costs some
cycles and bytes of code, or saves some; both are estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ml4f.backend.loop.nest import Nest, Schedule, Segments, uniform, uniform_segments
from ml4f.backend.loop.packing import whole_words
from ml4f.backend.loop.pricing import Price, price
from ml4f.backend.loop.schedules import mac_schedule, pixel_dims, pooled_points, split, tile_dims

PLAIN_TILES = (8, 6, 5, 4, 3, 2)
"""Pixels of a tile of the plain order."""
PLAIN_POINTS = (9, 27)
"""Reduction points of its body."""


MOST_TRIED = 10
"""So many of the cheapest exchanges are looked at."""
ROUGHLY = 1.3
"""How much too high an estimate by tiles may be."""
FULL_TILE = 20
"""Accumulators that fit the registers with the inputs and weights of a step."""
FEWER_FILTERS, MORE_FILTERS = 0.8, 1.3
"""How many filters a tile with fewer pixels may have, in parts of what makes it as large as its own or a full tile."""


@dataclass(frozen=True)
class Exchange:
    """Another schedule; the estimated cycles and bytes of code that it takes more, and both weighed in cycles."""

    schedule: Schedule
    cycles: float
    code_bytes: int
    cost: float


@dataclass(frozen=True)
class Budget:
    """The most cycles and bytes of code that an exchange may cost, and how many cycles a byte of code is worth."""

    cycles: float
    code_bytes: float
    cycles_of_byte: float


def guarded(nest: Nest, dim: str) -> bool:
    return any(g.expr.mentions(dim) for g in (*nest.guards, *nest.pool_guards))


def step_of(schedule: Schedule, dim: str) -> int:
    """The extent of whole tiles along a dim."""
    return max(s for s, _ in schedule.segments[dim])


def _even_steps(extent: int, least: int, most: int) -> list[int]:
    """The steps from `least` to `most` of which no smaller one needs as few tiles."""
    return [step for step in range(least, most + 1) if step == least or -(-extent // step) < -(-extent // (step - 1))]


def _smaller_tiles(nest: Nest, schedule: Schedule, dim: str) -> Iterator[tuple[int, Segments]]:
    for smaller in _even_steps(nest.extents[dim], 1, step_of(schedule, dim) - 1):
        yield smaller, uniform_segments(nest, dim, smaller) if guarded(nest, dim) else split(nest.extents[dim], smaller)


def _tapered(extent: int, step: int) -> Iterator[Segments]:
    """Whole tiles, at one end some smaller ones: several of one size, or getting smaller and smaller."""
    for large in range(step, step // 2, -1):
        most = extent // large
        for whole in range(max(most - 2, 1), most + 1):
            rest = extent - whole * large
            tails = [((small, rest // small),) for small in range(large - 1, 0, -1) if rest and not rest % small]
            if large >= step - 1 and whole >= most - 1:
                pairs = [
                    (a, b) for a in range(1, rest) for b in range(a + 1, large) if rest - a - b >= b or rest == a + b
                ]
                tails += [((b, 1), (a, 1)) for a, b in pairs if rest == a + b]
                tails += [((rest - a - b, 1), (b, 1), (a, 1)) for a, b in pairs if b < rest - a - b < large]
            for tail in tails:
                yield (large, whole), *tail
                yield *tail[::-1], (large, whole)


def plain_order(nest: Nest, tiles: dict[str, int], points: int) -> Schedule:
    """Rows outermost; with code for each kind of row where float16 weights do not let a loop go over kernel rows."""
    schedule = mac_schedule(nest, tiles, points)
    return schedule if whole_words(nest, schedule) else mac_schedule(nest, tiles, points, use_trim=False)


def _schedules(nest: Nest, schedule: Schedule) -> Iterator[Schedule]:
    if schedule.roll is not None:
        pixel, _ = tile_dims(nest)
        for points in PLAIN_POINTS:
            for size in PLAIN_TILES:
                if pixel is not None and size <= nest.extents[pixel]:
                    yield plain_order(nest, {pixel: size}, points)
        return
    for dim, segments in schedule.loops:
        if dim not in pixel_dims(nest) or dim not in schedule.tile or dim in nest.window_dims:
            continue
        if schedule.edge is not None and dim == schedule.edge[0]:
            continue
        step = step_of(schedule, dim)
        for smaller, instead in _smaller_tiles(nest, schedule, dim):
            fewer = _with(schedule, {dim: instead})
            yield fewer
            for filters in (f for f in nest.filter_dims if f in schedule.tile and not guarded(nest, f)):
                own = step_of(schedule, filters)
                as_large = max(own * step, FULL_TILE // pooled_points(nest)) / smaller
                least, most = max(own + 1, int(as_large * FEWER_FILTERS)), int(as_large * MORE_FILTERS)
                for more in _even_steps(nest.extents[filters], least, min(most, nest.extents[filters])):
                    yield _with(fewer, {filters: split(nest.extents[filters], more)})
        for instead in _tapered(nest.extents[dim], step):
            if instead != segments:
                yield _with(schedule, {dim: uniform(nest, dim, instead)})


def _with(schedule: Schedule, segments: dict[str, Segments]) -> Schedule:
    return replace(schedule, loops=tuple((d, segments.get(d, s)) for d, s in schedule.loops))


class _Estimates:
    """Prices of schedules that differ from a nest's own one in one dim's tiles: sums over tiles, each priced once."""

    def __init__(self, nest: Nest, own: Schedule):
        self.nest = nest
        self.own = own
        self.known: dict[Schedule, Price | None] = {}

    def price(self, schedule: Schedule) -> Price | None:
        if schedule not in self.known:
            self.known[schedule] = price(self.nest, schedule)
        return self.known[schedule]

    def pair(self, instead: Schedule) -> tuple[Price | None, Price | None]:
        """The prices of the own schedule and of another one; they may lack the same part."""
        dims = [d for d in pixel_dims(self.nest) if instead.segments[d] != self.own.segments[d]]
        if instead.roll != self.own.roll or len(dims) != 1:
            return self.price(self.own), self.price(instead)
        return self._by_tiles(self.own, dims[0]), self._by_tiles(instead, dims[0])

    def _by_tiles(self, schedule: Schedule, dim: str) -> Price | None:
        total = Price(0.0, 0, 0, 0)
        for step, count in schedule.segments[dim]:
            its = self.price(_with(schedule, {dim: ((step, 1),)}))
            if its is None:
                return None
            total = Price(
                total.cycles + count * its.cycles,
                max(total.live_s, its.live_s),
                max(total.live_r, its.live_r),
                total.code_bytes + its.code_bytes,
            )
        return total


def exchanges(nest: Nest, schedule: Schedule, budget: Budget) -> list[Exchange]:
    """Other schedules within a budget, the cheapest first; roughly estimated (see `exactly`)."""
    estimates = _Estimates(nest, schedule)
    rough = Budget(ROUGHLY * budget.cycles, budget.code_bytes, budget.cycles_of_byte)
    found: list[Exchange] = []
    for instead in dict.fromkeys(_schedules(nest, schedule)):
        exchange = _exchange(nest, instead, *estimates.pair(instead), rough)
        if exchange is not None:
            found.append(exchange)
    return sorted(found, key=lambda e: (e.cost, e.cycles + budget.cycles_of_byte * e.code_bytes))[:MOST_TRIED]


def exactly(nest: Nest, schedule: Schedule, instead: Exchange, budget: Budget) -> Exchange | None:
    """The same exchange for `schedule` as well estimated as any schedule; None where it exceeds the budget."""
    return _exchange(nest, instead.schedule, price(nest, schedule), price(nest, instead.schedule), budget)


def _exchange(nest: Nest, instead: Schedule, own: Price | None, its: Price | None, budget: Budget) -> Exchange | None:
    if own is None or its is None or not its.feasible or not whole_words(nest, instead):
        return None
    cycles, code = max(its.cycles - own.cycles, 0.0), its.code_bytes - own.code_bytes
    if cycles > budget.cycles or code > budget.code_bytes:
        return None
    return Exchange(instead, cycles, code, max(cycles + budget.cycles_of_byte * code, 0.0))
