"""Kernels of nn.matmul and nn.conv_transpose2d, for convert-nn-to-loop. No pass lives here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import gcd
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation

from ml4f.backend.loop import kernels
from ml4f.backend.loop.kernels import row_major
from ml4f.backend.loop.nest import Guard, Linear, Nest, Operand, Step
from ml4f.backend.loop.shapes import simplify
from ml4f.errors import InternalError
from ml4f.passes.convert_nn_to_loop import (
    CHEAP_ACTIVATIONS,
    NON_NEGATIVE,
    Converter,
    Place,
    activation_of,
    broadcast_strides,
    elements,
    integers,
    layer_of,
    shape_of,
    with_activation,
)
from ml4f.passes.nn_rewriting import const_array


def _matmul(c: Converter, op: Operation) -> None:
    """A product of two computed matrices, or of many pairs: like a convolution whose weights are not packed."""
    a, b = op.operands
    shape = shape_of(op.results[0])
    outer = [f"b{i}" for i in range(len(shape) - 2)]
    names = [("k", "m") if "transpose_a" in op.properties else ("m", "k")]
    names.append(("n", "k") if "transpose_b" in op.properties else ("k", "n"))
    strides: list[dict[str, int]] = []
    for value, (row, column) in zip((a, b), names, strict=True):
        own = shape_of(value)
        size = elements(own[-2:])
        batch = [stride * size for stride in broadcast_strides(own[:-2], shape[:-2])]
        strides.append(dict(zip([*outer, row, column], [*batch, own[-1], 1], strict=True)))
    extent = shape_of(a)[-2 if "transpose_a" in op.properties else -1]
    out = dict(zip([*outer, "m", "n"], row_major(shape), strict=True))

    def nest(steps: list[Step]) -> Nest:
        return simplify(
            Nest(
                parallel=tuple(zip([*outer, "m", "n"], shape, strict=True)),
                reduction=(("k", extent),),
                combine="mac",
                operands=(
                    Operand("x", Linear.of(**strides[0])),
                    Operand("v", Linear.of(**strides[1])),
                    Operand("out", Linear.of(**out)),
                ),
                epilogue=tuple(steps),
            )
        )

    with_activation(c, op, nest, {"x": c.place(a), "v": c.place(b)})


def phase(
    stride: int, dilation: int, kernel: int, low: int, extent: int, remainder: int
) -> tuple[int, list[int], int, int]:
    """The outputs `stride * q + remainder` of a transposed convolution along one axis, as a plain convolution.

    Returns how many there are, the kernel's taps in the order of the inputs that they read, the first input that output
    0 reads, and how far apart the inputs of neighbouring taps are. No taps: those outputs are the bias alone.
    """
    count = -(-(extent - remainder) // stride)
    taps = [k for k in range(kernel) if (remainder + low - k * dilation) % stride == 0][::-1]
    if not taps:
        return count, [], 0, 1
    return count, taps, (remainder + low - taps[0] * dilation) // stride, dilation // gcd(stride, dilation)


def _conv_transpose2d(c: Converter, op: Operation) -> None:
    """One plain convolution for each remainder of row and column by the strides; each writes its part of the output."""
    x, weights = op.operands[0], const_array(op.operands[1])
    bias = c.place(op.operands[2]) if len(op.operands) > 2 else None
    if weights is None:
        raise InternalError("nn.conv_transpose2d needs constant weights")
    strides, dilations, pads = (integers(op.properties[name]) for name in ("strides", "dilations", "pads"))
    shape, size = shape_of(op.results[0]), shape_of(x)
    act = activation_of(op)
    out = c.buffer(elements(shape), layer_of(op) + "_out", act is not None and act.name in NON_NEGATIVE)
    c.places[op.results[0]] = out
    cheap = act is None or act.name in CHEAP_ACTIVATIONS
    epilogue = [act] if act is not None and cheap and act.name != "linear" else []
    remainders = list(product(range(min(strides[0], shape[0])), range(min(strides[1], shape[1]))))
    for index, remainder in enumerate(remainders):
        places: dict[str, Place] = {"x": c.place(x), "out": out}
        rows, columns = (
            phase(strides[i], dilations[i], weights.shape[i], pads[i], shape[i], remainder[i]) for i in (0, 1)
        )
        taps = weights[np.ix_(rows[1], columns[1])]
        out_map = _interleaved(shape, strides, remainder)
        last = index == len(remainders) - 1 and cheap
        if not taps.size:
            nest = _bias_alone((rows[0], columns[0], shape[2]), out_map, bias is not None, epilogue)
            places["x"] = bias if bias is not None else c.constant(np.zeros(1, np.float32), layer_of(op) + "_zero")
        else:
            if bias is not None:
                places["bias"] = bias
            places["w"] = c.constant(taps, f"{layer_of(op)}_taps")
            groups = op.properties["groups"]
            assert isinstance(groups, IntegerAttr)
            nest = _phase_nest(
                size, taps.shape, (rows, columns), groups.value.data, out_map, bias is not None, epilogue
            )
        c.kernel(op, nest, places, f"_{index}", final=last)
    if not cheap:
        assert act is not None
        elementwise = kernels.elementwise([elements(shape)], [1], epilogue=[act])
        c.kernel(op, elementwise, {"x": out, "out": out}, "_" + act.name)


def _interleaved(shape: Sequence[int], strides: Sequence[int], remainder: Sequence[int]) -> Linear:
    """Where output (oy, ox, f) of one phase lies in the whole output."""
    row, column = shape[1] * shape[2], shape[2]
    return Linear.of(remainder[0] * row + remainder[1] * column, oy=strides[0] * row, ox=strides[1] * column, f=1)


def _bias_alone(shape: Sequence[int], out: Linear, bias: bool, epilogue: Sequence[Step]) -> Nest:
    return simplify(
        Nest(
            parallel=tuple(zip(("oy", "ox", "f"), shape, strict=True)),
            reduction=(),
            combine="copy",
            operands=(Operand("x", Linear.of(f=1 if bias else 0)), Operand("out", out)),
            epilogue=tuple(epilogue),
        )
    )


def _phase_nest(
    size: Sequence[int],
    taps: Sequence[int],
    phases: Sequence[tuple[int, list[int], int, int]],
    groups: int,
    out: Linear,
    bias: bool,
    epilogue: Sequence[Step],
) -> Nest:
    """`size` [h, w, c] of the input, `taps` [kh, kw, c, f / groups] of this phase."""
    height, width, depth = size
    (rows, _, top, down), (columns, _, left, right) = phases
    per_group, channels = taps[3], depth // groups
    y, x = Linear.of(top, oy=1, ky=down), Linear.of(left, ox=1, kx=right)
    access = Linear.of(
        (top * width + left) * depth,
        oy=width * depth,
        ox=depth,
        ky=down * width * depth,
        kx=right * depth,
        g=channels,
        c=1,
    )
    row = depth * per_group
    weights = Linear.of(ky=taps[1] * row, kx=row, g=channels * per_group, c=per_group, f=1)
    grouped = Linear.of(out.constant, **{**out.coefficients, "g": per_group})
    operands = [Operand("x", access), Operand("w", weights)]
    if bias:
        operands.append(Operand("bias", Linear.of(g=per_group, f=1)))
    return simplify(
        Nest(
            parallel=(("oy", rows), ("ox", columns), ("g", groups), ("f", per_group)),
            reduction=(("ky", taps[0]), ("kx", taps[1]), ("c", channels)),
            combine="mac",
            operands=(*operands, Operand("out", grouped)),
            guards=(Guard(y, height), Guard(x, width)),
            epilogue=tuple(epilogue),
        )
    )


CONVERSIONS: dict[str, Callable[[Converter, Any], None]] = {
    "nn.matmul": _matmul,
    "nn.conv_transpose2d": _conv_transpose2d,
}
