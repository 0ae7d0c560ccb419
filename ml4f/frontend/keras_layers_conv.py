"""Keras convolutions as ONNX Conv: plain in one to three dimensions, depthwise, separable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ml4f.frontend.keras_activations import activate
from ml4f.frontend.keras_builder import LayerContext, Refused, Value


def window_pads(
    padding: object, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """ONNX pads, all starts, then all ends. 'same' is TensorFlow's rule: the odd element goes to the end."""
    starts, ends = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        reach = (k - 1) * d + 1
        if padding == "same":
            total = max(0, (-(-n // s) - 1) * s + reach - n)
            starts.append(total // 2)
            ends.append(total - total // 2)
        elif padding == "causal" and len(size) == 1:
            starts.append(reach - 1)
            ends.append(0)
        elif padding == "valid":
            starts.append(0)
            ends.append(0)
        else:
            raise Refused(f"its padding is {str(padding)[:80]}; valid and same are supported, causal in one dimension")
    return [*starts, *ends]


def window_extents(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> list[int]:
    """Positions of the window along each axis."""
    rank = len(size)
    extents = []
    for i, (n, k, s, d) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
        available = n + pads[i] + pads[i + rank] - (k - 1) * d - 1
        if available < 0:
            raise Refused(
                f"its window of {(k - 1) * d + 1} does not fit the {n} elements of the input; use padding='same'"
            )
        extents.append(available // s + 1)
    return extents


def spatial_input(c: LayerContext, inputs: Sequence[Value], rank: int) -> tuple[Value, bool]:
    """The only input as [1, channels, …], and whether the layer itself has channels first."""
    (x,) = inputs
    if x.rank != rank + 2:
        raise Refused(f"the input should have {rank + 1} dimensions besides the batch; put a Reshape in front")
    first = c.channels_first()
    return c.to_channels_first(x, first), first


def _convolve(
    c: LayerContext,
    x: Value,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Value:
    """Conv of [1, channels, …] with a kernel [filters, channels / groups, …]."""
    size, window = x.shape[2:], kernel.shape[2:]
    pads = window_pads(c.get("padding", "valid"), size, window, strides, dilations)
    extents = window_extents(size, window, strides, dilations, pads)
    operands = [x, kernel] if bias is None else [x, kernel, bias]
    return c.emit(
        "Conv",
        operands,
        (1, kernel.shape[0], *extents),
        kernel_shape=list(window),
        strides=list(strides),
        dilations=list(dilations),
        pads=pads,
        group=groups,
    )


def filters_first(kernel: np.ndarray) -> np.ndarray:
    """[…, channels, filters] as [filters, channels, …]."""
    return np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))


def _channel_filters(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel […, channels, multiplier] as [channels * multiplier, 1, …]."""
    moved = np.moveaxis(kernel, (-2, -1), (0, 1))
    return np.ascontiguousarray(moved.reshape(-1, 1, *moved.shape[2:]))


def convolution(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Conv1D, Conv2D, Conv3D."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        filters, groups = c.whole("filters"), c.whole("groups", 1)
        window = c.sizes("kernel_size", rank)
        if x.shape[1] % groups or filters % groups:
            raise Refused(f"{x.shape[1]} channels and {filters} filters do not divide into {groups} groups")
        expected = [("kernel", (*window, x.shape[1] // groups, filters))]
        expected += [("bias", (filters,))] if c.get("use_bias", True) else []
        kernel, *bias = c.weights(expected)
        strides, dilations = c.sizes("strides", rank, 1), c.sizes("dilation_rate", rank, 1)
        y = _convolve(c, x, filters_first(kernel), bias[0] if bias else None, strides, dilations, groups)
        return activate(c, c.from_channels_first(y, first))

    return translate


def depthwise(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """DepthwiseConv1D, DepthwiseConv2D."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        channels, multiplier = x.shape[1], c.whole("depth_multiplier", 1)
        expected = [("depthwise kernel", (*c.sizes("kernel_size", rank), channels, multiplier))]
        expected += [("bias", (channels * multiplier,))] if c.get("use_bias", True) else []
        kernel, *bias = c.weights(expected)
        strides, dilations = c.sizes("strides", rank, 1), c.sizes("dilation_rate", rank, 1)
        y = _convolve(c, x, _channel_filters(kernel), bias[0] if bias else None, strides, dilations, channels)
        return activate(c, c.from_channels_first(y, first))

    return translate


def separable(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """SeparableConv1D, SeparableConv2D: depthwise, then pointwise with the bias and the activation."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        channels, multiplier, filters = x.shape[1], c.whole("depth_multiplier", 1), c.whole("filters")
        expected = [
            ("depthwise kernel", (*c.sizes("kernel_size", rank), channels, multiplier)),
            ("pointwise kernel", (*(1,) * rank, channels * multiplier, filters)),
        ]
        expected += [("bias", (filters,))] if c.get("use_bias", True) else []
        kernel, pointwise, *bias = c.weights(expected)
        strides, dilations = c.sizes("strides", rank, 1), c.sizes("dilation_rate", rank, 1)
        y = _convolve(c, x, _channel_filters(kernel), None, strides, dilations, channels)
        ones = (1,) * rank
        y = _convolve(c, y, filters_first(pointwise), bias[0] if bias else None, ones, ones, 1)
        return activate(c, c.from_channels_first(y, first))

    return translate


def transposed(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Conv1DTranspose to Conv3DTranspose: what 'valid' and 'same' convolutions of that output take away is added."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        filters, window = c.whole("filters"), c.sizes("kernel_size", rank)
        if c.whole("groups", 1) != 1:
            raise Refused("a transposed convolution in groups")
        expected = [("kernel", (*window, filters, x.shape[1]))] + (
            [("bias", (filters,))] if c.get("use_bias", True) else []
        )
        kernel, *bias = c.weights(expected)
        strides, dilations = c.sizes("strides", rank, 1), c.sizes("dilation_rate", rank, 1)
        more = c.get("output_padding")
        extra = [None] * rank if more is None else ([more] * rank if isinstance(more, int) else list(more))
        starts, ends, missing, extents = [], [], [], []
        for n, k, s, d, m in zip(x.shape[2:], window, strides, dilations, extra, strict=True):
            extent, before, after = _transposed_extent(c, n, (k - 1) * d + 1, s, m)
            starts.append(before)
            ends.append(after)
            missing.append(extent - ((n - 1) * s + (k - 1) * d + 1 - before - after))
            extents.append(extent)
        y = c.emit(
            "ConvTranspose",
            [x, filters_first(kernel), *bias],
            (1, filters, *extents),
            kernel_shape=list(window),
            strides=list(strides),
            dilations=list(dilations),
            pads=[*starts, *ends],
            output_padding=missing,
        )
        return activate(c, c.from_channels_first(y, first))

    return translate


def _transposed_extent(c: LayerContext, size: int, reach: int, stride: int, more: int | None) -> tuple[int, int, int]:
    """The output's extent along an axis, and how much of the whole sum is cut off in front and behind."""
    padding = c.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise Refused(f"its padding is {str(padding)[:80]}; valid and same are supported")
    same = padding == "same"
    if more is None:
        extent = size * stride + (0 if same else max(reach - stride, 0))
    else:
        extent = (size - 1) * stride + reach + more - (2 * (reach // 2) if same else 0)
    total = max(0, (size - 1) * stride + reach - extent) if same else 0
    return extent, total // 2, total - total // 2


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "Conv1D": convolution(1),
    "Conv2D": convolution(2),
    "Conv3D": convolution(3),
    "Convolution1D": convolution(1),
    "Convolution2D": convolution(2),
    "Convolution3D": convolution(3),
    "DepthwiseConv1D": depthwise(1),
    "DepthwiseConv2D": depthwise(2),
    "Conv1DTranspose": transposed(1),
    "Conv2DTranspose": transposed(2),
    "Conv3DTranspose": transposed(3),
    "Convolution1DTranspose": transposed(1),
    "Convolution2DTranspose": transposed(2),
    "Convolution3DTranspose": transposed(3),
    "SeparableConv1D": separable(1),
    "SeparableConv2D": separable(2),
    "SeparableConvolution1D": separable(1),
    "SeparableConvolution2D": separable(2),
}
"""Keras class → translation."""
