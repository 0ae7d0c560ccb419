"""Accuracy of the machine code on labelled samples: reading them, running them, the confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ml4f.backend.thumb.image import Header
from ml4f.errors import Ml4fError
from ml4f.machine import fits

MAX_FILE_BYTES = 1 << 30
THRESHOLD = 0.5
"""A network with a single output, or with independent labels, says yes above it."""
SUM_TOLERANCE = 1e-3
"""By how much the probabilities of a soft label may miss one."""

FEWEST_NAMED = 3
"""Entries of a file for a model with several inputs: two of them, and the labels."""

Task = Literal["classes", "labels", "values"]


@dataclass(frozen=True)
class Samples:
    """`x`: [n, elements] float32. `y`: for classes [n] class numbers; else [n, outputs] zeros and ones (labels) or
    values.
    """

    x: np.ndarray
    y: np.ndarray
    task: Task


@dataclass(frozen=True)
class Evaluation:
    """What the machine code made of the samples.

    classes: `accuracy` is the share of samples whose largest output is at the label, `confusion[predicted, true]`
    counts. labels (several may hold at once): `accuracy` is the share of right yes/no answers, `exact` that of samples
    with all of them right. values (regression): `mean_absolute_error` and `root_mean_square_error` over all outputs.
    """

    samples: int
    task: Task
    accuracy: float | None = None
    confusion: np.ndarray | None = None
    exact: float | None = None
    mean_absolute_error: float | None = None
    root_mean_square_error: float | None = None

    def text(self) -> str:
        """`Accuracy: 0.9560` and the matrix, rows predicted, columns true; other tasks have lines of their own."""
        if self.confusion is not None:
            rows = ["".join(f"{count:5d}" for count in row) for row in self.confusion]
            return "\n".join([f"Accuracy: {self.accuracy:.4f}", *rows])
        if self.exact is not None:
            return f"Accuracy: {self.accuracy:.4f}\nExact matches: {self.exact:.4f}"
        return (
            f"Mean absolute error: {self.mean_absolute_error:.6g}\n"
            f"Root mean square error: {self.root_mean_square_error:.6g}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields that apply."""
        fields = {
            "samples": self.samples,
            "task": self.task,
            "accuracy": self.accuracy,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "exactMatches": self.exact,
            "meanAbsoluteError": self.mean_absolute_error,
            "rootMeanSquareError": self.root_mean_square_error,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class SampleFile:
    """The arrays of a file, as they are."""

    path: Path
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, path: str | Path) -> SampleFile:
        """`{"x": [...], "y": [...]}` JSON, or an .npz with x and y; or an entry an input. Raises Ml4fError."""
        path = Path(path)
        return cls(path, _read_arrays(path))

    def samples_for(self, header: Header) -> Samples:
        """The samples for an object. Of several inputs each is an entry of its name; y may be named like the output."""
        outputs = header.outputs[0].elements
        if len(header.inputs) == 1:
            return self.samples(header.input_shape, outputs)
        names = [tensor.name for tensor in header.inputs]
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise Ml4fError(f"{self.path}: has no {' and no '.join(missing)}; the model takes {', '.join(names)}")
        parts = []
        for tensor in header.inputs:
            array = self.arrays[tensor.name]
            wanted = [len(np.atleast_1d(self.arrays[names[0]])), *tensor.shape]
            if array.ndim == 0 or not fits(array.shape[1:], tensor.shape) or len(array) != wanted[0]:
                shape = list(array.shape)
                raise Ml4fError(f"{self.path}: {tensor.name} has shape {shape}, but the model takes {wanted}")
            parts.append(array.reshape(len(array), -1))
        y = self.arrays.get("y", self.arrays.get(header.outputs[0].name))
        if y is None:
            raise Ml4fError(f"{self.path}: has no y and no {header.outputs[0].name}, the labels")
        joined = SampleFile(self.path, {"x": np.concatenate(parts, axis=1), "y": y})
        return joined.samples((header.input_elements,), outputs)

    def samples(self, input_shape: tuple[int, ...], outputs: int) -> Samples:
        """The samples for a model; Ml4fError says what does not fit it, with both shapes.

        x: one input a row, of the model's shape or flat. y: a class number a row, or as many values a row as the model
        has outputs: one-hot or probabilities (classes), zeros and ones (independent labels), or anything else (values).
        A single output whose values are all zero or one is one of two classes, above or below 0.5.
        """
        missing = [key for key in ("x", "y") if key not in self.arrays]
        if missing:
            raise Ml4fError(f"{self.path}: has no {' and no '.join(missing)}; wanted: x, the inputs, and y, the labels")
        path, x, y = self.path, self.arrays["x"], self.arrays["y"]
        if x.ndim == 0 or x.size == 0:
            raise Ml4fError(f"{path}: x holds no samples")
        if not fits(x.shape[1:], input_shape):
            raise Ml4fError(
                f"{path}: x has shape {list(x.shape)}, but the model takes {[len(x), *input_shape]}: "
                f"{len(x)} samples of shape {list(input_shape)}, or flat ones of {prod(input_shape)} values"
            )
        if y.ndim == 0 or len(y) != len(x):
            raise Ml4fError(f"{path}: {len(x)} samples in x of shape {list(x.shape)}, but y has shape {list(y.shape)}")
        for name, values in (("x", x), ("y", y)):
            if not np.isfinite(values).all():
                raise Ml4fError(f"{path}: {name} contains NaN or infinite values")
        labels, task = _labels(path, y, outputs)
        return Samples(x.reshape(len(x), -1).astype(np.float32), labels, task)


