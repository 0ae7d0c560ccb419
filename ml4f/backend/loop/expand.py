"""Expands a nest under its schedule into loops and unrolled operations.

Recursive descent over loops and segments. At the innermost level it enumerates the terms of the tile, drops those that
a guard excludes, emits a load for each address that is not loaded yet (that is what shares taps between pixels), then
the products. It is written against a `Builder`: one creates operations, another one only prices them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, Protocol

from ml4f.backend.loop.elementary import ACTIVATIONS, Emitter, prelu, where
from ml4f.backend.loop.nest import Nest, Schedule, Step, steps_of
from ml4f.backend.loop.packing import WeightLayout, tile_points, weight_layout
from ml4f.backend.loop.roll import expand_rolled

Value = Any
"""A value of the builder: an SSA value, or whatever a pricing builder uses."""

Terms = tuple[tuple[Any, int], ...]
"""((induction variable, stride), …)."""


class Address(NamedTuple):
    """Bytes from the pointer of operand `operand`: `offset + sum(stride * variable)`."""

    operand: int
    offset: int
    terms: Terms


class Builder(Emitter, Protocol):
    """What expansion needs beyond the elementary operations."""

    def load(self, address: Address, kind: str) -> Value: ...
    def load_byte(self, address: Address) -> Value: ...
    def load_multiple(self, address: Address, count: int) -> Sequence[Value]: ...
    def store(self, address: Address, value: Value) -> None: ...
    def store_multiple(self, address: Address, values: Sequence[Value]) -> None: ...
    def begin_loop(
        self, count: int | None, trip_count: Value, lower: Value, inits: Sequence[Value], label: str
    ) -> tuple[Value, Sequence[Value]]: ...
    def end_loop(self, yields: Sequence[Value]) -> Sequence[Value]: ...
    def fmax(self, a: Value, b: Value) -> Value: ...
    def fmin(self, a: Value, b: Value) -> Value: ...
    def imax(self, a: Value, b: Value) -> Value: ...
    def relu_bits(self, a: Value) -> Value: ...
    def bits_pair(self, a: Value, b: Value) -> tuple[Value, Value]: ...
    def half_low(self, a: Value) -> Value: ...
    def half_high(self, a: Value) -> Value: ...


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


CONVERTED_FIRST = 2
"""float16 weights that are widened before the first product, which would wait for the conversion of a single one."""
SINK_CHUNK = 6
"""Weights of a dense layer that consumes results which are loaded together."""

Environment = dict[str, Position]
Point = tuple[int, ...]


class ScheduleError(Exception):
    """The schedule cannot execute the nest; the message says why."""


class Interleaved:
    """An emitter over tuples of values: each operation is emitted for every element in turn."""

    def __init__(self, builder: Builder, width: int, constants: dict[float, Value] | None):
        self._builder = builder
        self._width = width
        self._constants = constants

    def constant(self, x: float) -> Any:
        if self._constants is not None:
            if x not in self._constants:
                self._constants[x] = self._builder.constant(x)
            return (self._constants[x],) * self._width
        return (self._builder.constant(x),) * self._width

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._builder, name)

        def emit(*args: Any) -> Any:
            return tuple(method(*(a[i] if isinstance(a, tuple) else a for a in args)) for i in range(self._width))

        return emit


def keeps_bits(nest: Nest) -> bool:
    """Whether the kernel never computes with floats, so that values can stay in core registers."""
    steps = [s for s in nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
    if nest.initial not in (0.0, float("-inf")) or not all(_is_relu(s) or s.kind == "pool_max" for s in steps):
        return False
    if nest.combine == "max":
        # Bit patterns order as integers but for negative numbers, all of which a relu makes 0.
        return nest.nonnegative or any(_is_relu(s) for s in steps)
    pools = any(s.kind == "pool_max" for s in steps)
    return nest.combine == "copy" and (not pools or nest.nonnegative or _is_relu(steps[-1]))


def expand(nest: Nest, schedule: Schedule, builder: Builder) -> None:
    """Emits the kernel's code. Raises `ScheduleError` where the schedule does not fit the nest."""
    _Expansion(nest, schedule, builder).run()


