"""Places buffers in the arena: exact, by branch and bound over alternatives for each pair of buffers.

An alternative bounds the difference of two offsets and may ask for modes (in which direction a kernel runs). The least
offsets under a set of chosen alternatives are longest paths; a pair that they violate is branched on. The search stops
when the arena equals a lower bound: the best plan of any set of buffers that are alive together, each found by the same
search. It knows sizes, pairs and modes only, counts its work instead of looking at a clock, and is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from ml4f.backend.memory.alternatives import Alternative, Pair
from ml4f.backend.memory.sharing import pair_size, without_rigid

WORK_LIMIT = 400_000
"""Edges and pairs looked at before a search gives up and keeps the best plan so far: about half a second."""
SEARCHED_SETS = 8
"""All searches for the lower bound together may take the time of so many that give up."""
MANY_BUFFERS = 64
"""With more of them each step of a search takes longer, so that there are fewer."""


@dataclass(frozen=True)
class Plan:
    """Offsets in words, modes of kernels that are not 0, the arena's size, and the bound that the search has proved."""

    offsets: tuple[int, ...]
    modes: Mapping[int, int]
    size: int
    bound: int

    @property
    def reached(self) -> bool:
        return self.size == self.bound


@dataclass
class _Budget:
    left: int

    def spend(self, amount: int) -> bool:
        """Whether there was enough."""
        self.left -= amount
        return self.left >= 0


@dataclass
class _State:
    """Offsets under the chosen constraints: edges[u] = [(v, c)]: offset(v) >= offset(u) + c."""

    offsets: list[int]
    edges: list[list[tuple[int, int]]]
    modes: dict[int, int]
    size: int

    def copy(self) -> _State:
        return _State(list(self.offsets), [list(e) for e in self.edges], dict(self.modes), self.size)


@dataclass
class _Search:
    """Finds a plan smaller than `limit` for some of the buffers, stopping at `target`."""

    sizes: Sequence[int]
    pairs: Sequence[Pair]
    members: Sequence[int]
    target: int
    limit: int
    budget: _Budget
    fixed: Mapping[int, int] = field(default_factory=dict)
    best: _State | None = None
    complete: bool = True

    def run(self) -> _State | None:
        """The best plan smaller than `limit`; `complete` tells whether no smaller one exists (down to `target`)."""
        members = set(self.members)
        self.mine = sorted(
            (p for p in self.pairs if p.first in members and p.second in members),
            key=lambda p: (
                -min(self.sizes[p.first], self.sizes[p.second]),
                -max(self.sizes[p.first], self.sizes[p.second]),
            ),
        )
        count = len(self.sizes)
        start = _State([0] * count, [[] for _ in range(count)], dict(self.fixed), 0)
        start.size = max((self.sizes[n] for n in self.members), default=0)
        if start.size >= self.limit:
            return None
        stack = [start]
        while stack:
            state = stack.pop()
            if state.size >= self.limit:
                continue
            pair = self._violated(state)
            if pair is None:
                self.best, self.limit = state, state.size
                if state.size <= self.target:
                    break
                continue
            children = self._children(state, pair)
            if not self.budget.spend(len(self.mine)):
                self.complete = False
                break
            stack += reversed(children)
        return self.best

    def _violated(self, state: _State) -> Pair | None:
        for pair in self.mine:
            difference = state.offsets[pair.second] - state.offsets[pair.first]
            if not any(a.allows(difference) for a in pair.alternatives if a.applies(state.modes)):
                return pair
        return None

    def _children(self, state: _State, pair: Pair) -> list[_State]:
        """One state for each alternative that can still lead to a smaller plan, most promising first."""
        children: list[tuple[int, int, int, int, _State]] = []
        for number, alternative in enumerate(pair.alternatives):
            if any(state.modes.get(kernel, mode) != mode for kernel, mode in alternative.modes):
                continue
            child = state.copy()
            child.modes.update(alternative.modes)
            if self._constrain(child, pair, alternative) and child.size < self.limit:
                turned = sum(1 for _, mode in alternative.modes if mode)
                children.append((child.size, turned, sum(child.offsets), number, child))
        children.sort(key=lambda c: c[:4])
        return [c[4] for c in children]

    def _constrain(self, state: _State, pair: Pair, alternative: Alternative) -> bool:
        new: list[tuple[int, int, int]] = []
        if alternative.low is not None:
            new.append((pair.first, pair.second, alternative.low))
        if alternative.high is not None:
            new.append((pair.second, pair.first, -alternative.high))
        for u, v, distance in new:
            state.edges[u].append((v, distance))
        return self._relax(state, [u for u, _, _ in new])

    def _relax(self, state: _State, changed: Iterable[int]) -> bool:
        """Longest paths from the changed buffers on; False where an offset grows beyond the limit (or for ever)."""
        queue = list(changed)
        while queue:
            u = queue.pop()
            if not self.budget.spend(1 + len(state.edges[u])):
                return False
            for v, distance in state.edges[u]:
                wanted = state.offsets[u] + distance
                if wanted > state.offsets[v]:
                    end = wanted + self.sizes[v]
                    if end >= self.limit:
                        return False
                    state.offsets[v] = wanted
                    state.size = max(state.size, end)
                    if v not in queue:
                        queue.append(v)
        return True


