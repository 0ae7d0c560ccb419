"""The nests of the network operators: pure functions from shapes to a `Nest`, no IR.

Tensors are row-major, channels last. Operand roles: see `Operand`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml4f.backend.loop.nest import NEUTRAL, Combine, Guard, Linear, Nest, Operand, Step
from ml4f.backend.loop.shapes import simplify


def row_major(shape: Sequence[int]) -> list[int]:
    """Element strides of a dense tensor."""
    strides, stride = [], 1
    for extent in reversed(shape):
        strides.append(stride)
        stride *= extent
    return strides[::-1]


def _window(
    shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    channels: dict[str, int],
) -> tuple[Linear, tuple[Guard, ...]]:
    """The input access of a sliding window over [H, W, C] (dims oy, ox, ky, kx and `channels`), and its guards."""
    height, width, depth = shape
    y = Linear.of(-pads[0], oy=strides[0], ky=dilations[0])
    x = Linear.of(-pads[1], ox=strides[1], kx=dilations[1])
    access = Linear.of(
        (y.constant * width + x.constant) * depth,
        oy=strides[0] * width * depth,
        ox=strides[1] * depth,
        ky=dilations[0] * width * depth,
        kx=dilations[1] * depth,
        **channels,
    )
    return access, (Guard(y, height), Guard(x, width))


def conv2d(
    shape: Sequence[int],
    kernel: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
    bias: bool,
    epilogue: Sequence[Step] = (),
) -> Nest:
    """`shape` [H, W, C], `kernel` [KH, KW, C/groups, F], `out` [OH, OW, F], `pads` [top, left, …]."""
    image, weights, result = (1, *shape), (1, *kernel), (1, *out)
    borders = (0, *pads[:2], 0, *pads[2:])
    return conv3d(image, weights, result, (1, *strides), (1, *dilations), borders, groups, bias, epilogue)


def conv3d(
    shape: Sequence[int],
    kernel: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
    bias: bool,
    epilogue: Sequence[Step] = (),
) -> Nest:
    """`shape` [D, H, W, C], `kernel` [KD, KH, KW, C/groups, F], `out` [OD, OH, OW, F], `pads` [front, top, left, …]."""
    depth, filters = kernel[3:]
    per_group, plane = filters // groups, shape[1] * shape[2] * shape[3]
    image, guards = _window(shape[1:], strides[1:], dilations[1:], pads[1:], {"g": depth, "c": 1})
    z = Linear.of(-pads[0], oz=strides[0], kz=dilations[0])
    access = Linear.of(
        image.constant + z.constant * plane, oz=strides[0] * plane, kz=dilations[0] * plane, **image.coefficients
    )
    taps, steps = row_major(kernel), row_major(out)
    weights = Linear.of(kz=taps[0], ky=taps[1], kx=taps[2], c=taps[3], g=per_group, f=1)
    operands = [Operand("x", access), Operand("w", weights)]
    if bias:
        operands.append(Operand("bias", Linear.of(g=per_group, f=1)))
    operands.append(Operand("out", Linear.of(oz=steps[0], oy=steps[1], ox=steps[2], g=per_group, f=1)))
    nest = Nest(
        parallel=(("oz", out[0]), ("oy", out[1]), ("ox", out[2]), ("g", groups), ("f", per_group)),
        reduction=(("kz", kernel[0]), ("ky", kernel[1]), ("kx", kernel[2]), ("c", depth)),
        combine="mac",
        operands=tuple(operands),
        guards=(Guard(z, shape[0]), *guards),
        epilogue=tuple(epilogue),
    )
    return simplify(nest)


def depthwise_conv2d(
    shape: Sequence[int],
    kernel: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    bias: bool,
    epilogue: Sequence[Step] = (),
) -> Nest:
    """`kernel` [KH, KW, C, M]; output channel c*M + m."""
    kh, kw, depth, multiplier = kernel
    filters = depth * multiplier
    access, guards = _window(shape, strides, dilations, pads, {"c": 1})
    operands = [
        Operand("x", access),
        Operand("w", Linear.of(ky=kw * filters, kx=filters, c=multiplier, m=1)),
    ]
    if bias:
        operands.append(Operand("bias", Linear.of(c=multiplier, m=1)))
    operands.append(Operand("out", Linear.of(oy=out[1] * filters, ox=filters, c=multiplier, m=1)))
    nest = Nest(
        parallel=(("oy", out[0]), ("ox", out[1]), ("c", depth), ("m", multiplier)),
        reduction=(("ky", kh), ("kx", kw)),
        combine="mac",
        operands=tuple(operands),
        guards=guards,
        epilogue=tuple(epilogue),
    )
    return simplify(nest)


def dense(rows: int, inputs: int, outputs: int, bias: bool, epilogue: Sequence[Step] = ()) -> Nest:
    """`x` [rows, inputs] times `w` [inputs, outputs]."""
    operands = [Operand("x", Linear.of(p=inputs, c=1)), Operand("w", Linear.of(c=outputs, f=1))]
    if bias:
        operands.append(Operand("bias", Linear.of(f=1)))
    operands.append(Operand("out", Linear.of(p=outputs, f=1)))
    nest = Nest(
        parallel=(("p", rows), ("f", outputs)),
        reduction=(("c", inputs),),
        combine="mac",
        operands=tuple(operands),
        epilogue=tuple(epilogue),
    )
    return simplify(nest)


def pool2d(
    combine: str,
    shape: Sequence[int],
    kernel: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    epilogue: Sequence[Step] = (),
    nonnegative: bool = False,
) -> Nest:
    """A maximum (`combine` "max") or a sum ("add") over windows. Epilogue operands `rows`/`columns` scale by
    [oy]/[ox].
    """
    depth = shape[2]
    access, guards = _window(shape, strides, dilations, pads, {"c": 1})
    operands = [Operand("x", access)]
    roles = {s.role for s in epilogue}
    if "rows" in roles:
        operands.append(Operand("rows", Linear.of(oy=1)))
    if "columns" in roles:
        operands.append(Operand("columns", Linear.of(ox=1)))
    operands.append(Operand("out", Linear.of(oy=out[1] * depth, ox=depth, c=1)))
    nest = Nest(
        parallel=(("oy", out[0]), ("ox", out[1]), ("c", depth)),
        reduction=(("ky", kernel[0]), ("kx", kernel[1])),
        combine="max" if combine == "max" else "add",
        operands=tuple(operands),
        guards=guards,
        epilogue=tuple(epilogue),
        initial=float("-inf") if combine == "max" else 0.0,
        nonnegative=nonnegative,
    )
    return simplify(nest)


def elementwise(
    out: Sequence[int],
    x_strides: Sequence[int],
    others: Sequence[tuple[str, Sequence[int]]] = (),
    epilogue: Sequence[Step] = (),
    *,
    x_offset: int = 0,
    out_strides: Sequence[int] | None = None,
    out_offset: int = 0,
    guards: Sequence[Guard] = (),
    initial: float = 0.0,
    nonnegative: bool = False,
) -> Nest:
    """`out[d0, d1, …] = epilogue(x[…])`, every operand with its own element strides (0: broadcast). Dims d0, d1, …"""

    def linear(strides: Sequence[int], offset: int = 0) -> Linear:
        return Linear.of(offset, **{f"d{i}": s for i, s in enumerate(strides)})

    shape = list(out) or [1]
    operands = [Operand("x", linear(x_strides, x_offset))]
    operands += [Operand(role, linear(strides)) for role, strides in others]
    operands.append(Operand("out", linear(out_strides or row_major(shape), out_offset)))
    nest = Nest(
        parallel=tuple((f"d{i}", n) for i, n in enumerate(shape)),
        reduction=(),
        combine="copy",
        operands=tuple(operands),
        guards=tuple(guards),
        epilogue=tuple(epilogue),
        initial=initial,
        nonnegative=nonnegative,
    )
    return simplify(nest)


def reduce_axis(
    combine: str, outer: int, axis: int, inner: int, epilogue: Sequence[Step] = (), nonnegative: bool = False
) -> Nest:
    """`out[o, i]` = maximum ("max") or sum ("add") over the middle axis of `x` [outer, axis, inner]."""
    return reduce_axes("max" if combine == "max" else "add", [outer, axis, inner], [1], epilogue, nonnegative)


def reduce_axes(
    combine: Combine,
    shape: Sequence[int],
    axes: Sequence[int],
    epilogue: Sequence[Step] = (),
    nonnegative: bool = False,
) -> Nest:
    """`out` = sum ("add"; "square": of squares), "max", "min" or product ("mul") of `x` over axes that `out` lacks."""
    kept = [i for i in range(len(shape)) if i not in axes]
    strides = row_major(shape)
    out = row_major([shape[i] for i in kept])
    nest = Nest(
        parallel=tuple((f"d{i}", shape[i]) for i in kept) or (("p", 1),),
        reduction=tuple((f"k{i}", shape[i]) for i in sorted(axes)),
        combine=combine,
        operands=(
            Operand("x", Linear.of(**{f"{'k' if i in axes else 'd'}{i}": n for i, n in enumerate(strides)})),
            Operand("out", Linear.of(**{f"d{i}": n for i, n in zip(kept, out, strict=True)})),
        ),
        epilogue=tuple(epilogue),
        initial=NEUTRAL[combine],
        nonnegative=nonnegative,
    )
    return simplify(nest)
