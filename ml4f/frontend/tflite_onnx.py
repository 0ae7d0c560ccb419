"""TensorFlow Lite models as ONNX models: `tflite_to_onnx`. `tflite_layers` lists a function for each operator."""

from __future__ import annotations

import struct
from collections.abc import Callable
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


Operand = Value | np.ndarray | Spread


@dataclass(eq=False)
class OperatorContext(LayerContext):
    """What an operator's function works with besides: the operator and its operands; None is one that is left out."""

    operator: TfliteOperator = field(kw_only=True)
    operands: list[Operand | None] = field(kw_only=True)

    def value(self, index: int) -> Value:
        """A computed operand."""
        found = self.operands[index] if index < len(self.operands) else None
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
        self.values: dict[int, Operand | None] = {
            i: t.values for i, t in enumerate(file.tensors) if t.values is not None
        }
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
        for operator in self.file.operators:
            results = self.operator(operator)
            self.values.update(zip(operator.outputs, results, strict=True))
        if self.problems:
            raise UnsupportedError(self.subject, list(self.problems))
        outputs = [self.output(index, inputs) for index in self.file.outputs]
        return self.builder.model("model", inputs, outputs)

    def output(self, index: int, inputs: list[Value]) -> Value:
        found = self.values.get(index)
        name = self.file.tensors[index].name
        if not isinstance(found, Value):
            raise Ml4fError(
                f"{self.subject}: the output '{name}' does not depend on the input, or is computed by nothing"
            )
        if found in inputs:
            return self.builder.node("Identity", [found.name], "output", found.shape, "output", "Identity", {})
        return found

    def operator(self, operator: TfliteOperator) -> list[Operand | None]:
        """Translate one operator; None for each output, and a problem, if that cannot be done."""
        from ml4f.frontend.tflite_layers import OPERATORS

        nothing: list[Operand | None] = [None] * len(operator.outputs)
        name = _short(self.file.tensors[operator.outputs[0]].name) if operator.outputs else operator.kind
        read = [i for i in operator.inputs if i >= 0]
        shapes = ", ".join(str(list(v.shape)) for i in read if isinstance(v := self.values.get(i), Value))
        label = f"layer '{name}' ({operator.kind}), input {shapes or 'unknown'}"
        translate = OPERATORS.get(operator.kind)
        if translate is None:
            self.problems[f"{label}: there is no TensorFlow Lite operator {operator.kind} in ml4f"] = None
            return nothing
        if any(i in self.values and self.values[i] is None for i in read):
            return nothing
        layer = Layer(name, operator.kind, {}, "", False, (name,), "", 3)
        context = OperatorContext(
            self.builder,
            layer,
            _NoWeights(),
            self.subject,
            self.file.notes,
            operator=operator,
            operands=[self.values.get(i) if i >= 0 else None for i in operator.inputs],
        )
        try:
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


def _short(name: str) -> str:
    """Converters join the names of all that they fused by semicolons."""
    return name.split(";")[0] or "tensor"
