"""Longer bodies: the same results, fewer cycles, and the same memory at any time."""

from __future__ import annotations

import numpy as np
import pytest
from nests import apply, compile_module, kernel_module, random_kernel

from ml4f.backend.loop.packing import whole_words
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.unrolling import unrolled_further
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp
from ml4f.interpreters.loop import run_loop
from ml4f.interpreters.plan_checker import check_plan
from ml4f.machine import Machine

BEHIND = ("loop-pack-weights", "loop-expand", "loop-lower-addresses")


@pytest.mark.parametrize("seed", range(60, 76))
def test_longer_bodies_keep_the_plan_and_the_result(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    x = rng.standard_normal(sizes["x"]).astype(np.float32)
    expected = run_loop(kernel_module(nest, constants, sizes), [x])[0]
    planned = kernel_module(nest, constants, sizes)
    apply(planned, "loop-choose-schedule", "loop-plan-memory")
    op = next(o.body.block.first_op for o in planned.body.block.ops if isinstance(o, KernelOp))
    assert isinstance(op, NestOp) and op.schedule is not None
    chosen, schedule = op.nest.data, op.schedule.data
    for longer in unrolled_further(chosen, schedule):
        its = price(chosen, longer)
        if its is None or not its.feasible or not whole_words(chosen, longer):
            continue
        op.properties["schedule"] = ScheduleAttr(longer)
        module = planned.clone()
        apply(module, *BEHIND)
        check_plan(module)
        result = Machine(compile_module(module).binary).run(x)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
