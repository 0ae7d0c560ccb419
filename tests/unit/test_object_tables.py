"""Version-2 headers: written, read back, refused when wrong, by the compiler's reader and by the C runtime alike."""

from __future__ import annotations

import ctypes
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_runtime import Buffer, build_library, judge, needs_host_compiler

from ml4f.backend.c_source import c_header
from ml4f.backend.thumb.image import FLOAT32, INT32, Header, TensorInfo, header_bytes, pack_header, parse_header
from ml4f.cli import main
from ml4f.compiler import Compilation, Options, compile_proto
from ml4f.errors import Ml4fError
from ml4f.machine import Machine

INPUTS = (TensorInfo((2, 3), 0, FLOAT32, "left"), TensorInfo((), 24, FLOAT32, "größe"))
OUTPUTS = (TensorInfo((4,), 32, INT32, "class"),)
CODE_BYTES = 32


def make_object(test_data: bool = False) -> bytes:
    size = header_bytes(INPUTS, OUTPUTS)
    data = 28 + 16 if test_data else 0
    total = -(-(size + CODE_BYTES + data) // 16) * 16
    weights = size + CODE_BYTES
    tests = (weights, weights + 28) if test_data else (0, 0)
    header = Header(size, total, weights, *tests, 48, INPUTS, OUTPUTS)
    return pack_header(header).ljust(total, b"\0")


def changed(word: int, value: int) -> bytes:
    data = make_object()
    return data[: 4 * word] + struct.pack("<I", value) + data[4 * word + 4 :]


def test_what_is_written_is_read() -> None:
    header = parse_header(make_object())
    assert header.version == 2
    assert (header.inputs, header.outputs, header.arena_bytes) == (INPUTS, OUTPUTS, 48)
    assert Header(0, 0, 0, 0, 0, 0, INPUTS[:1], INPUTS[:1]).version == 1


WRONG = {
    "no inputs": (8, 0),
    "more inputs than entries": (8, 4000),
    "no outputs": (9, 0),
    "table in the fixed part": (10, 32),
    "table beyond the header": (10, 0x7FFFFFFC),
    "table not aligned": (10, 66),
    "name beyond the header": (16, 0x7FFFFFFC),
    "type unknown": (17, 3),
    "tensor beyond the arena": (18, 28),
    "tensor not aligned": (18, 2),
    "shape beyond the header": (19, 0x7FFFFFFC),
    "shape in the middle of a word": (19, 65),
    "shape without an end": (19, 60),
    "arena too small": (7, 44),
    "test input beyond the object": (5, 0x7FFFFFFC),
}


@pytest.mark.parametrize("name", [name for name in WRONG if name != "shape without an end"])
def test_wrong_tables_are_refused(name: str) -> None:
    with pytest.raises(Ml4fError, match="not a usable ml4f object"):
        parse_header(changed(*WRONG[name]))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("shape", ctypes.POINTER(ctypes.c_uint32)),
    )


@needs_host_compiler
def test_the_runtime_refuses_wrong_tables(tmp_path: Path) -> None:
    library = build_library(tmp_path, "plain.so")
    objects = [make_object(), make_object(test_data=True), *(changed(*change) for change in WRONG.values())]
    verdicts = judge(library, objects, tmp_path)
    assert verdicts[:2] == [[1, 1, 0]] * 2
    assert [name for name, verdict in zip(WRONG, verdicts[2:], strict=True) if verdict != [0, 0, 0]] == []


@needs_host_compiler
def test_the_runtime_describes_tensors(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build_library(tmp_path, "plain.so")))
    model = Buffer(make_object())
    assert (library.ml4f_input_count(model.pointer()), library.ml4f_output_count(model.pointer())) == (2, 1)
    tensor = Tensor()
    for describe, index, expected in (
        (library.ml4f_input, 0, INPUTS[0]),
        (library.ml4f_input, 1, INPUTS[1]),
        (library.ml4f_output, 0, OUTPUTS[0]),
    ):
        assert describe(model.pointer(), index, ctypes.byref(tensor)) == 0
        shape = tuple(tensor.shape[i] for i in range(len(expected.shape) + 1))
        found = (tensor.name.decode(), tensor.type, tensor.offset, shape)
        assert found == (expected.name, expected.type, expected.offset, (*expected.shape, 0))
    assert library.ml4f_output(model.pointer(), 1, ctypes.byref(tensor)) == -8
    assert library.ml4f_full_invoke(model.pointer(), Buffer(bytes(64)).pointer(), Buffer(bytes(64)).pointer()) == -9


