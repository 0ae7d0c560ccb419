"""Random networks in every format, models in models, and operators, against TensorFlow where that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf_keras", reason="tf_keras, Keras 2, is not installed (pip install -e '.[tensorflow]')")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import fuzz_keras

SEEDS = range(1, 13)
"""Fixed, and few: `tools/fuzz_keras.py` goes on from here."""


def test_random_networks() -> None:
    compared = 0
    for seed in SEEDS:
        count, failures = fuzz_keras.run(seed, fuzz_keras.FORMATS, "nn", None)
        assert failures == []
        compared += count
    assert compared > 3 * len(SEEDS)


def test_a_random_network_as_machine_code() -> None:
    count, failures = fuzz_keras.run(5, ("h5", "tfjs"), "validate", None)
    assert (count, failures) == (2, [])


def nested(keras: Any) -> Any:
    """Sequential models in Sequential models, two of which have layers of the same names."""
    layers = keras.layers
    blocks = [keras.Sequential([layers.Conv1D(4, 3, activation="relu"), layers.BatchNormalization()]) for _ in (0, 1)]
    head = keras.Sequential(
        [keras.Sequential([layers.Dense(5, activation="tanh"), layers.Dropout(0.1)]), layers.Dense(4)]
    )
    return keras.Sequential(
        [keras.Input((20, 3)), *blocks, layers.MaxPooling1D(2), head, layers.Flatten(), layers.Dense(2)]
    )


def functional(keras: Any) -> Any:
    """A model in a model, called twice, and a layer called three times."""
    layers = keras.layers
    x = inner = keras.Input((16, 4))
    x = layers.BatchNormalization()(layers.Conv1D(4, 3, padding="same", activation="relu")(x))
    block = keras.Model(inner, x, name="block")
    shared = layers.Dense(6, activation="tanh")
    x = outer = keras.Input((16, 3))
    x = block(block(layers.Conv1D(4, 1)(x)))
    x = layers.Dense(6)(layers.Flatten()(x))
    return keras.Model(outer, shared(shared(shared(x))))


def operators(keras: Any) -> Any:
    """Arithmetic of tensors and numbers."""
    layers = keras.layers
    x = keras.Input((10, 3))
    y, z = layers.Conv1D(4, 3, padding="same")(x), layers.Conv1D(4, 3, padding="same")(x)
    w = -((1.0 - ((y + z) * 2.0 - y)) / 3.0)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(w)))


def branches(keras: Any) -> Any:
    """A residual sum, and a concatenation."""
    layers = keras.layers
    x = keras.Input((10, 10, 3))
    y = layers.Conv2D(4, 3, padding="same")(x)
    z = layers.Conv2D(4, 3, padding="same", activation="relu")(y)
    z = layers.Activation("relu")(layers.Add()([y, z]))
    z = layers.GlobalMaxPooling2D()(layers.Concatenate()([z, y]))
    return keras.Model(x, layers.Dense(3)(z))


def layers_as_activations(keras: Any) -> Any:
    """Activations that are functions and layers."""
    layers = keras.layers
    leaky, limited = layers.LeakyReLU(0.2), layers.ReLU(max_value=2.0)
    dense = [layers.Dense(5, activation=a) for a in (leaky, limited, keras.activations.swish)]
    return keras.Sequential([keras.Input((8,)), *dense])


@pytest.mark.parametrize("build", [nested, functional, operators, branches, layers_as_activations])
@pytest.mark.parametrize("kind", ["h5", "keras", "keras2.h5", "tfjs"])
def test_models_of_models_and_operators(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    version = 2 if kind in ("keras2.h5", "tfjs") else 3
    keras = pytest.importorskip("tf_keras" if version == 2 else "keras")
    keras.backend.clear_session()
    model = build(keras)
    rng = np.random.default_rng(3)
    fuzz_keras.Generator(keras, version, rng).randomise(model)
    x = rng.standard_normal((2, *model.input_shape[1:])).astype(np.float32)
    network = fuzz_keras.Network(model, x, np.asarray(model(x, training=False)), version)
    assert fuzz_keras.check(network, kind, "nn", tmp_path) <= fuzz_keras.TOLERANCE
