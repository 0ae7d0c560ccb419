"""Schedules that are exchanged for the memory plan's sake: they compute the same, and are taken where they pay."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Literal

import numpy as np
import pytest
from nests import apply, compile_module, kernel_module, random_kernel
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from ml4f.backend.loop import kernels
from ml4f.backend.loop.candidates import candidates
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import whole_words
from ml4f.backend.loop.pricing import price
from ml4f.backend.memory.exchanges import Budget, Exchange, exchanges
from ml4f.compiler import Options, run_passes
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp, ProgramOp
from ml4f.errors import InternalError
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.loop import run_loop
from ml4f.interpreters.plan_checker import check_plan
from ml4f.machine import Machine
from ml4f.passes import PASSES, loop_plan_memory
from ml4f.profile import profile, typical_input
from ml4f.samples import sample_model

REMAINING = ("loop-pack-weights", "loop-expand", "loop-lower-addresses")


def nest_of(module: ModuleOp) -> NestOp:
    kernel = next(op for op in module.body.block.ops if isinstance(op, KernelOp))
    nest = kernel.body.block.first_op
    assert isinstance(nest, NestOp)
    return nest


def program_of(module: ModuleOp) -> ProgramOp:
    return next(op for op in module.body.block.ops if isinstance(op, ProgramOp))


@pytest.mark.parametrize("seed", range(400, 412))
def test_exchanged_schedules_compute_the_same(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    x = rng.standard_normal(sizes["x"]).astype(np.float32)
    expected = run_loop(kernel_module(nest, constants, sizes), [x])[0]
    chosen = kernel_module(nest, constants, sizes)
    apply(chosen, "loop-choose-schedule")
    own = nest_of(chosen)
    assert own.schedule is not None
    budget = Budget(1e9, 1e9, 1.0)
    found = exchanges(own.nest.data, own.schedule.data, budget)
    assert [e.cost for e in found] == sorted(e.cost for e in found)
    for number in sorted({int(i) for i in rng.integers(0, len(found), 4)}) if found else ():
        module = chosen.clone()
        nest_of(module).properties["schedule"] = ScheduleAttr(found[number].schedule)
        module.verify()
        apply(module, "loop-plan-memory", *REMAINING)
        check_plan(module)
        result = Machine(compile_module(module).binary).run(x)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_packed_weights_keep_their_schedule():
    rng = np.random.default_rng(5)
    nest = kernels.conv2d([9, 9, 4], [3, 3, 4, 8], [9, 9, 8], [1, 1], [1, 1], [1] * 4, 1, False)
    module = kernel_module(nest, {"w": rng.standard_normal(288)}, {"x": 324, "out": 648})
    apply(module, "loop-choose-schedule", "loop-pack-weights")
    x = rng.standard_normal(324).astype(np.float32)
    expected = run_loop(module, [x])[0]
    apply(module, "loop-plan-memory", "loop-expand", "loop-lower-addresses")
    np.testing.assert_allclose(run_loop(module, [x])[0], expected, rtol=1e-4, atol=1e-5)


GROWING = {
    "depthwise": (
        kernels.depthwise_conv2d([213, 1, 15], [10, 1, 15, 4], [102, 1, 60], [2, 1], [1, 1], [0] * 4, False),
        {"w": 600},
        {"x": 213 * 15, "out": 102 * 60},
    ),
    "padded": (
        kernels.conv2d([50, 3, 1], [4, 4, 1, 16], [50, 3, 16], [1, 1], [1, 1], [1, 1, 2, 2], 1, False),
        {"w": 256},
        {"x": 150, "out": 2400},
    ),
    "one-dimensional": (
        kernels.conv2d([149, 1, 6], [3, 1, 6, 20], [147, 1, 20], [1, 1], [1, 1], [0] * 4, 1, False),
        {"w": 360},
        {"x": 894, "out": 2940},
    ),
}
"""Layers whose output catches up with its input at one end."""


def planned(name: str, exchange: bool, goal: str = "balanced") -> ModuleOp:
    nest, constants, sizes = GROWING[name]
    rng = np.random.default_rng(8)
    module = kernel_module(nest, {role: rng.standard_normal(n) for role, n in constants.items()}, sizes)
    apply(module, "loop-choose-schedule")
    spec = PASSES["loop-plan-memory"]()(exchange=exchange, goal=goal)  # pyright: ignore[reportCallIssue]
    spec.apply(Context(), module)
    return module


def cycles_of(module: ModuleOp) -> int:
    apply(module, *REMAINING)
    check_plan(module)
    machine = Machine(compile_module(module).binary)
    return profile(machine, typical_input(machine)).total


@pytest.mark.parametrize("name", GROWING)
def test_smaller_tiles_where_output_and_input_meet(name: str):
    without, with_ = planned(name, False), planned(name, True)
    bytes_ = [program_of(m).arena_bytes.value.data for m in (without, with_)]  # pyright: ignore
    assert bytes_[1] < bytes_[0]
    assert program_of(with_).arena_bound == program_of(with_).arena_bytes
    assert nest_of(with_).schedule != nest_of(without).schedule
    assert cycles_of(with_) <= 1.02 * cycles_of(without)


@pytest.mark.parametrize("name", GROWING)
def test_small_code_stays_small(name: str):
    without, with_ = planned(name, False), planned(name, True, "size")
    prices = []
    for module in (without, with_):
        nest = nest_of(module)
        assert nest.schedule is not None
        prices.append(price(nest.nest.data, nest.schedule.data))
    assert prices[1].code_bytes <= prices[0].code_bytes


@pytest.mark.parametrize("element", ("f32", "f16"))
def test_rows_may_come_first_with_weights_of_any_type(element: Literal["f32", "f16"]):
    """A depthwise kernel that walks down columns may go by rows instead, where float16 weights forbid a table too."""
    nest = kernels.depthwise_conv2d([12, 12, 4], [3, 3, 4, 1], [12, 12, 4], [1, 1], [1, 1], [1] * 4, True)
    nest = replace(nest, operands=tuple(replace(o, element=element) if o.role == "w" else o for o in nest.operands))
    rolled = next(c.schedule for c in candidates(nest) if c.schedule.roll is not None)
    plain = [e.schedule for e in exchanges(nest, rolled, Budget(inf, inf, 0.0)) if e.schedule.roll is None]
    assert plain and all(whole_words(nest, schedule) for schedule in plain)
    assert all((schedule.trim is None) == (element == "f16") for schedule in plain)


def test_a_direction_costs_what_it_is_said_to():
    """Multiple stores go up: forwards each row of results has a pointer of its own, backwards one is moved about."""
    nest, constants, sizes = GROWING["depthwise"]
    rng = np.random.default_rng(8)
    module = kernel_module(nest, {role: rng.standard_normal(n) for role, n in constants.items()}, sizes)
    apply(module, "loop-choose-schedule")
    schedule = nest_of(module).schedule
    assert schedule is not None and "out" in schedule.data.multiple
    own = nest_of(module).nest.data
    estimates, simulated = [], []
    for reverse in ((), ("oy",), ("oy", "c")):
        turned = module.clone()
        nest_of(turned).properties["schedule"] = ScheduleAttr(replace(schedule.data, reverse=reverse))
        found = price(own, replace(schedule.data, reverse=reverse))
        assert found is not None
        estimates.append(found.cycles)
        PASSES["loop-plan-memory"]()(exchange=False).apply(Context(), turned)  # pyright: ignore[reportCallIssue]
        simulated.append(cycles_of(turned))
    assert estimates[0] == estimates[1] < 0.99 * estimates[2]
    np.testing.assert_allclose(simulated, estimates, rtol=0.01)


def test_modes_stay_those_of_the_plan_when_cheaper_ones_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction that costs something moves up in the list when exchanges get in front of it."""
    in_direction = loop_plan_memory._in_direction  # pyright: ignore[reportPrivateUsage]

    def dearer(nest: Nest, forward: Schedule, exchange: Exchange) -> Exchange:
        found = in_direction(nest, forward, exchange)
        return replace(found, cost=found.cost + 20.0) if exchange.schedule.reverse else found

    monkeypatch.setattr(loop_plan_memory, "_in_direction", dearer)
    module = import_onnx(sample_model("tfjsGest"), "tfjsGest")
    passes = Options().pipeline()
    run_passes(module, passes[: passes.index("loop-plan-memory") + 1])  # checks the plan


def test_a_plan_in_which_buffers_overlap_is_found() -> None:
    module = import_onnx(sample_model("tfjsGest"), "tfjsGest")
    passes = Options().pipeline()
    run_passes(module, passes[: passes.index("loop-plan-memory")])
    planner = loop_plan_memory._Planner(module)  # pyright: ignore[reportPrivateUsage]
    found = planner.plan()
    planner.check(found)
    with pytest.raises(InternalError, match="still needed"):
        planner.check(replace(found, offsets=(0,) * len(found.offsets)))
