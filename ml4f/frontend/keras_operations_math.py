"""Operations of functional models that compute: functions of one or two tensors, sums and statistics along axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ml4f.frontend import keras_activations as activations
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_operations_logic import Made, Operand, boolean, number, operands_of, reduced_axes

Unary = Callable[[LayerContext, Value], Value]
Operation = Callable[[LayerContext, Sequence[Operand]], Made]
NORM_EPSILON = 1e-7
"""The least length of a vector that Keras's normalize divides by, unless told otherwise."""


def unary(function: Unary) -> Operation:
    """Of numbers."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        if len(operands) != 1:
            raise Refused(f"it has {len(operands)} operands in the file, one is needed")
        x = number(c, operands[0])
        if not isinstance(x, Value):
            raise Refused("its operand is a constant")
        return function(c, x)

    return translate


def binary(function: Callable[[LayerContext, Value | np.ndarray, Value | np.ndarray], Value]) -> Operation:
    """Of numbers whose last axes lie side by side."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        x, y = operands_of([number(c, v) for v in operands], 2)
        return function(c, x, y)

    return translate


def _scaled(op_type: str, factor: float) -> Unary:
    return lambda c, x: c.binary("Mul", c.pointwise(op_type, x), factor)


def _times(factor: float) -> Unary:
    return lambda c, x: c.binary("Mul", x, factor)


def _round(c: LayerContext, x: Value) -> Value:
    """Half to even, of so many decimals."""
    decimals = c.get("decimals", 0)
    if not isinstance(decimals, int):
        raise Refused(f"to {str(decimals)[:80]} decimals")
    if decimals == 0:
        return c.pointwise("Round", x)
    factor = float(10**decimals)
    return c.binary("Div", c.pointwise("Round", c.binary("Mul", x, factor)), factor)


def _truncated(c: LayerContext, x: Value) -> Value:
    return c.binary("Mul", c.pointwise("Sign", x), c.pointwise("Floor", c.pointwise("Abs", x)))


def _test(op_type: str) -> Unary:
    return lambda c, x: c.emit(op_type, [x], x.shape)


def _is_finite(c: LayerContext, x: Value) -> Value:
    """Neither infinite nor NaN: less than infinity in size."""
    return c.emit("Less", [c.pointwise("Abs", x), np.asarray(np.inf, np.float32)], x.shape)


def _celu(c: LayerContext, x: Value) -> Value:
    return c.pointwise("Celu", x, alpha=c.number("alpha", 1.0))


def _threshold(c: LayerContext, x: Value) -> Value:
    """x above the threshold, else the default."""
    limit, default = c.number("threshold", None), c.number(("default_value", "value"), None)
    if limit is None or default is None:
        raise Refused("its threshold or default_value is not in the file")
    above = c.emit("Greater", [x, np.asarray(limit, np.float32)], x.shape)
    return c.emit("Where", [above, x, np.asarray(default, np.float32)], x.shape)


def _hard_shrink(c: LayerContext, x: Value) -> Value:
    return activations.hard_shrink(c, x, c.number("threshold", 0.5) or 0.0)


def _soft_shrink(c: LayerContext, x: Value) -> Value:
    return activations.soft_shrink(c, x, c.number("threshold", 0.5) or 0.0)


def _square_plus(c: LayerContext, x: Value) -> Value:
    return activations.square_plus(c, x, c.number("b", 4.0) or 0.0)


def _log_softmax(c: LayerContext, x: Value) -> Value:
    axis = c.get("axis", -1)
    if not isinstance(axis, int) or axis % x.rank == 0:
        raise Refused(f"over the axis {str(axis)[:80]}")
    return c.pointwise("LogSoftmax", x, axis=axis)


def glu(c: LayerContext, x: Value, axis: int) -> Value:
    """The first half along an axis, times the sigmoid of the second."""
    axis %= x.rank
    if axis == 0 or x.shape[axis] % 2:
        raise Refused(f"halves of the {x.shape[axis]} elements along axis {axis}")
    half = x.shape[axis] // 2
    shape = [half if a == axis else n for a, n in enumerate(x.shape)]
    parts = []
    for start in (0, half):
        ends = [np.array([n], dtype=np.int64) for n in (start, start + half, axis)]
        parts.append(c.emit("Slice", [x, *ends], shape))
    return c.binary("Mul", parts[0], c.pointwise("Sigmoid", parts[1]))


def _glu(c: LayerContext, x: Value) -> Value:
    return glu(c, x, int(c.get("axis", -1)))


# Of two tensors


