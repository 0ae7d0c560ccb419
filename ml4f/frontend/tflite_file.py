"""TensorFlow Lite files as plain data: tensors, constants as float32 or integers, operators with their options.

The schema is that of the package `tflite`. Knows no operator; `tflite_onnx` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.guards import MAX_NODES, Budget, checked_shape, parser_errors

FLOATS = {"FLOAT32": "<f4", "FLOAT16": "<f2", "FLOAT64": "<f8"}
INTEGERS = {"INT32": "<i4", "INT64": "<i8", "BOOL": "|b1", "INT16": "<i2", "UINT8": "|u1", "INT8": "|i1"}
"""Element types of constants, as numpy calls them."""
HYBRID = "weights stored as int8 are converted to float32; TensorFlow Lite also rounds what they are multiplied with"


ABSENT = -1
"""The number of an input that an operator does without."""


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """`values`: of a constant; numbers that were stored as float16 or quantised are float32. `stored`: the type."""

    name: str
    shape: tuple[int, ...]
    stored: str
    values: np.ndarray | None


@dataclass(frozen=True, eq=False)
class TfliteOperator:
    """One operator; `options` has methods that are called like the schema's fields, None if there are none."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    def option(self, name: str, default: Any) -> Any:
        """A field of the options."""
        return default if self.options is None else getattr(self.options, name)()


@dataclass(eq=False)
class TfliteFile:
    """A subgraph; operators are in an order in which they can be executed.

    `inner`: of the main one, those that its operators execute, by their numbers.
    """

    tensors: list[TfliteTensor] = field(default_factory=list)
    operators: list[TfliteOperator] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)
    inner: dict[int, TfliteFile] = field(default_factory=dict)


def read_tflite(data: bytes, name: str) -> TfliteFile:
    """A .tflite file with float inputs and outputs. Raises Ml4fError for damaged files, UnsupportedError for int8."""
    try:
        import tflite
    except ImportError:
        raise Ml4fError(
            f"{name}: TensorFlow Lite files need the package tflite: pip install 'ml4f[tflite]' (or pip install tflite)"
        ) from None
    with parser_errors(name, "the TensorFlow Lite file"):
        return _Reader(tflite, data, name).run()


