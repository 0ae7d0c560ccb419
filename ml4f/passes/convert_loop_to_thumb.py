"""convert-loop-to-thumb: instruction selection, one loop operation after the other."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import compress
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from ml4f.backend.loop.packing import WORD
from ml4f.dialects.loop import values as v
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, KernelOp, ProgramOp, RepeatOp, YieldOp
from ml4f.dialects.thumb import build
from ml4f.errors import InternalError
from ml4f.passes.loop_pack_weights import raw_bytes

ADD_IMMEDIATE = 4095
"""The largest immediate of ADDW and SUBW (Armv7-M ARM, A7.7.3)."""


class _Selector:
    """Selects the instructions of one kernel."""

    def __init__(self, kernel: KernelOp):
        self.kernel = kernel
        self.values: dict[SSAValue, SSAValue] = {}
        self.blocks: list[Block] = []

    def run(self) -> Operation:
        arguments = [arg for arg in self.kernel.body.block.args if arg.uses]
        block = Block(arg_types=[build.core(i) for i in range(len(arguments))])
        for old, new in zip(arguments, block.args, strict=True):
            self.values[old] = new
            new.name_hint = old.name_hint
        self.blocks.append(block)
        self.select_block(self.kernel.body.block)
        self.emit(build.return_())
        return build.func(self.kernel.sym_name.data, Region(block))

    def emit(self, op: Operation) -> SSAValue:
        self.blocks[-1].add_op(op)
        return op.results[0] if op.results else None  # pyright: ignore[reportReturnType]

    def select_block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, YieldOp):
                continue
            handler = _HANDLERS.get(type(op))
            if handler is None:
                raise InternalError(f"no instruction for {op.name}")
            handler(self, op)

    def operands(self, op: Operation) -> list[SSAValue]:
        return [self.values[o] for o in op.operands]

    def constant(self, value: int) -> SSAValue:
        """A 32-bit constant in a core register."""
        result: SSAValue | None = None
        for op in build.constant(value & 0xFFFFFFFF):
            if result is not None:
                op.operands = [result]
            result = self.emit(op)
        assert result is not None
        return result


def _simple(make: Callable[..., Operation]) -> Callable[[_Selector, Any], None]:
    """One operation, one instruction, same operands."""

    def select(s: _Selector, op: Operation) -> None:
        s.values[op.results[0]] = s.emit(make(*s.operands(op)))

    return select


def _load(s: _Selector, op: v.LoadOp) -> None:
    make = build.vldr if op.result.type == v.f32 else build.ldr
    s.values[op.result] = s.emit(make(s.values[op.pointer], op.offset.value.data, op.space.data))


def _load_byte(s: _Selector, op: v.LoadByteOp) -> None:
    s.values[op.result] = s.emit(build.ldrb(s.values[op.pointer], op.offset.value.data, op.space.data))


def _load_multiple(s: _Selector, op: v.LoadMultipleOp) -> None:
    if op.offset.value.data:
        raise InternalError("load_multiple needs pointer form")
    make, count = (build.vldm, len(op.values)) if op.advance is None else (build.vldmia, len(op.values) - 1)
    lowered = make(s.values[op.pointer], count, op.space.data)
    s.emit(lowered)
    for old, new in zip(op.values, lowered.results, strict=True):
        s.values[old] = new


def _store(s: _Selector, op: v.StoreOp) -> None:
    make = build.vstr if op.value.type == v.f32 else build.str_
    s.emit(make(s.values[op.value], s.values[op.pointer], op.offset.value.data, op.space.data))


def _store_multiple(s: _Selector, op: v.StoreMultipleOp) -> None:
    if op.offset.value.data or op.advanced is None:
        raise InternalError("store_multiple needs pointer form")
    values = [s.values[value] for value in op.values]
    s.values[op.advanced] = s.emit(build.vstmia(s.values[op.pointer], values, op.space.data))


def _add_constant(s: _Selector, value: SSAValue, amount: int) -> SSAValue:
    if not amount:
        return value
    if 0 < amount <= ADD_IMMEDIATE:
        return s.emit(build.add_imm(value, amount))
    if -ADD_IMMEDIATE <= amount < 0:
        return s.emit(build.sub_imm(value, -amount))
    if amount < 0:
        return s.emit(build.sub(value, s.constant(-amount)))
    return s.emit(build.add(value, s.constant(amount)))


def _advance(s: _Selector, op: v.AdvanceOp) -> None:
    value = s.values[op.pointer]
    if op.amount is not None:
        value = s.emit(build.add(value, s.values[op.amount]))
    s.values[op.result] = _add_constant(s, value, op.offset.value.data)


def _scale(s: _Selector, op: v.ScaleOp) -> None:
    factor = op.factor.value.data
    index = s.values[op.index]
    if factor > 0 and factor & (factor - 1) == 0:
        s.values[op.result] = s.emit(build.lsl_imm(index, factor.bit_length() - 1)) if factor > 1 else index
        return
    s.values[op.result] = s.emit(build.mul(index, s.constant(factor)))


def float_bits(value: float) -> int:
    """The bit pattern of the nearest float32."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def _constant(s: _Selector, op: v.ConstantOp) -> None:
    value = float(op.value.value.data)
    if build.is_vfp_immediate(value):
        s.values[op.result] = s.emit(build.vmov_imm(value))
    else:
        s.values[op.result] = s.emit(build.vmov_s_r(s.constant(float_bits(value))))


