"""thumb-verify-allocation: checks the registers of every function, as they stand in the IR."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.thumb.allocation_checker import verify_allocation
from ml4f.backend.thumb.function_view import View
from ml4f.dialects.thumb.structure import FuncOp


class ThumbVerifyAllocationPass(ModulePass):
    """Walks each function and tracks which value every register holds; changes nothing, fails on the first wrong use.

    %d = thumb.vadd %n, %m : !thumb.s<s4>     error when s4 still holds a value that is read later
    """

    name = "thumb-verify-allocation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for func in op.body.block.ops:
            if isinstance(func, FuncOp):
                view = View(func)
                view.registers()
                verify_allocation(view.data)
