"""Schedules of depthwise nests with few pixels: a tile is a run of neighbouring channels at one pixel.

With many pixels a channel's weights are shared by a tile of them. With one or two there is nothing to share: inputs and
weights of several channels lie side by side, so that multiple loads and stores take them, and their sums hide each
other's latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ml4f.backend.loop.bit_patterns import ends_in_core
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.schedules import mac_schedule, pixel_dims

FEW_PIXELS = 8
"""With more the weights of a channel are shared by enough of them."""
CHANNELS = (8, 4)
"""Of a tile: an input, a weight and a sum of each are in registers."""
POINTS = (1, 2, 4, 8)
"""Reduction points of a body."""
MOST_TERMS = 64
"""Products of a body; more of them save little and are much code."""


def channelwise_schedules(nest: Nest) -> Iterator[Schedule]:
    """For nests whose operands all have a channel's neighbour next to it; empty for others."""
    if "w" not in nest.by_role:
        return  # a product of two computed tensors
    x, weights, out = (nest.by_role[role].map for role in ("x", "w", "out"))
    channels = [d for d in nest.filter_dims if x.coefficient(d) == weights.coefficient(d) == out.coefficient(d) == 1]
    if len(channels) != 1 or len(nest.filter_dims) != 1 or nest.sink is not None or nest.window_dims:
        return
    if math.prod(nest.extents[d] for d in pixel_dims(nest)) > FEW_PIXELS:
        return
    relu = ends_in_core(nest)
    stored = () if relu else ("out",)
    for size in (n for n in CHANNELS if n <= nest.extents[channels[0]]):
        for points in (p for p in POINTS if p * size <= MOST_TERMS):
            for multiple in (("x", "w", *stored), ("w", *stored), ()):
                yield mac_schedule(nest, {channels[0]: size}, points, multiple=multiple, vector=4 if relu else size)
