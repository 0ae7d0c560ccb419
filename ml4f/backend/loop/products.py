"""The innermost body of a tile: the terms of its reduction points, and how they join the accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from ml4f.backend.loop.builder import Address, Value
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.operands import Environment, Operands, Point

CONVERTED_FIRST = 2
"""float16 weights that are widened before the first product, which would wait for the conversion of a single one."""


class Products:
    """Loads, products and sums of one body after the other."""

    def __init__(self, operands: Operands):
        self.operands = operands
        self.b = operands.b
        self.nest: Nest = operands.nest
        self.schedule: Schedule = operands.schedule
        trim = self.schedule.trim
        self.trimmed = {i for i, g in enumerate(self.nest.guards) if trim and g.expr.mentions(trim[1])}

    def body(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        """The terms of all reduction points of the body, k-step by k-step."""
        operands = self.operands
        x_base, x_terms = operands.base_address("x", env)
        x_index, x_map = operands.index["x"], self.nest.by_role["x"].map
        parallel_offsets = [
            (key, sum(4 * x_map.coefficient(d) * o for d, o in zip(self.nest.parallel_dims, key, strict=True)))
            for key in accumulators
        ]
        weight = operands.weight_addressing(env) if operands.layout is not None else None
        if self.nest.has("v"):
            weight = operands.factor_addressing(env)
        for k_step in self._k_steps(env):
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
                operands.load_all(role, (a for a in addresses if a is not None), operands.kind)
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

    def all_exist(self, env: Environment, dim: str) -> bool:
        """Whether guards that mention a reduction dim hold in the whole tile: else there is no loop over its points."""
        for i, guard in enumerate(self.nest.guards):
            if i in self.trimmed or not guard.expr.mentions(dim):
                continue
            least = most = guard.expr.constant
            for d, coefficient in guard.expr.terms:
                start, step = (env[d].start, env[d].step) if d in self.nest.parallel_dims else (0, self.nest.extents[d])
                ends = coefficient * start, coefficient * (start + step - 1)
                least, most = least + min(ends), most + max(ends)
            if least < 0 or most >= guard.extent:
                return False
        return True

    def _chunk(
        self,
        env: Environment,
        terms: list[tuple[Point, Address, Address | None]],
        accumulators: dict[Point, Value],
    ) -> None:
        """Loads what the products of a chunk need in one chain, then the products."""
        operands = self.operands
        weights = list(dict.fromkeys(w for _, _, w in terms if w is not None))
        if operands.layout is not None and operands.layout.element_bytes == 2:
            for address in weights[:CONVERTED_FIRST]:
                if Address(address.operand, address.offset & ~3, address.terms) in operands.cache:
                    operands.weight(address)
        operands.load_all("x", (x for _, x, _ in terms), operands.kind)
        if weights:
            operands.load_all("w", weights, operands.kind)
            for address in weights[:CONVERTED_FIRST]:
                operands.weight(address)
        for key, x, w in terms:
            value = operands.cache[x] if w is None else self.b.fmul(operands.cache[x], operands.weight(w))
            self._accumulate(env, accumulators, key, value)

    def _accumulate(self, env: Environment, accumulators: dict[Point, Value], key: Point, value: Value) -> None:
        """Lets a term join its accumulator; the first one takes the place of the initial value."""
        previous = accumulators[key]
        if previous is None and self.nest.has("bias"):
            previous = self.operands.bias(env, key)
        if previous is None:
            accumulators[key] = value
        elif self.nest.combine == "max":
            accumulators[key] = self.b.imax(previous, value) if self.operands.bits else self.b.fmax(previous, value)
        elif self.nest.combine == "min":
            accumulators[key] = self.b.fmin(previous, value)
        elif self.nest.combine == "mul":
            accumulators[key] = self.b.fmul(previous, value)
        else:
            accumulators[key] = self.b.fadd(previous, value)
