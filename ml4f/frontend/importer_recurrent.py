"""Handlers of LSTM, GRU and RNN: a recurrent operation for each sequence of a batch and each direction.

The operations of one direction have equal nests, which become kernels called once for every sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, UnitAttr, f32, f64, i64
from xdsl.ir import Attribute, SSAValue

from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RecurrentOp, RnnOp
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_batches import MOST_IMAGES
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import NotSupported, Tensor

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
    """What one direction makes of one sequence: rows of units, one for every step in front if they are wanted."""

    value: SSAValue
    backwards: bool
    steps: int


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
        shape = importer.shape(self.inputs[0])
        if len(shape) != 3:
            raise NotSupported("the input has three dimensions: steps, batch, features")
        self.steps, self.batch = (shape[1], shape[0]) if self.batch_first else shape[:2]
        if self.batch > MOST_IMAGES:
            raise NotSupported(f"a batch of {self.batch}; at most {MOST_IMAGES} sequences are supported")

    def run(self) -> None:
        sequences = self.sequences()
        weights = [self.constant(index) for index in (1, 2)]
        units = weights[1].shape[-1]
        gates = self.kind.GATES
        if [w.shape[:2] for w in weights] != [(len(self.backwards), gates * units)] * 2:
            raise NotSupported(f"weights {list(weights[0].shape)} and {list(weights[1].shape)} do not fit each other")
        activations = self.activations()
        results = []
        for index, backwards in enumerate(self.backwards):
            row = []
            for number, x in enumerate(sequences):
                made = self.direction(x, (index, number), units, weights, activations[index])
                row.append(_Result(made, backwards, nn.shape_of(x)[0]))
            results.append(row)
        self.finish(results, units)

    # Inputs

    def sequences(self) -> list[SSAValue]:
        """Each sequence as [its steps, inputs]."""
        if self.node.get("clip") is not None:
            raise NotSupported("the attribute clip; export the model without it")
        if self.node.get("input_forget", 0):
            raise NotSupported("coupled input and forget gates")
        x = self.importer.in_order(self.importer.tensor(self.inputs[0]))
        features = x.shape[2]
        if self.batch_first:
            rows = self.importer.reshaped(x.value, (self.batch * self.steps, features))
            return [
                self.part(rows, (self.steps * number, 0), (length, features))
                for number, length in enumerate(self.lengths())
            ]
        rows = self.importer.reshaped(x.value, (self.steps, self.batch * features))
        return [
            self.part(rows, (0, features * number), (length, features)) for number, length in enumerate(self.lengths())
        ]

    def lengths(self) -> list[int]:
        """Of each sequence."""
        if not self.inputs[4]:
            return [self.steps] * self.batch
        known = self.importer.const(self.inputs[4])
        if known is None:
            raise NotSupported("sequence_lens that are computed; leave them out")
        found = [int(n) for n in np.ravel(known)]
        if len(found) != self.batch or not all(1 <= n <= self.steps for n in found):
            raise NotSupported(f"sequence_lens {found} for {self.batch} sequences of {self.steps} steps")
        return found

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

    def state(self, index: int, place: tuple[int, int], units: int) -> SSAValue:
        """The initial state of a direction and a sequence; zeros if it is left out."""
        name = self.inputs[index]
        if not name:
            return self.importer.constant(np.zeros(units, np.float32))
        if prod(self.importer.shape(name)) != len(self.backwards) * self.batch * units:
            raise NotSupported(f"an initial state {list(self.importer.shape(name))} for {units} units")
        direction, number = place
        count = len(self.backwards)
        row = number * count + direction if self.batch_first else direction * self.batch + number
        if name in self.importer.constants:
            return self.importer.constant(self.importer.constants[name].reshape(-1, units)[row])
        tensor = self.importer.in_order(self.importer.tensor(name))
        value = self.importer.reshaped(tensor.value, (count * self.batch, units))
        return self.importer.reshaped(self.part(value, (row, 0), (1, units)), (units,))

    # Emitting

    def direction(
        self, x: SSAValue, place: tuple[int, int], units: int, weights: list[np.ndarray], activations: list[ActAttr]
    ) -> SSAValue:
        """The operation of one direction on one sequence; `place`: their numbers."""
        index = place[0]
        gates, kind = self.kind.GATES, self.kind
        width = gates * units
        biases = self.constant(3)[index] if self.inputs[3] else np.zeros(2 * width, np.float32)
        bias = biases[:width] + biases[width:]
        properties: dict[str, Attribute | None] = {"activations": ArrayAttr(activations)}
        operands: list[np.ndarray | SSAValue] = [weights[0][index].T, weights[1][index].T, bias]
        operands.append(self.state(5, place, units))
        if kind is LstmOp:
            operands.append(self.state(6, place, units))
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

    def part(self, value: SSAValue, start: tuple[int, int], sizes: tuple[int, int]) -> SSAValue:
        """A rectangle of a matrix."""
        if sizes == nn.shape_of(value):
            return value
        where = {"start": start, "strides": (1, 1), "sizes": sizes}
        return self.importer.emit(nn.SliceOp, [value], sizes, **{key: numbers(values) for key, values in where.items()})

    def rows(self, result: _Result, start: int, count: int) -> SSAValue:
        """Some rows of a result."""
        return self.part(result.value, (start, 0), (count, nn.shape_of(result.value)[1]))

    def whole(self, result: _Result) -> SSAValue:
        """The rows of all steps, zeros behind the end of the sequence."""
        value, units = self.rows(result, 0, result.steps), nn.shape_of(result.value)[1]
        if result.steps == self.steps:
            return value
        high = (self.steps - result.steps, 0)
        properties = {"low": numbers((0, 0)), "high": numbers(high), "value": FloatAttr(0.0, f32)}
        return self.importer.emit(nn.PadOp, [value], (self.steps, units), **properties)

    def finish(self, results: list[list[_Result]], units: int) -> None:
        """Y, Y_h and Y_c from the rows of each direction and sequence."""
        count, batch = len(results), self.batch
        if self.y and self.batch_first:
            sequences = [self.joined([self.whole(row[n]) for row in results], 1) for n in range(batch)]
            self.name(self.y, self.joined(sequences, 0), (batch, self.steps, count, units))
        elif self.y:
            sequences = [self.whole(result) for row in results for result in row]
            self.name(self.y, self.joined(sequences, 1), (self.steps, count, batch, units))
        shape = (batch, count, units) if self.batch_first else (count, batch, units)
        ordered = [result for row in results for result in row]
        if self.batch_first:
            ordered = [row[n] for n in range(batch) for row in results]
        if self.y_h:
            last = [self.rows(r, 0 if not self.y or r.backwards else r.steps - 1, 1) for r in ordered]
            self.name(self.y_h, self.joined(last, 0), shape)
        if self.y_c:
            cells = [self.rows(r, nn.shape_of(r.value)[0] - 1, 1) for r in ordered]
            self.name(self.y_c, self.joined(cells, 0), shape)

    def joined(self, values: list[SSAValue], axis: int) -> SSAValue:
        """Matrices side by side, or one below the other."""
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
