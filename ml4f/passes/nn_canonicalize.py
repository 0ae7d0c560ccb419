"""nn-canonicalize: removes operations that do nothing, moves padding into windows, brings shapes to a simple form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from ml4f.backend.loop.elementary import monotone
from ml4f.dialects.nn import ActAttr, layer_names, named_location, numbers, shape_of
from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import adopt, main_block, producer, replace, substitute, use_count, without_ones


def _activation(op: nn.ActivationOp) -> bool:
    """`linear` is the identity."""
    if op.act.function != "linear":
        return False
    replace(op, op.x)
    return True


def _reshape(op: nn.ReshapeOp) -> bool:
    """Of a reshape; to the shape that is there already."""
    if shape_of(op.x) == shape_of(op.y):
        replace(op, op.x)
        return True
    inner = producer(op.x)
    if isinstance(inner, nn.ReshapeOp):
        op.operands = [inner.x]
        return True
    return False


def _transpose(op: nn.TransposeOp) -> bool:
    """Of a transpose; that moves only extents of one, which is a reshape."""
    permutation, shape = op.integers("permutation"), shape_of(op.x)
    moved = [axis for axis in permutation if shape[axis] > 1]
    if op.act is None and moved == sorted(moved):
        substitute(op, nn.ReshapeOp.create(operands=[op.x], result_types=[op.y.type]))
        return True
    inner = producer(op.x)
    if isinstance(inner, nn.TransposeOp) and inner.act is None:
        first = inner.integers("permutation")
        op.properties["permutation"] = numbers([first[axis] for axis in permutation])
        op.operands = [inner.x]
        return True
    return False


def _pad(op: nn.PadOp) -> bool:
    """By nothing; of zeros in front of a convolution, which pads itself."""
    if not any((*op.integers("low"), *op.integers("high"))):
        replace(op, op.x)
        return True
    return False


def _window(op: Any) -> bool:
    """Takes over zero padding of height and width."""
    inner = producer(op.x)
    while isinstance(inner, nn.ReshapeOp) and use_count(inner.y) == 1:
        inner = producer(inner.x)
    if (
        not isinstance(inner, nn.PadOp)
        or use_count(inner.y) != 1
        or inner.act is not None
        or inner.value.value.data != 0
    ):
        return False
    padded, shape = shape_of(inner.y), list(shape_of(op.x))
    if without_ones(padded) != without_ones(shape):
        return False
    low, high = [0] * len(shape), [0] * len(shape)
    wide = ([axis for axis, n in enumerate(extents) if n > 1] for extents in (padded, shape))
    for own, axis in zip(*wide, strict=True):  # reshapes in between move only extents of one
        low[axis], high[axis] = inner.integers("low")[own], inner.integers("high")[own]
        shape[axis] = shape_of(inner.x)[own]
    if low[2] or high[2]:
        return False
    pads = op.integers("pads")
    op.properties["pads"] = numbers([pads[0] + low[0], pads[1] + low[1], pads[2] + high[0], pads[3] + high[1]])
    source = inner.x
    if shape_of(source) != tuple(shape):
        made = nn.ReshapeOp.create(operands=[source], result_types=[nn.tensor_type(shape)], location=inner.location)
        op.parent_block().insert_op_before(made, op)
        source = made.y
    op.operands = [source, *op.operands[1:]]
    names = op.attributes.get("source")
    adopt(op, inner)
    if names is not None:
        op.attributes["source"] = names
    else:
        op.attributes.pop("source", None)
    return True


def _max_pool(op: nn.MaxPool2dOp) -> bool:
    """Takes over an activation that never decreases: there are fewer values behind the pool than in front of it."""
    inner = producer(op.x)
    while isinstance(inner, nn.ReshapeOp) and use_count(inner.y) == 1:
        inner = producer(inner.x)
    act = inner.properties.get("act") if inner is not None else None
    if not isinstance(act, ActAttr) or op.act is not None or not monotone(act.function, act.parameter_values):
        return False
    assert inner is not None
    if use_count(inner.results[0]) != 1:
        return False
    if isinstance(inner, nn.ActivationOp):
        names = (*layer_names(inner), *layer_names(op))
        op.location = named_location(*names) if names else op.location
        replace(inner, inner.x)
    else:
        del inner.properties["act"]
        inner.attributes.pop("source", None)
    op.properties["act"] = act
    return True


PATTERNS: dict[type[Operation], Callable[[Any], bool]] = {
    nn.ActivationOp: _activation,
    nn.ReshapeOp: _reshape,
    nn.TransposeOp: _transpose,
    nn.PadOp: _pad,
    nn.Conv2dOp: _window,
    nn.DepthwiseConv2dOp: _window,
    nn.MaxPool2dOp: _max_pool,
}


class NnCanonicalizePass(ModulePass):
    """Applies small rewrites until none applies.

        %1 = nn.pad %0 {low = array<i64: 1, 1, 0>, …}
        %2 = nn.conv2d %1, %w {pads = array<i64: 0, 0, 0, 0>, …}
    becomes
        %2 = nn.conv2d %0, %w {pads = array<i64: 1, 1, 1, 1>, …}
    """

    name = "nn-canonicalize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        changed = block is not None
        while changed:
            changed = False
            for inner in list(block.ops):  # pyright: ignore[reportOptionalMemberAccess]
                pattern = PATTERNS.get(type(inner))
                if inner.parent is not None and pattern is not None:
                    changed = pattern(inner) or changed
