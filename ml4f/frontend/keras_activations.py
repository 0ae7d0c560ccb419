"""Keras activations as ONNX nodes: by name (`ACTIVATIONS`), or as layers with parameters (`LAYERS`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
"""Klambauer et al., "Self-Normalizing Neural Networks", 2017."""
LEAKY_RELU_LAYER = 0.3
"""The layer's default slope, in every version of Keras."""
LEAKY_RELU_FUNCTION = 0.2
"""The default slope of the activation named "leaky_relu"."""

Activation = Callable[[LayerContext, Value], Value]


def simple(op_type: str, **attributes: Any) -> Activation:
    """An activation that is one ONNX operator."""
    return lambda c, x: c.pointwise(op_type, x, **attributes)


def _clip(c: LayerContext, x: Value, low: float | None, high: float | None) -> Value:
    if low is None and high is None:
        return x
    bounds = ["" if bound is None else np.float32(bound) for bound in (low, high)]
    arrays = [bound if isinstance(bound, str) else np.asarray(bound) for bound in bounds]
    return c.emit("Clip", [x, *arrays] if high is not None else [x, arrays[0]], x.shape)


def hard_sigmoid(c: LayerContext, x: Value) -> Value:
    """Keras 3: clip(x / 6 + 0.5), Keras 2 and TF.js: clip(x / 5 + 0.5)."""
    return c.pointwise("HardSigmoid", x, alpha=1 / 6 if c.layer.keras >= 3 else 0.2, beta=0.5)


def silu(c: LayerContext, x: Value) -> Value:
    """x * sigmoid(x)."""
    return c.binary("Mul", x, c.pointwise("Sigmoid", x))


def _log_sigmoid(c: LayerContext, x: Value) -> Value:
    return c.pointwise("Neg", c.pointwise("Softplus", c.pointwise("Neg", x)))


def _log_softmax(c: LayerContext, x: Value) -> Value:
    if x.rank < 2:
        raise Refused("log_softmax needs an input with a dimension besides the batch")
    return c.pointwise("LogSoftmax", x, axis=-1)


def softmax(c: LayerContext, x: Value, axis: int) -> Value:
    """Along one axis."""
    if x.rank < 2:
        raise Refused("softmax needs an input with a dimension besides the batch")
    return c.pointwise("Softmax", x, axis=axis)


HIDDEN = 1e9
"""What Keras takes for the size of infinity where a softmax should give nothing."""


def hidden(c: LayerContext, x: Value, mask: Value | np.ndarray) -> Value:
    """-1e9 where a mask, which is broadcast to x, has zeros."""
    if np.broadcast_shapes(x.shape, mask.shape) != x.shape:
        raise Refused(f"a mask {list(mask.shape)} for {list(x.shape)}")
    below = c.binary("Mul", c.binary("Sub", mask, 1.0), HIDDEN) if isinstance(mask, Value) else (mask - 1) * HIDDEN
    return c.binary("Add", c.binary("Mul", x, mask), below)


def _tanh_shrink(c: LayerContext, x: Value) -> Value:
    return c.binary("Sub", x, c.pointwise("Tanh", x))


def square_plus(c: LayerContext, x: Value, b: float = 4.0) -> Value:
    """(x + sqrt(x * x + b)) / 2."""
    root = c.pointwise("Sqrt", c.binary("Add", c.binary("Mul", x, x), b))
    return c.binary("Mul", c.binary("Add", x, root), 0.5)


def soft_shrink(c: LayerContext, x: Value, threshold: float = 0.5) -> Value:
    """max(x - threshold, 0) - max(-x - threshold, 0)."""
    above = c.pointwise("Relu", c.binary("Sub", x, threshold))
    below = c.pointwise("Relu", c.binary("Sub", -threshold, x))
    return c.binary("Sub", above, below)


