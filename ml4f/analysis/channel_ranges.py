"""Ranges and constant channels of every value of an nn function, for inputs up to a given magnitude.

Interval arithmetic a channel (the last axis), in float64. A channel is constant if the part of its sum that depends on
the input cannot change the rounded float32 result; its value may still differ from position to position, where zero
padding cuts a window. Operations that are not listed here have no bound, so nothing behind them is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ml4f.backend.loop.elementary import ACTIVATIONS, monotone
from ml4f.dialects.nn import ActAttr, shape_of
from ml4f.dialects.nn import ops as nn
from ml4f.interpreters.nn import evaluate
from ml4f.passes.nn_rewriting import const_array

BELOW_INPUT = frozenset({"silu", "gelu", "gelu_tanh", "mish", "hard_swish"})
"""`LOWEST <= f(x) <= max(x, 0)`: x times something between 0 and 1."""

LOWEST = -0.4
"""Below the minimum of every function in BELOW_INPUT (hard_swish: -0.375)."""

SAFETY = 2.0
"""The input-dependent part is taken this many times: partial sums may exceed the sum that counts."""


@dataclass(frozen=True, eq=False)
class Channels:
    """`low`, `high`: [C], of all positions; `constant`: [C]; `values`: the tensor, valid where constant."""

    low: np.ndarray
    high: np.ndarray
    constant: np.ndarray
    values: np.ndarray

    @staticmethod
    def varying(shape: tuple[int, ...], low: np.ndarray, high: np.ndarray) -> Channels:
        """No channel is constant."""
        return Channels(low, high, np.zeros(len(low), bool), np.zeros(shape, np.float32))

    @property
    def known(self) -> np.ndarray:
        """The tensor with zeros in channels that are not constant; a scalar is one channel."""
        return np.where(self.constant, self.values, np.float32(0)).reshape(self.values.shape)


def channel_count(value: SSAValue) -> int:
    """The extent of the last axis."""
    shape = shape_of(value)
    return shape[-1] if shape else 1


def unbounded(value: SSAValue) -> Channels:
    """Nothing is known."""
    count = channel_count(value)
    return Channels.varying(shape_of(value), np.full(count, -np.inf), np.full(count, np.inf))


def constant_channels(array: np.ndarray) -> Channels:
    """Of an nn.const."""
    flat = array.reshape(-1, array.shape[-1] if array.ndim else 1).astype(np.float64)
    return Channels(flat.min(axis=0), flat.max(axis=0), np.ones(flat.shape[1], bool), array)


def activated(op: Operation, values: np.ndarray) -> np.ndarray:
    """Values through the operation's activation, rounded to float32; what is too large becomes infinite."""
    act = op.properties.get("act")
    with np.errstate(all="ignore"):
        if isinstance(act, ActAttr):
            values = np.asarray(ACTIVATIONS[act.function].reference(values, *act.parameter_values))
        return values.astype(np.float32)


def is_monotone(op: Operation) -> bool:
    """Whether the operation's activation never decreases."""
    act = op.properties.get("act")
    return not isinstance(act, ActAttr) or monotone(act.function, act.parameter_values)


