"""A `Builder` that creates loop-dialect operations (indexed form)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IndexType, IntegerAttr, StringAttr, f32, i32, i64
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from ml4f.backend.loop.builder import Address, Terms
from ml4f.dialects.loop import values as v
from ml4f.dialects.loop.structure import ForOp, YieldOp, make_for

INDEX = IndexType()
WORD = 4


class OpBuilder:
    """Appends to `block`; `pointers` and `spaces` belong to the nest's operands."""

    def __init__(self, block: Block, pointers: Sequence[SSAValue], spaces: Sequence[str]):
        self._blocks = [block]
        self._loops: list[tuple[int | None, Any, Any, Sequence[SSAValue], str]] = []
        self._pointers = pointers
        self._spaces = [StringAttr(s) for s in spaces]
        self._offsets: dict[int, IntegerAttr] = {}
        self._strides: dict[tuple[int, ...], DenseArrayBase] = {}
        self._around: list[Terms] = [()] * len(pointers)

    def move_along(self, variable: SSAValue, steps: Sequence[int]) -> None:
        """Pointers move by so many elements with every iteration of a loop around, whose variable is given."""
        self._around = [((variable, WORD * step),) if step else () for step in steps]

    def _emit(self, op: Operation) -> SSAValue:
        self._blocks[-1].add_op(op)
        return op.results[0]

    def _integer(self, value: int) -> IntegerAttr:
        attribute = self._offsets.get(value)
        if attribute is None:
            attribute = self._offsets[value] = IntegerAttr(value, 64)
        return attribute

    def _access(self, address: Address) -> tuple[list[SSAValue], dict[str, Attribute]]:
        merged = _merge((*address.terms, *self._around[address.operand]))
        strides = tuple(s for _, s in merged)
        properties: dict[str, Attribute] = {
            "offset": self._integer(address.offset),
            "space": self._spaces[address.operand],
        }
        if strides:
            if strides not in self._strides:
                self._strides[strides] = DenseArrayBase.from_list(i64, strides)
            properties["strides"] = self._strides[strides]
        return [self._pointers[address.operand], *(variable for variable, _ in merged)], properties

    def load(self, address: Address, kind: str) -> SSAValue:
        operands, properties = self._access(address)
        return self._emit(
            v.LoadOp.create(operands=operands, properties=properties, result_types=[f32 if kind == "f32" else i32])
        )

    def load_byte(self, address: Address) -> SSAValue:
        operands, properties = self._access(address)
        return self._emit(v.LoadByteOp.create(operands=operands, properties=properties, result_types=[INDEX]))

    def load_multiple(self, address: Address, count: int) -> Sequence[SSAValue]:
        operands, properties = self._access(address)
        op = v.LoadMultipleOp.create(operands=operands, properties=properties, result_types=[f32] * count)
        self._emit(op)
        return op.results

    def store(self, address: Address, value: SSAValue) -> None:
        operands, properties = self._access(address)
        self._blocks[-1].add_op(v.StoreOp.create(operands=[value, *operands], properties=properties))

    def store_multiple(self, address: Address, values: Sequence[SSAValue]) -> None:
        (pointer, *indices), properties = self._access(address)
        op = v.StoreMultipleOp.build(
            operands=[list(values), pointer, indices], properties=properties, result_types=[None]
        )
        self._blocks[-1].add_op(op)

    def begin_loop(
        self, count: int | None, trip_count: Any, lower: Any, inits: Sequence[SSAValue], label: str
    ) -> tuple[SSAValue, Sequence[SSAValue]]:
        block = Block(arg_types=[INDEX, *(x.type for x in inits)])
        self._blocks.append(block)
        self._loops.append((count, trip_count, lower, inits, label))
        return block.args[0], block.args[1:]

    def end_loop(self, yields: Sequence[SSAValue]) -> Sequence[SSAValue]:
        block = self._blocks.pop()
        block.add_op(YieldOp.create(operands=list(yields)))
        count, trip_count, lower, inits, label = self._loops.pop()
        op: ForOp = make_for(count, trip_count, lower, inits, Region(block), label)
        self._blocks[-1].add_op(op)
        return op.results

    # -- arithmetic

    def constant(self, x: float) -> SSAValue:
        return self._emit(v.ConstantOp.create(properties={"value": FloatAttr(_single(x), f32)}, result_types=[f32]))

    def int_constant(self, x: int) -> SSAValue:
        return self._emit(v.IntegerConstantOp.create(properties={"value": IntegerAttr(x, i32)}, result_types=[i32]))

    def _float(self, op: type[Operation], *operands: SSAValue) -> SSAValue:
        return self._emit(op.create(operands=operands, result_types=[f32]))

    def _int(self, op: type[Operation], *operands: SSAValue) -> SSAValue:
        return self._emit(op.create(operands=operands, result_types=[i32]))

    def _int_binary(self, op: type[Operation], a: SSAValue, b: SSAValue | int) -> SSAValue:
        if isinstance(b, int):
            return self._emit(
                op.create(operands=[a], properties={"immediate": IntegerAttr(b, i32)}, result_types=[i32])
            )
        return self._int(op, a, b)

    def fadd(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.AddOp, a, b)

    def fsub(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.SubOp, a, b)

    def fmul(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.MulOp, a, b)

    def fdiv(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.DivOp, a, b)

    def fmax(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.MaxOp, a, b)

    def fmin(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._float(v.MinOp, a, b)

    def fneg(self, a: SSAValue) -> SSAValue:
        return self._float(v.NegOp, a)

    def fabs(self, a: SSAValue) -> SSAValue:
        return self._float(v.AbsOp, a)

    def fsqrt(self, a: SSAValue) -> SSAValue:
        return self._float(v.SqrtOp, a)

    def fma(self, a: SSAValue, b: SSAValue, c: SSAValue) -> SSAValue:
        return self._float(v.FmaOp, a, b, c)

    def half_low(self, a: SSAValue) -> SSAValue:
        return self._float(v.HalfLowOp, a)

    def half_high(self, a: SSAValue) -> SSAValue:
        return self._float(v.HalfHighOp, a)

    def to_int(self, a: SSAValue) -> SSAValue:
        return self._int(v.ToIntOp, a)

    def to_int_nearest(self, a: SSAValue) -> SSAValue:
        return self._int(v.ToIntNearestOp, a)

    def to_index(self, i: SSAValue) -> SSAValue:
        return self._emit(v.ToIndexOp.create(operands=[i], result_types=[INDEX]))

    def to_float(self, i: SSAValue) -> SSAValue:
        return self._float(v.ToFloatOp, i)

    def bits(self, a: SSAValue) -> SSAValue:
        return self._int(v.BitsOp, a)

    def from_bits(self, i: SSAValue) -> SSAValue:
        return self._float(v.FromBitsOp, i)

    def bits_pair(self, a: SSAValue, b: SSAValue) -> tuple[SSAValue, SSAValue]:
        op = v.BitsPairOp.create(operands=[a, b], result_types=[i32, i32])
        self._emit(op)
        return op.results[0], op.results[1]

    def relu_bits(self, a: SSAValue) -> SSAValue:
        return self._int(v.ReluBitsOp, a)

    def imax(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self._int(v.IntMaxOp, a, b)

    def iadd(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntAddOp, a, b)

    def isub(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntSubOp, a, b)

    def imul(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntMulOp, a, b)

    def iand(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntAndOp, a, b)

    def ior(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntOrOp, a, b)

    def ixor(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntXorOp, a, b)

    def ibic(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self._int_binary(v.IntBicOp, a, b)

    def ishl(self, a: SSAValue, b: int) -> SSAValue:
        return self._int_binary(v.ShiftLeftOp, a, b)

    def ilshr(self, a: SSAValue, b: int) -> SSAValue:
        return self._int_binary(v.ShiftRightOp, a, b)

    def iashr(self, a: SSAValue, b: int) -> SSAValue:
        return self._int_binary(v.ShiftRightSignedOp, a, b)

    def fselect(self, predicate: str, a: SSAValue, b: SSAValue, t: SSAValue, f: SSAValue) -> SSAValue:
        return self._emit(
            v.SelectOp.create(
                operands=[a, b, t, f], properties={"predicate": StringAttr(predicate)}, result_types=[f32]
            )
        )

    def iselect(self, predicate: str, a: SSAValue, b: SSAValue | int, t: SSAValue, f: SSAValue) -> SSAValue:
        return self._int_select(predicate, a, b, t, f, f32)

    def isel(self, predicate: str, a: SSAValue, b: SSAValue | int, t: SSAValue, f: SSAValue) -> SSAValue:
        return self._int_select(predicate, a, b, t, f, i32)

    def _int_select(self, predicate: str, a: SSAValue, b: Any, t: SSAValue, f: SSAValue, type_: Attribute) -> SSAValue:
        properties: dict[str, Attribute] = {"predicate": StringAttr(predicate)}
        operands = [a, t, f]
        if isinstance(b, int):
            properties["immediate"] = IntegerAttr(b, i32)
        else:
            operands.append(b)
        return self._emit(v.IntSelectOp.create(operands=operands, properties=properties, result_types=[type_]))


def _single(x: float) -> float:
    """The nearest float32, as a Python float."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def _merge(terms: Terms) -> list[tuple[SSAValue, int]]:
    """Sums the strides of equal variables and drops zero strides."""
    if len(terms) < 2:
        return [t for t in terms if t[1]]
    merged: dict[SSAValue, int] = {}
    for variable, stride in terms:
        merged[variable] = merged.get(variable, 0) + stride
    return [(variable, stride) for variable, stride in merged.items() if stride]
