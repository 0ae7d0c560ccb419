"""Keras layers that are neither windows nor shapes: dense, normalisation, arithmetic, training only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx

from ml4f.frontend.keras_activations import activate
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_masks import masking

NORMALIZATION_EPSILON = 1e-7
"""Keras's epsilon(): the least standard deviation that the layer Normalization divides by."""


def identity(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Layers that do nothing at inference."""
    return inputs[0]


def dense(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Along the last axis of an input of any rank."""
    (x,) = inputs
    if x.rank < 2:
        raise Refused("the input should have a dimension besides the batch")
    units = c.whole("units")
    expected = [("kernel", (x.shape[-1], units))] + ([("bias", (units,))] if c.get("use_bias", True) else [])
    kernel, *bias = c.weights(expected)
    rows = c.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    y = c.emit("Gemm", [rows, kernel, *bias], (rows.shape[0], units))
    return activate(c, c.reshape(y, (*x.shape[:-1], units)))


def einsum_dense(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """A product with a kernel by an equation, as abc,cd->abd; the first letter is the batch."""
    (x,) = inputs
    equation = str(c.get("equation", "")).replace(" ", "")
    read, _, made = equation.partition("->")
    own, _, kernel = read.partition(",")
    if "." in equation or not made or len(own) != x.rank or own[:1] != made[:1] or own[:1] in kernel:
        raise Refused(f"its equation is {equation[:80]}; one letter for each dimension, the batch first, is supported")
    outer = c.get("output_shape")
    outer = [outer] if isinstance(outer, int) else list(outer or [])
    sizes = dict(zip(own, x.shape, strict=True))
    for letter, extent in zip(made[1:], outer, strict=True):
        sizes.setdefault(letter, extent or 0)
    bias_axes = c.get("bias_axes") or ""
    shape = [sizes[letter] for letter in made]
    expected: list[tuple[str, Sequence[int]]] = [("kernel", [sizes[letter] for letter in kernel])]
    if bias_axes:
        expected.append(("bias", [sizes[a] if a in bias_axes else 1 for a in made[made.index(bias_axes[0]) :]]))
    weights, *bias = c.weights(expected)
    y = c.emit("Einsum", [x, weights], shape, equation=equation)
    return activate(c, c.binary("Add", y, bias[0]) if bias else y)


def batch_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """With the moving mean and variance; the axis is counted with the batch."""
    (x,) = inputs
    axis = c.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if len(axes) != 1 or not isinstance(axes[0], int) or not axes[0] % x.rank >= 1:
        raise Refused(f"its axis is {str(axis)[:80]}; one axis besides the batch is supported")
    axis = axes[0] % x.rank
    channels = (x.shape[axis],)
    names = [name for name, used in (("gamma", c.get("scale", True)), ("beta", c.get("center", True))) if used]
    found = dict(
        zip([*names, "mean", "variance"], c.weights([(n, channels) for n in (*names, "mean", "variance")]), strict=True)
    )
    gamma = found.get("gamma", np.ones(channels, dtype=np.float32))
    beta = found.get("beta", np.zeros(channels, dtype=np.float32))
    epsilon = c.number("epsilon", 1e-3)
    if (found["variance"] + np.float32(epsilon or 0.0) <= 0).any():
        raise Refused("its variance is negative or zero; train the model again")
    order = [0, axis, *(a for a in range(1, x.rank) if a != axis)]
    moved = c.transpose(x, order)
    y = c.emit(
        "BatchNormalization", [moved, gamma, beta, found["mean"], found["variance"]], moved.shape, epsilon=epsilon
    )
    return c.transpose(y, [order.index(a) for a in range(x.rank)])


def rescaling(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """x * scale + offset; both are numbers or lists along the last axis."""
    (x,) = inputs
    scale, offset = (
        np.asarray(c.get(key, default), dtype=np.float32) for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    y = c.binary("Mul", x, scale) if np.any(scale != 1) else x
    y = c.binary("Add", y, offset) if np.any(offset != 0) else y
    if y.shape != x.shape:
        raise Refused(f"its scale {list(scale.shape)} and offset {list(offset.shape)} do not fit the input")
    return y


def normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """(x - mean) / standard deviation, the statistics in the configuration or in the weights."""
    (x,) = inputs
    axis = c.get("axis", []) if c.layer.config.get("axis", -1) is not None else []
    axes = sorted(a % x.rank for a in ([axis] if isinstance(axis, int) else axis))
    shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
    stored = [x.shape[a] for a in axes]
    if c.get("mean") is not None:
        mean, variance = (np.asarray(c.get(key), dtype=np.float32) for key in ("mean", "variance"))
        mean, variance = (
            np.broadcast_to(v.reshape(-1) if v.size > 1 else v.reshape(()), stored) for v in (mean, variance)
        )
    else:
        mean, variance = c.weights([("mean", stored), ("variance", stored), ("count", ())], optional=1)
    deviation = np.maximum(np.sqrt(variance), np.float32(NORMALIZATION_EPSILON)).reshape(shape)
    mean = np.asarray(mean, dtype=np.float32).reshape(shape)
    if not (np.isfinite(deviation).all() and np.isfinite(mean).all()):
        raise Refused("its mean or variance is not a finite number, or the variance is negative")
    if c.get("invert", False):
        return c.binary("Add", c.binary("Mul", x, deviation), mean)
    return c.binary("Div", c.binary("Sub", x, mean), deviation)


# Layers with several inputs


def _fold(op_type: str) -> Callable[[LayerContext, Sequence[Value]], Value]:
    """Elementwise from left to right."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> Value:
        if len(inputs) < 2:
            raise Refused("it needs two inputs")
        result = inputs[0]
        for other in inputs[1:]:
            result = c.binary(op_type, *_aligned(c, result, other))
        return result

    return translate


def _aligned(c: LayerContext, x: Value, y: Value) -> tuple[Value, Value]:
    """Keras broadcasts from the axis behind the batch on: dimensions of 1 are put there."""
    rank = max(x.rank, y.rank)
    shapes = [(1, *(1,) * (rank - v.rank), *v.shape[1:]) for v in (x, y)]
    return c.reshape(x, shapes[0]), c.reshape(y, shapes[1])


def _average(c: LayerContext, inputs: Sequence[Value]) -> Value:
    return c.binary("Mul", _fold("Add")(c, inputs), 1.0 / len(inputs))


def _concatenate(c: LayerContext, inputs: Sequence[Value]) -> Value:
    axis = int(c.get("axis", -1)) % inputs[0].rank
    shapes = [v.shape for v in inputs]
    if axis == 0 or any(s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes):
        raise Refused(f"the inputs cannot be joined along axis {axis}")
    if len(inputs) == 1:
        return inputs[0]
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    return c.emit("Concat", list(inputs), shape, axis=axis)


def _dot(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Products of two inputs summed along an axis of each; `normalize` makes them vectors of length 1 before."""
    if len(inputs) != 2:
        raise Refused("it needs two inputs")
    axes = c.get("axes")
    axes = [axes, axes] if isinstance(axes, int) else list(axes or [])
    if len(axes) != 2 or any(not isinstance(a, int) or a % v.rank == 0 for a, v in zip(axes, inputs, strict=True)):
        raise Refused(f"its axes are {str(c.get('axes'))[:80]}; one axis of each input besides the batch is supported")
    x, y = inputs
    i, j = axes[0] % x.rank, axes[1] % y.rank
    if x.shape[i] != y.shape[j]:
        raise Refused(f"axes of {x.shape[i]} and {y.shape[j]} elements")
    if c.get("normalize", False):
        x, y = _unit(c, x, i), _unit(c, y, j)
    left = c.transpose(x, [*(a for a in range(x.rank) if a != i), i])
    right = c.transpose(y, [0, j, *(a for a in range(1, y.rank) if a != j)])
    rows, columns = left.shape[1:-1], right.shape[2:]
    a = c.reshape(left, (1, prod(rows), x.shape[i]))
    b = c.reshape(right, (1, x.shape[i], prod(columns)))
    made = c.emit("MatMul", [a, b], (1, prod(rows), prod(columns)))
    return c.reshape(made, (1, *(rows + columns or (1,))))


def _unit(c: LayerContext, x: Value, axis: int) -> Value:
    shape = [1 if a == axis else n for a, n in enumerate(x.shape)]
    total = c.emit("ReduceSum", [c.binary("Mul", x, x), np.array([axis], dtype=np.int64)], shape, keepdims=1)
    return c.binary("Div", x, c.pointwise("Sqrt", c.binary("Max", total, 1e-12)))


def _embedding(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Rows of a table, by numbers that the model's input gives as floats."""
    (x,) = inputs
    rows, width = c.whole("input_dim"), c.whole("output_dim")
    (table,) = c.weights([("embeddings", (rows, width))])
    numbers = c.emit("Cast", [x], x.shape, to=onnx.TensorProto.INT64)
    return c.emit("Gather", [table, numbers], (*x.shape, width), axis=0)


PICTURES_IN_TRAINING = (
    *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter"),
    *("RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation"),
    *("RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
)
"""Layers that change pictures while a model is trained, so that it sees more of them."""
TRAINING_ONLY = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
    *("GaussianNoise", "ActivityRegularization", "Identity", "InputLayer"),
    *PICTURES_IN_TRAINING,
)
"""Layers that hand their input on at inference."""

LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "BatchNormalization": batch_normalization,
    "BatchNormalizationV1": batch_normalization,
    "BatchNormalizationV2": batch_normalization,
    "Rescaling": rescaling,
    "Normalization": normalization,
    "Add": _fold("Add"),
    "Subtract": _fold("Sub"),
    "Multiply": _fold("Mul"),
    "Maximum": _fold("Max"),
    "Minimum": _fold("Min"),
    "Average": _average,
    "Concatenate": _concatenate,
    "Dot": _dot,
    "Embedding": _embedding,
    "Masking": masking,
    **dict.fromkeys(TRAINING_ONLY, identity),
}
"""Keras class → translation."""
