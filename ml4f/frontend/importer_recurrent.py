"""Handlers of LSTM, GRU and RNN: a recurrent operation for each direction, on sequences with a batch of 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, UnitAttr, f64, i64
from xdsl.ir import Attribute, SSAValue

from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RecurrentOp, RnnOp
from ml4f.frontend.importer import Importer, Node, NotSupported, Tensor

OPERATIONS: dict[str, tuple[type[RecurrentOp], tuple[str, ...]]] = {
    "LSTM": (LstmOp, ("Sigmoid", "Tanh", "Tanh")),
    "GRU": (GruOp, ("Sigmoid", "Tanh")),
    "RNN": (RnnOp, ("Tanh",)),
}
"""ONNX operator → the nn operation, its activations unless told otherwise."""
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Whether each direction runs backwards."""
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "affine": ("linear", (1.0, 0.0)),
    "elu": ("elu", (1.0,)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "relu": ("relu", ()),
    "sigmoid": ("sigmoid", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "tanh": ("tanh", ()),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
}
"""ONNX's name in lower case → our name, default parameters (alpha, beta)."""


def recurrent(importer: Importer, node: Node) -> None:
    """LSTM, GRU or RNN."""
    _Recurrent(importer, node).run()


@dataclass(frozen=True)
class _Result:
    """One direction's result: rows of units, the whole sequence in front if it is wanted."""

    value: SSAValue
    backwards: bool


class _Recurrent:
    def __init__(self, importer: Importer, node: Node):
        self.importer = importer
        self.node = node
        self.kind, self.defaults = OPERATIONS[node.op_type]
        self.inputs = [*node.proto.input, *[""] * 8][:8]
        outputs = [name if importer.is_read(name) else "" for name in node.proto.output]
        self.y, self.y_h, self.y_c = [*outputs, "", "", ""][:3]
        direction = node.get("direction", "forward")
        if direction not in DIRECTIONS:
            raise NotSupported(f"the direction '{direction}'; forward, reverse and bidirectional exist")
        self.backwards = DIRECTIONS[direction]
        self.batch_first = bool(node.get("layout", 0))

    def run(self) -> None:
        x = self.sequence()
        weights = [self.constant(index) for index in (1, 2)]
        units = weights[1].shape[-1]
        gates = self.kind.GATES
        if [w.shape[:2] for w in weights] != [(len(self.backwards), gates * units)] * 2:
            raise NotSupported(f"weights {list(weights[0].shape)} and {list(weights[1].shape)} do not fit each other")
        activations = self.activations()
        results = []
        for index, backwards in enumerate(self.backwards):
            made = self.direction(x, index, units, weights, activations[index])
            results.append(_Result(made, backwards))
        self.finish(results, x, units)

    # Inputs

    def sequence(self) -> SSAValue:
        """x as [steps, inputs]."""
        x = self.importer.in_order(self.importer.tensor(self.inputs[0]))
        if len(x.shape) != 3:
            raise NotSupported("the input has three dimensions: steps, batch, features")
        steps, batch = (x.shape[1], x.shape[0]) if self.batch_first else x.shape[:2]
        if batch != 1:
            raise NotSupported(f"a batch of {batch}; export the model with a batch of 1")
        lengths = self.inputs[4]
        if lengths:
            known = self.importer.const(lengths)
            if known is None or np.any(known != steps):
                raise NotSupported("sequence_lens that are not the length of the input; leave them out")
        if self.node.get("clip") is not None:
            raise NotSupported("the attribute clip; export the model without it")
        if self.node.get("input_forget", 0):
            raise NotSupported("coupled input and forget gates")
        return self.importer.reshaped(x.value, (steps, x.shape[2]))

    def constant(self, index: int) -> np.ndarray:
        """An operand that must be a constant."""
        array = self.importer.const(self.inputs[index])
        if array is None:
            raise NotSupported(f"the operand '{self.inputs[index]}' must be a constant")
        return array

    def activations(self) -> list[list[ActAttr]]:
        """Of each direction; alpha and beta are lists of those that need one."""
        names = self.node.attributes.get("activations")
        default = [name.encode() for name in self.defaults] * len(self.backwards)
        parameters = [list(self.node.attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta")]
        found: list[ActAttr] = []
        for name in names or default:
            text = name.decode() if isinstance(name, bytes) else str(name)
            if text.lower() not in ACTIVATIONS:
                raise NotSupported(f"the activation '{text}'; there are {', '.join(sorted(ACTIVATIONS))}")
            function, values = ACTIVATIONS[text.lower()]
            given = [float(p.pop(0)) if p else value for p, value in zip(parameters, values, strict=False)]
            if function == "linear" and given != [1.0, 0.0]:
                raise NotSupported("the activation Affine but with alpha 1 and beta 0")
            found.append(ActAttr.of(function, () if function == "linear" else given))
        size = len(self.defaults)
        if len(found) != size * len(self.backwards):
            raise NotSupported(f"{len(found)} activations, {size} for each direction are needed")
        return [found[at : at + size] for at in range(0, len(found), size)]

    def state(self, index: int, direction: int, units: int) -> SSAValue:
        """An initial state; zeros if it is left out."""
        name = self.inputs[index]
        if not name:
            return self.importer.constant(np.zeros(units, np.float32))
        if name in self.importer.constants:
            array = self.importer.constants[name].reshape(len(self.backwards), units)
            return self.importer.constant(array[direction])
        tensor = self.importer.in_order(self.importer.tensor(name))
        if prod(tensor.shape) != len(self.backwards) * units:
            raise NotSupported(f"an initial state {list(tensor.shape)} for {units} units")
        value = self.importer.reshaped(tensor.value, (len(self.backwards), units))
        return self.importer.reshaped(self.rows(value, direction, 1), (units,))

    # Emitting

    def direction(
        self, x: SSAValue, index: int, units: int, weights: list[np.ndarray], activations: list[ActAttr]
    ) -> SSAValue:
        """The operation of one direction."""
        gates, kind = self.kind.GATES, self.kind
        width = gates * units
        biases = self.constant(3)[index] if self.inputs[3] else np.zeros(2 * width, np.float32)
        bias = biases[:width] + biases[width:]
        properties: dict[str, Attribute | None] = {"activations": ArrayAttr(activations)}
        operands: list[np.ndarray | SSAValue] = [weights[0][index].T, weights[1][index].T, bias]
        operands.append(self.state(5, index, units))
        if kind is LstmOp:
            operands.append(self.state(6, index, units))
            if self.inputs[7] and np.any(self.constant(7)[index]):
                operands.append(self.constant(7)[index])
            limit = node_metadata(self.node, "cell_clip")
            properties["cell_clip"] = FloatAttr(float(limit), f64) if limit else None
            properties["cell"] = UnitAttr() if self.y_c else None
        if kind is GruOp and self.node.get("linear_before_reset", 0):
            operands[2] = np.concatenate([bias[: 2 * units], biases[2 * units : width]])
            operands.append(biases[width + 2 * units :])
        properties["reverse"] = UnitAttr() if self.backwards[index] else None
        properties["sequence"] = UnitAttr() if self.y else None
        values = [self.importer.constant(v) if isinstance(v, np.ndarray) else v for v in operands]
        rows = (nn.shape_of(x)[0] if self.y else 1) + (kind is LstmOp and bool(self.y_c))
        return self.importer.emit(kind, [x, *values], (rows, units), **properties)

    def rows(self, value: SSAValue, start: int, count: int) -> SSAValue:
        """Some rows of a matrix."""
        shape = nn.shape_of(value)
        if (start, count) == (0, shape[0]):
            return value
        where = {"start": (start, 0), "strides": (1, 1), "sizes": (count, shape[1])}
        return self.importer.emit(
            nn.SliceOp, [value], (count, shape[1]), **{key: numbers(values) for key, values in where.items()}
        )

    def finish(self, results: list[_Result], x: SSAValue, units: int) -> None:
        """Y, Y_h and Y_c from the rows of each direction."""
        steps, count = nn.shape_of(x)[0], len(results)
        if self.y:
            sequences = [self.rows(result.value, 0, steps) for result in results]
            shape = (1, steps, count, units) if self.batch_first else (steps, count, 1, units)
            self.name(self.y, self.joined(sequences, 1), shape)
        shape = (1, count, units) if self.batch_first else (count, 1, units)
        if self.y_h:
            last = [self.rows(r.value, 0 if not self.y or r.backwards else steps - 1, 1) for r in results]
            self.name(self.y_h, self.joined(last, 0), shape)
        if self.y_c:
            cells = [self.rows(r.value, nn.shape_of(r.value)[0] - 1, 1) for r in results]
            self.name(self.y_c, self.joined(cells, 0), shape)

    def joined(self, values: list[SSAValue], axis: int) -> SSAValue:
        """The directions side by side."""
        if len(values) == 1:
            return values[0]
        shape = list(nn.shape_of(values[0]))
        shape[axis] *= len(values)
        return self.importer.emit(nn.ConcatOp, values, tuple(shape), axis=IntegerAttr(axis, i64))

    def name(self, name: str, value: SSAValue, shape: tuple[int, ...]) -> None:
        assert prod(shape) == prod(nn.shape_of(value))
        self.importer.result(name, Tensor(value, shape, tuple(range(len(shape)))))


def node_metadata(node: Node, key: str) -> str | None:
    """What a front end says about a node that ONNX has no attribute for."""
    return next((entry.value for entry in node.proto.metadata_props if entry.key == key), None)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = dict.fromkeys(OPERATIONS, recurrent)
