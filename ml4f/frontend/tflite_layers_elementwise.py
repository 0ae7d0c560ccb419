"""Elementwise operators of TensorFlow Lite in ONNX: arithmetic, comparisons, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from ml4f.frontend.keras_builder import Refused, Shape, Value
from ml4f.frontend.tflite_activations import activated, clip
from ml4f.frontend.tflite_onnx import Operand, OperatorContext, Translation


def _unary(op_type: str, **attributes: Any) -> Translation:
    return lambda c: c.pointwise(op_type, c.value(0), **attributes)


def _negated(c: OperatorContext) -> Operand:
    x = c.either(0)
    return np.asarray(-x) if isinstance(x, np.ndarray) else c.pointwise("Neg", x)


def _binary(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        a, b = c.either(0), c.either(1)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(_FOLDED[op_type](a, b))
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


_DECIDED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
"""Of constants: loops end so."""


def _compared(op_type: str, negated: bool = False) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        a, b = c.either(0), c.either(1)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(_DECIDED[op_type](a, b) ^ negated)
        operands = _as_floats([a, b])
        shape = np.broadcast_shapes(*(v.shape for v in operands))
        made = _boolean(c, op_type, operands, shape)
        return _boolean(c, "Not", [made], shape) if negated else made

    return translate


def _as_floats(operands: Sequence[Value | np.ndarray]) -> list[Value | np.ndarray]:
    """Whole numbers as float32, which computed integers are, too."""
    return [v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype.kind in "iu" else v for v in operands]


def _logical(op_type: str) -> Translation:
    def translate(c: OperatorContext) -> Operand:
        operands = [c.either(index) for index in range(len(c.operands))]
        if all(isinstance(v, np.ndarray) for v in operands):
            functions = {"And": np.logical_and, "Not": np.logical_not, "Or": np.logical_or}
            return np.asarray(functions[op_type](*operands))
        return _boolean(c, op_type, operands, np.broadcast_shapes(*(v.shape for v in operands)))

    return translate


def _boolean(
    c: OperatorContext, op_type: str, operands: Sequence[Value | np.ndarray], shape: Shape, **attributes: Any
) -> Value:
    """A node whose output is boolean, which the builder does not declare as float."""
    made = c.emit(op_type, list(operands), shape, **attributes)
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
    """Numbers stay float32, as they are inside; what is cut off of a float, or made true or false of it, is heeded."""
    x, (result,) = c.either(0), c.types
    if isinstance(x, np.ndarray):
        return x.astype(result) if result is not None else x
    boolean = c.graph.type_of(x) == TensorProto.BOOL or (x.name not in c.graph.shapes and _is_made(c, x))
    if result == np.bool_:
        return x if boolean else _boolean(c, "Cast", [x], x.shape, to=TensorProto.BOOL)
    if boolean:
        return c.emit("Cast", [x], x.shape, to=TensorProto.FLOAT)
    if result is not None and np.dtype(result).kind in "iu":
        whole = c.emit("Cast", [x], x.shape, to=TensorProto.INT32)
        return c.emit("Cast", [whole], x.shape, to=TensorProto.FLOAT)
    return x


def _is_made(c: OperatorContext, x: Value) -> bool:
    return any(x.name in node.output for node in c.graph.nodes)


def _reduced(op_type: str) -> Translation:
    """REDUCE_ANY, REDUCE_ALL: the largest or smallest of ones and zeros."""

    def translate(c: OperatorContext) -> Value:
        x, axes = c.value(0), sorted({a % c.value(0).rank for a in c.whole_numbers(1)})
        keep = bool(c.operator.option("KeepDims", False))
        shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
        numbers = c.emit("Cast", [x], x.shape, to=TensorProto.FLOAT)
        made = c.emit(op_type, [numbers, np.array(axes, dtype=np.int64)], shape or [1], keepdims=int(keep or not shape))
        return _boolean(c, "Cast", [made], made.shape, to=TensorProto.BOOL)

    return translate


def _one_hot(c: OperatorContext) -> Value:
    """The value `on` where a number is that of the place, else `off`: in no place for numbers beyond the depth."""
    x, depth, on, off = c.value(0), c.whole_numbers(1)[0], float(c.constant(2)), float(c.constant(3))
    if c.operator.option("Axis", -1) not in (-1, x.rank):
        raise Refused("a new axis that is not the last; transpose behind it")
    shape = (*x.shape, depth)
    same = _boolean(c, "Equal", [c.reshape(x, (*x.shape, 1)), np.arange(depth, dtype=np.float32)], shape)
    return c.emit("Where", [same, np.asarray(on, dtype=np.float32), np.asarray(off, dtype=np.float32)], shape)


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
    "NEG": _negated,
    "NOT_EQUAL": _compared("Equal", negated=True),
    "ONE_HOT": _one_hot,
    "POW": _binary("Pow"),
    "PRELU": lambda c: c.emit("PRelu", [c.value(0), c.constant(1)], c.value(0).shape),
    "REDUCE_ALL": _reduced("ReduceMin"),
    "REDUCE_ANY": _reduced("ReduceMax"),
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
