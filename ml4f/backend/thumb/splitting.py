"""Splits long multiple loads and stores when their consecutive registers cannot be found: shorter groups fit gaps
between live values.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Block, Operation, SSAValue

from ml4f.dialects.thumb import build
from ml4f.dialects.thumb.memory_ops import VldmiaOp, VldmOp, VstmiaOp
from ml4f.dialects.thumb.structure import FuncOp, LoopOp

SHORTER = (8, 4, 1)
"""The lengths that are tried, in this order; 1 is plain loads and stores, which need no consecutive registers."""


def split_multiple_loads(func: FuncOp, longest: int) -> bool:
    """Replace every VLDM of more than `longest` registers by shorter ones, or by single loads; False if there is
    none.
    """
    moving = _split(func.body.block, VldmiaOp, longest, _shorter_loads)
    return _split(func.body.block, VldmOp, longest, _single_loads) or moving


def split_multiple_stores(func: FuncOp, longest: int) -> bool:
    """The same for every VSTM."""
    return _split(func.body.block, VstmiaOp, longest, _shorter_stores)


Multiple = VldmiaOp | VldmOp | VstmiaOp
Made = tuple[list[Operation], list[SSAValue]]
"""The operations that replace one, and what its results are then."""


def _split(
    block: Block,
    kind: type[VldmiaOp] | type[VldmOp] | type[VstmiaOp],
    longest: int,
    shorter: Callable[[Multiple, int], Made],
) -> bool:
    changed = False
    for op in list(block.ops):
        if isinstance(op, LoopOp):
            changed = _split(op.body.block, kind, longest, shorter) or changed
        elif isinstance(op, kind) and _count(op) > longest:
            made, values = shorter(op, longest)
            for new in made:
                block.insert_op_before(new, op)
            for old, value in zip(op.results, values, strict=True):
                old.replace_all_uses_with(value)
            op.detach()
            op.erase()
            changed = True
    return changed


def _count(op: Multiple) -> int:
    """The registers that are transferred."""
    return len(op.results) if isinstance(op, VldmOp) else max(len(op.results), len(op.operands)) - 1


def _shorter_loads(op: Multiple, longest: int) -> Made:
    count, pointer, space = _count(op), op.n, op.space.data
    made: list[Operation] = []
    values: list[SSAValue] = []
    if longest == 1:
        made = [build.vldr(pointer, 4 * index, space) for index in range(count)]
        values = [load.results[0] for load in made]
        made.append(build.add_imm(pointer, 4 * count))
        return made, [*values, made[-1].results[0]]
    for start in range(0, count, longest):
        load = build.vldmia(pointer, min(longest, count - start), space)
        made.append(load)
        values += load.results[:-1]
        pointer = load.results[-1]
    return made, [*values, pointer]


def _single_loads(op: Multiple, longest: int) -> Made:
    """A pointer that stays where it is reaches all words, whatever the length asked for."""
    loads = [build.vldr(op.n, 4 * index, op.space.data) for index in range(_count(op))]
    return [*loads], [load.results[0] for load in loads]


def _shorter_stores(op: Multiple, longest: int) -> Made:
    count, pointer, space = _count(op), op.n, op.space.data
    stored = list(op.operands)[1:]
    if longest == 1:
        made: list[Operation] = [build.vstr(value, pointer, 4 * i, space) for i, value in enumerate(stored)]
        made.append(build.add_imm(pointer, 4 * count))
        return made, [made[-1].results[0]]
    made = []
    for start in range(0, count, longest):
        store = build.vstmia(pointer, stored[start : start + longest], space)
        made.append(store)
        pointer = store.results[0]
    return made, [pointer]