class _Reader:
    def __init__(self, schema: Any, data: bytes, name: str):
        self.schema = schema
        self.name = name
        self.model = schema.Model.GetRootAsModel(data, 0)
        self.kinds = _names(schema.BuiltinOperator)
        self.types = _names(schema.TensorType)
        self.budget = Budget(name)
        self.file = TfliteFile()
        self.nodes = 0

    def run(self) -> TfliteFile:
        if not self.model.SubgraphsLength():
            raise Ml4fError(f"{self.name}: the TensorFlow Lite file holds no graph; convert the model again")
        self.check_ends(self.model.Subgraphs(0))
        self.read(0, self.file)
        return self.file

    def read(self, index: int, into: TfliteFile) -> None:
        """A subgraph, and those that its loops execute."""
        graph = self.model.Subgraphs(index)
        self.nodes += max(graph.TensorsLength(), graph.OperatorsLength())
        if self.nodes > MAX_NODES:
            raise Ml4fError(f"{self.name}: the model has more than {MAX_NODES} operators")
        into.inputs, into.outputs = self.ends(graph)
        into.tensors = [self.tensor(graph.Tensors(i)) for i in range(graph.TensorsLength())]
        into.operators = [self.operator(graph.Operators(i), into.tensors) for i in range(graph.OperatorsLength())]
        for operator in into.operators:
            if operator.kind != "WHILE":
                continue
            for number in (operator.option("CondSubgraphIndex", 0), operator.option("BodySubgraphIndex", 0)):
                if not 0 < number < self.model.SubgraphsLength():
                    raise Ml4fError(f"{self.name}: a loop executes graph {number}, which does not exist; convert again")
                if number not in self.file.inner:
                    self.file.inner[number] = TfliteFile()
                    self.read(number, self.file.inner[number])

    def ends(self, graph: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The numbers of a graph's inputs and outputs."""
        inputs, outputs = _indices(graph.InputsAsNumpy()), _indices(graph.OutputsAsNumpy())
        if not all(0 <= index < graph.TensorsLength() for index in (*inputs, *outputs)):
            raise Ml4fError(
                f"{self.name}: its inputs or outputs are tensors that do not exist; convert the model again"
            )
        return inputs, outputs

    def check_ends(self, graph: Any) -> None:
        """Quantised models have integers with a scale at both ends, and in between.

        Other integers are indices, booleans masks.
        """
        problems = []
        for what, indices in zip(("input", "output"), self.ends(graph), strict=True):
            for index in indices:
                tensor = graph.Tensors(index)
                kind = self.types.get(tensor.Type(), "unknown")
                quantization = tensor.Quantization()
                scaled = quantization is not None and quantization.ScaleLength()
                if kind != "FLOAT32" and (scaled or kind not in ("INT32", "INT64", "BOOL")):
                    problems.append(f"{what} '{_text(tensor.Name())[:80]}' {_shape(tensor)} is {kind.lower()}")
        if problems:
            raise UnsupportedError(
                self.name,
                [
                    f"{'; '.join(problems)}: quantised TensorFlow Lite models are not supported; convert the model "
                    "without quantisation (no representative dataset), or give the Keras model"
                ],
            )

    def tensor(self, tensor: Any) -> TfliteTensor:
        name, kind = _text(tensor.Name()), self.types.get(tensor.Type(), "unknown")
        shape = checked_shape(_shape(tensor), self.name, f"'{name}'")
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer is None or not buffer.DataLength():
            return TfliteTensor(name, shape, kind, None)
        if tensor.Sparsity() is not None:
            raise Ml4fError(
                f"{self.name}: '{name}' {list(shape)} is stored as a sparse tensor; convert the model densely"
            )
        element = FLOATS.get(kind) or INTEGERS.get(kind)
        if element is None:
            raise Ml4fError(
                f"{self.name}: '{name}' {list(shape)} is stored as {kind}; only float weights are supported"
            )
        self.budget.spend(shape, max(4, np.dtype(element).itemsize), f"'{name}'")
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), element)
        if values.size != int(np.prod(shape, dtype=np.int64)):
            raise Ml4fError(
                f"{self.name}: '{name}' {list(shape)} has {values.size} elements in the file; convert it again"
            )
        return TfliteTensor(name, shape, kind, self.numbers(values.reshape(shape), tensor, kind, name))

    def numbers(self, values: np.ndarray, tensor: Any, kind: str, name: str) -> np.ndarray:
        """Floats as float32; quantised numbers as what they stand for."""
        quantization = tensor.Quantization()
        scaled = quantization is not None and quantization.ScaleLength() and kind in INTEGERS
        if scaled:
            values = _dequantised(values, quantization)
            self.note(HYBRID)
        elif kind in FLOATS:
            values = values.astype(np.float32)
            if kind != "FLOAT32":
                self.note(f"weights stored as {kind.lower()} are converted to float32")
        if values.dtype.kind == "f" and values.size > 1 and not np.isfinite(values).all():
            raise Ml4fError(
                f"{self.name}: the weights '{name}' {list(values.shape)} contain NaN or infinite values; the "
                "training has diverged, train the model again"
            )
        return values

    def note(self, text: str) -> None:
        if text not in self.file.notes:
            self.file.notes.append(text)

    def operator(self, operator: Any, tensors: Sequence[TfliteTensor]) -> TfliteOperator:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = self.kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
        if kind == "CUSTOM":
            kind = f"CUSTOM {_text(code.CustomCode())}"
        options, table = None, operator.BuiltinOptions()
        if table is not None:
            kinds = _names(self.schema.BuiltinOptions)
            options = getattr(self.schema, kinds.get(operator.BuiltinOptionsType(), ""), lambda: None)()
            if options is not None:
                options.Init(table.Bytes, table.Pos)
        inputs, outputs = _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy())
        for index in (*(i for i in inputs if i != ABSENT), *outputs):
            if not 0 <= index < len(tensors):
                raise Ml4fError(
                    f"{self.name}: {kind} reads tensor {index}, which does not exist; convert the model again"
                )
        return TfliteOperator(kind, inputs, outputs, options)


def _names(enumeration: Any) -> dict[int, str]:
    return {value: key for key, value in vars(enumeration).items() if isinstance(value, int)}


def _indices(values: Any) -> tuple[int, ...]:
    """An absent vector is 0."""
    return tuple(int(v) for v in values) if isinstance(values, np.ndarray) else ()


def _shape(tensor: Any) -> list[int]:
    return [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _dequantised(values: np.ndarray, quantization: Any) -> np.ndarray:
    """(stored - zero point) * scale, for the whole tensor or along one axis."""
    scale = np.asarray(quantization.ScaleAsNumpy(), dtype=np.float64)
    zero = quantization.ZeroPointAsNumpy()
    zero = np.asarray(zero, dtype=np.float64) if quantization.ZeroPointLength() else np.zeros_like(scale)
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[quantization.QuantizedDimension()] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32)
