"""loop-plan-memory: gives every buffer its place in the arena, and kernels the direction in which they run for that."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import inf

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.passes import ModulePass

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import has_loop, whole_words
from ml4f.backend.loop.pricing import Price, price
from ml4f.backend.loop.search import CODE_PER_CYCLES, FLASH_PAGE, Goal
from ml4f.backend.loop.unrolling import unrolled_further
from ml4f.backend.memory.exchanges import Budget, Exchange, exactly, exchanges
from ml4f.backend.memory.lifetimes import Call, Timeline, fits, live_sets, overlaps, pairs
from ml4f.backend.memory.ordering import Step, thriftiest_order
from ml4f.backend.memory.planner import Plan, is_tight, lower_bound, plan, restricted, together
from ml4f.backend.memory.trace import NEVER, WORD, Touches, Trace, opaque_trace, trace
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import BufferOp, CallOp, KernelOp, NestOp, ProgramOp
from ml4f.errors import InternalError

SHARING = 1.005
"""A plan in which equal kernels share their code may be that much larger."""

EXCHANGE_ROUNDS = 4
WORTH_A_SEARCH = 0.002
"""Exchanges are tried while the arena is at least that much larger than the largest buffer."""
COST_LEVELS = 8
"""Plans are made with exchanges up to so many different costs; the best is taken."""
MOST_CYCLES: dict[Goal, float] = {"speed": 0.002, "balanced": 0.02, "size": 0.02}
"""The part of all cycles that all exchanges together may cost."""
MOST_COST = 0.03
"""The same with the code that exchanges cost."""
MOST_CODE: dict[Goal, float] = {"speed": inf, "balanced": inf, "size": 0.0}
"""The bytes of code that an exchange may cost."""
DEAR_CODE = 5.0
"""A byte of code that saves cycles may cost so many times what it costs where schedules are chosen."""
ARENA_WEIGHT = 16
"""A hundredth of the arena counts like sixteen hundredths of the cycles: the scarcest of a small board's resources."""
NEARLY_TIGHT = 0.95
"""Calls next to those that have got more schedules get some too if they need this part of the arena."""


def directions(nest: Nest, schedule: Schedule) -> list[Schedule]:
    """The schedule as it is, with its pixel loops backwards, and with its filter loops backwards as well."""
    if schedule.reverse:
        return [schedule]
    rolled = schedule.roll[0] if schedule.roll is not None else None
    looped = [d for d, s in schedule.loops if d in nest.parallel_dims and d != rolled and has_loop(s)]
    pixels = tuple(d for d in looped if d not in nest.filter_dims)
    choices = dict.fromkeys([(), pixels, tuple(looped)] if pixels else [()])
    return [replace(schedule, reverse=dims) for dims in choices]


def _in_direction(nest: Nest, forward: Schedule, exchange: Exchange) -> Exchange:
    """The exchange, whose figures are those of running `forward`, dearer by what its direction costs.

    Without multiple stores, which go up in memory, that is nothing.
    """
    if "out" not in forward.multiple or exchange.schedule.reverse == forward.reverse:
        return exchange
    own, its = price(nest, forward), price(nest, exchange.schedule)
    more = max(its.cycles - own.cycles, 0.0) if own is not None and its is not None else 0.0
    return replace(exchange, cycles=exchange.cycles + more, cost=exchange.cost + more)


