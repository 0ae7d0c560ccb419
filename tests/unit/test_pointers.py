"""Pointers of a block: every access within reach of its pointer, and no more moves than needed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ml4f.backend.loop.addressing import MAX_POINTERS, Item, PointerPlan, plan_pointers

REACH = 1020


def check(items: Sequence[Item], plan: PointerPlan) -> None:
    """Each item finds its pointer where it can use it; segments of one pointer follow each other."""
    plan.settle(0, None)
    assert len(plan.served) == len(items)
    latest: dict[int, int] = {}
    for item, (number, drift) in zip(items, plan.served, strict=True):
        segment = plan.segments[number]
        assert item.low <= segment.start + drift <= item.high
        assert latest.get(segment.pointer, 0) <= number
        latest[segment.pointer] = number
    assert {s.pointer for s in plan.segments} == set(range(plan.pointers))
    assert plan.pointers <= MAX_POINTERS


def fewest_moves(rows: Sequence[int], pointers: int) -> int:
    """By trying every pointer at every move: `rows` are out of each other's reach."""
    states = {frozenset[int](): 0}
    for row in rows:
        following: dict[frozenset[int], int] = {}
        for held, moves in states.items():
            if row in held:
                options = [(held, moves)]
            elif len(held) < pointers:
                options = [(held | {row}, moves)]
            else:
                options = [(held - {old} | {row}, moves + 1) for old in held]
            for state, cost in options:
                following[state] = min(cost, following.get(state, cost))
        states = following
    return min(states.values())


@pytest.mark.parametrize("seed", range(20))
def test_no_plan_of_four_pointers_moves_less(seed: int):
    rng = random.Random(seed)
    rows = [rng.randrange(7) for _ in range(30)]
    offsets = [5000 * row + rng.randrange(0, 1000, 4) for row in rows]
    items = [Item(offset - REACH, offset + REACH) for offset in offsets]
    plan = plan_pointers(items)
    check(items, plan)
    assert plan.pointers == MAX_POINTERS
    assert len(plan.segments) - plan.pointers == fewest_moves(rows, MAX_POINTERS)


@pytest.mark.parametrize("seed", range(20))
def test_plans_of_any_accesses_are_right(seed: int):
    rng = random.Random(seed)
    offsets = [rng.randrange(0, 12000, 4) for _ in range(40)]
    items = [Item(o, o, 16) if rng.random() < 0.2 else Item(o - REACH, o + REACH) for o in offsets]
    check(items, plan_pointers(items))
