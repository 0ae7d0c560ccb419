"""Accuracy of the machine code on labelled samples: reading them, running them, the confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ml4f.errors import Ml4fError

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Samples:
    """`x`: [n, elements] float32; `y`: [n] class numbers, or [n, outputs] wanted values."""

    x: np.ndarray
    y: np.ndarray

    @property
    def is_classification(self) -> bool:
        """Whether the labels are classes."""
        return self.y.ndim == 1


@dataclass(frozen=True)
class Evaluation:
    """`confusion[predicted, true]` counts; for regression `mean_absolute_error` instead."""

    samples: int
    correct: int
    confusion: np.ndarray
    mean_absolute_error: float | None = None

    @property
    def accuracy(self) -> float:
        """The share of samples whose largest output is at the label."""
        return self.correct / self.samples if self.samples else 0.0

    def text(self) -> str:
        """`Accuracy: 0.9560` and the matrix, rows predicted, columns true."""
        if self.mean_absolute_error is not None:
            return f"Mean absolute error: {self.mean_absolute_error:.6g}"
        rows = ["".join(f"{count:5d}" for count in row) for row in self.confusion]
        return "\n".join([f"Accuracy: {self.accuracy:.4f}", *rows])


def read_samples(path: str | Path, input_shape: tuple[int, ...], outputs: int) -> Samples:
    """Samples from `{"x": [...], "y": [...]}` JSON or an .npz with x and y; Ml4fError says what does not fit the model.

    y: a class number or a one-hot row a sample for networks with several outputs; otherwise the wanted values.
    """
    path = Path(path)
    x, y = _read_arrays(path)
    elements = prod(input_shape)
    if x.ndim == 0 or x.size == 0:
        raise Ml4fError(f"{path}: x holds no samples")
    count = len(x)
    if x.size != count * elements or (x.ndim > 2 and x.shape[1:] != input_shape and x.size != count * elements):
        raise Ml4fError(
            f"{path}: x has shape {list(x.shape)}; the model takes [n, {', '.join(map(str, input_shape))}], "
            f"{elements} values a sample"
        )
    if not np.isfinite(x).all():
        raise Ml4fError(f"{path}: x contains NaN or infinite values")
    if len(np.atleast_1d(y)) != count:
        raise Ml4fError(f"{path}: {count} samples in x, but {len(np.atleast_1d(y))} labels in y")
    return Samples(x.reshape(count, elements).astype(np.float32), _labels(path, y.reshape(count, -1), outputs))


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Ml4fError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as data:
                entries = {key: data[key] for key in ("x", "y") if key in data}
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            entries = {key: np.asarray(loaded[key], dtype=np.float64) for key in ("x", "y") if key in loaded}
        missing = [key for key in ("x", "y") if key not in entries]
        if missing:
            raise Ml4fError(f"{path}: has no {' and no '.join(missing)}; wanted: x, the inputs, and y, the labels")
        return np.asarray(entries["x"], dtype=np.float64), np.asarray(entries["y"], dtype=np.float64)
    except Ml4fError:
        raise
    except OSError as error:
        raise Ml4fError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise Ml4fError(f"{path}: nested too deeply") from None
    except Exception as error:  # noqa: BLE001: whatever a hostile file makes the parsers raise
        raise Ml4fError(f'{path}: not {{"x": …, "y": …}} JSON or .npz with equally long rows: {error}') from None


def _labels(path: Path, y: np.ndarray, outputs: int) -> np.ndarray:
    if outputs == 1:
        return y
    if y.shape[1] == outputs:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        return y.argmax(axis=1) if one_hot else y
    if y.shape[1] == 1:
        labels = y[:, 0]
        if (labels == np.floor(labels)).all() and (labels >= 0).all() and (labels < outputs).all():
            return labels.astype(int)
        raise Ml4fError(f"{path}: class numbers in y must be 0 to {outputs - 1}")
    raise Ml4fError(f"{path}: y has {y.shape[1]} values a sample; the model has {outputs} outputs")


def evaluate(samples: Samples, run: Callable[[np.ndarray], np.ndarray], outputs: int) -> Evaluation:
    """Run every sample; `run` maps flat inputs to outputs."""
    results = np.stack([np.ravel(run(x)) for x in samples.x])
    if not samples.is_classification:
        wanted = samples.y.reshape(len(results), -1)
        error = float(np.mean(np.abs(results[:, : wanted.shape[1]] - wanted)))
        return Evaluation(len(results), 0, np.zeros((0, 0), int), error)
    predicted = results.argmax(axis=1)
    confusion = np.zeros((outputs, outputs), int)
    np.add.at(confusion, (predicted, samples.y), 1)
    return Evaluation(len(results), int(np.sum(predicted == samples.y)), confusion)
