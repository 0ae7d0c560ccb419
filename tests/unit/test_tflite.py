"""TensorFlow Lite files: a network that is written here, in float, float16 and int8 weights, and the shared goldens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_models import shared_models

from ml4f.compiler import Options, compile_model
from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn
from ml4f.reference import Reference

tflite = pytest.importorskip("tflite", reason="the package tflite is not installed (pip install -e '.[tflite]')")
flatbuffers = pytest.importorskip("flatbuffers")
MODELS = shared_models()
QUANTISED = ("int8", "quant", "kws_ref_model.tflite", "str_ww_ref_model.tflite")
"""Parts of the names of files with int8 inputs."""
GOLDENS = {
    "pretrainedResnet": "resnet8",
    "vww_96_float": "vww96",
    "ad01_fp32": "ad01",
    "kws_ref_model_float32": "kws",
    "kws.derived_float": "kws",
    "sww.derived_float": "sww",
}
LOOSE = {"kws_ref_model_float32": 0.2, "ad01_fp32": 1e-4}
"""The first has int8 weights, and TensorFlow Lite rounds activations as well."""


class Writer:
    """Writes a .tflite file with the schema's own functions; tables are appended as they come."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.tensors: list[int] = []
        self.buffers: list[int] = [self.table("Buffer")]
        self.operators: list[int] = []
        self.codes: list[int] = []

    def table(self, kind: str, **fields: Any) -> int:
        """A table of the schema."""
        getattr(tflite, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(tflite, f"{kind}Add{name}")(self.builder, value)
        return getattr(tflite, f"{kind}End")(self.builder)

    def vector(self, values: Sequence[int] | np.ndarray, references: bool = False) -> int:
        """A vector of numbers, or of tables."""
        if not references:
            return self.builder.CreateNumpyVector(np.asarray(values))
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(int(value))
        return self.builder.EndVector()

    def numbers(self, values: Sequence[int]) -> int:
        """A vector of 32-bit integers."""
        return self.vector(np.array(values, np.int32))

    def tensor(
        self, name: str, shape: list[int], kind: int = 0, values: np.ndarray | None = None, scale: float | None = None
    ) -> int:
        """A tensor's number; with values it is a constant, with a scale for each of its rows it is quantised."""
        fields: dict[str, int] = {"Shape": self.numbers(shape), "Type": kind, "Name": self.builder.CreateString(name)}
        if values is not None:
            data = self.vector(np.frombuffer(values.tobytes(), np.uint8))
            fields["Buffer"] = len(self.buffers)
            self.buffers.append(self.table("Buffer", Data=data))
        if scale is not None:
            scales, zeros = (self.vector(np.array(v)) for v in ([np.float32(scale)] * shape[0], [0] * shape[0]))
            fields["Quantization"] = self.table("QuantizationParameters", Scale=scales, ZeroPoint=zeros)
        self.tensors.append(self.table("Tensor", **fields))
        return len(self.tensors) - 1

    def operator(self, kind: int, inputs: list[int], outputs: list[int], options: int = 0, number: int = 0) -> None:
        """An operator; `number`: of the options in the schema's union."""
        self.codes.append(self.table("OperatorCode", BuiltinCode=kind, DeprecatedBuiltinCode=min(kind, 127)))
        fields = {"OpcodeIndex": len(self.codes) - 1, "Inputs": self.numbers(inputs), "Outputs": self.numbers(outputs)}
        if options:
            fields |= {"BuiltinOptionsType": number, "BuiltinOptions": options}
        self.operators.append(self.table("Operator", **fields))

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        tables = {name: self.vector(v, True) for name, v in (("Tensors", self.tensors), ("Operators", self.operators))}
        ends = {"Inputs": self.numbers(inputs), "Outputs": self.numbers(outputs)}
        graphs = self.vector([self.table("SubGraph", **tables, **ends)], True)
        codes, buffers = self.vector(self.codes, True), self.vector(self.buffers, True)
        model = self.table("Model", Version=3, OperatorCodes=codes, Subgraphs=graphs, Buffers=buffers)
        self.builder.Finish(model, b"TFL3")
        return bytes(self.builder.Output())


WEIGHTS = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], np.float32)
BIAS = np.array([0.1, -0.2], np.float32)


def dense(stored: str = "float32", end: int = 0) -> bytes:
    """relu(weights x + bias) with weights in a type; `end`: the type of the input."""
    writer = Writer()
    types = tflite.TensorType
    x = writer.tensor("x", [1, 3], end)
    if stored == "int8":
        weights = writer.tensor("w", [2, 3], types.INT8, (WEIGHTS * 32).astype(np.int8), scale=1 / 32)
    elif stored == "float16":
        half = writer.tensor("half", [2, 3], types.FLOAT16, WEIGHTS.astype(np.float16))
        weights = writer.tensor("w", [2, 3])
        writer.operator(tflite.BuiltinOperator.DEQUANTIZE, [half], [weights])
    else:
        weights = writer.tensor("w", [2, 3], types.FLOAT32, WEIGHTS)
    bias = writer.tensor("b", [2], types.FLOAT32, BIAS)
    y = writer.tensor("hidden/Relu;hidden/BiasAdd", [1, 2])
    options = writer.table("FullyConnectedOptions", FusedActivationFunction=tflite.ActivationFunctionType.RELU)
    number = tflite.BuiltinOptions.FullyConnectedOptions
    writer.operator(tflite.BuiltinOperator.FULLY_CONNECTED, [x, weights, bias], [y], options, number)
    return writer.bytes([x], [y])


