"""The kernel of nn.lookup, for convert-nn-to-loop: a loop over the indices around one that copies a row.

The row's number is the lower bound of a loop of one iteration, whose variable the addresses in the table count with. No
pass lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.dialects.builtin import ArrayAttr, StringAttr
from xdsl.ir import Block, Operation, Region, SSAValue

from ml4f.backend.loop.builder import Address
from ml4f.backend.loop.op_builder import OpBuilder
from ml4f.dialects.loop.attributes import PointerType
from ml4f.dialects.loop.structure import KernelOp
from ml4f.passes.convert_nn_to_loop import Converter, call_attributes, elements, layer_of, shape_of

WORD = 4
UNROLLED = 8
"""Elements of a row that are copied without a loop around them."""
TABLE, INDEX, OUT = range(3)


def _row_number(builder: OpBuilder, number: SSAValue, rows: int) -> SSAValue:
    """The number of a row that exists; what is below zero counts from the end."""
    zero = builder.constant(0.0)
    from_end = builder.fadd(number, builder.constant(float(rows)))
    wrapped = builder.fselect("lt", number, zero, from_end, number)
    inside = builder.to_int(wrapped)
    inside = builder.isel("lt", inside, 0, builder.int_constant(0), inside)
    return builder.to_index(builder.isel("gt", inside, rows - 1, builder.int_constant(rows - 1), inside))


def _copy_row(builder: OpBuilder, i: SSAValue, row: SSAValue, width: int) -> None:
    whole, rest = divmod(width, UNROLLED)
    here, there = ((row, WORD * width),), ((i, WORD * width),)

    def copy(first: int, count: int, along: tuple[tuple[SSAValue, int], ...] = ()) -> None:
        offsets = [WORD * (first + k) for k in range(count)]
        values = [builder.load(Address(TABLE, offset, (*here, *along)), "f32") for offset in offsets]
        for offset, value in zip(offsets, values, strict=True):
            builder.store(Address(OUT, offset, (*there, *along)), value)

    if whole > 1:
        k, _ = builder.begin_loop(whole, None, None, [], "k")
        copy(0, UNROLLED, ((k, WORD * UNROLLED),))
        builder.end_loop([])
    elif whole:
        copy(0, UNROLLED)
    if rest:
        copy(whole * UNROLLED, rest)


def _lookup(c: Converter, op: Operation) -> None:
    table, index = op.operands
    rows, width = shape_of(table)
    out = c.buffer(elements(shape_of(op.results[0])), layer_of(op) + "_out")
    c.places[op.results[0]] = out
    places = [c.place(table), c.place(index), out]
    block = Block(arg_types=[PointerType()] * 3)
    for argument, name in zip(block.args, ("table", "index", "out"), strict=True):
        argument.name_hint = name
    spaces = [place.space for place in places]
    builder = OpBuilder(block, list(block.args), spaces)
    i, _ = builder.begin_loop(elements(shape_of(index)), None, None, [], "i")
    number = builder.load(Address(INDEX, 0, ((i, WORD),)), "f32")
    row, _ = builder.begin_loop(1, None, _row_number(builder, number, rows), [], "row")
    _copy_row(builder, i, row, width)
    builder.end_loop([])
    builder.end_loop([])
    name = c.unique(layer_of(op))
    c.kernels.append(
        KernelOp.create(
            properties={"sym_name": StringAttr(name), "spaces": ArrayAttr([StringAttr(space) for space in spaces])},
            regions=[Region(block)],
            location=op.location,
        )
    )
    c.call(op, name, [place.symbol for place in places], call_attributes(c, op, 0, out))


CONVERSIONS: dict[str, Callable[[Converter, Any], None]] = {"nn.lookup": _lookup}
