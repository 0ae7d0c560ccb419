"""The ONNX backend: its interface, and a sample of onnx's own test suite. `tools/onnx_suite.py` runs all of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from ml4f import onnx_backend

TOOL = Path(__file__).resolve().parents[2] / "tools" / "onnx_suite.py"
STRIDE = 12
"""Every so-manieth case runs here; all of them take some minutes."""


def load_tool() -> object:
    spec = importlib.util.spec_from_file_location("onnx_suite", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_suite"] = module
    spec.loader.exec_module(module)
    return module


def test_run_node_computes_in_machine_code() -> None:
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    (y,) = onnx_backend.run_node(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5), [x])
    np.testing.assert_allclose(y, np.where(x < 0, x / 2, x), rtol=1e-6)


@pytest.mark.parametrize(
    ("op_type", "function", "low", "high"),
    [
        ("Sin", np.sin, -1000, 1000),
        ("Cos", np.cos, -1000, 1000),
        ("Tan", np.tan, -10, 10),
        ("Acos", np.arccos, -1, 1),
        ("Atan", np.arctan, -10, 10),
        ("Sinh", np.sinh, -5, 5),
        ("Acosh", np.arccosh, 1, 10),
    ],
)
def test_circular_functions_in_machine_code(op_type: str, function: np.ufunc, low: float, high: float) -> None:
    x = np.random.default_rng(1).uniform(low, high, 50).astype(np.float32)
    (y,) = onnx_backend.run_node(helper.make_node(op_type, ["x"], ["y"]), [x])
    np.testing.assert_allclose(y, function(x.astype(np.float64)), rtol=4e-7)


def test_the_largest_elements_in_machine_code() -> None:
    x = np.array([[3.0, 7.0, -1.0, 7.0, 0.0], [-np.inf, 2.0, 2.0, 5.0, -4.0]], np.float32)
    node = helper.make_node("TopK", ["x", "k"], ["values", "numbers"])
    infos = [(np.dtype(np.float32), (2, 3)), (np.dtype(np.int64), (2, 3))]
    values, numbers = onnx_backend.run_node(node, [x, np.array([3])], outputs_info=infos)
    np.testing.assert_array_equal(values, [[7, 7, 3], [5, 2, 2]])
    np.testing.assert_array_equal(numbers, [[1, 3, 0], [3, 1, 2]])


def test_outputs_that_are_known_when_compiling() -> None:
    x = np.zeros((2, 3), np.float32)
    (shape,) = onnx_backend.run_node(
        helper.make_node("Shape", ["x"], ["y"]), [x], outputs_info=[(np.dtype(np.int64), (2,))]
    )
    np.testing.assert_array_equal(shape, [2, 3])


def matmul(weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_prepared_model_takes_any_batch() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    prepared = onnx_backend.prepare(matmul(weights))
    for rows in (1, 4):
        x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        (y,) = prepared.run([x])
        np.testing.assert_allclose(y, x @ weights, rtol=1e-5)


def test_refusals_name_the_layer_and_other_devices_are_not_supported() -> None:
    node = helper.make_node("Unique", ["x"], ["y"], name="different")
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="different"):
        onnx_backend.run_node(node, [np.eye(3, dtype=np.float32)])
    assert onnx_backend.supports_device("CPU") and not onnx_backend.supports_device("CUDA")


@pytest.mark.filterwarnings("ignore")
def test_no_case_of_the_suite_is_wrong_or_crashes() -> None:
    tool = load_tool()
    cases = [(kind, case) for kind in tool.KINDS for case in load_model_tests(kind=kind)]  # pyright: ignore
    slow = ("stride_padding_dilation", "_expanded", "past_and_present")
    chosen = [(kind, case) for kind, case in cases if not any(part in case.name for part in slow)][::STRIDE]
    with np.errstate(all="ignore"):
        outcomes = [tool.run_case(kind, case) for kind, case in chosen]  # pyright: ignore
    bad = [tool.described(o) for o in outcomes if o.result in ("wrong", "crashed")]  # pyright: ignore
    assert bad == []
    assert sum(o.result in ("passed", "constants") for o in outcomes) > 25
