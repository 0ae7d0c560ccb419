"""thumb-legalize-ties: inserts the copies without which no register allocation exists."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.thumb.function_view import View, write_back
from ml4f.backend.thumb.legalisation import legalize_ties
from ml4f.dialects.thumb.structure import FuncOp


class ThumbLegalizeTiesPass(ModulePass):
    """Copies an operand that must share a register with a value alive at the same time.

    %d = thumb.vfma %acc, %n, %m : !thumb.s        %0 = thumb.vmov %acc : !thumb.s
    … uses %acc                              →     %d = thumb.vfma %0, %n, %m : !thumb.s
    """

    name = "thumb-legalize-ties"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for func in op.body.block.ops:
            if isinstance(func, FuncOp):
                view = View(func)
                if legalize_ties(view.data):
                    write_back(view)
