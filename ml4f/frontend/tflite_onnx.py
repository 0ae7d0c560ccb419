"""TensorFlow Lite models as ONNX models: `tflite_to_onnx`. `tflite_layers` lists a function for each operator."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.keras_builder import GraphBuilder, LayerContext, Refused, Value
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_weights import StoredTensor
from ml4f.frontend.tflite_file import TfliteFile, TfliteOperator, read_tflite


class _NoWeights:
    """Operators have their weights as operands."""

    by_place = False

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        return []


@dataclass(frozen=True)
class Spread:
    """`x` [1, …] padded, whose elements SPACE_TO_BATCH_ND dealt out to a batch: a convolution on it is dilated.

    `axes`: those of x that were dealt out, in blocks of `blocks`; other axes may have come in between since.
    """

    x: Value
    axes: tuple[int, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Joined:
    """Pieces one behind the other along the first axis: what a loop has collected of its steps."""

    pieces: tuple[Value | np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (sum(piece.shape[0] for piece in self.pieces), *self.pieces[0].shape[1:])


Operand = Value | np.ndarray | Spread | Joined


@dataclass(eq=False)
class OperatorContext(LayerContext):
    """What an operator's function works with besides: the operator and its operands; None is one that is left out."""

    operator: TfliteOperator = field(kw_only=True)
    operands: list[Operand | None] = field(kw_only=True)
    types: tuple[type[np.generic] | None, ...] = field(kw_only=True, default=())
    """Of the results' elements in TensorFlow Lite; None for those that are not known."""
    looped: bool = field(kw_only=True, default=False)
    """Whether the operator is in a loop."""

    def value(self, index: int) -> Value:
        """A computed operand."""
        found = self.operands[index] if index < len(self.operands) else None
        if isinstance(found, Joined):
            made = self.operands[index] = self.emit("Concat", found.pieces, found.shape, axis=0)
            return made
        if isinstance(found, Spread):
            raise Refused("its input was spread over a batch, and it is no convolution")
        if not isinstance(found, Value):
            raise Refused(f"its operand {index} must be computed")
        return found

    def either(self, index: int) -> Value | np.ndarray:
        """An operand, computed or constant."""
        found = self.operands[index] if index < len(self.operands) else None
        return found if isinstance(found, np.ndarray) else self.value(index)

    def constant(self, index: int) -> np.ndarray:
        """An operand that must be known."""
        found = self.operands[index] if index < len(self.operands) else None
        if not isinstance(found, np.ndarray):
            raise Refused(f"its operand {index} must be a constant")
        return found

    def optional(self, index: int) -> np.ndarray | None:
        """A constant that may be left out."""
        if index >= len(self.operands) or self.operands[index] is None:
            return None
        return self.constant(index)

    def whole_numbers(self, index: int) -> list[int]:
        """A constant list of integers, or one as a list."""
        return [int(n) for n in np.ravel(self.constant(index))]


Translation = Callable[[OperatorContext], Operand | list[Operand]]
"""A function that emits an operator's ONNX nodes and returns its results."""


def check_image(x: Value) -> None:
    """Refuses what is not one image."""
    if x.rank != 4 or x.shape[0] != 1:
        raise Refused(f"the input {list(x.shape)} should be [1, height, width, channels]")


def tflite_to_onnx(data: bytes, subject: str) -> tuple[onnx.ModelProto, list[str]]:
    """The model, and remarks for the user. Raises UnsupportedError with every operator that is not supported."""
    file = read_tflite(data, subject)
    return _Translation(file, subject).run(), file.notes


