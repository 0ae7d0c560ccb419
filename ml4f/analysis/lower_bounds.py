"""What the elements of a value are never below, whatever the input: interval arithmetic with one end.

It sees through arithmetic that makes values positive: squares, roots, exponentials, means, maxima with constants.
"""

from __future__ import annotations

import math

import numpy as np
from xdsl.ir import Operation, SSAValue

from ml4f.backend.loop.elementary import ACTIVATIONS, monotone
from ml4f.dialects.nn import ActAttr, shape_of
from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import const_array

NEVER_NEGATIVE = frozenset({"abs", "square", "cosh"})
DEPTH = 12
"""Operations that are looked through; beyond, nothing is known."""


def lower_bound(value: SSAValue, depth: int = DEPTH) -> float:
    """The greatest number that the analysis finds no element to be below; -inf if it finds none.

    Rounding to float32 never decreases, so that the bound holds for what the kernels compute, too. Infinite inputs and
    NaN are left out of account.
    """
    constant = const_array(value)
    if constant is not None:
        return float(constant.min()) if constant.size and not np.isnan(constant).any() else -math.inf
    op = value.owner
    if depth == 0 or not isinstance(op, Operation):
        return -math.inf
    bound = _before_activation(op, depth - 1)
    act = op.properties.get("act")
    if isinstance(act, ActAttr):
        bound = _activated(act, bound)
    return -math.inf if math.isnan(bound) else bound  # 0 * inf


def _before_activation(op: Operation, depth: int) -> float:
    if isinstance(op, nn.ReduceOp):
        return _reduced(op, depth)
    if isinstance(op, nn.MulOp) and op.a is op.b:
        return 0.0
    bounds = [lower_bound(operand, depth) for operand in op.operands]
    if isinstance(op, nn.ActivationOp | nn.ReshapeOp | nn.TransposeOp | nn.SliceOp | nn.ConcatOp):
        return min(bounds)
    if isinstance(op, nn.AddOp):
        return sum(bounds)
    if isinstance(op, nn.MulOp):
        return bounds[0] * bounds[1] if min(bounds) >= 0 else -math.inf
    if isinstance(op, nn.MaxOp):
        return max(bounds)
    if isinstance(op, nn.MinOp):
        return min(bounds)
    return 0.0 if isinstance(op, nn.SoftmaxOp) else -math.inf


def _reduced(op: nn.ReduceOp, depth: int) -> float:
    kind = op.kind.data
    if kind in ("sum_square", "mean_square"):
        return 0.0
    bound = lower_bound(op.x, depth)
    if kind == "sum":
        shape = shape_of(op.x)
        return bound * math.prod(shape[axis] for axis in op.integers("axes"))
    if kind == "prod":
        return 0.0 if bound >= 0 else -math.inf
    return bound


def _activated(act: ActAttr, bound: float) -> float:
    function, parameters = act.function, act.parameter_values
    if function in NEVER_NEGATIVE:
        return 0.0
    if function == "sqrt":
        return float(np.sqrt(np.float32(bound))) if bound >= 0 else -math.inf
    if not monotone(function, parameters):
        return -math.inf
    with np.errstate(all="ignore"):
        return float(np.float32(ACTIVATIONS[function].reference(np.array([bound]), *parameters)[0]))
