"""The schedules of a nest that are worth pricing, and their trade-off between cycles and code.

Candidates come in families: members of a family differ only in how many reduction points their body has. A loop's
overhead and a step's code are the same in all of them, so that two prices give those of all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, product

from ml4f.backend.loop.bit_patterns import ends_in_core, keeps_bits
from ml4f.backend.loop.borders import edge_segments, edge_taps
from ml4f.backend.loop.channelwise import channelwise_schedules
from ml4f.backend.loop.copies import copy_schedules
from ml4f.backend.loop.elementwise import elementwise_schedules
from ml4f.backend.loop.folding import UNLIMITED, folded_schedules
from ml4f.backend.loop.nest import Nest, Schedule, Segments, uniform_segments
from ml4f.backend.loop.packing import in_full, whole_words
from ml4f.backend.loop.pricing import Price, price
from ml4f.backend.loop.roll import rolling
from ml4f.backend.loop.schedules import (
    costly_epilogue,
    default_schedule,
    guarded_reductions,
    mac_schedule,
    pixel_dims,
    plain_dim,
    plain_schedule,
    points_apart,
    pooled_points,
    shares_inputs,
    split_phases,
    split_taps,
    tile_dims,
    tile_pixels,
    trimmable,
    unroll_order,
)
from ml4f.backend.loop.tiles import MAX_PIXELS, MAX_TILE_VALUES, plane_tiles, tile_sizes

MAX_BODY_TERMS = 400
"""The largest number of products in one body; more makes no measurable difference and costs code."""
MAX_WHOLE_TERMS = 720
"""The same for a body that needs no loop around it."""
VECTOR = 4
"""Results that the epilogue handles together."""
SHORTEST_RUN = 3
"""Results for which a multiple store is faster than single ones."""
PEELED_TAPS = 8
PEELED_TERMS = 16
"""With more taps of a one-dimensional kernel, or reduction points of another one, peeled borders are much code."""
EDGED_PIXELS = (1, 2, 3, 4, 5)
EDGED_FILTERS = (4, 5, 6, 8)
EDGED_STEPS = (1, 2)
MAX_EDGED_TERMS = 64
"""Tiles and bodies of the smallest code for padded columns."""
DENSE_WORDS = 28
"""Registers for a dense kernel's accumulators and weights; four are inputs."""


FAR_APART = 8
FAR_STEPS = (2, 4, 8)
"""How far to unroll taps whose inputs neighbouring pixels share only so many points later."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule, the nest it is for (equal in meaning to the one searched for), and what it costs."""

    nest: Nest
    schedule: Schedule
    cycles: float
    code_bytes: float


@dataclass(frozen=True)
class Family:
    """Schedules of one tile that unroll one reduction dim as in `steps`, and the `inner` points of other dims wholly.

    `linear`: all steps cost alike, which is not so for taps that neighbouring pixels share. `rolled`: a loop goes over
    the points of that guarded dim where a tile has all of them; `edge` as in `Schedule`.
    """

    nest: Nest
    tiles: tuple[tuple[str, int], ...]
    dim: str
    inner: int
    steps: tuple[int, ...]
    linear: bool = True
    use_trim: bool = True
    chunk: int = 0
    peel: bool = True
    multiple: tuple[str, ...] = ()
    rolled: str | None = None
    edge: tuple[str, str] | None = None

    def schedule(self, unrolled: int) -> Schedule:
        return mac_schedule(
            self.nest,
            dict(self.tiles),
            self.inner * unrolled,
            use_trim=self.use_trim,
            peel=self.peel,
            multiple=self.multiple,
            rolled=self.rolled,
            edge=self.edge,
            chunk=self.chunk,
            pixels_first=self.chunk > 0 or "out" in self.multiple,
            vector=max(self.run, VECTOR) if "out" in self.multiple else VECTOR,
        )

    @property
    def run(self) -> int:
        """How many neighbouring results a tile has that one multiple store can take; 0 in core registers."""
        if ends_in_core(self.nest):
            return 0
        tiles, out = dict(self.tiles), self.nest.by_role["out"].map
        return max((n for d, n in tiles.items() if out.coefficient(d) == 1), default=0)

    def candidates(self) -> Iterator[Candidate]:
        """Prices two members, or all if they are not alike, and derives the others; nothing if values do not fit.

        Steps between which float16 weights do not lie in whole words are left out.
        """
        members = [(u, s) for u in self.steps if whole_words(self.nest, s := self.schedule(u))]
        priced: list[Price] = []
        for _, schedule in members[:2] if self.linear else members:
            result = price(self.nest, schedule)
            if result is None or not result.feasible:
                return
            priced.append(result)
            yield Candidate(self.nest, schedule, result.cycles, result.code_bytes)
        if len(priced) == len(members):
            return
        trips = [_trips(s.segments[self.dim]) for _, s in members]
        copies = [_copies(s.segments[self.dim]) for _, s in members]
        first, second = priced
        per_trip = _slope(first.cycles, second.cycles, trips[0], trips[1])
        per_copy = _slope(first.code_bytes, second.code_bytes, copies[0], copies[1])
        for i, (_, schedule) in enumerate(members[2:], 2):
            cycles = second.cycles + per_trip * (trips[i] - trips[1])
            code = second.code_bytes + per_copy * (copies[i] - copies[1])
            yield Candidate(self.nest, schedule, cycles, code)


