"""Operations of functional models that move elements: stacks, repetitions, borders, turns, rows by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import STORED_ARRAYS
from ml4f.frontend.keras_layers_shape import MAX_REPEATS
from ml4f.frontend.keras_operations_logic import Made, Operand, number
from ml4f.frontend.keras_operations_tensors import sliced

Operation = Callable[[LayerContext, Sequence[Operand]], Made]


def _first(operands: Sequence[Operand]) -> Value:
    if not operands or not isinstance(operands[0], Value):
        raise Refused("its operand is a constant")
    return operands[0]


def axis_of(c: LayerContext, rank: int, key: str = "axis", default: int | None = None) -> int:
    """One axis besides the batch."""
    axis = c.get(key, default)
    if not isinstance(axis, int) or not -rank <= axis < rank or axis % rank == 0:
        raise Refused(f"its {key} is {str(axis)[:80]}; one axis besides the batch is supported")
    return axis % rank


def _whole(value: Any, what: str) -> list[int]:
    """Whole numbers, as they stand in a file."""
    if isinstance(value, dict) and value.get("class_name") in STORED_ARRAYS:
        value = value["config"]["value"]
    if not isinstance(value, list) or not all(isinstance(n, int) for n in value):
        raise Refused(f"its {what} is {str(value)[:80]}; a list of whole numbers is supported")
    return value


def _stack(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Side by side along a new axis."""
    parts = [number(c, v) for v in operands]
    shapes = {v.shape for v in parts if isinstance(v, Value)}
    if not parts or len(shapes) != 1 or not all(isinstance(v, Value) for v in parts):
        raise Refused("tensors of one shape are supported")
    (shape,) = shapes
    axis = axis_of(c, len(shape) + 1, default=0)
    rows = [c.reshape(v, (*shape[:axis], 1, *shape[axis:])) for v in parts if isinstance(v, Value)]
    if len(rows) == 1:
        return rows[0]
    return c.emit("Concat", rows, (*shape[:axis], len(rows), *shape[axis:]), axis=axis)


def _unstack(c: LayerContext, operands: Sequence[Operand]) -> list[Value]:
    """Each index of an axis."""
    x = _first(operands)
    axis = axis_of(c, x.rank, default=0)
    made = []
    for index in range(x.shape[axis]):
        starts = [index if a == axis else 0 for a in range(x.rank)]
        ends = [index + 1 if a == axis else n for a, n in enumerate(x.shape)]
        row = sliced(c, x, starts, ends, [1] * x.rank)
        made.append(c.reshape(row, [n for a, n in enumerate(x.shape) if a != axis]))
    return made


