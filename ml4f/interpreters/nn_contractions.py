"""The numpy meaning of the operations in `dialects/nn/contraction_ops.py`: sums in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.ir import Operation

from ml4f.dialects.nn import contraction_ops as nn
from ml4f.dialects.nn import shape_of

Array = np.ndarray


def _conv_transpose(op: nn.ConvTranspose2dOp, operands: Sequence[Array]) -> Array:
    x, w = operands[0].astype(np.float64), operands[1].astype(np.float64)
    strides, dilations, pads = (op.integers(name) for name in ("strides", "dilations", "pads"))
    groups = op.groups.value.data
    height, width, filters = shape_of(op.y)
    grid = np.zeros((height + pads[0] + pads[2], width + pads[1] + pads[3], filters))
    parts, per_group = x.shape[2] // groups, w.shape[3]
    for g in range(groups):
        channels, outputs = slice(g * parts, (g + 1) * parts), slice(g * per_group, (g + 1) * per_group)
        for k, row in enumerate(w):
            for j, tap in enumerate(row):
                top, left = k * dilations[0], j * dilations[1]
                rows = slice(top, top + (x.shape[0] - 1) * strides[0] + 1, strides[0])
                columns = slice(left, left + (x.shape[1] - 1) * strides[1] + 1, strides[1])
                grid[rows, columns, outputs] += x[:, :, channels] @ tap[channels]
    y = grid[pads[0] : pads[0] + height, pads[1] : pads[1] + width]
    return y + operands[2] if len(operands) > 2 else y


def _conv3d(op: nn.Conv3dOp, operands: Sequence[Array]) -> Array:
    x, w = operands[0].astype(np.float64), operands[1].astype(np.float64)
    strides, dilations, pads = (op.integers(name) for name in ("strides", "dilations", "pads"))
    groups, out = op.groups.value.data, shape_of(op.y)
    padded = np.pad(x, (*((pads[i], pads[i + 3]) for i in range(3)), (0, 0)))
    channels, filters = w.shape[3], w.shape[4] // groups
    y = np.zeros(out)
    for tap in np.ndindex(w.shape[:3]):
        first = [k * d for k, d in zip(tap, dilations, strict=True)]
        seen = padded[tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(first, out, strides, strict=False))]
        for g in range(groups):
            outputs = slice(g * filters, (g + 1) * filters)
            y[..., outputs] += seen[..., g * channels : (g + 1) * channels] @ w[tap][:, outputs]
    return y + operands[2] if len(operands) > 2 else y


def _matmul(op: nn.MatmulOp, operands: Sequence[Array]) -> Array:
    a, b = (operand.astype(np.float64) for operand in operands)
    a = a.swapaxes(-1, -2) if op.transpose_a is not None else a
    b = b.swapaxes(-1, -2) if op.transpose_b is not None else b
    return a @ b


EVALUATORS: dict[type[Operation], Callable[[Any, Sequence[Array]], Array]] = {
    nn.MatmulOp: _matmul,
    nn.ConvTranspose2dOp: _conv_transpose,
    nn.Conv3dOp: _conv3d,
}
