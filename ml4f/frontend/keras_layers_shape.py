"""Keras layers that move elements without computing: flatten, reshape, permute, pad, crop, repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value

MAX_REPEATS = 1024
"""Copies that UpSampling and RepeatVector may make of an element."""


def flatten(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """One dimension; channels first are moved to the end before, as Keras does."""
    (x,) = inputs
    if c.channels_first() and x.rank > 2:
        x = c.transpose(x, (0, *range(2, x.rank), 1))
    return c.reshape(x, (1, prod(x.shape)))


def reshape(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """To target_shape, in which one -1 is inferred."""
    (x,) = inputs
    target = c.get("target_shape", [])
    if not isinstance(target, list | tuple):
        target = [target]
    shape = [int(n) for n in target]
    if shape.count(-1) == 1 and prod(n for n in shape if n != -1) > 0:
        shape[shape.index(-1)] = prod(x.shape) // prod(n for n in shape if n != -1)
    if any(n < 1 for n in shape) or prod(shape) != prod(x.shape):
        raise Refused(f"its target_shape {list(target)} does not fit the {prod(x.shape)} elements of the input")
    return c.reshape(x, (1, *shape))


def permute(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Axes counted from 1, without the batch."""
    (x,) = inputs
    dims = [int(axis) for axis in c.get("dims", [])]
    if sorted(dims) != list(range(1, x.rank)):
        raise Refused(f"its dims {dims} are no permutation of the input's dimensions")
    return c.transpose(x, (0, *dims))


def repeat_vector(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """[1, features] as [1, n, features]."""
    (x,) = inputs
    if x.rank != 2:
        raise Refused("the input should have one dimension besides the batch")
    return _repeated(c, c.reshape(x, (1, 1, x.shape[1])), 1, c.whole("n"))


def _repeated(c: LayerContext, x: Value, axis: int, count: int) -> Value:
    """`count` copies along an axis of extent 1."""
    if count > MAX_REPEATS:
        raise Refused(f"it repeats its input {count} times, more than {MAX_REPEATS}")
    if count == 1:
        return x
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return c.emit("Expand", [x, np.array(shape, dtype=np.int64)], shape)


def _amounts(c: LayerContext, key: str, rank: int) -> list[tuple[int, int]]:
    """Padding or cropping at the start and end of each axis: n, [a, b], [m, n] or [[t, b], [l, r]]."""
    value = c.get(key, 1 if rank == 1 else 0)
    if rank == 1:
        pairs = [value if isinstance(value, list | tuple) else [value, value]]
    else:
        values = list(value) if isinstance(value, list | tuple) else [value] * rank
        pairs = [v if isinstance(v, list | tuple) else [v, v] for v in values]
    pairs = [[p[0], p[0]] if len(p) == 1 else p for p in pairs]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for pair in pairs for n in pair)
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs) or not whole:
        raise Refused(f"its {key} is {str(value)[:80]}")
    return [(pair[0], pair[1]) for pair in pairs]


def _spatial_axes(c: LayerContext, x: Value, rank: int) -> list[int]:
    if x.rank != rank + 2:
        raise Refused(f"the input should have {rank + 1} dimensions besides the batch")
    return list(range(2, rank + 2)) if c.channels_first() else list(range(1, rank + 1))


