"""Weights of Keras layers, whatever they are stored in: `WeightStore`, and the check that they fit: `layer_weights`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ml4f.errors import Ml4fError
from ml4f.frontend.keras_graph import Layer

FLOAT_NAMES = ("float32", "float16", "float64", "bfloat16")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is read when it is needed. `dtype`: as in the file; `read` gives float32 or the file's type."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class WeightStore(Protocol):
    """Where weights come from; `by_place`: a layer's `stored` says where, wrapped layers and cells have their own."""

    @property
    def by_place(self) -> bool: ...

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        """The layer's tensors in Keras's order; an empty list if the file has none for it."""
        ...


@dataclass(frozen=True, eq=False)
class KerasFile:
    """`config`: {"class_name", "config"}; `keras`: the major version whose rules hold; `name`: how errors call it."""

    config: dict[str, Any]
    keras: int
    weights: WeightStore


def major_version(text: str) -> int:
    """3 for "3.15.1", else 2: also for Keras 1 and TF.js, which compute like Keras 2."""
    digits = text.split(".")[0]
    return 3 if digits.isdigit() and int(digits) >= 3 else 2


def named_tensors(layer: Layer, tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Those whose name ends in the layer's name and the tensor's, as in `model/dense/kernel:0`.

    If there are none, those of what the layer is made of, as in `model/lstm/lstm_cell/kernel`.

    If several models hold layers of that name, only those under the innermost model of the layer's path that tells them
    apart.
    """
    named = [(tensor, tensor.name.split("/")) for tensor in tensors]
    own = layer.name.split("/")
    found = [(tensor, parts[: -1 - len(own)]) for tensor, parts in named if parts[-1 - len(own) : -1] == own]
    if not found:
        places = [(tensor, parts, _place(own, parts)) for tensor, parts in named]
        found = [(tensor, parts[:place]) for tensor, parts, place in places if place is not None]
    for outer in reversed(layer.path[:-1]):
        inside = [(tensor, around) for tensor, around in found if outer in around]
        found = inside or found
    return [tensor for tensor, _ in found]


def _place(own: Sequence[str], parts: Sequence[str]) -> int | None:
    """Where a layer's name stands in the parts of a tensor's."""
    for i in range(len(parts) - len(own)):
        if list(parts[i : i + len(own)]) == list(own):
            return i
    return None


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """float32 from the upper halves of its bit patterns."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def layer_weights(
    store: WeightStore,
    layer: Layer,
    expected: Sequence[tuple[str, Sequence[int]]],
    subject: str,
    notes: list[str],
    optional: int = 0,
) -> list[np.ndarray]:
    """The layer's weights as float32, checked against names and shapes; the last `optional` ones are not needed."""
    stored = store.tensors(layer)
    label = f"{subject}: layer '{layer.name}' ({layer.kind})"
    if not len(expected) - optional <= len(stored) <= len(expected):
        names = ", ".join(f"{name} {list(shape)}" for name, shape in expected)
        what = f"{len(stored)} weight tensors" if stored else "no weights"
        raise Ml4fError(f"{label}: the file has {what} for it, it needs {names}; save the whole model again")
    needed = len(expected) - optional
    return [
        _checked(tensor, name, tuple(shape), label, notes)
        for tensor, (name, shape) in zip(stored[:needed], expected[:needed], strict=True)
    ]


def _checked(tensor: StoredTensor, name: str, shape: tuple[int, ...], label: str, notes: list[str]) -> np.ndarray:
    if tensor.shape != shape:
        raise Ml4fError(
            f"{label}: its {name} has the shape {list(tensor.shape)} in the file, {list(shape)} fits the layer; "
            "the configuration and the weights are of different models, save the model again"
        )
    if tensor.dtype not in FLOAT_NAMES:
        raise Ml4fError(
            f"{label}: its {name} is stored as {tensor.dtype}; only float weights are supported, "
            "save the model before it was quantised"
        )
    values = tensor.read()
    if tensor.dtype != "float32":
        note = f"weights stored as {tensor.dtype} are converted to float32"
        if note not in notes:
            notes.append(note)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise Ml4fError(
            f"{label}: its {name} {list(shape)} contains NaN or infinite values; the training has diverged, "
            "train the model again"
        )
    return np.ascontiguousarray(values, dtype=np.float32).reshape(shape)