def hard_shrink(c: LayerContext, x: Value, threshold: float = 0.5) -> Value:
    """x where its size is above the threshold, else 0."""
    above = c.pointwise("ThresholdedRelu", x, alpha=threshold)
    below = c.pointwise("ThresholdedRelu", c.pointwise("Neg", x), alpha=threshold)
    return c.binary("Sub", above, below)


def _sparse_plus(c: LayerContext, x: Value) -> Value:
    """0 below -1, (x + 1)^2 / 4 up to 1, x above."""
    middle = c.binary("Add", _clip(c, x, -1.0, 1.0), 1.0)
    above = c.pointwise("Relu", c.binary("Sub", x, 1.0))
    return c.binary("Add", c.binary("Mul", c.binary("Mul", middle, middle), 0.25), above)


def relu(
    c: LayerContext, x: Value, max_value: float | None = None, slope: float = 0.0, threshold: float = 0.0
) -> Value:
    """min(x, max_value) from the threshold on, slope * (x - threshold) below it."""
    if max_value is not None and max_value < threshold:
        raise Refused(f"its max_value {max_value:g} is below its threshold {threshold:g}")
    if threshold == 0 and slope == 0:
        return c.pointwise("Relu", x) if max_value is None else _clip(c, x, 0.0, max_value)
    if threshold == 0:
        return _clip(c, c.pointwise("LeakyRelu", x, alpha=slope), None, max_value)
    y = c.pointwise("ThresholdedRelu", x, alpha=threshold)
    if slope:
        below = c.pointwise("Relu", c.binary("Sub", threshold, x))
        y = c.binary("Sub", y, c.binary("Mul", below, slope))
    return _clip(c, y, None, max_value)


ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda c, x: x,
    "relu": simple("Relu"),
    "relu6": lambda c, x: _clip(c, x, 0.0, 6.0),
    "leaky_relu": simple("LeakyRelu", alpha=LEAKY_RELU_FUNCTION),
    "elu": simple("Elu", alpha=1.0),
    "selu": simple("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "celu": simple("Celu", alpha=1.0),
    "sigmoid": simple("Sigmoid"),
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": simple("HardSwish"),
    "hard_swish": simple("HardSwish"),
    "hard_tanh": lambda c, x: _clip(c, x, -1.0, 1.0),
    "tanh": simple("Tanh"),
    "tanh_shrink": _tanh_shrink,
    "soft_shrink": soft_shrink,
    "hard_shrink": hard_shrink,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": simple("HardSigmoid", alpha=0.5, beta=0.5),
    "softplus": simple("Softplus"),
    "softsign": simple("Softsign"),
    "squareplus": square_plus,
    "silu": silu,
    "swish": silu,
    "gelu": simple("Gelu", approximate="none"),
    "gelu_new": simple("Gelu", approximate="tanh"),
    "mish": simple("Mish"),
    "exponential": simple("Exp"),
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _log_softmax,
    "softmax": lambda c, x: softmax(c, x, -1),
}
"""What `activation="…"` may say → translation."""


def activate(c: LayerContext, x: Value, key: str = "activation") -> Value:
    """The activation that a layer's configuration names, "linear" if it names none."""
    return apply_activation(c, x, c.get(key, "linear"))


