"""Recognises LSTM, GRU and simple RNN layers that an exporter has written as Loop: `recurrent_layer`.

The shape of the body differs from exporter to exporter, what it computes does not: the weights among its constants are
found by their shapes, and a guess is taken if it gives the Loop's results on random sequences. What is not recognised
is imported iteration by iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_recurrent import OPERATIONS
from ml4f.frontend.keras_layers_recurrent import LSTM_ORDER
from ml4f.reference import Reference

TRIALS = 2
TOLERANCE = 1e-4
"""Between the results of a Loop and those of a guess, which lie between -1 and 1 or are compared relatively."""
SQUASHING = {"Sigmoid": ("Sigmoid", ()), "HardSigmoid": ("HardSigmoid", (0.2, 0.5)), "Tanh": ("Tanh", ())}
OTHERS = {"Relu": ("Relu", ()), "Softsign": ("Softsign", ()), "Softplus": ("Softplus", ()), "Elu": ("Elu", (1.0,))}
LINEAR = ("Affine", (1.0, 0.0))
MOVES = {"Cast", "Concat", "Constant", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
SUMS = {"Add", "Gemm", "MatMul", "Mul", "Sub", "Unsqueeze"}
COMPARISONS = {"And", "Less"}
HARMLESS = MOVES | SUMS | COMPARISONS | set(SQUASHING) | set(OTHERS)
"""What a body may be made of: nothing with a limit that random sequences may not reach, like Clip or Where."""
Activation = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class LoopParts:
    """A Loop: its body, the names of its initial states, how many iterations it may have."""

    node: Node
    body: onnx.GraphProto
    states: Sequence[str]
    trips: int


@dataclass(frozen=True)
class Guess:
    """A recurrent operator with its constants; `order`: which of the Loop's states is h, and which is c."""

    kind: str
    order: tuple[int, ...]
    constants: dict[str, np.ndarray]
    attributes: dict[str, Any]


def recurrent_layer(importer: Importer, parts: LoopParts) -> bool:
    """Imports a Loop as a recurrent operator if it is one."""
    found = _sequence(importer, parts)
    if found is None:
        return False
    sequence, states = found
    probe = _Probe(importer, parts, sequence, states)
    for guess in _guesses(importer, parts, sequence, states):
        if probe.agrees(guess):
            _emit(importer, parts, sequence, states, guess)
            return True
    return False


def _sequence(importer: Importer, parts: LoopParts) -> tuple[str, list[int]] | None:
    """The one computed tensor that the body reads besides its states, [steps, 1, features], and the float states."""
    defined = {entry.name for entry in parts.body.input} | {o for node in parts.body.node for o in node.output}
    read = {name for node in parts.body.node for name in node.input} | {entry.name for entry in parts.body.output}
    computed = sorted(name for name in read - defined if name in importer.tensors)
    states = [
        index
        for index, (name, inside, outside) in enumerate(
            zip(parts.states, parts.body.input[2:], parts.body.output[1:], strict=False)
        )
        if inside.name != outside.name and not _is_integer(importer, name)
    ]
    if len(computed) != 1 or len(states) not in (1, 2) or not _is_smooth(parts.body):
        return None
    for index, (inside, outside) in enumerate(zip(parts.body.input[2:], parts.body.output[1:], strict=False)):
        counts = inside.name != outside.name and index not in states
        if counts and index < len(parts.node.proto.output) and importer.is_read(parts.node.proto.output[index]):
            return None  # the last value of a counter is no result of a recurrent layer
    shapes = {importer.shape(parts.states[index]) for index in states}
    shape = importer.shape(computed[0])
    if len(shapes) != 1 or len(shape) != 3 or shape[:2] != (parts.trips, 1):
        return None
    (state,) = shapes
    return (computed[0], states) if len(state) == 2 and state[0] == 1 else None


def _is_smooth(body: onnx.GraphProto) -> bool:
    """Whether what holds on random sequences holds on all: only harmless operators, comparisons only for the end."""
    compared = {output for node in body.node if node.op_type in COMPARISONS for output in node.output}
    return all(
        node.op_type in HARMLESS
        and (node.op_type in {*COMPARISONS, "Identity"} or not any(name in compared for name in node.input))
        for node in body.node
    )


