"""Executes loop-level programs: nests in numpy, indexed and pointer forms as generated Python on np.float32 values.

Generated Python is exact: every float operation rounds to float32 once, as the hardware does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from ml4f.dialects.loop import values as v
from ml4f.dialects.loop.structure import CallOp, ForOp, KernelOp, NestOp, ProgramOp, RepeatOp, YieldOp
from ml4f.errors import InternalError
from ml4f.interpreters.memory_image import MemoryImage
from ml4f.interpreters.nest import run_nest

_BINARY = {
    v.AddOp: "{0} + {1}",
    v.SubOp: "{0} - {1}",
    v.MulOp: "{0} * {1}",
    v.DivOp: "{0} / {1}",
    v.MaxOp: "{1} if {0} < {1} else {0}",
    v.MinOp: "{1} if {0} > {1} else {0}",
    v.IntMaxOp: "max({0}, {1})",
    v.NegOp: "-{0}",
    v.AbsOp: "abs({0})",
    v.SqrtOp: "sqrt({0})",
    v.FmaOp: "fma({0}, {1}, {2})",
    v.ToIntOp: "to_int({0})",
    v.ToIntNearestOp: "to_int_nearest({0})",
    v.BitsOp: "bits({0})",
    v.FromBitsOp: "from_bits({0})",
    v.ToFloatOp: "f32({0})",
    v.HalfLowOp: "half({0}, 0)",
    v.HalfHighOp: "half({0}, 16)",
    v.ReluBitsOp: "{0} if {0} >= 0 else 0",
}
_INTEGER = {
    v.IntAddOp: "wrap({0} + {1})",
    v.IntSubOp: "wrap({0} - {1})",
    v.IntMulOp: "wrap({0} * {1})",
    v.IntAndOp: "{0} & {1}",
    v.IntOrOp: "{0} | {1}",
    v.IntXorOp: "{0} ^ {1}",
    v.IntBicOp: "{0} & ~{1}",
    v.ShiftLeftOp: "wrap({0} << {1})",
    v.ShiftRightOp: "wrap(({0} & 0xffffffff) >> {1})",
    v.ShiftRightSignedOp: "{0} >> {1}",
}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def wrap(value: int) -> int:
    """Modulo 2^32, signed."""
    return (value + 0x80000000) % 0x100000000 - 0x80000000


def to_int(x: np.float32) -> int:
    """VCVT.S32.F32: towards zero, saturating, NaN gives 0."""
    if x != x:
        return 0
    return int(max(-0x80000000, min(0x7FFFFFFF, np.trunc(np.float64(x)))))


def to_int_nearest(x: np.float32) -> int:
    """VCVTR.S32.F32 in round-to-nearest-even mode."""
    if x != x:
        return 0
    return int(max(-0x80000000, min(0x7FFFFFFF, np.rint(np.float64(x)))))


def bits(x: np.float32) -> int:
    return int(np.float32(x).view(np.int32))


def from_bits(i: int) -> np.float32:
    return np.int32(i).view(np.float32)


def half(x: np.float32, shift: int) -> np.float32:
    """One of the two float16 of a word, widened."""
    return np.float32(np.uint16((bits(x) >> shift) & 0xFFFF).view(np.float16))


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a*b + c rounded once: the product is exact in float64; the sum is corrected for double rounding."""
    from ml4f.backend.loop.elementary import fused_multiply_add

    return np.float32(fused_multiply_add(np.float32(a), np.float32(b), np.float32(c)))


