"""Random networks in every format, models in models, and operators, against TensorFlow where that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf_keras", reason="tf_keras, Keras 2, is not installed (pip install -e '.[tensorflow]')")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import fuzz_keras
from keras_comparison import differences
from shared_models import shared_models

from ml4f.errors import Ml4fError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

MODELS = shared_models()

SEEDS = range(1, 11)
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


def circular(keras: Any) -> Any:
    """Elementwise functions: keras.ops in Keras 3, TensorFlow's own in Keras 2."""
    x = keras.Input((11,))
    if hasattr(keras, "ops"):
        ops = keras.ops
        inner = ops.tanh(x) * 0.9
        inverse = [ops.arcsin(inner), ops.arccos(inner), ops.arctanh(inner), ops.arctan(x), ops.arcsinh(x)]
        parts = [ops.sin(x), ops.cos(x), ops.tan(inner), ops.sinh(x), ops.cosh(x), ops.arccosh(ops.cosh(x) + 0.5)]
        parts += [
            *inverse,
            ops.erf(x),
            ops.power(abs(x) + 0.1, 1.7),
            ops.rsqrt(abs(x) + 0.1),
            ops.floor(x),
            ops.sign(x),
        ]
    else:
        import tensorflow as tf

        parts = [tf.math.sin(x), tf.math.cos(x), tf.math.tan(tf.math.tanh(x)), tf.math.erf(x), tf.math.ceil(x)]
        parts += [tf.math.rsqrt(tf.math.exp(x)), tf.math.pow(tf.math.exp(x), 0.3), tf.math.sign(x)]
    return keras.Model(x, keras.layers.Add()(parts))


@pytest.mark.parametrize("build", [nested, functional, operators, branches, layers_as_activations, circular])
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


@pytest.mark.parametrize("kind", ["h5", "keras", "keras2.h5", "tfjs"])
def test_embeddings(kind: str, tmp_path: Path) -> None:
    version = 2 if kind in ("keras2.h5", "tfjs") else 3
    keras = pytest.importorskip("tf_keras" if version == 2 else "keras")
    keras.backend.clear_session()
    layers = keras.layers
    numbers = keras.Input((9,))
    words = layers.Embedding(20, 5)(numbers)
    model = keras.Model(numbers, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3)(words))))
    rng = np.random.default_rng(3)
    fuzz_keras.Generator(keras, version, rng).randomise(model)
    x = rng.integers(0, 20, (2, 9)).astype(np.float32)
    network = fuzz_keras.Network(model, x, np.asarray(model(x, training=False)), version)
    assert fuzz_keras.check(network, kind, "nn", tmp_path) <= fuzz_keras.TOLERANCE
    (tmp_path / "again").mkdir()
    made = load_model(fuzz_keras.save(network, kind, tmp_path / "again")).proto
    onnx.checker.check_model(made, full_check=True)  # the indices are integers


def two_ends(keras: Any) -> Any:
    """Two inputs, named against the order of the layers, and two outputs."""
    layers = keras.layers
    b, a = keras.Input((10, 3), name="b"), keras.Input((6,), name="a")
    x, y = layers.Flatten()(layers.Conv1D(4, 3, activation="relu")(b)), layers.Dense(5, activation="tanh")(a)
    z = layers.Dense(3, activation="softmax")(layers.Concatenate()([x, y]))
    return keras.Model([b, a], [z, layers.Dense(2)(y)])


def encoder_and_decoder(keras: Any) -> Any:
    """The states of one recurrent layer are the initial ones of another."""
    layers = keras.layers
    a, b = keras.Input((7, 3), name="encoded"), keras.Input((4, 2), name="decoded")
    s, h, c = layers.LSTM(5, return_state=True, return_sequences=True)(a)
    d = layers.LSTM(5, return_sequences=True)(b, initial_state=[h, c])
    f = layers.Bidirectional(layers.GRU(3, return_state=True))(s)
    return keras.Model([a, b], layers.Concatenate()([layers.Flatten()(d), f[0], f[1]]))


def model_with_two_inputs(keras: Any) -> Any:
    """A model in a model, called twice, with two inputs and two outputs."""
    layers = keras.layers
    i, j = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([i, j], [layers.Dense(3)(layers.Subtract()([i, j])), layers.Maximum()([i, j])])
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    p, q = inner([y, x])
    r, s = inner([x, q])
    return keras.Model([x, y], layers.Concatenate()([p, q, r, s]))


