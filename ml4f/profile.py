"""Modelled Cortex-M4F cycles of a run, in all and a call: counted dynamically, priced by `backend/thumb/cycles.py`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import unicorn

from ml4f.backend.thumb.cycles import CycleCounter
from ml4f.backend.thumb.hazards import HazardRules
from ml4f.backend.thumb.layout import CallSite
from ml4f.backend.thumb.timing import CORES
from ml4f.machine import OBJECT_BASE, Machine

M4_RULES = CORES["cortex-m4"].rules


INPUT_SEED = 7


@dataclass(frozen=True)
class Profile:
    """`total` cycles from entry to return; `calls[i]` those of call i and its addresses; the first output."""

    total: int
    calls: tuple[int, ...]
    output: np.ndarray


def typical_input(machine: Machine) -> np.ndarray:
    """What cycles are counted on unless told otherwise: all inputs as one flat array, seeded, normally distributed.

    Few kernels' cycles depend on values.
    """
    size = machine.header.input_elements
    return np.random.default_rng(INPUT_SEED).standard_normal(size).astype(np.float32)


def profile(machine: Machine, inputs: Any, calls: Sequence[CallSite] = (), rules: HazardRules = M4_RULES) -> Profile:
    """Run once (`inputs` as for `Machine.run`) and count. Code outside of all calls counts in the total only."""
    starts = [OBJECT_BASE + site.start for site in calls]
    entry_end = OBJECT_BASE + calls[-1].end if calls else 0
    first = OBJECT_BASE + machine.header.entry
    edges: dict[tuple[int, int, int, int], int] = {}
    ends: dict[int, int] = {}
    call_of: dict[int, int] = {}
    state = [-1, -1]

    def on_block(uc: unicorn.Uc, address: int, size: int, data: object) -> None:
        previous, current = state
        if first <= address < entry_end:
            known = call_of.get(address)
            if known is None:
                # What a block branches to belongs to its last instruction: it may begin in the call before.
                known = call_of[address] = bisect_right(starts, address + size - 1) - 1
            current = state[1] = known
        key = (current, previous, address, size)
        edges[key] = edges.get(key, 0) + 1
        ends[address] = address + size
        state[0] = address

    machine.uc.ctl_flush_tb()
    hook = machine.uc.hook_add(
        unicorn.UC_HOOK_BLOCK, on_block, begin=OBJECT_BASE, end=OBJECT_BASE + len(machine.binary)
    )
    try:
        output = machine.run(inputs)
    finally:
        machine.uc.hook_del(hook)
    counter = CycleCounter(machine.binary, rules, OBJECT_BASE)
    total = counter.leave(state[0], ends[state[0]])
    per_call = [0] * len(calls)
    for (current, previous, address, size), times in edges.items():
        costs = counter.instruction_costs(previous, ends.get(previous, -1), address, size)
        total += times * sum(cost for _, cost in costs)
        inside = first <= address < entry_end
        for position, cost in costs:
            call = bisect_right(starts, position) - 1 if inside else current
            if call >= 0 and (not inside or position < OBJECT_BASE + calls[call].end):
                per_call[call] += times * cost
    return Profile(total, tuple(per_call), output)