class _Generator:
    """Writes one kernel's Python."""

    def __init__(self, kernel: KernelOp):
        self.lines: list[str] = []
        self.names: dict[SSAValue, str] = {}
        self.nests: list[NestOp] = []
        arguments = ", ".join(self.name(a) for a in kernel.body.block.args)
        self.lines.append(f"def kernel(F, I, B, {arguments}):")
        self.block(kernel.body.block, 1)
        self.lines.append("    return None")

    def name(self, value: SSAValue) -> str:
        return self.names.setdefault(value, f"v{len(self.names)}")

    def emit(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def block(self, block: Block, depth: int) -> None:
        for op in block.ops:
            if isinstance(op, ForOp | RepeatOp):
                self.loop(op, depth)
            elif isinstance(op, v.AccessOp):
                self.access(op, depth)
            elif isinstance(op, NestOp):
                self.nest(op, depth)
            elif not isinstance(op, YieldOp):
                self.emit(depth, f"{self.name(op.results[0])} = {self.expression(op)}" if op.results else "pass")
                if isinstance(op, v.BitsPairOp):
                    self.emit(depth, f"{self.name(op.results[1])} = bits({self.name(op.second)})")

    def loop(self, op: ForOp | RepeatOp, depth: int) -> None:
        body = op.body.block
        count = str(op.count.value.data) if op.count is not None else self.name(op.trip_count)  # pyright: ignore[reportArgumentType]
        arguments = list(body.args)
        variable = "_"
        start = "0"
        if isinstance(op, ForOp):
            variable = self.name(arguments.pop(0))
            start = self.name(op.lower) if op.lower is not None else "0"
        for arg, init in zip(arguments, op.inits, strict=True):
            self.emit(depth, f"{self.name(arg)} = {self.name(init)}")
        self.emit(depth, f"assert {count} >= 1")
        self.emit(depth, f"for {variable} in range({start}, {start} + {count}):")
        self.block(body, depth + 1)
        last = body.last_op
        if isinstance(last, YieldOp) and last.operands:
            targets = ", ".join(self.name(a) for a in arguments)
            self.emit(depth + 1, f"{targets}, = {', '.join(self.name(o) for o in last.operands)},")
        self.emit(depth + 1, "pass")
        for result, arg in zip(op.results, arguments, strict=True):
            self.emit(depth, f"{self.name(result)} = {self.name(arg)}")

    def nest(self, op: NestOp, depth: int) -> None:
        """A nest in a loop; `run(number, addresses)` executes it."""
        variable = self.name(op.loop.induction_variable) if op.loop is not None else "0"
        places = ", ".join(
            f"{self.name(p)} + {4 * step} * {variable}" for p, step in zip(op.pointers, op.steps, strict=True)
        )
        self.emit(depth, f"run({len(self.nests)}, [{places}])")
        self.nests.append(op)

    def access(self, op: v.AccessOp, depth: int) -> None:
        strides = op.strides.get_values() if op.strides is not None else ()  # pyright: ignore[reportAttributeAccessIssue]
        terms = [f"{s}*{self.name(i)}" for i, s in zip(op.indices, strides, strict=True)]
        address = " + ".join([self.name(op.pointer), str(op.offset.value.data), *terms])
        if isinstance(op, v.StoreOp):
            memory = "F" if op.value.type == v.f32 else "I"
            self.emit(depth, f"{memory}[({address}) >> 2] = {self.name(op.value)}")
        elif isinstance(op, v.StoreMultipleOp):
            self.emit(depth, f"t = ({address}) >> 2")
            for i, value in enumerate(op.values):
                self.emit(depth, f"F[t + {i}] = {self.name(value)}")
            if op.advanced is not None:
                self.emit(depth, f"{self.name(op.advanced)} = {address} + {4 * len(op.values)}")
        elif isinstance(op, v.LoadByteOp):
            self.emit(depth, f"{self.name(op.result)} = int(B[{address}])")
        elif isinstance(op, v.LoadOp):
            load = "F[({}) >> 2]" if op.result.type == v.f32 else "int(I[({}) >> 2])"
            self.emit(depth, f"{self.name(op.result)} = {load.format(address)}")
        elif isinstance(op, v.LoadMultipleOp):
            self.emit(depth, f"t = ({address}) >> 2")
            count = len(op.values) - (op.advance is not None)
            for i, result in enumerate(op.values[:count]):
                self.emit(depth, f"{self.name(result)} = F[t + {i}]")
            if op.advance is not None:
                self.emit(depth, f"{self.name(op.values[-1])} = {address} + {4 * count}")

    def expression(self, op: Operation) -> str:
        operands = [self.name(o) for o in op.operands]
        if type(op) in _BINARY:
            return _BINARY[type(op)].format(*operands)
        if type(op) in _INTEGER:
            immediate = op.properties.get("immediate")
            if immediate is not None:
                operands.append(f"({immediate.value.data})")  # pyright: ignore[reportAttributeAccessIssue]
            return _INTEGER[type(op)].format(*operands)
        if isinstance(op, v.ConstantOp):
            return f"from_bits({bits(np.float32(op.value.value.data))})"
        if isinstance(op, v.IntegerConstantOp):
            return str(op.value.value.data)
        if isinstance(op, v.BitsPairOp):
            return f"bits({operands[0]})"
        if isinstance(op, v.ToIndexOp):
            return operands[0]
        if isinstance(op, v.AdvanceOp):
            return " + ".join([*operands, str(op.offset.value.data)])
        if isinstance(op, v.ScaleOp):
            return f"{operands[0]} * {op.factor.value.data}"
        if isinstance(op, v.SelectOp | v.IntSelectOp):
            return self.select(op)
        raise InternalError(f"the loop interpreter does not know {op.name}")

    def select(self, op: v.SelectOp | v.IntSelectOp) -> str:
        lhs, t, f = self.name(op.lhs), self.name(op.if_true), self.name(op.if_false)
        if op.rhs is not None:
            rhs = self.name(op.rhs)
        else:
            assert isinstance(op, v.IntSelectOp) and op.immediate is not None
            rhs = str(op.immediate.value.data)
        if op.predicate.data == "uno":
            return f"{t} if ({lhs} != {lhs} or {rhs} != {rhs}) else {f}"
        if op.predicate.data == "hi":
            return f"{t} if ({lhs} & 0xffffffff) > ({rhs} & 0xffffffff) else {f}"
        return f"{t} if {lhs} {_COMPARE[op.predicate.data]} {rhs} else {f}"


def compile_kernel(kernel: KernelOp, memory: MemoryImage) -> Callable[..., None]:
    """The kernel (no single nest) as a Python function of (floats, ints, bytes, *pointers)."""
    generator = _Generator(kernel)
    names: dict[str, Any] = {
        "f32": np.float32,
        "sqrt": np.sqrt,
        "wrap": wrap,
        "to_int": to_int,
        "to_int_nearest": to_int_nearest,
        "bits": bits,
        "from_bits": from_bits,
        "half": half,
        "fma": fma,
        "run": lambda number, pointers: _run_nest(generator.nests[number], memory, pointers),
    }
    exec("\n".join(generator.lines), names)
    return names["kernel"]


def _run_nest(op: NestOp, memory: MemoryImage, pointers: Sequence[int]) -> None:
    schedule = op.schedule.data if op.schedule is not None else None
    run_nest(op.nest.data, schedule, "packed" in op.attributes, memory, pointers)


def run_kernel(kernel: KernelOp, memory: MemoryImage, addresses: Sequence[int]) -> None:
    """Executes one kernel, whatever its form."""
    first = kernel.body.block.first_op
    if isinstance(first, NestOp):
        where = dict(zip(kernel.body.block.args, addresses, strict=True))
        _run_nest(first, memory, [where[p] for p in first.pointers])  # pyright: ignore[reportArgumentType]
        return
    with np.errstate(all="ignore"):
        compile_kernel(kernel, memory)(memory.floats, memory.words.view(np.int32), memory.bytes, *addresses)


def run_loop(
    module: ModuleOp,
    inputs: Sequence[np.ndarray],
    observe: Callable[[CallOp, MemoryImage], None] | None = None,
) -> list[np.ndarray]:
    """Executes the program; returns its outputs, flat. `observe` is called behind every kernel call."""
    ops = list(module.body.block.ops)
    program = next(op for op in ops if isinstance(op, ProgramOp))
    kernels = {op.sym_name.data: op for op in ops if isinstance(op, KernelOp)}
    memory = MemoryImage(module)
    for symbol, value in zip(program.inputs, inputs, strict=True):
        memory.write(symbol.root_reference.data, value)
    for call in program.body.block.ops:
        if isinstance(call, CallOp):
            addresses = [memory.address[a.root_reference.data] for a in call.arguments]
            run_kernel(kernels[call.callee.root_reference.data], memory, addresses)
            if observe is not None:
                observe(call, memory)
    return [memory.read(symbol.root_reference.data) for symbol in program.outputs]
