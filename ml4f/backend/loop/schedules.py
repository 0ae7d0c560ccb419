"""Schedules for a nest: the candidates that a search prices, and a plain default.

A candidate fixes the tile (pixels x filters), which reduction dims are unrolled and how far, and how weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml4f.backend.loop.nest import Guard, Nest, Schedule, Segments, uniform_segments

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
        others = [g for g in nest.guards if g is not guard and (g.expr.mentions(outer) or g.expr.mentions(inner))]
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
    **options: object,
) -> Schedule:
    """A schedule from tile sizes of parallel dims (default 1) and unrolled sizes of reduction dims (default: whole)."""
    loops: list[tuple[str, Segments]] = []
    pixels, filters = pixel_dims(nest), list(nest.filter_dims)
    for dim in [*pixels, *filters]:
        guarded = any(g.expr.mentions(dim) for g in nest.guards) and not (trim and trim[0] == dim)
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
    """A reasonable schedule without a search."""
    return next(candidates(nest))


def candidates(nest: Nest) -> Iterator[Schedule]:
    """All schedules worth pricing, the plainest first."""
    if nest.combine == "mac":
        yield from _mac_candidates(nest)
    else:
        yield from _plain_candidates(nest)


def _mac_candidates(nest: Nest) -> Iterator[Schedule]:
    trim = trimmable(nest)
    forced = guarded_reductions(nest, trim)
    pixels, filters = pixel_dims(nest), list(nest.filter_dims)
    pixel = pixels[-1] if pixels and not (trim and pixels[-1] == trim[0]) else None
    reads_all = bool(filters) and nest.by_role["x"].map.mentions(filters[-1])
    filter_ = None if reads_all or not filters else filters[-1]
    tiles = {d: n for d, n in ((pixel, 4), (filter_, 4)) if d is not None}
    if pixel is None and filter_ is not None:
        tiles[filter_] = 8
    tiles = {d: min(n, nest.extents[d]) for d, n in tiles.items()}
    order = [d for d in ("ky", "c", "kx") if d in nest.reduction_dims]
    order = order or list(nest.reduction_dims)
    if trim:
        order.remove(trim[1])
    steps = unroll_steps(nest, order, 6, forced)
    if trim:
        steps[trim[1]] = 1
    yield make_schedule(nest, tiles, steps, order, trim=trim)


def _plain_candidates(nest: Nest) -> Iterator[Schedule]:
    trim = None
    forced = guarded_reductions(nest, trim)
    tiles = {nest.parallel_dims[-1]: min(4, nest.extents[nest.parallel_dims[-1]])}
    steps = unroll_steps(nest, nest.reduction_dims, 9, forced)
    expensive = any(s.kind == "activation" and s.name not in ("relu", "linear") for s in nest.epilogue)
    if expensive:
        tiles = {nest.parallel_dims[-1]: min(2, nest.extents[nest.parallel_dims[-1]])}
    yield make_schedule(nest, tiles, steps, nest.reduction_dims, vector=2 if expensive else 4, hoist=expensive)
