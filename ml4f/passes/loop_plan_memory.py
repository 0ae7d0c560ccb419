"""loop-plan-memory: gives every buffer its place in the arena."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from ml4f.dialects.loop.structure import BufferOp, CallOp, ProgramOp


def lifetimes(module: ModuleOp) -> dict[str, tuple[int, int]]:
    """For every buffer the first and last step at which it holds something (step i: call i; inputs -1, outputs the end)."""
    program = next(op for op in module.body.block.ops if isinstance(op, ProgramOp))
    calls = [op for op in program.body.block.ops if isinstance(op, CallOp)]
    live: dict[str, tuple[int, int]] = {s.root_reference.data: (-1, -1) for s in program.inputs}
    for step, call in enumerate(calls):
        for symbol in (a.root_reference.data for a in call.arguments):
            first, _ = live.get(symbol, (step, step))
            live[symbol] = (first, step)
    for symbol in program.outputs:
        name = symbol.root_reference.data
        live[name] = (live.get(name, (-1, -1))[0], len(calls))
    return live


@dataclass(frozen=True)
class LoopPlanMemoryPass(ModulePass):
    """Places buffers so that those alive at the same time do not overlap.

        loop.buffer @a {bytes = 32 : i64}
    becomes
        loop.buffer @a {bytes = 32 : i64, offset = 64 : i64}
    """

    name = "loop-plan-memory"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        live = lifetimes(op)
        buffers = [b for b in op.body.block.ops if isinstance(b, BufferOp)]
        placed: list[tuple[int, int, tuple[int, int]]] = []
        for buffer in sorted(buffers, key=lambda b: (-b.bytes.value.data, b.sym_name.data)):
            span = live.get(buffer.sym_name.data, (0, 0))
            size = (buffer.bytes.value.data + 3) & ~3
            offset = 0
            for start, end, other in sorted(p for p in placed if p[2][0] <= span[1] and span[0] <= p[2][1]):
                if offset + size <= start:
                    break
                offset = max(offset, end)
            placed.append((offset, offset + size, span))
            buffer.properties["offset"] = IntegerAttr(offset, i64)
        program = next(p for p in op.body.block.ops if isinstance(p, ProgramOp))
        program.properties["arena_bytes"] = IntegerAttr(max((end for _, end, _ in placed), default=0), i64)
