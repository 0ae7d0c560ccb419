"""nn-remove-dead-channels: channels that are constant, or that nobody needs, are not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp, f64, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from ml4f.analysis.channel_ranges import Channels, channel_ranges, without_activation
from ml4f.dialects.nn import numbers, shape_of, tensor_type
from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import const_array, new_const

Masks = dict[SSAValue, np.ndarray]
"""For each value which of its channels are left out."""

LARGER_MAGNITUDES = (2.0**64, 2.0**32, 2.0**24, 2.0**20)
"""Tried to say up to which inputs the same channels are constant."""


def reads_all(op: Operation) -> bool:
    """Operations that sum over their input's channels, and so can do without constant ones."""
    return (isinstance(op, nn.Conv2dOp) and op.groups.value.data == 1) or isinstance(op, nn.DenseOp)


def passes_on(op: Operation) -> bool:
    """Operations whose output channels depend on one input channel each; a scalar has none."""
    if not shape_of(op.results[0]):
        return False
    if isinstance(op, nn.ReshapeOp):
        before, after = shape_of(op.x), shape_of(op.y)
        return bool(before and after) and after[-1] in (before[-1], int(np.prod(before)))
    return isinstance(op, nn.DepthwiseConv2dOp | nn.MaxPool2dOp | nn.AvgPool2dOp | nn.ActivationOp | nn.BatchNormOp)


def has_constant_parameters(op: Operation) -> bool:
    """Whether all operands but the first are constants."""
    return all(const_array(value) is not None for value in op.operands[1:])