class _Translation:
    def __init__(self, file: TfliteFile, subject: str):
        self.file = file
        self.subject = subject
        self.builder = GraphBuilder()
        self.values = _constants(file)
        """By the tensor's number; None behind an operator that is not supported."""
        self.problems: dict[str, None] = {}

    def run(self) -> onnx.ModelProto:
        inputs = []
        for index in self.file.inputs:
            tensor = self.file.tensors[index]
            if not tensor.shape or min(tensor.shape) < 1:
                raise Ml4fError(f"{self.subject}: input '{tensor.name}' has the shape {list(tensor.shape)}; fix it")
            value = Value(self.builder.unique(_short(tensor.name)), tensor.shape)
            inputs.append(value)
            self.values[index] = value
            if tensor.stored == "BOOL":  # ones and zeros
                self.values[index] = self.cast(value, onnx.TensorProto.BOOL)
        self.execute(self.file, self.values, looped=False)
        if self.problems:
            raise UnsupportedError(self.subject, list(self.problems))
        outputs = [self.output(index, inputs) for index in self.file.outputs]
        return self.builder.model("model", inputs, outputs)

    def output(self, index: int, inputs: list[Value]) -> Value:
        found = self.values.get(index)
        if isinstance(found, Joined):
            layer = Layer("output", "CONCATENATION", {}, "", False, ("output",), "", 3)
            found = LayerContext(self.builder, layer, _NoWeights(), self.subject, self.file.notes).emit(
                "Concat", found.pieces, found.shape, axis=0
            )
        name = self.file.tensors[index].name
        if not isinstance(found, Value):
            raise Ml4fError(
                f"{self.subject}: the output '{name}' does not depend on the input, or is computed by nothing"
            )
        if self.builder.type_of(found) != onnx.TensorProto.FLOAT:
            return self.cast(found, onnx.TensorProto.FLOAT)
        if found in inputs:
            return self.builder.node("Identity", [found.name], "output", found.shape, "output", "Identity", {})
        return found

    def cast(self, x: Value, to: int) -> Value:
        """At the model's ends, which are floats."""
        return self.builder.node("Cast", [x.name], f"{x.name}/cast", x.shape, x.name, "CAST", {"to": to})

    def execute(self, graph: TfliteFile, values: dict[int, Operand | None], looped: bool) -> None:
        """Translate a graph's operators one after the other; `values`: what is known, to which results are added."""
        for operator in graph.operators:
            results = self.operator(operator, graph, values, looped)
            values.update(zip(operator.outputs, results, strict=True))

    def operator(
        self, operator: TfliteOperator, graph: TfliteFile, values: dict[int, Operand | None], looped: bool
    ) -> list[Operand | None]:
        """Translate one operator; None for each output, and a problem, if that cannot be done."""
        from ml4f.frontend.tflite_layers import OPERATORS, REMEDIES, REMEDY

        nothing: list[Operand | None] = [None] * len(operator.outputs)
        name = _short(graph.tensors[operator.outputs[0]].name) if operator.outputs else operator.kind
        read = [i for i in operator.inputs if i >= 0]
        shapes = ", ".join(str(list(v.shape)) for i in read if isinstance(v := values.get(i), Value))
        label = f"layer '{name}' ({operator.kind}), input {shapes or 'unknown'}"
        translate = OPERATORS.get(operator.kind)
        if translate is None and operator.kind != "WHILE":
            remedy = REMEDIES.get(operator.kind, REMEDY)
            self.problems[f"{label}: there is no TensorFlow Lite operator {operator.kind} in ml4f; {remedy}"] = None
            return nothing
        if any(i in values and values[i] is None for i in read):
            return nothing
        layer = Layer(name, operator.kind, {}, "", False, (name,), "", 3)
        context = OperatorContext(
            self.builder,
            layer,
            _NoWeights(),
            self.subject,
            self.file.notes,
            operator=operator,
            operands=[values.get(i) if i >= 0 else None for i in operator.inputs],
            types=tuple(ELEMENTS.get(graph.tensors[i].stored) for i in operator.outputs),
            looped=looped,
        )
        try:
            if translate is None:
                return self.loop(operator, context)
            made = translate(context)
            results = list(made) if isinstance(made, list) else [made]
            if len(results) != len(operator.outputs):
                raise Refused(f"it has {len(operator.outputs)} outputs in the file, {len(results)} are known")
            return [*results]
        except Refused as problem:
            self.problems[f"{label}: {problem}"] = None
            return nothing
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise Ml4fError(
                f"{self.subject}: {label}: it is inconsistent ({detail}); convert the model again"
            ) from None

    def loop(self, operator: TfliteOperator, c: OperatorContext) -> list[Operand | None]:
        """WHILE, one turn behind the other: the number of turns must be known. Recurrent layers become such loops."""
        condition = self.file.inner[operator.option("CondSubgraphIndex", 0)]
        body = self.file.inner[operator.option("BodySubgraphIndex", 0)]
        state = [self.carried(operand) for operand in c.operands]
        for _ in range(MAX_TURNS + 1):
            (verdict,) = self.turn(condition, state)
            if verdict is None:
                return [None] * len(operator.outputs)
            if not isinstance(verdict, np.ndarray):
                raise Refused(f"a loop whose number of turns is computed; {KERAS}")
            if not verdict.all():
                return state
            state = self.turn(body, state)
            if any(operand is None for operand in state):
                return [None] * len(operator.outputs)
        raise Refused(f"a loop of more than {MAX_TURNS} turns, each of which would have code of its own; {KERAS}")

    def turn(self, graph: TfliteFile, state: Sequence[Operand | None]) -> list[Operand | None]:
        """What a graph makes of its inputs."""
        values = _constants(graph) | dict(zip(graph.inputs, state, strict=True))
        self.execute(graph, values, looped=True)
        return [values.get(index) for index in graph.outputs]

    def carried(self, operand: Operand | None) -> Operand | None:
        """What a loop begins with; floats, which its operators compute with, as an initializer."""
        if isinstance(operand, np.ndarray) and operand.dtype == np.float32 and operand.ndim:
            return Value(self.builder.constant(operand, "initial"), operand.shape)
        return operand


def _constants(graph: TfliteFile) -> dict[int, Operand | None]:
    return {i: t.values for i, t in enumerate(graph.tensors) if t.values is not None}


ELEMENTS: dict[str, type[np.generic]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float32,
    "FLOAT64": np.float32,
    "BOOL": np.bool_,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
"""Types of TensorFlow Lite's elements, floats as what they become."""
MAX_TURNS = 64
"""Of a loop."""
KERAS = "give the Keras model (.keras or .h5), whose recurrent layers stay loops"


def _short(name: str) -> str:
    """Converters join the names of all that they fused by semicolons."""
    return name.split(";")[0] or "tensor"
