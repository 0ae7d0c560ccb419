"""Operations of functional models, `x + y`, `ops.relu(x)`, `tf.nn.relu(x)`, as ONNX nodes: `operation_of`.

Keras 3 stores them as layers of the module keras.src.ops with their arguments as configuration, Keras 2 as TFOpLambda
with the arguments of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ml4f.frontend import keras_activations as activations
from ml4f.frontend import (
    keras_operations_logic,
    keras_operations_math,
    keras_operations_shapes,
    keras_operations_tensors,
)
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import OPERATION_CLASSES, Layer
from ml4f.frontend.keras_operations_logic import number, operands_of

Operand = Value | float | np.ndarray
Operation = Callable[[LayerContext, Sequence[Operand]], Value | list[Value]]

OPERATION_MODULES = ("keras.src.ops", "keras.src.activations")


def is_operation(layer: Layer) -> bool:
    """Whether a layer is a function rather than a layer."""
    return layer.kind in OPERATION_CLASSES or layer.module.startswith(OPERATION_MODULES)


def operation_of(layer: Layer) -> Operation | None:
    """The translation of a function; None for layers, and for functions that are not supported.

    .h5 files do not tell the module: there a function is what has no "trainable" in its configuration.
    """
    if layer.kind in OPERATION_CLASSES:
        function = TENSORFLOW_FUNCTIONS.get(str(layer.config.get("function")))
        return None if function is None else _with_keywords(function)
    bare = layer.keras >= 3 and not layer.module and "trainable" not in layer.config
    return OPERATIONS.get(layer.kind) if is_operation(layer) or bare else None


def _with_keywords(operation: Operation) -> Operation:
    """The arguments of the call as the configuration."""

    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value | list[Value]:
        keywords: dict[str, Any] = c.layer.config.get("keywords") or {}
        return operation(replace(c, layer=replace(c.layer, config=keywords)), operands)

    return translate


def _tensor(operands: Sequence[Operand]) -> Value:
    (x,) = operands
    if not isinstance(x, Value):
        raise Refused("its operand is a constant")
    return x


def _unary(function: Callable[[LayerContext, Value], Value]) -> Operation:
    """Of numbers."""
    return lambda c, operands: function(c, _number(c, operands))


def _moved(function: Callable[[LayerContext, Value], Value]) -> Operation:
    """Of elements of any type."""
    return lambda c, operands: function(c, _tensor(operands))


def _number(c: LayerContext, operands: Sequence[Operand]) -> Value:
    x = number(c, _tensor(operands))
    assert isinstance(x, Value)
    return x


def _binary(op_type: str) -> Operation:
    def translate(c: LayerContext, operands: Sequence[Operand]) -> Value:
        x, y = operands_of([number(c, v) for v in operands], 2)
        return c.binary(op_type, x, y)

    return translate


def _named(name: str) -> Operation:
    return _unary(activations.ACTIVATIONS[name])


def _relu(c: LayerContext, x: Value) -> Value:
    slope = c.number(("negative_slope", "alpha"), 0.0) or 0.0
    return activations.relu(c, x, c.number("max_value", None), slope, c.number("threshold", 0.0) or 0.0)


def _leaky_relu(c: LayerContext, x: Value) -> Value:
    return c.pointwise("LeakyRelu", x, alpha=c.number(("negative_slope", "alpha"), activations.LEAKY_RELU_FUNCTION))


def _gelu(default: bool) -> Callable[[LayerContext, Value], Value]:
    """By tanh unless told otherwise in Keras 3's ops, exactly in TensorFlow."""
    return lambda c, x: c.pointwise("Gelu", x, approximate="tanh" if c.get("approximate", default) else "none")


def _elu(c: LayerContext, x: Value) -> Value:
    return c.pointwise("Elu", x, alpha=c.number("alpha", 1.0))


def _softmax(c: LayerContext, x: Value) -> Value:
    axis = c.get("axis", -1)
    if not isinstance(axis, int) or axis % x.rank == 0:
        raise Refused(f"softmax over the axis {str(axis)[:80]}")
    return activations.softmax(c, x, axis)


def _square(c: LayerContext, x: Value) -> Value:
    return c.binary("Mul", x, x)


def _inverse_root(c: LayerContext, x: Value) -> Value:
    return c.pointwise("Reciprocal", c.pointwise("Sqrt", x))


