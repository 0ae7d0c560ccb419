"""How far a converted model's output is from the original's."""

from __future__ import annotations

import numpy as np


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest finite element; NaN and infinities must be the same, as where 0 is divided by 0."""
    found, expected = np.ravel(found).astype(np.float64), np.ravel(expected).astype(np.float64)
    scale = max(float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)), 1e-6)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return float(np.abs(found[~same] - expected[~same]).max(initial=0.0)) / scale
