"""Handlers of ONNX's reductions and normalisations, made of nn.reduce and elementwise steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import identity
from ml4f.frontend.importer_steps import Steps, constant_axes, squeezed
from ml4f.frontend.importer_values import NotSupported, Tensor

KINDS = {
    "ReduceL1": ("abs", "sum", None),
    "ReduceL2": ("square", "sum", "sqrt"),
    "ReduceLogSum": (None, "sum", "log"),
    "ReduceMax": (None, "max", None),
    "ReduceMean": (None, "mean", None),
    "ReduceMin": (None, "min", None),
    "ReduceProd": (None, "prod", None),
    "ReduceSum": (None, "sum", None),
    "ReduceSumSquare": ("square", "sum", None),
}
"""ONNX operator: what is done to each element, how they are joined, what is done to the result."""


def reduce(importer: Importer, node: Node) -> None:
    """The Reduce operators, over constant axes."""
    source, output = node.proto.input[0], node.proto.output[0]
    rank = len(importer.shape(source))
    axes = constant_axes(importer, node, 1, rank)
    noop = bool(node.get("noop_with_empty_axes", 0))
    if not axes and noop:
        before, _, after = KINDS.get(node.op_type, ("exp", "sum", "log"))
        if before or after:
            raise NotSupported("no axes to reduce over; leave the operator out")
        identity(importer, node)
        return
    axes = axes or list(range(rank))
    steps = Steps(importer, node)
    if node.op_type == "ReduceLogSumExp":
        result = _log_sum_exp(steps, source, axes)
    else:
        before, kind, after = KINDS[node.op_type]
        value = steps.activation(before, source) if before else source
        result = steps.reduce(kind, value, axes)
        if after:
            result = steps.activation(after, result)
    tensor = importer.tensor(result)
    importer.result(output, tensor if node.get("keepdims", 1) else squeezed(tensor, axes))
    if source in importer.masks:
        importer.masks.add(output)


def _log_sum_exp(steps: Steps, x: str, axes: Sequence[int]) -> str:
    """The maximum is taken out first, so that nothing overflows; of infinities the largest number."""
    bound = float(np.finfo(np.float32).max)
    largest = steps.activation("clip", steps.reduce("max", x, axes), -bound, bound)
    powers = steps.activation("exp", steps.binary(nn.SubOp, x, largest))
    return steps.binary(nn.AddOp, steps.activation("log", steps.reduce("sum", powers, axes)), largest)


def arg_extreme(importer: Importer, node: Node) -> None:
    """ArgMax, ArgMin: the smallest (or largest) number among those of the elements that equal the extreme."""
    source, output = node.proto.input[0], node.proto.output[0]
    shape = importer.shape(source)
    rank = len(shape)
    axis = int(node.get("axis", 0)) % rank
    steps = Steps(importer, node)
    largest = node.op_type == "ArgMax"
    extreme = steps.reduce("max" if largest else "min", source, [axis])
    other = steps.activation("step", steps.binary(nn.SubOp, *((extreme, source) if largest else (source, extreme))))
    last = bool(node.get("select_last_index", 0))
    count = shape[axis]
    numbers = np.arange(count, dtype=np.float32).reshape([count if a == axis else 1 for a in range(rank)])
    penalty = steps.binary(nn.MulOp, other, -float(count) if last else float(count))
    candidates = steps.binary(nn.AddOp, penalty, steps.constant(numbers))
    tensor = importer.tensor(steps.reduce("max" if last else "min", candidates, [axis]))
    importer.result(output, tensor if node.get("keepdims", 1) else squeezed(tensor, [axis]))
    importer.integers.add(output)
    importer.bounds[output] = float(count)


# Normalisations


def _scaled(steps: Steps, x: str, factors: Sequence[str], axes_behind: int | None, output: str) -> None:
    """Times scale, plus bias where there is one. `axes_behind`: how many axes follow those of the parameters."""
    names = []
    for name in factors:
        if not name:
            continue
        if axes_behind:
            constant = steps.importer.const(name)
            if constant is not None:
                name = steps.constant(constant.reshape(*constant.shape, *[1] * axes_behind))
            else:
                tensor = steps.importer.tensor(name)
                shape = (*tensor.shape, *[1] * axes_behind)
                name = steps.value(Tensor(tensor.value, shape, (*tensor.order, *range(len(tensor.shape), len(shape)))))
        names.append(name)
    if not names:
        steps.importer.result(output, steps.importer.tensor(x))
        return
    operators = (nn.MulOp, nn.AddOp)[: len(names)]
    for index, (op, name) in enumerate(zip(operators, names, strict=True)):
        x = steps.binary(op, x, name, output if index == len(names) - 1 else None)


def _centred(steps: Steps, x: str, axes: Sequence[int]) -> tuple[str, str, str]:
    """(x - mean, mean, variance)."""
    mean = steps.reduce("mean", x, axes)
    centred = steps.binary(nn.SubOp, x, mean)
    return centred, mean, steps.reduce("mean", steps.activation("square", centred), axes)


def _inverse_deviation(steps: Steps, variance: str, epsilon: float, output: str | None = None) -> str:
    root = steps.activation("sqrt", steps.binary(nn.AddOp, variance, epsilon))
    return steps.activation("reciprocal", root, output=output)


def layer_normalization(importer: Importer, node: Node) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from `axis` on; RMSNormalization: no mean."""
    names = [*node.proto.input, "", ""]
    outputs = [*node.proto.output, "", ""]
    rank = len(importer.shape(names[0]))
    axis = int(node.get("axis", -1)) % rank
    axes, epsilon = list(range(axis, rank)), float(node.get("epsilon", 1e-5))
    steps = Steps(importer, node)
    if node.op_type == "RMSNormalization":
        centred, mean = names[0], ""
        variance = steps.reduce("mean", steps.activation("square", centred), axes)
    else:
        centred, mean, variance = _centred(steps, names[0], axes)
    inverse = _inverse_deviation(steps, variance, epsilon, outputs[2] or None)
    if outputs[1] and mean:
        importer.result(outputs[1], importer.tensor(mean))
    normal = steps.binary(nn.MulOp, centred, inverse)
    _scaled(steps, normal, names[1:3], None, outputs[0])


