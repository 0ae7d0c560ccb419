"""Random Keras networks in every format against TensorFlow: what the front end or the machine code gets wrong.

Needs `pip install -e '.[tensorflow]' onnxruntime`. Examples:

    python tools/fuzz_keras.py --count 200                      import only, executed in numpy
    python tools/fuzz_keras.py --count 30 --level machine       compiled, executed in the emulator
    python tools/fuzz_keras.py --seed 4711 --count 1 --keep /tmp/kept
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

FORMATS = ("h5", "keras", "keras2.h5", "tfjs", "onnx", "tflite")
"""Keras 3 .h5 and .keras, Keras 2 .h5, TF.js layers model (of Keras 2), ONNX by tf2onnx, TensorFlow Lite."""
TOLERANCE = 1e-4
"""Of the largest output."""
MAX_ELEMENTS = 1500
"""Of any tensor of a network: keeps emulation short."""
MAX_OUTPUT = 1e4
"""Networks with larger outputs (exponentials of exponentials) say nothing about correctness."""
MAX_MACS = 150_000

# fmt: off
KERAS3_ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "sigmoid", "hard_sigmoid", "hard_silu",
    "hard_swish", "hard_tanh", "tanh", "softplus", "softsign", "silu", "swish", "gelu", "mish", "exponential",
    "softmax", "log_softmax", "log_sigmoid", "tanh_shrink", "soft_shrink", "hard_shrink", "squareplus",
    "sparse_plus", "sparse_sigmoid",
)
KERAS2_ACTIVATIONS = (
    "linear", "relu", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "softplus", "softsign", "swish", "gelu",
    "mish", "exponential", "softmax",
)
# fmt: on
COMMON_ACTIVATIONS = ["linear", "relu", "relu", "relu6", "sigmoid", "tanh", "elu", "softmax", "silu"]


# fmt: off
DESCRIBED = (
    "filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "depth_multiplier", "activation",
    "use_bias", "pool_size", "axis", "units", "keepdims", "target_shape", "dims", "negative_slope", "max_value",
    "threshold", "shared_axes", "alpha", "theta", "scale", "center", "epsilon", "cropping", "size", "n",
    "return_sequences", "go_backwards", "recurrent_activation", "reset_after", "merge_mode", "layer", "axes",
)
# fmt: on


class Rejected(Exception):
    """TensorFlow does not take the network either, or its outputs say nothing."""


@dataclass
class Network:
    """A model, an input and TensorFlow's output; `version`: of Keras."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    version: int


