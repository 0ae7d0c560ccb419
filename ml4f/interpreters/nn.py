"""Executes nn functions in numpy: sums in float64, rounded to float32 once an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ml4f.backend.loop import elementary_power
from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.dialects.nn import ActAttr, shape_of
from ml4f.dialects.nn import ops as nn
from ml4f.errors import InternalError
from ml4f.interpreters import nn_contractions, nn_lookup, nn_recurrent

Array = np.ndarray


def _windows(op: Any, x: Array, kernel: Sequence[int], fill: float) -> Array:
    """All windows: [oh, ow, c, kh, kw]."""
    strides, dilations, pads = (op.integers(name) for name in ("strides", "dilations", "pads"))
    padded = np.pad(x, ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), constant_values=fill)
    reach = [(kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    views = sliding_window_view(padded, reach, axis=(0, 1))
    return views[:: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]


def _biased(y: Array, operands: Sequence[Array]) -> Array:
    return y + operands[2] if len(operands) > 2 else y


def _conv2d(op: nn.Conv2dOp, operands: Sequence[Array]) -> Array:
    x, w = operands[0].astype(np.float64), operands[1].astype(np.float64)
    groups = op.groups.value.data
    views = _windows(op, x, w.shape[:2], 0.0)
    per_group, filters = w.shape[2], w.shape[3] // groups
    parts = []
    for g in range(groups):
        inputs = views[:, :, g * per_group : (g + 1) * per_group]
        weights = w[..., g * filters : (g + 1) * filters]
        parts.append(np.einsum("ijckl,klcf->ijf", inputs, weights, optimize=True))
    return _biased(np.concatenate(parts, axis=2), operands)


def _depthwise(op: nn.DepthwiseConv2dOp, operands: Sequence[Array]) -> Array:
    x, w = operands[0].astype(np.float64), operands[1].astype(np.float64)
    y = np.einsum("ijckl,klcm->ijcm", _windows(op, x, w.shape[:2], 0.0), w, optimize=True)
    return _biased(y.reshape(*y.shape[:2], -1), operands)


def _dense(op: nn.DenseOp, operands: Sequence[Array]) -> Array:
    return _biased(operands[0].astype(np.float64) @ operands[1].astype(np.float64), operands)


def _max_pool(op: nn.MaxPool2dOp, operands: Sequence[Array]) -> Array:
    return _windows(op, operands[0], op.integers("kernel"), -np.inf).max(axis=(3, 4))


def _avg_pool(op: nn.AvgPool2dOp, operands: Sequence[Array]) -> Array:
    kernel = op.integers("kernel")
    total = _windows(op, operands[0].astype(np.float64), kernel, 0.0).sum(axis=(3, 4))
    x = operands[0]
    ones = np.ones((*x.shape[:2], 1))
    if op.count_include_pad is None or not op.count_include_pad.value.data:
        return total / np.maximum(_windows(op, ones, kernel, 0.0).sum(axis=(3, 4)), 1)
    pads = op.integers("pads")
    counted = op.integers("counted_pads") if op.counted_pads is not None else pads
    padded = np.pad(ones, ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    top, left = pads[0] - counted[0], pads[1] - counted[1]
    padded[top : pads[0] + x.shape[0] + counted[2], left : pads[1] + x.shape[1] + counted[3]] = 1
    strides, dilations = op.integers("strides"), op.integers("dilations")
    reach = [(kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    views = sliding_window_view(padded, reach, axis=(0, 1))
    counts = views[:: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]].sum(axis=(3, 4))
    return total / np.maximum(counts, 1)


def _softmax(op: nn.SoftmaxOp, operands: Sequence[Array]) -> Array:
    x = operands[0].astype(np.float64)
    axis = op.axis.value.data
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _prelu(op: nn.PreluOp, operands: Sequence[Array]) -> Array:
    x, slope = operands
    return np.where(x < 0, x * slope, x)


def _pad(op: nn.PadOp, operands: Sequence[Array]) -> Array:
    pairs = list(zip(op.integers("low"), op.integers("high"), strict=True))
    return np.pad(operands[0], pairs, constant_values=op.value.value.data)


def _slice(op: nn.SliceOp, operands: Sequence[Array]) -> Array:
    where = [op.integers(name) for name in ("start", "strides", "sizes")]
    picks = [start + step * np.arange(size) for start, step, size in zip(*where, strict=True)]
    return operands[0][np.ix_(*picks)] if picks else operands[0]


def _reduce(op: nn.ReduceOp, operands: Sequence[Array]) -> Array:
    functions: dict[str, Callable[..., Any]] = {
        "sum": np.sum,
        "mean": np.mean,
        "max": np.max,
        "min": np.min,
        "prod": np.prod,
    }
    kind, _, square = op.kind.data.partition("_")
    x = operands[0].astype(np.float64)
    return functions[kind](x * x if square else x, axis=op.integers("axes"))


_EVALUATORS: dict[type[Operation], Callable[[Any, Sequence[Array]], Array]] = {
    nn.ConstOp: lambda op, operands: op.array(),
    nn.Conv2dOp: _conv2d,
    nn.DepthwiseConv2dOp: _depthwise,
    nn.DenseOp: _dense,
    nn.MaxPool2dOp: _max_pool,
    nn.AvgPool2dOp: _avg_pool,
    nn.BatchNormOp: lambda op, v: v[0].astype(np.float64) * v[1] + v[2],
    nn.ActivationOp: lambda op, v: v[0],
    nn.PreluOp: _prelu,
    nn.SoftmaxOp: _softmax,
    nn.AddOp: lambda op, v: v[0] + v[1],
    nn.SubOp: lambda op, v: v[0] - v[1],
    nn.MulOp: lambda op, v: v[0] * v[1],
    nn.DivOp: lambda op, v: v[0] / v[1],
    nn.MaxOp: lambda op, v: np.maximum(v[0], v[1]),
    nn.MinOp: lambda op, v: np.minimum(v[0], v[1]),
    nn.PowOp: lambda op, v: elementary_power.reference(*v),
    nn.WhereOp: lambda op, v: np.where(v[1] != 0, v[0], np.float32(0)),
    nn.PadOp: _pad,
    nn.SliceOp: _slice,
    nn.ConcatOp: lambda op, v: np.concatenate(v, axis=op.axis.value.data),
    nn.ReduceOp: _reduce,
    nn.ReshapeOp: lambda op, v: v[0].reshape(shape_of(op.y)),
    nn.TransposeOp: lambda op, v: v[0].transpose(op.integers("permutation")),
}


MORE_EVALUATORS = {**nn_contractions.EVALUATORS, **nn_lookup.EVALUATORS, **nn_recurrent.EVALUATORS}


def evaluate(op: Operation, operands: Sequence[Array]) -> Array:
    """The result of one operation, float32; its activation is applied."""
    evaluator = _EVALUATORS.get(type(op)) or MORE_EVALUATORS.get(type(op))
    if evaluator is None:
        raise InternalError(f"{op.name} cannot be executed")
    with np.errstate(all="ignore"):
        result = np.asarray(evaluator(op, operands))
        act = op.properties.get("act")
        if isinstance(act, ActAttr):
            result = ACTIVATIONS[act.function].reference(result, *act.parameter_values)
        return np.asarray(result, dtype=np.float32)


def run_nn(
    module: ModuleOp, inputs: Sequence[Array], observe: Callable[[Operation, Array], Array | None] | None = None
) -> list[Array]:
    """Execute `@main`; `observe` is called with every operation and its result, and may return another one."""
    function = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    values: dict[SSAValue, Array] = {}
    for arg, x in zip(function.body.block.args, inputs, strict=True):
        values[arg] = np.asarray(x, dtype=np.float32).reshape(shape_of(arg))
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            return [values[value] for value in op.operands]
        result = evaluate(op, [values[value] for value in op.operands])
        other = None if observe is None else observe(op, result)
        values[op.results[0]] = result if other is None else other
    raise InternalError("@main does not return")
