"""Expands a nest under its schedule into loops and unrolled operations.

Recursive descent over loops and segments. At the innermost level it enumerates the terms of the tile, drops those that
a guard excludes, emits a load for each address that is not loaded yet (that is what shares taps between pixels), then
the products (`products`), and behind them the epilogue. It is written against a `Builder`: one creates operations,
another one only prices them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from ml4f.backend.loop.borders import BYTES_OF_BOUNDS, edge_taps, edges
from ml4f.backend.loop.builder import Address, Builder, ScheduleError, Terms, Value, runs
from ml4f.backend.loop.epilogue import Epilogue
from ml4f.backend.loop.nest import Nest, Schedule, Segments, steps_of
from ml4f.backend.loop.operands import Environment, Operands, Point, Position
from ml4f.backend.loop.packing import tile_points
from ml4f.backend.loop.products import Products
from ml4f.backend.loop.roll import expand_rolled
from ml4f.backend.loop.schedules import split_peeled

SHORTEST_RUN = 3
"""Neighbouring operands that stay in registers are loaded together if there are so many: at most a cycle in all."""


def expand(nest: Nest, schedule: Schedule, builder: Builder) -> None:
    """Emits the kernel's code. Raises `ScheduleError` where the schedule does not fit the nest."""
    Expansion(nest, schedule, builder).run()


