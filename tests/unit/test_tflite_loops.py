"""Keras models that TensorFlow's converter writes as .tflite with loops, casts and logic, against Keras."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tflite", reason="the package tflite is not installed (pip install -e '.[tflite]')")
from keras_comparison import TOLERANCE, keras_of

from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model, tflite_onnx
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

STEPS = 4
WORDS = np.array([[3, 1, 0, 0], [0, 0, 2, 5], [0, 4, 0, 1], [1, 2, 3, 4], [0, 0, 0, 0]], np.int32)
"""Padded behind, in front, in between, not at all, all over."""


def built(keras: Any) -> Any:
    """Recurrent layers with masks, and what is cast, compared and encoded."""
    keras.utils.set_random_seed(5)
    layers, ops = keras.layers, keras.ops
    words = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(6, 3, mask_zero=True, embeddings_initializer="normal")(words)
    last = layers.LSTM(2, bias_initializer="normal")(x)
    every = layers.GRU(2, return_sequences=True, go_backwards=True, bias_initializer="normal")(x)
    rows = layers.Dense(2)(ops.one_hot(words, 6))
    cut = ops.cast(ops.cast(rows * 4.0, "int32"), "float32")
    any_row = ops.cast(ops.any(rows > 0.5, axis=1), "float32")
    return keras.Model(words, ops.concatenate([last, ops.reshape(every, (-1, STEPS * 2)), cut[:, 0], any_row], axis=-1))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The model, and its file."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = built(keras_of("keras"))
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    signature = [tf.TensorSpec((1, STEPS), tf.int32)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    return model, path


def test_loops_casts_and_logic_are_those_of_keras(converted: tuple[Any, Path]) -> None:
    model, path = converted
    module = import_onnx(load_model(path).proto, path.name)
    for words in WORDS:
        expected = np.asarray(model(words[None], training=False)).ravel()
        (found,) = run_nn(module, [words.astype(np.float32)])
        assert np.abs(found.ravel() - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_longer_loops_are_refused_with_a_way_out(converted: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_onnx, "MAX_TURNS", STEPS - 1)
    with pytest.raises(UnsupportedError, match=r"\(WHILE\).*more than 3 turns.*\.keras or \.h5"):
        load_model(converted[1])
