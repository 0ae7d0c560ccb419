"""Masks of Keras, and what layers make of them, against TensorFlow where that is installed."""

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

STEPS = 9
MASKS = np.array(
    [
        [1, 1, 1, 1, 0, 0, 0, 0, 0],  # padded behind
        [0, 0, 0, 1, 1, 1, 1, 1, 1],  # padded in front
        [1, 0, 1, 1, 0, 0, 1, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.float32,
)
"""Of one sequence each."""


def sequences(seen: np.ndarray) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    """Numbers of words, or features, that are 0 where a mask is."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return rng.integers(1, 6, shape).astype(np.float32) * seen[: shape[0]]
        return rng.standard_normal(shape).astype(np.float32) * seen[: shape[0], None]

    return draw


def words(keras: Any) -> tuple[Any, Any]:
    """A sequence of numbers, and its rows of a table."""
    x = keras.Input((STEPS,))
    return x, keras.layers.Embedding(7, 4, mask_zero=True)(x)


def last_outputs(keras: Any) -> Any:
    layers, (x, y) = keras.layers, words(keras)
    return keras.Model(x, [layers.LSTM(3)(y), layers.GRU(5)(y), layers.SimpleRNN(2)(layers.Dense(3)(y))])


def all_outputs(keras: Any) -> Any:
    """Two layers; backwards, too; outputs of hidden steps are zero where that is wanted."""
    layers = keras.layers
    x = keras.Input((STEPS, 3))
    y = layers.LSTM(4, return_sequences=True)(layers.Masking()(x))
    z = layers.GRU(3, return_sequences=True, go_backwards=True)(y)
    cell = layers.LSTMCell(3)
    zeros = layers.RNN(cell, return_sequences=True, zero_output_for_mask=True)(y)
    zero = layers.RNN(layers.SimpleRNNCell(3), zero_output_for_mask=True, go_backwards=True)(y)
    return keras.Model(x, [y, z, zeros, zero])


def states(keras: Any) -> Any:
    """An encoder's states begin a decoder, which gives its own."""
    layers, (x, y) = keras.layers, words(keras)
    _, h, c = layers.LSTM(4, return_state=True)(y)
    other = layers.Dense(3)(layers.Masking()(y))
    decoded = layers.LSTM(4, return_state=True, return_sequences=True)(other, initial_state=[h, c])
    z = layers.GRU(4, return_state=True, recurrent_activation="hard_sigmoid")(y, initial_state=h)
    return keras.Model(x, [*decoded, *z])


def both_ways(keras: Any) -> Any:
    layers, (x, y) = keras.layers, words(keras)
    ways = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    z = layers.Bidirectional(layers.GRU(3), merge_mode="ave")(ways)
    apart = layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode=None)(y)
    return keras.Model(x, [ways, z, layers.LSTM(2)(apart[1])])


def stacked(keras: Any) -> Any:
    """Cells on cells, with their states."""
    layers, (x, y) = keras.layers, words(keras)
    cells = [layers.LSTMCell(3), layers.GRUCell(4, use_bias=False), layers.LSTMCell(2)]
    free = keras.Input((5, 3))
    made = layers.RNN(layers.StackedRNNCells(cells), return_state=True, return_sequences=True)(free)
    flat = [made[0], *(s for state in made[1:] for s in (state if isinstance(state, list | tuple) else [state]))]
    masked = layers.RNN([layers.GRUCell(3), layers.GRUCell(2)], return_sequences=True)(y)
    return keras.Model([x, free], [*flat, masked, layers.RNN(layers.GRUCell(3), go_backwards=True)(y)])


def means(keras: Any) -> Any:
    """What hands on a mask, joins masks, and loses them."""
    layers, (x, y) = keras.layers, words(keras)
    other = layers.Masking(0.5)(layers.Activation("hard_sigmoid")(layers.Dense(4)(keras.layers.Dropout(0.2)(y))))
    kept = layers.LayerNormalization()(layers.Activation("relu")(layers.Dense(4)(y)))
    pool = layers.GlobalAveragePooling1D
    joined = layers.Concatenate()([y, other])
    behind = layers.Concatenate(axis=1)([y, other])
    lost = layers.Conv1D(3, 2)(y)
    outputs = [layers.Add()([kept, other]), layers.Multiply()([y, kept]), joined, behind, lost]
    return keras.Model(x, [pool()(z) for z in outputs] + [pool(keepdims=True)(y)])


def given(keras: Any) -> Any:
    """A mask that is an input."""
    layers = keras.layers
    x, seen = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="bool")
    y = layers.LSTM(4, return_sequences=True)(x, mask=seen)
    return keras.Model(
        [x, seen], [y, layers.GlobalAveragePooling1D()(y), layers.Softmax()(layers.Dense(STEPS)(y)[:, 0], mask=seen)]
    )