def _trips(segments: Segments) -> int:
    """How often loops over a dim jump back."""
    return sum(count for _, count in segments if count > 1)


def _copies(segments: Segments) -> int:
    """How many points of a dim have code of their own."""
    return sum(step for step, _ in segments)


def _slope(first: float, second: float, a: int, b: int) -> float:
    return 0.0 if a == b else (second - first) / (b - a)


def front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those than which no other is both faster and smaller: fastest first."""
    best = math.inf
    kept: list[Candidate] = []
    executable = (c for c in candidates if whole_words(c.nest, c.schedule))
    for candidate in sorted(executable, key=lambda c: (c.cycles, c.code_bytes)):
        if candidate.code_bytes < best:
            best = candidate.code_bytes
            kept.append(candidate)
    return tuple(kept)


@lru_cache(maxsize=512)
def candidates(nest: Nest, max_pixels: int = 0, compact: bool = True) -> tuple[Candidate, ...]:
    """The trade-off of a nest, fastest first; never empty. Tiles have at most `max_pixels` pixels (0: no limit).

    Without `compact` only what is not much slower than the fastest.
    """
    if nest.combine != "mac":
        found = front(_priced(nest, _plain_schedules(nest, compact)))
    elif any(nest.extents[d] > 1 for d in pixel_dims(nest)):
        found = _convolution(nest, max_pixels or MAX_PIXELS, compact)
    else:
        found = front(_priced(nest, chain(channelwise_schedules(nest), _dense_schedules(nest))))
    found = found or tuple(_priced(nest, [default_schedule(nest)], anything=True))
    if not found and in_full(nest) != nest:
        return candidates(in_full(nest), max_pixels)
    return found


def _priced(nest: Nest, schedules: Iterable[Schedule], anything: bool = False) -> Iterator[Candidate]:
    for schedule in dict.fromkeys(schedules):
        result = price(nest, schedule)
        if result is not None and (anything or result.feasible):
            yield Candidate(nest, schedule, result.cycles, result.code_bytes)


# Convolutions


def _convolution(nest: Nest, max_pixels: int, compact: bool) -> tuple[Candidate, ...]:
    """Families of the best tiles; those that made it to the front are tried with the options that make code smaller."""
    found = list(_rolled(nest, max_pixels))
    families: dict[Candidate, Family] = {}
    split_nest = split_taps(nest)
    for variant in [v for v in (split_nest, nest if compact or split_nest is None else None) if v is not None]:
        for family in _families(variant, max_pixels, compact):
            stored = nest.sink is None and family.run >= SHORTEST_RUN
            options = [family, replace(family, multiple=("out",))] if stored else [family]
            for option in options:
                for candidate in option.candidates():
                    families[candidate] = option
                    found.append(candidate)
    found += _priced(nest, folded_schedules(nest, max_pixels if max_pixels < MAX_PIXELS else UNLIMITED))
    found += _priced(nest, channelwise_schedules(nest))
    for family in _edged(nest) if compact else ():
        for candidate in family.candidates():
            families[candidate] = family
            found.append(candidate)
    for family in dict.fromkeys(families[c] for c in front(found) if c in families):
        for option in _options(family):
            found += option.candidates()
    return front(found)


def _options(family: Family) -> Iterator[Family]:
    """The family with multiple loads of weights, without a peeled step, and with a loop over guarded taps."""
    yield replace(family, multiple=("w", *family.multiple))
    yield replace(family, peel=False)
    phased = split_phases(family.nest) if family.edge is None else None
    if phased is not None:
        nest, dim = phased
        yield replace(family, nest=nest, inner=family.inner // nest.extents[dim], rolled=dim)


def _families(nest: Nest, max_pixels: int, compact: bool) -> Iterator[Family]:
    for use_trim in _trims(nest, compact):
        pixel, filter_ = tile_dims(nest, use_trim)
        for m, n in tile_sizes(nest, pixel, filter_, max_pixels, compact):
            tiles = tuple((d, k) for d, k in ((pixel, m), (filter_, n)) if d is not None)
            yield from _families_of(nest, tiles, use_trim, compact)
    for tiles in plane_tiles(nest, max_pixels):
        for family in _families_of(nest, tiles, False, compact):
            yield from dict.fromkeys((replace(family, chunk=0), family))  # fits where inputs are shared by taps


def _families_of(nest: Nest, tiles: tuple[tuple[str, int], ...], use_trim: bool, compact: bool) -> Iterator[Family]:
    """The families of one tile: each unrolls another reduction dim."""
    pixels, trim = tile_pixels(nest, use_trim, dict(tiles)), trimmable(nest) if use_trim else None
    forced = guarded_reductions(nest, trim)
    order = [d for d in unroll_order(nest, pixels) if not (trim and d == trim[1])]
    free = [d for d in order if d not in forced]
    accumulators = pooled_points(nest) * math.prod(n for _, n in tiles)
    n = math.prod(n for d, n in tiles if d not in pixels)
    chunk = 0 if accumulators + accumulators // n + n < MAX_TILE_VALUES else 2 * n
    inner = math.prod(nest.extents[d] for d in forced)
    for dim in reversed(free):
        taps = shares_inputs(nest, dim, pixels)
        far = taps and points_apart(nest, dim, pixels) >= FAR_APART
        steps = _steps(nest, dim, inner * accumulators, taps, dim == free[0])
        steps += tuple(u for u in FAR_STEPS if far and u not in steps and u * inner * accumulators <= MAX_BODY_TERMS)
        if compact or not taps or far or dim == free[0]:
            yield Family(nest, tiles, dim, inner, steps, not taps, use_trim, chunk)
        inner *= nest.extents[dim]
        if inner * accumulators > MAX_WHOLE_TERMS:
            break
    if not free:
        yield Family(nest, tiles, "", inner, (1,), False, use_trim, chunk)


def _edged(nest: Nest) -> Iterator[Family]:
    """Small code for padded columns: single pixels at both edges share a loop over taps, tiles have another one."""
    for use_trim in _trims(nest, True):
        pixel, filter_ = tile_dims(nest, use_trim)
        trim = trimmable(nest) if use_trim else None
        taps = edge_taps(nest, pixel) if pixel is not None else None
        if pixel is None or taps is None or guarded_reductions(nest, trim) != [taps]:
            continue
        order = [d for d in unroll_order(nest, (pixel,)) if not (trim and d == trim[1])]
        filters = nest.extents[filter_] if filter_ else 1
        for m, n in product(EDGED_PIXELS, EDGED_FILTERS):
            fits = m * n + m + n < MAX_TILE_VALUES or m * n + min(m, n) + 2 < MAX_TILE_VALUES
            if filters % n or not fits or edge_segments(nest, pixel, taps, m) is None:
                continue
            tiles = tuple((d, k) for d, k in ((pixel, m), (filter_, n)) if d is not None)
            inner = 1
            for dim in reversed(order):
                steps = tuple(u for u in EDGED_STEPS if u < nest.extents[dim]) or (1,)
                yield Family(nest, tiles, dim, inner, steps, False, use_trim, edge=(pixel, taps), peel=False)
                inner *= nest.extents[dim]
                if inner * m * n > MAX_EDGED_TERMS:
                    break


def _trims(nest: Nest, compact: bool) -> tuple[bool, ...]:
    """Whether to read vertical borders from a table, to give them code of their own, or to try both."""
    trim = trimmable(nest)
    if trim is None:
        return (True,)
    if tile_dims(nest)[0] is None:  # a table leaves no pixels that share weights
        return (False, True) if compact or nest.extents[trim[1]] > PEELED_TAPS else (False,)
    terms = nest.terms() // max(math.prod(n for _, n in nest.parallel), 1)
    return (True, False) if terms <= PEELED_TERMS else (True,)


def _steps(nest: Nest, dim: str, terms: int, taps: bool, outermost: bool) -> tuple[int, ...]:
    """How far to unroll a dim of `terms` products a point. Taps one or all; all of them is the next dim's step of 1.

    Of taps with float16 weights also two, which fill words whatever the number of filters.
    """
    extent = nest.extents[dim]
    if taps:
        steps = [1]
        half = nest.has("w") and nest.by_role["w"].element == "f16"
        if half and extent > 2 and 2 * terms <= MAX_BODY_TERMS:
            steps.append(2)
        if outermost and extent * terms <= MAX_WHOLE_TERMS:
            steps.append(extent)
        return tuple(dict.fromkeys(steps))
    last = extent if outermost else extent - 1
    limits = {extent: MAX_WHOLE_TERMS, 1: MAX_BODY_TERMS * terms}
    return tuple(u for u in range(1, last + 1) if u * terms <= limits.get(u, MAX_BODY_TERMS)) or (1,)


def _rolled(nest: Nest, max_pixels: int) -> Iterator[Candidate]:
    """Depthwise-like: one channel's weights stay in registers while the rows go by."""
    dims = pixel_dims(nest)
    if not {"oy", "ky"} <= set(nest.extents) or "oy" not in dims or len(dims) > 2:
        return
    if any(not nest.by_role["x"].map.mentions(d) for d in nest.filter_dims) or nest.extents["oy"] < 4:
        return
    if nest.window_dims or nest.sink is not None:
        return
    geometry = rolling(nest, "oy", "ky")
    if geometry is None or len(geometry.steady) < 4:
        return
    columns = [d for d in dims if d != "oy"]

    def schedule(width: int, unrolled: int) -> Schedule:
        loops: list[tuple[str, Segments]] = [(d, uniform_segments(nest, d, width)) for d in columns]
        loops += [(d, ((1, nest.extents[d]),)) for d in nest.filter_dims]
        loops.append(("oy", ((1, nest.extents["oy"]),)))
        loops += [(d, ((nest.extents[d], 1),)) for d in nest.reduction_dims]
        reductions = tuple(nest.reduction_dims)
        return Schedule(tuple(loops), tuple(columns), reductions, chunk=width, roll=("oy", "ky", unrolled))

    widths = [w for w in (6, 5, 4, 3, 2, 1) if w <= min(nest.extents[columns[0]], max_pixels)] if columns else [1]
    narrow = list(_priced(nest, (schedule(w, 1) for w in widths)))
    yield from narrow
    for candidate in front(narrow)[:2]:
        yield from _priced(nest, (schedule(candidate.schedule.chunk, unrolled) for unrolled in (2, 3)))


