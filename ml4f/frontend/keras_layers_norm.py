"""Keras layers that normalise by the input's own statistics: LayerNormalization, GroupNormalization and their like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value

UNIT_EPSILON = 1e-12
"""UnitNormalization divides by the root of at least this: TensorFlow's l2_normalize."""


def _axes(c: LayerContext, x: Value) -> list[int]:
    axis = c.get("axis", -1)
    given = axis if isinstance(axis, list | tuple) else [axis]
    axes = sorted({a % x.rank for a in given if isinstance(a, int)})
    if not axes or 0 in axes:
        raise Refused(f"its axis is {str(axis)[:80]}; axes besides the batch are supported")
    return axes


def _reduced(c: LayerContext, op_type: str, x: Value, axes: Sequence[int]) -> Value:
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    return c.emit(op_type, [x, np.array(axes, dtype=np.int64)], shape, keepdims=1)


def _standardised(c: LayerContext, x: Value, axes: Sequence[int], epsilon: float, centred: bool) -> Value:
    """x less its mean, divided by the root of its mean square and epsilon, along some axes."""
    if centred:
        x = c.binary("Sub", x, _reduced(c, "ReduceMean", x, axes))
    square = _reduced(c, "ReduceMean", c.binary("Mul", x, x), axes)
    return c.binary("Div", x, c.pointwise("Sqrt", c.binary("Add", square, epsilon)))


def _scaled(c: LayerContext, x: Value, shape: Sequence[int], names: Sequence[str]) -> Value:
    """Times gamma, plus beta, where the layer has them; `shape` broadcasts along x, axes without weights are 1."""
    stored = c.store.tensors(c.layer)
    fitting = stored[0].shape if stored and prod(stored[0].shape) == prod(shape) else tuple(n for n in shape if n > 1)
    for name, values in zip(names, c.weights([(name, fitting) for name in names]), strict=True):
        x = c.binary("Add" if name == "beta" else "Mul", x, values.reshape(tuple(shape)))
    return x


def _parameters(c: LayerContext) -> list[str]:
    return [name for name, used in (("gamma", c.get("scale", True)), ("beta", c.get("center", True))) if used]


def layer_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Over one or several axes, with a scale and an offset for each of their elements."""
    (x,) = inputs
    axes = _axes(c, x)
    centred = not c.get("rms_scaling", False)
    y = _standardised(c, x, axes, c.number("epsilon", 1e-3) or 0.0, centred)
    names = _parameters(c) if centred else _parameters(c)[:1]
    return _scaled(c, y, [n if a in axes else 1 for a, n in enumerate(x.shape)], names)


def rms_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Without a mean, and without an offset."""
    (x,) = inputs
    axes = _axes(c, x)
    y = _standardised(c, x, axes, c.number("epsilon", 1e-6) or 0.0, centred=False)
    return _scaled(c, y, [n if a in axes else 1 for a, n in enumerate(x.shape)], ["gamma"])


def group_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Over all positions and the channels of a group; -1 groups: one for each channel."""
    (x,) = inputs
    axes = _axes(c, x)
    channels, groups = x.shape[axes[0]], c.get("groups", 32)
    groups = channels if groups == -1 else groups
    if len(axes) != 1 or not isinstance(groups, int) or groups < 1 or channels % groups:
        raise Refused(f"{channels} channels in {str(groups)[:80]} groups")
    axis = axes[0]
    order = [0, axis, *(a for a in range(1, x.rank) if a != axis)]
    moved = c.transpose(x, order)
    grouped = c.reshape(moved, (1, groups, x.shape[axis] // groups * prod(moved.shape[2:])))
    y = c.reshape(_standardised(c, grouped, [2], c.number("epsilon", 1e-3) or 0.0, centred=True), moved.shape)
    y = c.transpose(y, [order.index(a) for a in range(x.rank)])
    return _scaled(c, y, [n if a == axis else 1 for a, n in enumerate(x.shape)], _parameters(c))


def unit_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Divided by the root of the sum of squares."""
    (x,) = inputs
    total = _reduced(c, "ReduceSum", c.binary("Mul", x, x), _axes(c, x))
    return c.binary("Div", x, c.pointwise("Sqrt", c.binary("Max", total, UNIT_EPSILON)))


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value]] = {
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization,
    "UnitNormalization": unit_normalization,
}
"""Keras class → translation."""
