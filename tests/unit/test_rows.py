"""Parameters of channels in registers while rows go by: schedules of many shapes, against numpy bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from nests import LOOP_PASSES, apply, compile_module, kernel_module

from ml4f.backend.loop import kernels
from ml4f.backend.loop.candidates import candidates
from ml4f.backend.loop.elementwise import elementwise_schedules
from ml4f.backend.loop.nest import Nest, Schedule, Step
from ml4f.backend.loop.pricing import S_REGISTERS, price
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import NestOp
from ml4f.machine import Machine
from ml4f.profile import profile

CYCLES = 0.02
SMALL_CYCLES = 45
"""As in test_pricing."""

STEPS = {
    "affine": [("mul", "s"), ("add", "b")],
    "scale": [("mul", "s")],
    "three": [("sub", "m"), ("mul", "s"), ("rsub", "b")],
    "four": [("sub", "m"), ("mul", "s"), ("add", "b"), ("mul", "t")],
}


def nest_of(rows: int, channels: int, steps: str) -> Nest:
    roles = [(role, [0, 1]) for _, role in STEPS[steps]]
    return kernels.elementwise([rows, channels], [channels, 1], roles, [Step(k, role) for k, role in STEPS[steps]])


def expected(x: np.ndarray, constants: dict[str, np.ndarray], steps: str) -> np.ndarray:
    y = x
    for kind, role in STEPS[steps]:
        c = constants[role]
        y = {"mul": lambda a, b: a * b, "add": np.add, "sub": np.subtract, "rsub": lambda a, b: b - a}[kind](y, c)
    return y


def measure(nest: Nest, schedule: Schedule, constants: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, int]:
    module = kernel_module(nest, constants, {"x": x.size, "out": x.size})
    next(op for op in module.walk() if isinstance(op, NestOp)).properties["schedule"] = ScheduleAttr(schedule)
    apply(module, *LOOP_PASSES)
    code = compile_module(module)
    machine = Machine(code.binary)
    return machine.run(x.ravel()), sum(profile(machine, x.ravel(), code.layout.calls).calls)


@pytest.mark.parametrize(
    ("rows", "channels", "steps"),
    [
        *((rows, n, "affine") for rows, n in ((71, 15), (20, 6), (25, 8), (17, 11), (5, 3), (7, 1), (1, 40))),
        *((rows, n, "three") for rows, n in ((11, 15), (9, 32), (31, 7))),
        (13, 12, "scale"),
        (10, 6, "four"),
    ],
)
def test_schedules_of_rows(rows: int, channels: int, steps: str):
    nest = nest_of(rows, channels, steps)
    rng = np.random.default_rng(rows)
    constants = {role: rng.standard_normal(channels).astype(np.float32) for _, role in STEPS[steps]}
    x = rng.standard_normal((rows, channels)).astype(np.float32)
    y = expected(x, constants, steps)
    found = [(s, p) for s in dict.fromkeys(elementwise_schedules(nest)) if (p := price(nest, s)) and p.feasible]
    full = [entry for entry in found if entry[1].live_s == S_REGISTERS]
    chosen = {c.schedule for c in candidates(nest)}
    for schedule, estimate in [*found[:: len(found) // 3 + 1], *full[:1], *full[-1:]]:
        result, cycles = measure(nest, schedule, constants, x)
        np.testing.assert_array_equal(result, y.ravel(), err_msg=str(schedule))
        off = abs(estimate.cycles - cycles)
        assert schedule not in chosen or off <= max(CYCLES * cycles, SMALL_CYCLES), (schedule, estimate, cycles)


def test_all_registers_are_used():
    """213 rows of 15 channels: the floor is 4 cycles an element (load, multiply, add, store)."""
    nest = nest_of(213, 15, "affine")
    rng = np.random.default_rng(0)
    constants = {role: rng.standard_normal(15).astype(np.float32) for role in ("s", "b")}
    x = rng.standard_normal((213, 15)).astype(np.float32)
    full = [c for c in candidates(nest) if (p := price(nest, c.schedule)) and p.live_s == S_REGISTERS]
    assert full
    small = min((c for c in full if c.code_bytes < 1000), key=lambda c: c.cycles)
    _, cycles = measure(nest, small.schedule, constants, x)
    assert cycles < 4.5 * x.size
