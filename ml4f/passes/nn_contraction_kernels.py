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
    """One plain convolution for each remainder of row and column by the strides; each writes its part of the output.

    Where every input makes a block of its own, there is one convolution with the pixels of a block as its filters.
    """
    weights = const_array(op.operands[1])
    if weights is None:
        raise InternalError("nn.conv_transpose2d needs constant weights")
    shape, act = shape_of(op.results[0]), activation_of(op)
    out = c.buffer(elements(shape), layer_of(op) + "_out", act is not None and act.name in NON_NEGATIVE)
    c.places[op.results[0]] = out
    cheap = act is None or act.name in CHEAP_ACTIVATIONS
    epilogue = [act] if act is not None and cheap and act.name != "linear" else []
    convert = _blocks if _makes_blocks(op) else _phases
    convert(c, op, weights, epilogue, final=cheap)
    if not cheap:
        assert act is not None
        elementwise = kernels.elementwise([elements(shape)], [1], epilogue=[act])
        c.kernel(op, elementwise, {"x": out, "out": out}, "_" + act.name)


def _groups(op: Operation) -> int:
    groups = op.properties["groups"]
    assert isinstance(groups, IntegerAttr)
    return groups.value.data


def _makes_blocks(op: Operation) -> bool:
    """Whether a transposed convolution's windows lie side by side and cover the output; its bias is a constant."""
    strides, dilations, pads = (integers(op.properties[name]) for name in ("strides", "dilations", "pads"))
    sizes, outputs = shape_of(op.operands[0])[:2], shape_of(op.results[0])[:2]
    covers = all(n * stride == m for n, stride, m in zip(sizes, strides, outputs, strict=True))
    apart = shape_of(op.operands[1])[:2] == strides and dilations == (1, 1) and not any(pads[:2])
    return covers and apart and _groups(op) == 1 and all(const_array(bias) is not None for bias in op.operands[2:])


def _blocks(c: Converter, op: Operation, weights: np.ndarray, epilogue: Sequence[Step], final: bool) -> None:
    """One convolution for all windows."""
    biases = const_array(op.operands[2]) if len(op.operands) > 2 else None
    places = {"x": c.place(op.operands[0]), "out": c.places[op.results[0]]}
    places["w"] = c.constant(weights.transpose(2, 0, 1, 3), f"{layer_of(op)}_taps")
    if biases is not None:
        places["bias"] = c.constant(np.tile(biases, weights.shape[1]), f"{layer_of(op)}_bias")
    nest = _block_nest(shape_of(op.operands[0]), weights.shape, biases is not None, epilogue)
    c.kernel(op, nest, places, final=final)


def _phases(c: Converter, op: Operation, weights: np.ndarray, epilogue: Sequence[Step], final: bool) -> None:
    """One convolution for each phase; `final`: the last of them makes the op's result."""
    x, out = op.operands[0], c.places[op.results[0]]
    bias = c.place(op.operands[2]) if len(op.operands) > 2 else None
    strides, dilations, pads = (integers(op.properties[name]) for name in ("strides", "dilations", "pads"))
    shape, size = shape_of(op.results[0]), shape_of(x)
    remainders = list(product(range(min(strides[0], shape[0])), range(min(strides[1], shape[1]))))
    for index, remainder in enumerate(remainders):
        places: dict[str, Place] = {"x": c.place(x), "out": out}
        rows, columns = (
            phase(strides[i], dilations[i], weights.shape[i], pads[i], shape[i], remainder[i]) for i in (0, 1)
        )
        taps = weights[np.ix_(rows[1], columns[1])]
        out_map = _interleaved(shape, strides, remainder)
        last = index == len(remainders) - 1 and final
        if not taps.size:
            nest = _bias_alone((rows[0], columns[0], shape[2]), out_map, bias is not None, epilogue)
            places["x"] = bias if bias is not None else c.constant(np.zeros(1, np.float32), layer_of(op) + "_zero")
        else:
            if bias is not None:
                places["bias"] = bias
            places["w"] = c.constant(taps, f"{layer_of(op)}_taps")
            nest = _phase_nest(size, taps.shape, (rows, columns), _groups(op), out_map, bias is not None, epilogue)
        c.kernel(op, nest, places, f"_{index}", final=last)


def _block_nest(size: Sequence[int], kernel: Sequence[int], bias: bool, epilogue: Sequence[Step]) -> Nest:
    """`size` [h, w, c] of the input, `kernel` [kh, kw, c, f], which are the strides too.

    Weights lie as [c, kh, kw, f] and biases as [kw, f], so that the pixels of a block's row are one with its filters.
    """
    (height, width, depth), (rows, columns, _, filters) = size, kernel
    row, line = columns * filters, width * columns * filters
    operands = [
        Operand("x", Linear.of(oy=width * depth, ox=depth, c=1)),
        Operand("w", Linear.of(c=rows * row, py=row, px=filters, f=1)),
    ]
    if bias:
        operands.append(Operand("bias", Linear.of(px=filters, f=1)))
    operands.append(Operand("out", Linear.of(oy=rows * line, ox=row, py=line, px=filters, f=1)))
    return simplify(
        Nest(
            parallel=(("oy", height), ("ox", width), ("py", rows), ("px", columns), ("f", filters)),
            reduction=(("c", depth),),
            combine="mac",
            operands=tuple(operands),
            epilogue=tuple(epilogue),
        )
    )


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
