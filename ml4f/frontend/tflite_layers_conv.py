"""Convolutions, pools and dense layers of TensorFlow Lite in ONNX. Images are channels last there, and stay so here."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ml4f.frontend.keras_builder import Refused, Value
from ml4f.frontend.keras_layers_conv import window_extents, window_pads
from ml4f.frontend.tflite_activations import activated
from ml4f.frontend.tflite_onnx import Operand, OperatorContext, Spread, Translation, check_image

PADDINGS = ("same", "valid")


def _window_options(c: OperatorContext) -> tuple[str, list[int], list[int]]:
    padding = PADDINGS[c.operator.option("Padding", 0)]
    strides = [c.operator.option("StrideH", 1), c.operator.option("StrideW", 1)]
    has = hasattr(c.operator.options, "DilationHFactor")
    dilations = [c.operator.option(f"Dilation{d}Factor", 1) for d in "HW"] if has else [1, 1]
    return padding, strides, dilations


def _convolve(c: OperatorContext, kernel: np.ndarray, groups: int) -> Operand:
    """A kernel [filters, channels / groups, height, width] on an image, or on one that was spread over a batch."""
    found = c.operands[0]
    padding, strides, dilations = _window_options(c)
    spread = found if isinstance(found, Spread) else None
    if spread is not None:
        if padding != "valid" or strides != [1, 1] or dilations != [1, 1]:
            raise Refused("its input was spread over a batch, and it pads, or has strides or dilations itself")
        for axis, block in zip(spread.axes, spread.blocks, strict=True):
            dilations[axis - 1] = block
    x = spread.x if spread is not None else c.value(0)
    check_image(x)
    if x.shape[3] != kernel.shape[1] * groups:
        raise Refused(f"{x.shape[3]} channels do not fit weights {list(kernel.shape)}")
    bias = c.optional(2)
    moved = c.transpose(x, (0, 3, 1, 2))
    window = kernel.shape[2:]
    pads = window_pads(padding, moved.shape[2:], window, strides, dilations)
    extents = window_extents(moved.shape[2:], window, strides, dilations, pads)
    operands = [moved, np.ascontiguousarray(kernel), *([] if bias is None else [bias.reshape(-1)])]
    options: dict[str, Any] = {"kernel_shape": list(window), "strides": strides, "dilations": dilations}
    made = c.emit("Conv", operands, (1, kernel.shape[0], *extents), pads=pads, group=groups, **options)
    y = activated(c, c.transpose(made, (0, 2, 3, 1)))
    return Spread(y, spread.axes, spread.blocks) if spread is not None else y


def _conv(c: OperatorContext) -> Operand:
    kernel = c.constant(1).transpose(0, 3, 1, 2)
    found = c.operands[0]
    channels = (found.x if isinstance(found, Spread) else c.value(0)).shape[-1]
    return _convolve(c, kernel, channels // kernel.shape[1] if channels % kernel.shape[1] == 0 else 1)


def _depthwise(c: OperatorContext) -> Operand:
    found = c.operands[0]
    channels = (found.x if isinstance(found, Spread) else c.value(0)).shape[-1]
    return _convolve(c, c.constant(1).transpose(3, 0, 1, 2), channels)


def _transpose_conv(c: OperatorContext) -> Value:
    """Operands: the output's shape, weights [filters, height, width, channels], the input, a bias."""
    x, kernel = c.value(2), c.constant(1)
    check_image(x)
    size = c.whole_numbers(0)
    padding, strides, _ = _window_options(c)
    starts, ends, missing = [], [], []
    for n, k, s, out in zip(x.shape[1:3], kernel.shape[1:3], strides, size[1:3], strict=True):
        reach = (n - 1) * s + k
        total = max(0, reach - out)
        if padding == "valid" and total:
            raise Refused(f"its output {size} does not fit its padding")
        starts.append(total // 2)
        ends.append(total - total // 2)
        missing.append(out - (reach - total))
    bias = c.optional(3)
    made = c.emit(
        "ConvTranspose",
        [
            c.transpose(x, (0, 3, 1, 2)),
            np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)),
            *([] if bias is None else [bias.reshape(-1)]),
        ],
        (1, kernel.shape[0], *size[1:3]),
        kernel_shape=list(kernel.shape[1:3]),
        strides=strides,
        pads=[*starts, *ends],
        output_padding=missing,
    )
    return activated(c, c.transpose(made, (0, 2, 3, 1)))


def _pool(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        x = c.value(0)
        check_image(x)
        padding, strides, _ = _window_options(c)
        window = [c.operator.option("FilterHeight", 1), c.operator.option("FilterWidth", 1)]
        moved = c.transpose(x, (0, 3, 1, 2))
        pads = window_pads(padding, moved.shape[2:], window, strides, (1, 1))
        extents = window_extents(moved.shape[2:], window, strides, (1, 1), pads)
        shape = (1, moved.shape[1], *extents)
        made = c.emit(op_type, [moved], shape, kernel_shape=window, strides=strides, pads=pads)
        return activated(c, c.transpose(made, (0, 2, 3, 1)))

    return translate


def _fully_connected(c: OperatorContext) -> Value:
    x, weights, bias = c.value(0), c.constant(1), c.optional(2)
    if weights.ndim != 2 or c.operator.option("WeightsFormat", 0):
        raise Refused(f"weights {list(weights.shape)} in a shuffled format")
    outputs, inputs = weights.shape
    if prod(x.shape) % inputs:
        raise Refused(f"weights {list(weights.shape)} do not fit the input")
    rows = prod(x.shape) // inputs
    flat = c.reshape(x, (rows, inputs))
    operands = [flat, np.ascontiguousarray(weights.T), *([] if bias is None else [bias.reshape(-1)])]
    y = c.emit("Gemm", operands, (rows, outputs))
    if c.operator.option("KeepNumDims", False):
        y = c.reshape(y, (*x.shape[:-1], outputs))
    return activated(c, y)


def _batch_matmul(c: OperatorContext) -> Value:
    """`adj_x`, `adj_y`: the matrices are transposed."""
    operands: list[Value | np.ndarray] = []
    for index, field in ((0, "AdjX"), (1, "AdjY")):
        operand = c.either(index)
        if c.operator.option(field, False):
            order = [*range(len(operand.shape) - 2), len(operand.shape) - 1, len(operand.shape) - 2]
            operand = c.transpose(operand, order) if isinstance(operand, Value) else operand.transpose(order)
        operands.append(operand)
    a, b = operands
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return c.emit("MatMul", operands, (*outer, a.shape[-2], b.shape[-1]))


OPERATORS: dict[str, Translation] = {
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _pool("MaxPool"),
    "TRANSPOSE_CONV": _transpose_conv,
}
"""TensorFlow Lite operator → translation."""
