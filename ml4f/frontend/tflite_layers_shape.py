"""Operators of TensorFlow Lite that move, pick, repeat or reduce elements, in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx

from ml4f.frontend.keras_builder import Refused, Value
from ml4f.frontend.tflite_activations import activated
from ml4f.frontend.tflite_onnx import Joined, Operand, OperatorContext, Spread, Translation, check_image


def _reduce(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        x = c.either(0)
        axes = sorted({a % len(x.shape) for a in c.whole_numbers(1)}) if x.shape else []
        keep = bool(c.operator.option("KeepDims", False))
        if isinstance(x, np.ndarray):
            function = {"ReduceProd": np.prod, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceSum": np.sum}[op_type]
            return np.asarray(function(x, axis=tuple(axes), keepdims=keep))
        shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
        if not axes:
            return x
        return c.emit(op_type, [x, np.array(axes, dtype=np.int64)], shape or [1], keepdims=int(keep or not shape))

    return translate


def _reshape(c: OperatorContext) -> Operand:
    found = c.operands[0]
    x = found.x if isinstance(found, Spread) else c.either(0)
    if len(c.operands) > 1 and c.operands[1] is not None:
        target = c.whole_numbers(1)
    else:
        options = c.operator.options
        target = [int(options.NewShape(i)) for i in range(options.NewShapeLength())]
    if isinstance(found, Spread):
        return _respread(c, found, target)
    size = prod(x.shape)
    if -1 in target:
        known = -prod(target)
        target[target.index(-1)] = size // known if known else 0
    if prod(target) != size:
        raise Refused(f"its shape {target} does not fit the {size} elements of the input")
    return x.reshape(target) if isinstance(x, np.ndarray) else c.reshape(x, target)


def _respread(c: OperatorContext, spread: Spread, target: Sequence[int]) -> Spread:
    """An axis of 1 comes or goes: the converter makes images of sequences for its convolutions."""
    x, rank = spread.x, len(target)
    for axis in range(1, x.rank):
        shrunk = (*x.shape[:axis], *x.shape[axis + 1 :])
        if rank == x.rank - 1 and x.shape[axis] == 1 and axis not in spread.axes and target[-1] in (-1, shrunk[-1]):
            axes = tuple(a - (a > axis) for a in spread.axes)
            return Spread(c.reshape(x, shrunk), axes, spread.blocks)
    raise Refused("a new shape of what was spread over a batch")


def _expand_dims(c: OperatorContext) -> Operand:
    found = c.operands[0]
    (axis,) = c.whole_numbers(1)
    if isinstance(found, Spread):
        axis %= found.x.rank + 1
        if axis == 0:
            raise Refused("a new axis in front of a batch")
        shape = (*found.x.shape[:axis], 1, *found.x.shape[axis:])
        return Spread(c.reshape(found.x, shape), tuple(a + (a >= axis) for a in found.axes), found.blocks)
    x = c.either(0)
    axis %= len(x.shape) + 1
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, axis)
    return c.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _squeeze(c: OperatorContext) -> Operand:
    x, options = c.either(0), c.operator.options
    rank = len(x.shape)
    listed = [] if options is None else [int(options.SqueezeDims(i)) for i in range(options.SqueezeDimsLength())]
    axes = {axis % rank for axis in listed} or {a for a in range(rank) if x.shape[a] == 1}
    if any(x.shape[a] != 1 for a in axes):
        raise Refused(f"axes {sorted(axes)} of {list(x.shape)} are not 1")
    shape = [n for a, n in enumerate(x.shape) if a not in axes]
    return x.reshape(shape) if isinstance(x, np.ndarray) else c.reshape(x, shape)


def _transpose(c: OperatorContext) -> Operand:
    x, order = c.either(0), c.whole_numbers(1)
    return x.transpose(order) if isinstance(x, np.ndarray) else c.transpose(x, order)


def _pad(mode: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        x, amounts = c.value(0), c.constant(1).astype(np.int64)
        value = c.optional(2)
        shape = [n + int(low) + int(high) for n, (low, high) in zip(x.shape, amounts, strict=True)]
        how = mode
        if mode == "mirror":
            how = "reflect" if c.operator.option("Mode", 0) == 0 else "symmetric"
        if how == "symmetric":
            raise Refused("symmetric padding")
        operands: list[Value | np.ndarray] = [x, amounts.T.ravel()]
        if how == "constant" and value is not None:
            operands.append(value.astype(np.float32).reshape(()))
        return c.emit("Pad", operands, shape, mode=how)

    return translate


def _concatenation(c: OperatorContext) -> Operand:
    operands = [v for i in range(len(c.operands)) for v in _pieces(c, i)]
    axis = c.operator.option("Axis", 0) % len(operands[0].shape)
    if all(isinstance(v, np.ndarray) for v in operands):
        return np.concatenate([np.asarray(v) for v in operands], axis=axis)
    operands = [v for v in operands if v.shape[axis]]
    if c.looped and axis == 0 and not c.operator.option("FusedActivationFunction", 0):
        return Joined(tuple(operands))
    shape = list(operands[0].shape)
    shape[axis] = sum(v.shape[axis] for v in operands)
    return activated(c, c.emit("Concat", operands, shape, axis=axis))


def _pieces(c: OperatorContext, index: int) -> tuple[Value | np.ndarray, ...]:
    """An operand, in pieces if it is joined along the axis of a concatenation."""
    found = c.operands[index]
    joined = isinstance(found, Joined) and c.operator.option("Axis", 0) in (0, -len(found.shape))
    return found.pieces if isinstance(found, Joined) and joined else (c.either(index),)


def _pack(c: OperatorContext) -> Operand:
    operands = [c.either(i) for i in range(len(c.operands))]
    axis = c.operator.option("Axis", 0) % (len(operands[0].shape) + 1)
    if all(isinstance(v, np.ndarray) for v in operands):
        return np.stack([np.asarray(v) for v in operands], axis=axis)
    wide: list[Value | np.ndarray] = []
    for operand in operands:
        shape = (*operand.shape[:axis], 1, *operand.shape[axis:])
        wide.append(c.reshape(operand, shape) if isinstance(operand, Value) else operand.reshape(shape))
    shape = list(wide[0].shape)
    shape[axis] = len(wide)
    return c.emit("Concat", wide, shape, axis=axis)


def _sliced(c: OperatorContext, x: Value, starts: Sequence[int], ends: Sequence[int], steps: Sequence[int]) -> Value:
    """Python's slices on every axis; starts and ends are positions."""
    shape = [len(range(a, b, s)) for a, b, s in zip(starts, ends, steps, strict=True)]
    if shape == list(x.shape) and all(s == 1 for s in steps):
        return x
    lowest = [-(n + 1) if b < 0 else b for n, b in zip(x.shape, ends, strict=True)]
    numbers = [np.array(v, dtype=np.int64) for v in (starts, lowest, range(x.rank), steps)]
    return c.emit("Slice", [x, *numbers], shape)


