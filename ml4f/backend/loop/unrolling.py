"""Schedules that run faster than a given one in the same order of tiles: bodies with more reduction points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import has_loop
from ml4f.backend.loop.schedules import split, split_peeled

LARGEST_BODY = 400
"""Products in one body."""


def unrolled_further(nest: Nest, schedule: Schedule) -> Iterator[Schedule]:
    """The same schedule with longer bodies of its innermost loop over a reduction dim, up to three times as long."""
    if schedule.roll is not None:
        return
    looped = [(d, s) for d, s in schedule.loops if d in nest.reduction_dims and has_loop(s)]
    if not looped or (schedule.trim is not None and looped[-1][0] == schedule.trim[1]):
        return
    dim, segments = looped[-1]
    step = max((step for step, count in segments if count > 1), default=nest.extents[dim])
    others = prod(max(n for n, _ in s) for d, s in schedule.loops if d != dim)
    extent = nest.extents[dim]
    for longer in dict.fromkeys(min(n, extent) for n in (step + 1, step + 2, 2 * step, 3 * step)):
        if longer > step and longer * others <= LARGEST_BODY:
            instead = split_peeled(extent, longer) if segments[0][1] == 1 else split(extent, longer)
            yield replace(schedule, loops=tuple((d, instead if d == dim else s) for d, s in schedule.loops))
