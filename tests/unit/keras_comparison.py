"""Keras models saved, read and executed at the nn level, against what Keras computes; needs TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import fuzz_keras

from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

TOLERANCE = fuzz_keras.TOLERANCE
"""Of the largest output."""


def keras_of(kind: str) -> Any:
    """Keras 2 for the formats that it writes, else Keras 3."""
    keras = pytest.importorskip("tf_keras" if kind in ("keras2.h5", "tfjs") else "keras")
    keras.backend.clear_session()
    return keras


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""An input of a shape without the batch."""


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of both signs."""
    return rng.standard_normal(shape).astype(np.float32)


def differences(build: Callable[[Any], Any], kind: str, folder: Path, draws: Sequence[Draw] = (normal,)) -> list[float]:
    """For each run and output the largest error, of its largest element. `build`: a model from Keras's module.

    `draws`: what gives the inputs of each run. Boolean inputs are ones and zeros here.
    """
    keras = keras_of(kind)
    version = 2 if kind in ("keras2.h5", "tfjs") else 3
    model = build(keras)
    rng = np.random.default_rng(4)
    fuzz_keras.Generator(keras, version, rng).randomise(model)
    module, found = None, []
    for draw in draws:
        inputs = [draw(rng, tuple(tensor.shape[1:])) for tensor in model.inputs]
        inputs = [
            (x != 0).astype(np.float32) if "bool" in str(tensor.dtype) else x
            for x, tensor in zip(inputs, model.inputs, strict=True)
        ]
        own = [
            (x != 0)[None] if "bool" in str(tensor.dtype) else x[None]
            for x, tensor in zip(inputs, model.inputs, strict=True)
        ]
        made = model(own if len(own) > 1 else own[0], training=False)
        expected = [np.asarray(y).ravel() for y in (made if isinstance(made, list | tuple) else [made])]
        if module is None:
            path = fuzz_keras.save(fuzz_keras.Network(model, own[0], expected[0], version), kind, folder)
            module = import_onnx(load_model(path).proto, path.name)
        results = run_nn(module, inputs)
        found += [fuzz_keras.difference(y, wanted) for y, wanted in zip(results, expected, strict=True)]
    return found