def two_by_two() -> onnx.ModelProto:
    """r = relu(a + b), t = (a + b) * c."""
    shapes = {"a": [2, 3], "b": [3], "c": [2, 1]}
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("r", "t")]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Mul", ["s", "c"], ["t"]),
    ]
    graph = helper.make_graph(nodes, "two", entries, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def compiled() -> Compilation:
    return compile_proto(two_by_two(), "two", Options(test_data=True, check_passes=True))


def test_several_inputs_and_outputs_by_name(compiled: Compilation) -> None:
    rng = np.random.default_rng(3)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (3,), (2, 1)))
    expected = {"r": np.maximum(a + b, 0), "t": (a + b) * c}
    for given in ([a, b, c], {"c": c, "a": a, "b": b}):
        result = compiled.predict(given)
        assert list(result) == ["r", "t"]
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value)
    assert Machine(compiled.binary).header.version == 2


def test_names_and_sizes_are_checked(compiled: Compilation) -> None:
    with pytest.raises(Ml4fError, match="takes a, b, c"):
        compiled.predict({"a": np.zeros(6)})
    with pytest.raises(Ml4fError, match=r"input b has shape \[2\], 2 values"):
        compiled.predict([np.zeros(6), np.zeros(2), np.zeros(2)])


def test_c_names_every_tensor(compiled: Compilation) -> None:
    text = c_header(compiled.binary, "two", "")
    assert "static inline float *two_input_c(void *arena)" in text
    assert "#define TWO_OUTPUT_T_SHAPE {2u, 3u, 0u}" in text


def test_several_inputs_are_evaluated_by_name(compiled: Compilation, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {name: rng.standard_normal((4, *shape)) for name, shape in (("a", (2, 3)), ("b", (3,)), ("c", (2, 1)))}
    wanted = np.maximum(arrays["a"] + arrays["b"][:, None, :], 0)
    np.savez(tmp_path / "samples.npz", **arrays, r=wanted)
    evaluation = compiled.evaluate(compiled.read_samples(tmp_path / "samples.npz"))
    assert evaluation.task == "values" and evaluation.mean_absolute_error == pytest.approx(0, abs=1e-6)
    short = {**arrays, "b": arrays["b"][:3], "y": wanted}
    np.savez(tmp_path / "short.npz", **short)
    with pytest.raises(Ml4fError, match="b has shape"):
        compiled.read_samples(tmp_path / "short.npz")


def test_the_command_line_runs_several_inputs(
    compiled: Compilation, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "two.ml4f").write_bytes(compiled.binary)
    given = {"a": [[1, 2, 3], [4, 5, 6]], "b": [-3, 0, 1], "c": [[2], [-1]]}
    (tmp_path / "inputs.json").write_text(json.dumps(given))
    assert main(["run", str(tmp_path / "two.ml4f"), str(tmp_path / "inputs.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"r": [0, 2, 4, 1, 5, 7], "t": [-4, 4, 8, -1, -5, -7]}


def test_inputs_that_nobody_reads_overwrite_nothing() -> None:
    """A caller writes all inputs, in any order: no two of them share a place, read or not."""
    names = ("used", "unused", "partly")
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in names]
    nodes = [
        helper.make_node("Slice", ["partly", "low", "high"], ["part"]),
        helper.make_node("Concat", ["part", "used"], ["joined"], axis=0),
        helper.make_node("Neg", ["joined"], ["y"]),
    ]
    bounds = [helper.make_tensor(name, TensorProto.INT64, [1], [at]) for name, at in (("low", 6), ("high", 8))]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [10])
    graph = helper.make_graph(nodes, "unused", entries, [output], bounds)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    compiled = compile_proto(model, "unused")
    tensors = sorted(compiled.machine.header.inputs, key=lambda tensor: tensor.offset)
    assert all(a.offset + a.bytes <= b.offset for a, b in pairwise(tensors))
    given = {name: np.arange(8, dtype=np.float32) + 10 * i for i, name in enumerate(names)}
    np.testing.assert_array_equal(compiled.predict(given), -np.concatenate([given["partly"][6:], given["used"]]))
