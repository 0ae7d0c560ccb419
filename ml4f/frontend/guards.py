"""Limits and guards for files that nobody vouches for: sizes are checked before memory is taken.

Knows JSON and numbers, nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from ml4f.errors import Ml4fError

MAX_FILE_BYTES = 1 << 29
"""A model file: 512 MiB; optimizer state may triple what a microcontroller could hold."""
MAX_WEIGHT_BYTES = 1 << 28
"""All weights of a model, unpacked: 256 MiB, a hundred times the flash of a large microcontroller."""
MAX_JSON_BYTES = 1 << 26
"""A model's description (TF.js files may hold their weights in it): 64 MiB."""
MAX_ELEMENTS = 1 << 26
"""One tensor of a running model."""
MAX_NODES = 1 << 16
"""Layers after models in models are unfolded."""
MAX_RANK = 8
"""Dimensions of one tensor."""


@contextmanager
def parser_errors(name: str, what: str) -> Iterator[None]:
    """Whatever a parser raises on a broken file, as an Ml4fError that names the file and the part."""
    try:
        yield
    except Ml4fError:
        raise
    except MemoryError:
        raise Ml4fError(f"{name}: {what} is too large to read") from None
    except RecursionError:
        raise Ml4fError(f"{name}: {what} is nested too deeply; this is no model that Keras wrote") from None
    except Exception as error:  # h5py, zipfile and json raise whatever they like on broken files
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise Ml4fError(
            f"{name}: {what} cannot be read, the file is damaged or incomplete ({detail}); save the model again"
        ) from None


def parse_json(data: bytes | str, name: str, what: str) -> Any:
    """A JSON document of limited size; NaN and Infinity stay numbers."""
    if len(data) > MAX_JSON_BYTES:
        raise Ml4fError(f"{name}: {what} takes {len(data)} bytes, more than the limit of {MAX_JSON_BYTES}")
    with parser_errors(name, what):
        return json.loads(data.decode("utf-8-sig") if isinstance(data, bytes) else data)


def object_of(value: Any, name: str, what: str) -> dict[str, Any]:
    """A JSON object, or an error that says what should have been one."""
    if not isinstance(value, dict):
        raise Ml4fError(f"{name}: {what} should be a JSON object, not {type(value).__name__}; save the model again")
    return value


def checked_shape(shape: Any, name: str, what: str) -> tuple[int, ...]:
    """The shape of stored weights: few dimensions, no negative ones."""
    fits = isinstance(shape, list | tuple) and len(shape) <= MAX_RANK
    if not fits or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise Ml4fError(f"{name}: {what} has the shape {str(shape)[:80]}, which is not a list of sizes; save it again")
    return tuple(shape)


class Budget:
    """Counts the bytes of weights before they are read."""

    def __init__(self, name: str, limit: int | None = None):
        self.name = name
        self.limit = MAX_WEIGHT_BYTES if limit is None else limit
        self.used = 0

    def spend(self, shape: tuple[int, ...], item_size: int, what: str) -> int:
        """The bytes of a tensor; an error if the sum goes over the limit."""
        count = prod(shape) * item_size
        self.used += count
        if self.used > self.limit:
            raise Ml4fError(
                f"{self.name}: {what} {list(shape)} brings the weights to {self.used} bytes, more than the limit of "
                f"{self.limit}; the file is damaged or the model far too large for a microcontroller"
            )
        return count


MASK_NUMBERS = 2
"""A constant with infinities is a mask if it has at most so many different finite numbers."""


def diverged(values: np.ndarray) -> bool:
    """Whether a float constant holds what no trained weights do: NaN, or infinities that are no mask of attention."""
    finite = np.isfinite(values)
    if finite.all():
        return False
    return bool(np.isnan(values).any()) or len(np.unique(values[finite])) > MASK_NUMBERS