class _Expansion:
    def __init__(self, nest: Nest, schedule: Schedule, builder: Builder):
        self.nest = nest
        self.schedule = schedule
        self.b = builder
        self.parallel_loops = [(d, s) for d, s in schedule.loops if d in nest.parallel_dims]
        self.reduction_loops = [(d, s) for d, s in schedule.loops if d in nest.reduction_dims]
        self.layout: WeightLayout | None = weight_layout(nest, schedule) if nest.has("w") else None
        self.bits = keeps_bits(nest)
        self.cache: dict[Hashable, Value] = {}
        self.resident: dict[Hashable, Value] = {}
        self.constants: dict[float, Value] | None = {} if schedule.hoist else None
        self.bounds: tuple[Value, Value] | None = None
        self.skewed: Terms = ()
        """How the points of the skewed reduction dim change with the loop around."""
        self.operand_index = {o.role: i for i, o in enumerate(nest.operands)}
        self.trimmed = {i for i, g in enumerate(nest.guards) if schedule.trim and g.expr.mentions(schedule.trim[1])}

    def run(self) -> None:
        if self.constants is not None:
            self._hoist_constants()
        if self.schedule.roll is not None:
            self.parallel_loops = [(d, s) for d, s in self.parallel_loops if d != self.schedule.roll[0]]
        self.parallel(0, {})

    def _hoist_constants(self) -> None:
        """Emits the constants of the epilogue's functions before all loops, in order of first use."""
        from ml4f.backend.loop.pricing import constants_of

        assert self.constants is not None
        for x in constants_of(self.nest):
            self.constants[x] = self.b.constant(x)

    # -- loops

    def parallel(self, level: int, env: Environment) -> None:
        if level == len(self.parallel_loops):
            if self.schedule.roll is not None:
                outer, self.cache = self.cache, {}
                expand_rolled(self, env)
                self.cache = outer
            else:
                self.tile(env)
            return
        outer_resident = self.resident
        self.resident = self.resident | self._resident(level, env)
        dim, segments = self.parallel_loops[level]
        backwards = dim in self.schedule.reverse
        numbered = list(enumerate(steps_of(segments)))
        for index, (start, step, count) in reversed(numbered) if backwards else numbered:
            if count == 1:
                self.parallel(level + 1, {**env, dim: Position(start, step, index)})
                continue
            outer, self.cache = self.cache, {}
            variable, _ = self.b.begin_loop(count, None, None, (), dim)
            position = Position(start, step, index, ((variable, step),))
            if backwards:
                position = Position(start + step * (count - 1), step, index, ((variable, -step),), count - 1)
            if self.schedule.trim is not None and self.schedule.trim[0] == dim:
                self._load_bounds(position)
            if self.schedule.skew is not None and self.schedule.skew[0] == dim:
                self._skew(variable, step, backwards)
            self.parallel(level + 1, {**env, dim: position})
            self.skewed = () if self.schedule.skew is not None and self.schedule.skew[0] == dim else self.skewed
            self.b.end_loop(())
            self.cache = outer
        self.resident = outer_resident

    def _resident(self, level: int, env: Environment) -> dict[Hashable, Value]:
        """Loads what stays the same in the loops from `level` on and changes in the loop around them."""
        loaded: dict[Hashable, Value] = {}
        inside = {d for d, _ in self.parallel_loops[level:]}
        around = self.parallel_loops[level - 1][0] if level else None
        for role in self.schedule.resident:
            map_ = self.nest.by_role[role].map
            if any(map_.mentions(d) for d in inside) or (around is not None and not map_.mentions(around)):
                continue
            steps = {d: env[d].step for d, _ in map_.terms}
            addresses = dict.fromkeys(
                self._point_address(role, env, tuple(p.get(d, 0) for d in self.nest.parallel_dims))
                for p in tile_points(steps, list(steps))
            )
            kept, self.cache = self.cache, {}
            self.load_all(role, addresses, "f32")
            loaded |= self.cache
            self.cache = kept
        return loaded

    def _skew(self, variable: Value, step: int, backwards: bool) -> None:
        assert self.schedule.skew is not None
        _, inner, slide = self.schedule.skew
        if self.layout is not None and self.layout.positions[inner] is not None:
            raise ScheduleError("skewed taps must be read in their natural order")
        if step != 1:
            raise ScheduleError("a skewed loop goes in steps of one")
        self.skewed = ((variable, slide if backwards else -slide),)

    def _terms(self, dim: str, terms: Terms) -> Terms:
        """The terms of a reduction dim's position."""
        return (*terms, *self.skewed) if self.schedule.skew is not None and self.schedule.skew[1] == dim else terms

    def _load_bounds(self, position: Position) -> None:
        operand = self.operand_index["bounds"]
        terms = tuple((v, 2 * s) for v, s in position.terms)
        lower = self.b.load_byte(Address(operand, 2 * position.start, terms))
        count = self.b.load_byte(Address(operand, 2 * position.start + 1, terms))
        self.bounds = (lower, count)

    def tile(self, env: Environment) -> None:
        """One tile: its accumulators through all reduction loops, then the epilogue."""
        accumulators: dict[Point, Value] = dict.fromkeys(self.tile_points(env))
        outer = self.cache
        self.cache = dict(outer)
        for part in self._parts(env, accumulators):
            self.reduce(0, env, part)
            self.epilogue(env, part)
        self.cache = outer

    def _parts(self, env: Environment, accumulators: dict[Point, Value]) -> list[dict[Point, Value]]:
        """The accumulators that are alive together: all, or, where nothing is accumulated, those of a few results."""
        if self.nest.combine != "copy":
            return [accumulators]
        by_address = self._groups(env, accumulators)
        groups = list(by_address.values())
        run = _runs(list(by_address))[0][1]
        size = self.schedule.vector
        size -= size % run if size > run else 0
        return [
            dict.fromkeys(key for members in groups[i : i + size] for key in members)
            for i in range(0, len(groups), size)
        ]

    def _groups(self, env: Environment, keys: Iterable[Point]) -> dict[Address, list[Point]]:
        """The points of the tile by the address of their result."""
        groups: dict[Address, list[Point]] = {}
        for key in keys:
            groups.setdefault(self._point_address(self.nest.result_role, env, key), []).append(key)
        return groups

    def tile_points(self, env: Environment) -> list[Point]:
        """The accumulators' offsets in the tile, in the schedule's order."""
        dims = self.nest.parallel_dims
        steps = {d: env[d].step for d in dims}
        if any(steps[d] != self.nest.extents[d] for d in self.nest.window_dims):
            raise ScheduleError("a tile must hold what is pooled as a whole")
        order = [d for d in dims if d not in self.schedule.tile] + list(self.schedule.tile)
        points = tile_points(steps, order)
        for guard in self.nest.pool_guards:
            start = guard.expr({d: env[d].start for d in dims}) - guard.expr.constant
            points = [p for p in points if 0 <= start + guard.expr(p) < guard.extent]
        return [tuple(p[d] for d in dims) for p in points]

    def reduce(self, level: int, env: Environment, accumulators: dict[Point, Value]) -> None:
        if level == len(self.reduction_loops):
            self.body(env, accumulators)
            return
        dim, segments = self.reduction_loops[level]
        trim = self.schedule.trim is not None and self.schedule.trim[1] == dim and self.bounds is not None
        if trim:
            self._reduction_loop(level, env, accumulators, Position(0, 1, 0), None)
            return
        for index, (start, step, count) in enumerate(steps_of(segments)):
            if count == 1:
                position = Position(start, step, index, self._terms(dim, ()))
                self.reduce(level + 1, {**env, dim: position}, accumulators)
            else:
                self._reduction_loop(level, env, accumulators, Position(start, step, index), count)

    def _reduction_loop(
        self, level: int, env: Environment, accumulators: dict[Point, Value], position: Position, count: int | None
    ) -> None:
        dim = self.reduction_loops[level][0]
        self._start_accumulators(env, accumulators)
        outer, self.cache = self.cache, {}
        keys = list(accumulators)
        lower, trip_count = (None, None) if count is not None or self.bounds is None else self.bounds
        inits = [accumulators[k] for k in keys]
        variable, carried = self.b.begin_loop(count, trip_count, lower, inits, dim)
        inner = dict(zip(keys, carried, strict=True))
        terms = self._terms(dim, ((variable, position.step),))
        here = Position(position.start, position.step, position.segment, terms)
        self.reduce(level + 1, {**env, dim: here}, inner)
        results = self.b.end_loop([inner[k] for k in keys])
        accumulators.update(zip(keys, results, strict=True))
        self.cache = outer

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
        return 4 * offset, _summed(terms) if self.skewed else tuple(terms)

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

    # -- the innermost body

    def body(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        steps = self._k_steps(env)
        x_base, x_terms = self.base_address("x", env)
        x_index, x_map = self.operand_index["x"], self.nest.by_role["x"].map
        parallel_offsets = [
            (key, sum(4 * x_map.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True)))
            for key in accumulators
        ]
        weight = self.weight_addressing(env) if self.layout is not None else None
        if self.nest.has("v"):
            weight = self.factor_addressing(env)
        for k_step in steps:
            terms: list[tuple[Point, Address, Address | None]] = []
            for point in k_step:
                x_point = x_base + sum(4 * x_map.coefficient(d) * o for d, o in point.items())
                for key, x_offset in parallel_offsets:
                    if not self.exists(env, point, key):
                        continue
                    x = Address(x_index, x_point + x_offset, x_terms)
                    terms.append((key, x, weight(point, key) if weight is not None else None))
            for role in self.schedule.early:
                addresses = (x if role == "x" else w for _, x, w in terms)
                self.load_all(role, (a for a in addresses if a is not None), "i32" if self.bits else "f32")
            chunks = -(-len(terms) // (self.schedule.chunk or max(len(terms), 1)))
            for i in range(chunks):
                part = terms[i * len(terms) // chunks : (i + 1) * len(terms) // chunks]
                self._chunk(env, part, accumulators)

    def _k_steps(self, env: Environment) -> list[list[dict[str, int]]]:
        """The body's reduction points, grouped into k-steps."""
        points = self.reduction_points(env)
        size = self.schedule.points or max(len(points), 1)
        return [points[i : i + size] for i in range(0, len(points), size)]

    def reduction_points(self, env: Environment) -> list[dict[str, int]]:
        """The body's reduction points as offsets in the tile, in reading order."""
        dims = list(self.schedule.unroll)
        dims = [d for d in self.nest.reduction_dims if d not in dims] + dims
        ranges: list[Sequence[int]] = []
        for d in dims:
            step = env[d].step
            explicit = self.schedule.explicit_order.get(d)
            ranges.append(explicit if explicit is not None and len(explicit) == step else range(step))
        return [dict(zip(dims, values, strict=True)) for values in product(*ranges)]

    def x_address(self, env: Environment, point: dict[str, int], key: Point) -> Address:
        """Where the input of one term lies."""
        base, terms = self.base_address("x", env)
        map_ = self.nest.by_role["x"].map
        base += sum(4 * map_.coefficient(d) * o for d, o in point.items())
        base += sum(4 * map_.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True))
        return Address(self.operand_index["x"], base, terms)

    def exists(self, env: Environment, point: dict[str, int], key: Point, ignore: str | None = None) -> bool:
        """Whether all guards (but those that mention `ignore`) hold for this term, in all iterations of the segment."""
        for i, guard in enumerate(self.nest.guards):
            if i in self.trimmed or (ignore is not None and guard.expr.mentions(ignore)):
                continue
            value = guard.expr.constant
            for dim, coefficient in guard.expr.terms:
                offset = point[dim] if dim in point else key[self.nest.parallel_dims.index(dim)]
                value += coefficient * (env[dim].start + offset)
            if not 0 <= value < guard.extent:
                return False
        return True

    def weight_addressing(self, env: Environment) -> Callable[[dict[str, int], Point], Address]:
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
        all_terms = list(_summed(all_terms)) if self.skewed else all_terms
        if size == 2 and any(s % 4 for _, s in all_terms):
            raise ScheduleError("float16 weights need loops that advance by whole words")
        steps = {d: env[d].step for d in layout.tile}
        frozen, operand = tuple(all_terms), self.operand_index["w"]
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
        map_, operand, dims = self.nest.by_role["v"].map, self.operand_index["v"], self.nest.parallel_dims

        def address(point: dict[str, int], key: Point) -> Address:
            offset = base + sum(4 * map_.coefficient(d) * o for d, o in point.items())
            offset += sum(4 * map_.coefficient(d) * o for d, o in zip(dims, key, strict=True))
            return Address(operand, offset, terms)

        return address

    def _chunk(
        self,
        env: Environment,
        terms: list[tuple[Point, Address, Address | None]],
        accumulators: dict[Point, Value],
    ) -> None:
        kind = "i32" if self.bits else "f32"
        weights = list(dict.fromkeys(w for _, _, w in terms if w is not None))
        if self.layout is not None and self.layout.element_bytes == 2:
            for address in weights[:CONVERTED_FIRST]:
                if Address(address.operand, address.offset & ~3, address.terms) in self.cache:
                    self.weight(address)
        self.load_all("x", (x for _, x, _ in terms), kind)
        if weights:
            self.load_all("w", weights, kind)
            for address in weights[:CONVERTED_FIRST]:
                self.weight(address)
        for key, x, w in terms:
            value = self.cache[x] if w is None else self.b.fmul(self.cache[x], self.weight(w))
            self._accumulate(env, accumulators, key, value)

    def load_all(self, role: str, addresses: Iterable[Address], kind: str) -> None:
        half = role == "w" and self.layout is not None and self.layout.element_bytes == 2
        missing: list[Address] = []
        for address in addresses:
            word = Address(address.operand, address.offset & ~3, address.terms) if half else address
            if word not in self.cache:
                self.cache[word] = None
                missing.append(word)
        if role in self.schedule.multiple:
            for first, count in _runs(missing):
                values = self.b.load_multiple(first, count)
                for i, value in enumerate(values):
                    self.cache[Address(first.operand, first.offset + 4 * i, first.terms)] = value
        else:
            for address in missing:
                self.cache[address] = self.b.load(address, kind)

    def weight(self, address: Address) -> Value:
        if self.layout is None or self.layout.element_bytes == 4:
            return self.cache[address]
        key = ("half", address)
        if key not in self.cache:
            word = self.cache[Address(address.operand, address.offset & ~3, address.terms)]
            self.cache[key] = self.b.half_high(word) if address.offset & 2 else self.b.half_low(word)
        return self.cache[key]

    def _accumulate(self, env: Environment, accumulators: dict[Point, Value], key: Point, value: Value) -> None:
        previous = accumulators[key]
        if previous is None and self.nest.has("bias"):
            previous = self.bias(env, key)
        if previous is None:
            accumulators[key] = value
        elif self.nest.combine == "max":
            accumulators[key] = self.b.imax(previous, value) if self.bits else self.b.fmax(previous, value)
        elif self.nest.combine == "min":
            accumulators[key] = self.b.fmin(previous, value)
        elif self.nest.combine == "mul":
            accumulators[key] = self.b.fmul(previous, value)
        else:
            accumulators[key] = self.b.fadd(previous, value)

    # -- accumulators' first values

    def bias(self, env: Environment, key: Point) -> Value:
        """The bias of an accumulator, loaded once a tile; in front of its block when weights are packed."""
        dims = self.nest.parallel_dims
        if self.layout is not None:
            offset, terms, _ = self.weight_base(env)
            steps = {d: env[d].step for d in self.layout.tile}
            index = self.layout.tile_index(steps, {d: key[dims.index(d)] for d in self.layout.tile})
            return self._cached_load(Address(self.operand_index["w"], offset + 4 * index, terms))
        return self._operand("bias", env, key)

    def _cached_load(self, address: Address, kind: str = "f32") -> Value:
        if address in self.resident:
            return self.resident[address]
        if address not in self.cache:
            self.cache[address] = self.b.load(address, kind)
        return self.cache[address]

    def _operand(self, role: str, env: Environment, key: Point) -> Value:
        return self._cached_load(self._point_address(role, env, key))

    def _point_address(self, role: str, env: Environment, key: Point) -> Address:
        base, terms = self.base_address(role, env)
        map_ = self.nest.by_role[role].map
        offset = base + sum(4 * map_.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True))
        return Address(self.operand_index[role], offset, terms)

    def _start_accumulators(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        for key, value in accumulators.items():
            if value is None:
                accumulators[key] = self.initial(env, key)

    def initial(self, env: Environment, key: Point) -> Value:
        if self.nest.has("bias"):
            return self.bias(env, key)
        if self.bits:
            return self.b.int_constant(0)
        name = ("initial", self.nest.initial)
        if name not in self.cache:
            self.cache[name] = self.b.constant(self.nest.initial)
        return self.cache[name]

    # -- epilogue

    def epilogue(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        self._start_accumulators(env, accumulators)
        batches = list(self._groups(env, accumulators).items())
        results: dict[Address, Value] = {}
        for i in range(0, len(batches), self.schedule.vector):
            results |= self._finish(env, batches[i : i + self.schedule.vector], accumulators)
        if self.nest.sink is not None:
            self._consume(results)

    def _consume(self, results: dict[Address, Value]) -> None:
        """The dense layer behind a tile's results: for each of its outputs, what these results add to it."""
        assert self.nest.sink is not None
        variable, _ = self.b.begin_loop(int(self.nest.sink.parameters[0]), None, None, (), "j")
        along = ((variable, 4),)
        out = self.nest.by_role["out"].map.constant
        target = Address(self.operand_index["out"], 4 * out, along)
        total = self.b.load(target, "f32")
        pending = list(results.items())
        for i in range(0, len(pending), SINK_CHUNK):
            part = pending[i : i + SINK_CHUNK]
            weights = [self.b.load(Address(a.operand, a.offset, (*a.terms, *along)), "f32") for a, _ in part]
            for weight, (_, value) in zip(weights, part, strict=True):
                total = self.b.fadd(total, self.b.fmul(weight, value))
        self.b.store(target, total)
        self.b.end_loop(())

    def _finish(
        self, env: Environment, batch: list[tuple[Address, list[Point]]], accumulators: dict[Point, Value]
    ) -> dict[Address, Value]:
        """Carries a few output elements through all steps together, then stores them unless a dense layer follows."""
        keys = [members for _, members in batch]
        values: list[list[Value]] = [[accumulators[k] for k in members] for members in keys]
        bits = self.bits
        steps = [s for s in self.nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
        for i, step in enumerate(steps):
            last = i == len(steps) - 1
            if step.kind == "dense":
                break
            if step.kind == "pool_max":
                # Bit patterns order as integers but for negative numbers, all of which the relu makes 0.
                as_bits = bits or (not last and _is_relu(steps[i + 1]))
                values = [[self._maximum(group, bits, as_bits)] for group in values]
                bits = as_bits
            elif step.kind == "pool_sum":
                values = [[_fold(self.b.fadd, group)] for group in values]
            elif _is_relu(step):
                values = self._relu(values, bits, last)
                bits = last
            else:
                if bits:
                    values = [[self.b.from_bits(v) for v in group] for group in values]
                    bits = False
                values = self._apply(step, env, keys, values)
            if step.kind.startswith("pool_"):
                keys = [members[:1] for members in keys]
        results = {address: group[0] for (address, _), group in zip(batch, values, strict=True)}
        if self.nest.sink is not None:
            return results
        if "out" in self.schedule.multiple and not bits:
            for first, count in _runs(sorted(results, key=lambda a: (a.terms, a.offset))):
                run = [Address(first.operand, first.offset + 4 * i, first.terms) for i in range(count)]
                self.b.store_multiple(first, [results[a] for a in run])
            return results
        for address, value in results.items():
            self.b.store(address, value)
        return results

    def _maximum(self, group: list[Value], bits: bool, as_bits: bool) -> Value:
        """The largest value of a group; in core registers two at a time, so that few are needed."""
        if not as_bits or bits:
            return _fold(self.b.imax if bits else self.b.fmax, group)
        result: Value = None
        for i in range(0, len(group), 2):
            part = _fold(self.b.imax, self._to_bits(group[i : i + 2]))
            result = part if result is None else self.b.imax(result, part)
        return result

    def _relu(self, values: list[list[Value]], bits: bool, last: bool) -> list[list[Value]]:
        """The values, as bit patterns if nothing but the store follows."""
        flat = [v for group in values for v in group]
        if last:
            flat = flat if bits else self._to_bits(flat)
            return _regroup([self.b.relu_bits(v) for v in flat], values)
        out: list[Value] = []
        for i in range(0, len(flat), 2):
            pair = flat[i : i + 2] if bits else self._to_bits(flat[i : i + 2])
            pair = [self.b.relu_bits(v) for v in pair]
            out += [self.b.from_bits(v) for v in pair]
        return _regroup(out, values)

    def _to_bits(self, values: Sequence[Value]) -> list[Value]:
        out: list[Value] = []
        for i in range(0, len(values) - 1, 2):
            out += self.b.bits_pair(values[i], values[i + 1])
        if len(values) % 2:
            out.append(self.b.bits(values[-1]))
        return out

    def _apply(
        self, step: Step, env: Environment, keys: list[list[Point]], values: list[list[Value]]
    ) -> list[list[Value]]:
        flat = tuple(v for group in values for v in group)
        lanes = Interleaved(self.b, len(flat), self.constants)
        if step.kind == "activation":
            return _regroup(ACTIVATIONS[step.name].emit(lanes, flat, *step.parameters), values)
        if step.role is not None:
            points = [k for members in keys for k in members]
            if step.role in self.schedule.multiple:
                addresses = (self._point_address(step.role, env, k) for k in points)
                self.load_all(step.role, [a for a in addresses if a not in self.resident], "f32")
            other = tuple(self._operand(step.role, env, k) for k in points)
        else:
            other = lanes.constant(step.parameters[0])
        return _regroup(_BINARY_STEPS[step.kind](lanes, flat, other), values)


_BINARY_STEPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mul": lambda e, a, b: e.fmul(a, b),
    "add": lambda e, a, b: e.fadd(a, b),
    "sub": lambda e, a, b: e.fsub(a, b),
    "rsub": lambda e, a, b: e.fsub(b, a),
    "div": lambda e, a, b: e.fdiv(a, b),
    "rdiv": lambda e, a, b: e.fdiv(b, a),
    "max": lambda e, a, b: e.fmax(a, b),
    "min": lambda e, a, b: e.fmin(a, b),
    "prelu": prelu,
    "where": where,
}


def _summed(terms: Iterable[tuple[Any, int]]) -> Terms:
    """One term for each variable, none with stride 0."""
    strides: list[tuple[Any, int]] = []
    for variable, stride in terms:
        for i, (other, known) in enumerate(strides):
            if other is variable:
                strides[i] = (other, known + stride)
                break
        else:
            strides.append((variable, stride))
    return tuple(t for t in strides if t[1])


def _is_relu(step: Step) -> bool:
    return step.kind == "activation" and step.name == "relu"


def _fold(combine: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    result = values[0]
    for value in values[1:]:
        result = combine(result, value)
    return result


def _regroup(flat: Sequence[Value], like: list[list[Value]]) -> list[list[Value]]:
    out, i = [], 0
    for group in like:
        out.append(list(flat[i : i + len(group)]))
        i += len(group)
    return out


def _runs(addresses: Sequence[Address]) -> list[tuple[Address, int]]:
    """Maximal runs of consecutive words, at most 16 each, in the given order."""
    runs: list[tuple[Address, int]] = []
    for address in addresses:
        if runs:
            first, count = runs[-1]
            if address.terms == first.terms and address.offset == first.offset + 4 * count and count < 16:
                runs[-1] = (first, count + 1)
                continue
        runs.append((address, 1))
    return runs