def _int_constant(s: _Selector, op: v.IntegerConstantOp) -> None:
    s.values[op.result] = s.constant(op.value.value.data)


def _bits_pair(s: _Selector, op: v.BitsPairOp) -> None:
    s.values[op.first_bits] = s.emit(build.vmov_r_s(s.values[op.first]))
    s.values[op.second_bits] = s.emit(build.vmov_r_s(s.values[op.second]))


def _to_int(convert: Callable[[SSAValue], Operation]) -> Callable[[_Selector, Any], None]:
    def select(s: _Selector, op: v.FloatToInt) -> None:
        s.values[op.result] = s.emit(build.vmov_r_s(s.emit(convert(s.values[op.operand]))))

    return select


def _to_index(s: _Selector, op: v.ToIndexOp) -> None:
    s.values[op.result] = s.values[op.operand]


def _to_float(s: _Selector, op: v.ToFloatOp) -> None:
    s.values[op.result] = s.emit(build.vcvt_f32_s32(s.emit(build.vmov_s_r(s.values[op.operand]))))


def _relu_bits(s: _Selector, op: v.ReluBitsOp) -> None:
    bits = s.values[op.operand]
    s.values[op.result] = s.emit(build.bic(bits, bits, "asr", 31))


def _imax(s: _Selector, op: v.IntMaxOp) -> None:
    a, b = s.operands(op)
    s.values[op.result] = s.emit(build.select("lt", a, b, if_true=b, if_false=a))


def _integer(
    register: Callable[[SSAValue, SSAValue], Operation], immediate: Callable[[SSAValue, int], Operation] | None
) -> Callable[[_Selector, Any], None]:
    """A core-register operation whose second operand may be a constant; `immediate` needs a modified immediate."""

    def select(s: _Selector, op: v.IntBinary) -> None:
        lhs = s.values[op.lhs]
        if op.rhs is not None:
            result = s.emit(register(lhs, s.values[op.rhs]))
        else:
            assert op.immediate is not None
            value = op.immediate.value.data & 0xFFFFFFFF
            if immediate is not None and build.is_modified_immediate(value):
                result = s.emit(immediate(lhs, value))
            else:
                result = s.emit(register(lhs, s.constant(value)))
        s.values[op.result] = result

    return select


def _iadd(sign: int) -> Callable[[_Selector, Any], None]:
    def select(s: _Selector, op: v.IntBinary) -> None:
        lhs = s.values[op.lhs]
        if op.rhs is not None:
            make = build.add if sign > 0 else build.sub
            s.values[op.result] = s.emit(make(lhs, s.values[op.rhs]))
        else:
            assert op.immediate is not None
            s.values[op.result] = _add_constant(s, lhs, sign * op.immediate.value.data)

    return select


def _shift(make: Callable[[SSAValue, int], Operation]) -> Callable[[_Selector, Any], None]:
    def select(s: _Selector, op: v.IntBinary) -> None:
        assert op.immediate is not None
        amount = op.immediate.value.data
        lhs = s.values[op.lhs]
        s.values[op.result] = s.emit(make(lhs, amount)) if amount else lhs

    return select


def _fselect(s: _Selector, op: v.SelectOp) -> None:
    a, b, t, f = s.operands(op)
    s.values[op.result] = s.emit(build.vselect(op.predicate.data, a, b, if_true=t, if_false=f))


