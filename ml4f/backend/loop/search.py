"""Chooses the schedules of all nests of a program together: which kernels should be fast and which small.

Every nest has a trade-off between cycles and code (`candidates.py`). Starting with the fastest of each, the exchange
that saves the most bytes for a cycle is made first, then the next best: a path along which a program gets smaller and
slower. What is wanted, a goal or a limit, picks a place on it. Equal nests have one kernel, whose code counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, prod
from typing import Literal

from ml4f.backend.loop.candidates import Candidate, candidates
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.packing import in_full
from ml4f.backend.loop.schedules import pixel_dims

Goal = Literal["speed", "balanced", "size"]

CYCLES_OF_FASTEST: dict[Goal, float] = {"speed": 1.002, "balanced": 1.05, "size": 1.34}
"""At most so many times the cycles of the fastest program may be spent on saving code; an estimate is good to 0.2 %."""
CODE_PER_CYCLES: dict[Goal, float] = {"speed": 0.0, "balanced": 3.85, "size": 0.0}
"""What they must buy: one per cent of all cycles at least so many per cent of all code and a page."""
FLASH_PAGE = 4096
"""Flash is erased and given away in pages, of so many bytes in an nRF52833, so that bytes of small code are worth less:
what is weighed against cycles is the code and a page."""
FLOAT16_RATE = 3.0
FLOAT16_SHARE = 0.5
"""float16 weights cost cycles: a per cent of these has to buy so many times as much code, as long as the code that is
not saved takes no more than this share of what the weights have saved."""
FLOAT16_CYCLES: dict[bool, float] = {True: 1.047, False: 1.165}
"""float16 weights may cost so many times the cycles of float32 ones, in a program with convolutions or without: a load
of two and their conversions take a cycle more than two loads, for each tile. What is wanted is 1.05 and 1.17."""
FLOAT16_NEAREST = 1.005
"""Where nothing is as fast: how near to the fastest a choice has to be."""
FLOAT16_CODE = 1.25
"""How much code that may take, a page more, in parts of what is chosen for float32 weights."""
FIXED_BYTES = 100
"""What an object has besides kernels: entry, saving of registers, return."""


@dataclass(frozen=True)
class Totals:
    """Estimated cycles of a run, and bytes of code."""

    cycles: float
    code_bytes: float

    def weighed(self, rate: float) -> float:
        """Logarithm of code, a page more, times the `rate`-th power of cycles."""
        return log(FLASH_PAGE + self.code_bytes) + rate * log(max(self.cycles, 1.0))


@dataclass(frozen=True)
class Choice:
    """A candidate for each different nest, their totals, and the totals of the fastest choice."""

    candidates: dict[Nest, Candidate]
    totals: Totals
    fastest: Totals


class _Path:
    """The way from the fastest kernels to the smallest ones."""

    def __init__(self, nests: Sequence[Nest], max_pixels: int = 0, compact: bool = True):
        self.counts = Counter(nests)
        self.fronts = {nest: candidates(nest, max_pixels, compact) for nest in self.counts}
        self.hulls = {nest: convex(front) for nest, front in self.fronts.items()}
        exchanges: list[tuple[float, Nest, int]] = []
        for nest, hull in self.hulls.items():
            for i in range(len(hull) - 1):
                exchanges.append((self._rate(nest, hull[i], hull[i + 1]), nest, i + 1))
        self.exchanges = sorted(exchanges, key=lambda e: -e[0])
        number = {nest: n for n, nest in enumerate(self.counts)}
        cycles = [self.hulls[nest][0].cycles * count for nest, count in self.counts.items()]
        code = [self.hulls[nest][0].code_bytes for nest in self.counts]
        self.places = [Totals(sum(cycles), FIXED_BYTES + sum(code))]
        for _, nest, i in self.exchanges:
            small = self.hulls[nest][i]
            cycles[number[nest]], code[number[nest]] = small.cycles * self.counts[nest], small.code_bytes
            self.places.append(Totals(sum(cycles), FIXED_BYTES + sum(code)))

    def _rate(self, nest: Nest, fast: Candidate, small: Candidate) -> float:
        """Bytes saved for a cycle."""
        return (fast.code_bytes - small.code_bytes) / max((small.cycles - fast.cycles) * self.counts[nest], 1e-9)

    def choice(self, limit: float, rate: float = 0.0) -> Choice:
        """The best choice of at most `limit` cycles: along the path, then by single exchanges that still fit.

        The best has the least `code * cycles^rate`.
        """
        allowed = [i for i, totals in enumerate(self.places) if totals.cycles <= limit] or [0]
        place = min(allowed, key=lambda i: (self.places[i].weighed(rate), i))
        return self._improved(place, lambda totals: totals.weighed(rate) if totals.cycles <= limit else inf)

    def below(self, limit: float, rate: float) -> Choice:
        """The best choice of at most `limit` cycles from any place of the path: exchanges of one for another, too."""
        places = [i for i, totals in enumerate(self.places) if totals.cycles <= limit] or [0]

        def cost(totals: Totals) -> float:
            return totals.weighed(rate) if totals.cycles <= limit else inf

        return min((self._improved(i, cost) for i in places), key=lambda choice: cost(choice.totals))

    def within(self, max_code: int) -> Choice:
        """A fast choice of at most `max_code` bytes; the smallest one where that is impossible."""
        fitting = [i for i, totals in enumerate(self.places) if totals.code_bytes <= max_code]
        if not fitting:
            return self.choice(self.places[-1].cycles)
        return self._improved(fitting[0], lambda totals: totals.cycles if totals.code_bytes <= max_code else inf)

    def _improved(self, place: int, cost: Callable[[Totals], float]) -> Choice:
        """The choice at a place of the path, improved by single exchanges as long as one of them lowers the cost."""
        chosen = {nest: hull[0] for nest, hull in self.hulls.items()}
        for _, nest, i in self.exchanges[:place]:
            chosen[nest] = self.hulls[nest][i]
        totals = self.places[place]
        while True:
            best: tuple[Totals, Nest, Candidate] | None = None
            reached = cost(totals)
            for nest, now in chosen.items():
                for candidate in self.fronts[nest]:
                    slower = self.counts[nest] * (candidate.cycles - now.cycles)
                    changed = Totals(totals.cycles + slower, totals.code_bytes + candidate.code_bytes - now.code_bytes)
                    if cost(changed) < reached:
                        best, reached = (changed, nest, candidate), cost(changed)
            if best is None:
                return Choice(chosen, totals, self.places[0])
            totals, nest, candidate = best
            chosen[nest] = candidate


def convex(front: Sequence[Candidate]) -> list[Candidate]:
    """The lower convex hull of a front: each exchange saves fewer bytes for a cycle than the one before."""
    hull: list[Candidate] = []
    for candidate in front:
        while len(hull) > 1 and _above(hull[-2], hull[-1], candidate):
            hull.pop()
        hull.append(candidate)
    return hull


def _above(a: Candidate, b: Candidate, c: Candidate) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b.code_bytes - a.code_bytes) * (c.cycles - a.cycles) >= (c.code_bytes - a.code_bytes) * (
        b.cycles - a.cycles
    )


def halved_bytes(nest: Nest) -> int:
    """Bytes by which a nest's weights are smaller for being float16."""
    halved = 0
    for operand in nest.operands:
        if operand.element == "f16":
            rows = prod(n for d, n in nest.extents.items() if operand.map.mentions(d))
            sink = nest.sink if nest.sink is not None and nest.sink.role == operand.role else None
            halved += 2 * rows * (int(sink.parameters[0]) if sink is not None else 1)
    return halved


