"""thumb-allocate-registers: gives every value a register; core registers may spill to the frame."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.thumb.allocation import allocate_registers
from ml4f.backend.thumb.allocation_checker import verify_allocation
from ml4f.backend.thumb.function_view import View, write_back
from ml4f.dialects.thumb.structure import FuncOp


@dataclass(frozen=True)
class ThumbAllocateRegistersPass(ModulePass):
    """Allocates over live ranges, and checks the result with the independent checker before it touches the IR.

        %d = thumb.vadd %n, %m : !thumb.s
    becomes
        %d = thumb.vadd %n, %m : !thumb.s<s4>
    """

    name = "thumb-allocate-registers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for func in op.body.block.ops:
            if isinstance(func, FuncOp):
                view = View(func)
                allocate_registers(view.data)
                verify_allocation(view.data)
                write_back(view)
