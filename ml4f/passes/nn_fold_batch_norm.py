"""nn-fold-batch-norm: scales and offsets a channel become part of the weights of a linear operation next to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn import shape_of
from ml4f.passes.nn_rewriting import adopt, const_array, main_block, new_const, producer, replace, substitute, use_count

LINEAR = (nn.Conv2dOp, nn.DepthwiseConv2dOp, nn.DenseOp)


@dataclass
class Affine:
    """`y = x * scale + offset` along the last axis, float64; both have one value a channel."""

    x: SSAValue
    scale: np.ndarray
    offset: np.ndarray


def affine_of(op: Operation) -> Affine | None:
    """A batch normalisation, or arithmetic with a constant a channel or one for all; without activation."""
    if op.properties.get("act") is not None:
        return None
    if isinstance(op, nn.BatchNormOp):
        scale, offset = const_array(op.scale), const_array(op.offset)
        if scale is None or offset is None:
            return None
        return Affine(op.x, scale.astype(np.float64), offset.astype(np.float64))
    if not isinstance(op, nn.AddOp | nn.SubOp | nn.MulOp | nn.DivOp):
        return None
    left, right = const_array(op.a), const_array(op.b)
    if (left is None) == (right is None):
        return None
    x = op.b if right is None else op.a
    shape = shape_of(x)
    constant = per_channel(left if right is None else right, shape)  # pyright: ignore[reportArgumentType]
    if constant is None or shape != shape_of(op.y):
        return None
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    if isinstance(op, nn.AddOp):
        return Affine(x, one, constant)
    if isinstance(op, nn.MulOp):
        return Affine(x, constant, zero)
    if isinstance(op, nn.SubOp):
        return Affine(x, one, -constant) if right is not None else Affine(x, -one, constant)
    return Affine(x, 1.0 / constant, zero) if right is not None and constant.all() else None


def per_channel(constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant's values along the last axis of `shape`, None if it varies along others.

    None of infinities too: (1 - x) * inf is not inf - x * inf where x is 0.
    """
    if not np.isfinite(constant).all():
        return None
    if not shape or constant.size not in (1, shape[-1]) or (constant.size > 1 and constant.shape[-1] != shape[-1]):
        return None
    return np.broadcast_to(constant.reshape(-1), (shape[-1],)).astype(np.float64)


def keeps_channels(reshape: nn.ReshapeOp) -> bool:
    """Whether the last axis stays as it is."""
    return shape_of(reshape.x)[-1:] == shape_of(reshape.y)[-1:]


def fold_into_producer(op: Operation, affine: Affine) -> bool:
    """Linear operation, then affine: scale weights, scale and shift bias. A reshape between may keep the channels."""
    linear = producer(affine.x)
    while isinstance(linear, nn.ReshapeOp) and use_count(linear.y) == 1 and keeps_channels(linear):
        linear = producer(linear.x)
    if not isinstance(linear, LINEAR) or use_count(linear.y) != 1 or use_count(affine.x) != 1 or linear.act is not None:
        return False
    weights = const_array(linear.w)
    bias = const_array(linear.bias) if linear.bias is not None else np.zeros(len(affine.scale))
    if weights is None or bias is None:
        return False
    if isinstance(linear, nn.DepthwiseConv2dOp):
        scaled = weights * affine.scale.reshape(weights.shape[2:])
    else:
        scaled = weights * affine.scale
    set_weights(linear, scaled, bias * affine.scale + affine.offset)
    adopt(linear, op)
    replace(op, affine.x)
    return True


def set_weights(linear: nn.Conv2dOp | nn.DepthwiseConv2dOp | nn.DenseOp, weights: np.ndarray, bias: np.ndarray) -> None:
    """New weights and bias; a bias of zeros is left out."""
    operands = [linear.x, new_const(linear, weights)]
    if np.any(bias):
        operands.append(new_const(linear, bias))
    linear.operands = operands