class Generator:
    """Draws layers; `keras` is the module keras or tf_keras."""

    def __init__(self, keras: Any, version: int, rng: np.random.Generator):
        self.keras = keras
        self.layers = keras.layers
        self.version = version
        self.rng = rng

    def draw(self, values: Sequence[Any]) -> Any:
        """One of some values."""
        return values[int(self.rng.integers(len(values)))]

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return bool(self.rng.random() < probability)

    def activation(self) -> str | None:
        """An activation's name, or none."""
        if self.chance(0.3):
            return None
        if self.chance(0.4):
            name = self.draw(COMMON_ACTIVATIONS)
            if self.version == 3 or name in KERAS2_ACTIVATIONS:
                return name
        return self.draw(KERAS3_ACTIVATIONS if self.version == 3 else KERAS2_ACTIVATIONS)

    def network(self) -> Network:
        """A random Sequential model with random weights, and what TensorFlow computes with it."""
        rank = self.draw([1, 2, 2, 3, 3, 3])
        if rank == 1:
            shape = (int(self.rng.integers(1, 40)),)
        elif rank == 2:
            shape = (int(self.rng.integers(2, 40)), int(self.rng.integers(1, 9)))
        else:
            shape = (int(self.rng.integers(2, 15)), int(self.rng.integers(1, 15)), int(self.draw([1, 1, 2, 3, 4, 5])))
        if self.chance(0.4):
            return self.finish(self.functional(shape), shape)
        layers: list[Any] = []
        current, wanted, attempts = shape, int(self.rng.integers(1, 8)), 0
        while len(layers) < wanted and attempts < 60:
            attempts += 1
            layer = self.layer(current)
            following = self.output_shape(layer, current)
            if following is not None:
                layers.append(layer)
                current = following
        if not layers:
            raise Rejected("no layer fitted")
        try:
            model = self.keras.Sequential([self.keras.Input(shape=shape), *layers])
        except Exception as error:  # a shape that Keras takes for possible and TensorFlow does not
            raise Rejected(str(error)) from None
        return self.finish(model, shape)

    def finish(self, model: Any, shape: tuple[int, ...]) -> Network:
        """With random weights, an input, and what TensorFlow makes of it."""
        self.randomise(model)
        x = self.rng.standard_normal((2, *shape)).astype(np.float32)
        try:
            y = np.asarray(model(x, training=False))
        except Exception as error:  # layers that were built for another shape
            raise Rejected(str(error)) from None
        if not np.isfinite(y).all() or np.abs(y).max(initial=0) > MAX_OUTPUT:
            raise Rejected("outputs too large")
        return Network(model, x, y, self.version)

    def functional(self, shape: tuple[int, ...], depth: int = 0) -> Any:
        """A functional model: every step reads tensors that there are; the last ones are joined."""
        source = self.keras.Input(shape=shape)
        tensors, wanted, attempts = [source], int(self.rng.integers(2, 9)), 0
        layers: list[Any] = []
        while len(tensors) <= wanted and attempts < 80:
            attempts += 1
            x = self.draw(tensors[-3:])
            own = tuple(int(n) for n in x.shape[1:])
            choice = self.rng.random()
            try:
                if choice < 0.45:
                    made = self.merged(x, tensors)
                elif choice < 0.55 and layers:
                    made = self.draw(layers)(x)
                elif choice < 0.62 and depth == 0:
                    made = self.functional(own, 1)(x)
                else:
                    layer = self.layer(own)
                    if self.output_shape(layer, own) is None:
                        continue
                    layers.append(layer)
                    made = layer(x)
            except Exception:  # whatever does not fit
                continue
            if made is not None and 1 <= prod(made.shape[1:]) <= MAX_ELEMENTS:
                tensors.append(made)
        if len(tensors) == 1:
            raise Rejected("no layer fitted")
        last = self.layers.Flatten()(tensors[-1])
        if len(tensors) > 2 and self.chance(0.5):
            last = self.layers.Concatenate()([last, self.layers.Flatten()(tensors[-2])])
        return self.keras.Model(source, last)

    def merged(self, x: Any, tensors: Sequence[Any]) -> Any:
        """A layer with several inputs, or an operator."""
        others = [t for t in tensors if t.shape == x.shape]
        y = self.draw(others)
        choice = int(self.rng.integers(12))
        if choice < 6:
            names = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]
            return getattr(self.layers, names[choice])()([x, y])
        if choice == 6:
            axis = int(self.rng.integers(1, len(x.shape)))
            return self.layers.Concatenate(axis=axis)([x, y, x] if self.chance(0.3) else [x, y])
        if choice == 7:
            return x + y if self.chance(0.5) else 1.5 - x
        if choice == 8:
            return x * 0.5 if self.chance(0.5) else x / (abs(y) + 1.0)
        if choice == 9 and self.version == 3:
            ops = self.keras.ops
            named = [ops.relu, ops.sigmoid, ops.tanh, ops.square, ops.softmax, ops.leaky_relu, ops.abs, ops.gelu]
            return self.draw(named)(x)
        if choice == 10 and len(x.shape) == 3:
            return self.layers.Dot(axes=self.draw([1, 2]))([x, y])
        if choice == 11 and len(x.shape) == 4:  # squeeze and excitation
            scale = self.layers.GlobalAveragePooling2D(keepdims=True)(x)
            return x * self.layers.Dense(int(x.shape[-1]), activation="sigmoid")(scale)
        return None

    def recurrent(self, shape: tuple[int, ...]) -> Any:
        """LSTM, GRU, SimpleRNN, one or both ways."""
        names = ["linear", "relu", "sigmoid", "tanh", "tanh", "hard_sigmoid", "softsign", "elu"]
        kind, options = self.draw(["LSTM", "GRU", "SimpleRNN"]), {"activation": self.draw(names)}
        if kind != "SimpleRNN":
            options["recurrent_activation"] = self.draw(["sigmoid", "sigmoid", "hard_sigmoid"])
        if kind == "GRU":
            options["reset_after"] = self.chance(0.5)
        options["return_sequences"], options["use_bias"] = self.chance(0.5), self.chance(0.8)
        units = int(self.rng.integers(1, 10))
        if self.chance(0.4):
            inner = getattr(self.layers, kind)(units, **options)
            return self.layers.Bidirectional(inner, merge_mode=self.draw(["concat", "sum", "mul", "ave"]))
        return getattr(self.layers, kind)(units, go_backwards=self.chance(0.3), **options)

    def distributed(self, shape: tuple[int, ...]) -> Any:
        """A layer on every step."""
        inner = self.layer(shape[1:])
        if inner is None or self.output_shape(type(inner).from_config(inner.get_config()), shape[1:]) is None:
            return None
        return self.layers.TimeDistributed(inner)

    def transposed(self, shape: tuple[int, ...]) -> Any:
        """A transposed convolution."""
        rank = len(shape) - 1
        kind = self.layers.Conv1DTranspose if rank == 1 else self.layers.Conv2DTranspose
        options: dict[str, Any] = {"padding": self.draw(["valid", "same"])}
        if self.chance(0.7):
            options["strides"] = tuple(self.draw([1, 2, 3]) for _ in range(rank))
        elif self.chance(0.3):
            options["dilation_rate"] = (2,) * rank
        return kind(int(self.rng.integers(1, 6)), self.window(shape, 4), **options, **self.head())

    def normalised(self, shape: tuple[int, ...]) -> Any:
        """A layer normalisation."""
        axis = -1 if self.chance(0.7) else list(range(1, len(shape) + 1))[-int(self.draw([1, 2])) :]
        options = {"center": self.chance(0.8), "scale": self.chance(0.8)}
        return self.layers.LayerNormalization(axis=axis, **options)

    def output_shape(self, layer: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The layer's output shape, None if TensorFlow cannot run it on that input or the result is too large."""
        if layer is None:
            return None
        try:
            if min(layer.compute_output_shape((1, *shape))[1:], default=1) < 1:
                return None  # TensorFlow itself may crash on pools larger than their input
            out = layer(np.zeros((1, *shape), dtype=np.float32))
            out = tuple(int(n) for n in out.shape[1:])
        except Exception:  # TensorFlow raises whatever it likes for options it does not take
            return None
        if min(out, default=1) < 1 or prod(out) > MAX_ELEMENTS:
            return None
        kernels = [prod(w.shape) for w in layer.weights]
        if kernels and max(kernels) * max(1, prod(out[:-1])) > MAX_MACS:
            return None
        return out

    def randomise(self, model: Any) -> None:
        """Random weights, of a size that keeps the signal's; biases and statistics too."""
        for layer in model.layers:
            values = []
            for weight in layer.weights:
                shape, name = tuple(weight.shape), str(weight.name).split("/")[-1].split(":")[0]
                if "variance" in name:
                    value = self.rng.uniform(0.3, 2.0, shape)
                elif "gamma" in name:
                    value = self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1, 1], shape)
                elif "kernel" in name:
                    value = self.rng.standard_normal(shape) / np.sqrt(max(1, prod(shape[:-1])))
                elif "count" in name:
                    value = np.asarray(weight)
                else:
                    value = self.rng.standard_normal(shape) * 0.3
                values.append(np.asarray(value, dtype=np.float32))
            if values:
                layer.set_weights(values)

    # Layers

    def layer(self, shape: tuple[int, ...]) -> Any:
        """A random layer for a shape (without batch), None if the draw does not fit it."""
        anywhere: list[Callable[[tuple[int, ...]], Any]] = [
            self.dense,
            self.activation_layer,
            self.batch_normalization,
            self.training_only,
            self.reshape,
        ]
        windows = [self.convolution] * 3 + [self.pooling] * 2
        windows += [self.depthwise, self.separable, self.resize, self.permute]
        anywhere += [self.normalised]
        windows += [self.transposed]
        special: dict[int, list[Callable[[tuple[int, ...]], Any]]] = {
            1: [self.dense, self.repeat],
            2: [*windows, *[self.recurrent] * 4, self.distributed],
            3: windows,
        }
        makers = special.get(len(shape), [self.permute]) + (anywhere if self.chance(0.6) else [])
        try:
            return self.draw(makers)(shape)
        except (ValueError, TypeError, AttributeError):
            return None

    def window(self, shape: tuple[int, ...], largest: int = 7) -> tuple[int, ...]:
        """A kernel, sometimes larger than the input."""
        return tuple(int(self.rng.integers(1, min(largest, n + 2) + 1)) for n in shape[:-1])

    def convolution(self, shape: tuple[int, ...]) -> Any:
        rank = len(shape) - 1
        kind = self.layers.Conv1D if rank == 1 else self.layers.Conv2D
        filters, options = int(self.rng.integers(1, 13)), self.options(rank)
        if self.chance(0.15):
            divisors = [g for g in range(2, shape[-1] + 1) if shape[-1] % g == 0]
            if divisors:
                options["groups"] = self.draw(divisors)
                filters = options["groups"] * int(self.rng.integers(1, 4))
        if rank == 1 and self.chance(0.15):
            options["padding"] = "causal"
        return kind(filters, self.window(shape), **options, **self.head())

    def depthwise(self, shape: tuple[int, ...]) -> Any:
        rank = len(shape) - 1
        kind = self.layers.DepthwiseConv1D if rank == 1 else self.layers.DepthwiseConv2D
        return kind(self.window(shape), depth_multiplier=self.draw([1, 1, 2, 3]), **self.options(rank), **self.head())

    def separable(self, shape: tuple[int, ...]) -> Any:
        rank = len(shape) - 1
        kind = self.layers.SeparableConv1D if rank == 1 else self.layers.SeparableConv2D
        filters = int(self.rng.integers(1, 9))
        multiplier = self.draw([1, 1, 2])
        return kind(filters, self.window(shape), depth_multiplier=multiplier, **self.options(rank), **self.head())

    def options(self, rank: int) -> dict[str, Any]:
        """Padding, strides or dilation."""
        options: dict[str, Any] = {"padding": self.draw(["valid", "same"])}
        if self.chance(0.4):
            one = self.draw([1, 2, 2, 3, 4])
            options["strides"] = tuple(self.draw([1, 2, 3]) for _ in range(rank)) if self.chance(0.3) else (one,) * rank
        elif self.chance(0.35):
            options["dilation_rate"] = tuple(self.draw([1, 2, 3]) for _ in range(rank))
        return options

    def head(self) -> dict[str, Any]:
        """Bias and activation."""
        return {"use_bias": self.chance(0.7), "activation": self.activation()}

    def pooling(self, shape: tuple[int, ...]) -> Any:
        rank = len(shape) - 1
        if self.chance(0.2):
            name = f"{self.draw(['GlobalMaxPooling', 'GlobalAveragePooling'])}{rank}D"
            return getattr(self.layers, name)(keepdims=self.chance(0.4))
        name = f"{self.draw(['MaxPooling', 'AveragePooling'])}{rank}D"
        options: dict[str, Any] = {"pool_size": self.window(shape, 5), "padding": self.draw(["valid", "same"])}
        if self.chance(0.6):
            options["strides"] = tuple(self.draw([1, 2, 3, 4]) for _ in range(rank))
        return getattr(self.layers, name)(**options)

    def resize(self, shape: tuple[int, ...]) -> Any:
        rank = len(shape) - 1
        name = self.draw(["ZeroPadding", "ZeroPadding", "Cropping", "UpSampling"])
        kind = getattr(self.layers, f"{name}{rank}D")
        if name == "UpSampling":
            return kind(self.draw([1, 2, 3]) if rank == 1 else (self.draw([1, 2]), self.draw([1, 2, 3])))
        pairs = tuple((int(self.rng.integers(0, 3)), int(self.rng.integers(0, 4))) for _ in range(rank))
        if self.chance(0.2):
            return kind(int(self.rng.integers(0, 3)))
        return kind(pairs[0] if rank == 1 else pairs)

    def permute(self, shape: tuple[int, ...]) -> Any:
        return self.layers.Permute(tuple(int(n) + 1 for n in self.rng.permutation(len(shape))))

    def repeat(self, shape: tuple[int, ...]) -> Any:
        return self.layers.RepeatVector(int(self.rng.integers(1, 6)))

    def reshape(self, shape: tuple[int, ...]) -> Any:
        if self.chance(0.4) or prod(shape) == 1:
            return self.layers.Flatten()
        left, target = prod(shape), []
        for _ in range(int(self.rng.integers(0, 3))):
            divisor = self.draw([d for d in range(1, left + 1) if left % d == 0])
            target.append(divisor)
            left //= divisor
        target.append(left)
        if self.chance(0.3):
            target[int(self.rng.integers(len(target)))] = -1
        return self.layers.Reshape(tuple(target))

    def dense(self, shape: tuple[int, ...]) -> Any:
        return self.layers.Dense(int(self.rng.integers(1, 20)), **self.head())

    def batch_normalization(self, shape: tuple[int, ...]) -> Any:
        axis = -1 if self.chance(0.7) else int(self.rng.integers(1, len(shape) + 1))
        options = {"center": self.chance(0.8), "scale": self.chance(0.8), "epsilon": self.draw([1e-3, 1e-3, 1e-5, 0.1])}
        return self.layers.BatchNormalization(axis=axis, **options)

    def training_only(self, shape: tuple[int, ...]) -> Any:
        names = ["Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"]
        name = self.draw([*names, f"SpatialDropout{len(shape) - 1}D"] if len(shape) > 1 else names)
        return getattr(self.layers, name)() if name == "ActivityRegularization" else getattr(self.layers, name)(0.3)

    def activation_layer(self, shape: tuple[int, ...]) -> Any:
        choice = int(self.rng.integers(7))
        if choice == 0:
            return self.layers.Activation(self.activation() or "linear")
        if choice == 1:
            slope, limit, threshold = self.draw([0.0, 0.1]), self.draw([None, 1.5, 6.0]), self.draw([0.0, 0.0, 0.5])
            return self.layers.ReLU(max_value=limit, negative_slope=slope, threshold=threshold)
        if choice == 2:
            slope = self.draw([0.3, 0.01, 0.5])
            return self.layers.LeakyReLU(slope) if self.chance(0.7) else self.layers.LeakyReLU()
        if choice == 3:
            axes = [int(a) for a in range(1, len(shape) + 1) if self.chance(0.5)]
            return self.layers.PReLU(shared_axes=axes or None)
        if choice == 4:
            return self.layers.ELU(self.draw([1.0, 0.5, 2.0]))
        if choice == 5:
            return self.layers.Softmax(axis=int(self.draw([-1, -1, *range(1, len(shape) + 1)])))
        if self.version == 2:
            return self.layers.ThresholdedReLU(self.draw([1.0, 0.4]))
        return self.layers.Rescaling(0.5, 0.1)