def apply_activation(c: LayerContext, x: Value, activation: Any) -> Value:
    """An activation's name, or a serialised function or layer."""
    if isinstance(activation, dict):
        name, config = activation.get("class_name"), activation.get("config")
        if isinstance(config, str) and name in ("function", "Function", None):
            module = str(activation.get("module") or "builtins").split(".")[0]
            if config in ACTIVATIONS and module in ("builtins", "keras", "tf_keras", "tensorflow"):
                return ACTIVATIONS[config](c, x)
            raise Refused(f"its activation is the function '{config[:80]}', whose code is not in the file")
        if name in LAYERS and isinstance(config, dict):
            if name == "PReLU":
                raise Refused("its activation is a PReLU layer; add it behind as a layer of its own")
            return LAYERS[name](_with_config(c, config), [x])
        registered = {_registered(key): key for key in ACTIVATIONS}
        if isinstance(name, str) and _registered(name) in registered:
            return ACTIVATIONS[registered[_registered(name)]](c, x)
        raise Refused(f"its activation is of the class '{str(name)[:80]}', whose code is not in the file")
    if not isinstance(activation, str):
        raise Refused(f"its activation is {str(activation)[:80]}, which is not a name")
    if activation in ACTIVATIONS:
        return ACTIVATIONS[activation](c, x)
    known = ", ".join(ACTIVATIONS)
    raise Refused(f"there is no activation '{activation[:80]}' in ml4f, only {known}")


def _registered(name: str) -> str:
    return name.replace("_", "").lower()


def _with_config(c: LayerContext, config: dict[str, Any]) -> LayerContext:
    """The context with another layer's configuration: of an activation that is a layer without weights."""
    from dataclasses import replace

    return replace(c, layer=replace(c.layer, config=config))


# Layers


def _activation_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    return activate(c, inputs[0])


def _relu_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    slope = c.number("negative_slope", 0.0)
    return relu(c, inputs[0], c.number("max_value", None), slope or 0.0, c.number("threshold", 0.0) or 0.0)


def _leaky_relu_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    slope = c.number(("negative_slope", "alpha"), LEAKY_RELU_LAYER)
    return c.pointwise("LeakyRelu", inputs[0], alpha=slope)


def _elu_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    return c.pointwise("Elu", inputs[0], alpha=c.number("alpha", 1.0))


def _thresholded_relu_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    return c.pointwise("ThresholdedRelu", inputs[0], alpha=c.number("theta", 1.0))


def _prelu_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """One slope an element, but for the axes that share theirs (counted with the batch)."""
    (x,) = inputs
    shared = c.get("shared_axes", [])
    axes = [shared] if isinstance(shared, int) else list(shared)
    if not all(isinstance(axis, int) and axis % x.rank >= 1 for axis in axes):
        raise Refused(f"its shared_axes are {str(shared)[:80]} for an input with {x.rank} dimensions")
    shape = [1 if axis in [a % x.rank for a in axes] else n for axis, n in enumerate(x.shape)][1:]
    (slope,) = c.weights([("alpha", shape)])
    return c.emit("PRelu", [x, slope], x.shape)


def _softmax_layer(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Along `axis`, counted with the batch; several axes are joined. Keras 3 gives zeros where a mask has them."""
    (x,) = inputs
    axis = c.get("axis", -1)
    axes = [axis] if isinstance(axis, int) else list(axis)
    axes = sorted({a % x.rank for a in axes})
    if 0 in axes:
        raise Refused("softmax over the batch")
    mask = c.mask
    made = _softmax_over(c, x if mask is None else hidden(c, x, mask), axes)
    return made if mask is None or c.layer.keras < 3 else c.binary("Mul", made, mask)


def _softmax_over(c: LayerContext, x: Value, axes: Sequence[int]) -> Value:
    if len(axes) == 1:
        return softmax(c, x, axes[0])
    kept = [a for a in range(x.rank) if a not in axes]
    order = [*kept, *axes]
    moved = c.transpose(x, order)
    joined = c.reshape(moved, (*(x.shape[a] for a in kept), math.prod(x.shape[a] for a in axes)))
    back = c.reshape(softmax(c, joined, -1), moved.shape)
    return c.transpose(back, [order.index(a) for a in range(x.rank)])


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "Activation": _activation_layer,
    "ReLU": _relu_layer,
    "LeakyReLU": _leaky_relu_layer,
    "PReLU": _prelu_layer,
    "ELU": _elu_layer,
    "ThresholdedReLU": _thresholded_relu_layer,
    "Softmax": _softmax_layer,
}
"""Keras class → translation."""
