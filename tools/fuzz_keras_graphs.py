"""Random functional Keras networks in every format, as machine code, against Keras.

Needs `pip install -e '.[tensorflow]' onnxruntime`. Example:

    python tools/fuzz_keras_graphs.py --seed 1 --count 50 --keep /tmp/kept
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from fuzz_keras import MAX_OUTPUT, TOLERANCE, Rejected, difference
from keras_graphs import VOCABULARY, GraphGenerator

FORMATS = ("h5", "keras", "onnx", "tflite", "savedmodel")
SAMPLES = 2

Arrays = Sequence[np.ndarray]


class Network:
    """A model, samples for each input, and Keras's outputs for each sample."""

    def __init__(self, seed: int):
        import keras

        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.model = GraphGenerator(keras, self.rng).model()
        for weight in self.model.weights:
            if weight.dtype == "float32":
                noise = self.rng.uniform(0.5, 2.0, weight.shape) if "variance" in weight.path else None
                value = np.asarray(weight) + 0.2 * self.rng.standard_normal(weight.shape)
                weight.assign(value if noise is None else noise)
        self.use([[self.example(t, i) for t in self.model.inputs] for i in range(SAMPLES)])
        if not all(np.isfinite(y).all() and np.abs(y).max(initial=0) < MAX_OUTPUT for e in self.expected for y in e):
            raise Rejected("outputs are not finite, or large")

    @classmethod
    def of(cls, model: Any, samples: Sequence[Arrays]) -> Network:
        """A model that is made already."""
        network = cls.__new__(cls)
        network.model = model
        network.use(samples)
        return network

    def use(self, samples: Sequence[Arrays]) -> None:
        """Take these values of the inputs."""
        self.samples = samples
        self.expected = [self.run(sample) for sample in samples]

    def example(self, tensor: Any, index: int) -> np.ndarray:
        """A value of an input; the second sample's indices and steps end with padding."""
        shape = (1, *tensor.shape[1:])
        if tensor.dtype == "int32":
            value = self.rng.integers(1, VOCABULARY, shape).astype(np.int32)
        else:
            value = self.rng.standard_normal(shape).astype(np.float32)
        if index == 1 and len(shape) in (2, 3) and shape[1] > 2 and (tensor.dtype == "int32" or len(shape) == 3):
            value[:, -2:] = 0
        return value

    def run(self, sample: Arrays) -> list[np.ndarray]:
        """Keras's outputs."""
        try:
            result = self.model(list(sample) if len(sample) > 1 else sample[0], training=False)
        except Exception as error:  # layers that were built for another shape
            raise Rejected(str(error)) from None
        return [np.asarray(y) for y in (result if isinstance(result, list | tuple) else [result])]

    def save(self, kind: str, folder: Path) -> Path:
        """Write the model in a format; Rejected if Keras or a converter cannot, or converts it wrongly."""
        path = folder / ("model" if kind == "savedmodel" else f"model.{kind}")
        try:
            with redirect_stdout(StringIO()):  # Keras tells of its exports
                return self._save(kind, path)
        except Rejected:
            raise
        except Exception as error:  # the converters' own
            raise Rejected(f"{kind}: {error}") from None

    def _save(self, kind: str, path: Path) -> Path:
        if kind in ("h5", "keras"):
            self.model.save(path)
        elif kind == "tflite":
            self.tflite(path)
        else:
            self.model.export(path, format="onnx" if kind == "onnx" else "tf_saved_model", verbose=False)
            if kind == "onnx":
                self.check_onnx(path)
        return path

    def tflite(self, path: Path) -> None:
        import tensorflow as tf

        try:
            data = tf.lite.TFLiteConverter.from_keras_model(self.model).convert()
        except Exception:  # with a free batch it converts no loops
            signature: list[Any] = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name=t.name) for t in self.model.inputs]
            function = tf.function(lambda *x: self.model([*x] if len(x) > 1 else next(iter(x)), training=False))
            concrete = function.get_concrete_function(*signature)
            data = tf.lite.TFLiteConverter.from_concrete_functions([concrete], self.model).convert()
        path.write_bytes(data)
        interpreter = tf.lite.Interpreter(model_content=data)
        interpreter.allocate_tensors()
        for sample, expected in zip(self.samples, self.expected, strict=True):
            for detail in interpreter.get_input_details():
                interpreter.set_tensor(detail["index"], sample[self.index_of(detail["name"])])
            interpreter.invoke()
            found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
            if distance(found, expected) > TOLERANCE:
                raise Rejected("the converter gives another result")

    def check_onnx(self, path: Path) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for sample, expected in zip(self.samples, self.expected, strict=True):
            feeds = {i.name: sample[self.index_of(i.name)] for i in session.get_inputs()}
            if distance([np.asarray(y) for y in session.run(None, feeds)], expected) > TOLERANCE:
                raise Rejected("Keras exports it wrongly")

    def index_of(self, name: str) -> int:
        """Which input a converter's name is for."""
        fitting = [i for i, tensor in enumerate(self.model.inputs) if tensor.name in name]
        return fitting[0] if len(fitting) == 1 else 0

    def describe(self) -> str:
        """Layers with their inputs and shapes."""
        lines = []
        for layer in self.model.layers:
            for node in layer._inbound_nodes:
                shapes = [tuple(t.shape[1:]) for t in node.input_tensors]
                outputs = [tuple(t.shape[1:]) for t in node.output_tensors]
                lines.append(f"  {type(layer).__name__} {layer.name} {shapes} -> {outputs}")
        return "\n".join(lines)


