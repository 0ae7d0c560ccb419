"""Traces and lifetimes against the order in which the expanded IR really loads and stores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nests import apply, compile_module, kernel_module, random_kernel
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import Block, SSAValue

from ml4f.backend.loop import kernels
from ml4f.backend.loop.nest import Nest, Schedule, Step
from ml4f.backend.loop.schedules import mac_schedule
from ml4f.backend.memory.lifetimes import COMBINATIONS, Call, Timeline, excluded, fits, pairs
from ml4f.backend.memory.trace import NEVER, trace
from ml4f.dialects.loop import values as v
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, ForOp, KernelOp, NestOp, ProgramOp
from ml4f.interpreters.loop import run_loop
from ml4f.machine import Machine
from ml4f.passes.loop_pack_weights import raw_bytes
from ml4f.passes.loop_plan_memory import directions

Event = tuple[str, str, int]
"""("load" or "store", role, word)."""


class AccessLog:
    """Walks a kernel in indexed form, iteration by iteration, and notes every access."""

    def __init__(self, module: ModuleOp):
        ops = list(module.body.block.ops)
        kernel = next(op for op in ops if isinstance(op, KernelOp))
        data = {op.sym_name.data: raw_bytes(op) for op in ops if isinstance(op, DataOp)}
        program = next(op for op in ops if isinstance(op, ProgramOp))
        call = next(op for op in program.body.block.ops if isinstance(op, CallOp))
        self.symbols = dict(zip(kernel.body.block.args, (a.root_reference.data for a in call.arguments), strict=True))
        self.data = data
        self.numbers: dict[SSAValue, int] = {}
        self.events: list[list[Event]] = []
        self.walk(kernel.body.block)

    def walk(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, ForOp):
                count = op.count.value.data if op.count is not None else self.numbers[op.trip_count]  # pyright: ignore
                lower = self.numbers[op.lower] if op.lower is not None else 0
                for i in range(lower, lower + count):
                    self.numbers[op.induction_variable] = i
                    self.walk(op.body.block)
            elif isinstance(op, v.AccessOp):
                self.access(op)

    def access(self, op: v.AccessOp) -> None:
        strides = op.strides.get_values() if op.strides is not None else ()  # pyright: ignore
        address = op.offset.value.data + sum(s * self.numbers[i] for i, s in zip(op.indices, strides, strict=True))
        symbol = self.symbols[op.pointer]  # pyright: ignore
        if isinstance(op, v.LoadByteOp):
            self.numbers[op.result] = self.data[symbol][address]
            return
        kind = "store" if isinstance(op, (v.StoreOp, v.StoreMultipleOp)) else "load"
        words = len(op.values) if isinstance(op, (v.LoadMultipleOp, v.StoreMultipleOp)) else 1
        self.events.append([(kind, symbol, address // 4 + i) for i in range(words)])


def scheduled(nest: Nest, constants: dict, sizes: dict[str, int], number: int) -> tuple[ModuleOp, Nest, Schedule]:
    """The module with one of the schedule's directions, and the nest that was chosen with it."""
    module = kernel_module(nest, constants, sizes)
    apply(module, "loop-choose-schedule")
    kernel = next(op for op in module.body.block.ops if isinstance(op, KernelOp))
    op = kernel.body.block.first_op
    assert isinstance(op, NestOp) and op.schedule is not None
    choices = directions(op.nest.data, op.schedule.data)
    schedule = choices[number % len(choices)]
    op.properties["schedule"] = ScheduleAttr(schedule)
    return module, op.nest.data, schedule


