"""Which places of two buffers exclude each other, element by element.

Every word of a buffer is alive from its first store to its last load. Two words may share an address unless each is
born before the other dies. Over all pairs of words this gives the *differences* `offset(second) - offset(first)` that
a plan must avoid: usually an interval, sometimes with holes (a depthwise layer that works channel by channel may
overwrite its input at multiples of the number of channels).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf, prod

import numpy as np

from ml4f.backend.memory.alternatives import Alternative, Modes, Pair
from ml4f.backend.memory.trace import NEVER, Trace

UNBORN = np.iinfo(np.int64).max
"""The birth of a word that is never stored."""
START = 1
"""When the first kernel may store: until then all inputs, read or not, keep what the caller has put there."""
FOREVER = np.iinfo(np.int64).max - 1
EXHAUSTIVE_PAIRS = 1 << 22
"""Up to so many pairs of words are compared one by one where no order of births makes that unnecessary."""
HOLE_SEARCH = 4096
"""Differences up to so many words are tried as holes."""
SAMPLES = (7, 61)
"""Words that are looked at, of all differences and then of those that are left, before all words are."""
HOLES = 8
"""As many holes on each side of zero become alternatives."""
COMBINATIONS = 64
"""Combinations of modes that are compared one by one: with more kernels on the same two buffers, those of a transposed
convolution, there would soon be thousands."""
ANY = -1
"""In place of a mode: what holds in all of them."""


@dataclass(frozen=True)
class Life:
    """For each word when it is born and when it dies; unborn words and those that nobody reads die at birth."""

    born: np.ndarray
    dies: np.ndarray


@dataclass(frozen=True)
class Call:
    """One execution of a kernel: for every operand the number of its buffer, or None; a trace for each mode."""

    kernel: int
    buffers: tuple[int | None, ...]
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class Timeline:
    """The calls in order, and the sizes in words of the buffers that they use."""

    sizes: tuple[int, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The time of the first slot of each call, and of the program's end."""
        starts = [START]
        for call in self.calls:
            starts.append(starts[-1] + max(t.slots for t in call.traces) + 1)
        return starts

    @cached_property
    def users(self) -> list[list[int]]:
        """For each buffer the calls that have it as an operand."""
        users: list[list[int]] = [[] for _ in self.sizes]
        for step, call in enumerate(self.calls):
            for buffer in sorted({b for b in call.buffers if b is not None}):
                users[buffer].append(step)
        return users

    def span(self, buffer: int) -> tuple[int, int]:
        """The first and last call during which a buffer holds something."""
        users = self.users[buffer]
        first = 0 if buffer in self.inputs or not users else users[0]
        last = len(self.calls) if buffer in self.outputs else users[-1] if users else 0
        return first, last

    def life(self, buffer: int, modes: Mapping[int, int]) -> Life:
        """Lifetimes of a buffer's words; `modes` of kernels, 0 where not given. In `ANY` mode no word lives longer."""
        size = self.sizes[buffer]
        is_input = buffer in self.inputs
        born = np.full(size, 0 if is_input else UNBORN, dtype=np.int64)
        dies = np.full(size, NEVER, dtype=np.int64)
        whole_until = 0
        for step in self.users[buffer]:
            call, start = self.calls[step], self.starts[step]
            mode = modes.get(call.kernel, 0)
            operands = [operand for operand, used in enumerate(call.buffers) if used == buffer]
            for current, operand in product(call.traces if mode == ANY else [call.traces[mode]], operands):
                touches = current.operands[operand]
                stored, loaded = touches.last_store != NEVER, touches.last_load != NEVER
                born[stored] = np.minimum(born[stored], start + touches.first_store[stored])
                dies[stored] = np.maximum(dies[stored], start + touches.last_store[stored])
                dies[loaded] = np.maximum(dies[loaded], start + touches.last_load[loaded])
                if loaded.any():
                    whole_until = start - 1
        if buffer in self.outputs:
            whole_until = FOREVER
        alive = born != UNBORN
        dies[alive] = np.maximum(dies[alive], max(whole_until, START if is_input else 0))
        dies[~alive] = NEVER
        return Life(born, dies)