def _iselect(s: _Selector, op: v.IntSelectOp) -> None:
    is_float = op.result.type == v.f32
    t, f = s.values[op.if_true], s.values[op.if_false]
    if is_float:
        t, f = s.emit(build.vmov_r_s(t)), s.emit(build.vmov_r_s(f))
    lhs = s.values[op.lhs]
    if op.rhs is not None:
        rhs: SSAValue = s.values[op.rhs]
    else:
        assert op.immediate is not None
        rhs = s.constant(op.immediate.value.data)
    result = s.emit(build.select(op.predicate.data, lhs, rhs, if_true=t, if_false=f))
    s.values[op.result] = s.emit(build.vmov_s_r(result)) if is_float else result


def _repeat(s: _Selector, op: RepeatOp) -> None:
    count = s.values[op.trip_count] if op.trip_count is not None else s.constant(op.count.value.data)  # pyright: ignore[reportOptionalMemberAccess]
    inits = [s.values[i] for i in op.inits]
    body = Block(arg_types=[build.unallocated(i.type) for i in inits])
    for old, new in zip(op.body.block.args, body.args, strict=True):
        s.values[old] = new
    s.blocks.append(body)
    s.select_block(op.body.block)
    last = op.body.block.last_op
    yielded = [s.values[o] for o in last.operands] if last is not None else []
    s.emit(build.yield_(yielded))
    s.blocks.pop()
    loop = build.loop(count, inits, Region(body), op.label.data if op.label is not None else None)
    s.emit(loop)
    for old, new in zip(op.results, loop.results, strict=True):
        s.values[old] = new


_HANDLERS: dict[type[Operation], Callable[[_Selector, Any], None]] = {
    v.LoadOp: _load,
    v.LoadByteOp: _load_byte,
    v.LoadMultipleOp: _load_multiple,
    v.StoreMultipleOp: _store_multiple,
    v.StoreOp: _store,
    v.AdvanceOp: _advance,
    v.ScaleOp: _scale,
    v.ConstantOp: _constant,
    v.IntegerConstantOp: _int_constant,
    v.AddOp: _simple(build.vadd),
    v.SubOp: _simple(build.vsub),
    v.MulOp: _simple(build.vmul),
    v.DivOp: _simple(build.vdiv),
    v.MaxOp: _simple(build.vmax),
    v.MinOp: _simple(build.vmin),
    v.NegOp: _simple(build.vneg),
    v.AbsOp: _simple(build.vabs),
    v.SqrtOp: _simple(build.vsqrt),
    v.FmaOp: _simple(lambda a, b, c: build.vfma(c, a, b)),
    v.ToIntOp: _to_int(build.vcvt_s32_f32),
    v.ToIntNearestOp: _to_int(build.vcvtr_s32_f32),
    v.BitsOp: _simple(build.vmov_r_s),
    v.BitsPairOp: _bits_pair,
    v.ToIndexOp: _to_index,
    v.ToFloatOp: _to_float,
    v.FromBitsOp: _simple(build.vmov_s_r),
    v.HalfLowOp: _simple(build.vcvtb_f32_f16),
    v.HalfHighOp: _simple(build.vcvtt_f32_f16),
    v.IntAddOp: _iadd(1),
    v.IntSubOp: _iadd(-1),
    v.IntMulOp: _integer(build.mul, None),
    v.IntAndOp: _integer(build.and_, build.and_imm),
    v.IntOrOp: _integer(build.orr, build.orr_imm),
    v.IntXorOp: _integer(build.eor, build.eor_imm),
    v.IntBicOp: _integer(build.bic, build.bic_imm),
    v.ShiftLeftOp: _shift(build.lsl_imm),
    v.ShiftRightOp: _shift(build.lsr_imm),
    v.ShiftRightSignedOp: _shift(build.asr_imm),
    v.ReluBitsOp: _relu_bits,
    v.IntMaxOp: _imax,
    v.SelectOp: _fselect,
    v.IntSelectOp: _iselect,
    RepeatOp: _repeat,
}


def _main(program: ProgramOp, offsets: dict[str, int], sizes: dict[str, int], used: dict[str, list[bool]]) -> Operation:
    """The entry function: for each call the addresses of its buffers and data, as far as `used`, in r0, r1, …"""
    block = Block()
    for call in program.body.block.ops:
        if not isinstance(call, CallOp):
            continue
        arguments: list[SSAValue] = []
        symbols = (a.root_reference.data for a in call.arguments)
        for i, symbol in enumerate(compress(symbols, used[call.callee.root_reference.data])):
            if symbol in offsets:
                op = build.arena_address(offsets[symbol], build.core(i))
            else:
                op = build.data_address(symbol, build.core(i))
            block.add_op(op)
            arguments.append(op.results[0])
        attributes = _call_attributes(call, offsets)
        attributes["arena_bytes"] = IntegerAttr(_live_bytes(program, call, offsets, sizes), 64)
        block.add_op(build.call(call.callee.root_reference.data, arguments, attributes))
    block.add_op(build.return_())
    return build.func("main", Region(block), entry=True)


