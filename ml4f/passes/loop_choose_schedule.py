"""loop-choose-schedule: gives every nest a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.loop.schedules import default_schedule
from ml4f.backend.loop.search import choose_schedule
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp


def nests(module: ModuleOp) -> list[NestOp]:
    """The nests of all kernels in nest form."""
    kernels = [op for op in module.body.block.ops if isinstance(op, KernelOp)]
    return [op for kernel in kernels for op in kernel.body.block.ops if isinstance(op, NestOp)]


@dataclass(frozen=True)
class LoopChooseSchedulePass(ModulePass):
    """Chooses loops, tile and unrolling of every nest that has no schedule yet.

    Prices candidates by expanding them (see `ml4f.backend.loop.search`); without `search` a plain default is taken.
    """

    name = "loop-choose-schedule"

    search: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for nest in nests(op):
            if nest.schedule is None:
                algorithm = nest.nest.data
                schedule = choose_schedule(algorithm)[0] if self.search else default_schedule(algorithm)
                nest.properties["schedule"] = ScheduleAttr(schedule)