def instance_normalization(importer: Importer, node: Node) -> None:
    """Every channel by its own mean and variance."""
    names = list(node.proto.input)
    rank = len(importer.shape(names[0]))
    steps = Steps(importer, node)
    centred, _, variance = _centred(steps, names[0], list(range(2, rank)))
    inverse = _inverse_deviation(steps, variance, float(node.get("epsilon", 1e-5)))
    _scaled(steps, steps.binary(nn.MulOp, centred, inverse), names[1:3], rank - 2, node.proto.output[0])


def group_normalization(importer: Importer, node: Node) -> None:
    """Groups of channels by their own mean and variance; before opset 21 the parameters are a group's."""
    names = list(node.proto.input)
    x = importer.in_order(importer.tensor(names[0]))
    groups, shape = int(node.get("num_groups", 1)), x.shape
    if len(shape) < 3 or groups < 1 or shape[1] % groups:
        raise NotSupported(f"{groups} groups of {list(shape)}")
    steps = Steps(importer, node)
    apart = (shape[0], groups, prod(shape[1:]) // groups)
    centred, _, variance = _centred(steps, steps.value(Tensor(x.value, apart, (0, 1, 2))), [2])
    inverse = _inverse_deviation(steps, variance, float(node.get("epsilon", 1e-5)))
    normal = importer.in_order(importer.tensor(steps.binary(nn.MulOp, centred, inverse)))
    if importer.opset < 21:
        scaled = steps.fresh()
        _scaled(steps, steps.value(normal), names[1:3], 1, scaled)
        done = importer.in_order(importer.tensor(scaled))
        importer.result(node.proto.output[0], Tensor(done.value, shape, tuple(range(len(shape)))))
        return
    whole = steps.value(Tensor(normal.value, shape, tuple(range(len(shape)))))
    _scaled(steps, whole, names[1:3], len(shape) - 2, node.proto.output[0])


def mean_variance_normalization(importer: Importer, node: Node) -> None:
    """(x - mean) / (deviation + 1e-9)."""
    rank = len(importer.shape(node.proto.input[0]))
    axes = [axis % rank for axis in node.ints("axes", (0, 2, 3))]
    steps = Steps(importer, node)
    centred, _, variance = _centred(steps, node.proto.input[0], axes)
    deviation = steps.binary(nn.AddOp, steps.activation("sqrt", variance), SMALLEST_DEVIATION)
    steps.binary(nn.DivOp, centred, deviation, node.proto.output[0])


SMALLEST_DEVIATION = 1e-9
"""What MeanVarianceNormalization adds (its definition as an ONNX function)."""

SMALLEST_NORM = float(np.finfo(np.float32).tiny)
"""A vector of zeros is divided by this, and stays zero."""


def lp_normalization(importer: Importer, node: Node) -> None:
    """x / (sum |x|^p)^(1/p)."""
    source = node.proto.input[0]
    axis = int(node.get("axis", -1)) % len(importer.shape(source))
    order = int(node.get("p", 2))
    if order not in (1, 2):
        raise NotSupported(f"p {order}; 1 and 2 are supported")
    steps = Steps(importer, node)
    total = steps.reduce("sum", steps.activation("abs" if order == 1 else "square", source), [axis])
    norm = total if order == 1 else steps.activation("sqrt", total)
    steps.binary(nn.DivOp, source, steps.binary(nn.MaxOp, norm, SMALLEST_NORM), node.proto.output[0])


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **dict.fromkeys((*KINDS, "ReduceLogSumExp"), reduce),
    "ArgMax": arg_extreme,
    "ArgMin": arg_extreme,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": layer_normalization,
}
"""ONNX operator → the function that emits it."""
