"""Operations of functional models on booleans: comparisons, logic, tests, and casts between them and numbers.

A boolean tensor is one in the ONNX graph, too; in arithmetic it becomes ones and zeros, as in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import type_name

Operand = Value | float | np.ndarray
Made = Value | list[Value]

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def number(c: LayerContext, x: Operand) -> Operand:
    """Booleans as ones and zeros, integers as numbers."""
    if not isinstance(x, Value) or c.graph.type_of(x) == onnx.TensorProto.FLOAT:
        return x
    return c.emit("Cast", [x], x.shape, to=onnx.TensorProto.FLOAT)


def boolean(c: LayerContext, x: Operand) -> Value | np.ndarray:
    """Whether elements are not zero."""
    if not isinstance(x, Value):
        return np.asarray(x).astype(bool)
    if c.graph.type_of(x) == onnx.TensorProto.BOOL:
        return x
    return c.emit("Cast", [x], x.shape, to=onnx.TensorProto.BOOL)


def operands_of(operands: Sequence[Operand], count: int) -> list[Value | np.ndarray]:
    """So many, whose last axes lie side by side; the batch must not move."""
    ranks = {v.rank for v in operands if isinstance(v, Value)}
    most = max(ranks, default=0)
    shifted = [v for v in operands if isinstance(v, Value) and 1 < v.rank < most]
    arrays = [np.asarray(v) for v in operands if not isinstance(v, Value)]
    if len(operands) != count:
        raise Refused(f"it has {len(operands)} operands in the file, {count} are needed")
    if shifted or any(a.ndim > most or (a.ndim == most and a.shape[:1] > (1,)) for a in arrays):
        shapes = [list(v.shape) for v in operands if isinstance(v, Value | np.ndarray)]
        raise Refused(f"operands {shapes}, whose batch is not in one place; reshape them")
    return [v if isinstance(v, Value) else np.asarray(v, dtype=np.float32) for v in operands]


def compared(op_type: str, negated: bool = False) -> Callable[[LayerContext, Sequence[Operand]], Value]:
    """A boolean tensor."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        pair = operands_of([number(c, v) for v in operands], 2)
        made = c.emit(op_type, pair, np.broadcast_shapes(*(v.shape for v in pair)))
        return c.emit("Not", [made], made.shape) if negated else made

    return translate


def logical(op_type: str) -> Callable[[LayerContext, Sequence[Operand]], Value]:
    """And, Or, Xor of booleans."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        operands_of(operands, 2)
        pair = [boolean(c, v) for v in operands]
        return c.emit(op_type, pair, np.broadcast_shapes(*(v.shape for v in pair)))

    return translate


def logical_not(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Whether elements are zero."""
    (x,) = operands
    made = boolean(c, x)
    return c.emit("Not", [made], made.shape)


def quantified(op_type: str) -> Callable[[LayerContext, Sequence[Operand]], Value]:
    """Any is the largest of ones and zeros, All the smallest."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        (x,) = operands
        made = boolean(c, x)
        if not isinstance(made, Value):
            raise Refused("its operand is a constant")
        axes, keep = reduced_axes(c, made), bool(c.get("keepdims", False))
        shape = [1 if a in axes else n for a, n in enumerate(made.shape) if keep or a not in axes]
        numbers = c.emit("Cast", [made], made.shape, to=onnx.TensorProto.FLOAT)
        numbers = c.emit(op_type, [numbers, np.array(axes, dtype=np.int64)], shape, keepdims=int(keep))
        return c.emit("Cast", [numbers], shape, to=onnx.TensorProto.BOOL)

    return translate


def reduced_axes(c: LayerContext, x: Value) -> list[int]:
    """The axes of a reduction, none of which may be the batch."""
    axis = c.get("axis")
    if axis is None:
        raise Refused("over all dimensions, the batch too; give it the axes besides the batch")
    axes = sorted({int(a) % x.rank for a in (axis if isinstance(axis, list) else [axis])})
    if 0 in axes:
        raise Refused("over the batch; give it axes besides the batch")
    return axes


def where(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Elements of the second operand where the first is not zero, else of the third."""
    if len(operands) != 3:
        raise Refused(f"it has {len(operands)} operands in the file, three are needed")
    operands_of(operands, 3)
    chosen = operands_of([number(c, v) for v in operands[1:]], 2)
    three = [boolean(c, operands[0]), *chosen]
    return c.emit("Where", three, np.broadcast_shapes(*(v.shape for v in three)))


def cast(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Between numbers and booleans; whole numbers are those of floats, without their fractions."""
    (x,) = operands
    if not isinstance(x, Value):
        raise Refused("its operand is a constant")
    wanted = type_name(c.get("dtype"))
    if wanted == "bool":
        made = boolean(c, x)
        assert isinstance(made, Value)
        return made
    if wanted in FLOATS:
        made = number(c, x)
        assert isinstance(made, Value)
        return made
    if wanted not in ("int32", "int64"):
        raise Refused(f"to {wanted[:80]}; float types, bool, int32 and int64 are supported")
    made = number(c, x)
    assert isinstance(made, Value)
    whole = c.emit("Cast", [made], x.shape, to=onnx.TensorProto.INT32)
    return c.emit("Cast", [whole], x.shape, to=onnx.TensorProto.FLOAT)


def same(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """The operand itself."""
    (x,) = operands
    if not isinstance(x, Value):
        raise Refused("its operand is a constant")
    return x


def filled(value: float | None) -> Callable[[LayerContext, Sequence[Operand]], Value]:
    """A constant of the operand's shape; None: of the second operand."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        x, *more = operands
        fill = c.number("fill_value", None) if value is None and not more else (value if value is not None else more[0])
        if not isinstance(x, Value) or isinstance(fill, Value) or fill is None:
            raise Refused("its value is computed; a constant one is supported")
        array = np.broadcast_to(np.asarray(fill, dtype=np.float32), x.shape)
        if type_name(c.get("dtype")) == "bool":
            array = array.astype(bool)
        return c.constant(np.ascontiguousarray(array))

    return translate


OPERATIONS: dict[str, Callable[[LayerContext, Sequence[Operand]], Made]] = {
    "All": quantified("ReduceMin"),
    "Any": quantified("ReduceMax"),
    "Cast": cast,
    "ConvertToTensor": same,
    "Copy": same,
    "Equal": compared("Equal"),
    "FullLike": filled(None),
    "Greater": compared("Greater"),
    "GreaterEqual": compared("GreaterOrEqual"),
    "Less": compared("Less"),
    "LessEqual": compared("LessOrEqual"),
    "LogicalAnd": logical("And"),
    "LogicalNot": logical_not,
    "LogicalOr": logical("Or"),
    "LogicalXor": logical("Xor"),
    "NotEqual": compared("Equal", negated=True),
    "OnesLike": filled(1.0),
    "StopGradient": same,
    "Where": where,
    "ZerosLike": filled(0.0),
}
"""Class of a Keras 3 operation → translation."""

TENSORFLOW_FUNCTIONS: dict[str, Callable[[LayerContext, Sequence[Operand]], Made]] = {
    "cast": cast,
    "math.equal": compared("Equal"),
    "math.greater": compared("Greater"),
    "math.greater_equal": compared("GreaterOrEqual"),
    "math.less": compared("Less"),
    "math.less_equal": compared("LessOrEqual"),
    "math.logical_and": logical("And"),
    "math.logical_not": logical_not,
    "math.logical_or": logical("Or"),
    "math.not_equal": compared("Equal", negated=True),
    "ones_like": filled(1.0),
    "where": where,
    "zeros_like": filled(0.0),
}
"""Name of a TensorFlow function → translation."""
