"""loop-choose-schedule: gives every nest a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.loop.packing import in_full, whole_words
from ml4f.backend.loop.schedules import default_schedule
from ml4f.backend.loop.search import Goal, choose
from ml4f.dialects.loop.attributes import NestAttr, ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp


def nests(module: ModuleOp) -> list[NestOp]:
    """The nests of all kernels in nest form, in loops or not."""
    kernels = [op for op in module.body.block.ops if isinstance(op, KernelOp)]
    return [op for kernel in kernels for op in kernel.walk() if isinstance(op, NestOp)]


@dataclass(frozen=True)
class LoopChooseSchedulePass(ModulePass):
    """Chooses loops, tile and unrolling of every nest that has no schedule yet, for all of them together.

    Prices candidates by expanding them (see `ml4f.backend.loop.candidates`) and weighs cycles against code (`search`);
    `goal` is speed, balanced or size; `max_code` limits bytes of code, `max_pixels` the pixels of a tile, 0: no limit.
    Without `search` a plain default is taken.
    """

    name = "loop-choose-schedule"

    search: bool = True
    goal: Goal = "balanced"
    max_code: int = 0
    max_pixels: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        open_nests = [nest for nest in nests(op) if nest.schedule is None]
        if not self.search:
            for nest in open_nests:
                algorithm = nest.nest.data
                schedule = default_schedule(algorithm)
                if not whole_words(algorithm, schedule):
                    nest.properties["nest"] = NestAttr(in_full(algorithm))
                nest.properties["schedule"] = ScheduleAttr(schedule)
            return
        executed = [nest.nest.data for nest in open_nests for _ in range(nest.count)]
        choice = choose(executed, self.goal, self.max_code, self.max_pixels)
        for nest in open_nests:
            chosen = choice.candidates[nest.nest.data]
            nest.properties["nest"] = NestAttr(chosen.nest)
            nest.properties["schedule"] = ScheduleAttr(chosen.schedule)