def _rows(c: OperatorContext, joined: Joined, start: int, end: int) -> Operand:
    """Rows of what is joined: whole pieces as they are, a part of a piece by a slice."""
    kept: list[Value | np.ndarray] = []
    at = 0
    for piece in joined.pieces:
        low, high = max(start - at, 0), min(end - at, piece.shape[0])
        at += piece.shape[0]
        if low >= high:
            continue
        if isinstance(piece, np.ndarray):
            kept.append(piece[low:high])
            continue
        starts, ends = [low, *[0] * (piece.rank - 1)], [high, *piece.shape[1:]]
        kept.append(_sliced(c, piece, starts, ends, [1] * piece.rank))
    return Joined(tuple(kept)) if len(kept) > 1 else kept[0]


def _slice(c: OperatorContext) -> Operand:
    begin, size = c.whole_numbers(1), c.whole_numbers(2)
    found = c.operands[0]
    if isinstance(found, Joined) and not any(begin[1:]) and begin[0] < found.shape[0]:
        whole = all(s in (-1, n) for s, n in zip(size[1:], found.shape[1:], strict=True))
        if whole and size[0]:
            return _rows(c, found, begin[0], found.shape[0] if size[0] == -1 else begin[0] + size[0])
    x = found if isinstance(found, Joined) and (not size[0] or begin[0] == found.shape[0]) else c.either(0)
    extents = [n - b if s == -1 else s for n, b, s in zip(x.shape, begin, size, strict=True)]
    if isinstance(x, Joined) or not all(extents):
        return np.zeros(extents, dtype=np.float32)
    ends = [n if s == -1 else b + s for n, b, s in zip(x.shape, begin, size, strict=True)]
    if isinstance(x, np.ndarray):
        return x[tuple(slice(a, b) for a, b in zip(begin, ends, strict=True))]
    return _sliced(c, x, begin, ends, [1] * x.rank)


