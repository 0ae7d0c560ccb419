"""thumb-schedule: reorders the instructions of each straight-line block against a core's cycle table."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.thumb.function_view import View, write_back
from ml4f.backend.thumb.schedule_checker import order_of, verify_schedule
from ml4f.backend.thumb.scheduling import schedule_function
from ml4f.backend.thumb.timing import core_named
from ml4f.dialects.thumb.structure import FuncOp


@dataclass(frozen=True)
class ThumbSchedulePass(ModulePass):
    """Local scheduling in source order with a small window; never slower than the source by the static cost.

    An independent checker looks at the new order before it touches the IR.

        %a = thumb.vmul %x, %y : !thumb.s          %a = thumb.vmul %x, %y : !thumb.s
        %b = thumb.vadd %c, %a : !thumb.s    →     %d = thumb.vmul %z, %y : !thumb.s
        %d = thumb.vmul %z, %y : !thumb.s          %b = thumb.vadd %c, %a : !thumb.s
    """

    name = "thumb-schedule"
    core: str = "cortex-m4"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        rules = core_named(self.core).rules
        for func in op.body.block.ops:
            if isinstance(func, FuncOp) and func.entry is None:
                view = View(func)
                before = order_of(view.data)
                if schedule_function(view.data, rules).changed:
                    verify_schedule(before, view.data)
                    write_back(view)
