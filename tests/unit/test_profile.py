"""Cycles of a call: those of a kernel that several calls share belong to the call that runs it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import ml4f


def test_a_shared_kernel_behind_one_that_is_laid_out_inline():
    """The block that branches to the shared kernel begins in the call before, at the end of the pool's loop."""
    rng = np.random.default_rng(3)
    nodes, weights = [], []
    value = "x"
    for i in range(2):
        weights.append(numpy_helper.from_array(rng.normal(0, 0.3, (8, 8, 1, 9)).astype(np.float32), f"w{i}"))
        window = {"kernel_shape": [1, 3 - i], "pads": [0, 1 - i, 0, 1]}
        nodes.append(helper.make_node("MaxPool", [value], [f"p{i}"], f"pool{i}", **window))
        window = {"kernel_shape": [1, 9], "pads": [0, 4, 0, 4]}
        nodes.append(helper.make_node("Conv", [f"p{i}", f"w{i}"], [f"c{i}"], f"conv{i}", **window))
        value = f"c{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"], "mean"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 1, 40])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 1, 1])
    graph = helper.make_graph(nodes, "shared", [x], [y], weights)
    model = ml4f.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), validate=False)
    layers = {layer.name: layer for layer in model.stats.layers}
    assert layers["conv1"].code_bytes < 100  # a branch: the kernel is counted with the first layer
    for name in ("conv0", "conv1"):
        assert 2 * layers[name].macs < layers[name].cycles < 3 * layers[name].macs
    assert abs(layers["conv0"].cycles - layers["conv1"].cycles) < 20
    assert layers["pool1"].cycles < 20 * 8 * 40
