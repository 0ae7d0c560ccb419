"""Handlers of MatMul, Gemm and ConvTranspose, with constant or computed operands; `dense` for constant matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, UnitAttr, i64
from xdsl.ir import SSAValue

from ml4f.dialects.nn import contraction_ops, numbers, shapes
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_batches import one_by_one
from ml4f.frontend.importer_computed import backward_kernel, spread
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import Flattened, NotSupported, Tensor
from ml4f.frontend.importer_windows import (
    channels_last,
    check_kernel,
    check_weights,
    constant_weights,
    two,
    window_result,
)


def dense(
    importer: Importer, node: Node, x_name: str, weights: np.ndarray, bias: np.ndarray | None, output: str | None = None
) -> None:
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
    importer.result(output or node.proto.output[0], Tensor(made, (*value.shape[:-1], outputs), order))


def memory_positions(tensor: Tensor) -> np.ndarray:
    """For each element in memory its position in the tensor's own order."""
    return np.arange(prod(tensor.shape)).reshape(tensor.shape).transpose(tensor.order).ravel()


def transposed(tensor: Tensor) -> Tensor:
    """Its last two axes exchanged: free."""
    rank = len(tensor.shape)
    exchange = {rank - 1: rank - 2, rank - 2: rank - 1}
    shape = (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])
    return Tensor(tensor.value, shape, tuple(exchange.get(axis, axis) for axis in tensor.order))


