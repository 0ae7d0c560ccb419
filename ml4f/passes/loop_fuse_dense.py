"""loop-fuse-dense: a dense layer consumes its input while it is computed, so that this is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, Block, Region
from xdsl.passes import ModulePass

from ml4f.backend.loop.dense_sink import fuse_dense
from ml4f.backend.loop.kernels import elementwise
from ml4f.backend.loop.nest import Nest
from ml4f.backend.loop.search import choose_schedule
from ml4f.dialects.loop.structure import CallOp, DataOp, KernelOp
from ml4f.passes.convert_nn_to_loop import float_data
from ml4f.passes.loop_rewriting import Program, fuse_calls, replace_kernel

MORE_CYCLES = 1.03
"""What it may cost not to store the input: times the cycles of the two kernels apart."""
LARGER = 1.1
"""The input must be so much larger than any other buffer: no plan can go below the largest."""
LEAST_SAVED = 128
"""So many bytes it must be larger: what adds to the outputs is code of a few hundred bytes."""


def in_the_way(program: Program, symbol: str) -> bool:
    """Whether a buffer alone makes the arena larger than the others need."""
    sizes = {s: op.bytes.value.data for s, op in program.buffers.items()}
    others = max((n for s, n in sizes.items() if s != symbol), default=0)
    return sizes[symbol] > LARGER * others and sizes[symbol] - others >= LEAST_SAVED


def worthwhile(producer: Nest, dense: Nest, fused: Nest) -> bool:
    """Whether the fused kernel is about as fast as the two."""
    apart = choose_schedule(producer)[1].cycles + choose_schedule(dense)[1].cycles
    return choose_schedule(fused)[1].cycles <= MORE_CYCLES * apart


def add_call(
    program: Program, name: str, nest: Nest, symbols: Sequence[str], attributes: dict[str, Attribute]
) -> CallOp:
    """A new kernel and a call of it, which is not in the program yet."""
    number, unique = 1, name
    while unique in program.kernels:
        number += 1
        unique = f"{name}_{number}"
    region = Region(Block(arg_types=[]))
    kernel = KernelOp.create(properties={"sym_name": StringAttr(unique), "spaces": ArrayAttr([])}, regions=[region])
    replace_kernel(program, kernel, nest, symbols)
    program.kernels[unique] = kernel
    program.module.body.block.insert_op_before(kernel, next(iter(program.kernels.values())))
    arguments = ArrayAttr([SymbolRefAttr(s) for s in symbols])
    return CallOp.create(properties={"callee": SymbolRefAttr(unique), "arguments": arguments}, attributes=attributes)


def bias_of(program: Program, call: CallOp, units: int) -> str:
    """The data that a dense layer's outputs start with."""
    nest = program.nest(call)
    assert nest is not None
    if nest.has("bias"):
        return program.symbol(call, "bias")
    name = f"{call.callee.root_reference.data}_zeros"
    data = DataOp.create(properties={"sym_name": StringAttr(name), "value": float_data(np.zeros(units, np.float32))})
    program.module.body.block.insert_op_before(data, program.kernel(call))
    program.data[name] = data
    return name


def fuse(program: Program, producer: CallOp, call: CallOp, fused: Nest, dense: Nest) -> None:
    """Three calls instead of two: the bias, the producer with the dense layer, and its activation if there is one."""
    units = dense.extents[dense.parallel_dims[0]]
    name, out = call.callee.root_reference.data, program.symbol(call, "out")
    bias = bias_of(program, call, units)
    kept = {k: call.attributes[k] for k in ("layers", "op", "ops") if k in call.attributes}
    start = add_call(program, f"{name}_start", elementwise([units], [1]), [bias, out], kept)
    call.parent_block().insert_op_before(start, call)  # pyright: ignore[reportOptionalMemberAccess]
    if dense.epilogue:
        final = elementwise([units], [1], epilogue=dense.epilogue)
        last = {k: call.attributes.pop(k) for k in ("shape", "result", "source") if k in call.attributes}
        finish = add_call(program, f"{name}_finish", final, [out, out], kept | last)
        call.parent_block().insert_op_after(finish, call)  # pyright: ignore[reportOptionalMemberAccess]
    symbols = [program.symbol(call, role) for role in ("x", "w", "out")]
    plain = replace(dense, operands=tuple(o for o in dense.operands if o.role != "bias"), epilogue=())
    replace_kernel(program, program.kernel(call), plain, symbols)
    call.properties["arguments"] = ArrayAttr([SymbolRefAttr(s) for s in symbols])
    macs = [a.value.data for c in (producer, call) if isinstance(a := c.attributes.get("macs"), IntegerAttr)]
    producer.attributes["macs"] = IntegerAttr(sum(macs), 64)
    program.forget()
    fuse_calls(program, producer, call, fused)


class LoopFuseDensePass(ModulePass):
    """Fuses where the dense layer's input is the largest buffer by far, and the fused kernel about as fast as the two.

        loop.nest … : <parallel (oy = 9, f = 4) reduce (c = 3) mac x["3*oy + c"], w["4*c + f"], out["4*oy + f"]>
        loop.nest … : <parallel (f = 2) reduce (c = 36) mac x["c"], w["2*c + f"], bias["f"], out["f"]>
    becomes
        loop.nest … : <parallel (d0 = 2) copy x["d0"], out["d0"]>
        loop.nest … : <parallel (oy = 9, f = 4) reduce (c = 3) mac x["3*oy + c"], w["4*c + f"], dense["8*oy + 2*f"],
                       out["0"] then dense dense(2.0)>
    """

    name = "loop-fuse-dense"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        program = Program(op)
        for call in program.calls:
            dense = program.nest(call)
            if dense is None or not dense.has("w") or any(s.role is not None for s in dense.epilogue):
                continue
            producer = program.only_producer(call, "x")
            nest = program.nest(producer) if producer is not None else None
            if producer is None or nest is None or program.symbol(call, "w") not in program.data:
                continue
            if not in_the_way(program, program.symbol(call, "x")):
                continue
            fused = fuse_dense(nest, dense)
            if fused is not None and worthwhile(nest, dense, fused):
                fuse(program, producer, call, fused, dense)
                return
