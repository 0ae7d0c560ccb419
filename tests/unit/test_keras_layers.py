"""Keras layers and operations that random networks seldom have, against TensorFlow where that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf_keras", reason="tf_keras, Keras 2, is not installed (pip install -e '.[tensorflow]')")
from keras_comparison import TOLERANCE, differences

from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model


def volumes(keras: Any) -> Any:
    """Three dimensions besides the channels."""
    layers = keras.layers
    x = keras.Input((5, 6, 7, 2))
    y = layers.Conv3D(3, 3, padding="same", strides=(1, 2, 1), activation="relu")(x)
    y = layers.Cropping3D(((0, 1), (0, 0), (1, 0)))(layers.ZeroPadding3D(((0, 1), (1, 0), (0, 2)))(y))
    z = layers.AveragePooling3D((2, 3, 2), padding="same")(y)
    y = layers.GlobalAveragePooling3D()(layers.MaxPooling3D(2)(y))
    back = layers.Conv3DTranspose(2, (2, 3, 2), strides=(2, 1, 2), padding="same")(z)
    return keras.Model(x, [y, back, layers.GlobalMaxPooling3D()(layers.UpSampling3D((2, 1, 2))(z))])


def pictures(keras: Any) -> Any:
    """Resized, larger and smaller, and cropped."""
    layers = keras.layers
    x = keras.Input((9, 7, 2))
    sizes = [(6, 5, "bilinear"), (18, 14, "bilinear"), (18, 14, "nearest"), (5, 10, "nearest")]
    resized = [layers.Resizing(h, w, interpolation=kind)(x) for h, w, kind in sizes]
    return keras.Model(x, [*resized, layers.CenterCrop(4, 4)(x)])


def equations(keras: Any) -> Any:
    """Products that a letter for each dimension describes."""
    layer = keras.layers.EinsumDense
    x = keras.Input((6, 8))
    y = layer("abc,cd->abd", output_shape=(None, 5), bias_axes="d", activation="relu")(x)
    z = layer("abc,cde->abde", output_shape=(None, 3, 4), bias_axes="de")(x)
    return keras.Model(x, [y, z, layer("abc,bd->acd", output_shape=(8, 2))(x)])


def picked(keras: Any) -> Any:
    """Slices with steps and backwards, single steps, an ellipsis, new axes."""
    x = keras.Input((10, 6))
    return keras.Model(x, [x[:, 2:8:2, :] * 1.0, x[:, -1] * 1.0, x[:, ::-1, 1:3] + 0.0, x[..., 3] * 2.0])


def chosen(keras: Any) -> Any:
    """Splits, comparisons, selections, products of tensors."""
    x = keras.Input((6, 8))
    if hasattr(keras, "ops"):
        ops = keras.ops
        parts, uneven = ops.split(x, 2, axis=-1), ops.split(x, [3, 4], axis=2)
        joined = ops.concatenate([parts[1], -parts[0]], axis=1)
        products = ops.matmul(joined, ops.transpose(joined, (0, 2, 1)))
        selected = ops.where(joined > 0.1, joined, joined * 0.2)
        other = ops.where(ops.not_equal(joined, joined), joined, 1.0 + ops.abs(joined))
        return keras.Model(x, [products, selected, other, uneven[2]])
    import tensorflow as tf

    parts, uneven = tf.split(x, 2, axis=-1), tf.split(x, [3, 5], axis=2)
    joined = tf.concat([parts[1], -parts[0]], axis=1)
    products = tf.matmul(joined, joined, transpose_b=True)
    return keras.Model(x, [products, tf.where(joined > 0.1, joined, joined * 0.2), uneven[1] * 1.0])


def adaptive(keras: Any) -> Any:
    """Pools that do not divide their input evenly."""
    layers = keras.layers
    x, y = keras.Input((7, 5, 2)), keras.Input((8, 3))
    outputs = [layers.AdaptiveAveragePooling2D((3, 2))(x), layers.AdaptiveMaxPooling2D(3)(x)]
    outputs += [layers.AdaptiveMaxPooling1D(5)(y), layers.AdaptiveAveragePooling1D(1)(y)]
    return keras.Model([x, y], outputs)


def conv_lstms(keras: Any) -> Any:
    """Forwards and backwards, with strides, dilation and without padding; states as outputs."""
    layers = keras.layers
    x, y = keras.Input((4, 6, 5, 2)), keras.Input((3, 7, 2))
    rows = layers.ConvLSTM2D(3, 3, strides=(2, 1), padding="same", return_sequences=True)(x)
    last = layers.ConvLSTM2D(2, 2, recurrent_activation="hard_sigmoid", use_bias=False)(rows)
    made = layers.ConvLSTM1D(2, 2, dilation_rate=2, go_backwards=True, return_state=True)(y)
    return keras.Model([x, y], [rows, last, *made])


def spectral(keras: Any) -> Any:
    """Its kernel is not the one that the layer inside would have."""
    layers = keras.layers
    x = keras.Input((6, 5, 2))
    y = layers.SpectralNormalization(layers.Conv2D(3, 2, activation="relu"))(x)
    return keras.Model(x, layers.SpectralNormalization(layers.Dense(4, use_bias=False))(y))


def models_in_models(keras: Any) -> Any:
    """A model that reads its own output; its first output is one of the whole model, too."""
    layers = keras.layers
    inner_x = keras.Input((6,))
    inner = keras.Model(inner_x, layers.Dense(6, activation="tanh")(inner_x))
    x = keras.Input((6,))
    first = inner(x)
    return keras.Model(x, [first, layers.Dense(2)(inner(inner(first)))])


BOTH = (volumes, picked, chosen, conv_lstms, models_in_models)
CASES = [
    *((build, kind) for build in BOTH for kind in ("h5", "keras", "keras2.h5")),
    *((build, kind) for build in (pictures, equations, adaptive, spectral) for kind in ("h5", "keras")),
]


@pytest.mark.parametrize(("build", "kind"), CASES)
def test_layers(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    assert max(differences(build, kind, tmp_path)) <= TOLERANCE


def test_what_does_not_leave_the_batch_whole_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((4, 5))
    keras.Model(x, keras.layers.Dense(2)(x[0])).save(tmp_path / "first.keras")
    with pytest.raises(UnsupportedError, match=r"\(GetItem\).*batch"):
        load_model(tmp_path / "first.keras")


def test_a_layer_that_is_not_supported_is_refused_with_a_way_out(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    x, numbers = keras.Input((4, 3)), keras.Input((2,))
    outputs = [keras.layers.TimeDistributed(inner)(x), keras.layers.Discretization([0.0, 1.0])(numbers)]
    keras.Model([x, numbers], outputs).save(tmp_path / "refused.keras")
    with pytest.raises(UnsupportedError) as caught:
        load_model(tmp_path / "refused.keras")
    assert "whole model (Sequential) inside; put each" in str(caught.value)
    assert "no Discretization in ml4f; encode the numbers in the program" in str(caught.value)
