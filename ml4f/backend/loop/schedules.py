"""Schedules for a nest: the candidates that a search prices, and a plain default.

A candidate fixes the tile (pixels x filters), which reduction dims are unrolled and how far, and how weights are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ml4f.backend.loop.nest import Guard, Nest, Schedule, Segments, uniform_segments
from ml4f.backend.loop.roll import rolling

MAX_BODY_TERMS = 640
"""The largest number of products in one body; more makes no measurable difference and costs code."""


def split(extent: int, step: int) -> Segments:
    """`extent` in steps of `step`, the remainder last."""
    whole, rest = divmod(extent, step)
    return tuple(s for s in ((step, whole), (rest, 1 if rest else 0)) if s[1] and s[0])


def split_peeled(extent: int, step: int) -> Segments:
    """`extent` in steps of `step` with the remainder (or one whole step's worth) first, not in a loop.

    The first terms are then the accumulators' first values, so that nothing has to be initialised.
    """
    first = (extent - 1) % step + 1
    whole = (extent - first) // step
    return ((first, 1), (step, whole)) if whole else ((first, 1),)


def guard_bounds(nest: Nest, guard: Guard, outer: str, inner: str) -> list[tuple[int, int]]:
    """For each point of `outer`: the first point of `inner` where the guard holds, and for how many it holds."""
    bounds = []
    for o in range(nest.extents[outer]):
        holds = [
            i
            for i in range(nest.extents[inner])
            if 0 <= guard.expr.constant + guard.expr.coefficient(outer) * o + guard.expr.coefficient(inner) * i < guard.extent
        ]
        bounds.append((holds[0], len(holds)) if holds else (0, 0))
    return bounds


def trimmable(nest: Nest) -> tuple[str, str] | None:
    """The (parallel, reduction) dims of a guard that a table of bounds can replace: the vertical padding."""
    for guard in nest.guards:
        dims = [d for d, _ in guard.expr.terms]
        if len(dims) != 2 or nest.extents[dims[0]] < 2:
            continue
        outer, inner = dims
        if outer not in nest.parallel_dims or inner not in nest.reduction_dims:
            continue
        all_guards = (*nest.guards, *nest.pool_guards)
        others = [g for g in all_guards if g is not guard and (g.expr.mentions(outer) or g.expr.mentions(inner))]
        if others or max(nest.extents[inner], nest.extents[outer]) > 255:
            continue
        if outer == nest.parallel_dims[0] and all(count for _, count in guard_bounds(nest, guard, outer, inner)):
            return outer, inner
    return None


def guarded_reductions(nest: Nest, trim: tuple[str, str] | None) -> list[str]:
    """The reduction dims that must be unrolled because a guard depends on them."""
    return [
        d
        for d in nest.reduction_dims
        if (trim is None or d != trim[1]) and any(g.expr.mentions(d) for g in nest.guards)
    ]


def pixel_dims(nest: Nest) -> list[str]:
    return [d for d in nest.parallel_dims if d not in nest.filter_dims]


def make_schedule(
    nest: Nest,
    tiles: dict[str, int],
    steps: dict[str, int],
    unroll: Sequence[str],
    *,
    trim: tuple[str, str] | None = None,
    peel: bool = True,
    points_per_step: int = 1,
    **options: object,
) -> Schedule:
    """A schedule from tile sizes of parallel dims (default 1) and unrolled sizes of reduction dims (default: whole)."""
    loops: list[tuple[str, Segments]] = []
    pixels, filters = pixel_dims(nest), list(nest.filter_dims)
    tiles = {**tiles, **{d: nest.extents[d] for d in nest.window_dims}}
    for dim in [*pixels, *filters]:
        guarded = any(g.expr.mentions(dim) for g in (*nest.guards, *nest.pool_guards)) and not (trim and trim[0] == dim)
        step = tiles.get(dim, 1)
        loops.append((dim, uniform_segments(nest, dim, step) if guarded else split(nest.extents[dim], step)))
    reductions = sorted(
        nest.reduction_dims, key=lambda d: (not (trim and trim[1] == d), steps.get(d, nest.extents[d]) == nest.extents[d])
    )
    dynamic = trim is not None
    for dim in reductions:
        step = steps.get(dim, nest.extents[dim])
        if trim and dim == trim[1]:
            loops.append((dim, ((1, nest.extents[dim]),)))
            continue
        first_loop = peel and not dynamic and step < nest.extents[dim]
        loops.append((dim, split_peeled(nest.extents[dim], step) if first_loop else split(nest.extents[dim], step)))
        dynamic = dynamic or step < nest.extents[dim]
    tile = [d for d in filters if tiles.get(d, 1) > 1] + [d for d in pixels if tiles.get(d, 1) > 1]
    return Schedule(
        loops=tuple(loops),
        tile=tuple(tile),
        unroll=tuple(d for d in unroll if d in nest.reduction_dims),
        trim=trim,
        points=points_per_step,
        **options,  # pyright: ignore[reportArgumentType]
    )


def unroll_steps(nest: Nest, order: Sequence[str], budget: int, forced: Sequence[str]) -> dict[str, int]:
    """How far to unroll each reduction dim, innermost of `order` first, within `budget` reduction points."""
    steps: dict[str, int] = {}
    for dim in forced:
        budget = max(budget // nest.extents[dim], 1)
        steps[dim] = nest.extents[dim]
    for dim in reversed(order):
        if dim in steps:
            continue
        steps[dim] = min(nest.extents[dim], budget)
        budget = max(budget // nest.extents[dim], 1)
        if steps[dim] < nest.extents[dim]:
            budget = 1
    return steps


def default_schedule(nest: Nest) -> Schedule:
    """A reasonable schedule without a search: a tile of 4 x 4, a little unrolling."""
    if nest.combine == "mac":
        pixel, filter_ = tile_dims(nest)
        size = {pixel: max(4 // pooled_points(nest), 1), filter_: 4 if pooled_points(nest) <= 4 else 1}
        tiles = {d: min(size[d], nest.extents[d]) for d in (pixel, filter_) if d is not None}
        return mac_schedule(nest, tiles, 6)
    return plain_schedule(nest, 2 if costly_epilogue(nest) else 4, 9)


def candidates(nest: Nest) -> Iterator[Schedule]:
    """All schedules worth pricing."""
    if nest.combine != "mac":
        yield from _plain_candidates(nest)
    elif any(nest.extents[d] > 1 for d in pixel_dims(nest)):
        yield from _tile_candidates(nest)
    else:
        yield from _dense_candidates(nest)


def tile_dims(nest: Nest) -> tuple[str | None, str | None]:
    """The (pixel, filter) dims of a tile: weights are shared along the first, inputs along the second."""
    trim = trimmable(nest)
    pixels = [d for d in pixel_dims(nest) if not (trim and trim[0] == d) and d not in nest.window_dims]
    pixel = pixels[-1] if pixels else None
    filters = [d for d in nest.filter_dims if not nest.by_role["x"].map.mentions(d)]
    return pixel, filters[-1] if filters else None


def costly_epilogue(nest: Nest) -> bool:
    return any(s.kind == "activation" and s.name not in ("relu", "linear") for s in nest.epilogue)


def reading_order(nest: Nest, dim: str, pixel: str | None, step: int) -> tuple[int, ...] | None:
    """Taps that neighbouring pixels share, one behind the other: with a pixel stride of 2 the even taps, then the odd ones.

    None where the natural order is right.
    """
    x = nest.by_role["x"].map
    tap, stride = x.coefficient(dim), x.coefficient(pixel) if pixel else 0
    if not tap or not stride or stride % tap or stride == tap or stride // tap >= step:
        return None
    ratio = stride // tap
    return tuple(sorted(range(step), key=lambda i: (i % ratio, i)))


def mac_schedule(
    nest: Nest, tiles: dict[str, int], points: int, *, use_trim: bool = True, **options: object
) -> Schedule:
    """A convolution-like nest with this tile and about `points` reduction points in the body.

    Without `use_trim` vertical padding is peeled: each row whose taps differ gets code of its own.
    """
    trim = trimmable(nest) if use_trim else None
    pixel, _ = tile_dims(nest)
    order = [d for d in ("ky", "c", "kx") if d in nest.reduction_dims] or list(nest.reduction_dims)
    if trim:
        order.remove(trim[1])
    forced = guarded_reductions(nest, trim)
    steps = unroll_steps(nest, order, points, forced)
    explicit = []
    for dim in order:
        taps = reading_order(nest, dim, pixel, steps[dim])
        if taps is not None:
            explicit.append((dim, taps))
    if trim:
        steps[trim[1]] = 1
    return make_schedule(nest, tiles, steps, order, trim=trim, order=tuple(explicit), **options)


MAX_TILE = 20
"""Accumulators that leave room for inputs, weights and two temporaries in 32 registers."""


def pooled_points(nest: Nest) -> int:
    """How many accumulators make one result."""
    return math.prod(nest.extents[d] for d in nest.window_dims)


def _tile_sizes(nest: Nest, pixel: str | None, filter_: str | None, most: int) -> list[tuple[int, int]]:
    """The tiles with the fewest loads and the least left over, best first."""
    pixels = nest.extents[pixel] if pixel else 1
    filters = nest.extents[filter_] if filter_ else 1
    window = pooled_points(nest)
    x = nest.by_role["x"].map
    strides = [x.coefficient(d) for d in (pixel, *nest.window_dims) if d]
    taps = max((nest.extents[d] for d in nest.reduction_dims if x.coefficient(d) in strides), default=1)

    def cost(m: int, n: int) -> float:
        total = 0.0
        for size_m, count_m in split(pixels, m):
            for size_n, count_n in split(filters, n):
                loads = (window * size_m + taps - 1) / taps + size_n + 1
                total += count_m * count_n * (2 * window * size_m * size_n + loads)
        return total

    sizes = [
        (m, n)
        for m in range(1, min(pixels, 12) + 1)
        for n in range(1, min(filters, 16) + 1)
        if window * m * n <= 24 and window * m * n + min(window * m, 2) + n <= 30
    ]
    return sorted(sizes, key=lambda s: cost(*s))[:most]


PEELED_TERMS = 32
"""With more reduction points than this, peeled rows are too much code."""


def peelable(nest: Nest) -> bool:
    """Whether all reduction dims may be unrolled in every row variant."""
    return nest.terms() // max(math.prod(n for _, n in nest.parallel), 1) <= PEELED_TERMS


def _rolled_candidates(nest: Nest) -> Iterator[Schedule]:
    """Depthwise-like: one channel's weights stay in registers while the rows go by."""
    dims = pixel_dims(nest)
    if not {"oy", "ky"} <= set(nest.extents) or "oy" not in dims or len(dims) > 2:
        return
    if any(not nest.by_role["x"].map.mentions(d) for d in nest.filter_dims) or nest.extents["oy"] < 4:
        return
    if nest.window_dims:
        return
    geometry = rolling(nest, "oy", "ky")
    if geometry is None or len(geometry.steady) < 4:
        return
    columns = [d for d in dims if d != "oy"]
    for width in (4, 5, 6, 3) if columns else (1,):
        if columns and width > nest.extents[columns[0]]:
            continue
        for unrolled in (1, 2, 3):
            loops: list[tuple[str, Segments]] = []
            for dim in columns:
                loops.append((dim, uniform_segments(nest, dim, width)))
            loops += [(d, ((1, nest.extents[d]),)) for d in nest.filter_dims]
            loops.append(("oy", ((1, nest.extents["oy"]),)))
            loops += [(d, ((nest.extents[d], 1),)) for d in nest.reduction_dims]
            for chunk in (3, 4, 5):
                yield Schedule(
                    loops=tuple(loops),
                    tile=tuple(columns),
                    unroll=tuple(nest.reduction_dims),
                    chunk=chunk,
                    roll=("oy", "ky", unrolled),
                )


def _tile_candidates(nest: Nest) -> Iterator[Schedule]:
    yield from _rolled_candidates(nest)
    pixel, filter_ = tile_dims(nest)
    for m, n in _tile_sizes(nest, pixel, filter_, 8):
        tiles = {d: k for d, k in ((pixel, m), (filter_, n)) if d is not None}
        seen = set()
        for points in (4, 8, 16, 32):
            accumulators = pooled_points(nest) * m * n
            if points * accumulators > MAX_BODY_TERMS:
                continue
            for use_trim in (True, False) if trimmable(nest) and peelable(nest) else (True,):
                schedule = mac_schedule(nest, tiles, points, use_trim=use_trim)
                if accumulators + m + n + 2 > 32:
                    schedule = replace(schedule, chunk=2 * n)
                if schedule not in seen:
                    seen.add(schedule)
                    yield schedule


def _dense_candidates(nest: Nest) -> Iterator[Schedule]:
    """No pixels to share weights: each is loaded once, by load-multiple, the product takes its register."""
    _, filter_ = tile_dims(nest)
    filters = nest.extents[filter_] if filter_ else 1
    sizes = sorted(range(1, min(filters, 16) + 1), key=lambda n: (-(-filters // n), n))[:2]
    sizes += [n for n in (16, 8, 4) if n <= filters and n not in sizes]
    for n in sizes:
        tiles = {filter_: n} if filter_ else {}
        for points in (4, 8, 12):
            for multiple in ((), ("w",)):
                chunk = min(12, 28 - n) // n * n or min(12, 28 - n)
                yield mac_schedule(nest, tiles, points, points_per_step=4, chunk=chunk, early=("x",), multiple=multiple)


def plain_dim(nest: Nest) -> str:
    """The dim along which a tile of a nest without weights extends."""
    return [d for d in nest.parallel_dims if d not in nest.window_dims][-1]


def plain_schedule(nest: Nest, size: int, points: int, **options: object) -> Schedule:
    """A nest without weights: a tile of `size` neighbouring results, the window unrolled as far as `points` allows."""
    forced = guarded_reductions(nest, None)
    dim = plain_dim(nest)
    size = max(size // pooled_points(nest), 1)
    steps = unroll_steps(nest, nest.reduction_dims, points, forced)
    costly = costly_epilogue(nest)
    vector = 2 if costly else 4
    return make_schedule(
        nest, {dim: min(size, nest.extents[dim])}, steps, nest.reduction_dims, vector=vector, hoist=costly, **options
    )


def _plain_candidates(nest: Nest) -> Iterator[Schedule]:
    sizes = (1, 2, 4) if costly_epilogue(nest) else (1, 2, 3, 4, 5, 6, 8, 12, 16)
    extent = nest.extents[plain_dim(nest)] * pooled_points(nest)
    for size in sizes:
        if size > extent:
            break
        for points in (4, 9, 16):
            for multiple in ((), ("x",)):
                if multiple and keeps_in_core(nest):
                    continue
                schedule = plain_schedule(nest, size, points, multiple=multiple)
                yield schedule
                if schedule.hoist:
                    yield replace(schedule, hoist=False)
            if not nest.reduction:
                break


def keeps_in_core(nest: Nest) -> bool:
    """Whether the values stay in core registers (load-multiple is for single-precision registers only)."""
    from ml4f.backend.loop.expand import keeps_bits

    return keeps_bits(nest)
