"""Handlers of ONNX operators that move elements: reshape, transpose, join, pad, slice. Most cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f32, i64

from ml4f.dialects.nn import numbers
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import Flattened, NotSupported, Tensor


def identity(importer: Importer, node: Node) -> None:
    """The same value under another name."""
    source, output = node.proto.input[0], node.proto.output[0]
    if source in importer.constants:
        importer.constants[output] = importer.constants[source]
        return
    importer.tensors[output] = importer.tensors[source]
    if source in importer.masks:
        importer.masks.add(output)


def dropout(importer: Importer, node: Node) -> None:
    """Nothing, in inference; the mask is all ones there."""
    training = node.proto.input[2] if len(node.proto.input) > 2 else ""
    if training:
        mode = importer.const(training)
        if mode is None or bool(np.ravel(mode)[0]):
            raise NotSupported("it drops at random, as in training; export the model for inference")
    if len(node.proto.output) > 1 and node.proto.output[1]:
        importer.constants[node.proto.output[1]] = np.ones(importer.shape(node.proto.input[0]), dtype=np.bool_)
    identity(importer, node)


def transpose(importer: Importer, node: Node) -> None:
    """Only the order changes."""
    x = importer.tensor(node.proto.input[0])
    permutation = node.ints("perm", tuple(range(len(x.shape)))[::-1])
    if sorted(permutation) != list(range(len(x.shape))):
        raise NotSupported(f"permutation {list(permutation)} of {list(x.shape)}")
    order = tuple(permutation.index(axis) for axis in x.order)
    importer.result(node.proto.output[0], Tensor(x.value, tuple(x.shape[axis] for axis in permutation), order))


def with_shape(importer: Importer, node: Node, shape: Sequence[int]) -> None:
    """The same elements with another shape: free if memory is in order, else decided by whoever reads it."""
    shape = tuple(int(n) for n in shape)
    value = importer.tensors[node.proto.input[0]]
    if prod(shape) != prod(value.shape):
        raise NotSupported(f"{list(value.shape)} cannot become {list(shape)}")
    output = node.proto.output[0]
    if isinstance(value, Flattened):
        importer.tensors[output] = Flattened(value.base, shape)
        return
    kept = [n for n in value.shape if n > 1]
    if kept == [n for n in shape if n > 1]:
        importer.result(output, Tensor(value.value, shape, _same_order(value, shape)))
    elif value.in_order:
        importer.result(output, Tensor(value.value, shape, tuple(range(len(shape)))))
    else:
        importer.tensors[output] = Flattened(value, shape)


def _same_order(x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The order of axes when only extents of 1 came or went."""
    new = [axis for axis, n in enumerate(shape) if n > 1]
    old = [axis for axis, n in enumerate(x.shape) if n > 1]
    ones = [axis for axis, n in enumerate(shape) if n == 1]
    return (*ones, *(new[old.index(axis)] for axis in x.significant))


def reshape(importer: Importer, node: Node) -> None:
    """Reshape to a constant shape; 0 copies, -1 is inferred."""
    constant = importer.const(node.proto.input[1]) if len(node.proto.input) > 1 else np.array(node.ints("shape"))
    if constant is None:
        raise NotSupported("the shape must be a constant")
    value = importer.tensors[node.proto.input[0]]
    shape = [int(n) for n in np.ravel(constant)]
    if not node.get("allowzero", 0):
        shape = [value.shape[axis] if n == 0 and axis < len(value.shape) else n for axis, n in enumerate(shape)]
    if shape.count(-1) == 1:
        known = -prod(shape)
        if known and prod(value.shape) % known == 0:
            shape[shape.index(-1)] = prod(value.shape) // known
    with_shape(importer, node, shape)


