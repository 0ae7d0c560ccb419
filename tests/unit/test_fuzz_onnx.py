"""A sample of `tools/fuzz_onnx.py`, and what it has found: each a graph that was wrong, refused or a crash once."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from ml4f import onnx_backend

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    pytest.importorskip("onnxruntime")
    sys.path.insert(0, str(TOOLS))
    try:
        return importlib.import_module("fuzz_onnx")
    finally:
        sys.path.remove(str(TOOLS))


@pytest.mark.parametrize(("level", "count", "seed"), [("nn", 40, 0), ("loop", 2, 500), ("code", 5, 600)])
def test_random_graphs_compute_what_onnxruntime_does(fuzz: ModuleType, level: str, count: int, seed: int, capsys):
    assert fuzz.main(["--count", str(count), "--level", level, "--seed", str(seed)]) == 0, capsys.readouterr().out
    found = capsys.readouterr().out
    assert sum(int(n) for n in re.findall(r"(\d+) fine", found)) >= count * 0.9


def test_graphs_are_cut_down_to_the_node_that_fails(fuzz: ModuleType) -> None:
    graph = fuzz.generate(12, 14)
    assert len(graph.steps) > 3
    wanted = graph.steps[len(graph.steps) // 2].node.op_type

    def fails(candidate) -> bool:
        return any(step.node.op_type == wanted for step in candidate.steps)

    small = fuzz.shrunk(graph, fails)
    assert [step.node.op_type for step in small.steps] == [wanted]


def test_the_draws_are_of_all_operators_that_there_are(fuzz: ModuleType) -> None:
    from ml4f.frontend.importer_ops import HANDLERS

    layers = fuzz.onnx_draws_layers
    assert set(HANDLERS) - set(layers.DRAWS) == layers.NOT_DRAWN
    assert Counter(step.node.op_type for step in fuzz.generate(3, 14).steps) == Counter(
        step.node.op_type for step in fuzz.generate(3, 14).steps
    )


def outputs(text: str, *inputs: np.ndarray, level: str = "code", opset: int = 17) -> list[np.ndarray]:
    """Of a graph in onnx's own notation."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return list(onnx_backend.prepare(onnx.parser.parse_model(header + text), level=level).run(list(inputs)))


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("op_type", "function"), [("Div", np.divide), ("Sub", np.subtract)])
def test_a_row_for_each_of_many_elements_finds_its_registers(op_type: str, function: np.ufunc) -> None:
    x, row = random(0, 1, 4, 4, 1), random(1, 7)
    (y,) = outputs(f"g (float[1,4,4,1] x, float[7] r) => (float[1,4,4,7] y) {{ y = {op_type} (r, x) }}", x, row)
    np.testing.assert_allclose(y, function(row, x), rtol=1e-6)


def test_functions_of_a_scalar() -> None:
    x = random(2, 3)
    text = """g (float[3] x) => (float y, float[3] s) <float c = {1.5}> {
      y, s = Scan <num_scan_inputs = 1, body = b (float t, float e) => (float u, float v) {
        u = Sub (t, e)
        v = Tanh (u)
      }> (c, x)
    }"""
    y, s = outputs(text, x)
    np.testing.assert_allclose(y, 1.5 - x.sum(), rtol=1e-5)
    np.testing.assert_allclose(s, np.tanh(1.5 - np.cumsum(x)), rtol=1e-5)


def test_windows_that_only_ceil_mode_makes_sum_what_there_is() -> None:
    x = random(3, 1, 1, 1, 4)
    text = """g (float[1,1,1,4] x) => (float[1,1,1,2] y) {
      y = LpPool <p = 1, ceil_mode = 1, kernel_shape = [1,3], strides = [1,2]> (x)
    }"""
    (y,) = outputs(text, x, opset=18)
    np.testing.assert_allclose(y.ravel(), [np.abs(x[..., :3]).sum(), np.abs(x[..., 2:]).sum()], rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_before_opset_13_rows_are_of_all_dimensions_from_an_axis_on(axis: int) -> None:
    x = random(4, 2, 3, 4)
    rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
    text = """g (float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] z) {
      y = LogSoftmax <axis = AXIS> (x)
      z = Hardmax <axis = AXIS> (x)
    }"""
    y, z = outputs(text.replace("AXIS", str(axis)), x, level="nn", opset=11)
    expected = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(z.reshape(rows.shape).argmax(axis=1), rows.argmax(axis=1))
    assert z.sum() == len(rows)


def test_equal_exponents_are_one() -> None:
    x = random(5, 2, 3)
    text = "g (float[2,3] x) => (float[2,3] y) <float[3] e = {2.0, 2.0, 2.0}> { y = Pow (x, e) }"
    np.testing.assert_allclose(outputs(text, x, level="nn")[0], x * x, rtol=1e-6)


def test_a_scalar_is_expanded_to_a_scalar() -> None:
    text = "g (float x) => (float y) <int64[0] s = {}> { z = Expand (x, s) y = Neg (z) }"
    np.testing.assert_array_equal(outputs(text, np.array(3.0, np.float32), level="nn")[0], -3)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_one_element_of_many_is_the_first_as_onnx_says(mode: str) -> None:
    x = random(6, 1, 2, 4, 3)
    text = """g (float[1,2,4,3] x) => (float[1,2,4,1] y) <int64[4] s = {1, 2, 4, 1}> {
      y = Resize <mode = "MODE", coordinate_transformation_mode = "pytorch_half_pixel"> (x, , , s)
    }"""
    (y,) = outputs(text.replace("MODE", mode), x, level="nn")
    np.testing.assert_allclose(y, x[..., :1], rtol=1e-5)


def test_infinities_stay_what_they_are() -> None:
    inf = np.float32(np.inf)
    x = np.array([[1, inf, 0, 2], [-inf, 0, 1, -inf], [-inf, -inf, -inf, -inf]], np.float32)
    text = """g (float[3,4] x, float[3,4] s) => (float[3] y, float[3,2] z, float[3,4] p) <float[2] c = {1.0, 0.5}> {
      y = ReduceLogSumExp <axes = [1], keepdims = 0> (x)
      z = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , c)
      p = PRelu (x, s)
    }"""
    slopes = np.where(x > 0, inf, np.float32(0.5))
    y, z, p = outputs(text, x, slopes)
    np.testing.assert_allclose(y, [inf, np.log1p(np.exp(1.0)), -inf], rtol=1e-5)
    np.testing.assert_array_equal(z, x[:, ::2])
    np.testing.assert_array_equal(p, np.where(x < 0, x * np.float32(0.5), x))
