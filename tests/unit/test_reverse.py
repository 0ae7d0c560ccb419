"""Kernels whose loops run backwards: the same results bit for bit, at nearly the same cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nests import apply, compile_module, kernel_module, random_kernel

from ml4f.backend.loop.nest import Schedule
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import KernelOp, NestOp
from ml4f.interpreters.loop import run_loop
from ml4f.machine import Machine

REMAINING = ("loop-pack-weights", "loop-plan-memory", "loop-expand", "loop-lower-addresses")


def reversed_schedule(nest: NestOp) -> Schedule:
    """The chosen schedule, with every parallel loop that can run backwards doing so."""
    assert nest.schedule is not None
    schedule = nest.schedule.data
    rolled = schedule.roll[:1] if schedule.roll is not None else ()
    return replace(schedule, reverse=tuple(d for d in nest.nest.data.parallel_dims if d not in rolled))


@pytest.mark.parametrize("seed", range(100, 140))
def test_backwards_computes_the_same(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    x = rng.standard_normal(sizes["x"]).astype(np.float32)
    results = []
    for backwards in (False, True):
        module = kernel_module(nest, constants, sizes)
        apply(module, "loop-choose-schedule")
        if backwards:
            kernel = next(op for op in module.body.block.ops if isinstance(op, KernelOp))
            op = kernel.body.block.first_op
            assert isinstance(op, NestOp)
            op.properties["schedule"] = ScheduleAttr(reversed_schedule(op))
        for name in REMAINING:
            apply(module, name)
            module.verify()
        expected = run_loop(module, [x])[0]
        result = Machine(compile_module(module).binary).run(x)
        np.testing.assert_array_equal(result, expected)
        results.append(result)
    np.testing.assert_array_equal(results[1], results[0])
