"""A dense layer that consumes its input while it is computed: right for many shapes, and the input is never stored."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.backend.loop import kernels
from ml4f.backend.loop.dense_sink import fuse_dense
from ml4f.backend.loop.nest import Step
from ml4f.compiler import Options, compile_proto

RELU = Step("activation", None, "relu")
SHAPES = {
    "two-dimensional": ([1, 12, 10], [6, 1, 3, 3], [1, 1], [1, 1, 1, 1], "Relu", None, 5),
    "strides": ([2, 21, 17], [7, 2, 5, 4], [2, 1], [2, 1, 2, 2], "Relu", "Relu", 3),
    "no activation": ([3, 9, 9], [8, 3, 3, 3], [1, 1], [0, 0, 0, 0], None, None, 2),
    "one-dimensional": ([2, 1, 40], [12, 2, 1, 4], [1, 1], [0, 0, 0, 0], "Relu", "Sigmoid", 7),
    "leaky": ([1, 8, 8], [5, 1, 2, 2], [1, 1], [0, 0, 0, 0], "LeakyRelu", None, 4),
    "one column": ([4, 30, 1], [9, 4, 5, 1], [2, 1], [2, 0, 2, 0], None, "Relu", 10),
}
"""Input, weights, strides, padding, activation, the dense layer's activation, its outputs."""


def network(name: str, bias: bool, pool: bool = False) -> onnx.ModelProto:
    shape, weights, strides, pads, act, last, units = SHAPES[name]
    rng = np.random.default_rng(len(name))
    w = rng.standard_normal(weights).astype(np.float32)
    places = zip(shape[1:], pads[:2], pads[2:], weights[2:], strides, strict=True)
    out = [weights[0], *((n + a + b - k) // s + 1 for n, a, b, k, s in places)]
    nodes = [helper.make_node("Conv", ["x", "w"] + ["b"] * bias, ["a0"], strides=strides, pads=pads)]
    if act:
        nodes.append(helper.make_node(act, ["a0"], ["a1"]))
    if pool:
        nodes.append(helper.make_node("MaxPool", [nodes[-1].output[0]], ["p"], kernel_shape=[2, 2], strides=[2, 2]))
        out = [out[0], out[1] // 2, out[2] // 2]
    nodes.append(helper.make_node("Flatten", [nodes[-1].output[0]], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "dw"] + ["db"] * bias, ["g"]))
    if last:
        nodes.append(helper.make_node(last, ["g"], ["y"]))
    nodes[-1].output[0] = "y"
    dense = rng.standard_normal([prod(out), units]).astype(np.float32) / 10
    arrays = {"w": w, "dw": dense}
    if bias:
        arrays |= {"b": rng.standard_normal(weights[0]), "db": rng.standard_normal(units)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, units])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("name", SHAPES)
def test_every_pass_and_every_layer_is_right(name: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.MORE_CYCLES", 2.0)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LEAST_SAVED", 0)
    compilation = compile_proto(network(name, bias), "sink", Options(check_passes=True))
    fused = any("dense dense" in line for line in compilation.ir("loop-fuse-dense").splitlines())
    assert fused
    assert compilation.stats.arena_bytes == compilation.stats.arena_bound


@pytest.mark.parametrize("name", ("two-dimensional", "strides"))
def test_with_a_pool_between(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.MORE_CYCLES", 3.0)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LARGER", 0.1)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LEAST_SAVED", -10_000)
    compilation = compile_proto(network(name, True, pool=True), "sink", Options(check_passes=True))
    text = compilation.ir("loop-fuse-dense")
    assert "pool_max" in text and "dense dense" in text


def other_producer(kind: str) -> onnx.ModelProto:
    rng = np.random.default_rng(9)
    nodes, shape = {
        "depthwise": ([helper.make_node("Conv", ["x", "w"], ["a"], group=6, pads=[1, 1, 1, 1])], [6, 9, 8]),
        "average": ([helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 2])], [6, 8, 7]),
        "elementwise": ([helper.make_node("Relu", ["x"], ["a"])], [6, 9, 8]),
        "sum": (
            [
                helper.make_node("Conv", ["x", "w"], ["c"], group=6, pads=[1, 1, 1, 1]),
                helper.make_node("Add", ["c", "x"], ["a"]),
            ],
            [6, 9, 8],
        ),
    }[kind]
    nodes += [helper.make_node("Flatten", ["a"], ["f"]), helper.make_node("Gemm", ["f", "d"], ["y"])]
    arrays = {"w": rng.standard_normal([6, 1, 3, 3]), "d": rng.standard_normal([prod(shape), 3]) / 9}
    used = [n for n in arrays if any(n in node.input for node in nodes)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 9, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(arrays[n].astype(np.float32), n) for n in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("kind", ("depthwise", "average", "elementwise", "sum"))
def test_other_producers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.MORE_CYCLES", 100.0)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LARGER", 0.0)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LEAST_SAVED", -10_000)
    compilation = compile_proto(other_producer(kind), kind, Options(check_passes=True))
    assert "dense dense" in compilation.ir("loop-fuse-dense")


