"""Schedules for narrow outputs: a tile is a column of pixels, and each output column has code for the taps it has.

Horizontal padding then costs nothing, however narrow the output is. Columns that read the same inputs, and only differ
in which taps meet them, share code: the taps slide back as the columns go on (`Schedule.skew`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ml4f.backend.loop.nest import Nest, Schedule, Segments, uniform_segments
from ml4f.backend.loop.schedules import pixel_dims, reading_order, split, split_peeled

WIDEST = 3
"""Columns up to which each may have code of its own: a whole row of more is as good a tile."""
ROWS = (2, 3, 4, 5, 6, 8)
FILTERS = (1, 2, 3, 4)
CHANNELS = (1, 2, 4, 8)
"""How many rows and filters a tile holds, and how many channels a body."""
MOST_VALUES = 31
UNLIMITED = WIDEST * ROWS[-1]
MAX_BODY_TERMS = 720


def folded_schedules(nest: Nest, max_pixels: int = UNLIMITED) -> Iterator[Schedule]:
    """For nests with two pixel dims and padding along the inner, narrow one; else empty.

    The rows of a tile have at most `max_pixels` pixels in all: their columns are finished one after the other.
    """
    pixels = [d for d in pixel_dims(nest) if d not in nest.window_dims]
    filters = [d for d in nest.filter_dims if not nest.by_role["x"].map.mentions(d)]
    if len(pixels) < 2 or not filters or nest.window_dims or nest.extents[pixels[-1]] > WIDEST:
        return
    row, column, filter_ = pixels[-2], pixels[-1], filters[-1]
    if not any(g.expr.mentions(column) for g in nest.guards):
        return
    segments, skew = column_segments(nest, column)
    guarded = [d for d in nest.reduction_dims if any(g.expr.mentions(d) for g in nest.guards)]
    free = [d for d in nest.reduction_dims if d not in guarded]
    looped = free[-1] if free else None
    fixed = math.prod(nest.extents[d] for d in nest.reduction_dims if d != looped)
    for m in (m for m in ROWS if m <= nest.extents[row] and m * nest.extents[column] <= max_pixels):
        for n in (n for n in FILTERS if n <= nest.extents[filter_] and m * n + m + n <= MOST_VALUES):
            for channels in sorted({min(c, nest.extents[looped]) for c in CHANNELS}) if looped else (1,):
                if fixed * channels * m * n > MAX_BODY_TERMS:
                    continue
                loops: list[tuple[str, Segments]] = [(d, uniform_segments(nest, d, 1)) for d in pixels[:-2]]
                loops += [(row, uniform_segments(nest, row, m)), (column, segments)]
                loops += [(d, split(nest.extents[d], n if d == filter_ else 1)) for d in nest.filter_dims]
                if looped:
                    loops.append((looped, split_peeled(nest.extents[looped], channels)))
                loops += [(d, ((nest.extents[d], 1),)) for d in nest.reduction_dims if d != looped]
                order = _order(nest, row, looped)
                taps = ((d, reading_order(nest, d, (row,), nest.extents[d])) for d in order if d != (skew and skew[1]))
                explicit = tuple((d, points) for d, points in taps if points is not None)
                yield Schedule(tuple(loops), (filter_, row), tuple(order), explicit, skew=skew)


def _order(nest: Nest, row: str, looped: str | None) -> list[str]:
    """Reduction dims, outermost first: along the innermost neighbouring rows share inputs."""
    x = nest.by_role["x"].map
    stride = x.coefficient(row)
    shared = [d for d in nest.reduction_dims if x.coefficient(d) and stride % x.coefficient(d) == 0]
    last = max((d for d in shared if d != looped), key=lambda d: abs(x.coefficient(d)), default=None)
    return [d for d in nest.reduction_dims if d != last] + ([last] if last is not None else [])


def column_segments(nest: Nest, column: str) -> tuple[Segments, tuple[str, str, int] | None]:
    """The columns in groups with the same code; and by how many taps these slide back from a column to the next."""
    guards = [g for g in nest.guards if g.expr.mentions(column)]
    dims = {d for g in guards for d, _ in g.expr.terms if d != column}
    plain = uniform_segments(nest, column, 1)
    if len(guards) != 1 or len(dims) != 1 or next(iter(dims)) not in nest.reduction_dims:
        return plain, None
    guard, taps = guards[0], next(iter(dims))
    slide, rest = divmod(guard.expr.coefficient(column), guard.expr.coefficient(taps))
    x = nest.by_role["x"].map
    if rest or slide < 1 or x.coefficient(column) != slide * x.coefficient(taps):
        return plain, None
    segments: list[list[int]] = []
    expected: set[int] = set()
    for i in range(nest.extents[column]):
        valid = {k for k in range(nest.extents[taps]) if 0 <= guard.expr({column: i, taps: k}) < guard.extent}
        if segments and valid == expected:
            segments[-1][1] += 1
        else:
            segments.append([1, 1])
        expected = {k - slide for k in valid}
    if len(segments) >= len(plain):
        return plain, None
    return tuple((s, c) for s, c in segments), (column, taps, slide)
