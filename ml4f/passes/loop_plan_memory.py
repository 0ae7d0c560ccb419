"""loop-plan-memory: gives every buffer its place in the arena, and kernels the direction in which they run for that."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import has_loop
from ml4f.backend.loop.pricing import price
from ml4f.backend.memory.exchanges import exchanges
from ml4f.backend.memory.lifetimes import Call, Timeline, live_sets, overlaps, pairs
from ml4f.backend.memory.planner import Plan, is_tight, plan, restricted, together
from ml4f.backend.memory.trace import WORD, Trace, opaque_trace, trace
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import BufferOp, CallOp, KernelOp, NestOp, ProgramOp

SHARING = 1.005
"""A plan in which equal kernels share their code may be that much larger."""

EXCHANGE_ROUNDS = 4
WORTH_A_SEARCH = 0.005
"""Exchanges are tried while the arena is at least that much larger than the largest buffer."""
EXCHANGE_COSTS = (0.0, 0.003, 0.008, 0.015)
"""Parts of all cycles that the exchange of one kernel may cost; the best of these is taken."""


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
    cycles: list[float]
    """What each schedule costs more than the first."""

    @staticmethod
    def of(op: KernelOp) -> Kernel:
        nest = op.body.block.first_op
        if not isinstance(nest, NestOp) or nest.schedule is None:
            return Kernel(None, [], [0.0])
        schedules = directions(nest.nest.data, nest.schedule.data)
        return Kernel(nest, schedules, [0.0] * len(schedules))

    def own_cycles(self) -> float:
        """The estimated cycles of a call."""
        if self.nest is None:
            return 0.0
        own = price(self.nest.nest.data, self.schedules[0])
        return own.cycles if own is not None else 0.0

    def widen(self, buffers: Sequence[int | None], sizes: Sequence[int], most: float) -> None:
        """Adds exchanges of at most `most` cycles that let the output overlap an input more than cheaper schedules do.

        `buffers`: by argument, as of a call. Packed weights already lie in the order of the schedule that they have.
        """
        if self.nest is None or self.schedules[0].reverse or "packed" in self.nest.attributes:
            return
        nest = self.nest.nest.data
        reach: dict[int, tuple[float, float]] = {}

        def helps(schedule: Schedule) -> bool:
            wanted = {a: sizes[b] for a, b in enumerate(buffers) if b is not None}
            last = Kernel(self.nest, [schedule], [0.0]).traces(wanted)
            better = False
            for buffer, low, high in overlaps(tuple(sizes), Call(0, tuple(buffers), last), self.output(buffers)):
                before = reach.get(buffer, (-inf, inf))
                better |= low > before[0] or high < before[1]
                reach[buffer] = max(low, before[0]), min(high, before[1])
            return better

        for schedule in self.schedules:
            helps(schedule)
        for instead, extra in exchanges(nest, self.schedules[0], most):
            for schedule in directions(nest, instead):
                if helps(schedule):
                    self.schedules.append(schedule)
                    self.cycles.append(extra)

    def output(self, buffers: Sequence[int | None]) -> int | None:
        """The buffer that the nest writes."""
        assert self.nest is not None
        pointer = self.nest.pointers[self.nest.nest.data.index_of("out")]
        return buffers[pointer.index]  # pyright: ignore[reportAttributeAccessIssue]

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

        self.sizes = tuple(-(-op.bytes.value.data // WORD) for op in self.buffers)
        self.groups = self._groups()
        self.update()

    def _timeline(self) -> Timeline:
        """The program, with all schedules that kernels may have now."""
        sizes = self.sizes
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

    def _groups(self) -> list[int]:
        """For each kernel the first one with the same nest and schedule: they can share their code."""
        first: dict[object, int] = {}
        keys = [(k.nest.nest, k.nest.schedule) if k.nest is not None else n for n, k in enumerate(self.kernels)]
        return [first.setdefault(key, n) for n, key in enumerate(keys)]

    def update(self) -> None:
        """Looks at the program again, after kernels have got more schedules."""
        self.timeline = self._timeline()
        self.pairs = pairs(self.timeline)
        self.live_sets = live_sets(self.timeline)

    def plan(self, most: float = inf) -> Plan:
        """The best plan in which equal kernels, which share their code, run in the same direction.

        Only where that costs more than `SHARING` of the arena they may differ. Schedules that cost more than `most`
        cycles a call are left out.
        """
        alternatives = restricted(self.pairs, [bisect_right(kernel.cycles, most) for kernel in self.kernels])
        best = plan(self.sizes, alternatives, self.live_sets)
        shared = plan(self.sizes, together(alternatives, self.groups), self.live_sets)
        if shared.size > SHARING * best.size:
            return best
        modes = {n: shared.modes[group] for n, group in enumerate(self.groups) if group in shared.modes}
        return Plan(shared.offsets, modes, shared.size, shared.bound)

    def tight_calls(self, size: int) -> list[Call]:
        """The calls at which the buffers alive cannot do with less than `size` words."""
        alternatives = together(self.pairs, self.groups)
        spans = [self.timeline.span(n) for n in range(len(self.sizes))]
        tight: list[Call] = []
        for step, call in enumerate(self.timeline.calls):
            members = [n for n, (first, last) in enumerate(spans) if first <= step <= last]
            if is_tight(self.sizes, alternatives, members, size):
                tight.append(call)
        return tight

    def improve(self) -> Plan:
        """The best plan with other schedules where they pay: the product of cycles and bytes falls."""
        counts = Counter(call.kernel for call in self.timeline.calls)
        cycles = [kernel.own_cycles() for kernel in self.kernels]
        total = sum(cycles[kernel] * n for kernel, n in counts.items())
        best, widened = self.plan(), set[int]()
        for _ in range(EXCHANGE_ROUNDS):
            gain = best.size / max(self.sizes, default=1) - 1
            if gain < WORTH_A_SEARCH:
                break
            tight = {self.groups[call.kernel]: call for call in self.tight_calls(best.size)}
            tight = {group: call for group, call in tight.items() if group not in widened}
            if not tight:
                break
            widened |= set(tight)
            for group, call in tight.items():
                members = [n for n, g in enumerate(self.groups) if g == group]
                most = min(gain, EXCHANGE_COSTS[-1]) * total / sum(counts[n] for n in members)
                self.kernels[group].widen(call.buffers, self.sizes, most)
                for n in members:
                    self.kernels[n].schedules = self.kernels[group].schedules
                    self.kernels[n].cycles = self.kernels[group].cycles
            self.update()
            plans = [self.plan(part * total) for part in EXCHANGE_COSTS]
            wider = min(plans, key=lambda p: p.size * (total + self._extra(p, counts)))
            if wider.size * (total + self._extra(wider, counts)) >= best.size * (total + self._extra(best, counts)):
                break
            best = wider
        return best

    def _extra(self, found: Plan, counts: Mapping[int, int]) -> float:
        """The cycles that a plan's exchanges cost."""
        return sum(self.kernels[n].cycles[mode] * counts[n] for n, mode in found.modes.items())

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
    is what no plan of these schedules can go below; see `docs/memory.md`. With `exchange` a kernel that stands in the way
    may get another schedule, where that saves a greater part of the arena than it costs of the cycles.

        loop.buffer @a {bytes = 32 : i64}
    becomes
        loop.buffer @a {bytes = 32 : i64, offset = 64 : i64}
    """

    name = "loop-plan-memory"

    exchange: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        planner = _Planner(op)
        planner.apply(planner.improve() if self.exchange else planner.plan())