def test_a_few_bytes_are_not_worth_the_code() -> None:
    layers = [helper.make_node("Gemm", ["x", "a"], ["h"]), helper.make_node("Gemm", ["h", "b"], ["y"])]
    for units, fused in ((24, False), (80, True)):
        arrays = {"a": np.ones([3, units], np.float32), "b": np.ones([units, 2], np.float32)}
        graph = helper.make_graph(
            layers,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
            [numpy_helper.from_array(a, n) for n, a in arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        text = compile_proto(model, "sink", Options(validate=False, float16=True)).ir("loop-fuse-dense")
        assert ("dense dense" in text) == fused


def test_the_input_is_not_stored() -> None:
    proto = network("strides", True)
    compilation = compile_proto(proto, "sink", Options(validate=False))
    apart = compile_proto(proto, "sink", Options(validate=False, optimize=False))
    between = 4 * 7 * 11 * 17
    assert compilation.stats.arena_bytes < between < apart.stats.arena_bytes


@pytest.mark.parametrize("name", SHAPES)
def test_float16_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in pairs: fused where a result's weights are whole words, and right in any case."""
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.MORE_CYCLES", 2.0)
    monkeypatch.setattr("ml4f.passes.loop_fuse_dense.LEAST_SAVED", 0)
    compilation = compile_proto(network(name, True), "sink", Options(float16=True))
    fused = any("dense dense" in line for line in compilation.ir("loop-fuse-dense").splitlines())
    assert fused == (SHAPES[name][-1] % 2 == 0)


def test_float16_weights_are_half_as_large() -> None:
    whole, half = (
        compile_proto(network("leaky", True), "sink", Options(float16=float16, validate=False))
        for float16 in (False, True)
    )
    assert "dense dense" in half.ir("loop-fuse-dense")
    assert half.stats.arena_bytes == whole.stats.arena_bytes
    assert half.stats.weight_bytes < 0.52 * whole.stats.weight_bytes


CONVOLUTION = kernels.conv2d([12, 10, 1], [3, 3, 1, 6], [12, 10, 6], [1, 1], [1, 1], [1] * 4, 1, True, [RELU])


def test_only_a_row_of_all_results_can_be_consumed() -> None:
    assert fuse_dense(CONVOLUTION, kernels.dense(1, 720, 5, True)) is not None
    assert fuse_dense(CONVOLUTION, kernels.dense(1, 360, 5, True)) is None
    assert fuse_dense(CONVOLUTION, kernels.dense(2, 360, 5, True)) is None
    assert fuse_dense(CONVOLUTION, kernels.dense(1, 720, 1, True)) is None
    fused = fuse_dense(CONVOLUTION, kernels.dense(1, 720, 5, True))
    assert fused is not None and fused.window_dims == () and fused.by_role["dense"].map.coefficient("f") == 5
    assert fuse_dense(fused, kernels.dense(1, 5, 5, True)) is None
