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
from ml4f.frontend import importer_attention as attention
from ml4f.frontend import importer_contractions as contractions
from ml4f.frontend import importer_control_flow as control_flow
from ml4f.frontend import importer_copies as copies
from ml4f.frontend import importer_einsum as einsum
from ml4f.frontend import importer_functions as functions
from ml4f.frontend import importer_integers as integers
from ml4f.frontend import importer_lookups as lookups
from ml4f.frontend import importer_masks as masks
from ml4f.frontend import importer_matrices as matrices
from ml4f.frontend import importer_pool_indices as pool_indices
from ml4f.frontend import importer_recurrent as recurrent
from ml4f.frontend import importer_reductions as reductions
from ml4f.frontend import importer_sampling as sampling
from ml4f.frontend import importer_scatter as scatter
from ml4f.frontend import importer_selections as selections
from ml4f.frontend import importer_sequences as sequences
from ml4f.frontend import importer_shapes as shape_ops
from ml4f.frontend import importer_shuffles as shuffles
from ml4f.frontend import importer_spectra as spectra
from ml4f.frontend import importer_windows as windows
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_batches import one_by_one
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import NotSupported, Tensor

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
    """PRelu; a constant slope is an operand of one operation."""
    slope = importer.const(node.proto.input[1])
    if slope is None:
        functions.computed_prelu(importer, node)
        return
    x = importer.tensor(node.proto.input[0])
    if np.broadcast_shapes(slope.shape, x.shape) != x.shape:
        raise NotSupported(f"slopes {list(slope.shape)} for {list(x.shape)}")
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
    if importer.opset < 13:  # over all dimensions from the axis on
        x = importer.in_order(x)
        shape = (prod(x.shape[:axis]), prod(x.shape[axis:]), 1)
    else:
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


def max_pool(importer: Importer, node: Node) -> None:
    """MaxPool; its indices only if something reads them."""
    names = [*node.proto.output, ""]
    if importer.is_read(names[1]):
        pool_indices.pool_indices(importer, node, names[1])
    if importer.is_read(names[0]):
        one_by_one(windows.max_pool)(importer, node)


CIRCULAR = ("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan")
"""Operators whose names are the activations' but for the capital letter."""

HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **{name: _activation(name.lower()) for name in CIRCULAR},
    **masks.HANDLERS,
    **copies.HANDLERS,
    **recurrent.HANDLERS,
    **control_flow.HANDLERS,
    **functions.HANDLERS,
    **einsum.HANDLERS,
    **contractions.HANDLERS,
    **reductions.HANDLERS,
    **shuffles.HANDLERS,
    **lookups.HANDLERS,
    **selections.HANDLERS,
    **scatter.HANDLERS,
    **attention.HANDLERS,
    **sampling.HANDLERS,
    **matrices.HANDLERS,
    **sequences.HANDLERS,
    **integers.HANDLERS,
    **spectra.HANDLERS,
    **pool_indices.HANDLERS,
    "Abs": _activation("abs"),
    "Add": arithmetic.binary(nn.AddOp),
    "AveragePool": one_by_one(windows.average_pool),
    "BatchNormalization": arithmetic.batch_normalization,
    "Ceil": _activation("ceil"),
    "Celu": _activation("celu", ("alpha", 1.0)),
    "Clip": lambda importer, node: functions.clip(importer, node, clip),
    "Concat": shape_ops.concat,
    "Conv": one_by_one(windows.conv),
    "Div": arithmetic.binary(nn.DivOp),
    "Dropout": shape_ops.dropout,
    "Elu": _activation("elu", ("alpha", 1.0)),
    "Erf": _activation("erf"),
    "Exp": _activation("exp"),
    "Flatten": shape_ops.flatten,
    "Floor": _activation("floor"),
    "Gelu": gelu,
    "GlobalAveragePool": one_by_one(windows.global_pool),
    "GlobalMaxPool": one_by_one(windows.global_pool),
    "HardSigmoid": _activation("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": _activation("hard_swish"),
    "Identity": shape_ops.identity,
    "LeakyRelu": _activation("leaky_relu", ("alpha", 0.01)),
    "Log": _activation("log"),
    "LogSoftmax": log_softmax,
    "Max": arithmetic.variadic(nn.MaxOp),
    "MaxPool": max_pool,
    "Min": arithmetic.variadic(nn.MinOp),
    "Mish": _activation("mish"),
    "Mul": arithmetic.binary(nn.MulOp),
    "Neg": _activation("neg"),
    "PRelu": prelu,
    "Reciprocal": _activation("reciprocal"),
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
