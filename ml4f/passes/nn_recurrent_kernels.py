"""Kernels of nn.lstm, nn.gru and nn.rnn, for convert-nn-to-loop: a loop over time around small nests.

The state (gates, then h, then c) is one buffer; a kernel's nests find their parts of it by constant offsets. Nothing
grows with the length of the sequence but the input and, where it is wanted, the output. No pass lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, StringAttr
from xdsl.ir import Block, Operation, Region, SSAValue

from ml4f.backend.loop import kernels
from ml4f.backend.loop.nest import Linear, Nest, Operand, Step
from ml4f.backend.loop.shapes import simplify
from ml4f.dialects.loop.attributes import NestAttr, PointerType
from ml4f.dialects.loop.structure import KernelOp, NestOp, YieldOp, make_for
from ml4f.dialects.loop.values import INDEX
from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RecurrentOp, RnnOp
from ml4f.errors import InternalError
from ml4f.passes.convert_nn_to_loop import Converter, Place, call_attributes, layer_of
from ml4f.passes.nn_rewriting import const_array


@dataclass(frozen=True)
class Part:
    """Some elements of a tensor: they begin at `offset`, and move by `stride` elements with every step in time."""

    place: Place
    offset: int = 0
    stride: int = 0


@dataclass(frozen=True)
class Piece:
    """One nest of the loop's body, with the part of a tensor that each of its roles stands for."""

    nest: Nest
    parts: dict[str, Part]


def _shifted(nest: Nest, parts: dict[str, Part]) -> Piece:
    """A piece; the offsets of its parts go into the maps of its operands."""
    operands = tuple(replace(o, map=Linear(o.map.terms, o.map.constant + parts[o.role].offset)) for o in nest.operands)
    return Piece(replace(nest, operands=operands), parts)


def _elementwise(size: int, x: Part, out: Part, *steps: tuple[str, Part] | ActAttr) -> Piece:
    """`out = steps(x)` on `size` elements; a step is an operation with another part, or an activation."""
    parts, epilogue = {"x": x, "out": out}, list[Step]()
    for number, step in enumerate(steps):
        if isinstance(step, ActAttr):
            if step.function != "linear":
                epilogue.append(Step("activation", None, step.function, step.parameter_values))
            continue
        role = f"other{number}"
        parts[role] = step[1]
        epilogue.append(Step(step[0], role))
    others = [(role, [1]) for role in parts if role not in ("x", "out")]
    return _shifted(kernels.elementwise([size], [1], others, epilogue), parts)


