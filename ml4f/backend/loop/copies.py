"""Schedules of copies whose innermost dim is short: a tile extends over several dims.

A transposition of a few channels, rows of a few elements, elements that are repeated: a tile along the innermost dim
alone has so few results that the loops around it cost as much as the copying. A repeated element is loaded once and
stored as often as the tile holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.schedules import has_constants, make_schedule

TILES = (4, 8, 12, 16, 24, 32)
"""How many results a tile holds at most."""
TOGETHER = (4, 6, 8)
"""Elements that are in registers together."""


def copy_schedules(nest: Nest) -> Iterator[Schedule]:
    """For nests without reductions and borders; empty where the innermost dim alone makes tiles of any size."""
    if nest.combine != "copy" or nest.guards or nest.window_dims or len(nest.parallel) < 2:
        return
    x = nest.by_role["x"].map
    repeated = [d for d in reversed(nest.parallel_dims) if not x.mentions(d)]
    if not repeated and nest.extents[nest.parallel_dims[-1]] >= TILES[-1]:
        return
    tried: set[tuple[tuple[str, int], ...]] = set()
    for most in TILES:
        tiles = _tile(nest, repeated, most)
        if len(tiles) < 2 or tuple(tiles.items()) in tried:
            continue
        tried.add(tuple(tiles.items()))
        copies = prod(tiles.get(d, 1) for d in repeated)
        order = [d for d in nest.parallel_dims if tiles.get(d, 1) > 1]
        order.sort(key=lambda d: d in repeated)
        for together in TOGETHER:
            schedule = make_schedule(nest, tiles, {}, (), vector=together * copies, hoist=has_constants(nest))
            yield replace(schedule, tile=tuple(order))


def _tile(nest: Nest, repeated: list[str], most: int) -> dict[str, int]:
    """All copies of an element, if they are not too many, then as many neighbouring elements as there is room for."""
    tiles: dict[str, int] = {}
    room = most
    for dim in repeated:
        if nest.extents[dim] <= room:
            tiles[dim] = nest.extents[dim]
            room //= nest.extents[dim]
    for dim in reversed(nest.parallel_dims):
        extent = nest.extents[dim]
        if dim in repeated:
            continue
        size = -(-extent // -(-extent // room))  # of equal parts as few as possible
        if size > 1:
            tiles[dim] = size
        room //= size
        if size < extent or room < 2:
            break
    return tiles