def _floor_divided(c: LayerContext, x: Value | np.ndarray, y: Value | np.ndarray) -> Value:
    return c.pointwise("Floor", c.binary("Div", x, y))


def _modulo(c: LayerContext, x: Value | np.ndarray, y: Value | np.ndarray) -> Value:
    """With the sign of the divisor."""
    return c.binary("Sub", x, c.binary("Mul", _floor_divided(c, x, y), y))


def _log_add_exp(c: LayerContext, x: Value | np.ndarray, y: Value | np.ndarray) -> Value:
    """max + log(1 + exp(-|x - y|))."""
    distance = c.pointwise("Abs", c.binary("Sub", x, y))
    return c.binary("Add", c.binary("Max", x, y), c.pointwise("Softplus", c.pointwise("Neg", distance)))


def _hypotenuse(c: LayerContext, x: Value | np.ndarray, y: Value | np.ndarray) -> Value:
    return c.pointwise("Sqrt", c.binary("Add", c.binary("Mul", x, x), c.binary("Mul", y, y)))


def _divided_or_zero(c: LayerContext, x: Value | np.ndarray, y: Value | np.ndarray) -> Value:
    """0 where the divisor is 0."""
    if not isinstance(y, Value):
        raise Refused("its divisor is a constant")
    zero = c.emit("Equal", [y, np.asarray(0, np.float32)], y.shape)
    divisor = c.emit("Where", [zero, np.asarray(1, np.float32), y], y.shape)
    made = c.binary("Div", x, divisor)
    return c.emit("Where", [zero, np.asarray(0, np.float32), made], made.shape)


# Along axes


def reduction(op_type: str) -> Unary:
    """Sum, mean, maximum, … ; `initial` is one more element."""

    def translate(c: LayerContext, x: Value) -> Value:
        made = _reduced(c, op_type, x)
        first = c.number("initial", None)
        if first is None:
            return made
        joins = {"ReduceMax": "Max", "ReduceMin": "Min", "ReduceSum": "Add", "ReduceProd": "Mul"}
        if op_type not in joins:
            raise Refused(f"with the initial value {first:g}")
        return c.binary(joins[op_type], made, first)

    return translate


def _reduced(c: LayerContext, op_type: str, x: Value, keep: bool | None = None) -> Value:
    axes = reduced_axes(c, x)
    keep = bool(c.get("keepdims", False)) if keep is None else keep
    shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
    return c.emit(op_type, [x, np.array(axes, dtype=np.int64)], shape, keepdims=int(keep))


def _variance(c: LayerContext, x: Value) -> Value:
    """Of all elements, not of a sample of them."""
    centred = c.binary("Sub", x, _reduced(c, "ReduceMean", x, keep=True))
    return _reduced(c, "ReduceMean", c.binary("Mul", centred, centred))


def _deviation(c: LayerContext, x: Value) -> Value:
    return c.pointwise("Sqrt", _variance(c, x))


def _norm(c: LayerContext, x: Value) -> Value:
    """Of vectors: the sum of sizes, the root of the sum of squares, the largest size."""
    axis, order = c.get("axis"), c.get("ord")
    if not isinstance(axis, int):
        raise Refused(f"over the axes {str(axis)[:80]}; one axis besides the batch is supported")
    kinds = {None: "ReduceL2", 2: "ReduceL2", "euclidean": "ReduceL2", 1: "ReduceL1"}
    if order not in kinds:
        raise Refused(f"of order {str(order)[:80]}; 1 and 2 are supported")
    return _reduced(c, kinds[order], x)


def _normalised(c: LayerContext, x: Value) -> Value:
    """Divided by the root of the sum of squares along an axis."""
    if c.get("order", 2) != 2:
        raise Refused(f"of order {str(c.get('order'))[:80]}; 2 is supported")
    least = c.number("epsilon", NORM_EPSILON) or 0.0
    total = _reduced(c, "ReduceSum", c.binary("Mul", x, x), keep=True)
    return c.binary("Div", x, c.pointwise("Sqrt", c.binary("Max", total, least * least)))


def _place(op_type: str) -> Unary:
    """Where the first extreme element stands."""

    def translate(c: LayerContext, x: Value) -> Value:
        axis = c.get("axis")
        if not isinstance(axis, int) or axis % x.rank == 0:
            raise Refused(f"over the axis {str(axis)[:80]}; one axis besides the batch is supported")
        axis %= x.rank
        keep = bool(c.get("keepdims", False))
        shape = [1 if a == axis else n for a, n in enumerate(x.shape) if keep or a != axis]
        made = c.emit(op_type, [x], shape, axis=axis, keepdims=int(keep))
        return c.emit("Cast", [made], shape, to=onnx.TensorProto.FLOAT)

    return translate


