"""Elementwise operators of TensorFlow Lite in ONNX: arithmetic, comparisons, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ml4f.frontend.keras_builder import Refused, Shape, Value
from ml4f.frontend.tflite_activations import activated, clip
from ml4f.frontend.tflite_onnx import Operand, OperatorContext, Translation


def _unary(op_type: str, **attributes: Any) -> Translation:
    return lambda c: c.pointwise(op_type, c.value(0), **attributes)


def _binary(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        a, b = c.either(0), c.either(1)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return _FOLDED[op_type](a, b)
        made = c.binary(op_type, a, b)
        return activated(c, made) if hasattr(c.operator.options, "FusedActivationFunction") else made

    return translate


_FOLDED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": lambda a, b: a // b if a.dtype.kind == "i" else a / b,
    "Max": np.maximum,
    "Min": np.minimum,
    "Pow": np.power,
}
"""Of constants: shapes are computed with them."""


def _compared(op_type: str, negated: bool = False) -> Translation:
    def translate(c: OperatorContext) -> Value:
        operands = _as_floats([c.either(0), c.either(1)])
        shape = np.broadcast_shapes(*(v.shape for v in operands))
        made = _boolean(c, op_type, operands, shape)
        return _boolean(c, "Not", [made], shape) if negated else made

    return translate


def _as_floats(operands: Sequence[Value | np.ndarray]) -> list[Value | np.ndarray]:
    """Whole numbers as float32, which computed integers are, too."""
    return [v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype.kind in "iu" else v for v in operands]


def _logical(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Value:
        operands = [c.either(index) for index in range(len(c.operands))]
        return _boolean(c, op_type, operands, np.broadcast_shapes(*(v.shape for v in operands)))

    return translate


def _boolean(c: OperatorContext, op_type: str, operands: Sequence[Value | np.ndarray], shape: Shape) -> Value:
    """A node whose output is boolean, which the builder does not declare as float."""
    made = c.emit(op_type, list(operands), shape)
    del c.graph.shapes[made.name]
    return made


def _select(c: OperatorContext) -> Value:
    operands = [c.either(0), *_as_floats([c.either(1), c.either(2)])]
    shapes = [v.shape for v in operands]
    if len(shapes[0]) == 1 and len(shapes[1]) > 1:
        raise Refused("a condition for each element of the batch")
    return c.emit("Where", operands, np.broadcast_shapes(*shapes))


def _square(c: OperatorContext) -> Value:
    return c.binary("Mul", c.value(0), c.value(0))


def _squared_difference(c: OperatorContext) -> Value:
    difference = c.binary("Sub", c.either(0), c.either(1))
    return c.binary("Mul", difference, difference)


def _softmax(c: OperatorContext) -> Value:
    x, beta = c.value(0), c.operator.option("Beta", 1.0)
    x = x if beta in (0.0, 1.0) else c.binary("Mul", x, float(beta))
    return c.pointwise("Softmax", x, axis=-1)


def _l2_normalization(c: OperatorContext) -> Value:
    x = c.value(0)
    shape = (*x.shape[:-1], 1)
    total = c.emit("ReduceSum", [c.binary("Mul", x, x), np.array([x.rank - 1], dtype=np.int64)], shape, keepdims=1)
    return activated(c, c.binary("Div", x, c.pointwise("Sqrt", c.binary("Max", total, 1e-12))))


def _cast(c: OperatorContext) -> Operand:
    x = c.either(0)
    if isinstance(x, np.ndarray):
        return x
    if x.name not in c.graph.shapes and any(x.name in node.output for node in c.graph.nodes):
        return c.emit("Cast", [x], x.shape, to=1)
    return x


OPERATORS: dict[str, Translation] = {
    "ABS": _unary("Abs"),
    "ADD": _binary("Add"),
    "CAST": _cast,
    "CEIL": _unary("Ceil"),
    "COS": _unary("Cos"),
    "DIV": _binary("Div"),
    "ELU": _unary("Elu"),
    "EQUAL": _compared("Equal"),
    "EXP": _unary("Exp"),
    "FLOOR": _unary("Floor"),
    "GELU": lambda c: c.pointwise(
        "Gelu", c.value(0), approximate="tanh" if c.operator.option("Approximate", False) else "none"
    ),
    "GREATER": _compared("Greater"),
    "GREATER_EQUAL": _compared("GreaterOrEqual"),
    "HARD_SWISH": _unary("HardSwish"),
    "L2_NORMALIZATION": _l2_normalization,
    "LEAKY_RELU": lambda c: c.pointwise("LeakyRelu", c.value(0), alpha=c.operator.option("Alpha", 0.0)),
    "LESS": _compared("Less"),
    "LESS_EQUAL": _compared("LessOrEqual"),
    "LOG": _unary("Log"),
    "LOGICAL_AND": _logical("And"),
    "LOGICAL_NOT": _logical("Not"),
    "LOGICAL_OR": _logical("Or"),
    "LOGISTIC": _unary("Sigmoid"),
    "LOG_SOFTMAX": _unary("LogSoftmax", axis=-1),
    "MAXIMUM": _binary("Max"),
    "MINIMUM": _binary("Min"),
    "MUL": _binary("Mul"),
    "NEG": _unary("Neg"),
    "NOT_EQUAL": _compared("Equal", negated=True),
    "POW": _binary("Pow"),
    "PRELU": lambda c: c.emit("PRelu", [c.value(0), c.constant(1)], c.value(0).shape),
    "RELU": _unary("Relu"),
    "RELU6": lambda c: clip(c, c.value(0), 0, 6),
    "RELU_0_TO_1": lambda c: clip(c, c.value(0), 0, 1),
    "RELU_N1_TO_1": lambda c: clip(c, c.value(0), -1, 1),
    "ROUND": _unary("Round"),
    "RSQRT": lambda c: c.pointwise("Reciprocal", c.pointwise("Sqrt", c.value(0))),
    "SELECT": _select,
    "SELECT_V2": _select,
    "SIGN": _unary("Sign"),
    "SIN": _unary("Sin"),
    "SOFTMAX": _softmax,
    "SQRT": _unary("Sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": _binary("Sub"),
    "TANH": _unary("Tanh"),
}
"""TensorFlow Lite operator → translation."""
