"""In which order the steps of a graph need the fewest words at once: `thriftiest_order`.

A step is one or more calls that belong together. What a step reads must have been written; apart from that any order
gives the same results, and the order decides how many branches' tensors wait for each other. Buffers are counted whole
and as long as anything in them is used, without sliding: the plan itself decides whether a new order pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

BEAM = 64
"""Sets of finished steps that are followed from each number of finished steps; all of them, for most graphs."""


@dataclass(frozen=True)
class Step:
    """The buffers, by number, that a step reads and writes; what it only writes needs nothing before it."""

    reads: frozenset[int]
    writes: frozenset[int]


@dataclass(frozen=True)
class Order:
    """The numbers of the steps in order, and the most words that are alive during one of them."""

    steps: tuple[int, ...]
    words: int


@dataclass(order=True)
class _State:
    """How a set of finished steps is reached; the better of two comes first."""

    worst: int
    alive: int
    steps: tuple[int, ...] = field(default=())
    done: int = field(default=0, compare=False)


class _Search:
    def __init__(self, steps: Sequence[Step], sizes: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]):
        self.steps = steps
        self.sizes = sizes
        self.inputs = set(inputs)
        self.outputs = set(outputs)
        self.before = [self._predecessors(number) for number in range(len(steps))]
        self.users = [0] * len(sizes)
        """For each buffer the steps that use it, as bits."""
        for number, step in enumerate(steps):
            for buffer in step.reads | step.writes:
                self.users[buffer] |= 1 << number

    def _predecessors(self, number: int) -> int:
        """The steps, as bits, whose results this one reads, or whose operands or results it overwrites."""
        own, found = self.steps[number], 0
        for i, other in enumerate(self.steps[:number]):
            if other.writes & (own.reads | own.writes) or other.reads & own.writes:
                found |= 1 << i
        return found

    def _is_alive(self, buffer: int, done: int) -> bool:
        """Whether a buffer holds something between steps."""
        users = self.users[buffer]
        begun = buffer in self.inputs or bool(users & done)
        return begun and (bool(users & ~done) or buffer in self.outputs)

    def start(self) -> _State:
        alive = sum(self.sizes[b] for b in self.inputs if self._is_alive(b, 0))
        return _State(alive, alive)

    def follow(self, state: _State, number: int) -> _State:
        step, done = self.steps[number], state.done | 1 << number
        used = step.reads | step.writes
        during = state.alive + sum(self.sizes[b] for b in used if not self._is_alive(b, state.done))
        alive = during - sum(self.sizes[b] for b in used if not self._is_alive(b, done))
        return _State(max(state.worst, during), alive, (*state.steps, number), done)

    def ready(self, done: int) -> list[int]:
        return [n for n, before in enumerate(self.before) if not done >> n & 1 and not before & ~done]

    def source_order(self) -> Order:
        state = self.start()
        for number in range(len(self.steps)):
            state = self.follow(state, number)
        return Order(state.steps, state.worst)

    def run(self) -> Order:
        states = [self.start()]
        for _ in self.steps:
            best: dict[int, _State] = {}
            for state in states:
                for number in self.ready(state.done):
                    found = self.follow(state, number)
                    known = best.get(found.done)
                    if known is None or found < known:
                        best[found.done] = found
            states = sorted(best.values())[:BEAM]
        return Order(states[0].steps, states[0].worst)


def thriftiest_order(
    steps: Sequence[Step], sizes: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> tuple[Order, Order]:
    """The order given, and the one that needs the fewest words; the given one if none needs fewer.

    sizes: words, by buffer. inputs: buffers that are full in the beginning; outputs: that are kept to the end.
    """
    search = _Search(steps, sizes, inputs, outputs)
    given = search.source_order()
    forced = all(before >> (n - 1) & 1 for n, before in enumerate(search.before) if n)
    if forced:  # a chain has one order
        return given, given
    found = search.run()
    return given, found if found.words < given.words else given