def flatten(importer: Importer, node: Node) -> None:
    """To two dimensions."""
    shape = importer.shape(node.proto.input[0])
    axis = int(node.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    with_shape(importer, node, (prod(shape[:axis]), prod(shape[axis:])))


def _axes(importer: Importer, node: Node) -> list[int] | None:
    if len(node.proto.input) > 1 and node.proto.input[1]:
        constant = importer.const(node.proto.input[1])
        if constant is None:
            raise NotSupported("the axes must be constants")
        return [int(a) for a in np.ravel(constant)]
    return list(node.ints("axes")) if "axes" in node.attributes else None


def squeeze(importer: Importer, node: Node) -> None:
    """Drop axes of extent 1."""
    shape = importer.shape(node.proto.input[0])
    axes = _axes(importer, node)
    dropped = [i for i, n in enumerate(shape) if n == 1] if axes is None else [axis % len(shape) for axis in axes]
    with_shape(importer, node, [n for axis, n in enumerate(shape) if axis not in dropped])


def unsqueeze(importer: Importer, node: Node) -> None:
    """Insert axes of extent 1."""
    shape = list(importer.shape(node.proto.input[0]))
    axes = _axes(importer, node) or []
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    with_shape(importer, node, shape)


def joined(importer: Importer, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors of one memory order side by side along an axis."""
    if len(parts) == 1:
        return parts[0]
    order = parts[0].order
    values = [importer.reshaped(part.value, part.ordered) for part in parts]
    extent = sum(part.shape[axis] for part in parts)
    shape = (*parts[0].shape[:axis], extent, *parts[0].shape[axis + 1 :])
    memory = tuple(shape[a] for a in order)
    value = importer.emit(nn.ConcatOp, values, memory, axis=IntegerAttr(order.index(axis), i64))
    return Tensor(value, shape, order)


def concat(importer: Importer, node: Node) -> None:
    """Concat of computed tensors (constants may be among them)."""
    names = [name for name in node.proto.input if prod(importer.shape(name))]
    first = next(importer.tensor(name) for name in names if name not in importer.constants)
    axis = int(node.get("axis", 0)) % len(first.shape)
    tensors = [importer.arranged(importer.tensor(name), first.order) for name in names]
    batch = axis == 0 or len(first.memory_shape) == len(first.shape)
    axes = [a for a in first.order if batch or a]
    values = [importer.reshaped(t.value, [t.shape[a] for a in axes]) for t in tensors]
    extent = sum(t.shape[axis] for t in tensors)
    shape = (*first.shape[:axis], extent, *first.shape[axis + 1 :])
    memory = tuple(shape[a] for a in axes)
    value = importer.emit(nn.ConcatOp, values, memory, axis=IntegerAttr(axes.index(axis), i64))
    importer.result(node.proto.output[0], Tensor(value, shape, first.order))


def pad(importer: Importer, node: Node) -> None:
    """Pad with a constant; negative amounts crop."""
    x = importer.tensor(node.proto.input[0])
    low, high, value = amounts(importer, node, len(x.shape))
    tensor = Tensor(importer.reshaped(x.value, x.ordered), x.shape, x.order)
    if min((*low, *high)) < 0:
        tensor = cropped(importer, tensor, [max(0, -n) for n in low], [max(0, -n) for n in high])
    if max((*low, *high)) > 0:
        tensor = padded(importer, tensor, [max(0, n) for n in low], [max(0, n) for n in high], value)
    importer.result(node.proto.output[0], tensor)


def amounts(importer: Importer, node: Node, rank: int) -> tuple[list[int], list[int], float]:
    """Of a Pad: how much at the beginning and at the end of each axis, and the constant."""
    given, value, axes = list(node.ints("pads")), float(node.get("value", 0.0)), list(range(rank))
    inputs = [*node.proto.input, "", "", ""]
    if inputs[1]:
        constants = [importer.const(name) if name else None for name in inputs[1:4]]
        if any(name and constant is None for name, constant in zip(inputs[1:4], constants, strict=True)):
            raise NotSupported("the amounts, the value and the axes must be constants")
        given = [int(n) for n in np.ravel(np.asarray(constants[0]))]
        value = 0.0 if constants[1] is None else float(np.ravel(constants[1])[0])
        axes = axes if constants[2] is None else [int(a) % rank for a in np.ravel(constants[2])]
    low, high = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        low[axis], high[axis] = given[index], given[index + len(axes)]
    return low, high, value


def padded(importer: Importer, x: Tensor, low: Sequence[int], high: Sequence[int], value: float) -> Tensor:
    """With more elements at both ends of each axis."""
    shape = tuple(a + n + b for a, n, b in zip(low, x.shape, high, strict=True))
    ordered = tuple(shape[axis] for axis in x.order)
    made = importer.emit(
        nn.PadOp,
        [x.value],
        ordered,
        low=numbers([low[axis] for axis in x.order]),
        high=numbers([high[axis] for axis in x.order]),
        value=FloatAttr(value, f32),
    )
    return Tensor(made, shape, x.order)


def cropped(importer: Importer, x: Tensor, low: Sequence[int], high: Sequence[int]) -> Tensor:
    """With fewer elements at both ends of each axis."""
    shape = tuple(n - a - b for a, n, b in zip(low, x.shape, high, strict=True))
    return sliced(importer, x, low, [1] * len(shape), shape)


def sliced(importer: Importer, x: Tensor, start: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Every `steps`-th element from `start`, `sizes` of them, on each axis."""
    if min(sizes, default=1) < 1:
        raise NotSupported(f"an empty result {list(sizes)}")
    made = importer.emit(
        nn.SliceOp,
        [importer.reshaped(x.value, x.ordered)],
        tuple(sizes[axis] for axis in x.order),
        start=numbers([start[axis] for axis in x.order]),
        strides=numbers([steps[axis] for axis in x.order]),
        sizes=numbers([sizes[axis] for axis in x.order]),
    )
    return Tensor(made, tuple(sizes), x.order)


def slice_(importer: Importer, node: Node) -> None:
    """Slice with constant starts, ends, axes and steps."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    if len(node.proto.input) > 1:
        given = [importer.const(name) if name else None for name in [*node.proto.input[1:], "", ""][:4]]
        if any(name and constant is None for name, constant in zip(node.proto.input[1:], given, strict=False)):
            raise NotSupported("starts, ends, axes and steps must be constants")
        lists = [None if g is None else [int(v) for v in np.ravel(g)] for g in given]
    else:
        lists = [list(node.ints("starts")), list(node.ints("ends")), list(node.ints("axes")) or None, None]
    starts, ends = lists[0] or [], lists[1] or []
    axes = lists[2] if lists[2] is not None else list(range(len(starts)))
    steps = lists[3] if lists[3] is not None else [1] * len(starts)
    start, stride, size = [0] * rank, [1] * rank, list(x.shape)
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= rank
        picked = range(x.shape[axis])[slice(begin, end, step)]
        start[axis], stride[axis], size[axis] = (picked[0] if len(picked) else 0), step, len(picked)
    if not prod(size):
        importer.constants[node.proto.output[0]] = np.zeros(size, dtype=np.float32)
        return
    importer.result(node.proto.output[0], sliced(importer, x, start, stride, size))
