"""Helpers that the nn passes share: uses, replacing, constants, origins. No pass lives here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from ml4f.dialects.nn import ConstOp, layer_names, named_location


def main_block(module: ModuleOp) -> Block | None:
    """The body of the network's function, None if the module is at another level."""
    for op in module.body.block.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main":
            return op.body.block
    return None


def use_count(value: SSAValue) -> int:
    """How many operands read a value."""
    return sum(1 for _ in value.uses)


def producer(value: SSAValue) -> Operation | None:
    """The operation that makes a value."""
    return value.owner if isinstance(value.owner, Operation) else None


def const_array(value: SSAValue) -> np.ndarray | None:
    """The elements of a constant operand."""
    op = value.owner
    return op.array() if isinstance(op, ConstOp) else None


def new_const(before: Operation, values: np.ndarray) -> SSAValue:
    """A constant in front of an operation."""
    op = ConstOp.of(np.asarray(values, dtype=np.float32))
    op.location = before.location
    block = before.parent
    assert block is not None
    block.insert_op_before(op, before)
    return op.result


def adopt(target: Operation, other: Operation) -> None:
    """`target` now also computes what `other` did: its layers, and its result's source."""
    names = dict.fromkeys((*layer_names(target), *layer_names(other)))
    if names:
        target.location = named_location(*names)
    if "source" in other.attributes:
        target.attributes["source"] = other.attributes["source"]
    else:
        target.attributes.pop("source", None)


def replace(op: Operation, value: SSAValue) -> None:
    """Let every reader of an operation's result read another value; removes the operation."""
    op.results[0].replace_all_uses_with(value)
    op.detach()
    op.erase()


def substitute(op: Operation, new: Operation) -> None:
    """Put a new operation in an old one's place."""
    block = op.parent
    assert block is not None
    new.location = op.location
    new.attributes.update(op.attributes)
    block.insert_op_before(new, op)
    replace(op, new.results[0])


def without_ones(shape: Sequence[int]) -> list[int]:
    """The extents above one."""
    return [n for n in shape if n > 1]
