"""Chooses a schedule: prices the candidates and takes the fastest, or the smallest of those that are nearly as fast."""

from __future__ import annotations

from functools import lru_cache

from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.loop.pricing import Price, price
from ml4f.backend.loop.schedules import candidates, default_schedule

TOLERANCE = 1.01
"""A candidate that costs at most 1 % more cycles than the best may win by its size."""


@lru_cache(maxsize=256)
def choose_schedule(nest: Nest, tolerance: float = TOLERANCE) -> tuple[Schedule, Price]:
    """The best schedule and its price. Deterministic."""
    priced: list[tuple[Price, Schedule]] = []
    seen: set[Schedule] = set()
    for schedule in candidates(nest):
        if schedule in seen:
            continue
        seen.add(schedule)
        result = price(nest, schedule)
        if result is not None and result.feasible:
            priced.append((result, schedule))
    if not priced:
        schedule = default_schedule(nest)
        result = price(nest, schedule)
        if result is None:
            raise ValueError("the default schedule does not fit the nest")
        return schedule, result
    limit = min(p.cycles for p, _ in priced) * tolerance
    good = [(p.code_bytes, p.cycles, i) for i, (p, _) in enumerate(priced) if p.cycles <= limit]
    best = min(good)[2]
    return priced[best][1], priced[best][0]