def _strided_slice(c: OperatorContext) -> Operand:
    x = c.either(0)
    begin, end, steps = (c.whole_numbers(index) for index in (1, 2, 3))
    masks = {
        name: c.operator.option(f"{name}Mask", 0) for name in ("Begin", "End", "ShrinkAxis", "NewAxis", "Ellipsis")
    }
    if masks["NewAxis"] or masks["Ellipsis"] or len(begin) > len(x.shape):
        raise Refused("a slice with new axes or an ellipsis")
    starts, ends, strides, kept = [], [], [], []
    for axis, n in enumerate(x.shape):
        given = axis < len(begin)
        step = steps[axis] if given else 1
        start = begin[axis] if given and not masks["Begin"] >> axis & 1 else None
        stop = end[axis] if given and not masks["End"] >> axis & 1 else None
        if given and masks["ShrinkAxis"] >> axis & 1:
            position = begin[axis] % n if n else 0
            starts, ends, strides = [*starts, position], [*ends, position + 1], [*strides, 1]
            continue
        first, last, step = slice(start, stop, step).indices(n)
        starts, ends, strides = [*starts, first], [*ends, last], [*strides, step]
        kept.append(len(range(first, last, step)))
    if isinstance(x, np.ndarray):
        picked = x[np.ix_(*(range(a, b, s) for a, b, s in zip(starts, ends, strides, strict=True)))]
        return picked.reshape(kept)
    return c.reshape(_sliced(c, x, starts, ends, strides), kept)


def _parts(c: OperatorContext, x: Value, axis: int, sizes: Sequence[int]) -> list[Operand]:
    """Pieces along an axis, one behind the other."""
    found: list[Operand] = []
    at = 0
    for size in sizes:
        starts, ends = [0] * x.rank, list(x.shape)
        starts[axis], ends[axis] = at, at + size
        found.append(_sliced(c, x, starts, ends, [1] * x.rank))
        at += size
    return found


