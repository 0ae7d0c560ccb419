"""Differential execution: runs a module before the first pass and after every pass, and names the first wrong pass."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ml4f.errors import ValidationError
from ml4f.interpreters.execute import level, random_inputs, run_module

TOLERANCE = 1e-4
"""Relative to the largest magnitude of the result: passes may reassociate sums."""


class DifferentialRun:
    """A pass pipeline's callback. At thumb level results must equal those of the level before bit for bit."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.inputs: list[np.ndarray] | None = None
        self.first: list[np.ndarray] = []
        self.last: list[np.ndarray] = []
        self.last_level = ""

    def __call__(self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
        if self.inputs is None:
            self.inputs = random_inputs(module, self.seed)
            self.first = self.last = run_module(module, self.inputs)
            self.last_level = level(module)
            return
        results = run_module(module, self.inputs)
        here = level(module)
        name = previous.name if previous is not None else "parsing"
        for index, (result, first, last) in enumerate(zip(results, self.first, self.last, strict=True)):
            if here == "thumb":
                wrong = result.view(np.uint32) != last.view(np.uint32)
                wrong &= ~(np.isnan(result) & np.isnan(last))
                what = "differs from the previous level's bits"
            else:
                wrong = ~close(result, first)
                what = "differs"
            if wrong.any():
                where = int(np.argmax(wrong))
                raise ValidationError(
                    f"{name}: output {index} {what} at element {where} of {result.size}: "
                    f"{result[where]!r}, should be {(last if here == 'thumb' else first)[where]!r}"
                )
        self.last, self.last_level = results, here


def close(result: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Elementwise: equal within `tolerance` times the largest finite magnitude of the expected result, NaN where NaN is."""
    finite = np.isfinite(expected)
    scale = float(np.max(np.abs(expected[finite]), initial=0.0))
    near = np.abs(result.astype(np.float64) - expected.astype(np.float64)) <= tolerance * max(scale, 1e-30)
    return np.where(finite, near, (result == expected) | (np.isnan(result) & np.isnan(expected)))
