"""nn-reduce-strength against definitions and ONNX's reference, and the bounds it relies on against random values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp

from ml4f.analysis.lower_bounds import lower_bound
from ml4f.compiler import Options, compile_proto, run_passes
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn


def model_of(
    nodes: list[onnx.NodeProto], x: np.ndarray, constants: dict[str, np.ndarray] | None = None, outputs: str = "y"
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])  # pyright: ignore[reportIndexIssue]


def optimised(model: onnx.ModelProto) -> ModuleOp:
    module = import_onnx(model, "m")
    run_passes(module, ("nn-canonicalize", "nn-fuse-activation", "nn-reduce-strength", "nn-remove-dead-code"))
    module.verify()
    return module


def names(module: ModuleOp) -> list[str]:
    return [op.name for op in module.walk()]


def pooled(x: np.ndarray, kernel: list[int], strides: list[int], pads: list[int], include: int | None) -> np.ndarray:
    """Maximum (`include` None) or mean of each window of x [C, H, W]; the evaluator gets unequal pads wrong."""
    widths = [(0, 0), (pads[0], pads[2]), (pads[1], pads[3])]
    fill = np.nan if not include else 0.0
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, widths, constant_values=fill), kernel, (1, 2))
    windows = windows[:, :: strides[0], :: strides[1]]
    return np.nanmax(windows, (3, 4)) if include is None else np.nanmean(windows, (3, 4))


@pytest.mark.parametrize("seed", range(30))
def test_pools_are_split_exactly(seed: int):
    rng = np.random.default_rng(seed)
    size = [int(n) for n in rng.integers(6, 14, 2)]
    kernel = [int(n) for n in rng.integers(2, 6, 2)]
    pads = [int(rng.integers(0, (kernel[i % 2] - 1) // 2 + 1)) for i in range(4)]
    attributes: dict[str, object] = {
        "kernel_shape": kernel,
        "strides": [int(n) for n in rng.integers(1, 3, 2)],
        "pads": pads,
    }
    maximum = bool(rng.integers(0, 2))
    if not maximum:
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    x = rng.standard_normal((1, 3, *size)).astype(np.float32)
    model = model_of([helper.make_node("MaxPool" if maximum else "AveragePool", ["x"], ["y"], **attributes)], x)
    (result,) = run_nn(optimised(model), [x])
    expected = pooled(x[0], kernel, attributes["strides"], pads, attributes.get("count_include_pad"))  # pyright: ignore
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


def test_what_is_worth_splitting_is_split():
    x = np.random.default_rng(0).standard_normal((1, 4, 12, 12)).astype(np.float32)

    def pools(op_type: str, kernel: int, stride: int) -> int:
        node = helper.make_node(op_type, ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2)
        return sum("pool" in name for name in names(optimised(model_of([node], x))))

    assert pools("MaxPool", 3, 1) == pools("MaxPool", 5, 2) == pools("AveragePool", 7, 1) == 2
    assert pools("MaxPool", 2, 2) == pools("MaxPool", 3, 3) == pools("AveragePool", 3, 1) == 1


def normalisation(x: np.ndarray, axes: list[int], epsilon: float) -> onnx.ModelProto:
    """Layer normalisation as PyTorch's first exporter spells it."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["variance"]),
        helper.make_node("Add", ["variance", "epsilon"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["root"]),
        helper.make_node("Div", ["centred", "root"], ["y"]),
    ]
    constants = {
        "axes": np.array(axes, np.int64),
        "two": np.array(2, np.float32),
        "epsilon": np.array(epsilon, np.float32),
    }
    return model_of(nodes, x, constants)


@pytest.mark.parametrize(("shape", "axes"), [((1, 5, 16), [-1]), ((1, 4, 6, 5), [2, 3]), ((1, 7, 8), [1])])
def test_normalisations_are_products_with_a_reciprocal(shape: tuple[int, ...], axes: list[int]):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    model = normalisation(x, axes, 1e-5)
    module = optimised(model)
    assert "nn.div" not in names(module)
    kinds = [op.kind.data for op in module.walk() if isinstance(op, nn.ReduceOp)]
    assert kinds == ["mean", "mean_square"]
    compilation = compile_proto(model, "m", Options())
    result = compilation.machine.run(x).ravel()
    np.testing.assert_allclose(result, reference(model, x).ravel(), rtol=2e-6, atol=2e-6)


def test_a_divisor_that_may_be_zero_stays():
    x = np.zeros((1, 3, 8), np.float32)
    module = optimised(normalisation(x, [-1], 0.0))
    assert "nn.div" in names(module)


def test_an_unbounded_value_times_zero_has_no_bound():
    """A slope of 0 makes NaN of minus infinity, which is not a bound that a divisor could rely on."""
    x = np.zeros((1, 3, 4), np.float32)
    module = import_onnx(model_of([helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.0)], x), "m")
    function = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
    assert lower_bound(returned.operands[0]) == -np.inf


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_below_its_bound(seed: int):
    """Random expressions of one input; every value's bound against what the value is for random inputs."""
    rng = np.random.default_rng(seed)
    values, nodes = ["x"], list[onnx.NodeProto]()
    for i in range(8):
        a, b = (values[int(n)] for n in rng.integers(0, len(values), 2))
        unary = ["Abs", "Relu", "Sigmoid", "Tanh", "Neg", "Softplus", "Elu", "Softsign"]
        kind = str(rng.choice([*unary, "Add", "Mul", "Max", "Min", "Sub", "ReduceMean", "ReduceSum", "ReduceMax"]))
        inputs = [a] if kind in unary else [a, "axes"] if kind.startswith("Reduce") else [a, b]
        nodes.append(helper.make_node(kind, inputs, [f"v{i}"]))
        values.append(f"v{i}")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in values[1:]],
        [numpy_helper.from_array(np.array([2], np.int64), "axes")],
    )
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )
    module = import_onnx(model, "m")
    function = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
    bounds = [lower_bound(value) for value in returned.operands]
    for _ in range(4):
        x = (rng.standard_normal((1, 3, 4)) * rng.choice([0.1, 3.0, 30.0])).astype(np.float32)
        for bound, result in zip(bounds, run_nn(module, [x]), strict=True):
            assert result.min() >= bound - 1e-6 * max(abs(bound), 1.0)
    assert any(np.isfinite(bounds)) or not any(n.op_type in ("Abs", "Relu", "Sigmoid") for n in nodes)