def zero_padding(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """ZeroPadding1D, ZeroPadding2D, ZeroPadding3D."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        low, high = [0] * x.rank, [0] * x.rank
        for axis, (start, end) in zip(_spatial_axes(c, x, rank), _amounts(c, "padding", rank), strict=True):
            low[axis], high[axis] = start, end
        if not any((*low, *high)):
            return x
        shape = [a + n + b for a, n, b in zip(low, x.shape, high, strict=True)]
        return c.emit("Pad", [x, np.array([*low, *high], dtype=np.int64)], shape, mode="constant")

    return translate


def cropping(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Cropping1D, Cropping2D, Cropping3D."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        axes, amounts = _spatial_axes(c, x, rank), _amounts(c, "cropping", rank)
        shape = list(x.shape)
        for axis, (start, end) in zip(axes, amounts, strict=True):
            shape[axis] -= start + end
        if min(shape) < 1:
            raise Refused(f"its cropping {[list(pair) for pair in amounts]} leaves nothing of the input")
        starts = np.array([start for start, _ in amounts], dtype=np.int64)
        ends = np.array([x.shape[axis] - end for axis, (_, end) in zip(axes, amounts, strict=True)], dtype=np.int64)
        return c.emit("Slice", [x, starts, ends, np.array(axes, dtype=np.int64)], shape)

    return translate


def up_sampling(rank: int) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """UpSampling1D, UpSampling2D, UpSampling3D: every element is repeated, or weighted means stand between."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        interpolation = c.get("interpolation", "nearest")
        if interpolation == "bilinear" and rank == 2:
            return _bilinear(c, x)
        if interpolation != "nearest":
            raise Refused(f"its interpolation is {str(interpolation)[:80]}; nearest and bilinear are supported")
        for axis, count in zip(_spatial_axes(c, x, rank), c.sizes("size", rank, 2), strict=True):
            apart = c.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
            copies = _repeated(c, apart, axis + 1, count)
            x = c.reshape(copies, (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]))
        return x

    return translate


def _bilinear(c: LayerContext, x: Value) -> Value:
    _spatial_axes(c, x, 2)
    first = c.channels_first()
    moved = c.to_channels_first(x, first)
    sizes = c.sizes("size", 2, 2)
    shape = (*moved.shape[:2], moved.shape[2] * sizes[0], moved.shape[3] * sizes[1])
    scales = np.array([1, 1, *sizes], dtype=np.float32)
    y = c.emit("Resize", [moved, "", scales], shape, mode="linear", coordinate_transformation_mode="half_pixel")
    return c.from_channels_first(y, first)


def resizing(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """To another height and width, by weighted means or the nearest element."""
    (x,) = inputs
    _spatial_axes(c, x, 2)
    if c.get("crop_to_aspect_ratio", False) or c.get("pad_to_aspect_ratio", False) or c.get("antialias", False):
        raise Refused("its aspect ratio is kept, or it is smoothed; neither is supported")
    modes = {"bilinear": "linear", "nearest": "nearest"}
    interpolation = c.get("interpolation", "bilinear")
    if interpolation not in modes:
        raise Refused(f"its interpolation is {str(interpolation)[:80]}; nearest and bilinear are supported")
    first = c.channels_first()
    moved = c.to_channels_first(x, first)
    shape = (*moved.shape[:2], c.whole("height"), c.whole("width"))
    options = {"nearest_mode": "round_prefer_ceil"} if interpolation == "nearest" else {}
    options |= {"mode": modes[interpolation], "coordinate_transformation_mode": "half_pixel"}
    y = c.emit("Resize", [moved, "", "", np.array(shape, dtype=np.int64)], shape, **options)
    return c.from_channels_first(y, first)


def center_crop(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """The middle of a picture that is large enough."""
    (x,) = inputs
    axes, wanted = _spatial_axes(c, x, 2), (c.whole("height"), c.whole("width"))
    if any(x.shape[axis] < n for axis, n in zip(axes, wanted, strict=True)):
        raise Refused(f"its {list(wanted)} elements are more than the input has; put a Resizing in front")
    starts = [(x.shape[axis] - n) // 2 for axis, n in zip(axes, wanted, strict=True)]
    ends = [start + n for start, n in zip(starts, wanted, strict=True)]
    shape = list(x.shape)
    for axis, n in zip(axes, wanted, strict=True):
        shape[axis] = n
    return c.emit("Slice", [x, *(np.array(v, dtype=np.int64) for v in (starts, ends, axes))], shape)


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "RepeatVector": repeat_vector,
    "ZeroPadding1D": zero_padding(1),
    "ZeroPadding2D": zero_padding(2),
    "ZeroPadding3D": zero_padding(3),
    "CenterCrop": center_crop,
    "Resizing": resizing,
    "Cropping1D": cropping(1),
    "Cropping2D": cropping(2),
    "Cropping3D": cropping(3),
    "UpSampling1D": up_sampling(1),
    "UpSampling2D": up_sampling(2),
    "UpSampling3D": up_sampling(3),
}
"""Keras class → translation."""
