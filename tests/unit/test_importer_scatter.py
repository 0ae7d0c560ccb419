"""Elements put or taken where computed numbers say, branches chosen by computed conditions, and FlexAttention."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.errors import UnsupportedError
from ml4f.reference import Reference

RNG = np.random.default_rng(1)
Arrays = dict[str, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes: list[onnx.NodeProto], inputs: Arrays, constants: Arrays, opset: int = 18) -> onnx.ModelProto:
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "scatter",
        [helper.make_tensor_value_info(name, kinds[x.dtype.kind], x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.preview", 1)]
    return helper.make_model(graph, opset_imports=opsets[: 1 + (opset >= 26)], ir_version=10)


def check(nodes: list[onnx.NodeProto], inputs: Arrays, constants: Arrays | None = None, opset: int = 18) -> None:
    proto = model(nodes, inputs, constants or {}, opset)
    found = ml4f.compile(proto, validate=False).predict(
        list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
    )
    wanted = Reference(proto).run(list(inputs.values()))["y"]
    np.testing.assert_allclose(np.ravel(found), np.ravel(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_updates_at_computed_indices(reduction: str) -> None:
    """Negative indices count from the end; equal ones only where the order does not matter."""
    index = np.argsort(RNG.random((3, 5, 4)), axis=1)[:, :2]
    index = RNG.integers(-5, 5, (3, 2, 4)) if reduction != "none" else index - 5 * (index == 0)
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction=reduction)
    check([node], {"x": normal(3, 5, 4), "i": index, "u": normal(3, 2, 4)})


@pytest.mark.parametrize(("batch", "extents"), [(0, (2, 3, 2)), (1, (3, 2, 2)), (1, (3, 1))])
def test_pieces_at_computed_places(batch: int, extents: tuple[int, ...]) -> None:
    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=batch)
    check([node], {"x": normal(3, 4, 5), "i": RNG.integers(-3, 3, extents)})


@pytest.mark.parametrize(("mode", "begins"), [("linear", [1, 2]), ("circular", [0, 3])])
def test_a_cache_is_updated_from_a_computed_index_on(mode: str, begins: list[int]) -> None:
    node = helper.make_node("TensorScatter", ["x", "u", "i"], ["y"], mode=mode)
    check([node], {"x": normal(2, 1, 4, 3), "u": normal(2, 1, 2, 3), "i": np.array(begins)}, opset=24)


def branch(op_type: str, inputs: list[str], shape: list[int]) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(op_type, TensorProto.FLOAT, shape)
    return helper.make_graph([helper.make_node(op_type, inputs, [op_type])], op_type, [], [info])


def choice(otherwise: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["condition"]),
        helper.make_node(
            "If", ["condition"], ["y"], then_branch=branch("Exp", ["x"], [3]), else_branch=otherwise, name="choice"
        ),
    ]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_computed_condition_chooses(sign: int) -> None:
    x = np.abs(normal(3)) * np.float32(sign)
    check(choice(branch("Neg", ["x"], [3])), {"x": x}, {"zero": np.array(0, np.float32)})


def test_a_computed_condition_cannot_choose_shapes() -> None:
    nodes = choice(branch("ReduceMax", ["x"], [1]))
    with pytest.raises(UnsupportedError, match=r"'choice' \(If\).*\[3\] or \[1\]"):
        ml4f.compile(model(nodes, {"x": normal(3)}, {"zero": np.array(0, np.float32)}))


def test_attention_with_graphs_of_its_own() -> None:
    """Two heads share keys; scores are capped, probabilities scaled."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("s", "capped", "p", "scaled")]
    score = helper.make_graph([helper.make_node("Tanh", ["s"], ["capped"])], "score", info[:1], info[1:2])
    half = [numpy_helper.from_array(np.array(0.5, np.float32), "half")]
    probability = helper.make_graph(
        [helper.make_node("Mul", ["p", "half"], ["scaled"])], "probability", info[2:3], info[3:], half
    )
    node = helper.make_node(
        *("FlexAttention", ["q", "k", "v"], ["y"]), domain="ai.onnx.preview", score_mod=score, prob_mod=probability
    )
    inputs = {"q": normal(1, 4, 3, 5), "k": normal(1, 2, 6, 5), "v": normal(1, 2, 6, 3)}
    found = ml4f.compile(model([node], inputs, {}, 26)).predict(list(inputs.values()))
    k, v = (np.repeat(inputs[name], 2, axis=1) for name in "kv")
    scores = np.tanh(inputs["q"] @ k.swapaxes(2, 3) / np.sqrt(5))
    powers = np.exp(scores)
    wanted = 0.5 * powers / powers.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(np.ravel(found), wanted.ravel(), rtol=1e-4, atol=1e-6)