@dataclass
class Kernel:
    """A kernel's nest, if it is in nest form, and the schedules that it may have."""

    nest: NestOp | None
    exchanges: list[Exchange]
    """What each schedule costs more than the first, the cheapest first."""

    @staticmethod
    def of(op: KernelOp) -> Kernel:
        nest = op.body.block.first_op
        if not isinstance(nest, NestOp) or nest.schedule is None:
            return Kernel(None, [])
        algorithm, own = nest.nest.data, nest.schedule.data
        found = [_in_direction(algorithm, own, Exchange(s, 0.0, 0, 0.0)) for s in directions(algorithm, own)]
        return Kernel(nest, sorted(found, key=lambda e: e.cost))

    def mode_of(self, schedule: Schedule) -> int:
        """The number of a schedule, which changes when cheaper ones are added."""
        return next(i for i, exchange in enumerate(self.exchanges) if exchange.schedule == schedule)

    def own_price(self) -> Price:
        """What a call of the kernel takes as it is, estimated."""
        own = price(self.nest.nest.data, self.exchanges[0].schedule) if self.nest is not None else None
        return own if own is not None else Price(0.0, 0, 0, 0)

    def widen(self, buffers: Sequence[int | None], sizes: Sequence[int], budget: Budget) -> None:
        """Adds the exchanges that let the output overlap an input more than cheaper schedules do.

        `buffers`: by argument, as of a call. Packed weights already lie in the order of the schedule that they have.
        """
        if self.nest is None or self.exchanges[0].schedule.reverse or "packed" in self.nest.attributes:
            return
        nest = self.nest.nest.data
        reach: dict[int, tuple[float, float]] = {}

        def overlap(schedule: Schedule) -> list[tuple[int, float, float]]:
            wanted = {a: sizes[b] for a, b in enumerate(buffers) if b is not None}
            last = Kernel(self.nest, [Exchange(schedule, 0.0, 0, 0.0)]).traces(wanted)
            return overlaps(tuple(sizes), Call(0, tuple(buffers), last), self.output(buffers))

        def reaches_further(found: list[tuple[int, float, float]]) -> bool:
            befores = [reach.get(buffer, (-inf, inf)) for buffer, _, _ in found]
            return any(low > b[0] or high < b[1] for (_, low, high), b in zip(found, befores, strict=True))

        def note(found: list[tuple[int, float, float]]) -> None:
            for buffer, low, high in found:
                before = reach.get(buffer, (-inf, inf))
                reach[buffer] = max(low, before[0]), min(high, before[1])

        own = self.exchanges[0].schedule
        for exchange in self.exchanges:
            note(overlap(exchange.schedule))
        for instead in exchanges(nest, own, budget):
            exact: Exchange | None = None
            for schedule in directions(nest, instead.schedule):
                found = overlap(schedule)
                if not reaches_further(found):
                    continue
                exact = exact or exactly(nest, own, instead, budget)
                if exact is None:
                    break
                note(found)
                self.exchanges.append(_in_direction(nest, instead.schedule, replace(exact, schedule=schedule)))
        self.exchanges.sort(key=lambda e: e.cost)

    def faster(self, mode: int) -> Iterator[tuple[Schedule, Price]]:
        """Schedules with longer bodies than the one of this mode; the cycles that each saves, the code that it costs.

        They touch memory in the same order of tiles, so that the plan is right for them as well.
        """
        if self.nest is None or "packed" in self.nest.attributes:
            return
        nest, schedule = self.nest.nest.data, self.exchanges[mode].schedule
        own = price(nest, schedule)
        for longer in unrolled_further(nest, schedule) if own is not None else ():
            its = price(nest, longer)
            if own is None or its is None or not its.feasible or not whole_words(nest, longer):
                continue
            if its.cycles < own.cycles:
                code = max(its.code_bytes - own.code_bytes, 1)
                yield longer, Price(own.cycles - its.cycles, its.live_s, its.live_r, code)

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
        found = [trace(nest, exchange.schedule, wanted) for exchange in self.exchanges]
        return tuple(Trace(t.slots, {argument[i]: touches for i, touches in t.operands.items()}) for t in found)


