"""loop-forward-copies: kernels read a slice where it is, so that it costs no copy."""

from __future__ import annotations

import math

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, SymbolRefAttr
from xdsl.passes import ModulePass

from ml4f.backend.loop.forwarding import copy_of, read_through
from ml4f.backend.loop.nest import Nest
from ml4f.dialects.loop.structure import CallOp
from ml4f.passes.loop_rewriting import Program, replace_kernel

WRITTEN_OR_PACKED = ("out", "w", "v", "bias")
"""Roles of operands that are no inputs, or whose addresses the packing of weights decides."""


def split_up(program: Program) -> frozenset[str]:
    """The buffers whose copies hold as many elements as they do: keeping them instead takes no more memory at first."""
    copied: dict[str, int] = {}
    for call in program.calls:
        nest = program.nest(call)
        if nest is not None and copy_of(nest) is not None:
            source = program.symbol(call, "x")
            copied[source] = copied.get(source, 0) + math.prod(nest.extents.values())
    return frozenset(
        name
        for name, n in copied.items()
        if name in program.buffers and 4 * n >= program.buffers[name].bytes.value.data
    )


def try_forward(program: Program, call: CallOp, split: frozenset[str]) -> bool:
    """Removes a copy if all that read it can read the source, which is split up or needed until then anyway."""
    nest = program.nest(call)
    copy = copy_of(nest) if nest is not None else None
    if copy is None or not program.is_last(call):
        return False
    source, symbol = program.symbol(call, "x"), program.symbol(call, "out")
    if source not in program.buffers or source == symbol or program.is_boundary(symbol):
        return False
    first, *readers = program.users[symbol]
    if first is not call or not readers or not stays(program, source, call, readers[-1]):
        return False
    until = [program.order[user] for user in program.users[source] if user is not call]
    if source not in split and max(until, default=-1) < program.order[readers[-1]]:
        return False
    changed: list[tuple[CallOp, Nest]] = []
    for reader in readers:
        found = program.nest(reader)
        if found is None or sum(other.callee == reader.callee for other in program.calls) != 1:
            return False
        for operand, name in zip(found.operands, program.symbols(reader), strict=True):
            if name == symbol:
                moved = None if operand.role in WRITTEN_OR_PACKED else read_through(copy, found, operand.role)
                if moved is None:
                    return False
                found = moved
        changed.append((reader, found))
    for reader, found in changed:
        symbols = [source if name == symbol else name for name in program.symbols(reader)]
        replace_kernel(program, program.kernel(reader), found, symbols)
        reader.properties["arguments"] = ArrayAttr([SymbolRefAttr(name) for name in symbols])
        for name in ("layers", "ops"):
            reader.attributes[name] = ArrayAttr([*_list(call, name), *_list(reader, name)])
    kernel = program.kernels.pop(call.callee.root_reference.data)
    for op in (call, kernel, program.buffers.pop(symbol)):
        op.detach()
        op.erase(safe_erase=False)
    program.forget()
    return True


def stays(program: Program, source: str, copied: CallOp, last: CallOp) -> bool:
    """Whether no call behind the copy writes the source before the last reader has read it."""
    between = program.calls[program.order[copied] + 1 : program.order[last] + 1]
    return all(program.output(c) not in (None, source) for c in between if source in program.symbols(c))


def _list(call: CallOp, name: str) -> list[SymbolRefAttr]:
    value = call.attributes.get(name)
    return list(value) if isinstance(value, ArrayAttr) else []


class LoopForwardCopiesPass(ModulePass):
    """Lets the readers of a slice read what it is a slice of: an offset, or another stride, in their addresses.

    Not where a small slice would keep a large buffer alive.

        loop.nest … : <parallel (d0 = 8) copy x["d0 + 16"], out["d0"]>                            @slice of @a
        loop.nest … : <parallel (f = 4) reduce (c = 8) mac x["c"], w["4*c + f"], out["f"]>        of @slice
    becomes
        loop.nest … : <parallel (f = 4) reduce (c = 8) mac x["c + 16"], w["4*c + f"], out["f"]>   of @a
    """

    name = "loop-forward-copies"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        program = Program(op)
        split = split_up(program)
        changed = True
        while changed:
            changed = any(try_forward(program, call, split) for call in list(program.calls))
