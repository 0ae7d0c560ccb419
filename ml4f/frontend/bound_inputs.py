"""Inputs that a user fixes: `--input-value sr=16000` makes a constant of a model's sampling rate, mode or flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ml4f.errors import Ml4fError, UsageError


def parse_input_values(words: Sequence[str]) -> dict[str, list[float]]:
    """From the command line's NAME=V,V,… Raises UsageError."""
    found: dict[str, list[float]] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        try:
            values = [float(part) for part in text.strip("[]()").split(",")]
        except ValueError:
            values = []
        if not name or not values or not all(isfinite(value) for value in values):
            raise UsageError(f"--input-value {word}: say NAME=V,V,… with numbers, as in --input-value sr=16000")
        if found.setdefault(name, values) != values:
            raise UsageError(f"--input-value {word}: {name} has a value already")
    return found


def bind_inputs(proto: onnx.ModelProto, values: Mapping[str, Any], subject: str) -> None:
    """Make constants of inputs, in place: what depends on them alone is computed when compiling.

    values: by the input's name, as many as it has elements, or one for all. Raises Ml4fError.
    """
    graph = proto.graph
    constants = {entry.name for entry in graph.initializer}
    inputs = {entry.name: entry for entry in graph.input if entry.name not in constants}
    for name, given in values.items():
        if name not in inputs:
            raise Ml4fError(f"{subject}: has no input '{name}' to fix; its inputs are {', '.join(map(repr, inputs))}")
        if len(values) >= len(inputs):
            raise Ml4fError(f"{subject}: every input is fixed; nothing is left to compute with")
        graph.initializer.append(numpy_helper.from_array(_array(inputs[name], given, subject), name))
        graph.input.remove(inputs[name])


def _array(entry: onnx.ValueInfoProto, given: Any, subject: str) -> np.ndarray:
    """The values in the shape and type of an input."""
    kind = entry.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    shown = f"{subject}: input '{entry.name}' {list(shape)}"
    if not all(extent > 0 for extent in shape):
        raise Ml4fError(f"{shown}: has a free dimension; say which with --input-shape, then its value")
    try:
        values = np.asarray(given, dtype=np.float64)
        made = np.broadcast_to(values.reshape(shape if values.size > 1 else ()), shape)
    except (ValueError, TypeError):
        raise Ml4fError(f"{shown}: takes {int(np.prod(shape))} numbers, or one for all of them") from None
    typed = made.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if typed.dtype.kind in "biu" and not np.array_equal(typed, made):
        raise Ml4fError(f"{shown}: holds integers of type {typed.dtype}; {made.ravel()[0]:g} is none")
    return typed
