"""What each pass bought: cycles, code and arena of the module after every pass, finished by the shortest way to bytes.

Behind each pass a copy of the module is taken to machine code by the mandatory passes alone (`pipelines.UNOPTIMIZED`:
a plain schedule, instructions in source order) and run in the emulator. So the figures begin with what no optimization
at all gives and end with those of the whole pipeline; the difference between two lines is what the pass bought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline

from ml4f.backend.thumb.object_code import assemble
from ml4f.errors import Ml4fError
from ml4f.interpreters.execute import finished, level, random_inputs
from ml4f.machine import Machine
from ml4f.passes import PASSES
from ml4f.pipelines import LOOP, UNOPTIMIZED
from ml4f.profile import profile

MANDATORY = tuple(spec.split("{")[0] for spec in UNOPTIMIZED)
LINE = "{:<28} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9}"
HEADINGS = LINE.format("cost after", "cycles", "", "code", "", "arena", "")


@dataclass(frozen=True)
class Cost:
    """Of a finished module: modelled cycles of one run, bytes of code without weights, bytes of arena."""

    cycles: int
    code_bytes: int
    arena_bytes: int


class CostReport:
    """A pass pipeline's callback: prints a line a pass, with the change against the line before, and a last one in all.

    passes: the names of the pipeline's passes, in order. `done`: how many passes of UNOPTIMIZED have run.
    """

    def __init__(self, passes: Sequence[str], say: Callable[[str], None], seed: int = 0):
        self.passes = list(passes)
        self.done = 0
        self.say = say
        self.seed = seed
        self.inputs: list[np.ndarray] = []
        self.first = self.last = Cost(0, 0, 0)

    def __call__(self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
        if previous is None:
            self.done = _already_done(level(module), self.passes)
            self.inputs = random_inputs(module, self.seed)
            self.first = self.last = self.measure(module, "the input")
            self.say(HEADINGS)
            self.say(_line("(input)", self.first, None))
        else:
            if previous.name in MANDATORY:
                self.done = max(self.done, MANDATORY.index(previous.name) + 1)
            cost = self.measure(module, previous.name)
            self.say(_line(previous.name, cost, self.last))
            self.last = cost
        if following is None and previous is not None:
            self.say(_line("all passes", self.last, self.first))

    def measure(self, module: ModuleOp, where: str) -> Cost:
        """The cost of a module; it is left as it is."""
        try:
            return measured(self.finish(module), self.inputs)
        except Exception as error:
            raise Ml4fError(f"--cost: after {where} the module cannot be taken to machine code: {error}") from error

    def finish(self, module: ModuleOp) -> ModuleOp:
        """A module of allocated thumb functions, by the mandatory passes that have not run yet."""
        if level(module) == "thumb":
            return finished(module)
        copy = module.clone()
        PassPipeline.parse_spec(PASSES, ",".join(UNOPTIMIZED[self.done :])).apply(Context(), copy)
        return copy


def _already_done(where: str, to_come: Sequence[str]) -> int:
    """How many passes of UNOPTIMIZED a pipeline's input has behind it: those before the first one in the pipeline."""
    if where == "nn":
        return 0
    places = [MANDATORY.index(name) for name in to_come if name in MANDATORY]
    return min(places, default=MANDATORY.index(LOOP[0]))


def _line(name: str, cost: Cost, before: Cost | None) -> str:
    """A line of the table, with changes against another cost: cycles in percent, bytes as they are."""
    if before is None:
        return LINE.format(
            name, f"{cost.cycles:,}", "", f"{cost.code_bytes:,}", "", f"{cost.arena_bytes:,}", ""
        ).rstrip()
    cycles = f"{100 * (cost.cycles / before.cycles - 1):+.2f}%" if cost.cycles != before.cycles else "="
    code, arena = (
        f"{after - old:+,}" if after != old else "="
        for after, old in ((cost.code_bytes, before.code_bytes), (cost.arena_bytes, before.arena_bytes))
    )
    return LINE.format(name, f"{cost.cycles:,}", cycles, f"{cost.code_bytes:,}", code, f"{cost.arena_bytes:,}", arena)


def measured(module: ModuleOp, inputs: Sequence[np.ndarray]) -> Cost:
    """The cost of a module of allocated thumb functions, by one run."""
    code = assemble(module)
    machine = Machine(code.binary, "module")
    cycles = profile(machine, inputs[0] if len(inputs) == 1 else list(inputs)).total  # pyright: ignore[reportArgumentType]
    return Cost(cycles, code.code_bytes, code.header.arena_bytes)
