"""Convolutions and batch normalisation whose parameters are inputs, in machine code, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.reference import Reference

Arrays = dict[str, np.ndarray]


def model(nodes: list[onnx.NodeProto], inputs: Arrays, constants: Arrays) -> onnx.ModelProto:
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "computed",
        [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def check(node: onnx.NodeProto, inputs: Arrays, constants: Arrays | None = None) -> None:
    proto = model([node], inputs, constants or {})
    found = ml4f.compile(proto, validate=False).predict(
        list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
    )
    wanted = Reference(proto).run(list(inputs.values()))["y"]
    np.testing.assert_allclose(np.ravel(found), np.ravel(wanted), rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def normal(seed: int, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


CONVOLUTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (1, 4, 7, 6), (5, 4, 3, 3), {"strides": [2, 1], "pads": [1, 0, 1, 2]}),
    ("Conv", (1, 4, 8, 6), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),  # rolled over the rows
    ("Conv", (2, 6, 9), (4, 3, 3), {"group": 2, "dilations": [2]}),
    ("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 3, 1), {}),
    ("ConvTranspose", (1, 4, 5, 4), (4, 3, 3, 2), {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}),
    ("ConvTranspose", (1, 4, 5), (4, 2, 3), {"group": 2, "strides": [3], "dilations": [2]}),
]


@pytest.mark.parametrize(("op_type", "x", "w", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [None, "input"])
def test_weights_are_inputs(
    op_type: str, x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, Any], bias: str | None
) -> None:
    filters = w[0] if op_type == "Conv" else w[1] * attributes.get("group", 1)
    inputs, names = normal(1, x=x, w=w), ["x", "w"] + ["b"] * (bias is not None)
    vector = normal(2, b=(filters,))
    node = helper.make_node(op_type, names, ["y"], **attributes)
    check(node, {**inputs, **(vector if bias else {})})


def test_a_constant_bias_of_weights_that_are_inputs() -> None:
    inputs = normal(3, x=(1, 3, 5, 5), w=(4, 3, 3, 3))
    check(helper.make_node("Conv", ["x", "w", "b"], ["y"]), inputs, normal(4, b=(4,)))


def test_only_the_bias_is_an_input() -> None:
    inputs = normal(3, x=(1, 3, 5, 5), b=(4,))
    check(helper.make_node("Conv", ["x", "w", "b"], ["y"]), inputs, normal(4, w=(4, 3, 3, 3)))


@pytest.mark.parametrize("pads", [[0, 1, -1, 0], [-1, 0, 0, -2]])
def test_negative_pads_of_a_transposed_convolution(pads: list[int]) -> None:
    """As onnx's evaluator takes them; onnxruntime does not."""
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[3, 2], pads=pads)
    check(node, normal(6, x=(1, 4, 5, 4)), normal(7, w=(4, 3, 2, 2), b=(3,)))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (3, 4)])
@pytest.mark.parametrize("computed", ["sbmv", "s", "mv"])
def test_parameters_of_a_normalisation_are_inputs(shape: tuple[int, ...], computed: str) -> None:
    count = shape[1]
    values = normal(5, x=shape, s=(count,), b=(count,), m=(count,), v=(count,))
    values["v"] = np.abs(values["v"]) + 0.1
    node = helper.make_node("BatchNormalization", list("xsbmv"), ["y"], epsilon=0.01)
    inputs = {name: values[name] for name in "x" + computed}
    check(node, inputs, {name: value for name, value in values.items() if name not in inputs})
