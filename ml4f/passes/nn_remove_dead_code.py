"""nn-remove-dead-code: removes operations whose results nobody reads."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.passes import ModulePass

from ml4f.passes.nn_rewriting import main_block, use_count


class NnRemoveDeadCodePass(ModulePass):
    """Removes unread operations, last first.

    %w = nn.const {…}      nobody reads %w: gone
    """

    name = "nn-remove-dead-code"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        for inner in reversed(list(block.ops)) if block is not None else ():
            if not isinstance(inner, ReturnOp) and all(use_count(result) == 0 for result in inner.results):
                inner.detach()
                inner.erase()