def as_matrices(importer: Importer, tensor: Tensor) -> tuple[SSAValue, bool]:
    """[..., m, k] in memory order but for the last two axes, and whether those lie exchanged."""
    rank = len(tensor.shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    significant = [axis for axis in swapped if tensor.shape[axis] > 1]
    if list(tensor.significant) == significant and tensor.shape[-1] > 1 and tensor.shape[-2] > 1:
        return importer.reshaped(tensor.value, [tensor.shape[axis] for axis in swapped]), True
    return importer.reshaped(importer.in_order(tensor).value, tensor.shape), False


def product(importer: Importer, a: Tensor, b: Tensor) -> Tensor:
    """a [..., m, k] times b [..., k, n]."""
    left, left_swapped = as_matrices(importer, a)
    right, right_swapped = as_matrices(importer, b)
    shape = shapes.matmul(a.shape, b.shape)
    value = importer.emit(
        contraction_ops.MatmulOp,
        [left, right],
        shape,
        transpose_a=UnitAttr() if left_swapped else None,
        transpose_b=UnitAttr() if right_swapped else None,
    )
    return Tensor(value, shape, tuple(range(len(shape))))


def is_matrix(weights: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether constant weights are one matrix and add no axes to the other operand's shape."""
    return weights.ndim >= 2 and prod(weights.shape[:-2]) == 1 and weights.ndim <= max(len(shape), 2)


def matmul(importer: Importer, node: Node) -> None:
    """MatMul: a constant matrix on the right is a dense layer; vectors are matrices of one row or column."""
    left, right = node.proto.input
    weights = importer.const(right)
    if weights is not None and left not in importer.constants and is_matrix(weights, importer.shape(left)):
        dense(importer, node, left, weights.reshape(weights.shape[-2:]), None)
        return
    a, b = importer.tensor(left), importer.tensor(right)
    rows, columns = len(a.shape) > 1, len(b.shape) > 1
    if not rows:
        a = Tensor(a.value, (1, *a.shape), (0, 1))
    if not columns:
        b = Tensor(b.value, (*b.shape, 1), (0, 1))
    made = product(importer, a, b)
    kept = [axis for axis in range(len(made.shape)) if not (axis == len(made.shape) - 2 and not rows)]
    kept = [axis for axis in kept if not (axis == len(made.shape) - 1 and not columns)]
    shape = tuple(made.shape[axis] for axis in kept)
    importer.result(node.proto.output[0], Tensor(made.value, shape, tuple(range(len(shape)))))


def gemm(importer: Importer, node: Node) -> None:
    """`alpha * a @ b + beta * c`, each of them constant or computed, a and b transposed or not."""
    names = [*node.proto.input, ""]
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    steps = Steps(importer, node)
    output = node.proto.output[0]
    weights, bias = importer.const(names[1]), importer.const(names[2])
    left = names[0]
    if node.get("transA", 0):
        left = steps.value(transposed(importer.tensor(left)))
    is_row = bias is not None and (bias.ndim == 0 or bias.size == bias.shape[-1])
    added = names[2] if names[2] and not is_row else ""
    product_name = steps.fresh() if added else output
    if weights is not None and left not in importer.constants:
        weights = (weights.T if node.get("transB", 0) else weights) * np.float32(alpha)
        row = bias * np.float32(beta) if bias is not None and is_row else None
        dense(importer, node, left, weights, row, product_name)
    else:
        right = importer.tensor(names[1])
        right = transposed(right) if node.get("transB", 0) else right
        made = product(importer, importer.tensor(left), right)
        value = steps.value(made)
        scaled = added or is_row
        if alpha != 1:
            value = steps.binary(nn.MulOp, value, alpha, None if scaled else output)
        elif not scaled:
            importer.result(output, made)
        if not scaled:
            return
        added, product_name = names[2], value
    if added:
        summand = added if beta == 1 else steps.binary(nn.MulOp, added, beta)
        steps.binary(nn.AddOp, product_name, summand, output)


def conv_transpose(importer: Importer, node: Node) -> None:
    """ConvTranspose with weights [c, f / groups, …], 1-D to 3-D."""
    shape, extents = importer.shape(node.proto.input[0]), check_weights(importer, node)[2:]
    groups = int(node.get("group", 1))
    check_kernel(node, extents)
    window = TransposedWindow(node, shape[2:], extents)
    constants = constant_weights(importer, node)
    if len(shape) == 5 or constants is None or min(window.pads) < 0:
        _conv_transpose_backwards(importer, node, groups, window)
        return
    weights, bias = constants
    tensor, x, extents = channels_last(importer, node.proto.input[0])
    kernel_last = weights.reshape(*weights.shape[:2], *window.kernel).transpose(2, 3, 0, 1)
    out = shapes.conv_transpose2d(
        extents, kernel_last.shape, window.strides, window.dilations, window.pads, window.output_pads, groups
    )
    operands = [x, importer.constant(kernel_last)]
    if bias is not None:
        operands.append(importer.constant(bias.reshape(-1)))
    value = importer.emit(
        contraction_ops.ConvTranspose2dOp,
        operands,
        out,
        strides=numbers(window.strides),
        dilations=numbers(window.dilations),
        pads=numbers(window.pads),
        output_pads=numbers(window.output_pads),
        groups=IntegerAttr(groups, i64),
    )
    window_result(importer, node, value, out[:2], out[2], len(tensor.shape))


class TransposedWindow:
    """Kernel, strides, dilations, pads and output pads of a ConvTranspose; one axis counts as two."""

    def __init__(self, node: Node, size: Sequence[int], kernel: Sequence[int]):
        rank = len(kernel)
        self.size, self.kernel = two(size, 1), two(kernel, 1)
        self.axes = len(self.kernel)
        self.strides = two(node.ints("strides", (1,) * rank), 1)
        self.dilations = two(node.ints("dilations", (1,) * rank), 1)
        self.output_pads = two(node.ints("output_padding", (0,) * rank), 0)
        given = node.ints("pads", (0,) * (2 * rank))
        self.pads = [*two(given[:rank], 0), *two(given[rank:], 0)]
        wanted = two(node.ints("output_shape"), 1) if "output_shape" in node.attributes else None
        mode = node.get("auto_pad", "NOTSET")
        if mode == "VALID":
            self.pads = [0] * len(self.pads)
        elif mode in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
            wanted = [n * stride for n, stride in zip(self.size, self.strides, strict=True)]
        if wanted is not None:
            self._fit(wanted, mode)

    def _fit(self, wanted: Sequence[int], mode: str) -> None:
        """Pads and output pads that give the wanted extents."""
        axes = len(self.kernel)
        for i in range(axes):
            total = self.strides[i] * (self.size[i] - 1) + self.output_pads[i] + self.reach(i) - wanted[i]
            if total < 0:
                self.output_pads[i] -= total
                total = 0
            small, large = total // 2, total - total // 2
            self.pads[i], self.pads[i + axes] = (small, large) if mode == "SAME_UPPER" else (large, small)

    def reach(self, axis: int) -> int:
        """The extent of the dilated kernel."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def _conv_transpose_backwards(importer: Importer, node: Node, groups: int, window: TransposedWindow) -> None:
    """A convolution of the input with zeros between its elements, the kernel backwards."""
    steps, (source, weights, *bias) = Steps(importer, node), node.proto.input
    rank = len(importer.shape(source)) - 2
    if groups < 1 or importer.shape(source)[1] % groups or importer.shape(weights)[0] != importer.shape(source)[1]:
        raise NotSupported(f"weights {list(importer.shape(weights))} in {groups} groups do not fit the input")
    value = spread(steps, source, window.strides[-rank:])
    axes = range(window.axes - rank, window.axes)
    low = [window.reach(i) - 1 - window.pads[i] for i in axes]
    high = [window.reach(i) - 1 - window.pads[i + window.axes] + window.output_pads[i] for i in axes]
    value = steps.operator("Pad", value, steps.whole([0, 0, *low, 0, 0, *high]))
    kernel, dilations = backward_kernel(steps, weights, groups), list(window.dilations[-rank:])
    steps.operator("Conv", value, kernel, *bias, output=node.proto.output[0], group=groups, dilations=dilations)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "ConvTranspose": one_by_one(conv_transpose),
    "Gemm": gemm,
    "MatMul": matmul,
}
"""ONNX operator → the function that emits it."""