# Saving


def save(network: Network, kind: str, folder: Path) -> Path:
    """Write the model in a format; returns what to give to ml4f."""
    if kind == "tfjs":
        return save_tfjs(network.model, folder / "model.tfjs", shard_bytes=1000)
    if kind == "onnx":
        return save_onnx(network, folder / "model.onnx")
    if kind == "tflite":
        return save_tflite(network, folder / "model.tflite")
    path = folder / f"model.{kind}"
    network.model.save(path)
    return path


def save_tfjs(model: Any, folder: Path, shard_bytes: int) -> Path:
    """As the converter of tensorflowjs writes a layers model: topology, manifest and shards that may cut tensors."""
    folder.mkdir()
    specs, data = [], b""
    for layer in model.layers:
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
            specs.append({"name": weight.name.split(":")[0], "shape": list(value.shape), "dtype": "float32"})
            data += np.ascontiguousarray(value, dtype="<f4").tobytes()
    pieces = [data[at : at + shard_bytes] for at in range(0, len(data), shard_bytes)]
    paths = [f"group1-shard{i + 1}of{len(pieces)}.bin" for i in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        (folder / path).write_bytes(piece)
    topology = json.loads(model.to_json())
    document = {
        "format": "layers-model",
        "generatedBy": f"keras v{topology['keras_version']}",
        "convertedBy": "tools/fuzz_keras.py",
        "modelTopology": {
            "keras_version": topology["keras_version"],
            "backend": topology["backend"],
            "model_config": {"class_name": topology["class_name"], "config": topology["config"]},
        },
        "weightsManifest": [{"paths": paths, "weights": specs}],
    }
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def save_onnx(network: Network, path: Path) -> Path:
    """By tf2onnx, at batch 1; Rejected if the converter's model is wrong."""
    import logging

    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    logging.disable(logging.WARNING)
    signature = [tf.TensorSpec((1, *network.x.shape[1:]), tf.float32, name="input")]
    function = tf.function(lambda x: network.model(x, training=False), input_signature=signature)
    try:
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=15)
        path.write_bytes(proto.SerializeToString())
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        y = session.run(None, {session.get_inputs()[0].name: network.x[:1]})[0]
    except Exception as error:  # the converter's own errors
        raise Rejected(f"tf2onnx: {error}") from None
    if difference(y, network.y[:1]) > TOLERANCE:
        raise Rejected("tf2onnx converts it wrongly")
    return path


