"""Boolean inputs of ONNX models: float32 in the code, of which every number but 0 is true."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from ml4f.compiler import Options, compile_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

OPSET = 18


def model(nodes: list, inputs: dict[str, int], outputs: dict[str, int], shape: tuple[int, ...]) -> ModelProto:
    """All tensors have the same shape but for scalars, whose names are in capitals."""
    infos = [
        [helper.make_tensor_value_info(name, kind, [] if name.isupper() else shape) for name, kind in entries.items()]
        for entries in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "flags", *infos)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def branch(op_type: str) -> object:
    node = helper.make_node(op_type, ["x"], [op_type])
    return helper.make_graph([node], op_type, [], [helper.make_tensor_value_info(op_type, TensorProto.FLOAT, (2, 3))])


FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
MODELS = {
    "logic": (
        [
            helper.make_node("And", ["a", "b"], ["both"]),
            helper.make_node("Or", ["a", "b"], ["any"]),
            helper.make_node("Xor", ["a", "b"], ["one"]),
            helper.make_node("Not", ["a"], ["no"]),
        ],
        {"a": BOOL, "b": BOOL},
        {"both": BOOL, "any": BOOL, "one": BOOL, "no": BOOL},
    ),
    "where": (
        [helper.make_node("Where", ["a", "x", "y"], ["z"])],
        {"x": FLOAT, "a": BOOL, "y": FLOAT},
        {"z": FLOAT},
    ),
    "cast": (
        [helper.make_node("Cast", ["a"], ["f"], to=FLOAT), helper.make_node("Mul", ["f", "x"], ["z"])],
        {"a": BOOL, "x": FLOAT},
        {"z": FLOAT, "a": BOOL},
    ),
    "if": (
        [helper.make_node("If", ["C"], ["z"], then_branch=branch("Relu"), else_branch=branch("Neg"))],
        {"C": BOOL, "x": FLOAT},
        {"z": FLOAT},
    ),
}


@pytest.mark.parametrize("which", MODELS)
def test_flags_as_in_onnxruntime(which: str) -> None:
    proto = model(*MODELS[which], (2, 3))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    module = import_onnx(proto, which)
    rng = np.random.default_rng(1)
    for _ in range(3):
        fed, given = {}, []
        for entry in session.get_inputs():
            x = rng.standard_normal(entry.shape).astype(np.float32)
            if entry.type == "tensor(bool)":  # negative and fractional numbers are true
                x = np.asarray(x * (rng.random(entry.shape) < 0.5), np.float32)
            fed[entry.name] = x.astype(bool) if entry.type == "tensor(bool)" else x
            given.append(x)
        for y, expected in zip(run_nn(module, given), session.run(None, fed), strict=True):
            assert np.array_equal(y.reshape(expected.shape), np.asarray(expected, np.float32))


def test_machine_code_of_flags_is_compared_with_both_of_their_values() -> None:
    proto = model(*MODELS["where"], (2, 3))
    compilation = compile_model(proto, Options(validate=True))
    x, y = np.arange(6, dtype=np.float32), -np.arange(1, 7, dtype=np.float32)
    flags = np.array([0, 1, 2, -0.5, 0, 1], np.float32)
    (found,) = compilation.machine.run_all([x, flags, y])
    assert found.ravel().tolist() == np.where(flags != 0, x, y).tolist()
