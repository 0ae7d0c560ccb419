"""Handlers of ONNX operators that are made of several elementwise steps or pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from xdsl.dialects.builtin import IntegerAttr, i64

from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn import ops as nn
from ml4f.frontend import importer_arithmetic as arithmetic
from ml4f.frontend import importer_windows as windows
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_batches import one_by_one
from ml4f.frontend.importer_masks import cast
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported, Tensor

LARGEST_POWER = 64
"""Whole exponents up to it are products; the error grows with their number."""


def power(importer: Importer, node: Node) -> None:
    """Pow; simple where the exponent is one constant or the base a positive one."""
    base, exponent = node.proto.input[:2]
    output = node.proto.output[0]
    steps = Steps(importer, node)
    constant = importer.const(exponent)
    values = [] if constant is None else sorted(set(np.ravel(constant.astype(np.float64)).tolist()))
    if constant is None or len(values) != 1:
        positive = importer.const(base)
        if positive is None or np.min(positive) <= 0:
            steps.binary(nn.PowOp, base, exponent, output)
        else:
            scaled = steps.binary(nn.MulOp, exponent, steps.constant(np.log(positive.astype(np.float64))))
            steps.activation("exp", scaled, output=output)
        return
    (value,) = values
    if value in (1.0, 2.0, 0.5, -1.0) and np.broadcast_shapes(importer.shape(base), constant.shape) == importer.shape(
        base
    ):
        arithmetic.power(importer, node)
    elif value == int(value) and 1 <= abs(value) <= LARGEST_POWER:
        _whole_power(steps, base, int(value), constant, output)
    else:
        steps.binary(nn.PowOp, base, steps.constant(constant), output)


def _whole_power(steps: Steps, base: str, exponent: int, constant: np.ndarray, output: str) -> None:
    """By squaring; a negative base keeps its sign."""
    result, square, rest = "", base, abs(exponent)
    while rest:
        if rest & 1:
            result = steps.binary(nn.MulOp, result, square) if result else square
        rest >>= 1
        square = steps.activation("square", square) if rest else square
    if exponent < 0:
        result = steps.activation("reciprocal", result)
    steps.binary(nn.MulOp, result, steps.constant(np.ones_like(constant, dtype=np.float32)), output)


def mean(importer: Importer, node: Node) -> None:
    """The mean of any number of inputs."""
    names = list(node.proto.input)
    steps = Steps(importer, node)
    total = names[0]
    for name in names[1:]:
        total = steps.binary(nn.AddOp, total, name)
    steps.binary(nn.MulOp, total, 1 / len(names), node.proto.output[0])


def cast_like(importer: Importer, node: Node) -> None:
    """Cast to the type of another value; all that are computed are floats or masks."""
    other = node.proto.input[1]
    constant = importer.const(other)
    if constant is not None and constant.dtype.kind not in "fb":
        raise NotSupported("only casts to float types")
    source = importer.const(node.proto.input[0])
    if source is not None:
        kind = np.float32 if constant is None and other not in importer.masks else np.bool_
        importer.constants[node.proto.output[0]] = source.astype(kind if constant is None else constant.dtype)
        return
    is_bool = constant.dtype.kind == "b" if constant is not None else other in importer.masks
    kind = onnx.TensorProto.BOOL if is_bool else onnx.TensorProto.FLOAT
    proto = onnx.helper.make_node("Cast", [node.proto.input[0]], list(node.proto.output), name=node.layer, to=kind)
    cast(importer, node.altered(proto))


def clip(importer: Importer, node: Node, plain: Callable[[Importer, Node], None]) -> None:
    """Clip; `plain` does it where the bounds are constants."""
    bounds = [*node.proto.input[1:3], "", ""][:2]
    if all(not name or name in importer.constants for name in bounds):
        plain(importer, node)
        return
    steps, value = Steps(importer, node), node.proto.input[0]
    pairs = [(op, name) for op, name in zip((nn.MaxOp, nn.MinOp), bounds, strict=True) if name]
    for index, (op, name) in enumerate(pairs):
        value = steps.binary(op, value, name, node.proto.output[0] if index == len(pairs) - 1 else None)


def computed_prelu(importer: Importer, node: Node) -> None:
    """max(x, 0) + slope * x where x < 0."""
    x, slope = node.proto.input
    steps = Steps(importer, node)
    below = steps.activation("step", steps.activation("neg", x))
    negative = steps.binary(nn.WhereOp, steps.binary(nn.MulOp, x, slope), below)
    steps.binary(nn.AddOp, steps.activation("relu", x), negative, node.proto.output[0])


def shrink(importer: Importer, node: Node) -> None:
    """x - bias above lambd, x + bias below -lambd, 0 between."""
    x, output = node.proto.input[0], node.proto.output[0]
    bias, limit = float(node.get("bias", 0.0)), float(node.get("lambd", 0.5))
    steps = Steps(importer, node)
    outside = steps.activation("step", steps.binary(nn.SubOp, steps.activation("abs", x), limit))
    moved = steps.binary(nn.SubOp, x, steps.binary(nn.MulOp, steps.activation("sign", x), bias)) if bias else x
    steps.binary(nn.WhereOp, moved, outside, output)


def swish(importer: Importer, node: Node) -> None:
    """x * sigmoid(alpha * x)."""
    x, alpha = node.proto.input[0], float(node.get("alpha", 1.0))
    if alpha == 1:
        arithmetic.emit_activation(importer, node, "silu")
        return
    steps = Steps(importer, node)
    steps.binary(nn.MulOp, x, steps.activation("sigmoid", steps.binary(nn.MulOp, x, alpha)), node.proto.output[0])


def local_response_normalization(importer: Importer, node: Node) -> None:
    """x / (bias + alpha / size * sum of squares of neighbouring channels)^beta."""
    size = int(node.get("size", 1))
    if size % 2 == 0:
        raise NotSupported(f"size {size}; runtimes do not agree on which channels an even number takes, use an odd one")
    tensor, x, shape = windows.channels_last(importer, node.proto.input[0])
    height, width, channels = shape
    rows = (height * width, channels, 1)
    square = importer.emit(nn.ActivationOp, [x], shape, act=ActAttr.of("square"))
    pads = (0, size // 2, 0, size // 2)
    means = importer.emit(
        nn.AvgPool2dOp,
        [importer.reshaped(square, rows)],
        rows,
        kernel=numbers((1, size)),
        strides=numbers((1, 1)),
        dilations=numbers((1, 1)),
        pads=numbers(pads),
        count_include_pad=IntegerAttr(1, i64),
    )
    steps = Steps(importer, node)
    order = (0, *range(2, len(tensor.shape)), 1)
    sums = steps.value(Tensor(importer.reshaped(means, shape), tensor.shape, order))
    base = steps.binary(
        nn.AddOp, steps.binary(nn.MulOp, sums, float(node.get("alpha", 1e-4))), float(node.get("bias", 1.0))
    )
    beta = float(node.get("beta", 0.75))
    root = steps.activation("exp", steps.binary(nn.MulOp, steps.activation("log", base), -beta))
    steps.binary(nn.MulOp, node.proto.input[0], root, node.proto.output[0])


def lp_pool(importer: Importer, node: Node) -> None:
    """(sum |x|^p)^(1/p) of each window, or of all pixels of each channel."""
    order = int(node.get("p", 2))
    source, output = node.proto.input[0], node.proto.output[0]
    steps = Steps(importer, node)
    powers = absolute_power(steps, source, order)
    if node.op_type == "GlobalLpPool":
        total = steps.reduce("sum", powers, list(range(2, len(importer.shape(source)))))
    else:
        kernel = node.ints("kernel_shape")
        pooled = steps.fresh()
        attributes = {name: node.get(name) for name in node.attributes if name != "p"}
        proto = onnx.helper.make_node("AveragePool", [powers], [pooled], name=node.layer, **attributes)
        windows.average_pool(importer, node.altered(proto), whole=True)
        total = steps.binary(nn.MulOp, pooled, float(math.prod(kernel)))
    root(steps, total, order, output)


def root(steps: Steps, total: str, order: int, output: str | None = None) -> str:
    """The root of so high an order of sums of powers."""
    if order == 1:
        return steps.activation("linear", total, output=output)
    if order == 2:
        return steps.activation("sqrt", total, output=output)
    return steps.binary(nn.PowOp, total, 1 / order, output)


def absolute_power(steps: Steps, x: str, order: int) -> str:
    """|x|^order for a whole order of at least 1."""
    if order < 1:
        raise NotSupported(f"p {order}; it should be at least 1")
    if order == 1:
        return steps.activation("abs", x)
    if order == 2:
        return steps.activation("square", x)
    return steps.binary(nn.PowOp, steps.activation("abs", x), float(order))


def hardmax(importer: Importer, node: Node) -> None:
    """1 at the first largest element along an axis, else 0; before opset 13 over all dimensions from the axis on."""
    source, output = node.proto.input[0], node.proto.output[0]
    shape = importer.shape(source)
    axis = int(node.get("axis", -1 if importer.opset >= 13 else 1)) % max(len(shape), 1)
    steps = Steps(importer, node)
    if importer.opset < 13:
        x = importer.in_order(importer.tensor(source))
        rows = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        made = _first_largest(steps, steps.value(Tensor(x.value, rows, (0, 1))), rows, 1)
        ordered = importer.in_order(importer.tensor(made))
        importer.result(output, Tensor(ordered.value, shape, tuple(range(len(shape)))))
    else:
        _first_largest(steps, source, shape, axis, output)


def _first_largest(steps: Steps, source: str, shape: Sequence[int], axis: int, output: str | None = None) -> str:
    count = shape[axis]
    positions = np.arange(count, dtype=np.float32).reshape([count if a == axis else 1 for a in range(len(shape))])
    largest = steps.reduce("max", source, [axis])
    other = steps.activation("step", steps.binary(nn.SubOp, largest, source))
    number = steps.binary(nn.AddOp, steps.binary(nn.MulOp, other, float(count)), steps.constant(positions))
    first = steps.reduce("min", number, [axis])
    behind = steps.activation("step", steps.binary(nn.SubOp, number, first))
    return steps.binary(nn.SubOp, steps.constant(1.0), behind, output)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "CastLike": cast_like,
    "GlobalLpPool": one_by_one(lp_pool),
    "Hardmax": hardmax,
    "LRN": one_by_one(local_response_normalization),
    "LpPool": one_by_one(lp_pool),
    "Mean": mean,
    "Pow": power,
    "Shrink": shrink,
    "Swish": swish,
}
"""ONNX operator → the function that emits it."""
