"""Schedules that are exchanged for the memory plan's sake: they compute the same, and are taken where they pay."""

from __future__ import annotations

import numpy as np
import pytest
from nests import apply, compile_module, kernel_module, random_kernel
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from ml4f.backend.loop import kernels
from ml4f.backend.memory.exchanges import exchanges
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp, ProgramOp
from ml4f.interpreters.loop import run_loop
from ml4f.interpreters.plan_checker import check_plan
from ml4f.machine import Machine
from ml4f.passes import PASSES

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
    found = exchanges(own.nest.data, own.schedule.data, 1e9)
    assert [extra for _, extra in found] == sorted(extra for _, extra in found)
    for number in sorted({int(i) for i in rng.integers(0, len(found), 4)}) if found else ():
        module = chosen.clone()
        nest_of(module).properties["schedule"] = ScheduleAttr(found[number][0])
        module.verify()
        apply(module, "loop-plan-memory", *REMAINING)
        check_plan(module)
        result = Machine(compile_module(module).binary).run(x)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def growing_depthwise(exchange: bool) -> ModuleOp:
    """A layer that makes four channels of each: its output catches up with its input at one end."""
    nest = kernels.depthwise_conv2d([108, 1, 15], [10, 1, 15, 4], [50, 1, 60], [2, 1], [1, 1], [0] * 4, False)
    module = kernel_module(nest, {"w": np.ones(600)}, {"x": 108 * 15, "out": 50 * 60})
    apply(module, "loop-choose-schedule")
    spec = PASSES["loop-plan-memory"]()(exchange=exchange)  # pyright: ignore[reportCallIssue]
    spec.apply(Context(), module)
    return module


def test_packed_weights_keep_their_schedule():
    rng = np.random.default_rng(5)
    nest = kernels.conv2d([9, 9, 4], [3, 3, 4, 8], [9, 9, 8], [1, 1], [1, 1], [1] * 4, 1, False)
    module = kernel_module(nest, {"w": rng.standard_normal(288)}, {"x": 324, "out": 648})
    apply(module, "loop-choose-schedule", "loop-pack-weights")
    x = rng.standard_normal(324).astype(np.float32)
    expected = run_loop(module, [x])[0]
    apply(module, "loop-plan-memory", "loop-expand", "loop-lower-addresses")
    np.testing.assert_allclose(run_loop(module, [x])[0], expected, rtol=1e-4, atol=1e-5)


def test_smaller_tiles_where_output_and_input_meet():
    without, with_ = growing_depthwise(False), growing_depthwise(True)
    bytes_ = [program_of(m).arena_bytes.value.data for m in (without, with_)]  # pyright: ignore
    assert bytes_[1] < bytes_[0]
    assert program_of(with_).arena_bound == program_of(with_).arena_bytes
    assert nest_of(with_).schedule != nest_of(without).schedule
    apply(with_, *REMAINING)
    check_plan(with_)