class _Recurrence:
    """Collects the pieces of one operation's loop."""

    def __init__(self, c: Converter, op: RecurrentOp):
        self.c = c
        self.op = op
        self.units = op.units
        self.layer = layer_of(op)
        self.pieces: list[Piece] = []
        self.state = c.buffer(self.state_size, self.layer + "_state")

    @property
    def state_size(self) -> int:
        """Elements of the state's buffer."""
        extra = 3 if isinstance(self.op, GruOp) and self.op.recurrent_bias is not None else 1
        return (self.op.GATES + (2 if isinstance(self.op, LstmOp) else extra + 1)) * self.units

    def part(self, index: int) -> Part:
        """The state's `index`-th group of `units` elements."""
        return Part(self.state, index * self.units)

    def along(self, place: Place, width: int) -> Part:
        """The row of a sequence that belongs to the current step."""
        if self.op.reverse is not None:
            return Part(place, (self.op.steps - 1) * width, -width)
        return Part(place, 0, width)

    def constant(self, value: SSAValue) -> np.ndarray:
        """A weight; computed ones never reach this level."""
        array = const_array(value)
        if array is None:
            raise InternalError(f"{self.layer}: weights of a recurrent layer are constants")
        return array

    def product(
        self, x: Part, weights: SSAValue, columns: slice, bias: np.ndarray | None, out: Part, add: bool
    ) -> None:
        """`out = x @ weights[:, columns] + bias`, or added to out."""
        array = self.constant(weights)
        chosen = np.ascontiguousarray(array[:, columns])
        inputs, outputs = chosen.shape
        parts = {"x": x, "out": out}
        whole = chosen.shape == array.shape
        parts["w"] = Part(self.c.place(weights) if whole else self.c.constant(chosen.ravel(), self.layer + "_data"))
        if bias is not None:
            parts["bias"] = Part(self.c.constant(bias, self.layer + "_bias"))
        nest = kernels.dense(1, inputs, outputs, bias is not None, [Step("add", "before")] if add else [])
        if add:
            parts["before"] = out
            operands = (*nest.operands[:-1], Operand("before", nest.by_role["out"].map), nest.operands[-1])
            nest = simplify(replace(nest, operands=operands))
        owner = weights.owner
        if isinstance(owner, Operation) and "half" in owner.properties:
            operands = tuple(replace(o, element="f16") if o.role == "w" else o for o in nest.operands)
            nest = replace(nest, operands=operands)
        self.pieces.append(_shifted(nest, parts))

    def apply(self, size: int, x: Part, out: Part, *steps: tuple[str, Part] | ActAttr) -> None:
        """An elementwise piece."""
        self.pieces.append(_elementwise(size, x, out, *steps))

    def start(self, value: SSAValue, index: int) -> None:
        """Before the loop: a group of the state from an operand."""
        array = const_array(value)
        part = self.part(index)
        stride = [1]
        if array is not None and not np.any(array):
            place, stride = self.c.constant(np.zeros(1, np.float32), self.layer + "_zero"), [0]
        else:
            place = self.c.place(value)
        nest = kernels.elementwise([self.units], stride, out_offset=part.offset)
        self.c.kernel(self.op, nest, {"x": place, "out": self.state}, "_start", final=False)

    def finish(self, h: int, rows: int) -> None:
        """Behind the loop: the last states as rows of the result, if the loop does not write all of them."""
        sequence = self.op.sequence is not None
        size = rows * self.units
        out = self.c.buffer(size, self.layer + "_out")
        self.c.places[self.op.results[0]] = out
        within = self.op.steps * self.units if sequence else 0
        if sequence:
            self.apply(self.units, self.part(h), self.along(out, self.units))
        self._loop(final=sequence and within == size)
        if within < size:
            first = h + (1 if sequence else 0)
            nest = kernels.elementwise([size - within], [1], x_offset=first * self.units, out_offset=within)
            self.c.kernel(self.op, nest, {"x": self.state, "out": out}, "_last")

    def _loop(self, final: bool) -> None:
        """The kernel: all pieces in a loop over time."""
        symbols: dict[str, Place] = {}
        for piece in self.pieces:
            for operand in piece.nest.operands:
                place = piece.parts[operand.role].place
                symbols.setdefault(place.symbol, place)
        block = Block(arg_types=[PointerType()] * len(symbols))
        arguments = dict(zip(symbols, block.args, strict=True))
        for symbol, argument in arguments.items():
            argument.name_hint = symbol
        body = Block(arg_types=[INDEX])
        for piece in self.pieces:
            parts = [piece.parts[o.role] for o in piece.nest.operands]
            body.add_op(
                NestOp.build(
                    operands=[[arguments[part.place.symbol] for part in parts]],
                    properties={"nest": NestAttr(piece.nest), "strides": numbers([part.stride for part in parts])},
                )
            )
        body.add_op(YieldOp())
        block.add_op(make_for(self.op.steps, None, None, [], Region(body), "t"))
        name = self.c.unique(self.layer)
        self.c.kernels.append(
            KernelOp.create(
                properties={
                    "sym_name": StringAttr(name),
                    "spaces": ArrayAttr([StringAttr(place.space) for place in symbols.values()]),
                },
                regions=[Region(block)],
                location=self.op.location,
            )
        )
        macs = self.op.steps * sum(p.nest.terms() for p in self.pieces if p.nest.combine == "mac")
        result = self.c.places[self.op.results[0]] if final else None
        self.c.call(self.op, name, list(symbols), call_attributes(self.c, self.op, macs, result))


