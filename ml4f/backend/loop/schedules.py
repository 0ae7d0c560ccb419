"""Builds schedules for a nest from a tile, a number of unrolled reduction points and a few options; a plain default.

Which of them are worth pricing is for `candidates.py` to say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ml4f.backend.loop.borders import edge_segments, guard_bounds
from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.backend.loop.nest import Linear, Nest, Schedule, Segments, uniform_segments

MAX_WHOLE_WINDOW = 128
"""Points of a window with padding that are unrolled; a larger one is a loop, over results one by one."""
FEW_VALUES = 4
"""Registers for one result with which several can be computed together."""


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
    edge: tuple[str, str] | None = None,
    peel: bool = True,
    points_per_step: int = 1,
    pixels_first: bool = False,
    **options: Any,
) -> Schedule:
    """A schedule from tile sizes of parallel dims (default 1) and unrolled sizes of reduction dims (default: whole).

    `peel`: the first step of a loop over terms stands in front of it and starts the accumulators; not worth its code
    where another loop is around it. `pixels_first`: a step goes through the pixels of the tile, all filters at each.
    """
    loops: list[tuple[str, Segments]] = []
    pixels, filters = pixel_dims(nest), list(nest.filter_dims)
    tiles = {**tiles, **{d: nest.extents[d] for d in nest.window_dims}}
    for dim in [*pixels, *filters]:
        guarded = any(g.expr.mentions(dim) for g in (*nest.guards, *nest.pool_guards)) and not (trim and trim[0] == dim)
        step = tiles.get(dim, 1)
        apart = edge_segments(nest, *edge, step) if edge is not None and edge[0] == dim else None
        if apart is not None:
            loops.append((dim, apart))
            continue
        loops.append((dim, uniform_segments(nest, dim, step) if guarded else split(nest.extents[dim], step)))
    reductions = sorted(
        nest.reduction_dims,
        key=lambda d: (not (trim and trim[1] == d), steps.get(d, nest.extents[d]) == nest.extents[d]),
    )
    looped = [d for d in reductions if steps.get(d, nest.extents[d]) < nest.extents[d]]
    peel = peel and trim is None and len(looped) == 1
    for dim in reductions:
        step = steps.get(dim, nest.extents[dim])
        if trim and dim == trim[1]:
            loops.append((dim, ((1, nest.extents[dim]),)))
        elif peel and dim in looped:
            loops.append((dim, split_peeled(nest.extents[dim], step)))
        else:
            loops.append((dim, split(nest.extents[dim], step)))
    order = [*pixels, *filters] if pixels_first else [*filters, *pixels]
    tile = [d for d in order if tiles.get(d, 1) > 1]
    return Schedule(
        loops=tuple(loops),
        tile=tuple(tile),
        unroll=tuple(d for d in unroll if d in nest.reduction_dims),
        trim=trim,
        edge=edge,
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
    """A reasonable schedule without a search: a tile of 4 x 4, a little unrolling.

    Functions of many values go one by one, their constants loaded where they are used: that needs few registers, even
    where no scheduler has put the operations in order.
    """
    if nest.combine == "mac":
        pixel, filter_ = tile_dims(nest)
        size = {pixel: max(4 // pooled_points(nest), 1), filter_: 4 if pooled_points(nest) <= 4 else 1}
        tiles = {d: min(size[d], nest.extents[d]) for d in (pixel, filter_) if d is not None}
        return mac_schedule(nest, tiles, 6)
    if costly_epilogue(nest):
        return replace(plain_schedule(nest, 1, 9), vector=1, hoist=False)
    return plain_schedule(nest, 4, 9)


def tile_dims(nest: Nest, use_trim: bool = True) -> tuple[str | None, str | None]:
    """The (pixel, filter) dims of a tile: weights are shared along the first, inputs along the second.

    With `use_trim` the dim whose borders a table holds is no dim of a tile.
    """
    trim = trimmable(nest) if use_trim else None
    pixels = [d for d in pixel_dims(nest) if not (trim and trim[0] == d) and d not in nest.window_dims]
    pixel = pixels[-1] if pixels else None
    filters = [d for d in nest.filter_dims if not nest.by_role["x"].map.mentions(d)]
    return pixel, filters[-1] if filters else None


def values_of_epilogue(nest: Nest) -> int:
    """Roughly how many registers the epilogue needs for a result, constants aside."""
    return max([1, *(ACTIVATIONS[s.name].live for s in nest.epilogue if s.kind == "activation")])


def tile_pixels(nest: Nest, use_trim: bool = True, tiles: Collection[str] = ()) -> tuple[str, ...]:
    """The dims along which a tile's pixels lie: one, or those of them that are among `tiles`."""
    pixel, _ = tile_dims(nest, use_trim)
    several = tuple(d for d in pixel_dims(nest) if d in tiles and d not in nest.window_dims)
    return several if len(several) > 1 else () if pixel is None else (pixel,)


