"""How far rounding alone may carry a result from its exact value: where sums cancel, further than a share of the rest.

Estimated by what the result does when its inputs change in their last bit. Only asked for where a comparison fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LAST_BIT = 2.0**-23
"""Of a float32, relative to it."""
DRAWS = 4
FACTOR = 16.0
"""A sum of n terms is rounded n times, its inputs here once: up to some hundred terms."""

Arrays = Sequence[np.ndarray]


def rounding(evaluate: Callable[[Arrays], np.ndarray], inputs: Arrays) -> np.ndarray:
    """What each element of the result may be off by; `evaluate` computes it from the inputs."""
    rng, exact = np.random.default_rng(1), evaluate(inputs)
    largest = np.zeros(exact.shape)
    with np.errstate(invalid="ignore"):
        for _ in range(DRAWS):
            moved = [(x * (1 + LAST_BIT * rng.choice((-1.0, 1.0), x.shape))).astype(np.float32) for x in inputs]
            largest = np.fmax(largest, np.abs(evaluate(moved).astype(np.float64) - exact))
    return FACTOR * largest
