"""Chains of more tensors than the core has registers for their addresses, against numpy."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from ml4f.compiler import Options, compile_proto

TURNS = 7


def test_a_chain_over_many_tensors_is_more_than_one_kernel() -> None:
    """As of a recurrent state that a computed number scales in each step."""
    nodes, inputs, state = [], {"x": [1, 2]}, "x"
    for turn in range(TURNS):
        inputs |= {f"scale{turn}": [1, 1], f"more{turn}": [1, 2]}
        nodes.append(helper.make_node("Mul", [state, f"scale{turn}"], [f"scaled{turn}"]))
        state = f"sum{turn}"
        nodes.append(helper.make_node("Add", [f"scaled{turn}", f"more{turn}"], [state]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    y = helper.make_tensor_value_info(state, TensorProto.FLOAT, [1, 2])
    model = helper.make_model(helper.make_graph(nodes, "chain", infos, [y]), ir_version=8)
    model.opset_import[0].version = 15
    rng = np.random.default_rng(1)
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in inputs.items()}
    expected = values["x"]
    for turn in range(TURNS):
        expected = expected * values[f"scale{turn}"] + values[f"more{turn}"]
    found = compile_proto(model, "chain", Options(validate=False)).machine.run(list(values.values()))
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-5, atol=1e-6)