def first_fit(sizes: Sequence[int], pairs: Sequence[Pair], members: Sequence[int]) -> list[int]:
    """Offsets with all kernels in mode 0: largest buffer first, each at the lowest place that earlier ones allow."""
    by_buffer: dict[int, list[tuple[int, int, Pair]]] = {n: [] for n in members}
    for pair in pairs:
        if pair.first in by_buffer and pair.second in by_buffer:
            by_buffer[pair.first].append((pair.second, -1, pair))
            by_buffer[pair.second].append((pair.first, 1, pair))
    offsets: dict[int, int] = {}
    for buffer in sorted(members, key=lambda n: (-sizes[n], n)):
        placed: list[_Placed] = []
        candidates = {0}
        for other, sign, pair in by_buffer[buffer]:
            if other in offsets:
                placed.append((offsets[other], sign, pair.intervals))
                edges = [low if sign > 0 else high for low, high in pair.intervals]
                candidates.update(offsets[other] + sign * int(edge) for edge in edges if abs(edge) != inf)
        offsets[buffer] = next(c for c in sorted(candidates) if c >= 0 and _fits(c, placed))
    return [offsets.get(n, 0) for n in range(len(sizes))]


_Placed = tuple[int, int, tuple[tuple[float, float], ...]]
"""(offset of another buffer, sign of the difference to it, intervals of differences that are allowed)."""


def _fits(offset: int, placed: list[_Placed]) -> bool:
    """Whether a buffer may have this offset. What forbids it comes to the front: it will often forbid the next one."""
    for i, (other, sign, intervals) in enumerate(placed):
        difference = sign * (offset - other)
        for low, high in intervals:
            if low <= difference <= high:
                break
        else:
            placed.insert(0, placed.pop(i))
            return False
    return True


def lower_bound(
    sizes: Sequence[int], pairs: Sequence[Pair], live_sets: Sequence[Sequence[int]], budget: int = WORK_LIMIT
) -> int:
    """The largest of the best plans of sets of buffers that are alive together, without sets whose search gives up."""
    bound = max([*sizes, *(pair_size(pair, sizes) for pair in pairs)], default=0)
    from_first: dict[int, list[Pair]] = {}
    for pair in pairs:
        from_first.setdefault(pair.first, []).append(pair)
    left = SEARCHED_SETS * budget
    for members in sorted(live_sets, key=lambda m: -sum(sizes[n] for n in m)):
        if sum(sizes[n] for n in members) <= bound or left <= 0:
            break
        own = [pair for n in members for pair in from_first.get(n, ()) if pair.second in members]
        sharing, rigid = without_rigid(sizes, own, members)
        start = 1 + max((o + sizes[n] for n, o in enumerate(first_fit(sizes, own, sharing)) if n in sharing), default=0)
        search = _Search(sizes, own, sharing, bound - rigid, start, _Budget(budget))
        best = search.run()
        left -= budget - search.budget.left
        if best is not None and search.complete:
            bound = max(bound, best.size + rigid)
    return bound