def activated_range(op: Operation, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the activation's result for inputs between `low` and `high`."""
    if is_monotone(op):
        return activated(op, low).astype(np.float64), activated(op, high).astype(np.float64)
    act = op.properties.get("act")
    if isinstance(act, ActAttr) and act.function in BELOW_INPUT:
        return np.full_like(low, LOWEST), np.maximum(high, 0.0)
    return np.full_like(low, -np.inf), np.full_like(high, np.inf)


def finished(op: Operation, base: np.ndarray, low: np.ndarray, high: np.ndarray) -> Channels:
    """Through the activation: the result is `base` [..., C] plus something between `low` and `high` [C]."""
    axes = tuple(range(base.ndim - 1))
    with np.errstate(all="ignore"):
        # With zero among them `base` is one of the results, and so what a constant channel holds.
        extremes = np.minimum(low, 0.0), np.maximum(high, 0.0)
        ends = [(base + SAFETY * end).astype(np.float32) for end in extremes]
        smallest, largest = (base + low).min(axis=axes), (base + high).max(axis=axes)
        if is_monotone(op):
            ends = [activated(op, end) for end in ends]
        smallest, largest = activated_range(op, smallest, largest)
        constant = np.asarray(ends[0] == ends[1]).all(axis=axes)
        values = activated(op, base.astype(np.float32))
    if constant.any():
        flat = values.reshape(-1, np.size(constant)).astype(np.float64)
        smallest = np.where(constant, flat.min(axis=0), smallest)
        largest = np.where(constant, flat.max(axis=0), largest)
    return Channels(smallest, largest, constant, values)  # pyright: ignore[reportArgumentType]


def spread(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of `sum over c of weights[c, f] * x[c]` for low <= x <= high; zero weights ignore infinite bounds."""
    positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)

    def product(matrix: np.ndarray, bound: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            terms = matrix * bound[:, None]
        return np.where(matrix == 0, 0.0, terms).sum(axis=0)

    return product(positive, low) + product(negative, high), product(positive, high) + product(negative, low)


def without_activation(op: Any, operands: list[np.ndarray]) -> np.ndarray:
    """The operation's result before its activation."""
    bare = type(op).create(
        operands=op.operands,
        result_types=op.result_types,
        properties={key: value for key, value in op.properties.items() if key != "act"},
    )
    result = evaluate(bare, operands)
    bare.drop_all_references()
    return result


def base_of(op: Any, x: Channels, weights: np.ndarray) -> np.ndarray:
    """The result before the activation for zeros in all channels that vary; [1, …, F] where it is uniform."""
    bias = const_array(op.bias) if op.bias is not None else None
    outputs = shape_of(op.results[0])[-1]
    if not np.any(x.known):
        base = np.zeros(outputs, np.float32) if bias is None else bias
        return base.reshape((1,) * (len(shape_of(op.results[0])) - 1) + (outputs,))
    return without_activation(op, [x.known, weights, *([] if bias is None else [bias])])


def live_bounds(x: Channels, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the channels that vary, zero for the others; padding adds zeros to what may be read."""
    low, high = np.where(x.constant, 0.0, x.low), np.where(x.constant, 0.0, x.high)
    return (np.minimum(low, 0), np.maximum(high, 0)) if padded else (low, high)


def _conv2d(op: nn.Conv2dOp, x: Channels) -> Channels | None:
    weights = const_array(op.w)
    if weights is None or (op.bias is not None and const_array(op.bias) is None):
        return None
    low, high = live_bounds(x, any(op.integers("pads")))
    groups = op.groups.value.data
    per_group, filters = weights.shape[2], weights.shape[3] // groups
    bounds = []
    for g in range(groups):
        inputs = slice(g * per_group, (g + 1) * per_group)
        part = weights[..., g * filters : (g + 1) * filters].astype(np.float64)
        taps = part.reshape(-1, filters)
        repeats = taps.shape[0] // per_group
        bounds.append(spread(taps, np.tile(low[inputs], repeats), np.tile(high[inputs], repeats)))
    ends = [np.concatenate([b[i] for b in bounds]) for i in (0, 1)]
    return finished(op, _full(op, base_of(op, x, weights)), *ends)


def _depthwise(op: nn.DepthwiseConv2dOp, x: Channels) -> Channels | None:
    weights = const_array(op.w)
    if weights is None or (op.bias is not None and const_array(op.bias) is None):
        return None
    low, high = live_bounds(x, any(op.integers("pads")))
    taps = weights.reshape(-1, *weights.shape[2:]).astype(np.float64)
    positive, negative = np.maximum(taps, 0).sum(axis=0), np.minimum(taps, 0).sum(axis=0)
    with np.errstate(all="ignore"):
        ends = [
            np.nan_to_num(positive * a[:, None], nan=0.0, posinf=np.inf, neginf=-np.inf)
            + np.nan_to_num(negative * b[:, None], nan=0.0, posinf=np.inf, neginf=-np.inf)
            for a, b in ((low, high), (high, low))
        ]
    return finished(op, _full(op, base_of(op, x, weights)), ends[0].ravel(), ends[1].ravel())


def _dense(op: nn.DenseOp, x: Channels) -> Channels | None:
    weights = const_array(op.w)
    if weights is None or (op.bias is not None and const_array(op.bias) is None):
        return None
    low, high = live_bounds(x, False)
    return finished(op, _full(op, base_of(op, x, weights)), *spread(weights.astype(np.float64), low, high))


def _full(op: Any, base: np.ndarray) -> np.ndarray:
    return np.broadcast_to(base, shape_of(op.results[0])).astype(np.float64)


def _pool(op: Any, x: Channels) -> Channels | None:
    """The result lies between the smallest and the largest input, or zero where padding counts."""
    low, high = live_bounds(x, isinstance(op, nn.AvgPool2dOp))
    result = evaluate(op, [x.values])
    ends = activated_range(op, low, high)
    flat = result.reshape(-1, result.shape[-1]).astype(np.float64)
    smallest, largest = np.where(x.constant, flat.min(axis=0), ends[0]), np.where(x.constant, flat.max(axis=0), ends[1])
    return Channels(smallest, largest, x.constant, result)


def _activation(op: nn.ActivationOp, x: Channels) -> Channels | None:
    low, high = live_bounds(x, False)
    return _merged(x, finished(op, np.broadcast_to(x.known, shape_of(op.y)).astype(np.float64), low, high))


def _merged(x: Channels, result: Channels) -> Channels:
    return Channels(result.low, result.high, result.constant | x.constant, result.values)


def _batch_norm(op: nn.BatchNormOp, x: Channels) -> Channels | None:
    scale, offset = const_array(op.scale), const_array(op.offset)
    if scale is None or offset is None:
        return None
    low, high = live_bounds(x, False)
    with np.errstate(all="ignore"):
        products = np.nan_to_num(np.stack([low * scale, high * scale]), nan=0.0, posinf=np.inf, neginf=-np.inf)
    base = x.known.astype(np.float64) * scale + offset
    return _merged(x, finished(op, base, products.min(axis=0), products.max(axis=0)))


def _reshape(op: nn.ReshapeOp, x: Channels) -> Channels | None:
    """With the same last axis; or flattened, where every element is a channel."""
    before, after = shape_of(op.x), shape_of(op.y)
    if before and after and before[-1] == after[-1]:
        return Channels(x.low, x.high, x.constant, x.values.reshape(after))
    if after and after[-1] == x.values.size:
        repeats = x.values.size // len(x.low)
        return Channels(
            np.tile(x.low, repeats), np.tile(x.high, repeats), np.tile(x.constant, repeats), x.values.reshape(after)
        )
    return _moved(op, x)


def _moved(op: Any, x: Channels) -> Channels | None:
    """Elements change places: every channel may hold any of them."""
    count = channel_count(op.results[0])
    low, high = float(x.low.min()), float(x.high.max())
    if isinstance(op, nn.PadOp):
        value = float(op.value.value.data)
        low, high = min(low, value), max(high, value)
    return _ranged(op, np.full(count, low), np.full(count, high))


def _ranged(op: Any, low: np.ndarray, high: np.ndarray) -> Channels:
    """Nothing constant, bounds before the activation."""
    with np.errstate(all="ignore"):
        return Channels.varying(shape_of(op.results[0]), *activated_range(op, low, high))


def _softmax(op: nn.SoftmaxOp, x: Channels) -> Channels | None:
    return _ranged(op, np.zeros(len(x.low)), np.ones(len(x.low)))


def _corners(a: Channels, b: Channels, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The results at the four pairs of ends; a product of zero and infinity is zero."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(
            np.stack([np.broadcast_arrays(combine(p, q), p, q)[0] for p in (a.low, a.high) for q in (b.low, b.high)]),
            nan=0.0,
            posinf=np.inf,
            neginf=-np.inf,
        )


CORNERS: dict[type[Operation], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: np.multiply,
    nn.MaxOp: np.maximum,
    nn.MinOp: np.minimum,
}
"""Operations of two operands whose extremes lie at the ends of the operands' ranges."""


def _binary(op: nn.BinaryOp, a: Channels, b: Channels) -> Channels:
    ends = _corners(a, b, CORNERS[type(op)])
    count = channel_count(op.y)
    return _ranged(op, np.broadcast_to(ends.min(axis=0), (count,)), np.broadcast_to(ends.max(axis=0), (count,)))


def _concat(op: nn.ConcatOp, parts: list[Channels]) -> Channels:
    if op.axis.value.data == len(shape_of(op.y)) - 1:
        return _ranged(op, np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))
    return _ranged(op, np.min([p.low for p in parts], axis=0), np.max([p.high for p in parts], axis=0))


TRANSFER: dict[type[Operation], Callable[[Any, Channels], Channels | None]] = {
    nn.Conv2dOp: _conv2d,
    nn.DepthwiseConv2dOp: _depthwise,
    nn.DenseOp: _dense,
    nn.MaxPool2dOp: _pool,
    nn.AvgPool2dOp: _pool,
    nn.ActivationOp: _activation,
    nn.BatchNormOp: _batch_norm,
    nn.ReshapeOp: _reshape,
    nn.TransposeOp: _moved,
    nn.SliceOp: _moved,
    nn.PadOp: _moved,
    nn.SoftmaxOp: _softmax,
}
"""What each operation does to its first operand's channels."""


def channel_ranges(function: FuncOp, magnitude: float) -> dict[SSAValue, Channels]:
    """Of every value, for network inputs between -magnitude and magnitude."""
    ranges: dict[SSAValue, Channels] = {}
    for argument in function.body.block.args:
        bound = np.full(channel_count(argument), float(magnitude))
        ranges[argument] = Channels.varying(shape_of(argument), -bound, bound)
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            break
        if isinstance(op, nn.ConstOp):
            ranges[op.result] = constant_channels(op.array())
            continue
        found = transferred(op, [ranges[value] for value in op.operands])
        ranges[op.results[0]] = found if found is not None else unbounded(op.results[0])
    return ranges


def transferred(op: Operation, operands: list[Channels]) -> Channels | None:
    """The result's channels, None if nothing is known of the operation."""
    if type(op) in CORNERS:
        return _binary(op, *operands)  # pyright: ignore[reportArgumentType]
    if isinstance(op, nn.ConcatOp):
        return _concat(op, operands)
    transfer = TRANSFER.get(type(op))
    return transfer(op, operands[0]) if transfer is not None else None
