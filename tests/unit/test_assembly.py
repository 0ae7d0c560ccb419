"""The listing of a compiled model: GNU as makes exactly the object's bytes of it, and a reader finds his way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gnu_assembler import assembled_bytes
from onnx import TensorProto, helper, numpy_helper

from ml4f.backend.thumb.disassembly import disassembly_text
from ml4f.backend.thumb.image import Header, TensorInfo, header_bytes, pack_header
from ml4f.compiler import Compilation, Options, compile_model, compile_proto

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"
MODELS = ("cancer_mlp.onnx", "watch_gesture.h5", "iris_mlp.tfjs/model.json", "microbit_acc_gestures.json")
VARIANTS = [(name, float16) for name in MODELS for float16 in (False, True)]


@pytest.fixture(
    scope="module", params=VARIANTS, ids=lambda v: f"{v[0].split('.')[0]}-{'float16' if v[1] else 'float32'}"
)
def compiled(request: pytest.FixtureRequest) -> Iterator[Compilation]:
    name, float16 = request.param
    yield compile_model(EXAMPLES / name, Options(float16=float16, validate=False, test_data=float16))


def test_listing_assembles_to_the_object(compiled: Compilation, tmp_path: Path):
    assert assembled_bytes(compiled.assembly(), tmp_path) == compiled.binary


def test_disassembly_assembles_to_the_object(compiled: Compilation, tmp_path: Path):
    text = disassembly_text(compiled.binary, "object")
    assert ".short" not in text, "every instruction that we emit is one that we can decode"
    assert assembled_bytes(text, tmp_path) == compiled.binary


def test_listing_names_layers_loops_and_buffers(compiled: Compilation):
    lines = compiled.assembly().splitlines()
    calls = [line for line in lines if re.match(r"    @ .* -> \[[\d, ]+\]; .* at arena\+\d+", line)]
    for layer in compiled.stats.layers:
        for name in layer.name.split("+"):
            assert any(name in line for line in calls), f"layer {name} is not named"
    heads = [i for i, line in enumerate(lines) if re.match(r"\.L\d+:", line)]
    assert heads and all(lines[i - 1].startswith("    @ loop over ") for i in heads)
    data = [line for line in lines if re.match(r"    @ \w+: \d+ bytes at \d+$", line)]
    assert len(data) == len(compiled.code.layout.data_sizes)


def two_equal_layers(names: tuple[str, str]) -> Compilation:
    """Two dense layers of the same shape and activation share one kernel, which is then a function of its own."""
    rng = np.random.default_rng(0)
    nodes, initializers = [], []
    for i, name in enumerate(names):
        weights = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), f"w{i}")
        bias = numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), f"b{i}")
        initializers += [weights, bias]
        nodes.append(helper.make_node("Gemm", [f"t{i}", f"w{i}", f"b{i}"], [f"g{i}"], name=name))
        nodes.append(helper.make_node("Relu", [f"g{i}"], [f"t{i + 1}"], name=name + "/Relu"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in ("t0", "t2")]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return compile_proto(model, "two", Options(validate=False))


@pytest.mark.parametrize("name", ["dense", "r0", "1", "pc", "süß 🎉", "a\nmov r0, r0\n@", 'quote"\\'])
def test_any_layer_name_can_be_a_label(name: str, tmp_path: Path):
    compiled = two_equal_layers((name, name + "2"))
    text = compiled.assembly()
    assert len(re.findall(r"^    bl kernel_\w+$", text, re.MULTILINE)) == 2, "the layers share a kernel"
    assert assembled_bytes(text, tmp_path) == compiled.binary
    disassembled = disassembly_text(compiled.binary, name)
    assert disassembled.count("bl function_1") == 2
    assert assembled_bytes(disassembled, tmp_path) == compiled.binary


def test_disassembly_keeps_bytes_that_are_no_instructions(tmp_path: Path):
    rng = np.random.default_rng(0)
    halfwords = rng.integers(0, 1 << 16, 20_000, dtype=np.uint16)
    code = np.where(rng.random(halfwords.size) < 0.3, halfwords | 0xE800, halfwords).astype("<u2").tobytes()
    tensors = (TensorInfo((4,), 0),)
    start = header_bytes(tensors, tensors)
    end = start + len(code)
    header = Header(start, end + -end % 16, end, 0, 0, 64, tensors, tensors)
    binary = pack_header(header) + code + bytes(-end % 16)
    text = disassembly_text(binary, "noise")
    assert ".short" in text and text.count("\n") > 15_000
    assert assembled_bytes(text, tmp_path) == binary