def save_tflite(network: Network, path: Path) -> Path:
    """By TensorFlow's converter, at batch 1; Rejected if it does not take the model, or its own result is another."""
    import tensorflow as tf

    signature = [tf.TensorSpec((1, *network.x.shape[1:]), tf.float32, name="input")]
    function = tf.function(lambda x: network.model(x, training=False), input_signature=signature)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], network.model)
        data = converter.convert()
        path.write_bytes(data)
        interpreter = tf.lite.Interpreter(model_content=data)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], network.x[:1])
        interpreter.invoke()
        y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    except Exception as error:  # the converter's own errors
        raise Rejected(f"tflite: {error}") from None
    if difference(y, network.y[:1]) > TOLERANCE:
        raise Rejected("the converter gives another result")
    return path


# Comparing


def difference(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, of the largest output; NaN is right where NaN is expected."""
    with np.errstate(invalid="ignore"):
        error = np.abs(result.ravel().astype(np.float64) - expected.ravel())
    error[np.isnan(result.ravel()) & np.isnan(expected.ravel())] = 0
    scale = max(float(np.nan_to_num(np.abs(expected), nan=0.0).max(initial=0.0)), 1e-3)
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0)) / scale


def outputs(path: Path, x: np.ndarray, level: str) -> np.ndarray:
    """ml4f's outputs for some inputs: of its ONNX model, of the nn level in numpy, or of the machine code."""
    if level == "onnx":
        from ml4f.frontend import load_model
        from ml4f.reference import Reference

        proto = load_model(path).proto
        reference = Reference(proto)
        return np.stack([reference.run([row[None]])[proto.graph.output[0].name].ravel() for row in x])
    if level == "nn":
        from ml4f.frontend import load_model
        from ml4f.frontend.importer import import_onnx
        from ml4f.interpreters.nn import run_nn

        module = import_onnx(load_model(path).proto, path.name)
        module.verify()
        return np.stack([run_nn(module, [row])[0].ravel() for row in x])
    from ml4f.compiler import Options, compile_model

    compilation = compile_model(path, Options(validate=level == "validate"))
    return np.stack([compilation.machine.run(row).ravel() for row in x])


def check(network: Network, kind: str, level: str, folder: Path) -> float:
    """The difference between ml4f and TensorFlow for one format."""
    path = save(network, kind, folder)
    return difference(outputs(path, network.x, level), network.y)


def describe(model: Any) -> str:
    """Layers, their options that differ from the defaults, and shapes."""
    lines = [f"  input {tuple(model.input_shape[1:])}"]
    for layer in model.layers:
        config = layer.get_config()
        config = {**config, **config["layer"]["config"]} if isinstance(config.get("layer"), dict) else config
        options = ", ".join(f"{k}={config[k]}" for k in DESCRIBED if config.get(k) is not None)
        lines.append(f"  {type(layer).__name__}({options}) -> {tuple(layer.output.shape[1:])}")
    return "\n".join(lines)


def generate(seed: int, version: int) -> Network:
    """The network of a seed, with Keras 2 or 3."""
    if version == 2:
        import tf_keras as keras
    else:
        import keras
    keras.backend.clear_session()
    return Generator(keras, version, np.random.default_rng(seed)).network()


def run(seed: int, kinds: Sequence[str], level: str, keep: Path | None) -> tuple[int, list[str]]:
    """Every format of one seed's networks: how many were compared, and what was wrong."""
    count, failures = 0, []
    for version in (3, 2):
        own = [kind for kind in kinds if (kind in ("keras2.h5", "tfjs")) == (version == 2)]
        if not own:
            continue
        try:
            network = generate(seed, version)
        except Rejected:
            continue
        for kind in own:
            with tempfile.TemporaryDirectory() as folder:
                place = keep / f"{seed}.{version}" if keep is not None else Path(folder)
                place.mkdir(parents=True, exist_ok=True)
                try:
                    error = check(network, kind, level, place)
                except Rejected:
                    continue
                except Exception as problem:  # whatever goes wrong is what this tool looks for
                    what = f"{type(problem).__name__}: {problem}"
                    failures.append(f"seed {seed}, {kind}: {what}\n{describe(network.model)}")
                    continue
                count += 1
                if not error <= TOLERANCE:
                    failures.append(f"seed {seed}, {kind}: off by {error:.2e}\n{describe(network.model)}")
    return count, failures


def main() -> int:
    """Prints every network that ml4f gets wrong; exit code 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the first network")
    parser.add_argument("--count", type=int, default=50, help="networks a format")
    parser.add_argument("--level", choices=("onnx", "nn", "machine", "validate"), default="nn")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--keep", type=Path, help="keep the files in this folder")
    options = parser.parse_args()
    compared, failures = 0, 0
    for seed in range(options.seed, options.seed + options.count):
        count, messages = run(seed, options.formats.split(","), options.level, options.keep)
        compared += count
        failures += len(messages)
        for message in messages:
            print(message, flush=True)
    print(f"{compared} files compared, {failures} wrong", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
