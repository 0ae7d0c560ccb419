"""The sizes of tiles that are worth pricing: along a row of pixels and filters, or of several narrow rows."""

from __future__ import annotations

from collections.abc import Iterator

from ml4f.backend.loop.nest import Nest
from ml4f.backend.loop.schedules import input_strides, pixel_dims, pooled_points, split, tile_dims

MAX_PIXELS = 12
"""Pixels of a tile."""
MAX_TILE_VALUES = 31
"""Accumulators, inputs, weights and a product: with one more there is no second product, and adding has to wait."""
TILES = 8
TILE_TOLERANCE = 1.05
"""Tiles whose families are priced: at most so many, and none whose loads cost 5 % more than the best one's."""
COMPACT_TILES = 4
COMPACT_TOLERANCE = 1.15
"""Further tiles that divide the nest evenly, for their small code; the latter as in `TILE_TOLERANCE`."""
NARROW = 2
"""Of these all that have at most so many filters, where code is to be small and borders have code of their own."""
NARROW_ROW = 4
"""Pixels of a row up to which a tile may have several rows: of longer ones it has enough pixels as it is."""
PLANES = 3
"""How many tiles of several rows are priced."""


def tile_sizes(
    nest: Nest, pixel: str | None, filter_: str | None, max_pixels: int = MAX_PIXELS, compact: bool = True
) -> list[tuple[int, int]]:
    """The tiles with the fewest loads and the least left over, best first, then some without remainders."""
    pixels = nest.extents[pixel] if pixel else 1
    filters = nest.extents[filter_] if filter_ else 1
    window = pooled_points(nest)
    x, strides = nest.by_role["x"].map, input_strides(nest, (pixel,) if pixel else ())
    taps = max((nest.extents[d] for d in nest.reduction_dims if x.coefficient(d) in strides), default=1)

    def cost(size: tuple[int, int]) -> float:
        total = 0.0
        for size_m, count_m in split(pixels, size[0]):
            for size_n, count_n in split(filters, size[1]):
                loads = (window * size_m + taps - 1) / taps + size_n + 1
                total += count_m * count_n * (2 * window * size_m * size_n + loads)
        return total

    sizes = [
        (m, n)
        for m in range(1, min(pixels, max_pixels) + 1)
        for n in range(1, min(filters, 16) + 1)
        if window * m * n + n + (window * m if taps > 1 else min(window * m, 2)) < MAX_TILE_VALUES
    ]
    sizes = sorted(sizes, key=cost) or [(1, 1)]
    limit = TILE_TOLERANCE * cost(sizes[0])
    best = [s for s in sizes[:TILES] if cost(s) <= limit]
    slowest = COMPACT_TOLERANCE * cost(sizes[0])
    even = [s for s in sizes if not pixels % s[0] and not filters % s[1] and s not in best]
    if not compact:
        return best + [s for s in even[:COMPACT_TILES] if cost(s) <= slowest]
    narrow = NARROW if pixel and any(g.expr.mentions(pixel) for g in nest.guards) else 0
    return best + [s for i, s in enumerate(even) if i < COMPACT_TILES or s[1] <= narrow]


def plane_tiles(nest: Nest, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[tuple[str, int], ...]]:
    """Tiles of several whole rows where rows are narrow: weights are loaded, and converted, for more pixels at a time.

    Best first, by the loads of weights and inputs for a product. Of float16 weights an even number fills words in any
    loop, so that the best such tile, with less code, is among them.
    """
    pixels = [d for d in pixel_dims(nest) if d not in nest.window_dims]
    _, filter_ = tile_dims(nest, False)
    if len(pixels) < 2 or nest.extents[pixels[-1]] > NARROW_ROW:
        return
    row, column = pixels[-2:]
    width, window = nest.extents[column], pooled_points(nest)
    filters = nest.extents[filter_] if filter_ else 1
    half = nest.has("w") and nest.by_role["w"].element == "f16"

    def cost(size: tuple[int, int]) -> float:
        total = 0.0
        for rows, count in split(nest.extents[row], size[0]):
            for n, blocks in split(filters, size[1]):
                loads = rows * width * window / 2 + n * (1.5 if half else 1) + 1
                total += count * blocks * (2 * rows * width * window * n + loads)
        return total

    sizes = [
        (rows, n)
        for rows in range(2, nest.extents[row] + 1)
        for n in range(1, min(filters, 16) + 1)
        if rows * width <= max_pixels and window * rows * width * n + n + 2 < MAX_TILE_VALUES
    ]
    sizes.sort(key=cost)
    even = [size for size in sizes if half and size[1] % 2 == 0]
    for rows, n in dict.fromkeys(sizes[:PLANES] + even[:1]):
        yield tuple((d, k) for d, k in ((row, rows), (column, width), (filter_, n)) if d is not None)
