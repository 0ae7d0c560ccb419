"""The epilogue of a tile: carries its accumulators through the steps behind the reduction and stores them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from ml4f.backend.loop.bit_patterns import ends_in_core, limits_of, removes_negatives
from ml4f.backend.loop.builder import Address, Interleaved, Value, runs
from ml4f.backend.loop.elementary import ACTIVATIONS, limit_bits, prelu, where
from ml4f.backend.loop.elementary_power import power
from ml4f.backend.loop.nest import Nest, Schedule, Step
from ml4f.backend.loop.operands import Environment, Operands, Point

SINK_CHUNK = 6
SINK_CHUNK_OF_HALVES = 4
"""Weights, or pairs of float16 weights, of a dense layer that consumes results which are loaded together."""


class Epilogue:
    """The steps of one tile after the other. Constants are shared by all tiles where the schedule hoists them."""

    def __init__(self, operands: Operands):
        self.operands = operands
        self.b = operands.b
        self.nest: Nest = operands.nest
        self.schedule: Schedule = operands.schedule
        self.constants: dict[float, Value] | None = {} if self.schedule.hoist else None
        self.int_constants: dict[int, Value] = {}
        """Of all tiles where they are hoisted, else of one."""

    def hoist_constants(self) -> None:
        """Emits the constants of the steps' functions before all loops, in order of first use."""
        from ml4f.backend.loop.pricing import constants_of

        if self.constants is not None:
            floats, integers = constants_of(self.nest)
            self.constants |= {x: self.b.constant(x) for x in floats}
            self.int_constants |= {x: self.b.int_constant(x) for x in integers}

    def groups(self, env: Environment, keys: Collection[Point]) -> dict[Address, list[Point]]:
        """The points of the tile by the address of their result."""
        groups: dict[Address, list[Point]] = {}
        addresses = self.operands.point_addresses(self.nest.result_role, env, keys)
        for key, address in zip(keys, addresses, strict=True):
            groups.setdefault(address, []).append(key)
        return groups

    def run(self, env: Environment, accumulators: dict[Point, Value]) -> None:
        """Finishes the accumulators of a tile, a few results together."""
        self.operands.start(env, accumulators)
        if not self.schedule.hoist:
            self.int_constants = {}
        groups, size = list(self.groups(env, accumulators).items()), self.schedule.vector
        if self.nest.sink is not None:
            # As the weights lie; filters of a pixel are also likely to be in neighbouring registers (see `bits_pair`).
            groups.sort(key=lambda group: group[0].offset)
        batches = [groups[i : i + size] for i in range(0, len(groups), size)]
        results: dict[Address, Value] = {}
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            finished, bits = self._finish(env, batch, accumulators)
            self._read_ahead(env, following)
            if self.nest.sink is None:
                self._store(finished, bits)
            results |= finished
        if self.nest.sink is not None:
            self._consume(results)

    def _consume(self, results: dict[Address, Value]) -> None:
        """The dense layer behind a tile's results: for each of its outputs, what these results add to it."""
        assert self.nest.sink is not None
        if self.nest.by_role[self.nest.result_role].element == "f16":
            self._consume_halves(results)
            return
        variable, _ = self.b.begin_loop(int(self.nest.sink.parameters[0]), None, None, (), "j")
        along = ((variable, 4),)
        out = self.nest.by_role["out"].map.constant
        target = Address(self.operands.index["out"], 4 * out, along)
        total = self.b.load(target, "f32")
        pending = list(results.items())
        for i in range(0, len(pending), SINK_CHUNK):
            part = pending[i : i + SINK_CHUNK]
            weights = [self.b.load(Address(a.operand, a.offset, (*a.terms, *along)), "f32") for a, _ in part]
            for weight, (_, value) in zip(weights, part, strict=True):
                total = self.b.fadd(total, self.b.fmul(weight, value))
        self.b.store(target, total)
        self.b.end_loop(())

    def _consume_halves(self, results: dict[Address, Value]) -> None:
        """The same with float16 weights, which lie in pairs: two outputs at a time."""
        assert self.nest.sink is not None
        variable, _ = self.b.begin_loop(int(self.nest.sink.parameters[0]) // 2, None, None, (), "j")
        out, index = 4 * self.nest.by_role["out"].map.constant, self.operands.index["out"]
        targets = [Address(index, out + 4 * i, ((variable, 8),)) for i in range(2)]
        totals = [self.b.load(target, "f32") for target in targets]
        pending = list(results.items())
        for i in range(0, len(pending), SINK_CHUNK_OF_HALVES):
            part = pending[i : i + SINK_CHUNK_OF_HALVES]
            # Addresses count float32 elements.
            halved = (Address(a.operand, a.offset // 2, tuple((v, s // 2) for v, s in a.terms)) for a, _ in part)
            words = [self.b.load(a._replace(terms=(*a.terms, (variable, 4))), "f32") for a in halved]
            for word, (_, value) in zip(words, part, strict=True):
                weights = self.b.half_low(word), self.b.half_high(word)
                products = [self.b.fmul(weight, value) for weight in weights]
                totals = [self.b.fadd(total, term) for total, term in zip(totals, products, strict=True)]
        for target, total in zip(targets, totals, strict=True):
            self.b.store(target, total)
        self.b.end_loop(())

    def _finish(
        self, env: Environment, batch: list[tuple[Address, list[Point]]], accumulators: dict[Point, Value]
    ) -> tuple[dict[Address, Value], bool]:
        """Carries a few output elements through all steps together; whether they end in core registers."""
        keys = [members for _, members in batch]
        values: list[list[Value]] = [[accumulators[k] for k in members] for members in keys]
        bits = self.operands.bits
        steps = [s for s in self.nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
        for i, step in enumerate(steps):
            last = i == len(steps) - 1
            if step.kind == "dense":
                break
            if step.kind == "pool_max":
                # Bit patterns order as integers but for negative numbers, all of which the relu makes 0.
                as_bits = bits or (not last and removes_negatives(steps[i + 1]))
                values = [[self._maximum(group, bits, as_bits)] for group in values]
                bits = as_bits
            elif step.kind == "pool_sum":
                values = [[_fold(self.b.fadd, group)] for group in values]
            else:
                limits = limits_of(step)
                if bits and (limits is None or ACTIVATIONS[step.name].inner is not None):
                    values = [[self.b.from_bits(v) for v in group] for group in values]
                    bits = False
                if limits is None:
                    values = self._apply(step, env, keys, values)
                else:
                    values = self._limit(self._inner(step, values), limits, bits, last)
                    bits = last
            if step.kind.startswith("pool_"):
                keys = [members[:1] for members in keys]
        return {address: group[0] for (address, _), group in zip(batch, values, strict=True)}, bits

    def _read_ahead(self, env: Environment, batch: list[tuple[Address, list[Point]]]) -> None:
        """Loads the operands of the next few elements, which would wait directly behind the stores of these ones.

        There are registers for them where the sums are done, not where values are copied.
        """
        for step in self.nest.epilogue if self.nest.combine == "mac" and not self.nest.window_dims else ():
            if step.role is not None and step.kind != "dense" and step.role not in self.schedule.multiple:
                firsts = [members[0] for _, members in batch]
                for address in self.operands.point_addresses(step.role, env, firsts):
                    self.operands.cached_load(address)

    def _store(self, results: dict[Address, Value], bits: bool) -> None:
        if "out" in self.schedule.multiple and not bits and not ends_in_core(self.nest):
            for first, count in runs(sorted(results, key=lambda a: (a.terms, a.offset))):
                run = [Address(first.operand, first.offset + 4 * i, first.terms) for i in range(count)]
                self.b.store_multiple(first, [results[a] for a in run])
            return
        for address, value in results.items():
            self.b.store(address, value)

    def _maximum(self, group: list[Value], bits: bool, as_bits: bool) -> Value:
        """The largest value of a group; in core registers two at a time, so that few are needed."""
        if not as_bits or bits:
            return _fold(self.b.imax if bits else self.b.fmax, group)
        result: Value = None
        for i in range(0, len(group), 2):
            part = _fold(self.b.imax, self._to_bits(group[i : i + 2]))
            result = part if result is None else self.b.imax(result, part)
        return result

    def _inner(self, step: Step, values: list[list[Value]]) -> list[list[Value]]:
        """What an activation does before it limits its result."""
        inner = ACTIVATIONS[step.name].inner
        if inner is None:
            return values
        flat = tuple(v for group in values for v in group)
        return _regroup(inner(self._lanes(len(flat)), flat, *step.parameters), values)

    def _limit(
        self, values: list[list[Value]], limits: tuple[float, float], bits: bool, last: bool
    ) -> list[list[Value]]:
        """The values within a range around 0, as bit patterns if nothing but the store follows."""
        flat = [v for group in values for v in group]
        out: list[Value] = []
        together = len(flat) if last else 2
        for i in range(0, len(flat), together):
            part = flat[i : i + together] if bits else self._to_bits(flat[i : i + together])
            part = limit_bits(self._lanes(len(part)), tuple(part), *limits)
            out += part if last else [self.b.from_bits(v) for v in part]
        return _regroup(out, values)

    def _lanes(self, width: int) -> Any:
        """An emitter for so many values at a time."""
        return Interleaved(self.b, width, self.constants, self.int_constants)

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
        lanes = self._lanes(len(flat))
        if step.kind == "activation":
            return _regroup(ACTIVATIONS[step.name].emit(lanes, flat, *step.parameters), values)
        if step.role is not None:
            addresses = self.operands.point_addresses(step.role, env, [k for members in keys for k in members])
            if step.role in self.schedule.multiple:
                self.operands.load_all(step.role, [a for a in addresses if a not in self.operands.resident], "f32")
            other = tuple(self.operands.cached_load(address) for address in addresses)
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
    "pow": power,
    "where": where,
}


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