@pytest.mark.parametrize(("stored", "note"), [("float32", ""), ("float16", "float16"), ("int8", "int8")])
def test_weights_of_every_type(stored: str, note: str, tmp_path: Path) -> None:
    path = tmp_path / "dense.tflite"
    path.write_bytes(dense(stored))
    x = np.array([1.0, -2.0, 0.5], np.float32)
    compilation = compile_model(path, Options(validate=True))
    assert np.allclose(compilation.machine.run(x).ravel(), np.maximum(WEIGHTS @ x + BIAS, 0), atol=1e-6)
    notes = " ".join(load_model(path).notes)
    assert (note in notes) if note else not notes


def test_quantised_models_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"input 'x' .* is int8.*without quantisation"):
        load_model(dense(end=tflite.TensorType.INT8), "dense")


def test_masks_at_both_ends_are_ones_and_zeros() -> None:
    writer = Writer()
    x, y = (writer.tensor(name, [1, 3], tflite.TensorType.BOOL) for name in "xy")
    writer.operator(tflite.BuiltinOperator.LOGICAL_NOT, [x], [y])
    module = import_onnx(load_model(writer.bytes([x], [y]), "mask").proto, "mask")
    (found,) = run_nn(module, [np.array([1.0, 0.0, 1.0], np.float32)])
    assert found.ravel().tolist() == [0.0, 1.0, 0.0]


def test_every_unsupported_operator_is_named() -> None:
    writer = Writer()
    x, a, b = (writer.tensor(name, [1, 3]) for name in ("x", "first/Cumsum", "second/Atan"))
    writer.operator(tflite.BuiltinOperator.CUMSUM, [x], [a])
    writer.operator(tflite.BuiltinOperator.ATAN2, [x], [b])
    with pytest.raises(UnsupportedError) as caught:
        load_model(writer.bytes([x], [a, b]), "waves")
    text = str(caught.value)
    assert "'first/Cumsum' (CUMSUM), input [1, 3]" in text and "no TensorFlow Lite operator ATAN2" in text


@pytest.mark.parametrize("keep", [20, 100, 300])
def test_damaged_files_are_errors(keep: int) -> None:
    data = dense()
    with pytest.raises(Ml4fError):
        load_model(data[:keep], "dense")
    broken = bytearray(data)
    broken[keep : keep + 8] = b"\xff" * 8
    with suppress(Ml4fError):  # a weight may be what has changed
        load_model(bytes(broken), "dense")


def test_no_changed_byte_is_a_bug_of_ours() -> None:
    data = dense()
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 0x80 if place % 2 else 0x04
        with suppress(Ml4fError):
            load_model(bytes(broken), "dense")


def test_ends_that_do_not_exist_are_errors() -> None:
    writer = Writer()
    x = writer.tensor("x", [1, 3])
    with pytest.raises(Ml4fError, match="do not exist"):
        load_model(writer.bytes([x], [x + 1]), "dense")


@pytest.mark.skipif(MODELS is None, reason="no shared models beside the checkout, and ML4F_SHARED is not set")
def test_every_float_file_gives_the_golden_outputs() -> None:
    assert MODELS is not None
    files = [p for folder in ("trained", "mlperf_tiny", "tflm") for p in sorted((MODELS / folder).glob("*.tflite"))]
    compared, wrong = 0, []
    for path in files:
        if any(part in path.name for part in QUANTISED):
            with pytest.raises(UnsupportedError, match="int8"):
                load_model(path)
            continue
        stem = path.name.removesuffix(".tflite")
        golden = path.with_name(f"{GOLDENS.get(stem, stem)}.golden.npz")
        data = np.load(golden)
        proto = load_model(path).proto
        reference = Reference(proto)
        shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
        own = stem in LOOSE and "y_tflite_float" in data
        for values, expected in zip(data["x"][:2], data["y_tflite_float" if own else "y"][:2], strict=True):
            result = reference.run([values.reshape(shape).astype(np.float32)])[proto.graph.output[0].name]
            error = np.abs(result.ravel() - expected.ravel()).max() / max(1.0, np.abs(expected).max())
            if error > LOOSE.get(stem, 2e-5):
                wrong.append(f"{path.name}: {error:.1e}")
        compared += 1
    assert compared > 20
    assert wrong == []
