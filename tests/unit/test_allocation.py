"""Register allocation on plain data: programs compute the same in registers; the checker finds wrong ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from thumb_programs import RandomProgram, convolution, dense, depthwise, run_registers, run_values, window

from ml4f.backend.thumb.allocation import AllocationError, allocate_registers
from ml4f.backend.thumb.allocation_checker import check_allocation, verify_allocation
from ml4f.backend.thumb.function_data import CORE, REGISTER_COUNT, RESERVED, Function, Loop, instructions, loops
from ml4f.backend.thumb.legalisation import legalize_ties
from ml4f.backend.thumb.scheduling import schedule_function
from ml4f.backend.thumb.timing import core_named
from ml4f.errors import InternalError

KERNELS: dict[str, Callable[[], Function]] = {
    "convolution": lambda: convolution(5, 4, 2),
    "dense": dense,
    "depthwise": depthwise,
    "window": window,
}


def allocated(function: Function) -> Function:
    legalize_ties(function)
    allocate_registers(function)
    return function


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_fit_without_spilling_single_registers(name: str):
    function = KERNELS[name]()
    schedule_function(function, core_named("cortex-m4").rules)
    expected = run_values(function)
    allocated(function)
    verify_allocation(function)
    assert run_registers(function) == expected


@pytest.mark.parametrize("seed", range(80))
def test_random_programs_compute_the_same_in_registers(seed: int):
    """Pools of more values than there are core registers: spilled counters, carried values and constants among them."""
    function = RandomProgram(seed, size=60, core_pool=6 + seed % 12).function
    expected = run_values(function)
    allocated(function)
    assert check_allocation(function) == []
    assert run_registers(function) == expected


def test_some_random_programs_spill():
    spilling = [seed for seed in range(40) if allocated(RandomProgram(seed, size=60, core_pool=17).function).frame]
    assert len(spilling) > 3


def test_too_many_floats_are_an_error():
    with pytest.raises(AllocationError):
        allocated(convolution(8, 5, 1))


@pytest.mark.parametrize("seed", range(20))
def test_checker_agrees_with_running(seed: int):
    """Give a random value another register: where the result of a run changes, the checker must complain."""
    rng = random.Random(seed)
    function = allocated(RandomProgram(seed, size=50, core_pool=6 + seed % 10).function)
    expected = run_registers(function)
    values = [value for value, register in enumerate(function.registers) if register is not None]
    complaints = 0
    for _ in range(20):
        value = rng.choice(values)
        own = function.classes[value]
        kept = function.registers[value]
        function.registers[value] = rng.choice([r for r in range(REGISTER_COUNT[own]) if r not in RESERVED[own]])
        problems = check_allocation(function)
        if run_registers(function) != expected:
            assert problems, f"%{value} from {kept} to {function.registers[value]}: another result, and no complaint"
        complaints += bool(problems)
        function.registers[value] = kept
    assert complaints > 5, "random registers hardly ever break anything: the test is blind"


@pytest.mark.parametrize("seed", range(15))
def test_checker_agrees_with_running_when_code_is_lost(seed: int):
    """Leave out a copy or an access to the frame."""
    function = allocated(RandomProgram(seed, size=60, core_pool=16).function)
    expected = run_registers(function)
    bodies = [function.body, *(loop.body for loop in loops(function.body))]
    for body in bodies:
        for index, step in enumerate(list(body)):
            if not isinstance(step, Loop) and step.opcode in ("copy", "frame_load", "frame_store"):
                del body[index]
                if run_registers(function) != expected:
                    assert check_allocation(function), f"{step.opcode} left out: another result, and no complaint"
                body.insert(index, step)
    assert check_allocation(function) == []


def test_checker_finds_each_kind_of_wrong_register():
    function = allocated(dense())
    registers = list(function.registers)

    def problems(value: int, register: int | None) -> str:
        function.registers = list(registers)
        function.registers[value] = register
        return "\n".join(check_allocation(function))

    load = next(step for step in instructions(function.body) if step.opcode == "vldm")
    bumped, first, *_ = load.defs
    assert "consecutive" in problems(first, (registers[first] or 0) + 20)
    assert problems(bumped, 12), "the base and its successor share a register"
    assert "cannot be used" in problems(function.args[0], 13)
    assert problems(function.args[0], 5), "arguments come in given registers"
    loop = next(loops(function.body))
    wrong = next(
        r for r in range(13) if r not in {registers[v] for v in range(len(registers)) if function.classes[v] == CORE}
    )
    assert problems(loop.args[0], wrong), "a carried value keeps its register"
    assert problems(first, None)
    function.registers = registers
    verify_allocation(function)
    function.registers[first] = 31
    with pytest.raises(InternalError, match="wrong register allocation"):
        verify_allocation(function)
