"""LSTM, GRU and RNN: every option against onnxruntime, as machine code, and what a loop over time costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.compiler import Options, compile_proto
from ml4f.errors import UnsupportedError
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn
from ml4f.reference import Reference

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
PARAMETERS: dict[str, tuple[list[float], list[float]]] = {
    "Relu": ([], []),
    "Tanh": ([], []),
    "Sigmoid": ([], []),
    "Softsign": ([], []),
    "HardSigmoid": ([0.25], [0.4]),
    "Elu": ([0.7], []),
    "LeakyRelu": ([0.2], []),
    "Affine": ([1.0], [0.0]),
}
"""Activation → alpha, beta."""
TOLERANCE = 5e-5
"""onnxruntime's own tanh and sigmoid are approximations."""


class Model:
    """A random recurrent node behind [1, steps, inputs]; its outputs that are there, flat, one behind the other."""

    def __init__(self, kind: str, seed: int, **fixed: Any):
        self.rng = np.random.default_rng(seed)
        self.kind = kind
        self.steps, self.inputs, self.units = (int(self.rng.integers(1, n)) for n in (9, 7, 11))
        self.direction = self.draw("forward", "reverse", "bidirectional")
        self.attributes = self.options() | fixed
        self.count = 2 if self.attributes["direction"] == "bidirectional" else 1

    def draw(self, *values: Any) -> Any:
        """One of some values."""
        return values[int(self.rng.integers(len(values)))]

    def options(self) -> dict[str, Any]:
        """Attributes of the node."""
        found: dict[str, Any] = {"hidden_size": self.units, "direction": self.direction}
        if self.kind == "GRU":
            found["linear_before_reset"] = self.draw(0, 1)
        if self.rng.random() < 0.5:
            own = [self.draw(*PARAMETERS) for _ in range(ACTIVATIONS[self.kind])]
            own[0] = self.draw("Sigmoid", "HardSigmoid", "Tanh", "Softsign")  # others let the state grow without end
            names = own * (2 if self.direction == "bidirectional" else 1)
            found["activations"] = names
            for index, key in enumerate(("activation_alpha", "activation_beta")):
                values = [value for name in names for value in PARAMETERS[name][index]]
                if values:
                    found[key] = values
        return found

    def random(self, *shape: int) -> np.ndarray:
        """Weights."""
        return (self.rng.standard_normal(shape) * 0.4).astype(np.float32)

    def proto(self, outputs: list[str] | None = None) -> onnx.ModelProto:
        """The model; each output and each optional input is there or not."""
        count, width = self.count, GATES[self.kind] * self.units
        weights = {"W": self.random(count, width, self.inputs), "R": self.random(count, width, self.units)}
        optional = {"B": (2 * width,), "": (), "h0": (1, self.units)}
        optional |= {"c0": (1, self.units), "P": (3 * self.units,)} if self.kind == "LSTM" else {}
        operands = ["X", "W", "R"]
        for name, shape in optional.items():
            used = bool(name) and self.rng.random() < 0.5
            operands.append(name if used else "")
            if used:
                weights[name] = self.random(count, *shape)
        while not operands[-1]:
            operands.pop()
        cell = ["Y_c"] if self.kind == "LSTM" and self.rng.random() < 0.5 else []
        outputs = outputs or [*self.draw(["Y", ""], ["", "Y_h"], ["Y", "Y_h"]), *cell]
        sizes = {"Y": self.steps * count * self.units, "Y_h": count * self.units, "Y_c": count * self.units}
        read = [name for name in outputs if name]
        nodes = [
            helper.make_node("Reshape", ["x", "sequence"], ["X"]),
            helper.make_node(self.kind, operands, outputs, "layer", **self.attributes),
            *(helper.make_node("Reshape", [name, "flat"], [f"{name}_flat"]) for name in read),
            helper.make_node("Concat", [f"{name}_flat" for name in read], ["y"], axis=1),
        ]
        shapes = {"sequence": [self.steps, 1, self.inputs], "flat": [1, -1]}
        constants = [numpy_helper.from_array(np.array(v, dtype=np.int64), k) for k, v in shapes.items()]
        constants += [numpy_helper.from_array(v, k) for k, v in weights.items()]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.steps, self.inputs])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sum(sizes[name] for name in read)])
        graph = helper.make_graph(nodes, "recurrent", [x], [y], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def differences(proto: onnx.ModelProto, machine: bool) -> float:
    """The largest error of the nn level, or of the machine code, against onnxruntime."""
    pytest.importorskip("onnxruntime")
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    expected = Reference(proto).run([x])["y"]
    if machine:
        result = compile_proto(proto, "recurrent", Options(validate=True)).machine.run(x)
    else:
        result = run_nn(import_onnx(proto, "recurrent"), [x[0]])[0]
    return float(np.abs(result.ravel() - expected.ravel()).max() / max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("kind", GATES)
def test_every_option(kind: str) -> None:
    for seed in range(40):
        assert differences(Model(kind, seed).proto(), machine=False) <= TOLERANCE, f"seed {seed}"


@pytest.mark.parametrize(("kind", "seed"), [("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("GRU", 2), ("RNN", 1)])
def test_machine_code(kind: str, seed: int) -> None:
    assert differences(Model(kind, seed).proto(), machine=True) <= TOLERANCE


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_a_batch_of_sequences(kind: str, lengths: list[int] | None) -> None:
    """Each by itself; rows behind the end of a sequence are zeros."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(7)
    batch, steps, inputs, units = 2, 4, 2, 5
    weights = {
        "W": (2, GATES[kind] * units, inputs),
        "R": (2, GATES[kind] * units, units),
        "B": (2, 2 * GATES[kind] * units),
        "h0": (2, batch, units),
    }
    constants = [
        numpy_helper.from_array((rng.standard_normal(n) * 0.4).astype(np.float32), k) for k, n in weights.items()
    ]
    if lengths:
        constants.append(numpy_helper.from_array(np.array(lengths, np.int32), "lengths"))
    outputs = ["Y", "Y_h", *(["Y_c"] if kind == "LSTM" else [])]
    operands = ["x", "W", "R", "B", "lengths" if lengths else "", "h0"]
    node = helper.make_node(kind, operands, outputs, hidden_size=units, direction="bidirectional")
    graph = helper.make_graph(
        [node],
        "batch",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, batch, inputs])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    x = rng.standard_normal((steps, batch, inputs)).astype(np.float32)
    expected = Reference(proto).run([x])
    if kind == "GRU":
        results = compile_proto(proto, "batch", Options(validate=False)).machine.run_all([x])
    else:
        results = run_nn(import_onnx(proto, "batch"), [x])
    for name, result in zip(outputs, results, strict=True):
        np.testing.assert_allclose(result.ravel(), expected[name].ravel(), atol=TOLERANCE)


def test_code_and_memory_do_not_grow_with_the_sequence() -> None:
    """A loop over time: only the input, and the sequence if it is wanted, take more memory."""
    sizes = {}
    for steps in (5, 50):
        model = Model("LSTM", 3, direction="forward", activations=["Sigmoid", "Tanh", "Tanh"])
        model.attributes = {"hidden_size": model.units, "direction": "forward"}
        model.steps = steps
        stats = compile_proto(model.proto(["", "Y_h"]), "recurrent", Options(validate=False)).stats
        sizes[steps] = stats.code_bytes, stats.arena_bytes - 4 * steps * model.inputs
    assert abs(sizes[5][0] - sizes[50][0]) <= 16
    assert sizes[5][1] == sizes[50][1]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"clip": 3.0}, "clip"),
        ({"input_forget": 1}, "coupled"),
        ({"activations": ["ScaledTanh", "Tanh", "Tanh"]}, "'ScaledTanh'"),
    ],
)
def test_what_is_not_supported_is_named(attributes: dict[str, Any], message: str) -> None:
    model = Model("LSTM", 0, direction="forward")
    model.attributes = {"hidden_size": model.units, "direction": "forward"} | attributes
    with pytest.raises(UnsupportedError, match=message) as caught:
        import_onnx(model.proto(["Y"]), "recurrent")
    assert "layer 'layer' (LSTM)" in str(caught.value)
