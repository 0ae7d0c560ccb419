"""Schedules of elementwise nests in float registers: multiple loads and stores, parameters kept in registers.

A batch normalisation walks down the rows with the scales and offsets of a few channels in registers; a sum of two
tensors streams both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ml4f.backend.loop.bit_patterns import ends_in_core
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.schedules import has_constants, make_schedule, plain_dim, values_of_epilogue

FLOAT_REGISTERS = 31
CONSTANTS = 3
"""Registers for constants of functions that need few values."""
ALL_REGISTERS = 32
"""For steps whose results take the registers of what they change, so that nothing else is needed."""
ROWS = (1, 2, 3, 4, 8)
"""How many rows, or runs, a loop's body holds."""
LONGEST_RUN = 16
SIZES = 3
"""Lengths of runs that are tried."""
MOST_APART = 5
"""Runs that are loaded together by multiple loads: each has a pointer, which stays for the store."""
IN_PLACE_STEPS = ("mul", "add", "sub", "rsub")
MOST_IN_CORE = 8
"""Values that are together in core registers to be limited, beside pointers and counters."""


def _sizes(extent: int, most: int) -> list[int]:
    """How many neighbouring values may be handled together: the most, or as many as divide the extent evenly."""
    even = [-(-extent // parts) for parts in range(-(-extent // most), extent + 1)]
    return list(dict.fromkeys([most, *even]))[:SIZES]


def _together(extent: int, size: int, unrolled: int, held: int, registers: int, live: int) -> int:
    """How many values are in registers together: several runs of the size, or of what is left over, if they fit.

    A value needs `live` of the registers.
    """
    values = size
    for run in (size, extent % size or size):
        values = max(values, run * min((registers - held * run) // (live * run), unrolled))
    return values


def needs_no_temporaries(nest: Nest) -> bool:
    """Whether each step of an elementwise nest is one operation on the value and an operand in a register."""
    steps = [s for s in nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
    return nest.combine == "copy" and all(s.kind in IN_PLACE_STEPS and s.role is not None for s in steps)


def elementwise_schedules(nest: Nest) -> Iterator[Schedule]:
    """For nests without reductions; empty where multiple loads and stores have no use."""
    inner = plain_dim(nest)
    maps = {o.role: o.map for o in nest.operands}
    if nest.guards or nest.window_dims or any(maps[r].coefficient(inner) != 1 for r in ("x", "out")):
        return
    roles = dict.fromkeys(s.role for s in nest.epilogue if s.role is not None)
    rows = [d for d in nest.parallel_dims if d != inner]
    resident = tuple(r for r in roles if not any(maps[r].mentions(d) for d in rows)) if rows else ()
    streamed = [r for r in roles if r not in resident and maps[r].coefficient(inner) == 1]
    multiple = ("x", *streamed, "out")
    held = [r for r in resident if maps[r].mentions(inner)]
    extent = nest.extents[inner]
    in_core, hoist, live = ends_in_core(nest), has_constants(nest), values_of_epilogue(nest)
    most = (FLOAT_REGISTERS - (CONSTANTS if hoist else 0)) // (len(held) + max(live, 1 + (1 if streamed else 0)))
    most = min(most, MOST_IN_CORE) if in_core else most
    registers = ALL_REGISTERS if held and needs_no_temporaries(nest) else FLOAT_REGISTERS
    registers -= CONSTANTS if hoist else 0
    for size in _sizes(extent, min(extent, most, LONGEST_RUN)):
        for unrolled in ROWS:
            if not rows and size * unrolled <= extent:
                tiles = {inner: size * unrolled}
            elif rows and unrolled <= nest.extents[rows[-1]]:
                tiles = {inner: size, rows[-1]: unrolled}
            else:
                break
            values = size if in_core else _together(extent, size, unrolled, len(held), registers, live)
            apart = values // size if held and nest.element_by_element else 0
            for single in ((), ("x", *streamed)) if apart <= MOST_APART else (("x", *streamed),):
                kept = tuple(r for r in multiple if r not in single)
                options = {"multiple": kept, "resident": resident, "hoist": hoist}
                schedule = make_schedule(nest, tiles, {}, (), vector=values, **options)
                if held:
                    first = [loop for loop in schedule.loops if loop[0] == inner]
                    rest = [loop for loop in schedule.loops if loop[0] != inner]
                    schedule = replace(schedule, loops=(*first, *rest))
                yield schedule