def merge(op: Operation, affine: Affine) -> bool:
    """Two affine operations become one."""
    inner = producer(affine.x)
    if inner is None or use_count(affine.x) != 1:
        return False
    first = affine_of(inner)
    if first is None:
        return False
    scale = first.scale * affine.scale
    offset = first.offset * affine.scale + affine.offset
    operands = [first.x, new_const(op, scale), new_const(op, offset)]
    substitute(op, nn.BatchNormOp.create(operands=operands, result_types=[op.results[0].type]))
    return True


def fold_into_user(op: Operation, affine: Affine) -> bool:
    """Affine, then linear operation (perhaps behind a reshape): exact unless an offset meets zero padding."""
    uses = list(op.results[0].uses)
    if len(uses) != 1:
        return False
    user = uses[0].operation
    value = op.results[0]
    reshape = None
    if isinstance(user, nn.ReshapeOp) and use_count(user.y) == 1:
        reshape, value = user, user.y
        user = next(iter(user.y.uses)).operation
    if not isinstance(user, LINEAR) or user.x is not value:
        return False
    weights = const_array(user.w)
    bias = const_array(user.bias) if user.bias is not None else 0.0
    if weights is None or bias is None:
        return False
    inputs = weights.shape[0] if isinstance(user, nn.DenseOp) else weights.shape[2]
    if (isinstance(user, nn.Conv2dOp) and user.groups.value.data > 1) or inputs % len(affine.scale):
        return False
    if not isinstance(user, nn.DenseOp) and (
        inputs != len(affine.scale) or (any(user.integers("pads")) and affine.offset.any())
    ):
        return False
    scale, offset = (np.tile(v, inputs // len(v)) for v in (affine.scale, affine.offset))
    column = (inputs, 1)
    shift = weights * offset.reshape(column)
    if isinstance(user, nn.DepthwiseConv2dOp):
        shift = shift.sum(axis=(0, 1)).reshape(-1)
    else:
        shift = shift.reshape(-1, weights.shape[-1]).sum(axis=0)
    if reshape is not None:
        reshape.operands = [affine.x]
    else:
        user.operands = [affine.x, *user.operands[1:]]
    set_weights(user, weights * scale.reshape(column), bias + shift)
    source = user.attributes.get("source")
    adopt(user, op)
    user.attributes.pop("source", None)
    if source is not None:
        user.attributes["source"] = source
    op.detach()
    op.erase()
    return True


def simplify(op: nn.BatchNormOp) -> None:
    """A scale of ones is an addition, an offset of zeros a multiplication."""
    scale, offset = const_array(op.scale), const_array(op.offset)
    if scale is None or offset is None:
        return
    new: Operation | None = None
    properties = {"act": op.act} if op.act is not None else {}
    if not offset.any():
        new = nn.MulOp.create(operands=[op.x, op.scale], result_types=[op.y.type], properties=properties)
    elif (scale == 1).all():
        new = nn.AddOp.create(operands=[op.x, op.offset], result_types=[op.y.type], properties=properties)
    if new is not None:
        substitute(op, new)


class NnFoldBatchNormPass(ModulePass):
    """Folds scales and offsets into convolutions and dense layers before or behind them.

        %1 = nn.conv2d %0, %w {…}
        %2 = nn.batch_norm %1, %scale, %offset
    becomes
        %2 = nn.conv2d %0, %scaled_w, %offset {…}
    """

    name = "nn-fold-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        changed = block is not None
        while changed:
            changed = False
            for inner in list(block.ops):  # pyright: ignore[reportOptionalMemberAccess]
                affine = affine_of(inner) if inner.parent is not None else None
                if affine is not None:
                    folded = fold_into_producer(inner, affine) or merge(inner, affine) or fold_into_user(inner, affine)
                    changed = changed or folded
        for inner in list(block.ops) if block is not None else ():
            if isinstance(inner, nn.BatchNormOp):
                simplify(inner)
