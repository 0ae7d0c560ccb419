"""Where cycles are lost: every loop of a compiled object with its iterations, cycles and stalls by kind, from a run.

Works on the object's bytes as the emulator executes them, with the counter of `backend/thumb/cycles.py`: what is
reported is what was counted, the alignment of the code included. A loop's figures are those of its own code, without
those of the loops in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import unicorn
from xdsl.dialects.builtin import ArrayAttr, StringAttr

from ml4f.backend.thumb.cycles import STALL_KINDS, CycleCounter
from ml4f.backend.thumb.layout import CallSite, Comment, Label, Layout, Line
from ml4f.backend.thumb.object_code import ObjectCode
from ml4f.machine import OBJECT_BASE, Machine
from ml4f.profile import M4_RULES, typical_input
from ml4f.report import table

HAZARDS = ("result", "address", "store", "division")
"""Stalls that the order of instructions decides; the others are those of code placement."""
LONGEST_NAME = 36
"""Characters of a layer's name in the table."""

Edge = tuple[int, int, int]
"""The start of the block that ran before (-1: none), a block's own address and its size."""


@dataclass
class LoopReport:
    """A loop, [start, end) in the object; `depth` 1 is outermost. Cycles and stalls are totals of the run.

    steady_stalls: where the instruction in front was in the loop too; entry_stalls: on the way into the loop.
    """

    kernel: str
    operator: str
    layers: str
    over: str
    depth: int
    start: int
    end: int
    is_innermost: bool = True
    iterations: int = 0
    entries: int = 0
    cycles: int = 0
    steady_stalls: Counter[str] = field(default_factory=Counter)
    entry_stalls: Counter[str] = field(default_factory=Counter)


def loop_reports(code: ObjectCode, name: str = "object") -> list[LoopReport]:
    """Every loop of the object, in the order of its code, measured on one run."""
    loops = _loops(code.layout)
    machine = Machine(code.binary, name)
    edges = count_blocks(machine, typical_input(machine))
    ends = {address: address + size for _, address, size in edges}
    counter = CycleCounter(machine.binary, M4_RULES, OBJECT_BASE)
    owner = _owners(loops)
    for (previous, address, size), times in edges.items():
        for cost in counter.explain(previous, ends.get(previous, -1), address, size):
            loop = owner(cost.address - OBJECT_BASE)
            if loop is None:
                continue
            is_inside = loop.start <= previous - OBJECT_BASE < loop.end and address - OBJECT_BASE >= loop.start
            if cost.address - OBJECT_BASE == loop.start:
                loop.iterations += times
                loop.entries += 0 if is_inside else times
            loop.cycles += times * cost.cycles
            stalls = loop.steady_stalls if is_inside else loop.entry_stalls
            for kind, cycles in cost.stalls.items():
                stalls[kind] += times * cycles
    return loops


def count_blocks(machine: Machine, inputs: np.ndarray) -> Counter[Edge]:
    """How often each block ran behind each other one."""
    edges: Counter[Edge] = Counter()
    previous = -1

    def on_block(uc: unicorn.Uc, address: int, size: int, data: object) -> None:
        nonlocal previous
        edges[previous, address, size] += 1
        previous = address

    machine.uc.ctl_flush_tb()
    end = OBJECT_BASE + len(machine.binary)
    hook = machine.uc.hook_add(unicorn.UC_HOOK_BLOCK, on_block, begin=OBJECT_BASE, end=end)
    try:
        machine.run(inputs)
    finally:
        machine.uc.hook_del(hook)
    return edges


def _loops(layout: Layout) -> list[LoopReport]:
    """The loops in the code, outer ones before those in them."""
    found: list[LoopReport] = []
    open_loops: list[tuple[str, LoopReport]] = []
    places = _Places(layout)
    comment = ""
    for item in layout.items:
        if isinstance(item, Comment):
            comment = item.text.removeprefix("loop over ") if item.text.startswith("loop over ") else ""
        elif isinstance(item, Label) and item.is_loop:
            for _, outer in open_loops:
                outer.is_innermost = False
            place = places.at(item.address)
            loop = LoopReport(*place, comment, len(open_loops) + 1, item.address, item.address)
            open_loops.append((item.name, loop))
            found.append(loop)
            comment = ""
        elif isinstance(item, Line):
            comment = ""
            if open_loops and item.target == open_loops[-1][0]:
                assert item.row is not None
                open_loops.pop()[1].end = item.address + item.row.size
    return found


class _Places:
    """Which kernel an address belongs to: (kernel, operator, layers)."""

    def __init__(self, layout: Layout):
        callers: dict[str, CallSite] = {}
        for site in layout.calls:
            callers.setdefault(site.callee, site)
        spans = [(site.start, site.end, site) for site in layout.calls]
        spans += [(start, end, callers[n]) for n, (start, end) in layout.functions.items() if n in callers]
        self.spans = sorted(spans, key=lambda span: span[0])

    def at(self, address: int) -> tuple[str, str, str]:
        for start, end, site in self.spans:
            if start <= address < end:
                operator, layers = site.attributes.get("op"), site.attributes.get("layers")
                names = [name.data for name in layers if isinstance(name, StringAttr)] if _is_list(layers) else []  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
                return site.callee, operator.data if isinstance(operator, StringAttr) else "", "+".join(names)
        return "", "", ""


def _is_list(attribute: object) -> bool:
    return isinstance(attribute, ArrayAttr)


def _owners(loops: Sequence[LoopReport]) -> Callable[[int], LoopReport | None]:
    """A function that tells the innermost loop around an address, or None."""
    boundaries = sorted({edge for loop in loops for edge in (loop.start, loop.end)})
    inside: list[LoopReport | None] = [None]
    for boundary in boundaries:
        around = [loop for loop in loops if loop.start <= boundary < loop.end]
        inside.append(max(around, key=lambda loop: loop.depth, default=None))
    return lambda address: inside[bisect_right(boundaries, address)]


def stall_table(loops: Sequence[LoopReport]) -> str:
    """One line a loop, innermost ones marked; cycles and steady stalls are per iteration, entry stalls per entry."""
    used = [kind for kind in STALL_KINDS if any(loop.steady_stalls[kind] for loop in loops)]
    headings = ["layer", "loop", "iterations", "bytes", "cycles", "stalls", *used, "on entry"]
    return table([list(_cells(loop, used)) for loop in loops], headings)


def _cells(loop: LoopReport, kinds: Sequence[str]) -> Iterator[object]:
    def each(cycles: int) -> float:
        return round(cycles / loop.iterations, 2) if loop.iterations else 0.0

    yield _shortened(f"{loop.operator} {loop.layers or loop.kernel}".strip())
    yield "  " * (loop.depth - 1) + ("*" if loop.is_innermost else "-") + (f" {loop.over}" if loop.over else "")
    yield loop.iterations
    yield loop.end - loop.start
    yield each(loop.cycles)
    yield each(loop.steady_stalls.total())
    for kind in kinds:
        yield each(loop.steady_stalls[kind])
    yield round(loop.entry_stalls.total() / loop.entries, 2) if loop.entries else 0.0


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"


def summary(loops: Sequence[LoopReport], total: int) -> str:
    """What all stalls in loops come to, against the cycles of the whole run."""
    steady = sum(loop.steady_stalls.total() for loop in loops)
    entry = sum(loop.entry_stalls.total() for loop in loops)
    share = 100 * (steady + entry) / total if total else 0.0
    return f"stalls in loops: {steady} cycles, on the way into loops: {entry}; {share:.2f} % of {total} cycles"
