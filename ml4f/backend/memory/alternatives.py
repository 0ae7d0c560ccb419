"""What a plan has to choose for two buffers that exclude each other: plain data of the planner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf

Modes = tuple[tuple[int, int], ...]
"""((kernel, mode), …)."""


@dataclass(frozen=True)
class Alternative:
    """`low <= offset(second) - offset(first) <= high`, None: unbounded; only while the kernels run in these modes."""

    low: int | None
    high: int | None
    modes: Modes = ()

    def allows(self, difference: int) -> bool:
        return (self.low is None or self.low <= difference) and (self.high is None or difference <= self.high)

    def applies(self, chosen: Mapping[int, int]) -> bool:
        """Whether the kernels run in its modes, 0 where nothing is chosen."""
        return all(chosen.get(kernel, 0) == mode for kernel, mode in self.modes)


@dataclass(frozen=True)
class Pair:
    """Two buffers of which at least one alternative must hold; any alternative must do while others' modes apply.

    In all modes some alternatives allow the buffers to lie side by side, either of them below.
    """

    first: int
    second: int
    alternatives: tuple[Alternative, ...]

    @cached_property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        """The differences that are allowed while all kernels run in mode 0."""
        plain = [a for a in self.alternatives if a.applies({})]
        return tuple((-inf if a.low is None else a.low, inf if a.high is None else a.high) for a in plain)

    def kernels(self) -> set[int]:
        return {kernel for alternative in self.alternatives for kernel, _ in alternative.modes}