def is_tight(
    sizes: Sequence[int], pairs: Sequence[Pair], members: Sequence[int], size: int, budget: int = WORK_LIMIT
) -> bool:
    """Whether these buffers alone need `size` words (or the search for less gives up)."""
    if sum(sizes[n] for n in members) < size:
        return False
    sharing, rigid = without_rigid(sizes, pairs, members)
    return _Search(sizes, pairs, sharing, size - rigid - 1, size - rigid, _Budget(budget)).run() is None


def restricted(pairs: Sequence[Pair], allowed: Sequence[int]) -> list[Pair]:
    """The pairs with only the first `allowed[kernel]` modes of each kernel."""
    return [
        Pair(p.first, p.second, tuple(a for a in p.alternatives if all(m < allowed[k] for k, m in a.modes)))
        for p in pairs
    ]


def together(pairs: Sequence[Pair], group: Sequence[int]) -> list[Pair]:
    """The pairs with a mode for each group of kernels (`group[kernel]`) instead of one for each kernel."""
    out: list[Pair] = []
    for pair in pairs:
        alternatives: list[Alternative] = []
        for alternative in pair.alternatives:
            modes = {(group[kernel], mode) for kernel, mode in alternative.modes}
            if len({g for g, _ in modes}) == len(modes):
                alternatives.append(Alternative(alternative.low, alternative.high, tuple(sorted(modes))))
        out.append(Pair(pair.first, pair.second, tuple(alternatives)))
    return out


def plan(
    sizes: Sequence[int], pairs: Sequence[Pair], live_sets: Sequence[Sequence[int]], limit: int = WORK_LIMIT
) -> Plan:
    """The smallest arena, with as few kernels as possible in a mode other than 0, and those in a low one.

    Exact unless the search exceeds `limit`; where it ends without reaching the bound, the bound is raised to the plan.
    The searches for lower modes may take as long as that one, all together.
    """
    members = range(len(sizes))
    limit //= max(len(sizes) // MANY_BUFFERS, 1) ** 2
    offsets = first_fit(sizes, pairs, members)
    size = max((o + n for o, n in zip(offsets, sizes, strict=True)), default=0)
    bound = lower_bound(sizes, pairs, live_sets, limit)
    modes: dict[int, int] = {}
    kernels = sorted({kernel for pair in pairs for kernel in pair.kernels()})

    def improve(fixed: Mapping[int, int], below: int, budget: int = limit) -> tuple[_State | None, bool, int]:
        search = _Search(sizes, pairs, members, bound, below, _Budget(budget), fixed)
        return search.run(), search.complete, search.budget.left

    if size > bound:
        found, _, _ = improve(dict.fromkeys(kernels, 0), size)
        if found is not None:
            offsets, size = found.offsets, found.size
    if size > bound:
        found, complete, _ = improve({}, size)
        if found is not None:
            offsets, size, modes = found.offsets, found.size, {k: m for k, m in found.modes.items() if m}
        if complete:
            bound = size
    left = limit
    for kernel in sorted(modes, key=lambda k: -modes[k]):
        for mode in range(modes.get(kernel, 0)):
            if left <= 0:
                break
            settled = {k: m for k in kernels for m in (modes.get(k, 0),)} | {kernel: mode}
            found, _, left = improve(settled, size + 1, left)
            if found is not None:
                offsets, modes = found.offsets, {k: m for k, m in found.modes.items() if m}
                break
    return Plan(tuple(offsets), modes, size, bound)