def _clip(c: LayerContext, x: Value) -> Value:
    low = c.number(("x_min", "clip_value_min"), None)
    high = c.number(("x_max", "clip_value_max"), None)
    if low is None or high is None:
        raise Refused("its bounds are not in the file")
    bounds = [np.asarray(bound, dtype=np.float32) for bound in (low, high)]
    return c.emit("Clip", [x, *bounds], x.shape)


def _reshape(c: LayerContext, x: Value) -> Value:
    """The first extent is the batch, whatever the file says it is."""
    given = c.get("newshape", c.get("shape"))
    if not isinstance(given, list) or not given or not all(isinstance(n, int) or n is None for n in given):
        raise Refused(f"its shape is {str(given)[:80]}")
    inner = list(given[1:])
    if inner.count(-1) + (given[0] == -1) > 1 or None in inner:
        raise Refused(f"its shape is {given}")
    if -1 in inner:
        known = -prod(inner)
        inner[inner.index(-1)] = prod(x.shape) // known if known else 0
    if prod(inner) != prod(x.shape) or any(n < 1 for n in inner):
        raise Refused(f"its shape {given} does not keep the batch apart")
    return c.reshape(x, (1, *inner))


def _transpose(c: LayerContext, x: Value) -> Value:
    axes = c.get("axes", c.get("perm"))
    if not isinstance(axes, list) or sorted(axes) != list(range(x.rank)) or axes[0] != 0:
        raise Refused(f"its axes are {str(axes)[:80]}; the batch should stay first")
    return c.transpose(x, axes)


def _expand_dims(c: LayerContext, x: Value) -> Value:
    axis = c.get("axis")
    if not isinstance(axis, int) or axis % (x.rank + 1) == 0:
        raise Refused(f"its axis is {str(axis)[:80]}; the batch should stay first")
    axis %= x.rank + 1
    return c.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _squeeze(c: LayerContext, x: Value) -> Value:
    axis = c.get("axis")
    axes = sorted({int(a) % x.rank for a in (axis if isinstance(axis, list) else [axis])}) if axis is not None else []
    if not axes or 0 in axes or any(x.shape[a] != 1 for a in axes):
        raise Refused(f"its axis is {str(axis)[:80]}, for dimensions of 1 besides the batch")
    return c.reshape(x, [n for a, n in enumerate(x.shape) if a not in axes])


def _concatenate(c: LayerContext, operands: Sequence[Operand]) -> Value:
    """Tensors, and constants with a batch of 1."""
    from ml4f.frontend.keras_layers_core import LAYERS

    parts: list[Value] = []
    kinds = {c.graph.type_of(v) for v in operands if isinstance(v, Value)}
    for v in operands:
        v = number(c, v) if len(kinds) > 1 else v
        if not isinstance(v, Value):
            array = np.asarray(v, dtype=np.float32)
            if not array.shape or array.shape[0] != 1 or not kinds <= {1}:
                raise Refused(f"a constant {list(array.shape)} among its operands; one with a batch of 1 is supported")
            v = c.constant(array)
        parts.append(v)
    made = LAYERS["Concatenate"](c, parts)
    assert isinstance(made, Value)
    return made


ELEMENTWISE = {
    "Arccos": "Acos",
    "Arccosh": "Acosh",
    "Arcsin": "Asin",
    "Arcsinh": "Asinh",
    "Arctan": "Atan",
    "Arctanh": "Atanh",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Cosh": "Cosh",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Log": "Log",
    "Reciprocal": "Reciprocal",
    "Sign": "Sign",
    "Sin": "Sin",
    "Sinh": "Sinh",
    "Sqrt": "Sqrt",
    "Tan": "Tan",
}
"""Class of a Keras 3 operation without options → ONNX operator."""