def _tile(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """The whole tensor so many times along each axis."""
    x = _first(operands)
    given = c.get("repeats", c.get("multiples"))
    repeats = [given] if isinstance(given, int) else _whole(given, "repeats")
    repeats = [1] * (x.rank - len(repeats)) + repeats
    if len(repeats) != x.rank or repeats[0] != 1 or not all(1 <= n <= MAX_REPEATS for n in repeats):
        raise Refused(f"its repeats are {repeats} for {x.rank} dimensions; the batch should stay 1")
    shape = [n * count for n, count in zip(x.shape, repeats, strict=True)]
    return x if shape == list(x.shape) else c.emit("Tile", [x, np.array(repeats, dtype=np.int64)], shape)


def _repeat(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Every index of an axis so many times."""
    x = _first(operands)
    axis, count = axis_of(c, x.rank), c.get("repeats")
    if not isinstance(count, int) or not 1 <= count <= MAX_REPEATS:
        raise Refused(f"its repeats are {str(count)[:80]}; one whole number is supported")
    apart = c.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    wide = (*x.shape[: axis + 1], count, *x.shape[axis + 1 :])
    copies = apart if count == 1 else c.emit("Expand", [apart, np.array(wide, dtype=np.int64)], wide)
    return c.reshape(copies, (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]))


def _pad(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """More elements at both ends: a constant, or those that are there, mirrored."""
    x = number(c, _first(operands))
    assert isinstance(x, Value)
    width = c.get("pad_width")
    pairs = width if isinstance(width, list) else [width]
    pairs = [p if isinstance(p, list) else [p, p] for p in pairs]
    pairs = pairs * x.rank if len(pairs) == 1 else pairs
    mode, value = c.get("mode", "constant"), c.layer.keywords.get("constant_values")
    whole = all(len(p) == 2 and all(isinstance(n, int) and n >= 0 for n in p) for p in pairs)
    if len(pairs) != x.rank or not whole or any(pairs[0]):
        raise Refused(f"its pad_width is {str(width)[:80]} for {x.rank} dimensions; the batch should stay whole")
    if mode not in ("constant", "reflect") or not isinstance(value or 0, int | float):
        raise Refused(f"its mode is {str(mode)[:80]}; constant and reflect are supported")
    amounts = np.array([p[end] for end in (0, 1) for p in pairs], dtype=np.int64)
    shape = [n + sum(p) for n, p in zip(x.shape, pairs, strict=True)]
    if not amounts.any():
        return x
    fill = [np.asarray(value or 0, dtype=np.float32)] if mode == "constant" else []
    return c.emit("Pad", [x, amounts, *fill], shape, mode=mode)


def _flip(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Backwards along some axes."""
    x = _first(operands)
    axis = c.get("axis")
    axes = {a % x.rank for a in (axis if isinstance(axis, list) else [axis]) if isinstance(a, int)}
    if not axes or 0 in axes:
        raise Refused(f"its axis is {str(axis)[:80]}; axes besides the batch are supported")
    starts = [-1 if a in axes else 0 for a in range(x.rank)]
    ends = [-n - 1 if a in axes else n for a, n in enumerate(x.shape)]
    numbers = [np.array(v, dtype=np.int64) for v in (starts, ends, range(x.rank))]
    steps = np.array([-1 if a in axes else 1 for a in range(x.rank)], dtype=np.int64)
    return c.emit("Slice", [x, *numbers, steps], x.shape)


def _roll(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """What goes out at one end of an axis comes in at the other."""
    x = _first(operands)
    axis, shift = axis_of(c, x.rank), c.get("shift")
    if not isinstance(shift, int):
        raise Refused(f"its shift is {str(shift)[:80]}; one whole number is supported")
    shift %= x.shape[axis]
    if shift == 0:
        return x
    parts = []
    for start, end in ((x.shape[axis] - shift, x.shape[axis]), (0, x.shape[axis] - shift)):
        starts = [start if a == axis else 0 for a in range(x.rank)]
        ends = [end if a == axis else n for a, n in enumerate(x.shape)]
        parts.append(sliced(c, x, starts, ends, [1] * x.rank))
    return c.emit("Concat", parts, x.shape, axis=axis)


def _swap_axes(c: LayerContext, operands: Sequence[Operand]) -> Value:
    x = _first(operands)
    one, other = axis_of(c, x.rank, "axis1"), axis_of(c, x.rank, "axis2")
    order = list(range(x.rank))
    order[one], order[other] = order[other], order[one]
    return c.transpose(x, order)


def _move_axis(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """As numpy.moveaxis."""
    x = _first(operands)
    source, target = (c.get(key) for key in ("source", "destination"))
    sources = [source] if isinstance(source, int) else _whole(source, "source")
    targets = [target] if isinstance(target, int) else _whole(target, "destination")
    order = _moved(x.rank, sources, targets)
    if order[0] != 0:
        raise Refused("it moves the batch")
    return c.transpose(x, order)


def _moved(rank: int, sources: Sequence[int], targets: Sequence[int]) -> list[int]:
    sources, targets = [s % rank for s in sources], [t % rank for t in targets]
    order = [a for a in range(rank) if a not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return order


def _broadcast(c: LayerContext, operands: Sequence[Operand]) -> Value:
    x = _first(operands)
    shape = _whole(c.get("shape"), "shape")
    if len(shape) < x.rank or shape[0] != 1 or (len(shape) > x.rank and x.shape[0] != 1):
        raise Refused(f"its shape is {shape}; a batch of 1 in front is supported")
    if np.broadcast_shapes(x.shape, tuple(shape)) != tuple(shape):
        raise Refused(f"{list(x.shape)} to {shape}")
    return x if tuple(shape) == x.shape else c.emit("Expand", [x, np.array(shape, dtype=np.int64)], shape)


def _take(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Rows along an axis by their numbers; negative ones count from the end."""
    x = _first(operands)
    axis = axis_of(c, x.rank)
    extent = x.shape[axis]
    if len(operands) == 2 and isinstance(operands[1], Value):
        raise Refused("its numbers are computed; use an Embedding, or ops.one_hot and ops.matmul")
    arguments = c.layer.keywords.get("args") or []
    given = arguments[1] if len(arguments) > 1 else c.layer.keywords.get("indices")
    numbers = [given] if isinstance(given, int) else _whole(given, "indices")
    if not numbers or not all(-extent <= n < extent for n in numbers):
        raise Refused(f"its numbers {str(numbers)[:80]} are not of the {extent} elements")
    rows = np.array([n % extent for n in numbers], dtype=np.int64)
    made = c.emit("Gather", [x, rows], (*x.shape[:axis], len(rows), *x.shape[axis + 1 :]), axis=axis)
    return c.reshape(made, (*x.shape[:axis], *x.shape[axis + 1 :])) if isinstance(given, int) else made


def _one_hot(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """1 at the number of each element along a new last axis, zeros elsewhere."""
    x = number(c, _first(operands))
    assert isinstance(x, Value)
    count, axis = c.whole("num_classes"), c.get("axis", -1)
    if axis not in (-1, x.rank) or c.get("sparse", False):
        raise Refused(f"its axis is {str(axis)[:80]}, or it is sparse; the last axis is supported")
    numbers = np.arange(count, dtype=np.float32)
    same = c.emit("Equal", [c.reshape(x, (*x.shape, 1)), numbers], (*x.shape, count))
    return c.emit("Cast", [same], same.shape, to=onnx.TensorProto.FLOAT)


def _einsum(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Products by an equation of two tensors, or of one and a constant."""
    equation = str(c.get("subscripts", "")).replace(" ", "")
    read, _, made = equation.partition("->")
    parts = read.split(",")
    values = [number(c, v) for v in operands]
    values = [np.asarray(v, np.float32) if not isinstance(v, Value) else v for v in values]
    if "." in equation or not made or len(parts) != len(values):
        raise Refused(f"its equation is {equation[:80]}; one letter for each dimension is supported")
    sizes: dict[str, int] = {}
    for letters, v in zip(parts, values, strict=True):
        fits = len(letters) == len(v.shape)
        if not fits or any(sizes.setdefault(a, n) != n for a, n in zip(letters, v.shape, strict=True)):
            raise Refused(f"its equation is {equation[:80]} for {[list(w.shape) for w in values]}")
        if isinstance(v, Value) and letters[0] != made[0]:
            raise Refused(f"its equation is {equation[:80]}; the batch should be the first letter everywhere")
    return c.emit("Einsum", values, [sizes[a] for a in made], equation=equation)


def _slice(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """A block: where it begins, and its shape."""
    x = _first(operands)
    arguments = c.layer.keywords.get("args") or []
    starts = _whole(arguments[1] if len(arguments) > 1 else None, "start")
    shape = _whole(c.get("shape"), "shape")
    if len(starts) != x.rank or len(shape) != x.rank or starts[0] or shape[0] not in (1, -1):
        raise Refused(f"it begins at {starts} and has the shape {shape}; the batch should stay whole")
    ends = [n if size == -1 else start + size for n, start, size in zip(x.shape, starts, shape, strict=True)]
    if any(end > n or start < 0 for end, n, start in zip(ends, x.shape, starts, strict=True)):
        raise Refused(f"it begins at {starts} and has the shape {shape}, which is more than there is")
    return sliced(c, x, starts, ends, [1] * x.rank)


OPERATIONS: dict[str, Operation] = {
    "BroadcastTo": _broadcast,
    "Einsum": _einsum,
    "Flip": _flip,
    "Moveaxis": _move_axis,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Repeat": _repeat,
    "Roll": _roll,
    "Slice": _slice,
    "Stack": _stack,
    "Swapaxes": _swap_axes,
    "Take": _take,
    "Tile": _tile,
    "Unstack": _unstack,
}
"""Class of a Keras 3 operation → translation."""

TENSORFLOW_FUNCTIONS: dict[str, Operation] = {
    "stack": _stack,
    "tile": _tile,
}
"""Name of a TensorFlow function, as TFOpLambda stores it → translation."""
