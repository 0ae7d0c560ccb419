"""Handlers of ONNX's elementwise arithmetic, and what other handlers emit it with: `combine`, `emit_activation`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.ir import SSAValue

from ml4f.dialects.nn import ActAttr
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import identity
from ml4f.frontend.importer_values import Flattened, NotSupported, Tensor, Value


def emit_activation(
    importer: Importer,
    node: Node,
    name: str,
    parameters: Sequence[float] = (),
    source: str | None = None,
    output: str | None = None,
) -> None:
    """One nn.activation in whatever order the input lies; of the node's input and output unless others are named."""
    value = importer.value(node.proto.input[0] if source is None else source)
    base = value.base if isinstance(value, Flattened) else value
    act = ActAttr.of(name, parameters)
    made = importer.emit(nn.ActivationOp, [base.value], nn.shape_of(base.value), act=act)
    tensor = Tensor(made, base.shape, base.order)
    result: Value = Flattened(tensor, value.shape) if isinstance(value, Flattened) else tensor
    importer.result(node.proto.output[0] if output is None else output, result)


def aligned_constant(array: np.ndarray, x: Tensor, batch: bool | None = None) -> np.ndarray:
    """A constant that broadcasts against the tensor's memory shape; `batch`: whether that has axis 0."""
    rank = len(x.shape)
    batch = len(x.memory_shape) == rank if batch is None else batch
    expanded = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(x.order)
    return expanded.reshape([expanded.shape[i] for i, axis in enumerate(x.order) if batch or axis])


def combine(
    importer: Importer, node: Node, op: type[nn.BinaryOp], left: str, right: str, output: str | None = None
) -> None:
    """An elementwise operation of two values with broadcasting; the result is the node's unless another is named."""
    names = (left, right)
    constants = [importer.const(name) for name in names]
    lead = 1 if constants[0] is not None else 0
    shapes = [importer.shape(name) for name in names]
    shape = np.broadcast_shapes(*shapes)
    if constants[lead] is None and constants[1 - lead] is None and prod(shapes[0]) < prod(shapes[1]):
        lead = 1
    x = expanded(importer.tensor(names[lead]), len(shape))
    batch = len(shape) < 2 or shape[0] != 1
    axes = [axis for axis in x.order if batch or axis]
    other = constants[1 - lead]
    operands: list[SSAValue] = [x.value, x.value]
    if other is not None:
        operands[1 - lead] = importer.constant(aligned_constant(np.asarray(other, dtype=np.float32), x, batch))
    else:
        y = importer.arranged(expanded(importer.tensor(names[1 - lead]), len(shape)), x.order)
        operands[1 - lead] = importer.reshaped(y.value, [y.shape[axis] for axis in axes])
    operands[lead] = importer.reshaped(x.value, [x.shape[axis] for axis in axes])
    value = importer.emit(op, operands, tuple(shape[axis] for axis in axes))
    importer.result(node.proto.output[0] if output is None else output, Tensor(value, tuple(shape), x.order))


def binary(op: type[nn.BinaryOp]) -> Callable[[Importer, Node], None]:
    """Arithmetic of two values."""

    def handle(importer: Importer, node: Node) -> None:
        combine(importer, node, op, node.proto.input[0], node.proto.input[1])

    return handle


def expanded(tensor: Tensor, rank: int) -> Tensor:
    """With axes of extent 1 in front."""
    extra = rank - len(tensor.shape)
    order = (*range(extra), *(axis + extra for axis in tensor.order))
    return Tensor(tensor.value, (1,) * extra + tensor.shape, order)


def variadic(op: type[nn.BinaryOp]) -> Callable[[Importer, Node], None]:
    """Sum, Max, Min of any number of inputs."""

    def handle(importer: Importer, node: Node) -> None:
        names = list(node.proto.input)
        if len(names) == 1:
            identity(importer, node)
            return
        output = node.proto.output[0]
        accumulated = names[0]
        for index, name in enumerate(names[1:], 1):
            combine(importer, node, op, accumulated, name)
            if index < len(names) - 1:
                accumulated = f"{output}/{index}"
                importer.tensors[accumulated] = importer.tensors.pop(output)

    return handle


def power(importer: Importer, node: Node) -> None:
    """Pow with the exponents 1, 2, 3, 0.5 and -1."""
    exponent = importer.const(node.proto.input[1])
    functions = {1.0: "linear", 2.0: "square", 3.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    uniform = exponent is not None and len(np.unique(exponent)) == 1
    value = float(exponent.reshape(-1)[0]) if exponent is not None and uniform else math.nan
    if value not in functions:
        raise NotSupported("the exponent must be the constant 1, 2, 3, 0.5 or -1")
    base, output = node.proto.input[0], node.proto.output[0]
    if value != 3.0:
        emit_activation(importer, node, functions[value])
        return
    emit_activation(importer, node, "square", (), base, f"{output}/square")
    combine(importer, node, nn.MulOp, base, f"{output}/square", output)


def batch_normalization(importer: Importer, node: Node) -> None:
    """In inference form: scale = gamma / sqrt(variance + epsilon), offset = beta - mean * scale."""
    parameters = [importer.const(name) for name in node.proto.input[1:5]]
    if len(parameters) != 4 or node.get("training_mode", 0):
        raise NotSupported("it normalises by its input, as in training; export the model for inference")
    if any(p is None for p in parameters):
        from ml4f.frontend.importer_computed import batch_normalization as computed

        computed(importer, node)
        return
    gamma, beta, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
    scale = gamma / np.sqrt(variance + float(node.get("epsilon", 1e-5)))
    offset = beta - mean * scale
    x = importer.tensor(node.proto.input[0])
    affine(importer, node, x, scale, offset, 1 if len(x.shape) > 1 else 0)


def affine(importer: Importer, node: Node, x: Tensor, scale: np.ndarray, offset: np.ndarray, axis: int) -> None:
    """`x * scale + offset` along an axis, as one operation if that axis is last in memory."""
    if x.shape[axis] != scale.size:
        raise NotSupported(f"{scale.size} parameters for {x.shape[axis]} channels")
    if not x.significant or x.significant[-1] == axis or x.shape[axis] == 1:
        shape = (prod(x.shape) // scale.size, scale.size) if scale.size != prod(x.shape) else (scale.size,)
        shape = x.memory_shape if x.memory_shape and x.memory_shape[-1] == scale.size else shape
        operands = [importer.reshaped(x.value, shape), importer.constant(scale), importer.constant(offset)]
        value = importer.emit(nn.BatchNormOp, operands, shape)
    else:
        per_axis = [scale.size if a == axis else 1 for a in range(len(x.shape))]
        source = importer.reshaped(x.value, x.memory_shape)
        factors = importer.constant(aligned_constant(scale.reshape(per_axis), x))
        value = importer.emit(nn.MulOp, [source, factors], x.memory_shape)
        summands = importer.constant(aligned_constant(offset.reshape(per_axis), x))
        value = importer.emit(nn.AddOp, [value, summands], x.memory_shape)
    importer.result(node.proto.output[0], Tensor(value, x.shape, x.order))
