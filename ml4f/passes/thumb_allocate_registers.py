"""thumb-allocate-registers: gives every value a register; core registers may spill to the frame."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.thumb.allocation import AllocationError, allocate_registers
from ml4f.backend.thumb.function_view import View, write_back
from ml4f.backend.thumb.splitting import SHORTER, split_multiple_loads, split_multiple_stores
from ml4f.dialects.thumb.structure import FuncOp


def allocate(func: FuncOp) -> View:
    """Allocate one function; long multiple loads, then stores, are split as far as needed for their registers to be
    found.
    """
    shorter = iter([(split, length) for split in (split_multiple_loads, split_multiple_stores) for length in SHORTER])
    while True:
        view = View(func)
        try:
            allocate_registers(view.data)
            return view
        except AllocationError:
            if not any(split(func, length) for split, length in shorter):
                raise


class ThumbAllocateRegistersPass(ModulePass):
    """Allocates over live ranges. `thumb-verify-allocation` checks the result, as it then stands in the IR.

        %d = thumb.vadd %n, %m : !thumb.s
    becomes
        %d = thumb.vadd %n, %m : !thumb.s<s4>
    """

    name = "thumb-allocate-registers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for func in op.body.block.ops:
            if isinstance(func, FuncOp):
                write_back(allocate(func))
