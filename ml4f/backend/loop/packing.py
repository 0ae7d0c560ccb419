"""The layout of a nest's packed weights: the order in which its schedule reads them.

One block per filter tile: the tile's biases, then for each reduction point, in reading order, the tile's weights. The
blocks stand in the order of the filter loops. Within one segment of the filter loops every address is affine in the
loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod

import numpy as np

from ml4f.backend.loop.nest import Linear, Nest, Schedule, Segments, steps_of

WORD = 4


@dataclass(frozen=True)
class WeightLayout:
    """`filters`: filter dims with their segments, outermost first; `tile`: their order within a block;
    `reductions`: reduction dims, outermost first, each with its points in reading order."""

    filters: tuple[tuple[str, Segments], ...]
    tile: tuple[str, ...]
    reductions: tuple[tuple[str, tuple[int, ...]], ...]
    bias: bool
    element_bytes: int

    @cached_property
    def taps(self) -> int:
        """Reduction points of one filter."""
        n = 1
        for _, points in self.reductions:
            n *= len(points)
        return n

    def block_bytes(self, filters: int) -> int:
        """Bytes of a block of this many filters, a multiple of a word."""
        payload = self.taps * filters * self.element_bytes
        return (WORD * filters if self.bias else 0) + (payload + WORD - 1) // WORD * WORD

    def bytes_below(self, level: int, filters: int) -> int:
        """Bytes of all blocks of the loops from `level` inwards, with `filters` filters from the outer dims' steps."""
        if level == len(self.filters):
            return self.block_bytes(filters)
        return sum(count * self.bytes_below(level + 1, filters * step) for step, count in self.filters[level][1])

    @cached_property
    def total_bytes(self) -> int:
        return self.bytes_below(0, 1)

    def segment_base(self, level: int, segment: int, filters: int) -> int:
        """Byte offset of the first block of a segment of the loop at `level`."""
        return sum(
            count * self.bytes_below(level + 1, filters * step) for step, count in self.filters[level][1][:segment]
        )

    @cached_property
    def rank_strides(self) -> dict[str, int]:
        """How much one step along a reduction dim adds to the rank of a reduction point."""
        strides, stride = {}, 1
        for dim, points in reversed(self.reductions):
            strides[dim] = stride
            stride *= len(points)
        return strides

    @cached_property
    def positions(self) -> dict[str, dict[int, int] | None]:
        """For dims that are read in an order of their own: point -> position; None where it is the natural order."""
        return {
            dim: None if points == tuple(range(len(points))) else {p: i for i, p in enumerate(points)}
            for dim, points in self.reductions
        }

    def tile_index(self, steps: Mapping[str, int], point: Mapping[str, int]) -> int:
        """Position of a filter inside its block; `point` holds offsets within the tile."""
        index = 0
        for dim in self.tile:
            index = index * steps[dim] + point[dim]
        return index


def has_loop(segments: Segments) -> bool:
    return len(segments) > 1 or segments[0][1] > 1  # pyright: ignore[reportGeneralTypeIssues]


def weight_layout(nest: Nest, schedule: Schedule) -> WeightLayout:
    """The layout that `schedule` reads: looped reduction dims outermost in loop order, then the unrolled ones."""
    filters = set(nest.filter_dims)
    looped = [d for d, s in schedule.loops if d in nest.reduction_dims and has_loop(s)]
    whole = [d for d in schedule.unroll if d not in looped]
    rest = [d for d in nest.reduction_dims if d not in looped and d not in whole]
    reductions = []
    for dim in [*looped, *rest, *whole]:
        natural = tuple(range(nest.extents[dim]))
        reductions.append((dim, natural if dim in looped else schedule.explicit_order.get(dim, natural)))
    tile = [d for d in schedule.tile if d in filters]
    tile = [d for d in nest.filter_dims if d not in tile] + tile
    return WeightLayout(
        filters=tuple((d, s) for d, s in schedule.loops if d in filters),
        tile=tuple(tile),
        reductions=tuple(reductions),
        bias=nest.has("bias"),
        element_bytes=2 if nest.by_role["w"].element == "f16" else 4,
    )


def whole_words(nest: Nest, schedule: Schedule) -> bool:
    """Whether loops advance by whole words through the weights, as they must for float16 ones to be loaded in pairs."""
    if not nest.has("w") or nest.by_role["w"].element == "f32":
        return True
    layout = weight_layout(nest, schedule)
    looped = [step for dim, step in _loop_steps(nest, schedule) if step * layout.rank_strides[dim] % 2]
    tiles = product(*([step for step, _ in segments] for _, segments in layout.filters))
    return not looped or all(prod(steps) % 2 == 0 for steps in tiles)


def _loop_steps(nest: Nest, schedule: Schedule) -> list[tuple[str, int]]:
    """(reduction dim, step) of every loop over a reduction dim."""
    edge = [(schedule.edge[1], 1)] if schedule.edge is not None else []
    return edge + [
        (dim, step)
        for dim, segments in schedule.loops
        if dim in nest.reduction_dims
        for step, count in segments
        if count > 1
    ]


def in_full(nest: Nest) -> Nest:
    """The nest with float32 weights in memory: what is left where no schedule can load float16 ones."""
    return replace(nest, operands=tuple(replace(o, element="f32") for o in nest.operands))


def _block_starts(layout: WeightLayout, level: int = 0, filters: int = 1) -> Sequence[tuple[int, dict[str, range]]]:
    """(byte offset, filter ranges) of every block."""
    if level == len(layout.filters):
        return [(0, {})]
    dim, segments = layout.filters[level]
    blocks = []
    offset = 0
    for start, step, count in steps_of(segments):
        inner = _block_starts(layout, level + 1, filters * step)
        size = layout.bytes_below(level + 1, filters * step)
        for i in range(count):
            span = range(start + i * step, start + (i + 1) * step)
            blocks += [(offset + o, {dim: span, **ranges}) for o, ranges in inner]
            offset += size
    return blocks


def _gather(map_: Linear, order: Sequence[tuple[str, Sequence[int]]]) -> np.ndarray:
    """Element indices of `map_` over the points of `order`, the first dim outermost, flattened."""
    index = np.array([map_.constant], dtype=np.int64)
    for dim, points in order:
        index = (index[:, None] + map_.coefficient(dim) * np.asarray(list(points), dtype=np.int64)[None, :]).ravel()
    return index


def pack_weights(nest: Nest, layout: WeightLayout, weights: np.ndarray, bias: np.ndarray | None) -> bytes:
    """The bytes of the packed buffer. `weights` and `bias` are flat float32 arrays that the nest's maps index."""
    out = np.zeros(layout.total_bytes, dtype=np.uint8)
    store = np.float16 if layout.element_bytes == 2 else np.float32
    for offset, ranges in _block_starts(layout):
        tile = [(d, ranges[d]) for d in layout.tile]
        if layout.bias:
            assert bias is not None
            data = bias[_gather(nest.by_role["bias"].map, tile)].astype(np.float32).tobytes()
            out[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            offset += len(data)
        index = _gather(nest.by_role["w"].map, [*layout.reductions, *tile])
        data = weights[index].astype(store).tobytes()
        out[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
    return out.tobytes()


def tile_points(steps: Mapping[str, int], order: Sequence[str]) -> list[dict[str, int]]:
    """All offsets within a tile, the first dim of `order` outermost."""
    return [dict(zip(order, values, strict=True)) for values in product(*(range(steps[d]) for d in order))]