def choose(nests: Sequence[Nest], goal: Goal = "balanced", max_code: int = 0, max_pixels: int = 0) -> Choice:
    """The schedules of a program's nests, with at most `max_code` bytes of code if that is possible. Deterministic.

    `max_pixels` limits the pixels of a tile.
    """
    path = _Path(nests, max_pixels, compact=goal == "size" or max_code > 0)
    limit, rate = CYCLES_OF_FASTEST[goal] * path.places[0].cycles, CODE_PER_CYCLES[goal]
    choice = path.choice(limit, rate)
    halved = sum(map(halved_bytes, path.counts))
    if halved:
        faster = path.choice(limit, rate * FLOAT16_RATE)
        if faster.totals.code_bytes - choice.totals.code_bytes <= FLOAT16_SHARE * halved:
            choice = faster
        if goal != "size" and not max_code:
            whole = choose([in_full(nest) for nest in nests], goal, max_pixels=max_pixels).totals
            most = FLOAT16_CYCLES[any(map(_is_convolution, path.counts))] * whole.cycles
            if choice.totals.cycles > most:
                faster = path.below(max(most, FLOAT16_NEAREST * path.places[0].cycles), rate)
                if FLASH_PAGE + faster.totals.code_bytes <= FLOAT16_CODE * (FLASH_PAGE + whole.code_bytes):
                    choice = faster
    return choice if not max_code or choice.totals.code_bytes <= max_code else path.within(max_code)


def _is_convolution(nest: Nest) -> bool:
    """Whether there are several pixels."""
    return nest.combine == "mac" and any(nest.extents[d] > 1 for d in pixel_dims(nest))


def choose_schedule(nest: Nest) -> tuple[Schedule, Candidate]:
    """The fastest schedule of a nest alone, and what it costs; it is for `Candidate.nest`, an equal of the nest."""
    fastest = candidates(nest, 0, False)[0]
    return fastest.schedule, fastest
