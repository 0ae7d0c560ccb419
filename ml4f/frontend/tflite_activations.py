"""Activations that are fused into operators of TensorFlow Lite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ml4f.frontend.keras_builder import Refused, Value
from ml4f.frontend.tflite_onnx import OperatorContext

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
"""By their number in the schema."""


def activated(c: OperatorContext, x: Value) -> Value:
    """The activation that is fused into an operator."""
    name = ACTIVATIONS[c.operator.option("FusedActivationFunction", 0)]
    if name == "SIGN_BIT":
        raise Refused("the fused activation SIGN_BIT")
    return ACTIVATE[name](c, x)


def clip(c: OperatorContext, x: Value, low: float, high: float) -> Value:
    return c.emit("Clip", [x, *(np.asarray(bound, dtype=np.float32) for bound in (low, high))], x.shape)


ACTIVATE: dict[str, Callable[[OperatorContext, Value], Value]] = {
    "NONE": lambda c, x: x,
    "RELU": lambda c, x: c.pointwise("Relu", x),
    "RELU_N1_TO_1": lambda c, x: clip(c, x, -1, 1),
    "RELU6": lambda c, x: clip(c, x, 0, 6),
    "TANH": lambda c, x: c.pointwise("Tanh", x),
}
