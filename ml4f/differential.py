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
    """A pass pipeline's callback: executes the module before the first pass and after each one, on the same inputs.

    At nn and loop level the result must stay near that of the first run; at thumb level it must equal that of the run
    before bit for bit. A ValidationError names the first pass behind which it does not, or nothing can be executed.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.inputs: list[np.ndarray] = []
        self.first: list[np.ndarray] = []
        self.last: list[np.ndarray] = []

    def __call__(self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
        if previous is None:
            self.inputs = random_inputs(module, self.seed)
            self.first = self.last = run_module(module, self.inputs)
            return
        try:
            results = run_module(module, self.inputs)
        except Exception as error:
            raise ValidationError(f"after {previous.name} the module cannot be executed: {error}") from error
        if len(results) != len(self.first):
            raise ValidationError(f"{previous.name}: {len(results)} outputs, should be {len(self.first)}")
        exact = level(module) == "thumb"
        for index, (result, first, last) in enumerate(zip(results, self.first, self.last, strict=True)):
            expected = last if exact else first
            if result.shape != expected.shape:
                raise ValidationError(
                    f"{previous.name}: output {index} has {result.size} elements, should have {expected.size}"
                )
            wrong = ~(same_bits(result, expected) if exact else close(result, expected))
            if wrong.any():
                where = int(np.argmax(wrong))
                raise ValidationError(
                    f"{previous.name}: output {index} differs at element {where} of {result.size}: "
                    f"{result[where]!r}, should be {expected[where]!r}{' to the bit' if exact else ''}"
                )
        self.last = results


def same_bits(result: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Elementwise: the same float32 bit pattern, or NaN and NaN."""
    return (result.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(result) & np.isnan(expected))


def close(result: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Elementwise: within `tolerance` times the largest finite magnitude of the expected result, NaN where NaN is."""
    finite = np.isfinite(expected)
    scale = float(np.max(np.abs(expected[finite]), initial=0.0))
    with np.errstate(invalid="ignore"):
        near = np.abs(result.astype(np.float64) - expected.astype(np.float64)) <= tolerance * max(scale, 1e-30)
    return np.where(finite, near, (result == expected) | (np.isnan(result) & np.isnan(expected)))