# Kernels without pixels that share weights, and without weights


def _dense_schedules(nest: Nest) -> Iterator[Schedule]:
    """Each weight is loaded once, by load-multiple, and the product takes its register."""
    _, filter_ = tile_dims(nest)
    filters = nest.extents[filter_] if filter_ else 1
    sizes = sorted(range(1, min(filters, 16) + 1), key=lambda n: (-(-filters // n), n))[:2]
    sizes += [n for n in (16, 8, 4, 2) if n <= filters and n not in sizes]
    for n in sizes:
        tiles = {filter_: n} if filter_ else {}
        chunk = min(12, DENSE_WORDS - n) // n * n or min(12, DENSE_WORDS - n)
        for points in (4, 8, 12):
            for multiple in ((), ("w",)):
                for peel in (True, False):
                    yield mac_schedule(
                        nest, tiles, points, points_per_step=4, chunk=chunk, early=("x",), multiple=multiple, peel=peel
                    )


def _plain_schedules(nest: Nest, compact: bool) -> Iterator[Schedule]:
    if nest.combine == "copy" and not keeps_bits(nest) and not costly_epilogue(nest):
        yield from elementwise_schedules(nest)
    if not costly_epilogue(nest):
        yield from copy_schedules(nest)
    sizes = (1, 2, 4) if costly_epilogue(nest) else (1, 2, 3, 4, 5, 6, 8, 12, 16)
    extent = nest.extents[plain_dim(nest)] * pooled_points(nest)
    for size in sizes:
        if size > extent:
            break
        for points in (1, 4, 9, 16) if compact else (4, 9, 16):
            for multiple in ((), ("x",)):
                if multiple and keeps_bits(nest):
                    continue
                schedule = plain_schedule(nest, size, points, multiple=multiple)
                yield schedule
                if schedule.hoist:
                    yield replace(schedule, hoist=False)
            if not nest.reduction:
                break
