"""What each TensorFlow Lite operator is in ONNX: `OPERATORS`. Images are channels last there, and stay so here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx

from ml4f.frontend.keras_builder import Refused, Shape, Value
from ml4f.frontend.keras_layers_conv import window_extents, window_pads
from ml4f.frontend.tflite_onnx import Operand, OperatorContext, Spread

Result = Operand | list[Operand]
Translation = Callable[[OperatorContext], Result]

PADDINGS = ("same", "valid")
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
"""By their number in the schema."""


def _activated(c: OperatorContext, x: Value) -> Value:
    """The activation that is fused into an operator."""
    name = ACTIVATIONS[c.operator.option("FusedActivationFunction", 0)]
    if name == "SIGN_BIT":
        raise Refused("the fused activation SIGN_BIT")
    return _ACTIVATE[name](c, x)


def _clip(c: OperatorContext, x: Value, low: float, high: float) -> Value:
    return c.emit("Clip", [x, *(np.asarray(bound, dtype=np.float32) for bound in (low, high))], x.shape)


_ACTIVATE: dict[str, Callable[[OperatorContext, Value], Value]] = {
    "NONE": lambda c, x: x,
    "RELU": lambda c, x: c.pointwise("Relu", x),
    "RELU_N1_TO_1": lambda c, x: _clip(c, x, -1, 1),
    "RELU6": lambda c, x: _clip(c, x, 0, 6),
    "TANH": lambda c, x: c.pointwise("Tanh", x),
}


# Convolutions and pools


def _image(x: Value) -> None:
    if x.rank != 4 or x.shape[0] != 1:
        raise Refused(f"the input {list(x.shape)} should be [1, height, width, channels]")


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
    _image(x)
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
    y = _activated(c, c.transpose(made, (0, 2, 3, 1)))
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
    _image(x)
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
    return _activated(c, c.transpose(made, (0, 2, 3, 1)))


def _pool(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        x = c.value(0)
        _image(x)
        padding, strides, _ = _window_options(c)
        window = [c.operator.option("FilterHeight", 1), c.operator.option("FilterWidth", 1)]
        moved = c.transpose(x, (0, 3, 1, 2))
        pads = window_pads(padding, moved.shape[2:], window, strides, (1, 1))
        extents = window_extents(moved.shape[2:], window, strides, (1, 1), pads)
        shape = (1, moved.shape[1], *extents)
        made = c.emit(op_type, [moved], shape, kernel_shape=window, strides=strides, pads=pads)
        return _activated(c, c.transpose(made, (0, 2, 3, 1)))

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
    return _activated(c, y)


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


# Elementwise


def _unary(op_type: str, **attributes: Any) -> Translation:
    return lambda c: c.pointwise(op_type, c.value(0), **attributes)


def _binary(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        a, b = c.either(0), c.either(1)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return _FOLDED[op_type](a, b)
        made = c.binary(op_type, a, b)
        return _activated(c, made) if hasattr(c.operator.options, "FusedActivationFunction") else made

    return translate


_FOLDED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": lambda a, b: a // b if a.dtype.kind == "i" else a / b,
    "Max": np.maximum,
    "Min": np.minimum,
    "Pow": np.power,
}
"""Of constants: shapes are computed with them."""


def _compared(op_type: str, negated: bool = False) -> Translation:
    def translate(c: OperatorContext) -> Value:
        operands = _as_floats([c.either(0), c.either(1)])
        shape = np.broadcast_shapes(*(v.shape for v in operands))
        made = _boolean(c, op_type, operands, shape)
        return _boolean(c, "Not", [made], shape) if negated else made

    return translate


def _as_floats(operands: Sequence[Value | np.ndarray]) -> list[Value | np.ndarray]:
    """Whole numbers as float32, which computed integers are, too."""
    return [v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype.kind in "iu" else v for v in operands]


def _logical(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        operands = [c.either(index) for index in range(len(c.operands))]
        return _boolean(c, op_type, operands, np.broadcast_shapes(*(v.shape for v in operands)))

    return translate


def _boolean(c: OperatorContext, op_type: str, operands: Sequence[Value | np.ndarray], shape: Shape) -> Value:
    """A node whose output is boolean, which the builder does not declare as float."""
    made = c.emit(op_type, list(operands), shape)
    del c.graph.shapes[made.name]
    return made


def _select(c: OperatorContext) -> Value:
    operands = [c.either(0), *_as_floats([c.either(1), c.either(2)])]
    shapes = [v.shape for v in operands]
    if len(shapes[0]) == 1 and len(shapes[1]) > 1:
        raise Refused("a condition for each element of the batch")
    return c.emit("Where", operands, np.broadcast_shapes(*shapes))


def _square(c: OperatorContext) -> Value:
    return c.binary("Mul", c.value(0), c.value(0))


def _squared_difference(c: OperatorContext) -> Value:
    difference = c.binary("Sub", c.either(0), c.either(1))
    return c.binary("Mul", difference, difference)


def _softmax(c: OperatorContext) -> Value:
    x, beta = c.value(0), c.operator.option("Beta", 1.0)
    x = x if beta in (0.0, 1.0) else c.binary("Mul", x, float(beta))
    return c.pointwise("Softmax", x, axis=-1)


def _l2_normalization(c: OperatorContext) -> Value:
    x = c.value(0)
    shape = (*x.shape[:-1], 1)
    total = c.emit("ReduceSum", [c.binary("Mul", x, x), np.array([x.rank - 1], dtype=np.int64)], shape, keepdims=1)
    return _activated(c, c.binary("Div", x, c.pointwise("Sqrt", c.binary("Max", total, 1e-12))))


def _cast(c: OperatorContext) -> Operand:
    x = c.either(0)
    if isinstance(x, np.ndarray):
        return x
    if x.name not in c.graph.shapes and any(x.name in node.output for node in c.graph.nodes):
        return c.emit("Cast", [x], x.shape, to=1)
    return x


# Shapes


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
    operands = [c.either(i) for i in range(len(c.operands))]
    axis = c.operator.option("Axis", 0) % len(operands[0].shape)
    if all(isinstance(v, np.ndarray) for v in operands):
        return np.concatenate([np.asarray(v) for v in operands], axis=axis)
    shape = list(operands[0].shape)
    shape[axis] = sum(v.shape[axis] for v in operands)
    return _activated(c, c.emit("Concat", operands, shape, axis=axis))


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


def _slice(c: OperatorContext) -> Operand:
    x, begin, size = c.either(0), c.whole_numbers(1), c.whole_numbers(2)
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


def _tile(c: OperatorContext) -> Value:
    x, counts = c.value(0), c.whole_numbers(1)
    shape = [n * count for n, count in zip(x.shape, counts, strict=True)]
    return c.emit("Tile", [x, np.array(counts, dtype=np.int64)], shape)


def _broadcast_to(c: OperatorContext) -> Value:
    return c.emit("Expand", [c.value(0), np.array(c.whole_numbers(1), dtype=np.int64)], c.whole_numbers(1))


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


def _shape(c: OperatorContext) -> np.ndarray:
    return np.array(c.either(0).shape, dtype=np.int64)


def _broadcast_args(c: OperatorContext) -> np.ndarray:
    return np.array(np.broadcast_shapes(tuple(c.whole_numbers(0)), tuple(c.whole_numbers(1))), dtype=np.int64)


def _fill(c: OperatorContext) -> np.ndarray:
    return np.full(c.whole_numbers(0), c.constant(1))


def _resize(mode: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        x, size = c.value(0), c.whole_numbers(1)
        _image(x)
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
    _image(x)
    _, height, width, depth = x.shape
    if height % block or width % block:
        raise Refused(f"blocks of {block} in {list(x.shape)}")
    apart = c.reshape(x, (1, height // block, block, width // block, block, depth))
    moved = c.transpose(apart, (0, 1, 3, 2, 4, 5))
    return c.reshape(moved, (1, height // block, width // block, block * block * depth))


def _depth_to_space(c: OperatorContext) -> Value:
    x, block = c.value(0), c.operator.option("BlockSize", 1)
    _image(x)
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


# Recurrent layers

LSTM_GATES = (0, 3, 1, 2)
"""The operands stand in the order input, forget, cell, output; ONNX has input, output, forget, cell."""


def _sequence_lstm(c: OperatorContext) -> Value:
    """UNIDIRECTIONAL_SEQUENCE_LSTM with all gates, without projection and layer normalisation."""
    x = c.value(0)
    if any(c.optional(i) is not None for i in (*range(16, 18), *range(20, 24)) if i < len(c.operands)):
        raise Refused("a projection or layer normalisation inside")
    if c.optional(1) is None:
        raise Refused("coupled input and forget gates")
    if ACTIVATIONS[c.operator.option("FusedActivationFunction", 0)] != "TANH":
        raise Refused("an activation but tanh")
    time_major = c.operator.option("TimeMajor", False)
    steps, batch = (x.shape[0], x.shape[1]) if time_major else (x.shape[1], x.shape[0])
    if batch != 1:
        raise Refused(f"a batch of {batch}")
    kernel = np.concatenate([c.constant(1 + i) for i in LSTM_GATES])[None]
    recurrent = np.concatenate([c.constant(5 + i) for i in LSTM_GATES])[None]
    units = recurrent.shape[-1]
    bias = np.concatenate([*(c.constant(12 + i).ravel() for i in LSTM_GATES), np.zeros(4 * units, np.float32)])[None]
    sequence = c.reshape(x, (steps, 1, x.shape[2]))
    operands: list[Value | np.ndarray | str] = [sequence, kernel, recurrent, bias]
    peephole = [c.optional(i) for i in (9, 11, 10)]
    if any(part is not None for part in peephole):
        parts = [np.zeros(units, np.float32) if part is None else part.ravel() for part in peephole]
        operands += ["", "", "", np.concatenate(parts)[None]]
    found = c.emit_all("LSTM", operands, [(steps, 1, 1, units)], hidden_size=units)[0]
    assert found is not None
    limit = float(c.operator.option("CellClip", 0.0))
    if 0 < limit < steps:  # a cell grows by at most 1 with every step
        c.graph.nodes[-1].metadata_props.add(key="cell_clip", value=repr(limit))
    return c.reshape(found, (steps, 1, units) if time_major else (1, steps, units))


OPERATORS: dict[str, Translation] = {
    "ABS": _unary("Abs"),
    "ADD": _binary("Add"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": _batch_matmul,
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "BROADCAST_ARGS": _broadcast_args,
    "BROADCAST_TO": _broadcast_to,
    "CAST": _cast,
    "CEIL": _unary("Ceil"),
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "COS": _unary("Cos"),
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "DEQUANTIZE": lambda c: c.constant(0),
    "DIV": _binary("Div"),
    "ELU": _unary("Elu"),
    "EQUAL": _compared("Equal"),
    "EXP": _unary("Exp"),
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "FLOOR": _unary("Floor"),
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GELU": lambda c: c.pointwise(
        "Gelu", c.value(0), approximate="tanh" if c.operator.option("Approximate", False) else "none"
    ),
    "GREATER": _compared("Greater"),
    "GREATER_EQUAL": _compared("GreaterOrEqual"),
    "HARD_SWISH": _unary("HardSwish"),
    "L2_NORMALIZATION": _l2_normalization,
    "LEAKY_RELU": lambda c: c.pointwise("LeakyRelu", c.value(0), alpha=c.operator.option("Alpha", 0.0)),
    "LESS": _compared("Less"),
    "LESS_EQUAL": _compared("LessOrEqual"),
    "LOG": _unary("Log"),
    "LOGICAL_AND": _logical("And"),
    "LOGICAL_NOT": _logical("Not"),
    "LOGICAL_OR": _logical("Or"),
    "LOGISTIC": _unary("Sigmoid"),
    "LOG_SOFTMAX": _unary("LogSoftmax", axis=-1),
    "MAXIMUM": _binary("Max"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _reduce("ReduceMean"),
    "MINIMUM": _binary("Min"),
    "MIRROR_PAD": _pad("mirror"),
    "MUL": _binary("Mul"),
    "NEG": _unary("Neg"),
    "NOT_EQUAL": _compared("Equal", negated=True),
    "PACK": _pack,
    "PAD": _pad("constant"),
    "PADV2": _pad("constant"),
    "POW": _binary("Pow"),
    "PRELU": lambda c: c.emit("PRelu", [c.value(0), c.constant(1)], c.value(0).shape),
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "RELU": _unary("Relu"),
    "RELU6": lambda c: _clip(c, c.value(0), 0, 6),
    "RELU_0_TO_1": lambda c: _clip(c, c.value(0), 0, 1),
    "RELU_N1_TO_1": lambda c: _clip(c, c.value(0), -1, 1),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "REVERSE_V2": _reverse,
    "ROUND": _unary("Round"),
    "RSQRT": lambda c: c.pointwise("Reciprocal", c.pointwise("Sqrt", c.value(0))),
    "SELECT": _select,
    "SELECT_V2": _select,
    "SHAPE": _shape,
    "SIGN": _unary("Sign"),
    "SIN": _unary("Sin"),
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQRT": _unary("Sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary("Sub"),
    "SUM": _reduce("ReduceSum"),
    "TANH": _unary("Tanh"),
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence_lstm,
    "UNPACK": _unpack,
}
"""TensorFlow Lite operator → translation."""
