"""Weights stored as float16: half the bytes, and right whatever is odd about the shapes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.compiler import Options, compile_proto


def network(seed: int) -> onnx.ModelProto:
    """Convolution, depthwise convolution and two dense layers with odd numbers of filters, taps and units."""
    rng = np.random.default_rng(seed)
    channels, height, width = int(rng.choice([1, 3, 5])), int(rng.integers(5, 10)), int(rng.integers(3, 8))
    filters, kernel = int(rng.choice([1, 3, 5, 7])), [int(rng.integers(1, 4)), int(rng.integers(1, 4))]
    weights: list[onnx.TensorProto] = []

    def constant(*shape: int) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.3, name))
        return name

    bias = [constant(filters)] if seed % 2 else []
    nodes = [
        helper.make_node("Conv", ["x", constant(filters, channels, *kernel), *bias], ["a"], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", constant(filters, 1, 3, 3)], ["c"], group=filters, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", constant(filters * height * width, 5)], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", constant(5, 3), constant(3)], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, height, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("seed", range(6))
def test_odd_shapes_are_right(seed: int, optimize: bool):
    """Validation compares every layer with the reference that has the same rounded weights."""
    compile_proto(network(seed), "odd", Options(float16=True, optimize=optimize))


def test_weights_take_half_the_bytes():
    whole = compile_proto(network(1), "odd", Options(validate=False)).stats
    half = compile_proto(network(1), "odd", Options(float16=True, validate=False)).stats
    assert half.weight_bytes < 0.56 * whole.weight_bytes  # biases stay float32
    assert half.total_bytes < whole.total_bytes


def small_images(seed: int) -> onnx.ModelProto:
    """Layers with few pixels a row: strided, padded, depthwise, without padding, and of one pixel a filter."""
    rng = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []

    def constant(*shape: int) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.2, name))
        return name

    layers = [
        ("x", (13, 3, 5, 5), {"strides": [3, 3]}),
        ("a", (13, 13, 3, 3), {"pads": [1] * 4}),
        ("b", (13, 1, 3, 3), {"pads": [1] * 4, "group": 13}),
        ("c", (7, 13, 2, 2), {}),
    ]
    nodes = [
        helper.make_node("Conv", [x, constant(*shape), constant(shape[0])], [y], **attributes)
        for (x, shape, attributes), y in zip(layers, "abcy", strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 11, 11))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 7, 2, 2))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_layers_of_few_pixels_cost_at_most_a_twentieth_more():
    """Validated like any model; every layer's cycles on the machine code."""
    whole = compile_proto(small_images(0), "small", Options(validate=False)).stats.layers
    half = compile_proto(small_images(0), "small", Options(float16=True)).stats.layers
    convolutions = [(a, b) for a, b in zip(whole, half, strict=True) if a.macs]
    assert len(convolutions) == 4
    assert sum(b.cycles for _, b in convolutions) < 1.05 * sum(a.cycles for a, _ in convolutions)
    assert all(b.cycles < 1.07 * a.cycles for a, b in convolutions)