def attention(keras: Any) -> Any:
    layers, (x, y) = keras.layers, words(keras)
    other = keras.Input((5,))
    key = layers.Embedding(6, 4, mask_zero=True)(other)
    key = layers.Dense(4)(key)
    z = layers.Attention()([y, key], use_causal_mask=True)
    w = layers.AdditiveAttention()([key, y])
    return keras.Model([x, other], [z, w, layers.GlobalAveragePooling1D()(w)])


def heads(keras: Any) -> Any:
    """Self-attention, and of a sequence on another one; residuals behind."""
    layers, (x, y) = keras.layers, words(keras)
    y = layers.Dense(4)(y)
    z = layers.MultiHeadAttention(2, 3)(y, y)
    z = layers.LayerNormalization()(layers.Add()([y, z]))
    again = layers.MultiHeadAttention(2, 3)(z, z, use_causal_mask=True)
    return keras.Model(x, [z, layers.GlobalAveragePooling1D()(layers.Add()([z, again]))])


def cross_heads(keras: Any) -> Any:
    layers, (x, y) = keras.layers, words(keras)
    other, seen = keras.Input((5, 3)), keras.Input((5, STEPS))
    z, scores = layers.MultiHeadAttention(2, 3)(other, y, attention_mask=seen, return_attention_scores=True)
    return keras.Model([x, other, seen], [z, scores])


def grouped_heads(keras: Any) -> Any:
    layers, (x, y) = keras.layers, words(keras)
    z = layers.GroupQueryAttention(4, 4, 2)(y, y)
    return keras.Model(x, [z, layers.LSTM(3)(z)])


def nested(keras: Any) -> Any:
    """A mask goes into a model in the model, and comes out of one; a TimeDistributed layer hands it on."""
    layers, (x, y) = keras.layers, words(keras)
    inner = keras.Input((STEPS, 4))
    model = keras.Model(inner, layers.TimeDistributed(layers.Dense(3))(layers.Dense(4)(inner)))
    return keras.Model(x, layers.LSTM(3)(model(y)))


BOTH = (last_outputs, all_outputs, states, both_ways, stacked, means, given, attention, heads, cross_heads, nested)
CASES = [
    *((build, kind) for build in BOTH for kind in ("h5", "keras", "keras2.h5")),
    (grouped_heads, "keras"),  # Keras 2 has none
]


@pytest.mark.parametrize(("build", "kind"), CASES)
def test_masks(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    assert max(differences(build, kind, tmp_path, [sequences(mask) for mask in MASKS])) <= TOLERANCE


def test_masks_as_machine_code(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    x, y = words(keras)
    y = keras.layers.LSTM(4, return_sequences=True)(y)
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.GRU(5)(y)))
    model.save(tmp_path / "masked.keras")
    made = ml4f.compile(tmp_path / "masked.keras")
    for seen in MASKS:
        numbers = sequences(seen)(np.random.default_rng(5), (STEPS,))
        np.testing.assert_allclose(made.predict(numbers), np.asarray(model(numbers[None]))[0], rtol=1e-4, atol=1e-5)


def test_masks_that_depend_on_the_order_of_execution_are_refused(tmp_path: Path) -> None:
    """Keras 3's MultiHeadAttention takes the mask off its inputs for whoever comes later."""
    keras = pytest.importorskip("keras")
    inner = keras.Input((STEPS, 4))
    beside = keras.layers.GRU(3)(inner)
    attended = keras.layers.GlobalMaxPooling1D()(keras.layers.MultiHeadAttention(2, 3)(inner, inner))
    model = keras.Model(inner, [beside, attended])
    x, y = words(keras)
    keras.Model(x, model(y)).save(tmp_path / "order.keras")
    with pytest.raises(UnsupportedError, match=r"\(MultiHeadAttention\).*order of execution.*attention_mask"):
        load_model(tmp_path / "order.keras")


def test_a_stateful_layer_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input(batch_shape=(1, STEPS, 3))
    layer = keras.layers.RNN(keras.layers.GRUCell(3), stateful=True)
    keras.Model(x, layer(x)).save(tmp_path / "stateful.keras")
    with pytest.raises(UnsupportedError, match=r"\(RNN\).*stateful=False"):
        load_model(tmp_path / "stateful.keras")
