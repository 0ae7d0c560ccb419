"""nn-recognize-activations: operations that exporters write for one activation function become that function."""

from __future__ import annotations

import math

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from ml4f.dialects.nn import ActAttr, layer_names, named_location, shape_of
from ml4f.dialects.nn import ops as nn
from ml4f.passes.nn_rewriting import const_array, main_block, new_const, producer, substitute, use_count

TOLERANCE = 1e-6
"""Relative, of constants such as the square root of 2 that a file holds as float32."""


def function_of(value: SSAValue, name: str) -> nn.ActivationOp | None:
    """The activation `name` that computes a value."""
    op = producer(value)
    return op if isinstance(op, nn.ActivationOp) and op.act.function == name else None


def scalar(value: SSAValue) -> float | None:
    """The number that a constant holds everywhere."""
    array = const_array(value)
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    return float(array.flat[0])


def close(number: float | None, wanted: float) -> bool:
    """Equal but for rounding."""
    return number is not None and abs(number - wanted) <= TOLERANCE * abs(wanted)


def scaled(value: SSAValue) -> tuple[SSAValue, float]:
    """(x, factor) of a value that is x times, or divided by, one number."""
    op = producer(value)
    if isinstance(op, nn.MulOp | nn.DivOp) and op.act is None:
        right, left = scalar(op.b), scalar(op.a)
        if right and shape_of(op.a) == shape_of(value):
            return op.a, right if isinstance(op, nn.MulOp) else 1 / right
        if left and isinstance(op, nn.MulOp) and shape_of(op.b) == shape_of(value):
            return op.b, left
    return value, 1.0


def factors(value: SSAValue, depth: int = 3) -> tuple[list[SSAValue], float]:
    """The tensors whose product a value is, and a number in front."""
    x, number = scaled(value)
    if x is not value:
        inner, other = factors(x, depth - 1) if depth else ([x], 1.0)
        return inner, number * other
    op = producer(value)
    if depth and isinstance(op, nn.MulOp) and op.act is None and shape_of(op.a) == shape_of(op.b):
        left, right = factors(op.a, depth - 1), factors(op.b, depth - 1)
        return [*left[0], *right[0]], left[1] * right[1]
    return [value], 1.0


def without_one(value: SSAValue) -> SSAValue | None:
    """x of a value that is x + 1."""
    op = producer(value)
    if not isinstance(op, nn.AddOp) or op.act is not None:
        return None
    for x, other in ((op.a, op.b), (op.b, op.a)):
        if scalar(other) == 1.0 and shape_of(x) == shape_of(value):
            return x
    return None


def gated(op: nn.MulOp) -> tuple[SSAValue, ActAttr] | None:
    """(x, activation) of a tensor times a function of it."""
    found, number = factors(op.y)
    if len(found) != 2:
        return None
    for x, gate in (found, found[::-1]):
        if number == 1.0:
            name = plain_gate(x, gate)
        else:
            name = half_gate(x, gate) if close(number, 0.5) else None
        if name is not None:
            return x, ActAttr.of(name)
    return None


def plain_gate(x: SSAValue, gate: SSAValue) -> str | None:
    """The activation x * gate: silu, hard_swish or mish."""
    sigmoid, hard, tanh = (function_of(gate, name) for name in ("sigmoid", "hard_sigmoid", "tanh"))
    if sigmoid is not None and sigmoid.x is x:
        return "silu"
    if hard is not None and hard.x is x and close(hard.act.parameter_values[0], 1 / 6):
        return "hard_swish" if hard.act.parameter_values[1] == 0.5 else None
    softplus = function_of(tanh.x, "softplus") if tanh is not None else None
    return "mish" if softplus is not None and softplus.x is x else None


def half_gate(x: SSAValue, gate: SSAValue) -> str | None:
    """The activation 0.5 * x * gate: gelu, by the error function or by tanh."""
    inner = without_one(gate)
    if inner is None:
        return None
    error, tanh = function_of(inner, "erf"), function_of(inner, "tanh")
    if error is not None:
        base, factor = scaled(error.x)
        return "gelu" if base is x and close(factor, math.sqrt(0.5)) else None
    if tanh is None:
        return None
    total, factor = scaled(tanh.x)
    added = producer(total)
    if not close(factor, math.sqrt(2 / math.pi)) or not isinstance(added, nn.AddOp) or added.act is not None:
        return None
    for left, right in ((added.a, added.b), (added.b, added.a)):
        cube, factor = factors(right)
        if left is x and close(factor, GELU_CUBIC) and is_cube(x, cube):
            return "gelu_tanh"
    return None


GELU_CUBIC = 0.044715
"""Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016."""


def is_cube(x: SSAValue, found: list[SSAValue]) -> bool:
    """Whether factors are x three times."""
    power = 0
    for value in found:
        square = function_of(value, "square")
        if value is x:
            power += 1
        elif square is not None and square.x is x:
            power += 2
        else:
            return False
    return power == 3


def prelu(op: nn.AddOp | nn.SubOp) -> tuple[SSAValue, np.ndarray] | None:
    """(x, slope) of relu(x) + factor * relu(-x): the slope is the negated factor."""
    sign = 1.0 if isinstance(op, nn.SubOp) else -1.0
    sides = ((op.a, op.b),) if isinstance(op, nn.SubOp) else ((op.a, op.b), (op.b, op.a))
    for positive, negative in sides:
        above, product = function_of(positive, "relu"), producer(negative)
        if above is None or not isinstance(product, nn.MulOp) or product.act is not None:
            continue
        for part, factor in ((product.a, product.b), (product.b, product.a)):
            below, slope = function_of(part, "relu"), const_array(factor)
            negated = function_of(below.x, "neg") if below is not None else None
            if negated is None or slope is None or negated.x is not above.x:
                continue
            if shape_of(op.y) == shape_of(above.x) and slope.ndim <= len(shape_of(op.y)):
                return above.x, sign * slope
    return None


def rewrite(op: Operation) -> bool:
    """Replace one operation, if it is the last of such a group."""
    new: Operation | None = None
    if isinstance(op, nn.MulOp) and op.act is None:
        gate = gated(op)
        if gate is not None:
            x, act = gate
            new = nn.ActivationOp.create(operands=[x], result_types=[op.y.type], properties={"act": act})
    elif isinstance(op, nn.AddOp | nn.SubOp) and op.act is None:
        found = prelu(op)
        if found is not None:
            slope = new_const(op, found[1])
            new = nn.PreluOp.create(operands=[found[0], slope], result_types=[op.y.type])
    if new is None:
        return False
    operands = list(op.operands)
    names = layer_names(op)
    substitute(op, new)
    if names:
        new.location = named_location(*names)
    for operand in operands:
        erase_unused(operand)
    return True


def erase_unused(value: SSAValue) -> None:
    """Remove an operation that nobody reads any more, and so what it alone read."""
    op = producer(value)
    if op is None or use_count(value) or not isinstance(op, nn.NnOp | nn.ConstOp):
        return
    operands = list(op.operands)
    op.detach()
    op.erase()
    for operand in operands:
        erase_unused(operand)


class NnRecognizeActivationsPass(ModulePass):
    """Finds silu, hard_swish, mish, gelu and prelu that are spelled out.

        %1 = nn.activation %0 {act = #nn.act<"sigmoid">}
        %2 = nn.mul %0, %1
    becomes
        %2 = nn.activation %0 {act = #nn.act<"silu">}
    """

    name = "nn-recognize-activations"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        for inner in list(block.ops) if block is not None else ():
            if inner.parent is not None:
                rewrite(inner)
