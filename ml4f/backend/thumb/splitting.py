"""Splits long multiple loads when their consecutive registers cannot be found: shorter groups fit gaps between live
values.
"""

from __future__ import annotations

from xdsl.ir import Block, Operation

from ml4f.dialects.thumb import build
from ml4f.dialects.thumb.memory_ops import VldmiaOp
from ml4f.dialects.thumb.structure import FuncOp, LoopOp

SHORTER = (8, 4, 1)
"""The lengths that are tried, in this order; 1 is plain loads, which need no consecutive registers."""


def split_multiple_loads(func: FuncOp, longest: int) -> bool:
    """Replace every VLDM of more than `longest` registers by shorter ones, or by single loads; False if there is
    none.
    """
    return _split(func.body.block, longest)


def _split(block: Block, longest: int) -> bool:
    changed = False
    for op in list(block.ops):
        if isinstance(op, LoopOp):
            changed = _split(op.body.block, longest) or changed
        elif isinstance(op, VldmiaOp) and len(op.results) - 1 > longest:
            _replace(block, op, longest)
            changed = True
    return changed


def _replace(block: Block, op: VldmiaOp, longest: int) -> None:
    count = len(op.results) - 1
    pointer, space = op.n, op.space.data
    made: list[Operation] = []
    if longest == 1:
        made = [build.vldr(pointer, 4 * index, space) for index in range(count)]
        values = [load.results[0] for load in made]
        advance = build.add_imm(pointer, 4 * count)
        made.append(advance)
        values.append(advance.results[0])
    else:
        values = []
        for start in range(0, count, longest):
            load = build.vldmia(pointer, min(longest, count - start), space)
            made.append(load)
            values += load.results[:-1]
            pointer = load.results[-1]
        values.append(pointer)
    for new in made:
        block.insert_op_before(new, op)
    for old, value in zip(op.results, values, strict=True):
        old.replace_all_uses_with(value)
    op.detach()
    op.erase()