def results_of_calls(keras: Any) -> Any:
    """Both calls of a model in a model are outputs, and other layers read them."""
    layers = keras.layers
    i = keras.Input((4,))
    inner = keras.Model(i, [layers.Dense(3)(i), layers.Dense(4, activation="tanh")(i)])
    x = keras.Input((4,))
    p, q = inner(x)
    r, s = inner(layers.Dense(4)(x))
    return keras.Model(x, [p, s, layers.Dense(2)(r), layers.Dense(5)(q)])


def result_of_the_first_call(keras: Any) -> Any:
    """The first call of a model in a model is an output, the second one is read alone."""
    layers = keras.layers
    i = keras.Input((4,))
    inner = keras.Model(i, layers.Dense(4, activation="tanh")(i))
    x = keras.Input((4,))
    p, q = inner(x), inner(layers.Dense(4)(x))
    return keras.Model(x, [p, layers.Dense(2)(q)])


@pytest.mark.parametrize(
    "build",
    [two_ends, encoder_and_decoder, model_with_two_inputs, results_of_calls, result_of_the_first_call],
)
@pytest.mark.parametrize("kind", ["h5", "keras", "keras2.h5", "tfjs"])
def test_several_inputs_and_outputs(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    assert max(differences(build, kind, tmp_path)) <= fuzz_keras.TOLERANCE


def test_saved_models_and_frozen_graphs(tmp_path: Path) -> None:
    """What Keras 3 exports, and the graph of it with its variables as constants."""
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras.backend.clear_session()
    model = branches(keras)
    x = np.random.default_rng(6).standard_normal((1, 10, 10, 3)).astype(np.float32)
    expected = np.asarray(model(x, training=False))
    model.export(tmp_path / "saved", verbose=False)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(x.shape))
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    for name in ("saved", "graph.pb"):
        loaded = load_model(tmp_path / name)
        result = run_nn(import_onnx(loaded.proto, name), [x[0]])[0]
        assert fuzz_keras.difference(result, expected) <= fuzz_keras.TOLERANCE
        assert "compared with TensorFlow" in loaded.notes[0]


def test_a_recurrent_layer_in_a_saved_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
    keras.backend.clear_session()
    i = keras.Input((6, 3))
    model = keras.Model(i, keras.layers.Dense(2, activation="gelu")(keras.layers.LSTM(4)(i)))
    model.export(tmp_path / "saved", verbose=False)
    x = np.random.default_rng(7).standard_normal((1, 6, 3)).astype(np.float32)
    result = run_nn(import_onnx(load_model(tmp_path / "saved").proto, "saved"), [x[0]])[0]
    assert fuzz_keras.difference(result, np.asarray(model(x, training=False))) <= fuzz_keras.TOLERANCE


def test_what_tf2onnx_leaves_in_a_saved_model_is_mended(tmp_path: Path) -> None:
    """Indices that are wrapped beside a loop, a convolution in groups, which is a call, and logarithms of 1 + x."""
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
    keras.backend.clear_session()
    layers, i = keras.layers, keras.Input((6,), dtype="int32")
    x = layers.Conv1D(4, 3, groups=2)(layers.Embedding(9, 4)(i))
    y = keras.ops.expm1(-keras.ops.log1p(keras.ops.abs(x)))
    model = keras.Model(i, layers.Dense(2)(layers.GRU(3)(y)))
    model.export(tmp_path / "saved", verbose=False)
    x = np.array([[3, 0, 8, 8, 1, 2]], np.int32)
    result = run_nn(import_onnx(load_model(tmp_path / "saved").proto, "saved"), [x[0]])[0]
    assert fuzz_keras.difference(result, np.asarray(model(x, training=False))) <= fuzz_keras.TOLERANCE


def test_graphs_that_touch_files_are_refused(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4))])
        def __call__(self, x: Any) -> Any:
            return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    tf.saved_model.save(Reader(), tmp_path / "reader")
    with pytest.raises(Ml4fError, match="ReadFile, which runs code or touches files"):
        load_model(tmp_path / "reader")


@pytest.mark.skipif(MODELS is None, reason="no shared models beside the checkout, and ML4F_SHARED is not set")
def test_a_saved_model_of_tensorflow_1_gives_the_golden_outputs() -> None:
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
    assert MODELS is not None
    golden = np.load(MODELS / "mlperf_tiny" / "kws.golden.npz")
    proto = load_model(MODELS / "mlperf_tiny" / "kws_ref_model").proto
    result = run_nn(import_onnx(proto, "kws"), [golden["x"][0]])[0]
    assert fuzz_keras.difference(result, golden["y"][0]) <= fuzz_keras.TOLERANCE
