"""Where the operands of a nest lie at a place in its loops, and their loads, each of an address only once.

The state that all parts of an expansion share: the builder, and what has been loaded. Who opens a loop puts an empty
`cache` in place for its body.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ml4f.backend.loop.bit_patterns import keeps_bits
from ml4f.backend.loop.builder import Address, Builder, ScheduleError, Terms, Value, runs, summed
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import WeightLayout, weight_layout


@dataclass(frozen=True, slots=True)
class Position:
    """Where a dim stands: `start + sum(stride * variable)`, a tile of `step` points, in segment `segment` of its loop.

    `tile` is the number of the tile, within the segment, that stands at `start`: not 0 where a loop runs backwards.
    """

    start: int
    step: int
    segment: int
    terms: Terms = ()
    tile: int = 0


Environment = dict[str, Position]
Point = tuple[int, ...]


class Operands:
    """The operands of `nest` under `schedule`, loaded with `builder`."""

    def __init__(self, nest: Nest, schedule: Schedule, builder: Builder):
        self.nest = nest
        self.schedule = schedule
        self.b = builder
        self.layout: WeightLayout | None = weight_layout(nest, schedule) if nest.has("w") else None
        self.bits = keeps_bits(nest)
        self.kind = "i32" if self.bits else "f32"
        """The type as which inputs are loaded."""
        self.cache: dict[Hashable, Value] = {}
        self.resident: dict[Hashable, Value] = {}
        self.skewed: Terms = ()
        """How the points of the skewed reduction dim change with the loop around."""
        self.index = {o.role: i for i, o in enumerate(nest.operands)}

    # -- addresses

    def base_address(self, role: str, env: Environment) -> tuple[int, Terms]:
        """(bytes, terms) of the operand at the tile's first point."""
        map_ = self.nest.by_role[role].map
        offset, terms = map_.constant, list[tuple[Any, int]]()
        for dim, coefficient in map_.terms:
            position = env.get(dim)
            if position is None:
                continue
            offset += coefficient * position.start
            terms += [(v, 4 * coefficient * s) for v, s in position.terms]
        return 4 * offset, summed(terms) if self.skewed else tuple(terms)

    def weight_base(self, env: Environment) -> tuple[int, Terms, int]:
        """(bytes, terms) of the current block, and the number of its filters."""
        layout = self.layout
        assert layout is not None
        filters, offset, terms = 1, 0, list[tuple[Any, int]]()
        for level, (dim, _) in enumerate(layout.filters):
            position = env[dim]
            offset += layout.segment_base(level, position.segment, filters)
            size = layout.bytes_below(level + 1, filters * position.step)
            offset += size * position.tile
            terms += [(v, size * s // position.step) for v, s in position.terms]
            filters *= position.step
        return offset, tuple(terms), filters

    def x_address(self, env: Environment, point: dict[str, int], key: Point) -> Address:
        """Where the input of one term lies."""
        base, terms = self.base_address("x", env)
        map_ = self.nest.by_role["x"].map
        base += sum(4 * map_.coefficient(d) * o for d, o in point.items())
        base += sum(4 * map_.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True))
        return Address(self.index["x"], base, terms)

    def weight_addressing(self, env: Environment) -> Callable[[dict[str, int], Point], Address]:
        """Where the packed weight of a term lies: a function of its reduction point and accumulator."""
        layout = self.layout
        assert layout is not None
        offset, terms, filters = self.weight_base(env)
        if layout.bias:
            offset += 4 * filters
        size = layout.element_bytes
        all_terms = list(terms)
        for dim, stride in layout.rank_strides.items():
            position = env[dim]
            offset += position.start * stride * filters * size
            all_terms += [(v, s * stride * filters * size) for v, s in position.terms]
        all_terms = list(summed(all_terms)) if self.skewed else all_terms
        if size == 2 and any(s % 4 for _, s in all_terms):
            raise ScheduleError("float16 weights need loops that advance by whole words")
        steps = {d: env[d].step for d in layout.tile}
        frozen, operand = tuple(all_terms), self.index["w"]
        places = {d: self.nest.parallel_dims.index(d) for d in layout.tile}
        indices: dict[Point, int] = {}

        def address(point: dict[str, int], key: Point) -> Address:
            rank = 0
            for dim, stride in layout.rank_strides.items():
                positions = layout.positions[dim]
                rank += stride * (point[dim] if positions is None else positions[point[dim]])
            index = indices.get(key)
            if index is None:
                index = indices[key] = layout.tile_index(steps, {d: key[i] for d, i in places.items()})
            return Address(operand, offset + (rank * filters + index) * size, frozen)

        return address

    def factor_addressing(self, env: Environment) -> Callable[[dict[str, int], Point], Address]:
        """Where the second factor of a term lies that is computed, and so not packed."""
        base, terms = self.base_address("v", env)
        map_, operand, dims = self.nest.by_role["v"].map, self.index["v"], self.nest.parallel_dims

        def address(point: dict[str, int], key: Point) -> Address:
            offset = base + sum(4 * map_.coefficient(d) * o for d, o in point.items())
            offset += sum(4 * map_.coefficient(d) * o for d, o in zip(dims, key, strict=True))
            return Address(operand, offset, terms)

        return address

    def point_address(self, role: str, env: Environment, key: Point) -> Address:
        """Where the element of an operand lies that belongs to a point of the tile."""
        base, terms = self.base_address(role, env)
        map_ = self.nest.by_role[role].map
        offset = base + sum(4 * map_.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True))
        return Address(self.index[role], offset, terms)

    # -- loads

    def load_all(self, role: str, addresses: Iterable[Address], kind: str) -> None:
        """Loads what is not loaded yet, in one chain; words where weights are of 16 bits."""
        half = role == "w" and self.layout is not None and self.layout.element_bytes == 2
        missing: list[Address] = []
        for address in addresses:
            word = Address(address.operand, address.offset & ~3, address.terms) if half else address
            if word not in self.cache:
                self.cache[word] = None
                missing.append(word)
        if role in self.schedule.multiple:
            for first, count in runs(missing):
                values = self.b.load_multiple(first, count)
                for i, value in enumerate(values):
                    self.cache[Address(first.operand, first.offset + 4 * i, first.terms)] = value
        else:
            for address in missing:
                self.cache[address] = self.b.load(address, kind)

    def weight(self, address: Address) -> Value:
        """A weight whose word is loaded, widened where it is of 16 bits."""
        if self.layout is None or self.layout.element_bytes == 4:
            return self.cache[address]
        key = ("half", address)
        if key not in self.cache:
            word = self.cache[Address(address.operand, address.offset & ~3, address.terms)]
            self.cache[key] = self.b.half_high(word) if address.offset & 2 else self.b.half_low(word)
        return self.cache[key]

    def cached_load(self, address: Address, kind: str = "f32") -> Value:
        """The value at an address, loaded only if it is not known."""
        if address in self.resident:
            return self.resident[address]
        if address not in self.cache:
            self.cache[address] = self.b.load(address, kind)
        return self.cache[address]

    def operand(self, role: str, env: Environment, key: Point) -> Value:
        """The element of an operand that belongs to a point of the tile."""
        return self.cached_load(self.point_address(role, env, key))

    # -- accumulators' first values

    def bias(self, env: Environment, key: Point) -> Value:
        """The bias of an accumulator, loaded once a tile; in front of its block when weights are packed."""
        dims = self.nest.parallel_dims
        if self.layout is not None:
            offset, terms, _ = self.weight_base(env)
            steps = {d: env[d].step for d in self.layout.tile}
            index = self.layout.tile_index(steps, {d: key[dims.index(d)] for d in self.layout.tile})
            return self.cached_load(Address(self.index["w"], offset + 4 * index, terms))
        return self.operand("bias", env, key)

    def initial(self, env: Environment, key: Point) -> Value:
        """What an accumulator holds that has no term yet."""
        if self.nest.has("bias"):
            return self.bias(env, key)
        if self.bits:
            return self.b.int_constant(0)
        name = ("initial", self.nest.initial)
        if name not in self.cache:
            self.cache[name] = self.b.constant(self.nest.initial)
        return self.cache[name]

    def start(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        """Gives accumulators that nothing has joined yet their first values."""
        for key, value in accumulators.items():
            if value is None:
                accumulators[key] = self.initial(env, key)