def _numeric(entries: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The entries as arrays; what is neither x nor y may be something else, and is left out then."""
    arrays = {}
    for key, value in entries.items():
        try:
            arrays[key] = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            if key in ("x", "y"):
                raise
    return arrays


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Ml4fError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as data:
                entries = _numeric(data)
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            entries = _numeric(loaded) if isinstance(loaded, dict) else {}
        missing = [key for key in ("x", "y") if key not in entries]
        if missing and len(entries) < FEWEST_NAMED:
            raise Ml4fError(f"{path}: has no {' and no '.join(missing)}; wanted: x, the inputs, and y, the labels")
        return entries
    except Ml4fError:
        raise
    except OSError as error:
        raise Ml4fError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise Ml4fError(f"{path}: too large for this machine's memory") from None
    except RecursionError:
        raise Ml4fError(f"{path}: nested too deeply") from None
    except Exception as error:  # whatever a hostile file makes the parsers raise
        raise Ml4fError(f'{path}: not {{"x": …, "y": …}} JSON or .npz with equally long rows: {error}') from None


def _labels(path: Path, y: np.ndarray, outputs: int) -> tuple[np.ndarray, Task]:
    """The labels and what they mean."""
    shape = list(y.shape)
    y = y.reshape(len(y), -1)
    binary = bool(np.isin(y, (0, 1)).all())
    if y.shape[1] == outputs == 1:
        return (y[:, 0].astype(int), "classes") if binary else (y, "values")
    if y.shape[1] == outputs:
        if (y >= 0).all() and (np.abs(y.sum(axis=1) - 1) <= SUM_TOLERANCE).all():
            return y.argmax(axis=1), "classes"
        return y, "labels" if binary else "values"
    if y.shape[1] == 1:
        labels = y[:, 0]
        if (labels == np.floor(labels)).all() and (labels >= 0).all() and (labels < outputs).all():
            return labels.astype(int), "classes"
        raise Ml4fError(f"{path}: y has shape {shape}; class numbers must be whole numbers from 0 to {outputs - 1}")
    raise Ml4fError(
        f"{path}: y has shape {shape}, {y.shape[1]} values a sample, but the model has {outputs} outputs; "
        "wanted: as many values a sample, or one class number"
    )


def evaluate(samples: Samples, run: Callable[[np.ndarray], np.ndarray], outputs: int) -> Evaluation:
    """Run every sample; `run` maps flat inputs to outputs."""
    results = np.stack([np.ravel(run(x)) for x in samples.x]).astype(np.float64)
    count = len(results)
    if samples.task == "classes":
        predicted = results.argmax(axis=1) if outputs > 1 else (results[:, 0] > THRESHOLD).astype(int)
        classes = max(outputs, 2)
        confusion = np.zeros((classes, classes), int)
        np.add.at(confusion, (predicted, samples.y), 1)
        return Evaluation(count, "classes", float(np.mean(predicted == samples.y)), confusion)
    if samples.task == "labels":
        right = (results > THRESHOLD) == (samples.y > THRESHOLD)
        return Evaluation(count, "labels", float(right.mean()), exact=float(right.all(axis=1).mean()))
    errors = results - samples.y
    return Evaluation(
        count,
        "values",
        mean_absolute_error=float(np.mean(np.abs(errors))),
        root_mean_square_error=float(np.sqrt(np.mean(errors**2))),
    )
