"""Instruction scheduling on plain data: faster, of the same meaning, and its checker finds what would be wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from thumb_programs import RandomProgram, convolution, dense, depthwise, run_values, window

from ml4f.backend.thumb.function_data import Function, Instruction, Loop, Step
from ml4f.backend.thumb.schedule_checker import check_schedule, order_of, verify_schedule
from ml4f.backend.thumb.scheduling import schedule_function
from ml4f.backend.thumb.timing import core_named
from ml4f.errors import InternalError

RULES = core_named("cortex-m4").rules
KERNELS: dict[str, Callable[[], Function]] = {
    "convolution": lambda: convolution(5, 4, 2),
    "dense": dense,
    "depthwise": depthwise,
    "window": window,
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_get_faster_and_keep_their_meaning(name: str):
    function = KERNELS[name]()
    expected, before = run_values(function), order_of(function)
    report = schedule_function(function, RULES)
    assert report.changed and report.cycles_after < report.cycles_before
    assert check_schedule(before, function) == []
    assert run_values(function) == expected


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_keep_their_meaning(seed: int):
    function = RandomProgram(seed, size=60, calls=seed % 2 == 1).function
    expected, before = run_values(function), order_of(function)
    report = schedule_function(function, RULES)
    assert report.cycles_after <= report.cycles_before
    assert check_schedule(before, function) == []
    assert run_values(function) == expected


def bodies(function: Function) -> list[list[Step]]:
    found, pending = [], [function.body]
    while pending:
        steps = pending.pop()
        found.append(steps)
        pending += [step.body for step in steps if isinstance(step, Loop)]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_checker_agrees_with_running(seed: int):
    """Swap two neighbours: where the result of a run changes, the checker must complain."""
    rng = random.Random(seed)
    function = RandomProgram(seed, size=50).function
    expected, before = run_values(function), order_of(function)
    complaints = 0
    for _ in range(40):
        steps = rng.choice([body for body in bodies(function) if len(body) > 1])
        i = rng.randrange(len(steps) - 1)
        j = rng.randrange(i + 1, min(i + 4, len(steps)))
        steps[i], steps[j] = steps[j], steps[i]
        problems = check_schedule(before, function)
        if run_values(function) != expected:
            assert problems, f"{steps[j]} and {steps[i]} swapped: another result, and no complaint"
        complaints += bool(problems)
        steps[i], steps[j] = steps[j], steps[i]
    assert complaints, "random swaps never broke anything: the test is blind"
    assert check_schedule(before, function) == []


def straight(function: Function) -> list[Step]:
    return next(body for body in bodies(function) if sum(isinstance(step, Instruction) for step in body) > 6)


def test_checker_finds_lost_doubled_and_moved_instructions():
    function = convolution(3, 2, 1)
    before = order_of(function)
    body = straight(function)
    kept = list(body)
    del body[1]
    assert any("lost" in problem for problem in check_schedule(before, function))
    body[:] = [*kept[:2], kept[0], *kept[2:]]
    assert any("twice" in problem for problem in check_schedule(before, function))
    body[:] = kept
    loop_at = next(i for i, step in enumerate(function.body) if isinstance(step, Loop))
    function.body.insert(0, function.body.pop(loop_at))
    with pytest.raises(InternalError, match="wrong instruction order"):
        verify_schedule(before, function)


def test_checker_finds_a_load_that_passes_a_store():
    function = depthwise()
    before = order_of(function)
    body = next(step.body for step in function.body if isinstance(step, Loop))
    accesses = [(i, step.memory) for i, step in enumerate(body) if isinstance(step, Instruction) and step.memory]
    store = next(i for i, access in accesses if access.is_store)
    load = next(i for i, access in accesses if i > store and not access.is_store and access.space == "arena")
    body.insert(store, body.pop(load))
    assert any("went in front of" in problem for problem in check_schedule(before, function))