def distance(found: Arrays, expected: Arrays) -> float:
    """The largest difference, with outputs in whatever order fits best: converters order them as they like."""
    if len(found) != len(expected):
        return np.inf
    best = np.inf
    for order in permutations(range(len(found))):
        pairs = [(found[i], y) for i, y in zip(order, expected, strict=True)]
        if all(a.size == b.size for a, b in pairs):
            best = min(best, max(difference(a, b) for a, b in pairs))
    return best


def error_of(network: Network, path: Path) -> float:
    """The largest difference between the machine code and Keras."""
    from ml4f.compiler import Options, compile_model

    compilation = compile_model(path, Options(validate=True))
    names = [tensor.name for tensor in compilation.machine.header.inputs]
    worst = 0.0
    for sample, expected in zip(network.samples, network.expected, strict=True):
        values = [sample[network.index_of(name)] for name in names]
        found = compilation.machine.run_all([v.ravel() for v in values] if len(values) > 1 else values[0].ravel())
        worst = max(worst, distance(found, expected))
    return worst


def main() -> int:
    """Prints every file that ml4f gets wrong or refuses; exit code 1 if one is wrong."""
    from ml4f.errors import Ml4fError, ValidationError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the first network")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--keep", type=Path, help="keep the files in this folder")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    fine = wrong = refused = 0
    for seed in range(options.seed, options.seed + options.count):
        try:
            network = Network(seed)
        except Rejected:
            continue
        for kind in options.formats.split(","):
            with tempfile.TemporaryDirectory() as scratch:
                folder = options.keep / str(seed) if options.keep else Path(scratch)
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    error = error_of(network, network.save(kind, folder))
                except Rejected:
                    continue
                except ValidationError as problem:
                    error, message = np.inf, str(problem)
                except Ml4fError as problem:
                    refused += 1
                    print(f"seed {seed}, {kind}: refused: {problem}", flush=True)
                    continue
                except Exception as problem:  # whatever goes wrong is what this tool looks for
                    error, message = np.inf, f"{type(problem).__name__}: {problem}"
                else:
                    message = f"off by {error:.2e}"
            if error <= TOLERANCE:
                fine += 1
                continue
            wrong += 1
            print(f"seed {seed}, {kind}: {message}\n{network.describe()}", flush=True)
    print(f"{fine} files fine, {refused} refused, {wrong} wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
