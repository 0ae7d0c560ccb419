"""Nodes that need more than a handler: older opsets, ONNX functions, constant conditions, several images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn
from ml4f.reference import Reference

FLOAT = TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    shapes: dict[str, Sequence[int]],
    output: str,
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset > 8 else 4)


def computed(proto: onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
    loaded = load_model(proto)
    module = import_onnx(loaded.proto, "case")
    module.verify()
    return np.ravel(run_nn(module, list(inputs))[0])


def expected(proto: onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
    return np.ravel(Reference(load_model(proto).proto).run(list(inputs))[proto.graph.output[0].name])


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_opset_6_says_at_which_axis_the_second_operand_begins() -> None:
    x, b = random(0, 1, 3, 2, 4), random(1, 3)
    node = helper.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)
    made = computed(model([node], {"x": x.shape}, "y", {"b": b}, opset=6), x)
    np.testing.assert_allclose(made, np.ravel(x + b[:, None, None]), rtol=1e-6)
    plain = helper.make_node("Add", ["x", "b"], ["y"])
    with pytest.raises(UnsupportedError, match="does not broadcast"):
        computed(model([plain], {"x": x.shape}, "y", {"b": b}, opset=6), x)
    slopes = helper.make_node("PRelu", ["x", "b"], ["y"])
    made = computed(model([slopes], {"x": x.shape}, "y", {"b": b}, opset=6), x)
    np.testing.assert_allclose(made, np.ravel(np.where(x < 0, x * b[:, None, None], x)), rtol=1e-6)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("Conv", {"pads": [1, 0, 0, 1]}), ("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalAveragePool", {})],
)
def test_several_images_are_done_one_by_one(op_type: str, attributes: dict[str, Any]) -> None:
    x, w = random(2, 3, 2, 5, 6), random(3, 4, 2, 2, 3)
    inputs = ["x", "w"] if op_type == "Conv" else ["x"]
    node = helper.make_node(op_type, inputs, ["y"], **attributes)
    proto = model([node], {"x": x.shape}, "y", {"w": w})
    np.testing.assert_allclose(computed(proto, x), expected(proto, x), rtol=1e-5, atol=1e-6)


def test_operators_that_onnx_defines_as_functions() -> None:
    q, k, v = random(4, 1, 2, 5, 4), random(5, 1, 2, 6, 4), random(6, 1, 2, 6, 4)
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="attend", is_causal=1)
    proto = model([node], {"q": q.shape, "k": k.shape, "v": v.shape}, "y", opset=23)
    scores = q @ k.transpose(0, 1, 3, 2) / 2 + np.where(np.tri(5, 6), 0, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    wanted = powers / powers.sum(axis=-1, keepdims=True) @ v
    np.testing.assert_allclose(computed(proto, q, k, v), np.ravel(wanted), rtol=1e-5, atol=1e-6)
    made = ml4f.compile(proto).predict({"q": q, "k": k, "v": v})
    np.testing.assert_allclose(made.ravel(), np.ravel(wanted), rtol=1e-5, atol=1e-6)


def test_a_problem_inside_of_a_function_names_the_layer() -> None:
    x = random(4, 2, 3)
    node = helper.make_node("Bernoulli", ["x"], ["y"], name="toss")
    with pytest.raises(UnsupportedError, match=r"layer 'toss' \(Bernoulli\).*RandomUniformLike"):
        computed(model([node], {"x": x.shape}, "y"), x)


@pytest.mark.parametrize("condition", [True, False])
def test_a_constant_condition_selects_a_branch(condition: bool) -> None:
    x = random(7, 2, 3)
    info = [helper.make_tensor_value_info("r", FLOAT, None)]
    branches = {
        name: helper.make_graph([helper.make_node(kind, ["x"], ["r"])], name, [], info)
        for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    node = helper.make_node("If", ["c"], ["y"], **branches)  # pyright: ignore[reportArgumentType]
    made = computed(model([node], {"x": x.shape}, "y", {"c": np.array(condition)}), x)
    np.testing.assert_array_equal(made, np.ravel(-x if condition else np.abs(x)))


def test_an_attribute_that_nobody_understands_is_no_detail() -> None:
    x = random(8, 1, 4, 2, 2)
    node = helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y"], name="norm", spatial=0)
    with pytest.raises(UnsupportedError, match=r"'norm'.*spatial is 0"):
        computed(model([node], {"x": x.shape}, "y", {"s": np.ones(4, np.float32)}, opset=7), x)
    w = np.ones((2, 4, 2, 2), np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    with pytest.raises(UnsupportedError, match="kernel_shape"):
        computed(model([conv], {"x": x.shape}, "y", {"w": w}), x)


def test_infinities_of_a_mask_are_no_sign_of_divergence() -> None:
    x = random(9, 3, 3)
    mask = np.where(np.tri(3), 0, -np.inf).astype(np.float32)
    nodes = [helper.make_node("Add", ["x", "m"], ["s"]), helper.make_node("Softmax", ["s"], ["y"])]
    proto = model(nodes, {"x": x.shape}, "y", {"m": mask})
    np.testing.assert_allclose(computed(proto, x), expected(proto, x), rtol=1e-5, atol=1e-7)
    spoilt = random(10, 3, 3)
    spoilt[1, 1] = np.inf
    with pytest.raises(Ml4fError, match="diverged"):
        computed(model(nodes, {"x": x.shape}, "y", {"m": spoilt}), x)


def embedding(kind: int, rows: int, axis: int = 0, count: int = 5) -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["t", "i"], ["y"], axis=axis, name="embed")]
    source = "i"
    if kind == FLOAT:
        source = "x"
        nodes.insert(0, helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64))
    table = numpy_helper.from_array(random(11, rows, 19), "t")
    entries = [helper.make_tensor_value_info(source, kind, [1, count])]
    output = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(nodes, "embedding", entries, [output], [table])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("kind", [FLOAT, TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_embedding_is_rows_of_its_table(kind: int, axis: int) -> None:
    proto = embedding(kind, 7, axis)
    table = random(11, 7, 19)
    compiled = ml4f.compile(proto)  # compares the code with onnxruntime on indices that exist
    indices = np.array([[6, 0, -1, 3, 3]])
    np.testing.assert_array_equal(compiled.predict(indices).ravel(), np.take(table, indices, axis=axis).ravel())
    beyond = compiled.predict(np.array([[99, -99, 1, 2, np.nan]], np.float32)).ravel()
    np.testing.assert_array_equal(beyond, np.take(table, [[table.shape[axis] - 1, 0, 1, 2, 0]], axis=axis).ravel())


def test_constant_indices_without_order_are_rows_of_a_table() -> None:
    x = random(12, 90, 3)
    indices = np.random.default_rng(13).permutation(90)
    node = helper.make_node("Gather", ["x", "i"], ["y"])
    compiled = ml4f.compile(model([node], {"x": x.shape}, "y", {"i": indices}))
    np.testing.assert_array_equal(compiled.predict(x).ravel(), x[indices].ravel())


def test_integers_are_for_looking_up_alone() -> None:
    proto = embedding(TensorProto.INT64, 7)
    proto.graph.node.insert(0, helper.make_node("Mul", ["j", "j"], ["i"], name="square"))
    proto.graph.input[0].name = "j"
    with pytest.raises(UnsupportedError, match=r"'square'.*integers"):
        ml4f.compile(proto)


def test_limits_of_bounded_integers() -> None:
    """Places beside the largest one, kept within the tensor, as pitch detectors look around a peak."""
    x = random(5, 1, 3, 9)
    nodes = [
        helper.make_node("ArgMax", ["x"], ["peak"], axis=-1),
        helper.make_node("Add", ["peak", "around"], ["places"]),
        helper.make_node("Clip", ["places", "first", "last"], ["inside"]),
        helper.make_node("GatherElements", ["x", "inside"], ["y"], axis=-1),
    ]
    constants = {"around": np.array([-1, 0, 1]), "first": np.array(0), "last": np.array(8)}
    proto = model(nodes, {"x": x.shape}, "y", constants)
    x[0, 0, 0], x[0, 1, 8] = 9.0, 9.0
    np.testing.assert_array_equal(computed(proto, x), expected(proto, x))


@pytest.mark.parametrize("value", [-np.inf, np.inf, 3.0, 0.0])
@pytest.mark.parametrize("limited", [False, True])
def test_what_is_padded_with(value: float, limited: bool) -> None:
    """Also where nothing is computed, so that the code moves bit patterns; infinities hide what a mask leaves out."""
    first = [helper.make_node("Relu", ["x"], ["r"])] if limited else []
    nodes = [*first, helper.make_node("Pad", ["r" if limited else "x", "pads", "value"], ["y"])]
    constants = {"pads": np.array([0, 0, 1, 0, 1, 2]), "value": np.float32(value)}
    proto = model(nodes, {"x": [1, 4, 5]}, "y", {key: np.asarray(array) for key, array in constants.items()})
    x = random(6, 1, 4, 5)
    np.testing.assert_array_equal(np.ravel(ml4f.compile(proto).predict(x)), expected(proto, x))


def wrapped_indices(kind: int, limit: int) -> onnx.ModelProto:
    """An embedding in front of whose indices i, as TensorFlow exports it, i + limit is chosen where i < 0."""
    proto = embedding(kind, 7)
    nodes = [
        helper.make_node("Add", ["j", "limit"], ["later"]),
        helper.make_node("Less", ["j", "zero"], ["negative"]),
        helper.make_node("Where", ["negative", "later", "j"], ["i"]),
    ]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    proto.graph.input[0].name = "j"
    kept = np.int64 if kind == TensorProto.INT64 else np.int32
    proto.graph.initializer.extend(
        [numpy_helper.from_array(np.array(limit, kept), "limit"), numpy_helper.from_array(np.array(0, kept), "zero")]
    )
    return proto


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_indices_that_are_only_wrapped_are_the_inputs(kind: int) -> None:
    compiled = ml4f.compile(wrapped_indices(kind, 7))
    indices = np.array([[6, 0, -1, 3, -7]])
    np.testing.assert_array_equal(compiled.predict(indices).ravel(), random(11, 7, 19)[indices].ravel())
    assert compiled.stats.cycles == ml4f.compile(embedding(kind, 7)).stats.cycles


def test_indices_that_are_shifted_are_not_taken_for_wrapped_ones() -> None:
    with pytest.raises(UnsupportedError, match="integers"):
        ml4f.compile(wrapped_indices(TensorProto.INT64, 6))


def test_negative_pads_of_an_exporter_are_pads_of_the_output() -> None:
    """As tf2onnx writes a transposed convolution whose kernel is shorter than its stride."""
    shapes, weights = {"x": (1, 4, 5, 4)}, {"w": random(9, 4, 3, 1, 1)}
    given = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[0, 0, -1, -1])
    plain = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 1])
    x = random(10, 1, 4, 5, 4)
    found, wanted = (ml4f.compile(model([node], shapes, "y", weights)).predict(x) for node in (given, plain))
    np.testing.assert_array_equal(found, wanted)
    assert found.size == 3 * 10 * 8


def test_erfc_of_tf2onnx_is_what_erf_leaves() -> None:
    x = random(15, 1, 9)
    node = helper.make_node("Erfc", ["x"], ["y"])
    plain = [helper.make_node("Erf", ["x"], ["e"]), helper.make_node("Sub", ["one", "e"], ["y"])]
    one = {"one": np.ones(1, np.float32)}
    wanted = expected(model(plain, {"x": x.shape}, "y", one), x)
    np.testing.assert_allclose(computed(model([node], {"x": x.shape}, "y"), x), wanted, rtol=1e-5, atol=1e-7)


def test_what_an_exporter_could_not_convert_is_named() -> None:
    node = helper.make_node("StatefulPartitionedCall", ["x"], ["y"], name="conv/call")
    with pytest.raises(UnsupportedError, match=r"'conv/call'.*StatefulPartitionedCall.*give the model"):
        load_model(model([node], {"x": (1, 3)}, "y"))


def test_a_product_with_a_long_epilogue_finds_its_registers() -> None:
    """The scheduler's order must not need more registers than there are for the copies that selections need."""
    x, v = random(16, 1, 2, 7, 4), random(17, 1, 2, 4, 7)
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["p"]),
        helper.make_node("Mul", ["p", "half"], ["s"]),
        helper.make_node("Where", ["seen", "s", "low"], ["w"]),
        helper.make_node("Softmax", ["w"], ["y"]),
    ]
    constants = {"half": np.array(0.5, np.float32), "low": np.array(-2.4e38, np.float32)}
    proto = model(nodes, {"x": x.shape, "v": v.shape}, "y", {**constants, "seen": np.tri(7) > 0})
    made = ml4f.compile(proto).predict([x, v])
    np.testing.assert_allclose(np.ravel(made), expected(proto, x, v), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [21, 42, 43])
def test_a_selection_of_any_size(size: int) -> None:
    x = random(14, 1, size)
    nodes = [
        helper.make_node("Greater", ["x", "z"], ["m"]),
        helper.make_node("Where", ["m", "x", "z"], ["w"]),
        helper.make_node("Neg", ["w"], ["y"]),
    ]
    compiled = ml4f.compile(model(nodes, {"x": x.shape}, "y", {"z": np.zeros(1, np.float32)}))
    np.testing.assert_array_equal(compiled.predict(x).ravel(), -np.maximum(x, 0).ravel())