def _order(timeline: Timeline, a: int, b: int) -> tuple[int, int]:
    """The buffer that is born first, first."""
    key = {n: (n not in timeline.inputs, timeline.span(n), n) for n in (a, b)}
    return (a, b) if key[a] <= key[b] else (b, a)


def excluded(first: Life, second: Life) -> tuple[int, int] | None:
    """The least and greatest `offset(second) - offset(first)` at which a word would be lost; None: there is none."""
    a, b = np.flatnonzero(first.born != UNBORN), np.flatnonzero(second.born != UNBORN)
    if not a.size or not b.size:
        return None
    dies, born = first.dies[a], second.born[b]
    if dies.max() <= born.min() or second.dies[b].max() <= first.born[a].min():
        return None
    if first.born[a].max() >= second.dies[b].min() and a.size * b.size <= EXHAUSTIVE_PAIRS:
        lost = (born[None, :] < dies[:, None]) & (first.born[a][:, None] < second.dies[b][None, :])
        rows, columns = np.nonzero(lost)
        if not rows.size:
            return None
        differences = a[rows] - b[columns]
        return int(differences.min()), int(differences.max())
    order = np.argsort(-dies, kind="stable")
    greatest = np.maximum.accumulate(a[order])
    least = np.minimum.accumulate(a[order])
    count = np.searchsorted(-dies[order], -born, side="left")
    hit = count > 0
    if not hit.any():
        return None
    low = least[count[hit] - 1] - b[hit]
    high = greatest[count[hit] - 1] - b[hit]
    return int(low.min()), int(high.max())


def fits(first: Life, second: Life, difference: int) -> bool:
    """Whether the second buffer may lie `difference` words above the first."""
    start, end = max(0, -difference), min(len(second.born), len(first.born) - difference)
    if end <= start:
        return True
    born, dies = first.born[start + difference : end + difference], first.dies[start + difference : end + difference]
    return not bool(np.any((second.born[start:end] < dies) & (born < second.dies[start:end])))


def span(first: int, second: int, difference: int) -> int:
    """Words that two buffers take together at this difference."""
    return max(first, second + difference) - min(0, difference)


def holes(first: Life, second: Life, low: int, high: int) -> list[tuple[int, int]]:
    """Intervals of differences between `low` and `high` that are allowed all the same, nearest to zero first."""
    sizes = len(first.born), len(second.born)
    outside = min(span(*sizes, low - 1), span(*sizes, high + 1))
    if outside <= max(sizes):
        return []
    found: list[tuple[int, int]] = []
    for side in (
        np.arange(min(high, -1), max(low, -HOLE_SEARCH) - 1, -1),
        np.arange(max(low, 0), min(high, HOLE_SEARCH) + 1),
    ):
        mine: list[tuple[int, int]] = []
        for difference in _survivors(first, second, side):
            if span(*sizes, difference) >= outside or not fits(first, second, difference):
                continue
            if mine and difference in (mine[-1][0] - 1, mine[-1][1] + 1):
                mine[-1] = min(mine[-1][0], difference), max(mine[-1][1], difference)
            elif len(mine) == HOLES:
                break
            else:
                mine.append((difference, difference))
        found += mine
    return found


def _survivors(first: Life, second: Life, differences: np.ndarray) -> list[int]:
    """The differences that samples of the second buffer's words, a few and then more, do not rule out."""
    for count in SAMPLES:
        words = len(second.born)
        sample = np.linspace(0, words - 1, min(count, words)).astype(np.int64)
        place = sample[None, :] + differences[:, None]
        inside = (place >= 0) & (place < len(first.born))
        place = np.where(inside, place, 0)
        lost = (second.born[sample] < first.dies[place]) & (first.born[place] < second.dies[sample]) & inside
        differences = differences[~lost.any(axis=1)]
    return [int(d) for d in differences]