def _count_nonzero(c: LayerContext, x: Value) -> Value:
    seen = c.emit("Cast", [boolean(c, x)], x.shape, to=onnx.TensorProto.FLOAT)
    return _reduced(c, "ReduceSum", seen)


def _running_sum(c: LayerContext, x: Value) -> Value:
    axis = c.get("axis")
    if not isinstance(axis, int) or axis % x.rank == 0:
        raise Refused(f"over the axis {str(axis)[:80]}; one axis besides the batch is supported")
    return c.emit("CumSum", [x, np.asarray(axis % x.rank, dtype=np.int64)], x.shape)


OPERATIONS: dict[str, Operation] = {
    "Amax": unary(reduction("ReduceMax")),
    "Amin": unary(reduction("ReduceMin")),
    "Argmax": unary(_place("ArgMax")),
    "Argmin": unary(_place("ArgMin")),
    "Celu": unary(_celu),
    "CountNonzero": unary(_count_nonzero),
    "Cumsum": unary(_running_sum),
    "Deg2rad": unary(_times(math.pi / 180)),
    "DivideNoNan": binary(_divided_or_zero),
    "Erfc": unary(lambda c, x: c.binary("Sub", 1.0, c.pointwise("Erf", x))),
    "Exp2": unary(lambda c, x: c.pointwise("Exp", c.binary("Mul", x, math.log(2)))),
    "Expm1": unary(lambda c, x: c.binary("Sub", c.pointwise("Exp", x), 1.0)),
    "Fabs": unary(activations.simple("Abs")),
    "FloorDivide": binary(_floor_divided),
    "Glu": unary(_glu),
    "HardShrink": unary(_hard_shrink),
    "Hypot": binary(_hypotenuse),
    "Isfinite": unary(_is_finite),
    "Isinf": unary(_test("IsInf")),
    "Isnan": unary(_test("IsNaN")),
    "Log10": unary(_scaled("Log", 1 / math.log(10))),
    "Log1p": unary(lambda c, x: c.pointwise("Log", c.binary("Add", x, 1.0))),
    "Log2": unary(_scaled("Log", 1 / math.log(2))),
    "LogSoftmax": unary(_log_softmax),
    "Logaddexp": binary(_log_add_exp),
    "Logsumexp": unary(reduction("ReduceLogSumExp")),
    "Max": unary(reduction("ReduceMax")),
    "Mean": unary(reduction("ReduceMean")),
    "Min": unary(reduction("ReduceMin")),
    "Mod": binary(_modulo),
    "Norm": unary(_norm),
    "Normalize": unary(_normalised),
    "Prod": unary(reduction("ReduceProd")),
    "Rad2deg": unary(_times(180 / math.pi)),
    "Round": unary(_round),
    "SoftShrink": unary(_soft_shrink),
    "SparsePlus": unary(activations.ACTIVATIONS["sparse_plus"]),
    "SparseSigmoid": unary(activations.ACTIVATIONS["sparse_sigmoid"]),
    "Squareplus": unary(_square_plus),
    "Std": unary(_deviation),
    "Sum": unary(reduction("ReduceSum")),
    "TanhShrink": unary(activations.ACTIVATIONS["tanh_shrink"]),
    "Threshold": unary(_threshold),
    "Trunc": unary(_truncated),
    "Var": unary(_variance),
}
"""Class of a Keras 3 operation → translation."""

TENSORFLOW_FUNCTIONS: dict[str, Operation] = {
    "compat.v1.floor_div": OPERATIONS["FloorDivide"],
    "math.argmax": OPERATIONS["Argmax"],
    "math.cumsum": OPERATIONS["Cumsum"],
    "math.floordiv": OPERATIONS["FloorDivide"],
    "math.floormod": OPERATIONS["Mod"],
    "math.log1p": OPERATIONS["Log1p"],
    "math.reduce_logsumexp": OPERATIONS["Logsumexp"],
    "math.reduce_max": OPERATIONS["Max"],
    "math.reduce_mean": OPERATIONS["Mean"],
    "math.reduce_min": OPERATIONS["Min"],
    "math.reduce_prod": OPERATIONS["Prod"],
    "math.reduce_std": OPERATIONS["Std"],
    "math.reduce_sum": OPERATIONS["Sum"],
    "math.reduce_variance": OPERATIONS["Var"],
    "nn.log_softmax": OPERATIONS["LogSoftmax"],
}
"""Name of a TensorFlow function, as TFOpLambda stores it → translation."""
