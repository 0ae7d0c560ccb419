"""Which words two buffers may share, and what follows for how small a set of buffers can be that are alive together."""

from __future__ import annotations

from collections.abc import Sequence

from ml4f.backend.memory.alternatives import Alternative, Pair


def most_shared(alternative: Alternative, first: int, second: int) -> int:
    """Words that two buffers of `first` and `second` words have in common at most."""
    low, high = min(0, first - second), max(0, first - second)
    difference = 0
    if alternative.low is not None and alternative.low > high:
        difference = alternative.low
    elif alternative.high is not None and alternative.high < low:
        difference = alternative.high
    return max(min(first, difference + second) - max(0, difference), 0)


def shared(pair: Pair, sizes: Sequence[int]) -> int:
    """Words that the buffers of a pair have in common at most."""
    return max(most_shared(a, sizes[pair.first], sizes[pair.second]) for a in pair.alternatives)


def pair_size(pair: Pair, sizes: Sequence[int]) -> int:
    """Words of the best plan of two buffers alone."""
    return sizes[pair.first] + sizes[pair.second] - shared(pair, sizes)


def without_rigid(sizes: Sequence[int], pairs: Sequence[Pair], members: Sequence[int]) -> tuple[list[int], int]:
    """The members that share words with another one, and the words of the others, which share none with any.

    The best plan of all members is that of the former and so many words more: from a plan of all, a rigid buffer can be
    taken out and what lies above it moved down, as buffers on both sides share nothing before and behind that.
    """
    others = {n: len(members) - 1 for n in members}
    for pair in pairs:
        if pair.first in others and pair.second in others and not shared(pair, sizes):
            others[pair.first] -= 1
            others[pair.second] -= 1
    return [n for n in members if others[n]], sum(sizes[n] for n in members if not others[n])