def _is_integer(importer: Importer, name: str) -> bool:
    value = importer.const(name)
    return value is not None and value.dtype.kind in "iub"


def _guesses(importer: Importer, parts: LoopParts, sequence: str, states: list[int]) -> Iterator[Guess]:
    """Every operator whose weights may be those constants of the body that have the right shapes."""
    units, features = importer.shape(parts.states[states[0]])[1], importer.shape(sequence)[2]
    names = {name for node in parts.body.node for name in node.input} | set(parts.states)
    own = {entry.name: numpy_helper.to_array(entry) for entry in parts.body.initializer}
    arrays = [own.get(name, importer.const(name)) for name in sorted(names)]
    floats = [a for a in arrays if a is not None and a.dtype.kind == "f" and a.ndim]
    for kind in ("LSTM",) if len(states) == 2 else ("GRU", "RNN"):
        width = OPERATIONS[kind][0].GATES * units
        kernels = [a for a in floats if a.shape == (features, width)]
        recurrent = [a for a in floats if a.shape == (units, width)]
        biases = [a for a in floats if a.shape in ((width,), (2, width))]
        for w, r in product(kernels, recurrent):
            if w is r:
                continue
            for bias in [*biases, None]:
                for order in ((0, 1), (1, 0)) if len(states) == 2 else ((0,),):
                    yield from _with_activations(parts, kind, order, w, r, bias)


def _with_activations(
    parts: LoopParts, kind: str, order: tuple[int, ...], w: np.ndarray, r: np.ndarray, bias: np.ndarray | None
) -> Iterator[Guess]:
    present = {node.op_type for node in parts.body.node}
    squashing: list[Activation] = [a for name, a in SQUASHING.items() if name in present]
    others: list[Activation] = [*squashing[::-1], *(a for name, a in OTHERS.items() if name in present), LINEAR]
    both = np.zeros((2, w.shape[1]), np.float32)
    if bias is not None:
        both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    gates = LSTM_ORDER if kind == "LSTM" else tuple(range(OPERATIONS[kind][0].GATES))

    def arranged(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.split(array, len(gates), axis=-1)[i] for i in gates], axis=-1).astype(np.float32)

    constants = {
        "W": np.ascontiguousarray(arranged(w).T)[None],
        "R": np.ascontiguousarray(arranged(r).T)[None],
        "B": arranged(both).reshape(1, -1),
    }
    for gate, act in product(squashing or [LINEAR], others) if kind != "RNN" else ((None, a) for a in others):
        chosen = [*([gate] if gate else []), act, *([act] if kind == "LSTM" else [])]
        attributes: dict[str, Any] = {"hidden_size": r.shape[0], "activations": [name for name, _ in chosen]}
        alpha, beta = ([v[i] for _, v in chosen if len(v) > i] for i in (0, 1))
        attributes |= {key: v for key, v in (("activation_alpha", alpha), ("activation_beta", beta)) if v}
        for after in (1, 0) if kind == "GRU" else (None,):
            more = {} if after is None else {"linear_before_reset": after}
            yield Guess(kind, order, constants, {**attributes, **more})


