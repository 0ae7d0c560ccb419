"""The planner against brute force on small problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest

from ml4f.backend.memory.alternatives import Alternative, Pair
from ml4f.backend.memory.planner import first_fit, lower_bound, plan, together
from ml4f.backend.memory.sharing import most_shared, without_rigid

NODES = 5


def disjoint(sizes: Sequence[int], first: int, second: int) -> Pair:
    below, above = Alternative(None, -sizes[second]), Alternative(sizes[first], None)
    return Pair(first, second, (below, above))


def valid(sizes: Sequence[int], pairs: Sequence[Pair], offsets: Sequence[int], modes: Mapping[int, int]) -> bool:
    """Every pair has an alternative that holds in these modes."""
    return min(offsets) >= 0 and all(
        any(
            a.allows(offsets[p.second] - offsets[p.first]) and all(modes.get(k, 0) == m for k, m in a.modes)
            for a in p.alternatives
        )
        for p in pairs
    )


def brute_force(sizes: Sequence[int], pairs: Sequence[Pair], modes_of: Mapping[int, int], limit: int) -> int:
    """The smallest arena, by trying all offsets and modes."""
    best = limit
    for chosen in product(*(range(n) for n in modes_of.values())):
        modes = dict(zip(modes_of, chosen, strict=True))
        for offsets in product(*(range(limit - n + 1) for n in sizes)):
            size = max(o + n for o, n in zip(offsets, sizes, strict=True))
            if size < best and valid(sizes, pairs, offsets, modes):
                best = size
    return best


def random_problem(rng: np.random.Generator) -> tuple[list[int], list[Pair], dict[int, int], list[tuple[int, ...]]]:
    """Up to four buffers in a row of steps; neighbours slide, some in either direction, some at single differences."""
    count = int(rng.integers(2, NODES))
    sizes = [int(n) for n in rng.integers(1, 6, count)]
    spans = sorted((int(s), int(s + rng.integers(0, 3))) for s in rng.integers(0, 3, count))
    pairs: list[Pair] = []
    modes: dict[int, int] = {}
    for u in range(count):
        for v in range(u + 1, count):
            if spans[u][1] < spans[v][0]:
                continue
            kind = int(rng.integers(0, 4))
            alternatives = list(disjoint(sizes, u, v).alternatives)
            if kind == 1:
                alternatives[0] = Alternative(None, int(rng.integers(-sizes[v], 1)))
            elif kind == 2:
                kernel = int(rng.integers(0, 2))
                modes[kernel] = 2
                forward = [Alternative(None, int(rng.integers(-sizes[v], 1)), ((kernel, 0),))]
                forward.append(Alternative(sizes[u], None, ((kernel, 0),)))
                backward = [Alternative(None, -sizes[v], ((kernel, 1),))]
                backward.append(Alternative(int(rng.integers(0, sizes[u] + 1)), None, ((kernel, 1),)))
                alternatives = forward + backward
            elif kind == 3:
                hole = int(rng.integers(-sizes[v], sizes[u] + 1))
                alternatives.append(Alternative(hole, hole))
            pairs.append(Pair(u, v, tuple(alternatives)))
    live = sorted({tuple(n for n, (a, b) in enumerate(spans) if a <= step <= b) for step in range(5)} - {()})
    return sizes, pairs, modes, live


@pytest.mark.parametrize("seed", range(150))
def test_equals_brute_force(seed: int):
    sizes, pairs, modes, live = random_problem(np.random.default_rng(seed))
    found = plan(sizes, pairs, live)
    assert valid(sizes, pairs, found.offsets, found.modes)
    assert found.size == max(o + n for o, n in zip(found.offsets, sizes, strict=True))
    assert found.size == brute_force(sizes, pairs, modes, sum(sizes))
    assert found.reached


@pytest.mark.parametrize("seed", range(150))
def test_bound_is_no_more_than_the_optimum(seed: int):
    sizes, pairs, modes, live = random_problem(np.random.default_rng(seed))
    assert lower_bound(sizes, pairs, live) <= brute_force(sizes, pairs, modes, sum(sizes))


@pytest.mark.parametrize("seed", range(50))
def test_first_fit_is_valid(seed: int):
    sizes, pairs, _, _ = random_problem(np.random.default_rng(seed))
    assert valid(sizes, pairs, first_fit(sizes, pairs, range(len(sizes))), {})


def test_no_kernel_turns_without_need():
    """Three buffers in a row of which the first is so large that both kernels may run forwards."""
    sizes = [20, 5, 5]
    pairs = []
    for kernel in (0, 1):
        alternatives = [Alternative(None, -1, ((kernel, 0),)), Alternative(sizes[kernel], None, ((kernel, 0),))]
        alternatives += [Alternative(None, -5, ((kernel, 1),)), Alternative(16, None, ((kernel, 1),))]
        pairs.append(Pair(kernel, kernel + 1, tuple(alternatives)))
    found = plan(sizes, pairs, [(0, 1), (1, 2)])
    assert (found.size, dict(found.modes)) == (21, {})


def test_alternating_directions_reach_the_largest_pair():
    """Equal buffers in a chain, each sliding by 2: forwards alone drifts, alternating needs one step only."""
    sizes = [10] * 6
    pairs = []
    for k in range(5):
        forwards = (Alternative(None, -2, ((k, 0),)), Alternative(10, None, ((k, 0),)))
        backwards = (Alternative(None, -10, ((k, 1),)), Alternative(2, None, ((k, 1),)))
        pairs.append(Pair(k, k + 1, forwards + backwards))
    live = [(k, k + 1) for k in range(5)]
    found = plan(sizes, pairs, live)
    assert (found.size, found.bound, len(found.modes)) == (12, 12, 2)
    grouped = plan(sizes, together(pairs, [0] * 5), live)
    assert grouped.size == 20


def test_search_that_gives_up_still_returns_a_valid_plan_and_an_honest_bound():
    rng = np.random.default_rng(3)
    sizes = [int(n) for n in rng.integers(5, 40, 14)]
    spans = sorted((int(s), int(s + rng.integers(1, 6))) for s in rng.integers(0, 8, len(sizes)))
    neighbours = [(u, v) for u in range(14) for v in range(u + 1, 14) if spans[u][1] >= spans[v][0]]
    pairs = [Pair(u, v, (Alternative(None, 1 - sizes[v]), Alternative(sizes[u] - 1, None))) for u, v in neighbours]
    live = [tuple(n for n, (a, b) in enumerate(spans) if a <= step <= b) for step in range(14)]
    hasty, patient = plan(sizes, pairs, live, limit=5), plan(sizes, pairs, live, limit=20_000)
    for found in (hasty, patient):
        assert valid(sizes, pairs, found.offsets, found.modes)
        assert found.bound <= patient.size <= hasty.size
    assert not hasty.reached


def test_buffers_that_share_nothing_need_no_search():
    """Ten buffers alive together, of which two may share three words: their orders are not gone through."""
    sizes = list(range(10, 20))
    pairs = [disjoint(sizes, u, v) for u in range(10) for v in range(u + 1, 10)]
    pairs[0] = Pair(0, 1, (Alternative(None, -8), Alternative(10, None)))
    assert without_rigid(sizes, pairs, range(10)) == ([0, 1], sum(sizes[2:]))
    found = plan(sizes, pairs, [tuple(range(10))], limit=100)
    assert valid(sizes, pairs, found.offsets, found.modes)
    assert (found.size, found.bound) == (sum(sizes) - 3, sum(sizes) - 3)


@pytest.mark.parametrize("seed", range(20))
def test_what_two_buffers_share(seed: int):
    """Against all differences that an alternative allows."""
    rng = np.random.default_rng(seed)
    first, second = (int(n) for n in rng.integers(1, 9, 2))
    low = int(rng.integers(-12, 12))
    high = low + int(rng.integers(0, 5))
    every = range(-40, 41)
    for alternative in (
        Alternative(low, high),
        Alternative(low, None),
        Alternative(None, high),
        Alternative(None, None),
    ):
        most = max(max(0, min(first, d + second) - max(0, d)) for d in every if alternative.allows(d))
        assert most_shared(alternative, first, second) == most
