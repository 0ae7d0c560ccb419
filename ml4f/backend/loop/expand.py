"""Expands a nest under its schedule into loops and unrolled operations.

Recursive descent over loops and segments. At the innermost level it enumerates the terms of the tile, drops those that
a guard excludes, emits a load for each address that is not loaded yet (that is what shares taps between pixels), then
the products (`products`), and behind them the epilogue. It is written against a `Builder`: one creates operations,
another one only prices them.
"""

from __future__ import annotations

from collections.abc import Hashable

from ml4f.backend.loop.builder import Address, Builder, ScheduleError, Terms, Value, runs
from ml4f.backend.loop.epilogue import Epilogue
from ml4f.backend.loop.nest import Nest, Schedule, steps_of
from ml4f.backend.loop.operands import Environment, Operands, Point, Position
from ml4f.backend.loop.packing import tile_points
from ml4f.backend.loop.products import Products
from ml4f.backend.loop.roll import expand_rolled


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
        self.bounds: tuple[Value, Value] | None = None

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
        backwards = dim in self.schedule.reverse
        numbered = list(enumerate(steps_of(segments)))
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
                self._load_bounds(position)
            if self.schedule.skew is not None and self.schedule.skew[0] == dim:
                self._skew(variable, step, backwards)
            self.parallel(level + 1, {**env, dim: position})
            if self.schedule.skew is not None and self.schedule.skew[0] == dim:
                self.operands.skewed = ()
            self.b.end_loop(())
            self.operands.cache = outer
        self.operands.resident = outer_resident

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
                self.operands.point_address(role, env, tuple(p.get(d, 0) for d in self.nest.parallel_dims))
                for p in tile_points(steps, list(steps))
            )
            kept, self.operands.cache = self.operands.cache, {}
            self.operands.load_all(role, addresses, "f32")
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

    def _load_bounds(self, position: Position) -> None:
        operand = self.operands.index["bounds"]
        terms = tuple((v, 2 * s) for v, s in position.terms)
        lower = self.b.load_byte(Address(operand, 2 * position.start, terms))
        count = self.b.load_byte(Address(operand, 2 * position.start + 1, terms))
        self.bounds = (lower, count)

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
        trim = self.schedule.trim is not None and self.schedule.trim[1] == dim and self.bounds is not None
        if trim:
            self._reduction_loop(level, env, accumulators, Position(0, 1, 0), None)
            return
        if max(count for _, count in segments) > 1 and not self.products.all_exist(env, dim):
            segments = ((self.nest.extents[dim], 1),)
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
        self.operands.start(env, accumulators)
        outer, self.operands.cache = self.operands.cache, {}
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
        self.operands.cache = outer