def costly_epilogue(nest: Nest) -> bool:
    """Whether only a few results can be in registers together."""
    return values_of_epilogue(nest) > FEW_VALUES or any(s.kind == "pow" for s in nest.epilogue)


def has_constants(nest: Nest) -> bool:
    """Whether the epilogue may need constants in registers, which all results share."""
    return any(
        s.kind in ("prelu", "pow", "where") or (s.kind == "activation" and s.name not in ("relu", "linear"))
        for s in nest.epilogue
    )


def input_strides(nest: Nest, pixels: Sequence[str]) -> list[int]:
    """How far apart the inputs of neighbouring pixels of a tile lie, a pool's window included; smallest first."""
    x = nest.by_role["x"].map
    return sorted({s for d in (*pixels, *nest.window_dims) if (s := x.coefficient(d))})


def reading_order(nest: Nest, dim: str, pixels: Sequence[str], step: int) -> tuple[int, ...] | None:
    """Taps that neighbouring pixels share, one behind the other: at a stride of 2 the even taps, then the odd ones.

    None where the natural order is right.
    """
    tap = nest.by_role["x"].map.coefficient(dim)
    ratio = next((s // tap for s in input_strides(nest, pixels) if tap and s % tap == 0), 1)
    if ratio == 1 or ratio >= step:
        return None
    return tuple(sorted(range(step), key=lambda i: (i % ratio, i)))


def split_taps(nest: Nest) -> Nest | None:
    """The same nest with a reduction dim split where neighbouring pixels share inputs along it; None if there is none.

    Window and channels of a one-dimensional convolution are contiguous and were merged; a loop over channels with all
    taps in its body needs them apart.
    """
    x = nest.by_role["x"].map
    strides = input_strides(nest, tile_pixels(nest))
    for dim, extent in nest.reduction:
        step = x.coefficient(dim)
        if not step or not strides or strides[0] % step or any(g.expr.mentions(dim) for g in nest.guards):
            continue
        inner = strides[0] // step
        if inner < 2 or extent % inner or extent == inner:
            continue
        taps = f"{dim}t"
        reduction = [
            r for d, n in nest.reduction for r in (((taps, extent // inner), (d, inner)) if d == dim else ((d, n),))
        ]
        operands = tuple(replace(o, map=_split_map(o.map, dim, taps, inner)) for o in nest.operands)
        return replace(nest, reduction=tuple(reduction), operands=operands)
    return None


def split_phases(nest: Nest) -> tuple[Nest, str] | None:
    """The same nest with guarded taps split by their remainder of the stride, and the dim of the remainders; or None.

    Neighbouring pixels share inputs among the taps of equal remainder: a loop over remainders keeps that.
    """
    pixel, _ = tile_dims(nest)
    x = nest.by_role["x"].map
    for dim in guarded_reductions(nest, trimmable(nest)):
        tap, extent = x.coefficient(dim), nest.extents[dim]
        stride = x.coefficient(pixel) if pixel is not None else 0
        phases = stride // tap if tap and stride % tap == 0 else 1
        if phases < 2 or extent % phases or extent < 2 * phases:
            continue
        taps = f"{dim}t"
        reduction = [
            r for d, n in nest.reduction for r in (((d, phases), (taps, extent // phases)) if d == dim else ((d, n),))
        ]
        operands = tuple(replace(o, map=_split_map(o.map, dim, taps, phases)) for o in nest.operands)
        guards = tuple(replace(g, expr=_split_map(g.expr, dim, taps, phases)) for g in nest.guards)
        return replace(nest, reduction=tuple(reduction), operands=operands, guards=guards), dim
    return None


def _split_map(map_: Linear, dim: str, outer: str, inner: int) -> Linear:
    terms = [t for d, c in map_.terms for t in (((outer, c * inner), (d, c)) if d == dim else ((d, c),))]
    return Linear(tuple(terms), map_.constant)


def shares_inputs(nest: Nest, dim: str, pixels: Sequence[str]) -> bool:
    """Whether neighbouring pixels read the same inputs at different points of a reduction dim: it is a dim of taps."""
    step = nest.by_role["x"].map.coefficient(dim)
    return step != 0 and any(
        (stride % step == 0 and stride // step < nest.extents[dim]) or step % stride == 0
        for stride in input_strides(nest, pixels)
    )


def points_apart(nest: Nest, dim: str, pixels: Sequence[str]) -> int:
    """How many points of a dim of taps lie between the inputs that neighbouring pixels share."""
    step = nest.by_role["x"].map.coefficient(dim)
    return min([max(stride // step, 1) for stride in input_strides(nest, pixels) if step], default=1)


def unroll_order(nest: Nest, pixels: Sequence[str]) -> list[str]:
    """The reduction dims, outermost first: those along which neighbouring pixels share inputs are the innermost."""
    x = nest.by_role["x"].map
    return sorted(nest.reduction_dims, key=lambda d: (shares_inputs(nest, d, pixels), -abs(x.coefficient(d))))


def mac_schedule(
    nest: Nest,
    tiles: dict[str, int],
    points: int,
    *,
    use_trim: bool = True,
    rolled: str | None = None,
    edge: tuple[str, str] | None = None,
    **options: Any,
) -> Schedule:
    """A convolution-like nest with this tile and about `points` reduction points in the body.

    Without `use_trim` vertical padding is peeled: each row whose taps differ gets code of its own. `rolled`: a guarded
    reduction dim that is a loop of single points all the same, in tiles that lack none. `edge`: see `Schedule`.
    """
    trim = trimmable(nest) if use_trim else None
    pixels = tile_pixels(nest, use_trim, tiles)
    order = [d for d in unroll_order(nest, pixels) if not (trim and d == trim[1])]
    looped = (rolled, edge[1] if edge is not None else None)
    forced = [d for d in guarded_reductions(nest, trim) if d not in looped]
    steps = unroll_steps(nest, [d for d in order if d != rolled], points, forced)
    explicit = []
    for dim in order:
        taps = reading_order(nest, dim, pixels, steps.get(dim, 1))
        if taps is not None and (edge is None or dim != edge[1]):
            explicit.append((dim, taps))
    if trim:
        steps[trim[1]] = 1
    if rolled is not None:
        steps[rolled] = 1
    return make_schedule(nest, tiles, steps, order, trim=trim, edge=edge, order=tuple(explicit), **options)


def pooled_points(nest: Nest) -> int:
    """How many accumulators make one result."""
    return math.prod(nest.extents[d] for d in nest.window_dims)


def plain_dim(nest: Nest) -> str:
    """The dim along which a tile of a nest without weights extends."""
    return [d for d in nest.parallel_dims if d not in nest.window_dims][-1]


def plain_schedule(nest: Nest, size: int, points: int, **options: Any) -> Schedule:
    """A nest without weights: a tile of `size` neighbouring results, the window unrolled as far as `points` allows."""
    forced = guarded_reductions(nest, None)
    dim = plain_dim(nest)
    size = max(size // pooled_points(nest), 1)
    if math.prod(nest.extents[d] for d in forced) > MAX_WHOLE_WINDOW:
        forced, size = [], 1
    steps = unroll_steps(nest, nest.reduction_dims, points, forced)
    vector = 2 if costly_epilogue(nest) else 4
    tiles, hoist = {dim: min(size, nest.extents[dim])}, has_constants(nest)
    return make_schedule(nest, tiles, steps, nest.reduction_dims, vector=vector, hoist=hoist, **options)