def _split(c: OperatorContext) -> list[Operand]:
    x, axis, count = c.value(1), c.whole_numbers(0)[0], len(c.operator.outputs)
    axis %= x.rank
    return _parts(c, x, axis, [x.shape[axis] // count] * count)


def _split_v(c: OperatorContext) -> list[Operand]:
    x, sizes, axis = c.value(0), c.whole_numbers(1), c.whole_numbers(2)[0] % c.value(0).rank
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(n for n in sizes if n != -1)
    return _parts(c, x, axis, sizes)


def _unpack(c: OperatorContext) -> list[Operand]:
    x = c.value(0)
    axis = c.operator.option("Axis", 0) % x.rank
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    parts = _parts(c, x, axis, [1] * x.shape[axis])
    return [c.reshape(part, shape) for part in parts if isinstance(part, Value)]


def _tile(c: OperatorContext) -> Operand:
    x, counts = c.either(0), c.whole_numbers(1)
    if isinstance(x, np.ndarray):
        return np.tile(x, counts)
    shape = [n * count for n, count in zip(x.shape, counts, strict=True)]
    return c.emit("Tile", [x, np.array(counts, dtype=np.int64)], shape)


def _broadcast_to(c: OperatorContext) -> Operand:
    x = c.either(0)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, c.whole_numbers(1))
    return c.emit("Expand", [x, np.array(c.whole_numbers(1), dtype=np.int64)], c.whole_numbers(1))


def _gather(c: OperatorContext) -> Operand:
    x, where = c.either(0), c.either(1)
    axis = c.operator.option("Axis", 0) % len(x.shape)
    if c.operator.option("BatchDims", 0):
        raise Refused("batch_dims")
    if isinstance(where, Value):  # computed, as of an embedding
        where = c.emit("Cast", [where], where.shape, to=onnx.TensorProto.INT64)
    elif isinstance(x, np.ndarray):
        return np.take(x, where, axis=axis)
    else:
        where = where.astype(np.int64)
    return c.emit("Gather", [x, where], (*x.shape[:axis], *where.shape, *x.shape[axis + 1 :]), axis=axis)


def _reverse(c: OperatorContext) -> Value:
    x = c.value(0)
    axes = {a % x.rank for a in c.whole_numbers(1)}
    starts = [n - 1 if a in axes else 0 for a, n in enumerate(x.shape)]
    ends = [-1 if a in axes else n for a, n in enumerate(x.shape)]
    return _sliced(c, x, starts, ends, [-1 if a in axes else 1 for a in range(x.rank)])


def _cumulative_sum(c: OperatorContext) -> Value:
    x, axis = c.value(0), c.constant(1)
    options = {name.lower(): int(c.operator.option(name, False)) for name in ("Exclusive", "Reverse")}
    return c.emit("CumSum", [x, np.reshape(axis, ()).astype(np.int64)], x.shape, **options)


def _shape(c: OperatorContext) -> np.ndarray:
    return np.array(c.either(0).shape, dtype=np.int64)


def _broadcast_args(c: OperatorContext) -> np.ndarray:
    return np.array(np.broadcast_shapes(tuple(c.whole_numbers(0)), tuple(c.whole_numbers(1))), dtype=np.int64)


def _fill(c: OperatorContext) -> np.ndarray:
    return np.full(c.whole_numbers(0), c.constant(1))


def _range(c: OperatorContext) -> np.ndarray:
    start, limit, step = (c.constant(index).item() for index in range(3))
    return np.arange(start, limit, step, dtype=c.types[0])


def _resize(mode: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        x, size = c.value(0), c.whole_numbers(1)
        check_image(x)
        coordinates = "asymmetric"
        if c.operator.option("AlignCorners", False):
            coordinates = "align_corners"
        elif c.operator.option("HalfPixelCenters", False):
            coordinates = "half_pixel"
        moved = c.transpose(x, (0, 3, 1, 2))
        shape = (*moved.shape[:2], *size)
        options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if mode == "nearest":
            options["nearest_mode"] = "floor" if coordinates == "asymmetric" else "round_prefer_ceil"
        if all(out % n == 0 for out, n in zip(size, moved.shape[2:], strict=True)):
            scales = [1, 1, *(out // n for out, n in zip(size, moved.shape[2:], strict=True))]
            made = c.emit("Resize", [moved, "", np.array(scales, dtype=np.float32)], shape, **options)
        else:
            made = c.emit("Resize", [moved, "", "", np.array(shape, dtype=np.int64)], shape, **options)
        return c.transpose(made, (0, 2, 3, 1))

    return translate


def _space_to_depth(c: OperatorContext) -> Value:
    """Blocks in the order row, column, channel."""
    x, block = c.value(0), c.operator.option("BlockSize", 1)
    check_image(x)
    _, height, width, depth = x.shape
    if height % block or width % block:
        raise Refused(f"blocks of {block} in {list(x.shape)}")
    apart = c.reshape(x, (1, height // block, block, width // block, block, depth))
    moved = c.transpose(apart, (0, 1, 3, 2, 4, 5))
    return c.reshape(moved, (1, height // block, width // block, block * block * depth))


def _depth_to_space(c: OperatorContext) -> Value:
    x, block = c.value(0), c.operator.option("BlockSize", 1)
    check_image(x)
    _, height, width, depth = x.shape
    if depth % (block * block):
        raise Refused(f"blocks of {block} in {list(x.shape)}")
    apart = c.reshape(x, (1, height, width, block, block, depth // (block * block)))
    moved = c.transpose(apart, (0, 1, 3, 2, 4, 5))
    return c.reshape(moved, (1, height * block, width * block, depth // (block * block)))


def _space_to_batch(c: OperatorContext) -> Spread:
    x, blocks, amounts = c.value(0), c.whole_numbers(1), c.constant(2).astype(np.int64).reshape(-1, 2)
    low, high = [0] * x.rank, [0] * x.rank
    for i, (start, end) in enumerate(amounts):
        low[1 + i], high[1 + i] = int(start), int(end)
    shape = [a + n + b for a, n, b in zip(low, x.shape, high, strict=True)]
    if any(low) or any(high):
        x = c.emit("Pad", [x, np.array([*low, *high], dtype=np.int64)], shape, mode="constant")
    if any(shape[1 + i] % block for i, block in enumerate(blocks)):
        raise Refused(f"blocks of {blocks} in {shape}")
    return Spread(x, tuple(range(1, 1 + len(blocks))), tuple(blocks))


def _batch_to_space(c: OperatorContext) -> Value:
    spread, blocks, crops = c.operands[0], c.whole_numbers(1), c.constant(2).astype(np.int64).reshape(-1, 2)
    if (
        not isinstance(spread, Spread)
        or spread.axes != tuple(range(1, 1 + len(blocks)))
        or spread.blocks != tuple(blocks)
    ):
        raise Refused("it undoes no SPACE_TO_BATCH_ND")
    x = spread.x
    starts, ends = [0] * x.rank, list(x.shape)
    for i, (start, end) in enumerate(crops):
        starts[1 + i], ends[1 + i] = int(start), x.shape[1 + i] - int(end)
    return _sliced(c, x, starts, ends, [1] * x.rank)


OPERATORS: dict[str, Translation] = {
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "BROADCAST_ARGS": _broadcast_args,
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "CUMSUM": _cumulative_sum,
    "DEPTH_TO_SPACE": _depth_to_space,
    "DEQUANTIZE": lambda c: c.constant(0),
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "GATHER": _gather,
    "MEAN": _reduce("ReduceMean"),
    "MIRROR_PAD": _pad("mirror"),
    "PACK": _pack,
    "PAD": _pad("constant"),
    "PADV2": _pad("constant"),
    "RANGE": _range,
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduce("ReduceSum"),
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""TensorFlow Lite operator → translation."""
