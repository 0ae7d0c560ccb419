"""Where a MaxPool found its maxima; MaxUnpool, which puts elements back there; Col2Im, which adds up windows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import constant_indices
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import padded
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_types import EXACT
from ml4f.frontend.importer_values import NotSupported, Tensor
from ml4f.frontend.importer_windows import Window

MAX_PLACES = 64
"""Elements of a window: each takes some passes over the output."""
SMALLEST = float(np.finfo(np.float32).min)


def pool_indices(importer: Importer, node: Node, output: str) -> None:
    """The numbers, in the flat input, of the first largest element of each window of a MaxPool."""
    source = node.proto.input[0]
    shape, kernel = importer.shape(source), node.ints("kernel_shape")
    window = Window(node, shape[2:], kernel)
    if node.get("ceil_mode", 0):
        window.ceil()
    axes, one = len(kernel), len(kernel) == 1
    extents, offsets = list(window.shape()), list(product(*(range(n) for n in window.kernel)))
    if prod(shape) > EXACT or len(offsets) > MAX_PLACES:
        raise NotSupported(f"the indices of windows of {len(offsets)} elements, {prod(shape)} in all")
    spatial = [1, shape[2]] if one else list(shape[2:])
    strides = [prod(spatial[i + 1 :]) for i in range(len(spatial))]
    if node.get("storage_order", 0):
        strides = [prod(spatial[:i]) for i in range(len(spatial))]
    steps = Steps(importer, node, output)
    ends = [list(window.pads[: window.axes]), list(window.pads[window.axes :])]
    low, high = ([0, 0, *(pads[1:] if one else pads)] for pads in ends)
    x = importer.in_order(importer.tensor(source))
    flat = Tensor(importer.reshaped(x.value, shape), shape, x.order)
    around = steps.value(padded(importer, flat, low, high, SMALLEST) if any((*low, *high)) else flat)
    best = found = ""
    for offset in offsets:
        value = around
        for axis in range(axes):
            i = axis + (1 if one else 0)
            value = steps.part(value, axis + 2, offset[i] * window.dilations[i], extents[i], window.strides[i])
        place = float(sum(o * d * s for o, d, s in zip(offset, window.dilations, strides, strict=True)))
        if not best:
            best, found = value, steps.constant(np.full((1,) * len(shape), place))
            continue
        larger = steps.activation("step", steps.binary(nn.SubOp, value, best))
        change = steps.binary(nn.SubOp, steps.constant(place), found)
        found = steps.binary(nn.AddOp, found, steps.binary(nn.MulOp, larger, change))
        best = steps.binary(nn.MaxOp, best, value)
    firsts = np.zeros((*shape[:2], *extents[1 if one else 0 :]))
    numbers = np.arange(prod(shape[:2])).reshape(shape[:2]) * float(prod(spatial))
    firsts += numbers.reshape((*shape[:2], *(1,) * axes))
    for i in range(1 if one else 0, window.axes):
        axis = i + 2 - (1 if one else 0)
        starts = (np.arange(extents[i]) * window.strides[i] - window.pads[i]) * float(strides[i])
        firsts += starts.reshape([extents[i] if a == axis else 1 for a in range(len(shape))])
    steps.binary(nn.AddOp, found, steps.constant(firsts), output)
    if output in importer.constants:  # each window has one element
        importer.constants[output] = importer.constants[output].astype(np.int64)
    else:
        importer.integers.add(output)
        importer.bounds[output] = float(prod(shape))


def max_unpool(importer: Importer, node: Node) -> None:
    """MaxUnpool with constant indices: the elements in a tensor of zeros."""
    names = [*node.proto.input, ""]
    shape, indices = importer.shape(names[0]), constant_indices(importer, node)
    rank = len(shape) - 2
    kernel, strides = node.ints("kernel_shape"), node.ints("strides", (1,) * rank)
    pads = node.ints("pads", (0,) * (2 * rank))
    size = [(shape[i + 2] - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i] for i in range(rank)]
    inner = (*shape[:2], *size)
    wanted = inner
    if names[2]:
        given = importer.const(names[2])
        if given is None:
            raise NotSupported("the output's shape must be a constant")
        wanted = tuple(int(n) for n in np.ravel(given))
    if indices.shape != shape or np.any((indices < 0) | (indices >= prod(inner))):
        raise NotSupported(f"indices {list(indices.shape)} for {list(shape)}, which should be below {prod(inner)}")
    steps = Steps(importer, node)
    # the indices are those of the tensor without the rest that the output's shape adds
    zeros, numbers = steps.constant(np.zeros(prod(inner))), steps.whole(np.ravel(indices))
    filled = steps.operator("ScatterElements", zeros, numbers, steps.shaped(names[0], (prod(shape),)), axis=0)
    made = steps.shaped(filled, inner)
    if wanted != inner:
        amounts = steps.whole([*(0 for _ in shape), *(n - m for n, m in zip(wanted, inner, strict=True))])
        made = steps.operator("Pad", made, amounts)
    importer.result(node.proto.output[0], importer.tensor(made))


def column_to_image(importer: Importer, node: Node) -> None:
    """Col2Im: a transposed convolution in which each element of a window has a filter of its own, a single one."""
    source, *given = node.proto.input
    sizes = [importer.const(name) for name in given]
    if any(size is None for size in sizes):
        raise NotSupported("the image's and the block's shape must be constants")
    image, block = ([int(n) for n in np.ravel(np.asarray(size))] for size in sizes)
    rank, (images, rows, columns) = len(image), importer.shape(source)
    strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
    pads = node.ints("pads", (0,) * (2 * rank))
    reach = [(block[i] - 1) * dilations[i] + 1 for i in range(rank)]
    room = [image[i] + pads[i] + pads[i + rank] for i in range(rank)]
    counts = [(room[i] - reach[i]) // strides[i] + 1 for i in range(rank)]
    if rows % prod(block) or prod(counts) != columns:
        raise NotSupported(f"{rows} rows and {columns} columns for blocks {block}, {counts} of them")
    channels = rows // prod(block)
    filters = np.tile(np.eye(prod(block)).reshape(-1, 1, *block), (channels, *(1,) * (rank + 1)))
    more = [room[i] - (counts[i] - 1) * strides[i] - reach[i] for i in range(rank)]
    steps = Steps(importer, node)
    steps.operator(
        "ConvTranspose",
        steps.shaped(source, (images, rows, *counts)),
        steps.constant(filters),
        output=node.proto.output[0],
        group=channels,
        strides=list(strides),
        dilations=list(dilations),
        pads=list(pads),
        output_padding=more,
    )


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"Col2Im": column_to_image, "MaxUnpool": max_unpool}
"""ONNX operator → the function that emits it."""
