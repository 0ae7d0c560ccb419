"""Keras pooling layers as ONNX MaxPool, AveragePool and their global forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_layers_conv import spatial_input, window_extents, window_pads


def pooling(op_type: str, rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Max or average pooling; padding never counts."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        padding = c.get("padding", "valid")
        if padding not in ("valid", "same"):
            raise Refused(f"its padding is {str(padding)[:80]}; valid and same are supported")
        window = c.sizes("pool_size", rank, 2)
        strides = c.sizes("strides", rank) if c.get("strides") is not None else window
        ones = (1,) * rank
        pads = window_pads(padding, x.shape[2:], window, strides, ones)
        extents = window_extents(x.shape[2:], window, strides, ones, pads)
        y = c.emit(op_type, [x], (1, x.shape[1], *extents), kernel_shape=list(window), strides=list(strides), pads=pads)
        return c.from_channels_first(y, first)

    return translate


def global_pooling(op_type: str, rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Over the whole width and height; keepdims keeps extents of 1."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        if c.mask is not None and op_type == "GlobalAveragePool" and rank == 1:
            y = _masked_mean(c, x, c.mask)
        else:
            y = c.emit(op_type, [x], (*x.shape[:2], *(1,) * rank))
        if c.get("keepdims", False):
            return c.from_channels_first(y, first)
        return c.reshape(y, x.shape[:2])

    return translate


def adaptive_pooling(op_type: str, rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """To a given extent along each axis: windows begin at floor(i n / extent) and end at ceil((i + 1) n / extent)."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        x, first = spatial_input(c, inputs, rank)
        for axis, extent in enumerate(c.sizes("output_size", rank), start=2):
            x = _along(c, op_type, x, axis, extent)
        return c.from_channels_first(x, first)

    return translate


def _along(c: LayerContext, op_type: str, x: Value, axis: int, extent: int) -> Value:
    """One axis; a mean of means is one of all elements, as every window is a rectangle."""
    size = x.shape[axis]
    rows: list[Value] = []
    axes = np.array([axis], dtype=np.int64)
    for index in range(extent):
        start, end = index * size // extent, -(-(index + 1) * size // extent)
        shape = [end - start if a == axis else n for a, n in enumerate(x.shape)]
        ends = [np.array([n], dtype=np.int64) for n in (start, end, axis)]
        part = x if end - start == size else c.emit("Slice", [x, *ends], shape)
        shape[axis] = 1
        rows.append(part if end - start == 1 else c.emit(op_type, [part, axes], shape, keepdims=1))
    shape = [extent if a == axis else n for a, n in enumerate(x.shape)]
    return rows[0] if len(rows) == 1 else c.emit("Concat", rows, shape, axis=axis)


def _masked_mean(c: LayerContext, x: Value, mask: Value) -> Value:
    """[1, channels, 1]: over the steps that count."""
    if mask.shape != (1, x.shape[2]):
        raise Refused(f"a mask {list(mask.shape)} for {x.shape[2]} steps")
    axes = np.array([2], dtype=np.int64)
    weights = c.reshape(mask, (1, 1, x.shape[2]))
    total = c.emit("ReduceSum", [c.binary("Mul", x, weights), axes], (*x.shape[:2], 1), keepdims=1)
    return c.binary("Div", total, c.emit("ReduceSum", [weights, axes], (1, 1, 1), keepdims=1))


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "MaxPooling1D": pooling("MaxPool", 1),
    "MaxPooling2D": pooling("MaxPool", 2),
    "MaxPooling3D": pooling("MaxPool", 3),
    "MaxPool1D": pooling("MaxPool", 1),
    "MaxPool2D": pooling("MaxPool", 2),
    "MaxPool3D": pooling("MaxPool", 3),
    "AveragePooling1D": pooling("AveragePool", 1),
    "AveragePooling2D": pooling("AveragePool", 2),
    "AveragePooling3D": pooling("AveragePool", 3),
    "AvgPool1D": pooling("AveragePool", 1),
    "AvgPool2D": pooling("AveragePool", 2),
    "AvgPool3D": pooling("AveragePool", 3),
    **{f"AdaptiveAveragePooling{rank}D": adaptive_pooling("ReduceMean", rank) for rank in (1, 2, 3)},
    **{f"AdaptiveMaxPooling{rank}D": adaptive_pooling("ReduceMax", rank) for rank in (1, 2, 3)},
    "GlobalMaxPooling1D": global_pooling("GlobalMaxPool", 1),
    "GlobalMaxPooling2D": global_pooling("GlobalMaxPool", 2),
    "GlobalMaxPooling3D": global_pooling("GlobalMaxPool", 3),
    "GlobalMaxPool1D": global_pooling("GlobalMaxPool", 1),
    "GlobalMaxPool2D": global_pooling("GlobalMaxPool", 2),
    "GlobalMaxPool3D": global_pooling("GlobalMaxPool", 3),
    "GlobalAveragePooling1D": global_pooling("GlobalAveragePool", 1),
    "GlobalAveragePooling2D": global_pooling("GlobalAveragePool", 2),
    "GlobalAveragePooling3D": global_pooling("GlobalAveragePool", 3),
    "GlobalAvgPool1D": global_pooling("GlobalAveragePool", 1),
    "GlobalAvgPool2D": global_pooling("GlobalAveragePool", 2),
    "GlobalAvgPool3D": global_pooling("GlobalAveragePool", 3),
}
"""Keras class → translation."""
