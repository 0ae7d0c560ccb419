"""loop-fuse-pool: a pool becomes part of the kernel that computes its input."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.loop.fusion import fuse_pool
from ml4f.backend.loop.nest import Nest
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.schedules import pooled_points
from ml4f.backend.loop.search import choose_schedule
from ml4f.passes.loop_rewriting import Program, fuse_calls

FREE_WINDOW = 9
"""Accumulators of one result up to which a tile is still wide enough to be as fast as without the pool."""

LARGEST_WINDOW = 20
"""More accumulators of one result do not fit the registers."""

MORE_CYCLES = 1.05
"""What not storing the pool's input may cost, for windows in between."""


def worthwhile(producer: Nest, pool: Nest, fused: Nest) -> bool:
    """Whether the fused kernel fits the registers and is about as fast as the two; it saves what lies between them."""
    points = pooled_points(fused)
    if points > LARGEST_WINDOW:
        return False
    best = choose_schedule(fused)[1]
    cost = price(best.nest, best.schedule)
    if points <= FREE_WINDOW or cost is None or not cost.feasible:
        return cost is not None and cost.feasible
    return best.cycles <= MORE_CYCLES * (choose_schedule(producer)[1].cycles + choose_schedule(pool)[1].cycles)


class LoopFusePoolPass(ModulePass):
    """Fuses where windows do not overlap and the pool is the only reader; a tile then holds whole windows.

        loop.nest … : <parallel (oy = 8, f = 4) reduce (c = 3) mac x["3*oy + c"], w["4*c + f"], out["4*oy + f"]>
        loop.nest … : <parallel (oy = 4, c = 4) reduce (ky = 2) max x["8*oy + c + 4*ky"], out["4*oy + c"]>
    becomes
        loop.nest … : <parallel (oy = 4, py = 2, f = 4) reduce (c = 3) mac x["6*oy + 3*py + c"], w["4*c + f"],
                       out["4*oy + f"] then pool_max>
    """

    name = "loop-fuse-pool"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        program = Program(op)
        for call in program.calls:
            pool = program.nest(call)
            if pool is None or not pool.has("x"):
                continue
            producer_call = program.only_producer(call, "x")
            producer = program.nest(producer_call) if producer_call is not None else None
            if producer_call is None or producer is None:
                continue
            fused = fuse_pool(producer, pool)
            if fused is not None and worthwhile(producer, pool, fused):
                fuse_calls(program, producer_call, call, fused)