def _live_bytes(program: ProgramOp, call: CallOp, offsets: dict[str, int], sizes: dict[str, int]) -> int:
    """Bytes of the arena that hold something while a call runs; a word that two buffers use counts once."""
    calls = [op for op in program.body.block.ops if isinstance(op, CallOp)]
    users = [{a.root_reference.data for a in c.arguments} for c in calls]
    step = calls.index(call)
    before = {s.root_reference.data for s in program.inputs}.union(*users[: step + 1])
    behind = {s.root_reference.data for s in program.outputs}.union(*users[step:])
    end = live = 0
    for offset, size in sorted((offsets[s], sizes[s]) for s in before & behind & set(offsets)):
        live += max(offset + size - max(offset, end), 0)
        end = max(end, offset + size)
    return live


def _call_attributes(call: CallOp, offsets: dict[str, int]) -> dict[str, Attribute]:
    """A call's attributes, with places in the arena instead of buffers; `where` describes them for the listing."""
    attributes = dict(call.attributes)
    result = attributes.get("result")
    if isinstance(result, SymbolRefAttr):
        attributes["result"] = IntegerAttr(offsets[result.root_reference.data], 64)
    symbols = [argument.root_reference.data for argument in call.arguments]
    described = [f"{s} at arena+{offsets[s]}" if s in offsets else s for s in symbols]
    attributes["where"] = StringAttr(", ".join(described))
    attributes["constants"] = ArrayAttr([StringAttr(s) for s in dict.fromkeys(symbols) if s not in offsets])
    return attributes


def convert(module: ModuleOp) -> None:
    """Replaces the loop-level program by thumb functions and data."""
    ops = list(module.body.block.ops)
    offsets: dict[str, int] = {}
    sizes = {op.sym_name.data: op.bytes.value.data for op in ops if isinstance(op, BufferOp)}
    for op in ops:
        if isinstance(op, BufferOp):
            if op.offset is None:
                raise InternalError(f"@{op.sym_name.data} has no place in the arena; run loop-plan-memory first")
            offsets[op.sym_name.data] = op.offset.value.data
    new: list[Operation] = []
    attributes: dict[str, Attribute] = {}
    used = {op.sym_name.data: [bool(arg.uses) for arg in op.body.block.args] for op in ops if isinstance(op, KernelOp)}
    for op in ops:
        if isinstance(op, ProgramOp):
            new.insert(0, _main(op, offsets, sizes, used))
            attributes = _object_attributes(op, offsets)
        elif isinstance(op, KernelOp):
            new.append(_Selector(op).run())
        elif isinstance(op, DataOp):
            new.append(build.data(op.sym_name.data, raw_bytes(op), WORD))
    for op in ops:
        op.detach()
        op.erase(safe_erase=False)
    module.body.block.add_ops(new)
    module.attributes.update(attributes)


TENSOR_ATTRIBUTES = ("input_shapes", "output_shapes", "input_names", "output_names", "input_types", "output_types")
"""What a program says of its inputs and outputs and the object's header repeats."""


def _object_attributes(program: ProgramOp, offsets: dict[str, int]) -> dict[str, Attribute]:
    """What the object's header says: arena bytes, where inputs and outputs lie in it, their shapes, names and types."""
    attributes = {k: a for k, a in program.attributes.items() if k in TENSOR_ATTRIBUTES}
    assert program.arena_bytes is not None
    attributes["arena_bytes"] = program.arena_bytes
    if program.arena_bound is not None:
        attributes["arena_bound"] = program.arena_bound
    for name, symbols in (("input_offsets", program.inputs), ("output_offsets", program.outputs)):
        attributes[name] = ArrayAttr([IntegerAttr(offsets[symbol.root_reference.data], 64) for symbol in symbols])
    attributes["core"] = StringAttr("cortex-m4")
    return attributes


class ConvertLoopToThumbPass(ModulePass):
    """Selects instructions for kernels in pointer form; the program becomes the entry function.

        %v = loop.load %p[] {offset = 4 : i64, space = "arena"} : f32
    becomes
        %v = thumb.vldr %p {offset = 4, space = "arena"}
    """

    name = "convert-loop-to-thumb"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        convert(op)
