"""Functional networks drawn at random, and masks in exported files, as machine code against Keras."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import fuzz_keras_graphs as fuzz


def test_a_random_functional_network(tmp_path: Path) -> None:
    """With a mask in a .tflite file; `tools/fuzz_keras_graphs.py` goes on from here."""
    network = fuzz.Network(73)
    for kind in ("keras", "tflite"):
        assert fuzz.error_of(network, network.save(kind, tmp_path)) <= fuzz.TOLERANCE


@pytest.mark.parametrize("kind", ["tflite", "savedmodel"])
def test_masks_of_exported_files(kind: str, tmp_path: Path) -> None:
    """Padded words, behind and in front, that attention and a mean leave out, and a recurrent layer."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    layers, i = keras.layers, keras.Input((5,), dtype="int32", name="in0")
    x = layers.Embedding(7, 4, mask_zero=True)(i)
    outputs = [layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 2)(x, x))]
    if kind == "savedmodel":  # the other converter takes no loops with a free batch
        outputs.append(layers.GRU(2, go_backwards=True)(x))
    samples = [[np.array([row], np.int32)] for row in ([1, 2, 3, 0, 0], [0, 0, 4, 5, 6], [2, 0, 3, 0, 1])]
    network = fuzz.Network.of(keras.Model(i, outputs), samples)
    assert fuzz.error_of(network, network.save(kind, tmp_path)) <= fuzz.TOLERANCE
