"""Keras models saved, read and executed at the nn level, against what Keras computes; needs TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable
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


def differences(build: Callable[[Any], Any], kind: str, folder: Path) -> list[float]:
    """For each output the largest error, of its largest element. `build`: a model from Keras's module."""
    keras = keras_of(kind)
    version = 2 if kind in ("keras2.h5", "tfjs") else 3
    model = build(keras)
    rng = np.random.default_rng(4)
    fuzz_keras.Generator(keras, version, rng).randomise(model)
    inputs = [rng.standard_normal((1, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    found = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    expected = [np.asarray(y).ravel() for y in (found if isinstance(found, list | tuple) else [found])]
    path = fuzz_keras.save(fuzz_keras.Network(model, inputs[0], expected[0], version), kind, folder)
    results = run_nn(import_onnx(load_model(path).proto, path.name), [x[0] for x in inputs])
    return [fuzz_keras.difference(y, wanted) for y, wanted in zip(results, expected, strict=True)]
