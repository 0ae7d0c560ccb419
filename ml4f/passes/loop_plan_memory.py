"""loop-plan-memory: gives every buffer its place in the arena, and kernels the direction in which they run for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import has_loop
from ml4f.backend.memory.lifetimes import Call, Timeline, live_sets, pairs
from ml4f.backend.memory.planner import Plan, plan, together
from ml4f.backend.memory.trace import WORD, Trace, opaque_trace, trace
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import BufferOp, CallOp, KernelOp, NestOp, ProgramOp

SHARING = 1.005
"""A plan in which equal kernels share their code may be that much larger."""


def directions(nest: Nest, schedule: Schedule) -> list[Schedule]:
    """The schedule as it is, with its pixel loops backwards, and with its filter loops backwards as well."""
    if schedule.reverse:
        return [schedule]
    rolled = schedule.roll[0] if schedule.roll is not None else None
    looped = [d for d, s in schedule.loops if d in nest.parallel_dims and d != rolled and has_loop(s)]
    pixels = tuple(d for d in looped if d not in nest.filter_dims)
    choices = dict.fromkeys([(), pixels, tuple(looped)] if pixels else [()])
    return [replace(schedule, reverse=dims) for dims in choices]


@dataclass
class Kernel:
    """A kernel's nest, if it is in nest form, and the schedules that it may have."""

    nest: NestOp | None
    schedules: list[Schedule]

    @staticmethod
    def of(op: KernelOp) -> Kernel:
        nest = op.body.block.first_op
        if not isinstance(nest, NestOp) or nest.schedule is None:
            return Kernel(None, [])
        return Kernel(nest, directions(nest.nest.data, nest.schedule.data))

    def traces(self, sizes: Mapping[int, int]) -> tuple[Trace, ...]:
        """One trace for each schedule; `sizes` in words by argument of the kernel."""
        if self.nest is None:
            return (opaque_trace(sizes),)
        nest = self.nest.nest.data
        argument = [p.index for p in self.nest.pointers]  # pyright: ignore[reportAttributeAccessIssue]
        wanted = {i: sizes[a] for i, a in enumerate(argument) if a in sizes}
        found = [trace(nest, schedule, wanted) for schedule in self.schedules]
        return tuple(Trace(t.slots, {argument[i]: touches for i, touches in t.operands.items()}) for t in found)


class _Planner:
    """The program as plain data, and the plan written back."""

    def __init__(self, module: ModuleOp):
        ops = list(module.body.block.ops)
        self.buffers = [op for op in ops if isinstance(op, BufferOp)]
        self.numbers = {op.sym_name.data: n for n, op in enumerate(self.buffers)}
        kernel_ops = [op for op in ops if isinstance(op, KernelOp)]
        self.kernel_numbers = {op.sym_name.data: n for n, op in enumerate(kernel_ops)}
        self.kernels = [Kernel.of(op) for op in kernel_ops]
        self.program = next(op for op in ops if isinstance(op, ProgramOp))

    def timeline(self) -> Timeline:
        sizes = tuple(-(-op.bytes.value.data // WORD) for op in self.buffers)
        calls: list[Call] = []
        for op in self.program.body.block.ops:
            if not isinstance(op, CallOp):
                continue
            kernel = self.kernel_numbers[op.callee.root_reference.data]
            buffers = tuple(self.numbers.get(a.root_reference.data) for a in op.arguments)
            wanted = {i: sizes[b] for i, b in enumerate(buffers) if b is not None}
            calls.append(Call(kernel, buffers, self.kernels[kernel].traces(wanted)))
        ends = [
            tuple(self.numbers[s.root_reference.data] for s in symbols)
            for symbols in (self.program.inputs, self.program.outputs)
        ]
        return Timeline(sizes, tuple(calls), *ends)

    def groups(self) -> list[int]:
        """For each kernel the first one with the same nest and schedule: they can share their code."""
        first: dict[object, int] = {}
        keys = [(k.nest.nest, k.nest.schedule) if k.nest is not None else n for n, k in enumerate(self.kernels)]
        return [first.setdefault(key, n) for n, key in enumerate(keys)]

    def plan(self) -> Plan:
        """The best plan in which equal kernels, which share their code, run in the same direction.

        Only where that costs more than `SHARING` of the arena they may differ.
        """
        timeline = self.timeline()
        alternatives, live = pairs(timeline), live_sets(timeline)
        best = plan(timeline.sizes, alternatives, live)
        groups = self.groups()
        shared = plan(timeline.sizes, together(alternatives, groups), live)
        if shared.size > SHARING * best.size:
            return best
        modes = {n: shared.modes[group] for n, group in enumerate(groups) if group in shared.modes}
        return Plan(shared.offsets, modes, shared.size, shared.bound)

    def apply(self, found: Plan) -> None:
        for op, offset in zip(self.buffers, found.offsets, strict=True):
            op.properties["offset"] = IntegerAttr(offset * WORD, i64)
        for kernel, mode in found.modes.items():
            nest = self.kernels[kernel].nest
            assert nest is not None
            nest.properties["schedule"] = ScheduleAttr(self.kernels[kernel].schedules[mode])
        self.program.properties["arena_bytes"] = IntegerAttr(found.size * WORD, i64)
        self.program.properties["arena_bound"] = IntegerAttr(found.bound * WORD, i64)


@dataclass(frozen=True)
class LoopPlanMemoryPass(ModulePass):
    """Places buffers so that no element is overwritten while it is still needed; an output may slide over its input.

    Runs a kernel backwards (`reverse` in its schedule) where that makes the arena smaller. The program's `arena_bound`
    is what no plan of these schedules can go below; see `ml4f.backend.memory`.

        loop.buffer @a {bytes = 32 : i64}
    becomes
        loop.buffer @a {bytes = 32 : i64, offset = 64 : i64}
    """

    name = "loop-plan-memory"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        planner = _Planner(op)
        planner.apply(planner.plan())
