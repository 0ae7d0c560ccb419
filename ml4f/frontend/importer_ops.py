"""Handlers of the ONNX operators that are no windows: dense layers, activations, arithmetic.

`HANDLERS` lists all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, StringAttr, i64
from xdsl.ir import SSAValue

from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn import ops as nn
from ml4f.frontend import importer_arithmetic as arithmetic
from ml4f.frontend import importer_copies as copies
from ml4f.frontend import importer_masks as masks
from ml4f.frontend import importer_recurrent as recurrent
from ml4f.frontend import importer_shapes as shape_ops
from ml4f.frontend import importer_windows as windows
from ml4f.frontend.importer import Flattened, Importer, Node, NotSupported, Tensor

# Activations


def _activation(name: str, *parameters: tuple[str, float]) -> Callable[[Importer, Node], None]:
    """An activation whose parameters are attributes with defaults."""

    def handle(importer: Importer, node: Node) -> None:
        arithmetic.emit_activation(importer, node, name, [float(node.get(p, default)) for p, default in parameters])

    return handle


def clip(importer: Importer, node: Node) -> None:
    """Clip with constant bounds, as attributes (opset < 11) or inputs."""
    bounds = [float(node.get("min", -math.inf)), float(node.get("max", math.inf))]
    for index, name in enumerate(node.proto.input[1:3]):
        if name:
            constant = importer.const(name)
            if constant is None:
                raise NotSupported("the bounds must be constants")
            bounds[index] = float(constant.reshape(-1)[0])
    largest = float(np.finfo(np.float32).max)
    low, high = (-math.inf if bounds[0] <= -largest else bounds[0]), (math.inf if bounds[1] >= largest else bounds[1])
    if low > high:
        low = high
    if (low, high) == (-math.inf, math.inf):
        shape_ops.identity(importer, node)
    elif (low, high) == (0, math.inf):
        arithmetic.emit_activation(importer, node, "relu")
    elif (low, high) == (0, 6):
        arithmetic.emit_activation(importer, node, "relu6")
    else:
        arithmetic.emit_activation(importer, node, "clip", [low, high])


def gelu(importer: Importer, node: Node) -> None:
    """Gelu, exact or with the tanh approximation."""
    arithmetic.emit_activation(importer, node, "gelu_tanh" if node.get("approximate", "none") == "tanh" else "gelu")


def prelu(importer: Importer, node: Node) -> None:
    """PRelu with a constant slope."""
    slope = importer.const(node.proto.input[1])
    if slope is None:
        raise NotSupported("the slope must be a constant")
    x = importer.tensor(node.proto.input[0])
    if slope.size == 1:
        arithmetic.emit_activation(importer, node, "leaky_relu", [float(slope.reshape(-1)[0])])
        return
    operand = importer.constant(arithmetic.aligned_constant(slope, x))
    source = importer.reshaped(x.value, x.memory_shape)
    importer.result(
        node.proto.output[0],
        Tensor(importer.emit(nn.PreluOp, [source, operand], x.memory_shape), x.shape, x.order),
    )


def softmax(importer: Importer, node: Node) -> None:
    """Softmax; before opset 13 over all dimensions from the axis on."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    axis = int(node.get("axis", -1 if importer.opset >= 13 else 1)) % max(rank, 1)
    if importer.opset < 13 and prod(x.shape[axis + 1 :]) > 1:
        x = importer.in_order(x)
        outer = prod(x.shape[:axis])
        source = importer.reshaped(x.value, (outer, prod(x.shape[axis:])))
        value = importer.emit(nn.SoftmaxOp, [source], nn.shape_of(source), axis=IntegerAttr(1, i64))
    else:
        ordered = x.ordered
        source = importer.reshaped(x.value, ordered)
        value = importer.emit(nn.SoftmaxOp, [source], ordered, axis=IntegerAttr(x.order.index(axis), i64))
    importer.result(node.proto.output[0], Tensor(value, x.shape, x.order))


def log_softmax(importer: Importer, node: Node) -> None:
    """x - max - log(sum(exp(x - max))), which does not lose small probabilities."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    axis = int(node.get("axis", -1 if importer.opset >= 13 else 1)) % max(rank, 1)
    if importer.opset < 13 and prod(x.shape[axis + 1 :]) > 1:
        raise NotSupported("over several dimensions; export the model with opset 13 or newer")
    ordered, position = x.ordered, x.order.index(axis)
    shape = (prod(ordered[:position]), ordered[position], prod(ordered[position + 1 :]))
    value = importer.reshaped(x.value, shape)
    rows = (shape[0], shape[2])

    def reduced(operand: SSAValue, kind: str) -> SSAValue:
        return importer.emit(nn.ReduceOp, [operand], rows, axes=numbers([1]), kind=StringAttr(kind))

    def minus_row(operand: SSAValue, row: SSAValue) -> SSAValue:
        return importer.emit(nn.SubOp, [operand, importer.reshaped(row, (shape[0], 1, shape[2]))], shape)

    def applied(operand: SSAValue, name: str, extents: tuple[int, ...]) -> SSAValue:
        return importer.emit(nn.ActivationOp, [operand], extents, act=ActAttr.of(name))

    shifted = minus_row(value, reduced(value, "max"))
    total = applied(reduced(applied(shifted, "exp", shape), "sum"), "log", rows)
    importer.result(node.proto.output[0], Tensor(minus_row(shifted, total), x.shape, x.order))


# Dense layers


def dense(importer: Importer, node: Node, x_name: str, weights: np.ndarray, bias: np.ndarray | None) -> None:
    """`x @ weights + bias` over the last axis of x."""
    value = importer.tensors[x_name]
    inputs, outputs = weights.shape
    if not value.shape or value.shape[-1] != inputs:
        raise NotSupported(f"weights {list(weights.shape)} do not fit the input {list(value.shape)}")
    rows = prod(value.shape[:-1])
    if isinstance(value, Flattened) and rows == 1:
        base = value.base
        weights = weights[memory_positions(base)]
        source, order = base.value, tuple(range(len(value.shape)))
    else:
        x = importer.tensor(x_name)
        last = len(x.shape) - 1
        if x.significant and x.shape[last] > 1 and x.significant[-1] != last:
            x = importer.in_order(x)
        order = (*(axis for axis in x.order if axis != last), last)
        source = x.value
    shape = (inputs,) if rows == 1 else (rows, inputs)
    operands = [importer.reshaped(source, shape), importer.constant(weights)]
    if bias is not None:
        operands.append(importer.constant(np.broadcast_to(bias.reshape(-1), (outputs,))))
    made = importer.emit(nn.DenseOp, operands, (*shape[:-1], outputs))
    importer.result(node.proto.output[0], Tensor(made, (*value.shape[:-1], outputs), order))


def memory_positions(tensor: Tensor) -> np.ndarray:
    """For each element in memory its position in the tensor's own order."""
    return np.arange(prod(tensor.shape)).reshape(tensor.shape).transpose(tensor.order).ravel()


