"""Steps that work on bit patterns, and kernels that never compute with floats: values can stay in core registers."""

from __future__ import annotations

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.backend.loop.nest import NEUTRAL, Nest, Step


def limits_of(step: Step) -> tuple[float, float] | None:
    """The range around 0 to which a step limits values at its end; (0, infinity) is a relu."""
    return ACTIVATIONS[step.name].limits(*step.parameters) if step.kind == "activation" else None


def is_limit(step: Step) -> bool:
    """Whether a step does nothing but to limit values to a range around 0."""
    return limits_of(step) is not None and ACTIVATIONS[step.name].inner is None


def removes_negatives(step: Step) -> bool:
    """Whether a step makes 0 of negative numbers and keeps the order of others."""
    limits = limits_of(step)
    return limits is not None and is_limit(step) and limits[0] == 0


def ends_in_core(nest: Nest) -> bool:
    """Whether results are bit patterns or integers in core registers, which single stores write."""
    return any(limits_of(step) is not None or step.name == "to_int32" for step in nest.epilogue[-1:])


def keeps_bits(nest: Nest) -> bool:
    """Whether the kernel never computes with floats, so that values can stay in core registers."""
    steps = [s for s in nest.epilogue if not (s.kind == "activation" and s.name == "linear")]
    neutral = nest.initial == 0.0 or (nest.combine == "max" and nest.initial == NEUTRAL["max"])  # both are bits of 0
    if not neutral or not all(is_limit(s) or s.kind == "pool_max" for s in steps):
        return False
    if nest.combine == "max":
        # Bit patterns order as integers but for negative numbers, all of which a relu makes 0.
        return nest.nonnegative or any(removes_negatives(s) for s in steps)
    pools = any(s.kind == "pool_max" for s in steps)
    return nest.combine == "copy" and (not pools or nest.nonnegative or removes_negatives(steps[-1]))
