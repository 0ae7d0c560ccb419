"""Where the operands of a nest lie at a place in its loops, and their loads, each of an address only once.

The state that all parts of an expansion share: the builder, and what has been loaded. Who opens a loop puts an empty
`cache` in place for its body.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ml4f.backend.loop.bit_patterns import keeps_bits
from ml4f.backend.loop.builder import Address, Builder, ScheduleError, Terms, Value, runs, summed
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import WORD, WeightLayout, weight_layout


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


class Access(NamedTuple):
    """Where one factor of a body's terms lies: `base` and what reduction point and accumulator add to it, in bytes."""

    operand: int
    base: int
    terms: Terms
    of_point: Callable[[Mapping[str, int]], int]
    of_key: Callable[[Point], int]

    def address(self, offset: int) -> Address:
        return Address(self.operand, offset, self.terms)

    def of(self, point: Mapping[str, int], key: Point) -> Address:
        """The address of one term."""
        return self.address(self.base + self.of_point(point) + self.of_key(key))


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
        self._tile_offsets: dict[str, dict[Point, int]] = {o.role: {} for o in nest.operands}

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

    def access(self, role: str, env: Environment) -> Access:
        """An operand that is not packed, at the terms of a body."""
        base, terms = self.base_address(role, env)
        map_ = self.nest.by_role[role].map

        def of_point(point: Mapping[str, int]) -> int:
            return sum([4 * map_.coefficient(d) * o for d, o in point.items()])

        return Access(self.index[role], base, terms, of_point, partial(self.tile_offset, role))

    def packed_access(self, env: Environment) -> Access:
        """The packed weights at the terms of a body."""
        layout = self.layout
        assert layout is not None
        offset, terms, filters = self.weight_base(env)
        if layout.bias:
            offset += 4 * filters
        size = layout.element_bytes
        all_terms = list(terms)
        for dim, stride in layout.rank_strides.items():
            position = env[dim]
            if position.terms and layout.positions[dim] is not None:
                raise ScheduleError("taps in a loop must be read in their natural order")
            offset += position.start * stride * filters * size
            all_terms += [(v, s * stride * filters * size) for v, s in position.terms]
        all_terms = summed(all_terms) if self.skewed else tuple(all_terms)
        if size == 2 and any(s % 4 for _, s in all_terms):
            raise ScheduleError("float16 weights need loops that advance by whole words")
        ranks = [(dim, stride, layout.positions[dim]) for dim, stride in layout.rank_strides.items()]

        def of_point(point: Mapping[str, int]) -> int:
            rank = 0
            for dim, stride, positions in ranks:
                rank += stride * (point[dim] if positions is None else positions[point[dim]])
            return rank * filters * size

        return Access(self.index["w"], offset, all_terms, of_point, self._block_offsets(env, size))

    def _block_offsets(self, env: Environment, size: int) -> Callable[[Point], int]:
        """Where in a block the element of a filter lies, from the first one's, in elements of `size` bytes."""
        layout, dims = self.layout, self.nest.parallel_dims
        assert layout is not None
        steps = {d: env[d].step for d in layout.tile}
        places = {d: dims.index(d) for d in layout.tile}
        return lambda key: size * layout.tile_index(steps, {d: key[i] for d, i in places.items()})

    def tile_offset(self, role: str, key: Point) -> int:
        """Bytes from an operand's element of a tile's first point to that of another point."""
        known = self._tile_offsets[role]
        if key not in known:
            map_ = self.nest.by_role[role].map
            known[key] = sum(4 * map_.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True))
        return known[key]

    def point_addresses(self, role: str, env: Environment, keys: Iterable[Point]) -> list[Address]:
        """Where the elements of an operand lie that belong to points of the tile."""
        base, terms = self.base_address(role, env)
        return [Address(self.index[role], base + self.tile_offset(role, key), terms) for key in keys]

    # -- loads

    def load_all(self, role: str, addresses: Iterable[Address], kind: str, multiple: bool = False) -> None:
        """Loads what is not loaded yet, in one chain, or by multiple loads; words where weights are of 16 bits."""
        half = role == "w" and self.layout is not None and self.layout.element_bytes == 2
        missing: list[Address] = []
        for address in addresses:
            word = Address(address.operand, address.offset & ~3, address.terms) if half else address
            if word not in self.cache:
                self.cache[word] = None
                missing.append(word)
        if multiple or role in self.schedule.multiple or self._one_run(role, missing):
            for first, count in runs(missing):
                values = self.b.load_multiple(first, count)
                for i, value in enumerate(values):
                    self.cache[Address(first.operand, first.offset + 4 * i, first.terms)] = value
        else:
            for address in missing:
                self.cache[address] = self.b.load(address, kind)

    def _one_run(self, role: str, addresses: Sequence[Address]) -> bool:
        """Whether one multiple load, with the pointer of a store, takes no longer than a chain of loads."""
        stored = role == "x" and self.nest.element_by_element and "out" in self.schedule.multiple
        return stored and len(addresses) > 1 and not self.bits and len(runs(addresses)) == 1

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

    # -- accumulators' first values

    def biases(self, env: Environment) -> Callable[[Point], Value]:
        """The bias of an accumulator, loaded once a tile; in front of its block when weights are packed."""
        if self.layout is None:
            place = self.access("bias", env)
            return lambda key: self.cached_load(place.address(place.base + place.of_key(key)))
        offset, terms, _ = self.weight_base(env)
        operand, within = self.index["w"], self._block_offsets(env, WORD)
        return lambda key: self.cached_load(Address(operand, offset + within(key), terms))

    def firsts(self, env: Environment) -> Callable[[Point], Value]:
        """What an accumulator holds that has no term yet."""
        return self.biases(env) if self.nest.has("bias") else lambda key: self._neutral()

    def _neutral(self) -> Value:
        if self.bits:
            return self.b.int_constant(0)
        name = ("initial", self.nest.initial)
        if name not in self.cache:
            self.cache[name] = self.b.constant(self.nest.initial)
        return self.cache[name]

    def start(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        """Gives accumulators that nothing has joined yet their first values."""
        missing = [key for key, value in accumulators.items() if value is None]
        if missing:
            first = self.firsts(env)
            accumulators.update([(key, first(key)) for key in missing])
