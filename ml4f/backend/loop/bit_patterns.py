"""Which kernels never compute with floats, so that their values can stay in core registers as bit patterns."""

from __future__ import annotations

from ml4f.backend.loop.nest import Nest, Step


def is_relu(step: Step) -> bool:
    return step.kind == "activation" and step.name == "relu"


def keeps_bits(nest: Nest) -> bool:
    """Whether the kernel never computes with floats, so that values can stay in core registers."""
    steps = [s for s in nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
    if nest.initial not in (0.0, float("-inf")) or not all(is_relu(s) or s.kind == "pool_max" for s in steps):
        return False
    if nest.combine == "max":
        # Bit patterns order as integers but for negative numbers, all of which a relu makes 0.
        return nest.nonnegative or any(is_relu(s) for s in steps)
    pools = any(s.kind == "pool_max" for s in steps)
    return nest.combine == "copy" and (not pools or nest.nonnegative or is_relu(steps[-1]))