class _Probe:
    """Compares guesses with a Loop on random sequences and states."""

    def __init__(self, importer: Importer, parts: LoopParts, sequence: str, states: list[int]):
        self.parts = parts
        self.states = states
        self.shape = importer.shape(sequence)
        self.opset = importer.opset
        self.state_names = [f"state{index}" for index in range(len(states))]
        loop = onnx.NodeProto()
        loop.CopyFrom(parts.node.proto)
        for index, name in zip(states, self.state_names, strict=True):
            loop.input[2 + index] = name
        loop.output[:] = [f"result{index}" for index in range(len(parts.body.output) - 1)]
        self.results = [*states, *range(len(parts.states), len(loop.output))]
        known = set(loop.input) | {name for node in parts.body.node for name in node.input}
        known |= {entry.name for entry in parts.body.output}
        constants = {name: importer.constants[name] for name in known if name in importer.constants}
        outputs = [f"result{index}" for index in self.results]
        self.state_shape = importer.shape(parts.states[states[0]])
        random = np.random.default_rng(0)
        self.inputs = [
            [random.standard_normal(self.shape), *(random.uniform(-0.9, 0.9, self.state_shape) for _ in states)]
            for _ in range(TRIALS)
        ]
        self.wanted = self._run([loop], constants, sequence, outputs)

    def _run(
        self, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], sequence: str, outputs: list[str]
    ) -> list[list[np.ndarray]] | None:
        kind = onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(sequence, kind, self.shape)]
        inputs += [helper.make_tensor_value_info(name, kind, self.state_shape) for name in self.state_names]
        graph = helper.make_graph(
            nodes,
            "probe",
            inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = min(model.ir_version, 10)
        try:
            reference = Reference(model)
            runs = [reference.run([x.astype(np.float32) for x in given]) for given in self.inputs]
        except Exception:  # whatever an evaluator makes of a guess that is wrong, or of a Loop that it does not know
            return None
        return [[np.asarray(run[name]) for name in outputs] for run in runs]

    def agrees(self, guess: Guess) -> bool:
        """Whether a guess has the Loop's results: the last states, and h of all steps as each further result."""
        if self.wanted is None:
            return False
        nodes, outputs = _nodes("x", self.state_names, guess, self.state_shape, "")
        found = self._run(nodes, {**guess.constants, **_shapes(self.state_shape, self.shape)}, "x", outputs)
        if found is None:
            return False
        rows = len(self.results) - len(self.states)
        for wanted, (sequence, *last) in zip(self.wanted, found, strict=True):
            given = [last[guess.order.index(k)] for k in range(len(self.states))] + [sequence] * rows
            for a, b in zip(wanted, given, strict=True):
                if a.shape != b.shape or not np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
                    return False
        return True


def _shapes(state: Sequence[int], sequence: Sequence[int]) -> dict[str, np.ndarray]:
    return {
        "state_in": np.array([1, *state], dtype=np.int64),
        "state_out": np.array(state, dtype=np.int64),
        "rows_out": np.array([sequence[0], *state], dtype=np.int64),
    }


def _nodes(
    x: str, states: Sequence[str], guess: Guess, shape: Sequence[int], scope: str
) -> tuple[list[onnx.NodeProto], list[str]]:
    """The operator with Reshapes around it; the names of h of all steps and of the last states, h first."""
    nodes: list[onnx.NodeProto] = []

    def reshaped(name: str, to: str, made: str) -> str:
        nodes.append(helper.make_node("Reshape", [name, scope + to], [scope + made]))
        return scope + made

    given = [reshaped(states[k], "state_in", f"initial{k}") for k in guess.order]
    raw = [scope + name for name in ("Y", "Y_h", "Y_c")[: 1 + len(states)]]
    operands = [x, *(scope + name for name in ("W", "R", "B")), "", *given]
    nodes.append(helper.make_node(guess.kind, operands, raw, **guess.attributes))
    outputs = [reshaped(raw[0], "rows_out", "rows")]
    outputs += [reshaped(name, "state_out", f"last{k}") for k, name in enumerate(raw[1:])]
    return nodes, outputs


def _emit(importer: Importer, parts: LoopParts, sequence: str, states: list[int], guess: Guess) -> None:
    scope = f"{parts.node.layer}#"
    shape = importer.shape(parts.states[states[0]])
    for name, array in {**guess.constants, **_shapes(shape, importer.shape(sequence))}.items():
        importer.constants[scope + name] = array
    nodes, outputs = _nodes(sequence, [parts.states[k] for k in states], guess, shape, scope)
    results = dict(enumerate(parts.states)) | {states[k]: outputs[1 + guess.order.index(k)] for k in range(len(states))}
    results |= dict.fromkeys(range(len(parts.states), len(parts.body.output) - 1), outputs[0])
    used = {results[k] for k, name in enumerate(parts.node.proto.output) if importer.is_read(name)}
    needed = [
        node for node in nodes if node.op_type != "Reshape" or node.output[0] in used or node.input[0] in parts.states
    ]
    importer.read.update(name for node in needed for name in node.input)
    for index, node in enumerate(needed):
        node.name = parts.node.layer
        importer.visit_within(Node(node, index, importer.opset))
    for k, output in enumerate(parts.node.proto.output):
        if importer.is_read(output):
            importer.alias(output, results[k])