@pytest.mark.parametrize("seed", range(200, 260))
def test_trace_is_the_order_of_the_expanded_code(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    module, nest, schedule = scheduled(nest, constants, sizes, seed)
    traced = trace(nest, schedule, {nest.index_of(role): n for role, n in sizes.items()})
    apply(module, "loop-pack-weights", "loop-expand")
    slots: dict[Event, tuple[int, int]] = {}
    for slot, events in enumerate(AccessLog(module).events):
        for event in events:
            slots[event] = slots.get(event, (slot, slot))[0], slot
    pairs_of_times: list[tuple[int, int]] = []
    for role, words in sizes.items():
        touches = traced.operands[nest.index_of(role)]
        for word in range(words):
            first, last = slots.get(("store", role, word), (NEVER, NEVER))
            loaded = slots.get(("load", role, word), (NEVER, NEVER))[1]
            mine = (touches.first_store[word], touches.last_store[word], touches.last_load[word])
            pairs_of_times += list(zip(map(int, mine), (first, last, loaded), strict=True))
    pairs_of_times.sort()
    assert [b for _, b in pairs_of_times] == sorted(b for _, b in pairs_of_times)
    assert len({a for a, _ in pairs_of_times}) == len({b for _, b in pairs_of_times})


def placed(module: ModuleOp, difference: int) -> ModuleOp:
    """The module with the output `difference` words above the input."""
    offsets = {"x": max(0, -difference), "out": max(0, difference)}
    end = 0
    for op in module.body.block.ops:
        if isinstance(op, BufferOp):
            op.properties["offset"] = IntegerAttr(4 * offsets[op.sym_name.data], 64)
            end = max(end, 4 * offsets[op.sym_name.data] + op.bytes.value.data)
        elif isinstance(op, ProgramOp):
            op.properties["arena_bytes"] = IntegerAttr(end, 64)
    return module


def timeline_of(nest: Nest, schedule: Schedule, sizes: dict[str, int]) -> Timeline:
    roles = list(sizes)
    buffers = tuple(roles.index(o.role) if o.role in sizes else None for o in nest.operands)
    traced = trace(nest, schedule, {nest.index_of(role): n for role, n in sizes.items()})
    ends = (roles.index("x"),), (roles.index("out"),)
    return Timeline(tuple(sizes.values()), (Call(0, buffers, (traced,)),), *ends)


@pytest.mark.parametrize("seed", range(300, 340))
def test_machine_code_survives_exactly_the_allowed_differences(seed: int):
    rng = np.random.default_rng(seed)
    interval = None
    while interval is None:  # a kernel of one tile reads everything before it writes
        nest, constants, sizes = random_kernel(rng)
        if nest.combine != "mac" or nest.epilogue:
            continue
        reference, _, schedule = scheduled(nest, constants, sizes, seed)
        chosen = next(op.nest.data for op in reference.walk() if isinstance(op, NestOp))
        timeline = timeline_of(chosen, schedule, sizes)
        lives = timeline.life(0, {}), timeline.life(1, {})
        interval = excluded(*lives)
    x = rng.standard_normal(sizes["x"]).astype(np.float32)
    expected = run_loop(reference, [x])[0]
    low, high = interval
    allowed = [low - 1, high + 1]
    for pair in pairs(timeline):
        allowed += [n for a in pair.alternatives if a.low is not None and a.high is not None for n in (a.low, a.high)]
    for difference in [*allowed, low, high]:
        module, _, _ = scheduled(nest, constants, sizes, seed)
        apply(placed(module, difference), "loop-pack-weights", "loop-expand", "loop-lower-addresses")
        result = Machine(compile_module(module).binary).run(x)
        works = bool(np.allclose(result, expected, rtol=1e-4, atol=1e-5))
        assert fits(*lives, difference) == works == (difference in allowed)


@pytest.mark.parametrize("count", [5, 6, 12])
def test_many_kernels_on_two_buffers_have_few_alternatives(count: int):
    """Kernels that each write a part of the output, forwards or backwards.

    Whatever modes a plan chooses, what an alternative of the pair allows for them is right.
    """
    words = 2 * count
    orders = [Schedule(loops=(("d0", ((1, 2),)),), reverse=reverse) for reverse in ((), ("d0",))]
    calls = []
    for n in range(count):
        nest = kernels.elementwise([2], [count], x_offset=n, out_strides=[count], out_offset=n)
        traces = tuple(trace(nest, schedule, {0: words, 1: words}) for schedule in orders)
        calls.append(Call(n, (0, 1), traces))
    timeline = Timeline((words, words), tuple(calls), (0,), (1,))
    (pair,) = pairs(timeline)
    assert len({a.modes for a in pair.alternatives}) == (2**count if 2**count <= COMBINATIONS else 3)
    rng = np.random.default_rng(count)
    for _ in range(10):
        modes = {n: int(rng.integers(0, 2)) for n in range(count)}
        first, second = timeline.life(pair.first, modes), timeline.life(pair.second, modes)
        applying = [a for a in pair.alternatives if a.applies(modes)]
        assert any(a.low is None for a in applying) and any(a.high is None for a in applying)
        for difference in range(-2 * words, 2 * words):
            if any(a.allows(difference) for a in applying):
                assert fits(first, second, difference)


def test_stores_of_several_words_are_traced():
    """Every word of the output is stored, behind the loads of its tile and in front of those of the next."""
    nest = kernels.elementwise([8], [1], epilogue=[Step("add", parameters=(1.0,))])
    schedule = Schedule(loops=(("d0", ((4, 2),)),), tile=("d0",), multiple=("x", "out"))
    found = trace(nest, schedule, {0: 8, 1: 8})
    loads, stores = found.operands[0].last_load, found.operands[1].first_store
    assert (stores != NEVER).all() and (loads[:4] < stores[:4]).all() and (stores[:4] < loads[4:]).all()


def spanning(nest: Nest, schedule: Schedule, inputs: int, outputs: int) -> int:
    """Words that input and output take together when the output slides down."""
    timeline = timeline_of(nest, schedule, {"x": inputs, "out": outputs})
    interval = excluded(timeline.life(0, {}), timeline.life(1, {}))
    difference = interval[0] - 1 if interval is not None else 0
    return max(inputs, outputs, inputs - min(difference, 0), outputs + difference)


@pytest.mark.parametrize(
    ("h", "w", "c", "f", "pixels", "filters"), [(5, 6, 8, 8, 3, 4), (7, 5, 12, 12, 5, 3), (4, 9, 8, 16, 3, 4)]
)
def test_pointwise_slides_by_a_tile(h: int, w: int, c: int, f: int, pixels: int, filters: int):
    nest = kernels.conv2d([h, w, c], [1, 1, c, f], [h, w, f], [1, 1], [1, 1], [0] * 4, 1, False)
    schedule = mac_schedule(nest, {nest.parallel_dims[0]: pixels, "f": filters}, 4)
    assert h * w % pixels == 0 and f % filters == 0
    expected = h * w * max(c, f) + pixels * c - filters
    assert spanning(nest, schedule, h * w * c, h * w * f) == expected


@pytest.mark.parametrize(
    ("h", "w", "c", "f", "k", "stride", "pad", "pixels", "filters"),
    [
        (9, 8, 4, 4, 3, 1, 1, 4, 2),
        (8, 8, 3, 8, 3, 2, 0, 2, 4),
        (7, 9, 5, 6, 2, 1, 0, 4, 3),
        (12, 6, 2, 6, 5, 1, 2, 3, 6),
    ],
)
def test_convolution_slides_by_the_formula(
    h: int, w: int, c: int, f: int, k: int, stride: int, pad: int, pixels: int, filters: int
):
    """The distance between what a tile writes and what it and later tiles still read, tile by tile."""
    oh, ow = (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1
    nest = kernels.conv2d([h, w, c], [k, k, c, f], [oh, ow, f], [stride] * 2, [1, 1], [pad] * 4, 1, False)
    schedule = mac_schedule(nest, {"ox": pixels, "f": filters}, 4)
    tiles = [(r, q, min(pixels, ow - q)) for r in range(oh) for q in range(0, ow, pixels)]
    ends = [(r * ow + q + n) * f for r, q, n in tiles]
    starts = [(max(0, r * stride - pad) * w + max(0, q * stride - pad)) * c for r, q, _ in tiles]
    still = [min(starts[i:]) for i in range(len(tiles))]
    distance = max(ends[i] - still[i + 1] for i in range(len(tiles) - 1))
    if filters < f:
        distance = max(distance, *(end - filters - s for end, s in zip(ends, still, strict=True)))
    expected = max(h * w * c, oh * ow * f, h * w * c + distance)
    assert spanning(nest, schedule, h * w * c, oh * ow * f) == expected


def test_directions_keep_what_a_schedule_asks_for():
    nest = kernels.conv2d([6, 6, 4], [3, 3, 4, 8], [6, 6, 8], [1, 1], [1, 1], [1] * 4, 1, False)
    schedule = mac_schedule(nest, {"ox": 3, "f": 4}, 4)
    assert [s.reverse for s in directions(nest, schedule)] == [(), ("oy", "ox"), ("oy", "ox", "f")]
    backwards = replace(schedule, reverse=("oy",))
    assert directions(nest, backwards) == [backwards]