OPERATIONS: dict[str, Operation] = {
    **{name: _unary(activations.simple(op_type)) for name, op_type in ELEMENTWISE.items()},
    "Add": _binary("Add"),
    "Subtract": _binary("Sub"),
    "Multiply": _binary("Mul"),
    "Divide": _binary("Div"),
    "TrueDivide": _binary("Div"),
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "Negative": _unary(activations.simple("Neg")),
    "Absolute": _unary(activations.simple("Abs")),
    "Abs": _unary(activations.simple("Abs")),
    "Square": _unary(_square),
    "Clip": _unary(_clip),
    "Power": _binary("Pow"),
    "Rsqrt": _unary(_inverse_root),
    "Reshape": _moved(_reshape),
    "Transpose": _moved(_transpose),
    "ExpandDims": _moved(_expand_dims),
    "Squeeze": _moved(_squeeze),
    "Concatenate": _concatenate,
    "Relu": _unary(_relu),
    "ReLU": _unary(_relu),
    "Relu6": _named("relu6"),
    "LeakyRelu": _unary(_leaky_relu),
    "Elu": _unary(_elu),
    "Selu": _named("selu"),
    "Sigmoid": _named("sigmoid"),
    "HardSigmoid": _named("hard_sigmoid"),
    "HardSilu": _named("hard_silu"),
    "HardTanh": _named("hard_tanh"),
    "LogSigmoid": _named("log_sigmoid"),
    "Tanh": _named("tanh"),
    "Softplus": _named("softplus"),
    "Softsign": _named("softsign"),
    "Silu": _named("silu"),
    "Gelu": _unary(_gelu(default=True)),
    "Mish": _named("mish"),
    "Softmax": _unary(_softmax),
    **keras_operations_tensors.OPERATIONS,
    **keras_operations_logic.OPERATIONS,
    **keras_operations_math.OPERATIONS,
    **keras_operations_shapes.OPERATIONS,
}
"""Class of a Keras 3 operation → translation."""

TENSORFLOW_FUNCTIONS: dict[str, Operation] = {
    "__operators__.add": OPERATIONS["Add"],
    "math.add": OPERATIONS["Add"],
    "math.subtract": OPERATIONS["Subtract"],
    "math.multiply": OPERATIONS["Multiply"],
    "math.truediv": OPERATIONS["TrueDivide"],
    "math.divide": OPERATIONS["TrueDivide"],
    "math.maximum": OPERATIONS["Maximum"],
    "math.minimum": OPERATIONS["Minimum"],
    "math.negative": OPERATIONS["Negative"],
    "math.abs": OPERATIONS["Abs"],
    "math.exp": OPERATIONS["Exp"],
    "math.log": OPERATIONS["Log"],
    "math.sqrt": OPERATIONS["Sqrt"],
    "math.square": OPERATIONS["Square"],
    "math.rsqrt": OPERATIONS["Rsqrt"],
    "math.pow": OPERATIONS["Power"],
    "math.erf": OPERATIONS["Erf"],
    "math.sin": OPERATIONS["Sin"],
    "math.cos": OPERATIONS["Cos"],
    "math.tan": OPERATIONS["Tan"],
    "math.floor": OPERATIONS["Floor"],
    "math.ceil": OPERATIONS["Ceil"],
    "math.sign": OPERATIONS["Sign"],
    "math.sigmoid": OPERATIONS["Sigmoid"],
    "math.tanh": OPERATIONS["Tanh"],
    "math.softplus": OPERATIONS["Softplus"],
    "clip_by_value": OPERATIONS["Clip"],
    "concat": OPERATIONS["Concatenate"],
    "reshape": OPERATIONS["Reshape"],
    "expand_dims": OPERATIONS["ExpandDims"],
    "nn.relu": _named("relu"),
    "nn.relu6": OPERATIONS["Relu6"],
    "nn.leaky_relu": OPERATIONS["LeakyRelu"],
    "nn.elu": _named("elu"),
    "nn.selu": OPERATIONS["Selu"],
    "nn.gelu": _unary(_gelu(default=False)),
    "nn.silu": OPERATIONS["Silu"],
    "nn.softmax": OPERATIONS["Softmax"],
    "nn.softsign": OPERATIONS["Softsign"],
    "nn.sigmoid": OPERATIONS["Sigmoid"],
    "nn.tanh": OPERATIONS["Tanh"],
    **keras_operations_tensors.TENSORFLOW_FUNCTIONS,
    **keras_operations_logic.TENSORFLOW_FUNCTIONS,
    **keras_operations_math.TENSORFLOW_FUNCTIONS,
    **keras_operations_shapes.TENSORFLOW_FUNCTIONS,
}
"""Name of a TensorFlow function, as TFOpLambda stores it → translation."""