def _touched(call: Call) -> list[tuple[int, Touches]]:
    """The buffers of a call, and when it touches their words; the same words in every mode."""
    operands = call.traces[0].operands
    return [(buffer, operands[i]) for i, buffer in enumerate(call.buffers) if buffer is not None and i in operands]


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
        self.counts = Counter(call.kernel for call in self.timeline.calls)
        prices = [kernel.own_price() for kernel in self.kernels]
        self.total_cycles = sum(prices[kernel].cycles * n for kernel, n in self.counts.items())
        code = FLASH_PAGE + sum(prices[group].code_bytes for group in {self.groups[kernel] for kernel in self.counts})
        self.cycles_of_byte = self.total_cycles / (CODE_PER_CYCLES["balanced"] * code)
        """What a byte of code is worth where kernels' schedules are chosen."""

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

    def steps(self) -> list[list[CallOp]]:
        """The calls, those of a layer together: the last of them tells the shape of the layer's result."""
        found: list[list[CallOp]] = [[]]
        for op in self.program.body.block.ops:
            if isinstance(op, CallOp):
                found[-1].append(op)
                if "shape" in op.attributes:
                    found.append([])
        return [step for step in found if step]

    def reordered(self) -> list[CallOp] | None:
        """The calls in an order in which fewer words are alive together, if there is one."""
        steps, calls = self.steps(), iter(self.timeline.calls)
        uses: list[Step] = []
        for step in steps:
            touched = [pair for _ in step for pair in _touched(next(calls))]
            reads = {b for b, touches in touched if touches.last_load.max(initial=NEVER) != NEVER}
            writes = {b for b, touches in touched if touches.last_store.max(initial=NEVER) != NEVER}
            uses.append(Step(frozenset(reads), frozenset(writes)))
        given, found = thriftiest_order(uses, self.sizes, self.timeline.inputs, self.timeline.outputs)
        return None if found == given else [op for n in found.steps for op in steps[n]]

    def put_in_order(self, calls: Sequence[CallOp]) -> None:
        """Moves the program's calls."""
        block = self.program.body.block
        for op in calls:
            op.detach()
        block.add_ops(calls)
        self.update()

    def choose_order(self) -> None:
        """Moves the program's calls if the plan gets smaller by that."""
        calls = self.reordered()
        if calls is None:
            return
        before, size = [op for step in self.steps() for op in step], self.plan().size
        self.put_in_order(calls)
        if self.plan().size >= size:
            self.put_in_order(before)

    def plan(self, most: float = inf) -> Plan:
        """The best plan in which equal kernels, which share their code, run in the same direction.

        Only where that costs more than `SHARING` of the arena they may differ. Schedules that cost more than `most`
        cycles a call are left out.
        """
        alternatives = restricted(
            self.pairs, [max(bisect_right([e.cost for e in kernel.exchanges], most), 1) for kernel in self.kernels]
        )
        best = plan(self.sizes, alternatives, self.live_sets)
        shared = plan(self.sizes, together(alternatives, self.groups), self.live_sets)
        if shared.size > SHARING * best.size:
            return best
        modes = {n: shared.modes[group] for n, group in enumerate(self.groups) if group in shared.modes}
        return Plan(shared.offsets, modes, shared.size, shared.bound)

    def _requirements(self, step: int) -> tuple[list[int], int]:
        """The buffers alive at a call, and the words that those need which are whole before or behind it."""
        spans = [self.timeline.span(n) for n in range(len(self.sizes))]
        members = [n for n, (first, last) in enumerate(spans) if first <= step <= last]
        before = sum(self.sizes[n] for n in members if spans[n][0] < step)
        behind = sum(self.sizes[n] for n in members if spans[n][1] > step)
        return members, max(before, behind)

    def _in_the_way(self, size: int, done: Set[int]) -> dict[int, Call]:
        """By group of kernels a call at which the buffers alive cannot do with less than `size` words.

        If there is none: those next to a call of the groups that are `done` that need nearly as much. Empty where other
        schedules cannot help, because what lies behind a call already needs it all.
        """
        alternatives = together(self.pairs, self.groups)
        tight: dict[int, Call] = {}
        nearly: dict[int, Call] = {}
        near = {b for call in self.timeline.calls if self.groups[call.kernel] in done for b in call.buffers}
        for step, call in enumerate(self.timeline.calls):
            members, whole = self._requirements(step)
            if whole >= size:
                return {}
            if self.groups[call.kernel] in done:
                continue
            if is_tight(self.sizes, alternatives, members, size):
                tight[self.groups[call.kernel]] = call
            elif near & set(call.buffers) - {None} and is_tight(
                self.sizes, alternatives, members, int(NEARLY_TIGHT * size)
            ):
                nearly[self.groups[call.kernel]] = call
        return tight or nearly

    def _cost_levels(self) -> list[float]:
        """Some of the costs of exchanges, least first."""
        costs = sorted({0.0, *(e.cost for n in self.counts for e in self.kernels[n].exchanges)})
        return costs[:: max(-(-len(costs) // COST_LEVELS), 1)]

    def _plans(self) -> Iterator[Plan]:
        """The best plans with exchanges up to some cost, until dearer ones cannot make the arena smaller."""
        levels = self._cost_levels()
        least = lower_bound(self.sizes, self.pairs, self.live_sets) if len(levels) > 1 else 0
        for most in levels:
            found = self.plan(most)
            yield found
            if found.size <= least:
                break

    def improve(self, goal: Goal) -> Plan:
        """The best plan with other schedules where they pay, by the parts of arena, cycles and code that change."""
        total, counts = self.total_cycles, self.counts
        done = set[int]()

        def rating(found: Plan) -> float:
            extra = [(self.kernels[n].exchanges[mode], counts[n]) for n, mode in found.modes.items()]
            cycles, cost = sum(e.cycles * n for e, n in extra), sum(e.cost * n for e, n in extra)
            if cycles > MOST_CYCLES[goal] * total or cost > MOST_COST * total:
                return inf
            return found.size**ARENA_WEIGHT * (total + cost)

        best = min(self._plans(), key=rating)
        for _ in range(EXCHANGE_ROUNDS):
            gain = best.size / max(self.sizes, default=1) - 1
            calls = self._in_the_way(best.size, done) if gain >= WORTH_A_SEARCH else {}
            if not calls:
                break
            done |= set(calls)
            chosen = {n: self.kernels[n].exchanges[mode].schedule for n, mode in best.modes.items()}
            for group, call in calls.items():
                members = [n for n, g in enumerate(self.groups) if g == group]
                most = min(ARENA_WEIGHT * gain, MOST_CYCLES[goal]) * total / sum(counts[n] for n in members)
                budget = Budget(most, MOST_CODE[goal], self.cycles_of_byte)
                self.kernels[group].widen(call.buffers, self.sizes, budget)
                for n in members:
                    self.kernels[n].exchanges = self.kernels[group].exchanges
            self.update()
            best = replace(best, modes={n: self.kernels[n].mode_of(schedule) for n, schedule in chosen.items()})
            best = min([best, *self._plans()], key=rating)
        return best

    def buy_back(self, found: Plan) -> dict[int, Schedule]:
        """Longer bodies, by kernel, that save the cycles that exchanges cost; those first that need the least code."""
        users: dict[tuple[int, int], list[int]] = {}
        for n in self.counts:
            users.setdefault((self.groups[n], found.modes.get(n, 0)), []).append(n)
        extra = sum(self.kernels[n].exchanges[mode].cycles * self.counts[n] for n, mode in found.modes.items())
        offers: list[tuple[tuple[int, int], Schedule, float, int]] = []
        for (group, mode), members in users.items() if extra > 0 else ():
            calls = sum(self.counts[n] for n in members)
            offers += [
                ((group, mode), s, its.cycles * calls, its.code_bytes) for s, its in self.kernels[group].faster(mode)
            ]
        bought: dict[tuple[int, int], tuple[Schedule, float, int]] = {}

        def rate(offer: tuple[tuple[int, int], Schedule, float, int]) -> float:
            """Cycles saved for a byte, as far as they are wanted, beyond what has been bought of the same kernel."""
            key, schedule, saved, code = offer
            _, before, paid = bought.get(key, (schedule, 0.0, 0))
            return min(saved - before, extra) / max(code - paid, 1)

        while offers and extra > 0:
            best = max(offers, key=rate)
            if rate(best) < self.cycles_of_byte / DEAR_CODE:
                break
            key, schedule, saved, code = best
            extra -= saved - bought.get(key, (schedule, 0.0, 0))[1]
            bought[key] = schedule, saved, code
        return {n: schedule for key, (schedule, _, _) in bought.items() for n in users[key]}

    def check(self, found: Plan) -> None:
        """Raises InternalError if two buffers share a word that both need at once, in the schedules chosen."""
        lives = [self.timeline.life(n, found.modes) for n in range(len(self.sizes))]
        for pair in self.pairs:
            difference = found.offsets[pair.second] - found.offsets[pair.first]
            if not fits(lives[pair.first], lives[pair.second], difference):
                names = [self.buffers[n].sym_name.data for n in (pair.first, pair.second)]
                raise InternalError(f"the memory plan puts {names[1]} over what is still needed of {names[0]}")

    def apply(self, found: Plan, bought: Mapping[int, Schedule]) -> None:
        self.check(found)
        for op, offset in zip(self.buffers, found.offsets, strict=True):
            op.properties["offset"] = IntegerAttr(offset * WORD, i64)
        chosen = {n: self.kernels[n].exchanges[mode].schedule for n, mode in found.modes.items()} | dict(bought)
        for kernel, schedule in chosen.items():
            nest = self.kernels[kernel].nest
            assert nest is not None
            nest.properties["schedule"] = ScheduleAttr(schedule)
        self.program.properties["arena_bytes"] = IntegerAttr(found.size * WORD, i64)
        self.program.properties["arena_bound"] = IntegerAttr(found.bound * WORD, i64)


@dataclass(frozen=True)
class LoopPlanMemoryPass(ModulePass):
    """Places buffers so that no element is overwritten while it is still needed; an output may slide over its input.

    Runs a kernel backwards (`reverse` in its schedule) where that makes the arena smaller. The program's `arena_bound`
    is what no plan of these schedules can go below; see `docs/memory.md`. With `reorder` the calls of branches are
    put in the order that needs the smallest arena. With `exchange` a kernel that stands in the
    way may get another schedule, for a little of the program's cycles (`goal` size: not for code).

        loop.buffer @a {bytes = 32 : i64}
    becomes
        loop.buffer @a {bytes = 32 : i64, offset = 64 : i64}
    """

    name = "loop-plan-memory"

    exchange: bool = True
    reorder: bool = True
    goal: Goal = "balanced"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        planner = _Planner(op)
        if self.reorder:
            planner.choose_order()
        if not self.exchange:
            planner.apply(planner.plan(), {})
            return
        found = planner.improve(self.goal)
        planner.apply(found, planner.buy_back(found) if self.goal == "balanced" else {})
