"""Cycle tables, one a core: plain data, with their sources.

Cortex-M4F: the floating-point rows are those of the Technical Reference Manual (ARM DDI 0439, table 7-1); the rules
between neighbours reproduce published board measurements of an STM32L4R5 to 0.5 %. Memory has no wait states.
Cortex-M33's integer and float pipelines have the same length and take the same table; Cortex-M7 issues two instructions
a cycle, so its table orders code sensibly (a multiply-accumulate is no dearer than its parts) but its counts are not
claimed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ml4f.backend.thumb.hazards import HazardRules, TimingRow
from ml4f.errors import UsageError

TAKEN_BRANCH = 3
"""Cycles of a taken branch: 1 + a pipeline refill of 2."""
PIPELINE_REFILL = TAKEN_BRANCH - 1
"""What a write to PC other than a branch instruction costs beyond itself (POP)."""
UNTAKEN_BRANCH = 1
MISALIGNED_TARGET = 1
"""Added when a branch target is a 32-bit instruction that is not word aligned."""

_CORTEX_M4 = {
    "alu": TimingRow(1),
    "divide": TimingRow(7),
    "fp": TimingRow(1, arithmetic=True, floating_point=True),
    "fp_mac": TimingRow(3, arithmetic=True, late_addend=True, floating_point=True),
    "fp_divide": TimingRow(1, unit_busy=13, arithmetic=True, floating_point=True),
    "fp_compare": TimingRow(1, floating_point=True),
    "vmov": TimingRow(1, floating_point=True),
    "vmov2": TimingRow(2, floating_point=True),
    "load": TimingRow(2, single_load=True, any_load=True),
    "store": TimingRow(1, store=True),
    "vload": TimingRow(2, single_load=True, any_load=True, floating_point=True),
    "vstore": TimingRow(2, store=True, floating_point=True),
    "multiple_load": TimingRow(1, cycles_per_word=1, any_load=True, floating_point=True),
    "multiple_store": TimingRow(1, cycles_per_word=1, store=True, floating_point=True),
    "select": TimingRow(2),
    "vselect": TimingRow(4, floating_point=True),
    "call": TimingRow(1 + TAKEN_BRANCH),
    "it": TimingRow(1),
}
"""The multiple loads and stores are those of S registers, the only ones in use. `select` is CMP, IT (free behind a
16-bit instruction), MOV; `vselect` VCMP, VMRS, IT, VMOV."""


@dataclass(frozen=True)
class Core:
    """A processor: its name, its timing rules, the instruction set features it has."""

    name: str
    rules: HazardRules
    features: frozenset[str] = frozenset()


CORES = {
    "cortex-m4": Core("cortex-m4", HazardRules(_CORTEX_M4)),
    "cortex-m7": Core(
        "cortex-m7",
        HazardRules({**_CORTEX_M4, "fp_mac": replace(_CORTEX_M4["fp_mac"], cycles=1)}, result_stall=2),
        frozenset({"fpv5"}),
    ),
    "cortex-m33": Core("cortex-m33", HazardRules(_CORTEX_M4), frozenset({"fpv5"})),
}


DEFAULT_CORE = "cortex-m4"
"""What is compiled for it runs on all of them."""


def core_named(name: str) -> Core:
    """The core `cortex-m4`, or `m4` for short."""
    full = name if name.startswith("cortex-") else f"cortex-{name}"
    if full not in CORES:
        raise UsageError(f"no such core: {name}; there are {', '.join(CORES)}")
    return CORES[full]
