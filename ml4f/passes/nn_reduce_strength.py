"""nn-reduce-strength: cheaper operations for dear ones that compute the same, but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from ml4f.analysis.lower_bounds import DEPTH, lower_bound
from ml4f.dialects.nn import ActAttr, numbers, shape_of, tensor_type
from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import const_array, main_block, producer, replace, substitute, use_count

SMALLEST_NORMAL = 2.0**-126
"""From here on the reciprocal is finite."""
ROUNDED = frozenset({"sqrt", "exp", "exp_nonpositive", "log", "sigmoid", "tanh", "softplus"})
"""Activations whose result is hardly ever an exact number."""
STORED = {"nn.max_pool2d": 1.0, "nn.avg_pool2d": 7.0}
"""Storing and loading a value between two pools costs as much as joining so many: a maximum is dear, a sum is not."""
WORTHWHILE = 0.75
"""Two pools may take at most this share of the operations of one."""


def _square(op: nn.ReduceOp) -> bool:
    """A sum of squares is one reduction, also if a reshape stands between."""
    kind, inner = op.kind.data, producer(op.x)
    reshape = inner if isinstance(inner, nn.ReshapeOp) else None
    if reshape is not None:
        inner = producer(reshape.x)
    if kind not in ("sum", "mean") or inner is None or use_count(op.x) != 1 or use_count(inner.results[0]) != 1:
        return False
    if isinstance(inner, nn.MulOp):
        squares = inner.a is inner.b and inner.act is None
    else:
        squares = isinstance(inner, nn.ActivationOp) and inner.act.function == "square"
    if not squares:
        return False
    op.properties["kind"] = StringAttr(f"{kind}_square")
    replace(inner, inner.operands[0])
    return True


def is_rounded(value: SSAValue, depth: int = DEPTH) -> bool:
    """Whether an inexact function is behind a value, so that no quotient of it is relied on to be exact."""
    op = value.owner
    if depth == 0 or not isinstance(op, Operation):
        return False
    act = op.properties.get("act")
    if isinstance(act, ActAttr) and act.function in ROUNDED:
        return True
    return any(is_rounded(operand, depth - 1) for operand in op.operands if const_array(operand) is None)


def _divide(op: nn.DivOp) -> bool:
    """By a value for many elements: times its reciprocal, which is computed once. x / x would not be 1 any more.

    A divisor that could be 0, or so small that its reciprocal is infinite, stays one.
    """
    if 2 * prod(shape_of(op.b)) > prod(shape_of(op.y)) or const_array(op.b) is not None:
        return False
    if not is_rounded(op.b) or lower_bound(op.b) < SMALLEST_NORMAL:
        return False
    block = op.parent_block()
    assert block is not None
    reciprocal = nn.ActivationOp.create(
        operands=[op.b], result_types=[op.b.type], properties={"act": ActAttr.of("reciprocal")}
    )
    reciprocal.location = op.location
    block.insert_op_before(reciprocal, op)
    substitute(op, nn.MulOp.create(operands=[op.a, reciprocal.y], result_types=[op.y.type], properties=op.properties))
    return True


def _window(op: nn.MaxPool2dOp | nn.AvgPool2dOp) -> bool:
    """Overlapping windows: along rows first, then along columns, or the other way round."""
    kernel = op.integers("kernel")
    if min(kernel) == 1:
        return False
    shape, out = shape_of(op.x), shape_of(op.y)
    costs = {axis: STORED[op.name] + _joins(kernel, shape, out, axis) for axis in (0, 1)}
    first = min(costs, key=lambda axis: (costs[axis], -axis))
    if costs[first] > WORTHWHILE * (prod(kernel) - 1):
        return False
    block = op.parent_block()
    assert block is not None
    between = [*shape]
    between[first] = out[first]
    head = type(op).create(
        operands=[op.x], result_types=[tensor_type(between)], properties=_along(op, first), location=op.location
    )
    block.insert_op_before(head, op)
    properties = _along(op, 1 - first)
    if op.act is not None:
        properties["act"] = op.act
    substitute(op, type(op).create(operands=[head.y], result_types=[op.y.type], properties=properties))
    return True


def _joins(kernel: Sequence[int], shape: Sequence[int], out: Sequence[int], first: int) -> float:
    """Values that are joined for a result, when one axis is reduced first."""
    rows = shape[1 - first] / out[1 - first] if out[1 - first] else inf
    return (kernel[first] - 1) * rows + kernel[1 - first] - 1


def _along(op: nn.MaxPool2dOp | nn.AvgPool2dOp, axis: int) -> dict[str, Any]:
    """The properties of the pool along one axis alone; without activation."""
    properties = {k: v for k, v in op.properties.items() if k != "act"}
    for name in ("kernel", "strides", "dilations"):
        properties[name] = numbers([n if i == axis else 1 for i, n in enumerate(op.integers(name))])
    for name in ("pads", "counted_pads"):
        if name in properties:
            properties[name] = numbers([n if i % 2 == axis else 0 for i, n in enumerate(op.integers(name))])
    return properties


PATTERNS: dict[type[Operation], Callable[[Any], bool]] = {
    nn.AvgPool2dOp: _window,
    nn.DivOp: _divide,
    nn.MaxPool2dOp: _window,
    nn.ReduceOp: _square,
}


class NnReduceStrengthPass(ModulePass):
    """Squares are summed by the reduction itself, divisions by one value for many become products, overlapping
    two-dimensional pools become two one-dimensional ones.

        %1 = nn.mul %0, %0 : tensor<16x32xf32>
        %2 = nn.reduce %1 {kind = "mean", axes = array<i64: 1>} : tensor<16xf32>
    becomes
        %2 = nn.reduce %0 {kind = "mean_square", axes = array<i64: 1>} : tensor<16xf32>
    """

    name = "nn-reduce-strength"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        for inner in list(block.ops) if block is not None else ():
            pattern = PATTERNS.get(type(inner))
            if inner.parent is not None and pattern is not None:
                pattern(inner)