class Expansion:
    """Loops over tiles, and the parts that a tile consists of."""

    def __init__(self, nest: Nest, schedule: Schedule, builder: Builder):
        self.nest = nest
        self.schedule = schedule
        self.b = builder
        self.operands = Operands(nest, schedule, builder)
        self.products = Products(self.operands)
        self.epilogue = Epilogue(self.operands)
        self.parallel_loops = [(d, s) for d, s in schedule.loops if d in nest.parallel_dims]
        self.reduction_loops = [(d, s) for d, s in schedule.loops if d in nest.reduction_dims]
        if schedule.edge is not None and edge_taps(nest, schedule.edge[0]) != schedule.edge[1]:
            raise ScheduleError("edges need taps that depend on the pixel alone")
        inner = [dims[1] for dims in (schedule.trim, schedule.edge) if dims is not None]
        self.edge_loops = sorted(self.reduction_loops, key=lambda loop: loop[0] not in inner)
        self.bounds: dict[str, tuple[Value, Value]] = {}
        """(first point, count) of loops over reduction dims, as far as they are read from the table."""

    def run(self) -> None:
        """The whole kernel."""
        self.epilogue.hoist_constants()
        if self.schedule.roll is not None:
            self.parallel_loops = [(d, s) for d, s in self.parallel_loops if d != self.schedule.roll[0]]
        self.parallel(0, {})

    def parallel(self, level: int, env: Environment) -> None:
        """The loops over tiles from `level` inwards."""
        if level == len(self.parallel_loops):
            if self.schedule.roll is not None:
                outer, self.operands.cache = self.operands.cache, {}
                expand_rolled(self, env)
                self.operands.cache = outer
            else:
                self.tile(env)
            return
        outer_resident = self.operands.resident
        self.operands.resident = self.operands.resident | self._resident(level, env)
        dim, segments = self.parallel_loops[level]
        if self.schedule.edge is not None and self.schedule.edge[0] == dim:
            self._with_edges(level, env)
            self.operands.resident = outer_resident
            return
        self._segments(level, env, list(enumerate(steps_of(segments))))
        self.operands.resident = outer_resident

    def _segments(self, level: int, env: Environment, numbered: Sequence[tuple[int, tuple[int, int, int]]]) -> None:
        """The tiles of some segments of a loop."""
        dim, _ = self.parallel_loops[level]
        backwards = dim in self.schedule.reverse
        for index, (start, step, count) in reversed(numbered) if backwards else numbered:
            if count == 1:
                self.parallel(level + 1, {**env, dim: Position(start, step, index)})
                continue
            outer, self.operands.cache = self.operands.cache, {}
            variable, _ = self.b.begin_loop(count, None, None, (), dim)
            position = Position(start, step, index, ((variable, step),))
            if backwards:
                position = Position(start + step * (count - 1), step, index, ((variable, -step),), count - 1)
            if self.schedule.trim is not None and self.schedule.trim[0] == dim:
                self._load_bounds(self.schedule.trim[1], position.start, position.terms)
            if self.schedule.skew is not None and self.schedule.skew[0] == dim:
                self._skew(variable, step, backwards)
            self.parallel(level + 1, {**env, dim: position})
            if self.schedule.skew is not None and self.schedule.skew[0] == dim:
                self.operands.skewed = ()
            self.b.end_loop(())
            self.operands.cache = outer

    def _with_edges(self, level: int, env: Environment) -> None:
        """The tiles in the middle, and the pixels at the edges: both edges in one loop if they are of one size."""
        dim, segments = self.parallel_loops[level]
        first, last = edges(self.nest, self.schedule)
        numbered = list(enumerate(steps_of(segments)))
        middle = numbered[1 if first else 0 : -1 if last else None]
        extent = self.nest.extents[dim]
        parts: list[Callable[[], None]] = [lambda: self._segments(level, env, middle)]
        if first == last:
            parts.insert(0, lambda: self._edge(level, env, 0, (extent - first, first), 0))
        else:
            if first:
                parts.insert(0, lambda: self._edge(level, env, 0, (0, first), 0))
            if last:
                parts.append(lambda: self._edge(level, env, extent - last, (0, last), first))
        for part in reversed(parts) if dim in self.schedule.reverse else parts:
            part()

    def _edge(self, level: int, env: Environment, start: int, sides: tuple[int, int], entry: int) -> None:
        """Single pixels at an edge, whose first bounds are number `entry`.

        `sides`: how far away the same pixels of the other edge lie (0: there are none), and the number of pixels.
        """
        assert self.schedule.edge is not None
        dim, inner = self.schedule.edge
        apart, count = sides
        backwards = dim in self.schedule.reverse
        loops = [(apart, count, 2)] if apart else []
        loops += [(1, 1, count)] if count > 1 else []
        outer, place, table = self.operands.cache, list[tuple[Value, int]](), list[tuple[Value, int]]()
        for stride, entries, trips in loops:
            self.operands.cache = {}
            variable, _ = self.b.begin_loop(trips, None, None, (), dim)
            sign = -1 if backwards else 1
            place.append((variable, sign * stride))
            table.append((variable, sign * entries))
            if backwards:
                start, entry = start + stride * (trips - 1), entry + entries * (trips - 1)
        guards, reductions, self.reduction_loops = self.products.guards, self.reduction_loops, self.edge_loops
        self._load_bounds(inner, self._first_entry(inner) + entry, tuple(table))
        self.products.guards = [g for g in guards if not g.expr.mentions(inner)]
        self.parallel(level + 1, {**env, dim: Position(start, 1, 0, tuple(place))})
        self.products.guards, self.reduction_loops = guards, reductions
        del self.bounds[inner]
        for _ in loops:
            self.b.end_loop(())
        self.operands.cache = outer

    def _first_entry(self, inner: str) -> int:
        """Where in the table the bounds of a dim begin."""
        trim = self.schedule.trim
        return self.nest.extents[trim[0]] if trim is not None and trim[1] != inner else 0

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
            points = [tuple(p.get(d, 0) for d in self.nest.parallel_dims) for p in tile_points(steps, list(steps))]
            addresses = self.operands.point_addresses(role, env, points)
            kept, self.operands.cache = self.operands.cache, {}
            together = all(count >= SHORTEST_RUN for _, count in runs(list(dict.fromkeys(addresses))))
            self.operands.load_all(role, addresses, "f32", together)
            loaded |= self.operands.cache
            self.operands.cache = kept
        return loaded

    def _skew(self, variable: Value, step: int, backwards: bool) -> None:
        assert self.schedule.skew is not None
        _, inner, slide = self.schedule.skew
        if self.operands.layout is not None and self.operands.layout.positions[inner] is not None:
            raise ScheduleError("skewed taps must be read in their natural order")
        if step != 1:
            raise ScheduleError("a skewed loop goes in steps of one")
        self.operands.skewed = ((variable, slide if backwards else -slide),)

    def _terms(self, dim: str, terms: Terms) -> Terms:
        """The terms of a reduction dim's position."""
        skew = self.schedule.skew
        return (*terms, *self.operands.skewed) if skew is not None and skew[1] == dim else terms

    def _load_bounds(self, inner: str, entry: int, terms: Terms) -> None:
        """Loads an entry of the table: `entry` and as many further on as `terms` say."""
        operand = self.operands.index["bounds"]
        strides = tuple((v, BYTES_OF_BOUNDS * s) for v, s in terms)
        lower = self.b.load_byte(Address(operand, BYTES_OF_BOUNDS * entry, strides))
        count = self.b.load_byte(Address(operand, BYTES_OF_BOUNDS * entry + 1, strides))
        self.bounds[inner] = (lower, count)

    def tile(self, env: Environment) -> None:
        """One tile: its accumulators through all reduction loops, then the epilogue."""
        accumulators: dict[Point, Value] = dict.fromkeys(self.tile_points(env))
        outer = self.operands.cache
        self.operands.cache = dict(outer)
        for part in self._parts(env, accumulators):
            self.reduce(0, env, part)
            self.epilogue.run(env, part)
        self.operands.cache = outer

    def _parts(self, env: Environment, accumulators: dict[Point, Value]) -> list[dict[Point, Value]]:
        """The accumulators that are alive together: all, or, where nothing is accumulated, those of a few results."""
        if self.nest.combine != "copy":
            return [accumulators]
        by_address = self.epilogue.groups(env, accumulators)
        groups = list(by_address.values())
        run = runs(list(by_address))[0][1]
        size = self.schedule.vector
        size -= size % run if size > run else 0
        return [
            dict.fromkeys(key for members in groups[i : i + size] for key in members)
            for i in range(0, len(groups), size)
        ]

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
        """The loops over reduction dims from `level` inwards, which carry the accumulators."""
        if level == len(self.reduction_loops):
            self.products.body(env, accumulators)
            return
        dim, segments = self.reduction_loops[level]
        if dim in self.bounds:
            self._reduction_loop(level, env, accumulators, Position(0, 1, 0), None)
            return
        first = 0
        if max(count for _, count in segments) > 1 and not self.products.all_exist(env, dim):
            first, segments = self._bordered(env, dim, segments)
        for index, (offset, step, count) in enumerate(steps_of(segments)):
            start = first + offset
            if count == 1:
                position = Position(start, step, index, self._terms(dim, ()))
                self.reduce(level + 1, {**env, dim: position}, accumulators)
            else:
                self._reduction_loop(level, env, accumulators, Position(start, step, index), count)

    def _bordered(self, env: Environment, dim: str, segments: Segments) -> tuple[int, Segments]:
        """(first point, segments) of a reduction dim in a tile that lacks terms.

        Packed weights lie in the order of all points, which then have no loop.
        """
        points = self.products.common_points(env, dim)
        if points is None or self.nest.combine == "mac":
            return 0, ((self.nest.extents[dim], 1),)
        step = max(step for step, _ in segments)
        return points.start, split_peeled(len(points), step) if points else ()

    def _reduction_loop(
        self, level: int, env: Environment, accumulators: dict[Point, Value], position: Position, count: int | None
    ) -> None:
        dim = self.reduction_loops[level][0]
        self.operands.start(env, accumulators)
        outer, self.operands.cache = self.operands.cache, {}
        keys = list(accumulators)
        lower, trip_count = (None, None) if count is not None else self.bounds[dim]
        inits = [accumulators[k] for k in keys]
        variable, carried = self.b.begin_loop(count, trip_count, lower, inits, dim)
        inner = dict(zip(keys, carried, strict=True))
        terms = self._terms(dim, ((variable, position.step),))
        here = Position(position.start, position.step, position.segment, terms)
        self.reduce(level + 1, {**env, dim: here}, inner)
        results = self.b.end_loop([inner[k] for k in keys])
        accumulators.update(zip(keys, results, strict=True))
        self.operands.cache = outer
