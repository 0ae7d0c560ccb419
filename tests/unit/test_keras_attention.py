"""Keras's attention layers, and what a call says besides its tensors, against TensorFlow where that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf_keras", reason="tf_keras, Keras 2, is not installed (pip install -e '.[tensorflow]')")
from keras_comparison import TOLERANCE, differences

import ml4f
from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model


def self_attention(keras: Any) -> Any:
    """The features of a step are those of the heads."""
    x = keras.Input((7, 6))
    return keras.Model(x, keras.layers.MultiHeadAttention(3, 4)(x, x))


def cross_attention(keras: Any) -> Any:
    """By keywords, in another order; the scores are an output; no biases."""
    q, v, k = keras.Input((7, 6)), keras.Input((5, 3)), keras.Input((5, 2))
    layer = keras.layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=9, use_bias=False)
    y, scores = layer(key=k, query=q, value=v, return_attention_scores=True)
    return keras.Model([q, v, k], [y, scores])


def causal(keras: Any) -> Any:
    """A step does not see later ones."""
    x = keras.Input((6, 4))
    return keras.Model(x, keras.layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))


def two_axes(keras: Any) -> Any:
    """Steps along two axes."""
    x = keras.Input((3, 4, 6))
    return keras.Model(x, keras.layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x))


def products(keras: Any) -> Any:
    """Without projections: scaled and causal, and with a key of its own."""
    q, v, k = keras.Input((7, 8)), keras.Input((4, 5)), keras.Input((4, 8))
    y = keras.layers.Attention(use_scale=True)([q, k], use_causal_mask=True)
    z, scores = keras.layers.Attention()([q, v, k], return_attention_scores=True)
    return keras.Model([q, v, k], [y, z, scores])


def sums(keras: Any) -> Any:
    """Bahdanau's, and its form in Attention."""
    q, v = keras.Input((7, 8)), keras.Input((4, 8))
    y = keras.layers.Attention(score_mode="concat", use_scale=True)([q, v])
    return keras.Model([q, v], [y, keras.layers.AdditiveAttention()([q, v])])


def grouped(keras: Any) -> Any:
    """Six query heads share two keys."""
    q, v = keras.Input((7, 8)), keras.Input((4, 8))
    return keras.Model([q, v], keras.layers.GroupQueryAttention(4, 6, 2)(q, v, use_causal_mask=True))


BOTH = (self_attention, cross_attention, causal, two_axes, products, sums)
CASES = [
    *((build, kind) for build in BOTH for kind in ("h5", "keras", "keras2.h5")),
    (grouped, "h5"),  # Keras 2 has none
    (grouped, "keras"),
]


@pytest.mark.parametrize(("build", "kind"), CASES)
def test_attention(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    assert max(differences(build, kind, tmp_path)) <= TOLERANCE


def test_attention_as_machine_code(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    model = causal(keras)
    model.save(tmp_path / "causal.keras")
    x = np.random.default_rng(5).standard_normal((6, 4)).astype(np.float32)
    made = ml4f.compile(tmp_path / "causal.keras").predict(x)
    np.testing.assert_allclose(made, np.asarray(model(x[None]))[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["Dropout", "BatchNormalization", "GRU", "Bidirectional", "TimeDistributed"])
def test_a_layer_called_as_in_training_is_refused(kind: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((5, 4))
    layer = {
        "Dropout": lambda: keras.layers.Dropout(0.3),
        "BatchNormalization": lambda: keras.layers.BatchNormalization(),
        "GRU": lambda: keras.layers.GRU(3, dropout=0.2),
        "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.LSTM(3, recurrent_dropout=0.2)),
        "TimeDistributed": lambda: keras.layers.TimeDistributed(keras.layers.Dropout(0.3)),
    }[kind]()
    y = keras.layers.Dense(3)(layer(x, training=True))
    keras.Model(x, y).save(tmp_path / "trained.keras")
    with pytest.raises(UnsupportedError, match=rf"\({kind}\).*training=True.*training=False"):
        load_model(tmp_path / "trained.keras")


def test_training_makes_no_difference_to_a_recurrent_layer_without_dropout(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((5, 4))
    model = keras.Model(x, keras.layers.GRU(3)(x, training=True))
    model.save(tmp_path / "plain.keras")
    load_model(tmp_path / "plain.keras")
