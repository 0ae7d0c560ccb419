"""loop-fuse-elementwise: residual additions, scales and the like join the kernel that computes their input."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.backend.loop.fusion import fuse_elementwise, reading_first
from ml4f.backend.loop.nest import Nest
from ml4f.dialects.loop.structure import CallOp
from ml4f.passes.loop_rewriting import Program, fuse_calls


def try_fuse(program: Program, call: CallOp) -> bool:
    """Fuses one call into the latest of its operands' producers that can take it."""
    nest = program.nest(call)
    if nest is None or nest.combine != "copy":
        return False
    order = program.order
    found: list[tuple[int, str, CallOp, Nest]] = []
    for operand in nest.operands:
        if operand.role == "out":
            continue
        producer_call = program.only_producer(call, operand.role)
        if producer_call is None or not (program.is_last(call) or order[producer_call] + 1 == order[call]):
            continue
        producer, reader = program.nest(producer_call), reading_first(nest, operand.role)
        if producer is None or reader is None:
            continue
        fused = fuse_elementwise(producer, reader)
        if fused is not None:
            found.append((order[producer_call], operand.role, producer_call, fused))
    if not found:
        return False
    _, role, producer_call, fused = max(found, key=lambda f: f[0])
    fuse_calls(program, producer_call, call, fused, role)
    return True


class LoopFuseElementwisePass(ModulePass):
    """Appends an elementwise kernel's steps to the epilogue of the kernel whose result only it reads.

    Of a sum of two results, that of the later kernel stays in registers. A costly activation stays a kernel of its own
    behind one with a tile of accumulators, which leaves it no registers.

        loop.nest … : <parallel (oy = 8, f = 4) reduce (c = 3) mac x["3*oy + c"], w["4*c + f"], out["4*oy + f"]>
        loop.nest … : <parallel (d0 = 32) copy x["d0"], other["d0"], out["d0"] then add other>
    becomes
        loop.nest … : <parallel (oy = 8, f = 4) reduce (c = 3) mac x["3*oy + c"], w["4*c + f"], other["4*oy + f"],
                       out["4*oy + f"] then add other>
    """

    name = "loop-fuse-elementwise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        program = Program(op)
        changed = True
        while changed:
            changed = False
            for call in list(program.calls):
                changed |= call in program.order and try_fuse(program, call)
