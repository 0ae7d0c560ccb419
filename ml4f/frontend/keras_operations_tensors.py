"""Operations of functional models that pick and multiply: slices, splits, products of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value

Operand = Value | float | np.ndarray
Made = Value | list[Value]


def sliced(c: LayerContext, x: Value, starts: Sequence[int], ends: Sequence[int], steps: Sequence[int]) -> Value:
    """x[starts:ends:steps] along all axes; ends may lie outside as ONNX has them."""
    shape = [len(range(*slice(s, e, t).indices(n))) for s, e, t, n in zip(starts, ends, steps, x.shape, strict=True)]
    if list(x.shape) == shape and all(t == 1 for t in steps):
        return x
    numbers = [np.array(v, dtype=np.int64) for v in (starts, ends, range(x.rank), steps)]
    return c.emit("Slice", [x, *numbers], shape)


def get_item(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """x[key]: numbers, slices, an ellipsis and new axes; the batch stays whole."""
    x = operands[0]
    if not isinstance(x, Value):
        raise Refused("its operand is a constant")
    key = c.layer.keywords.get("slice_spec")
    if key is None:
        arguments = c.layer.keywords.get("args") or []
        if len(arguments) != 2:
            raise Refused("its indices are not in the file")
        key = arguments[1]
    parts = [_part(entry) for entry in _items(key)]
    if parts.count(Ellipsis) > 1:
        raise Refused("two ellipses")
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > x.rank:
        raise Refused(f"{used} indices for {x.rank} dimensions")
    at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    parts = [*parts[:at], *[slice(None)] * (x.rank - used), *parts[at + 1 :]]
    return _indexed(c, x, parts)


def _items(key: Any) -> list[Any]:
    """The entries of a tuple, however Keras stores it; a lone index is one."""
    if isinstance(key, dict) and key.get("class_name") == "__tuple__":
        key = key.get("items", (key.get("config") or {}).get("items"))
    return list(key) if isinstance(key, list | tuple) else [key]


def _part(entry: Any) -> Any:
    """An index, a slice, Ellipsis, or None for a new axis."""
    if entry is None or (isinstance(entry, int) and not isinstance(entry, bool)):
        return entry
    if isinstance(entry, dict):
        if entry.get("class_name") in ("__ellipsis__", "Ellipsis"):
            return Ellipsis
        bounds = entry.get("config") or entry
        if {"start", "stop", "step"} <= bounds.keys():
            ends = [bounds[name] for name in ("start", "stop", "step")]
            if all(n is None or isinstance(n, int) for n in ends):
                return slice(*ends)
    if entry == "...":
        return Ellipsis
    raise Refused(f"its index {str(entry)[:80]}; numbers, slices, an ellipsis and new axes are supported")


def _indexed(c: LayerContext, x: Value, parts: Sequence[Any]) -> Value:
    if not isinstance(parts[0], slice) or parts[0] not in (slice(None), slice(0, None), slice(None, None, 1)):
        raise Refused("it does not leave the batch whole")
    starts, ends, steps, shape = [], [], [], []
    axis = 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        extent = x.shape[axis]
        if isinstance(part, int):
            if not -extent <= part < extent:
                raise Refused(f"its index {part} is outside of {extent} elements")
            part = slice(part % extent, part % extent + 1)
        else:
            shape.append(len(range(*part.indices(extent))))
        start, stop, step = part.indices(extent)
        starts.append(start)
        ends.append(stop if stop >= 0 else -extent - 1)
        steps.append(step)
        axis += 1
    return c.reshape(sliced(c, x, starts, ends, steps), shape)


def split(c: LayerContext, operands: Sequence[Operand]) -> list[Value]:
    """Parts along an axis: so many equal ones, or those between some numbers."""
    x, axis, where = operands[0], c.get("axis", 0), c.get("indices_or_sections", c.get("num_or_size_splits"))
    if not isinstance(x, Value) or not isinstance(axis, int) or axis % x.rank == 0:
        raise Refused(f"along axis {str(axis)[:80]}; the batch should stay whole")
    axis %= x.rank
    extent = x.shape[axis]
    if isinstance(where, int) and where > 0 and extent % where == 0:
        edges = list(range(0, extent + 1, extent // where))
    elif isinstance(where, list) and all(isinstance(n, int) for n in where) and c.get("num_or_size_splits"):
        edges = [0, *(int(n) for n in np.cumsum(where))]
    elif isinstance(where, list) and all(isinstance(n, int) for n in where):
        edges = [0, *where, extent]
    else:
        raise Refused(f"into {str(where)[:80]} parts of {extent} elements")
    if edges[-1] != extent or any(b <= a for a, b in pairwise(edges)):
        raise Refused(f"into parts that end at {edges[1:]} of {extent} elements")
    parts = []
    for begin, end in pairwise(edges):
        starts = [begin if a == axis else 0 for a in range(x.rank)]
        ends = [end if a == axis else n for a, n in enumerate(x.shape)]
        parts.append(sliced(c, x, starts, ends, [1] * x.rank))
    return parts


def matmul(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Products of matrices, for each index of the dimensions before."""
    x, y = operands if len(operands) == 2 else (None, None)
    if not isinstance(x, Value) or not isinstance(y, Value) or x.rank != y.rank or x.rank < 3:
        raise Refused("two tensors with the same number of dimensions, three or more, are supported")
    x = _turned(c, x, bool(c.get("transpose_a", False)))
    y = _turned(c, y, bool(c.get("transpose_b", False)))
    if x.shape[-1] != y.shape[-2]:
        raise Refused(f"a product of {list(x.shape)} and {list(y.shape)}")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    return c.emit("MatMul", [x, y], shape)


def _turned(c: LayerContext, x: Value, wanted: bool) -> Value:
    return c.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2]) if wanted else x


OPERATIONS: dict[str, Callable[[LayerContext, Sequence[Operand]], Made]] = {
    "GetItem": get_item,
    "Matmul": matmul,
    "Split": split,
}
"""Class of a Keras 3 operation → translation."""

TENSORFLOW_FUNCTIONS: dict[str, Callable[[LayerContext, Sequence[Operand]], Made]] = {
    "__operators__.getitem": get_item,
    "linalg.matmul": matmul,
    "split": split,
}
"""Name of a TensorFlow function → translation."""
