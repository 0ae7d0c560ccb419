"""nn-fuse-activation: an activation becomes part of the operation that computes its input."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import adopt, main_block, producer, replace, use_count


class NnFuseActivationPass(ModulePass):
    """Fuses when the input has no other reader; a reshape between the two is no obstacle.

        %1 = nn.conv2d %0, %w {…}
        %2 = nn.activation %1 {act = #nn.act<"relu">}
    becomes
        %2 = nn.conv2d %0, %w {act = #nn.act<"relu">, …}
    """

    name = "nn-fuse-activation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        for inner in list(block.ops) if block is not None else ():
            if isinstance(inner, nn.ActivationOp):
                fuse(inner)


def fuse(op: nn.ActivationOp) -> None:
    """Move one activation into its producer, if there is one that takes it."""
    value, through = op.x, []
    while isinstance(producer(value), nn.ReshapeOp) and use_count(value) == 1:
        through.append(value)
        value = producer(value).x  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    target = producer(value)
    if target is None or use_count(value) != 1 or "act" not in type(target).get_irdl_definition().properties:  # pyright: ignore[reportAttributeAccessIssue]
        return
    if target.properties.get("act") is not None:
        return
    target.properties["act"] = op.act
    adopt(target, op)
    replace(op, op.x)
