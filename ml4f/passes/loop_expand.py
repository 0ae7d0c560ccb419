"""loop-expand: nests become loops with unrolled bodies, as their schedules say."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ml4f.backend.loop.builder import ScheduleError
from ml4f.backend.loop.expand import expand
from ml4f.backend.loop.op_builder import OpBuilder
from ml4f.dialects.loop.structure import KernelOp, NestOp


def expand_kernel(kernel: KernelOp) -> None:
    """Replaces the nests of a kernel, in place."""
    name = kernel.sym_name.data
    spaces = dict(zip(kernel.body.block.args, (s.data for s in kernel.spaces), strict=True))
    for nest in [op for op in kernel.walk() if isinstance(op, NestOp)]:
        if nest.schedule is None:
            raise PassFailedException(f"kernel @{name} has no schedule; run loop-choose-schedule first")
        block = nest.parent_block()
        assert block is not None
        behind = list(block.ops)
        behind = behind[behind.index(nest) + 1 :]
        for op in behind:
            op.detach()
        pointers = list(nest.pointers)
        loop = nest.loop
        builder = OpBuilder(block, pointers, [spaces[p] for p in pointers])  # pyright: ignore[reportArgumentType]
        if loop is not None:
            builder.move_along(loop.induction_variable, nest.steps)
        try:
            expand(nest.nest.data, nest.schedule.data, builder)
        except ScheduleError as e:
            raise PassFailedException(f"kernel @{name}: {e}") from e
        block.add_ops(behind)
        nest.detach()
        nest.erase()


class LoopExpandPass(ModulePass):
    """Executes schedules: loops, unrolled bodies, a load for each address, products, epilogue.

        loop.nest %x, %out : <parallel (d0 = 8) copy x["d0"], out["d0"]> schedule <loops (d0[2 * 4]) …>
    becomes
        loop.for %i times 4 { %a = loop.load %x[%i] … %b = loop.load %x[%i] … loop.store %a, %out[%i] … }
    """

    name = "loop-expand"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for kernel in op.body.block.ops:
            if isinstance(kernel, KernelOp):
                expand_kernel(kernel)