class _Lives:
    """Lifetimes, computed once for each combination of modes that matters."""

    def __init__(self, timeline: Timeline):
        self.timeline = timeline
        self.known: dict[tuple[int, tuple[tuple[int, int], ...]], Life] = {}

    def __call__(self, buffer: int, modes: tuple[tuple[int, int], ...]) -> Life:
        if (buffer, modes) not in self.known:
            self.known[buffer, modes] = self.timeline.life(buffer, dict(modes))
        return self.known[buffer, modes]


def _mode_combinations(timeline: Timeline, a: int, b: int) -> Iterator[Modes]:
    """The modes of the kernels that use both buffers: only their inner order can matter.

    All combinations, or, where these are too many, those of equal modes and what holds in every combination.
    """
    shared = sorted(set(timeline.users[a]) & set(timeline.users[b]))
    counts = {timeline.calls[step].kernel: len(timeline.calls[step].traces) for step in shared}
    if prod(counts.values()) <= COMBINATIONS:
        for modes in product(*(range(n) for n in counts.values())):
            yield tuple(zip(counts, modes, strict=True))
        return
    for mode in range(max(counts.values())):
        yield tuple((kernel, min(mode, n - 1)) for kernel, n in counts.items())
    yield tuple((kernel, ANY) for kernel in counts)


def pairs(timeline: Timeline) -> list[Pair]:
    """All pairs of buffers that exclude each other somewhere, with the alternatives that a plan has."""
    lives = _Lives(timeline)
    out: list[Pair] = []
    spans = [timeline.span(n) for n in range(len(timeline.sizes))]
    for i in range(len(timeline.sizes)):
        for j in range(i + 1, len(timeline.sizes)):
            if spans[i][0] > spans[j][1] or spans[j][0] > spans[i][1]:
                continue
            first, second = _order(timeline, i, j)
            alternatives: list[Alternative] = []
            free = True
            for modes in _mode_combinations(timeline, first, second):
                lives_now = lives(first, modes), lives(second, modes)
                interval = excluded(*lives_now)
                modes = tuple((kernel, mode) for kernel, mode in modes if mode != ANY)
                if interval is None:
                    alternatives.append(Alternative(None, None, modes))
                    continue
                free = False
                low, high = interval
                alternatives.append(Alternative(None, low - 1, modes))
                alternatives.append(Alternative(high + 1, None, modes))
                alternatives += [Alternative(a, b, modes) for a, b in holes(*lives_now, low, high)]
            if not free:
                out.append(Pair(first, second, tuple(alternatives)))
    return out


def live_sets(timeline: Timeline) -> list[tuple[int, ...]]:
    """The buffers that hold something at each call, largest set (in words) first, without sets inside of others."""
    spans = [timeline.span(n) for n in range(len(timeline.sizes))]
    sets = {
        tuple(n for n, (first, last) in enumerate(spans) if first <= step <= last)
        for step in range(len(timeline.calls) + 1)
    }
    kept: list[tuple[int, ...]] = []
    for one in sorted(sets, key=lambda s: (-sum(timeline.sizes[n] for n in s), s)):
        if not any(set(one) <= set(other) for other in kept):
            kept.append(one)
    return kept


def overlaps(sizes: tuple[int, ...], call: Call, output: int | None) -> list[tuple[int, float, float]]:
    """For each other buffer of one call alone: how far below or above it the output may begin (first of the traces)."""
    found: list[tuple[int, float, float]] = []
    if output is None:
        return found
    for buffer in sorted({b for b in call.buffers if b is not None and b != output}):
        timeline = Timeline(sizes, (call,), (buffer,), (output,))
        interval = excluded(timeline.life(buffer, {}), timeline.life(output, {}))
        low, high = interval if interval is not None else (inf, -inf)
        found.append((buffer, low, high))
    return found
