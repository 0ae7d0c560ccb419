"""thumb-combine-moves: moves between register files two at a time, and none from a register to itself."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass

from ml4f.dialects.thumb import core_ops, float_ops
from ml4f.dialects.thumb.registers import number
from ml4f.dialects.thumb.structure import FuncOp, LoopOp


def combine_moves(block: Block) -> None:
    """In place, in a block and the loops in it. Registers are allocated."""
    before: Operation | None = None
    for op in list(block.ops):
        if isinstance(op, LoopOp):
            combine_moves(op.body.block)
        elif isinstance(op, core_ops.MovOp | float_ops.VmovOp) and _is_needless(op):
            op.results[0].replace_all_uses_with(op.operands[0])
            op.detach()
            op.erase()
            continue
        elif before is not None and (pair := _pair(before, op)) is not None:
            block.insert_op_before(pair, op)
            for single in (before, op):
                new = next(result for result in pair.results if result.type == single.results[0].type)
                single.results[0].replace_all_uses_with(new)
                single.detach()
                single.erase()
            before = None
            continue
        before = op


def _is_needless(move: Operation) -> bool:
    """Whether a register is moved to itself."""
    return number(move.operands[0]) is not None and move.operands[0].type == move.results[0].type


def _pair(first: Operation, second: Operation) -> Operation | None:
    """One instruction for two moves whose S registers are neighbours, in either order; None if there is none."""
    if isinstance(first, float_ops.VmovRSOp) and isinstance(second, float_ops.VmovRSOp):
        kind, singles = float_ops.VmovRrSsOp, (first.operands[0], second.operands[0])
        if first.results[0].type == second.results[0].type:
            return None
    elif isinstance(first, float_ops.VmovSROp) and isinstance(second, float_ops.VmovSROp):
        kind, singles = float_ops.VmovSsRrOp, (first.results[0], second.results[0])
    else:
        return None
    numbers = [number(single) for single in singles]
    if None in numbers or abs(numbers[1] - numbers[0]) != 1:  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
        return None
    low, high = (first, second) if numbers[0] < numbers[1] else (second, first)  # pyright: ignore[reportOperatorIssue]
    types = [low.results[0].type, high.results[0].type]
    return kind.create(operands=[low.operands[0], high.operands[0]], result_types=types)


class ThumbCombineMovesPass(ModulePass):
    """Two moves between a core register and an S register are one instruction where the S registers are neighbours.

    It takes as long as the two and is half as large. Forcing neighbours would make registers hard to find, so this is
    done with what the allocation happens to offer. Copies to the same register vanish.

        %t = thumb.vmov_r_s %a : (!thumb.s<s4>) -> !thumb.r<r0>
        %u = thumb.vmov_r_s %b : (!thumb.s<s5>) -> !thumb.r<r1>
    becomes
        %t, %u = thumb.vmov_rr_ss %a, %b
    """

    name = "thumb-combine-moves"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for func in op.body.block.ops:
            if isinstance(func, FuncOp):
                combine_moves(func.body.block)