def gemm(importer: Importer, node: Node) -> None:
    """Gemm with constant B and C."""
    names = [*node.proto.input, ""]
    weights, bias = importer.const(names[1]), importer.const(names[2])
    if weights is None or (names[2] and bias is None):
        raise NotSupported("the second and third operand must be constants")
    if node.get("transA", 0):
        raise NotSupported("a transposed first operand")
    if node.get("transB", 0):
        weights = weights.T
    weights = weights * np.float32(node.get("alpha", 1.0))
    if bias is not None:
        bias = bias * np.float32(node.get("beta", 1.0))
        if bias.ndim > 1 and prod(bias.shape[:-1]) != 1:
            raise NotSupported(f"a bias of shape {list(bias.shape)}")
    dense(importer, node, names[0], weights, bias)


def matmul(importer: Importer, node: Node) -> None:
    """MatMul with constant weights on the right."""
    weights = importer.const(node.proto.input[1])
    if weights is None or node.proto.input[0] in importer.constants:
        raise NotSupported("one operand must be computed and the right one constant")
    if weights.ndim == 1:
        raise NotSupported("a vector on the right")
    if prod(weights.shape[:-2]) != 1:
        raise NotSupported(f"weights of shape {list(weights.shape)}")
    dense(importer, node, node.proto.input[0], weights.reshape(weights.shape[-2:]), None)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **masks.HANDLERS,
    **copies.HANDLERS,
    **recurrent.HANDLERS,
    "Abs": _activation("abs"),
    "Add": arithmetic.binary(nn.AddOp),
    "AveragePool": windows.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Ceil": _activation("ceil"),
    "Celu": _activation("celu", ("alpha", 1.0)),
    "Clip": clip,
    "Concat": shape_ops.concat,
    "Conv": windows.conv,
    "Div": arithmetic.binary(nn.DivOp),
    "Dropout": shape_ops.identity,
    "Elu": _activation("elu", ("alpha", 1.0)),
    "Erf": _activation("erf"),
    "Exp": _activation("exp"),
    "Flatten": shape_ops.flatten,
    "Floor": _activation("floor"),
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": windows.global_pool,
    "GlobalMaxPool": windows.global_pool,
    "HardSigmoid": _activation("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": _activation("hard_swish"),
    "Identity": shape_ops.identity,
    "LeakyRelu": _activation("leaky_relu", ("alpha", 0.01)),
    "Log": _activation("log"),
    "LogSoftmax": log_softmax,
    "MatMul": matmul,
    "Max": arithmetic.variadic(nn.MaxOp),
    "MaxPool": windows.max_pool,
    "Min": arithmetic.variadic(nn.MinOp),
    "Mish": _activation("mish"),
    "Mul": arithmetic.binary(nn.MulOp),
    "Neg": _activation("neg"),
    "PRelu": prelu,
    "Pad": shape_ops.pad,
    "Pow": arithmetic.power,
    "Reciprocal": _activation("reciprocal"),
    "ReduceMax": windows.reduce,
    "ReduceMean": windows.reduce,
    "ReduceMin": windows.reduce,
    "ReduceProd": windows.reduce,
    "ReduceSum": windows.reduce,
    "Relu": _activation("relu"),
    "Reshape": shape_ops.reshape,
    "Round": _activation("round"),
    "Selu": _activation("selu", ("alpha", 1.6732631921768188), ("gamma", 1.0507010221481323)),
    "Sigmoid": _activation("sigmoid"),
    "Sign": _activation("sign"),
    "Slice": shape_ops.slice_,
    "Softmax": softmax,
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Sqrt": _activation("sqrt"),
    "Squeeze": shape_ops.squeeze,
    "Sub": arithmetic.binary(nn.SubOp),
    "Sum": arithmetic.variadic(nn.AddOp),
    "Tanh": _activation("tanh"),
    "ThresholdedRelu": _activation("thresholded_relu", ("alpha", 1.0)),
    "Transpose": shape_ops.transpose,
    "Unsqueeze": shape_ops.unsqueeze,
}
"""ONNX operator → the function that emits it."""
