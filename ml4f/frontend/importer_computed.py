"""Convolutions and batch normalisation whose parameters are computed: inputs of the model, or made from them.

Dynamic convolutions mix or make their kernels from the input. Bias and normalisation become elementwise operations, a
transposed convolution one of its input with zeros between the elements, the kernel backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from xdsl.ir import SSAValue

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported


def kernel_operand(importer: Importer, name: str, shape: Sequence[int]) -> SSAValue:
    """Weights [f, c, …] as an operand of that shape, which lists the window first, then the channels and filters."""
    weights = importer.tensor(name)
    arranged = importer.arranged(weights, (*range(2, len(weights.shape)), 1, 0))
    return importer.reshaped(arranged.value, shape)


def biased(importer: Importer, node: Node, unbiased: str, bias: str) -> None:
    """The node's output: `unbiased` plus a bias for each channel, which is axis 1."""
    steps, shape = Steps(importer, node), importer.shape(unbiased)
    if prod(importer.shape(bias)) != shape[1]:
        raise NotSupported(f"a bias {list(importer.shape(bias))} for {shape[1]} filters")
    column = steps.shaped(bias, (1, shape[1], *(1,) * (len(shape) - 2)))
    steps.binary(nn.AddOp, unbiased, column, node.proto.output[0])


def batch_normalization(importer: Importer, node: Node) -> None:
    """(x - mean) * (gamma / sqrt(variance + epsilon)) + beta, each of them computed or constant."""
    x, gamma, beta, mean, variance = node.proto.input[:5]
    steps, shape = Steps(importer, node), importer.shape(x)
    axis = 1 if len(shape) > 1 else 0
    extents = [n if a == axis else 1 for a, n in enumerate(shape)]
    for name in (gamma, beta, mean, variance):
        if prod(importer.shape(name)) != shape[axis]:
            raise NotSupported(f"parameters {list(importer.shape(name))} for {shape[axis]} channels")
    gamma, beta, mean, variance = (steps.shaped(name, extents) for name in (gamma, beta, mean, variance))
    deviation = steps.activation("sqrt", steps.binary(nn.AddOp, variance, float(node.get("epsilon", 1e-5))))
    scale = steps.binary(nn.DivOp, gamma, deviation)
    scaled = steps.binary(nn.MulOp, steps.binary(nn.SubOp, x, mean), scale)
    steps.binary(nn.AddOp, scaled, beta, node.proto.output[0])


def spread(steps: Steps, x: str, strides: Sequence[int]) -> str:
    """[n, c, …] with `stride - 1` zeros between neighbours along each axis from the third on."""
    shape = list(steps.importer.shape(x))
    for axis, stride in enumerate(strides, 2):
        if stride > 1:
            apart = steps.shaped(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
            amounts = [0] * (2 * len(shape) + 2)
            amounts[len(shape) + 1 + axis + 1] = stride - 1
            padded = steps.operator("Pad", apart, steps.whole(amounts))
            shape[axis] *= stride
            x = steps.part(steps.shaped(padded, shape), axis, 0, shape[axis] - stride + 1)
            shape[axis] -= stride - 1
    return x


def backward_kernel(steps: Steps, weights: str, groups: int) -> str:
    """Weights [c, f / groups, …] of a transposed convolution as those [f, c / groups, …] of the plain one."""
    channels, filters, *extents = steps.importer.shape(weights)
    rank, constant = len(extents), steps.importer.const(weights)
    if constant is not None:
        halves = constant.reshape(groups, -1, filters, *extents).swapaxes(1, 2)
        return steps.constant(np.flip(halves.reshape(groups * filters, -1, *extents), tuple(range(2, rank + 2))))
    split = steps.shaped(weights, (groups, channels // groups, filters, *extents))
    turned = steps.operator("Transpose", split, perm=[0, 2, 1, *range(3, rank + 3)])
    kernel = steps.shaped(turned, (groups * filters, channels // groups, *extents))
    axes = [axis for axis, extent in enumerate(extents, 2) if extent > 1]
    if not axes:
        return kernel
    first, last, backwards = ([n] * len(axes) for n in (-1, -(1 << 31), -1))
    return steps.operator("Slice", kernel, *(steps.whole(v) for v in (first, last, axes, backwards)))
