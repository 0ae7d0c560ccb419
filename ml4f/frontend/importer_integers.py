"""Arithmetic on computed integers, where a bound shows that float32 holds the results: `integer_result`.

Counts of masks, numbers of elements (of ArgMax, TopK, MaxPool) and what is made of them have bounds; inputs of the
model and casts of floats have none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_types import EXACT, MOVES, VALUES
from ml4f.frontend.importer_values import NotSupported

ARITHMETIC = ("Add", "Clip", "CumSum", "Div", "Mod", "Mul", "ReduceSum", "Sub", "Sum")
"""Operators on integers whose results have bounds if their inputs have."""
KEEPING = {*MOVES, "Abs", "Cast", "Gather", "GatherElements", "Neg", "ReduceMax", "ReduceMin", "Unsqueeze"}
"""Operators that make no number larger."""
HUGE = 2.0**114
"""Divisors from which on the splitting may overflow: the rest is the dividend, or lacks a divisor."""
SPLIT = 4097.0
"""2^12 + 1: by which a float32 is split into halves of 12 bits, whose products are exact (Veltkamp 1968)."""


def bound_of(importer: Importer, name: str) -> float | None:
    """What no element of a tensor of integers, or of a mask, is larger than in magnitude."""
    constant = importer.const(name)
    if constant is not None:
        return float(np.max(np.abs(constant.astype(np.float64)), initial=0)) if constant.dtype.kind in "iub" else None
    return 1.0 if name in importer.masks else importer.bounds.get(name)


def result_bound(importer: Importer, node: Node) -> float | None:
    """The bound of a node's integer results, if it is known."""
    names, kind = list(node.proto.input), node.op_type
    bounds = [bound_of(importer, name) for name in names if name]
    first = bounds[0] if bounds else None
    if kind in VALUES or kind in ("Max", "Min", "Clip"):
        values = bounds[1:] if kind == "Where" else bounds
        return None if None in values else max(v for v in values if v is not None)
    if kind in KEEPING:
        return first
    if kind in ("ReduceSum", "CumSum"):
        return None if first is None else first * prod(importer.shape(names[0]))
    if None in bounds:
        return None
    known = [bound for bound in bounds if bound is not None]
    if kind == "Mul":
        return prod(known)
    if kind in ("Add", "Sub", "Sum"):
        return sum(known)
    return {"Div": known[0], "Mod": known[-1]}.get(kind)


def integer_arithmetic(importer: Importer, node: Node) -> Callable[[Importer, Node], None] | None:
    """What emits an operator on integers other than for floats; None if that is the same.

    Raises NotSupported where the numbers may be too large for float32.
    """
    bound = result_bound(importer, node) if node.op_type in ARITHMETIC else None
    if bound is None or bound > EXACT:
        raise NotSupported(
            "it computes with integers; cast them to float before, leave them to the program, or, where they come "
            "from an input that never changes, fix that with --input-value NAME=V"
        )
    return integer_division if node.op_type == "Div" else None


def integer_division(importer: Importer, node: Node) -> None:
    """Div of integers by constants: the whole part of the quotient, which float32's rounding does not cross."""
    divisor = importer.const(node.proto.input[1])
    if divisor is None or not np.all(divisor):
        raise NotSupported("the divisor of integers must be a constant, and not zero")
    steps = Steps(importer, node)
    quotient = steps.binary(nn.DivOp, node.proto.input[0], steps.constant(divisor))
    size = steps.activation("floor", steps.activation("abs", quotient))
    steps.binary(nn.MulOp, size, steps.activation("sign", quotient), node.proto.output[0])


def modulo(importer: Importer, node: Node) -> None:
    """Mod: the rest of a division that is rounded down, or towards zero (fmod).

    Exact where the quotient is below 2^12, or the numbers are whole; beyond that as exact as x is.
    """
    (x, y), output, steps = node.proto.input, node.proto.output[0], Steps(importer, node)
    if not node.get("fmod", 0):
        _rest(steps, x, y, output)
        return
    size = _rest(steps, steps.activation("abs", x), steps.activation("abs", y), None)
    steps.binary(nn.MulOp, size, steps.activation("sign", x), output)


def _rest(steps: Steps, x: str, y: str, output: str | None) -> str:
    """x - y * floor(x / y), with the sign of y."""
    divisor = steps.importer.const(y)
    if divisor is not None and np.all(np.abs(divisor) < HUGE):
        return _small_rest(steps, x, y, output)
    huge = steps.activation("step", steps.binary(nn.SubOp, steps.activation("abs", y), HUGE))
    opposite = steps.activation("step", steps.activation("neg", steps.binary(nn.MulOp, x, y)))
    finite = steps.binary(nn.AddOp, x, steps.binary(nn.MulOp, x, 0.0))  # of an infinite x there is no rest
    large = steps.binary(nn.AddOp, finite, steps.binary(nn.WhereOp, y, opposite))
    small = _small_rest(steps, x, y, None)
    usual = steps.binary(nn.SubOp, steps.constant(1.0), huge)
    parts = [steps.binary(nn.WhereOp, value, mask) for value, mask in ((large, huge), (small, usual))]
    return steps.binary(nn.AddOp, parts[0], parts[1], output)


def _small_rest(steps: Steps, x: str, y: str, output: str | None) -> str:
    quotient = steps.activation("floor", steps.binary(nn.DivOp, x, y))
    large = steps.binary(nn.MulOp, y, SPLIT)
    high = steps.binary(nn.SubOp, large, steps.binary(nn.SubOp, large, y))
    rest = x
    for part in (high, steps.binary(nn.SubOp, y, high)):
        rest = steps.binary(nn.SubOp, rest, steps.binary(nn.MulOp, quotient, part))
    # rounding may have made the quotient one too large or too small: the rest is then below 0, or at least y
    within = steps.activation("step", steps.binary(nn.MulOp, steps.binary(nn.SubOp, y, rest), y))
    below = steps.activation("step", steps.activation("neg", steps.binary(nn.MulOp, rest, y)))
    turns = steps.binary(nn.SubOp, steps.binary(nn.AddOp, within, below), 1.0)
    return steps.binary(nn.AddOp, rest, steps.binary(nn.MulOp, turns, y), output)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"Mod": modulo}
"""ONNX operator → the function that emits it."""