def multiplicity(op: Operation) -> tuple[int, int]:
    """(repeats, per): the output's channels are `repeats` rounds of the input's, each of which has `per` in a row."""
    inputs, outputs = shape_of(op.operands[0])[-1], shape_of(op.results[0])[-1]
    return (outputs // inputs, 1) if isinstance(op, nn.ReshapeOp) else (1, outputs // inputs)


def choose(function: FuncOp, ranges: dict[SSAValue, Channels]) -> Masks:
    """The largest consistent set of channels that can be left out; every value keeps at least one."""
    ops = [op for op in function.body.block.ops if isinstance(op, nn.NnOp)]
    removed: Masks = {}
    for op in ops:
        supported = (reads_all(op) or passes_on(op)) and has_constant_parameters(op)
        y = op.results[0]
        removed[y] = np.full(ranges[y].constant.shape, supported and not _returned(y))
        if not supported:
            for value in op.operands:
                removed[value] = np.zeros(shape_of(value)[-1] if shape_of(value) else 1, bool)
    for argument in function.body.block.args:
        removed[argument] = np.zeros(ranges[argument].constant.shape, bool)
    while True:
        before = sum(int(mask.sum()) for mask in removed.values())
        for op in reversed(ops):
            if removed.get(op.results[0]) is not None and op.operands and op.operands[0] in removed:
                _restrict(op, removed, ranges)
        for mask in removed.values():
            if mask.size and mask.all():
                mask[0] = False
        if sum(int(mask.sum()) for mask in removed.values()) == before:
            return removed


def _returned(value: SSAValue) -> bool:
    return any(isinstance(use.operation, ReturnOp) for use in value.uses)


def _restrict(op: Operation, removed: Masks, ranges: dict[SSAValue, Channels]) -> None:
    """Take back what this operation does not allow."""
    x, y = op.operands[0], op.results[0]
    if reads_all(op):
        weights = const_array(op.operands[1])
        if weights is not None:
            flat = weights.reshape(-1, *weights.shape[-2:])
            unread = ~flat[:, :, ~removed[y]].any(axis=(0, 2))
            removed[x] &= ranges[x].constant | unread
    elif passes_on(op):
        repeats, per = multiplicity(op)
        parts = removed[y].reshape(repeats, -1, per)
        removed[x] &= parts.all(axis=(0, 2))
        parts &= removed[x][None, :, None]


class _Rewriter:
    """Builds the operations anew whose inputs or outputs lose channels."""

    def __init__(self, removed: Masks, ranges: dict[SSAValue, Channels]):
        self.removed = removed
        self.ranges = ranges
        self.new: dict[SSAValue, SSAValue] = {}

    def lost(self, value: SSAValue) -> np.ndarray:
        mask = self.removed.get(value)
        return mask if mask is not None else np.zeros(shape_of(value)[-1] if shape_of(value) else 1, bool)

    def run(self, function: FuncOp) -> None:
        stale: list[Operation] = []
        for op in list(function.body.block.ops):
            if not isinstance(op, nn.NnOp) or not op.operands:
                op.operands = [self.new.get(value, value) for value in op.operands]
                continue
            if not self.lost(op.operands[0]).any() and not self.lost(op.results[0]).any():
                op.operands = [self.new.get(value, value) for value in op.operands]
                continue
            self.new[op.results[0]] = self.sum(op) if reads_all(op) else self.pass_on(op)
            stale.append(op)
        for op in reversed(stale):
            op.detach()
            op.erase()

    def emit(
        self, old: Any, operands: list[SSAValue], shape: tuple[int, ...], properties: dict[str, Attribute]
    ) -> SSAValue:
        op = type(old).create(
            operands=operands,
            result_types=[tensor_type(shape)],
            properties=properties,
            attributes=dict(old.attributes),
            location=old.location,
        )
        kept = np.flatnonzero(~self.lost(old.results[0]))
        if len(kept) < shape_of(old.results[0])[-1]:
            op.attributes["channels"] = numbers(kept.tolist())
        old.parent_block().insert_op_before(op, old)
        return op.results[0]

    def sum(self, op: Any) -> SSAValue:
        """A convolution or dense layer: constant inputs move into the bias, or into a map that is added."""
        x, y = op.operands[0], op.results[0]
        inputs, outputs = ~self.lost(x), ~self.lost(y)
        weights = const_array(op.w)
        assert weights is not None
        shape = (*shape_of(y)[:-1], int(outputs.sum()))
        base = self.constant_part(op, x, weights)[..., outputs]
        kept = new_const(op, weights[..., inputs, :][..., outputs])
        operands = [self.new.get(x, x), kept]
        properties = dict(op.properties)
        uniform = base.reshape(-1, base.shape[-1])
        if (uniform == uniform[0]).all():
            if uniform[0].any():
                operands.append(new_const(op, uniform[0]))
            return self.emit(op, operands, shape, properties)
        act = properties.pop("act", None)
        partial = self.emit(op, operands, shape, properties)
        partial.owner.attributes.pop("source", None)  # pyright: ignore[reportAttributeAccessIssue]
        addition = nn.AddOp.create(
            operands=[partial, new_const(op, base)],
            result_types=[tensor_type(shape)],
            properties={} if act is None else {"act": act},
            attributes=dict(partial.owner.attributes),  # pyright: ignore[reportAttributeAccessIssue]
            location=op.location,
        )
        if "source" in op.attributes:
            addition.attributes["source"] = op.attributes["source"]
        partial.owner.attributes.pop("channels", None)  # pyright: ignore[reportAttributeAccessIssue]
        op.parent_block().insert_op_before(addition, op)
        return addition.y

    def constant_part(self, op: Any, x: SSAValue, weights: np.ndarray) -> np.ndarray:
        """What the channels that are left out contribute, and the bias: [1, …, F] or one value a position."""
        channels = self.ranges[x]
        dropped = np.where(self.lost(x) & channels.constant, channels.values, np.float32(0))
        bias = const_array(op.bias) if op.bias is not None else None
        if not dropped.any():
            outputs = shape_of(op.results[0])[-1]
            return (np.zeros(outputs, np.float32) if bias is None else bias).reshape(1, outputs)
        return without_activation(op, [dropped, weights, *([] if bias is None else [bias])])

    def pass_on(self, op: Any) -> SSAValue:
        """Everything that works channel by channel."""
        x, y = op.operands[0], op.results[0]
        outputs = ~self.lost(y)
        operands = [self.new.get(x, x)]
        for value in op.operands[1:]:
            array = const_array(value)
            assert array is not None
            if isinstance(op, nn.DepthwiseConv2dOp) and array.ndim == 4:
                operands.append(new_const(op, array[:, :, ~self.lost(x), :]))
            else:
                operands.append(new_const(op, array[..., outputs]))
        return self.emit(op, operands, (*shape_of(y)[:-1], int(outputs.sum())), dict(op.properties))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class NnRemoveDeadChannelsPass(ModulePass):
    """Leaves out channels that no input up to `input_magnitude` can change, and channels whose weights are all zero.

    A channel is constant if what depends on the input cannot change its rounded value (interval arithmetic in float64).
    Constant channels become part of the next bias, through depthwise layers and pools too; where zero padding makes
    them differ from position to position, a constant tensor is added instead. How many channels went, and the largest
    magnitude for which that is exact, stands on the function.

        %1 = nn.conv2d %0, %w, %b {act = #nn.act<"relu">, …} : tensor<4x4x8xf32>     (three channels are constant)
        %2 = nn.conv2d %1, %v {…}
    becomes
        %1 = nn.conv2d %0, %w5, %b5 {act = #nn.act<"relu">, …} : tensor<4x4x5xf32>
        %2 = nn.conv2d %1, %v5, %constants {…}
    """

    name = "nn-remove-dead-channels"

    input_magnitude: float = 65536.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [f for f in op.body.block.ops if isinstance(f, FuncOp) and f.sym_name.data == "main"]:
            self.rewrite(function)

    def rewrite(self, function: FuncOp) -> None:
        """One function."""
        ranges = channel_ranges(function, self.input_magnitude)
        removed = choose(function, ranges)
        made = [v for v in removed if isinstance(v.owner, nn.Conv2dOp | nn.DepthwiseConv2dOp | nn.DenseOp)]
        count = sum(int(removed[value].sum()) for value in made)
        if not any(mask.any() for mask in removed.values()):
            return
        bound = next((m for m in LARGER_MAGNITUDES if same(removed, lambda: _retry(function, m))), self.input_magnitude)  # noqa: B023
        function.attributes["removed_channels"] = IntegerAttr(count, i64)
        function.attributes["computed_channels"] = IntegerAttr(sum(removed[v].size for v in made) - count, i64)
        function.attributes["exact_up_to"] = FloatAttr(max(bound, self.input_magnitude), f64)
        _Rewriter(removed, ranges).run(function)


def _retry(function: FuncOp, magnitude: float) -> Masks:
    return choose(function, channel_ranges(function, magnitude))


def same(removed: Masks, other: Callable[[], Masks]) -> bool:
    """Whether a second choice is equal."""
    again = other()
    return all(np.array_equal(mask, again[value]) for value, mask in removed.items())