def _lstm(c: Converter, op: LstmOp) -> None:
    made, n = _Recurrence(c, op), op.units
    gate, candidate, output = op.activations
    i, o, f, g, h, cell = (made.part(index) for index in range(6))
    made.start(op.initial_h, 4)
    made.start(op.initial_c, 5)
    x = made.along(c.place(op.x), op.x.type.get_shape()[1])  # pyright: ignore[reportAttributeAccessIssue]
    made.product(x, op.w, slice(None), made.constant(op.bias), i, add=False)
    made.product(h, op.r, slice(None), None, i, add=True)
    if op.peephole is not None:
        place = c.place(op.peephole)
        seen = {"i": Part(place), "o": Part(place, n), "f": Part(place, 2 * n)}
        made.apply(n, cell, i, ("mul", seen["i"]), ("add", i), gate)
        made.apply(n, cell, f, ("mul", seen["f"]), ("add", f), gate)
    else:
        made.apply(3 * n, i, i, gate)
    made.apply(n, g, g, candidate, ("mul", i))
    limit = float(op.cell_clip.value.data) if op.cell_clip is not None else 0.0
    limited = [ActAttr.of("clip", (-limit, limit))] if limit else []
    made.apply(n, cell, cell, ("mul", f), ("add", g), *limited)
    if op.peephole is not None:
        made.apply(n, cell, o, ("mul", seen["o"]), ("add", o), gate)
    made.apply(n, cell, h, output, ("mul", o))
    rows = op.results[0].type.get_shape()[0]  # pyright: ignore[reportAttributeAccessIssue]
    made.finish(4, rows)


def _gru(c: Converter, op: GruOp) -> None:
    made, n = _Recurrence(c, op), op.units
    gate, candidate = op.activations
    z, r, new = (made.part(index) for index in range(3))
    x = made.along(c.place(op.x), op.x.type.get_shape()[1])  # pyright: ignore[reportAttributeAccessIssue]
    reset_after = op.recurrent_bias is not None
    last = 6 if reset_after else 4
    h, spare = made.part(last), made.part(3)
    made.start(op.initial_h, last)
    made.product(x, op.w, slice(None), made.constant(op.bias), z, add=False)
    if reset_after:
        assert op.recurrent_bias is not None
        bias = np.concatenate([np.zeros(2 * n, np.float32), made.constant(op.recurrent_bias)])
        made.product(h, op.r, slice(None), bias, spare, add=False)
        made.apply(2 * n, spare, z, ("add", z), gate)
        made.apply(n, made.part(5), new, ("mul", r), ("add", new), candidate)
    else:
        made.product(h, op.r, slice(0, 2 * n), None, z, add=True)
        made.apply(2 * n, z, z, gate)
        made.apply(n, h, spare, ("mul", r))
        made.product(spare, op.r, slice(2 * n, None), None, new, add=True)
        made.apply(n, new, new, candidate)
    made.apply(n, h, h, ("sub", new), ("mul", z), ("add", new))
    made.finish(last, op.results[0].type.get_shape()[0])  # pyright: ignore[reportAttributeAccessIssue]


def _rnn(c: Converter, op: RnnOp) -> None:
    made, n = _Recurrence(c, op), op.units
    sums, h = made.part(0), made.part(1)
    made.start(op.initial_h, 1)
    x = made.along(c.place(op.x), op.x.type.get_shape()[1])  # pyright: ignore[reportAttributeAccessIssue]
    made.product(x, op.w, slice(None), made.constant(op.bias), sums, add=False)
    made.product(h, op.r, slice(None), None, sums, add=True)
    made.apply(n, sums, h, *op.activations)
    made.finish(1, op.results[0].type.get_shape()[0])  # pyright: ignore[reportAttributeAccessIssue]


CONVERSIONS: dict[str, Callable[[Converter, Any], None]] = {"nn.lstm": _lstm, "nn.gru": _gru, "nn.rnn": _rnn}
