"""Executes a nest in numpy, term by term: the meaning of the nest form, with plain or packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ml4f.backend.loop import elementary_power
from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.backend.loop.nest import Linear, Nest, Schedule, Step
from ml4f.backend.loop.packing import WeightLayout, _block_starts, tile_points, weight_layout
from ml4f.interpreters.memory_image import MemoryImage


class _NestRun:
    def __init__(
        self, nest: Nest, memory: MemoryImage, addresses: Sequence[int], layout: WeightLayout | None, packed: bool
    ):
        self.nest = nest
        self.packed = packed
        self.memory = memory
        self.addresses = {o.role: a for o, a in zip(nest.operands, addresses, strict=True)}
        self.layout = layout
        shape = [n for _, n in nest.parallel]
        grids = np.indices(shape, dtype=np.int64).reshape(len(shape), -1)
        dims = nest.parallel_dims
        for guard in nest.pool_guards:
            expr = guard.expr.constant + sum(c * grids[dims.index(d)] for d, c in guard.expr.terms)
            grids = grids[:, (expr >= 0) & (expr < guard.extent)]
        self.point = dict(zip(nest.parallel_dims, grids, strict=True))
        self.count = grids.shape[1]
        if layout is not None:
            self._blocks(layout)

    def _blocks(self, layout: WeightLayout) -> None:
        """For each filter (by its filter dims): byte offset of its block, filters in it, its index within."""
        shape = [self.nest.extents[d] for d in self.nest.filter_dims]
        start, size, index = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        for offset, ranges in _block_starts(layout):
            steps = {d: len(r) for d, r in ranges.items()}
            filters = int(np.prod(list(steps.values())))
            for i, point in enumerate(tile_points(steps, layout.tile)):
                where = tuple(ranges[d][point[d]] for d in self.nest.filter_dims)
                start[where], size[where], index[where] = offset, filters, i
        where = tuple(self.point[d] for d in self.nest.filter_dims)
        self.block_start, self.block_size, self.block_index = (
            np.broadcast_to(a[where], (self.count,)) for a in (start, size, index)
        )

    def evaluate(self, linear: Linear, reduction: dict[str, int]) -> np.ndarray:
        value = np.full(self.count, linear.constant, dtype=np.int64)
        for dim, coefficient in linear.terms:
            value += coefficient * (reduction[dim] if dim in reduction else self.point[dim])
        return value

    def load(self, role: str, reduction: dict[str, int], where: np.ndarray) -> np.ndarray:
        index = self.evaluate(self.nest.by_role[role].map, reduction)[where]
        return self.memory.floats[self.addresses[role] // 4 + index]

    def weight(self, reduction: dict[str, int], where: np.ndarray) -> np.ndarray:
        layout = self.layout
        if layout is None:
            return self.load("w" if self.nest.has("w") else "v", reduction, where)
        rank = 0
        for dim, stride in layout.rank_strides.items():
            positions = layout.positions[dim]
            rank += stride * (reduction[dim] if positions is None else positions[reduction[dim]])
        size = self.block_size[where]
        offset = self.block_start[where] + (4 * size if layout.bias else 0)
        offset = self.addresses["w"] + offset + (rank * size + self.block_index[where]) * layout.element_bytes
        if layout.element_bytes == 2:
            return self.memory.halves[offset // 2].astype(np.float32)
        return self.memory.floats[offset // 4]

    def bias(self) -> np.ndarray:
        if self.layout is None:
            return self.load("bias", {}, np.ones(self.count, bool))
        offset = self.addresses["w"] + self.block_start + 4 * self.block_index
        return self.memory.floats[offset // 4]

    def accumulate(self) -> np.ndarray:
        nest = self.nest
        value = self.bias().astype(np.float32) if nest.has("bias") else np.full(self.count, nest.initial, np.float32)
        started = np.full(self.count, nest.has("bias"))
        for values in product(*(range(n) for _, n in nest.reduction)):
            reduction = dict(zip(nest.reduction_dims, values, strict=True))
            where = np.ones(self.count, bool)
            for guard in nest.guards:
                expr = self.evaluate(guard.expr, reduction)
                where &= (expr >= 0) & (expr < guard.extent)
            where = np.flatnonzero(where)
            term = self.load("x", reduction, where)
            if nest.combine == "mac":
                term = term * self.weight(reduction, where)
            elif nest.combine == "square":
                term = term * term
            previous = value[where]
            if nest.combine == "max":
                combined = np.where(previous < term, term, previous)
            elif nest.combine == "min":
                combined = np.where(previous > term, term, previous)
            elif nest.combine == "mul":
                combined = previous * term
            else:
                combined = previous + term
            value[where] = np.where(started[where], combined, term)
            started[where] = True
        return value

    def epilogue(self, value: np.ndarray) -> None:
        out = self.evaluate(self.nest.by_role[self.nest.result_role].map, {})
        everything = np.ones(self.count, bool)
        for step in self.nest.epilogue:
            if step.kind == "dense":
                self.consume(step, value, out)
                return
            if step.kind in ("pool_max", "pool_sum"):
                unique, inverse = np.unique(out, return_inverse=True)
                if step.kind == "pool_max":
                    pooled = np.full(len(unique), -np.inf, np.float32)
                    np.maximum.at(pooled, inverse, value)
                else:
                    pooled = np.zeros(len(unique), np.float32)
                    np.add.at(pooled, inverse, value)
                value = pooled[inverse]
                continue
            other = self.load(step.role, {}, everything) if step.role is not None else None
            value = apply_step(step, value, other)
        self.memory.floats[self.addresses["out"] // 4 + out] = value

    def consume(self, step: Step, value: np.ndarray, weights: np.ndarray) -> None:
        """Adds to each output of a dense layer what the results (each once) contribute."""
        assert step.role is not None
        first, which = np.unique(weights, return_index=True)
        outputs = np.arange(int(step.parameters[0]))
        halves = self.packed and self.nest.by_role[step.role].element == "f16"
        stored, size = (self.memory.halves, 2) if halves else (self.memory.floats, 4)
        matrix = stored[self.addresses[step.role] // size + first[:, None] + outputs[None, :]].astype(np.float32)
        places = self.addresses["out"] // 4 + self.nest.by_role["out"].map.constant + outputs
        self.memory.floats[places] = self.memory.floats[places] + value[which] @ matrix


def apply_step(step: Step, value: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """One epilogue step on float32 arrays, rounded to float32."""
    if step.kind == "activation":
        exact = ACTIVATIONS[step.name].reference(value.astype(np.float64), *step.parameters)
        return np.asarray(exact).astype(np.float32)
    operand = np.float32(step.parameters[0]) if other is None else other
    with np.errstate(all="ignore"):
        match step.kind:
            case "mul":
                return value * operand
            case "add":
                return value + operand
            case "sub":
                return value - operand
            case "rsub":
                return operand - value
            case "div":
                return value / operand
            case "rdiv":
                return operand / value
            case "max":
                return np.where(value < operand, operand, value)
            case "min":
                return np.where(value > operand, operand, value)
            case "prelu":
                return np.where(value < 0, value * operand, value)
            case "pow":
                return elementary_power.reference(value, np.asarray(operand)).astype(np.float32)
            case "where":
                return np.where(operand != 0, value, np.float32(0))
    raise ValueError(f"unknown epilogue step {step.kind}")


def run_nest(
    nest: Nest, schedule: Schedule | None, packed: bool, memory: MemoryImage, addresses: Sequence[int]
) -> None:
    """Executes the nest on memory; `addresses` of its operands. The schedule matters only for packed weights."""
    layout = weight_layout(nest, schedule) if packed and schedule is not None and nest.has("w") else None
    run = _NestRun(nest, memory, addresses, layout, packed)
    with np.errstate(all="ignore"):
        run.epilogue(run.accumulate())
