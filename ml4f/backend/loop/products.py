"""The innermost body of a tile: the terms of its reduction points, and how they join the accumulators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from ml4f.backend.loop.builder import Address, Value
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.operands import Access, Environment, Operands, Point

CONVERTED_FIRST = 2
"""float16 weights that are widened before the first product, which would wait for the conversion of a single one."""

Term = tuple[Point, int, int]
"""(accumulator, offset of the input, offset of the weight)."""


class Products:
    """Loads, products and sums of one body after the other."""

    def __init__(self, operands: Operands):
        self.operands = operands
        self.b = operands.b
        self.nest: Nest = operands.nest
        self.schedule: Schedule = operands.schedule
        trim = self.schedule.trim
        self.guards = [g for g in self.nest.guards if not (trim and g.expr.mentions(trim[1]))]
        """Those that are not left to the bounds of a loop."""
        joins = {"max": self.b.imax if operands.bits else self.b.fmax, "min": self.b.fmin, "mul": self.b.fmul}
        self.join: Callable[[Value, Value], Value] = joins.get(self.nest.combine, self.b.fadd)

    def body(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        """The terms of all reduction points of the body, k-step by k-step."""
        operands = self.operands
        x = operands.access("x", env)
        w = operands.packed_access(env) if operands.layout is not None else None
        if self.nest.has("v"):
            w = operands.access("v", env)
        placed = [(key, x.of_key(key), w.of_key(key) if w is not None else 0) for key in accumulators]
        for k_step in self._k_steps(env):
            terms: list[Term] = []
            for point in k_step:
                x_point = x.base + x.of_point(point)
                w_point = w.base + w.of_point(point) if w is not None else 0
                here = [p for p in placed if self.exists(env, point, p[0])] if self.guards else placed
                terms += [(key, x_point + x_offset, w_point + w_offset) for key, x_offset, w_offset in here]
            for role in self.schedule.early:
                if role == "x":
                    operands.load_all(role, map(x.address, _distinct(t[1] for t in terms)), operands.kind)
                elif w is not None:
                    operands.load_all(role, map(w.address, _distinct(t[2] for t in terms)), operands.kind)
            chunks = -(-len(terms) // (self.schedule.chunk or max(len(terms), 1)))
            for i in range(chunks):
                part = terms[i * len(terms) // chunks : (i + 1) * len(terms) // chunks]
                self._chunk(env, part, x, w, accumulators)

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
        for guard in self.guards:
            if ignore is not None and guard.expr.mentions(ignore):
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
        for guard in self.guards:
            if not guard.expr.mentions(dim):
                continue
            least = most = guard.expr.constant
            for d, coefficient in guard.expr.terms:
                start, step = (env[d].start, env[d].step) if d in self.nest.parallel_dims else (0, self.nest.extents[d])
                ends = coefficient * start, coefficient * (start + step - 1)
                least, most = least + min(ends), most + max(ends)
            if least < 0 or most >= guard.extent:
                return False
        return True

    def common_points(self, env: Environment, dim: str) -> range | None:
        """The points of a reduction dim that exist, if they are the same for every accumulator and other point."""
        points = range(self.nest.extents[dim])
        for guard in self.guards:
            if not guard.expr.mentions(dim):
                continue
            value, step = guard.expr.constant, guard.expr.coefficient(dim)
            for d, coefficient in guard.expr.terms:
                if d == dim:
                    continue
                if d not in self.nest.parallel_dims or env[d].step > 1 or step <= 0:
                    return None
                value += coefficient * env[d].start
            first, end = -(value // step), -((value - guard.extent) // step)
            points = range(max(points.start, first), min(points.stop, end))
        return points

    def _chunk(
        self, env: Environment, terms: list[Term], x: Access, w: Access | None, accumulators: dict[Point, Value]
    ) -> None:
        """Loads what the products of a chunk need in one chain, then the products, each joining its accumulator.

        The first term of an accumulator takes the place of the initial value.
        """
        operands = self.operands
        inputs = [x.address(offset) for offset in _distinct(t[1] for t in terms)]
        weights = [w.address(offset) for offset in _distinct(t[2] for t in terms)] if w is not None else []
        halves = w is not None and operands.layout is not None and operands.layout.element_bytes == 2
        if halves:
            for address in weights[:CONVERTED_FIRST]:
                if Address(address.operand, address.offset & ~3, address.terms) in operands.cache:
                    operands.weight(address)
        operands.load_all("x", inputs, operands.kind)
        operands.load_all("w", weights, operands.kind)
        if halves:
            for address in weights[:CONVERTED_FIRST]:
                operands.weight(address)
        x_values = {address.offset: operands.cache[address] for address in inputs}
        w_values = {address.offset: operands.cache[address] for address in weights} if not halves else {}
        starting = self.nest.has("bias") and None in accumulators.values()
        bias = operands.biases(env) if starting else None
        multiply, join, squares = self.b.fmul, self.join, self.nest.combine == "square"
        for key, x_offset, w_offset in terms:
            value = x_values[x_offset]
            if w is not None:
                factor = operands.weight(w.address(w_offset)) if halves else w_values[w_offset]
                value = multiply(value, factor)
            elif squares:
                value = multiply(value, value)
            previous = accumulators[key]
            if previous is None and bias is not None:
                previous = bias(key)
            accumulators[key] = value if previous is None else join(previous, value)


def _distinct(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))
