"""Handlers of Gather and its like: rows of a table by numbers that are constants, or computed, as of an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.ir import SSAValue

from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn.lookup_ops import LookupOp
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shuffles import MAX_RUNS, picked, runs
from ml4f.frontend.importer_types import EXACT
from ml4f.frontend.importer_values import NotSupported, Tensor


def looked_up(importer: Importer, table: SSAValue, shape: tuple[int, int], index: SSAValue, count: int) -> SSAValue:
    """`count` rows of a table of that shape, by their numbers."""
    operands = [importer.reshaped(table, shape), importer.reshaped(index, (count,))]
    return importer.emit(LookupOp, operands, (count, shape[1]))


def gather(importer: Importer, node: Node) -> None:
    """Gather: evenly spaced constant indices are slices, others rows of a table."""
    names = node.proto.input
    indices, axis = importer.const(names[1]), int(node.get("axis", 0))
    shape = importer.shape(names[0])
    axis %= max(len(shape), 1)
    if indices is None:
        _computed(importer, node, axis)
        return
    if not indices.size:
        raise NotSupported("an empty result")
    x = importer.tensor(names[0])
    flat = [int(i) + (shape[axis] if i < 0 else 0) for i in np.ravel(indices)]
    if not all(0 <= i < shape[axis] for i in flat):
        raise NotSupported(f"indices out of the {shape[axis]} elements")
    if len(runs(flat)) <= (MAX_RUNS if axis else 1):
        made = importer.in_order(picked(importer, x, axis, flat))
    else:
        made = _rows(importer, x, axis, importer.constant(np.array(flat, dtype=np.float32)), len(flat))
    final = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    importer.result(node.proto.output[0], Tensor(made.value, final, tuple(range(len(final)))))
    if names[0] in importer.integers:
        importer.integers.add(node.proto.output[0])


def _rows(importer: Importer, x: Tensor, axis: int, index: SSAValue, count: int) -> Tensor:
    """Rows along an axis, in the order of the axes, that one in its place."""
    rank = len(x.shape)
    front = importer.arranged(x, (axis, *(a for a in range(rank) if a != axis)))
    rows = x.shape[axis]
    value = looked_up(importer, front.value, (rows, prod(x.shape) // rows), index, count)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return importer.in_order(Tensor(value, shape, front.order))


def _computed(importer: Importer, node: Node, axis: int) -> None:
    names = node.proto.input
    shape = importer.shape(names[0])
    index = importer.in_order(importer.tensor(names[1]))
    importer.note_rows(shape[axis])
    made = _rows(importer, importer.tensor(names[0]), axis, index.value, prod(index.shape))
    final = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    importer.result(node.proto.output[0], Tensor(made.value, final, tuple(range(len(final)))))
    if names[0] in importer.integers:
        importer.integers.add(node.proto.output[0])


def pieces(importer: Importer, node: Node, numbers: np.ndarray, behind: Sequence[int]) -> None:
    """The result is made of pieces of extents `behind` of the input, whose numbers are an array of any shape."""
    if not numbers.size or not prod(behind):
        raise NotSupported("an empty result")
    x = importer.in_order(importer.tensor(node.proto.input[0]))
    index, width = importer.constant(numbers.astype(np.float32)), prod(behind)
    value = looked_up(importer, x.value, (prod(x.shape) // width, width), index, numbers.size)
    shape = (*numbers.shape, *behind)
    importer.result(node.proto.output[0], Tensor(value, shape, tuple(range(len(shape)))))


def constant_indices(importer: Importer, node: Node) -> np.ndarray:
    """The node's second input."""
    indices = importer.const(node.proto.input[1])
    if indices is None:
        raise NotSupported("the indices must be constants")
    return indices.astype(np.int64)


def checked(indices: np.ndarray, extents: np.ndarray | int) -> np.ndarray:
    """Indices from the beginning; negative ones count from the end."""
    whole = np.where(indices < 0, indices + extents, indices)
    if np.any(whole < 0) or np.any(whole >= extents):
        raise NotSupported("indices out of the input")
    return whole


def numbers_of(places: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """The numbers in memory of elements whose coordinates are given, an array for each axis."""
    return np.asarray(np.ravel_multi_index(tuple(places), tuple(shape)))


def gather_elements(importer: Importer, node: Node) -> None:
    """GatherElements; computed indices become numbers of elements in memory."""
    shape, indices = importer.shape(node.proto.input[0]), importer.const(node.proto.input[1])
    axis = int(node.get("axis", 0)) % len(shape)
    if node.proto.input[0] in importer.integers:
        importer.integers.add(node.proto.output[0])
    if indices is None:
        _computed_elements(importer, node, axis)
        return
    indices = indices.astype(np.int64)
    places = [np.asarray(place) for place in np.indices(indices.shape)]
    places[axis] = checked(indices, shape[axis])
    pieces(importer, node, numbers_of(places, shape), ())


def _computed_elements(importer: Importer, node: Node, axis: int) -> None:
    from ml4f.frontend.importer_steps import Steps

    source, index = node.proto.input
    shape, wanted = importer.shape(source), importer.shape(index)
    if prod(shape) > EXACT:
        raise NotSupported(f"computed numbers of {prod(shape)} elements; float32 counts to {EXACT}")
    steps, stride = Steps(importer, node), float(prod(shape[axis + 1 :]))
    importer.note_rows(shape[axis])
    negative = steps.activation("step", steps.activation("neg", index))
    within = steps.binary(nn.AddOp, index, steps.binary(nn.MulOp, negative, float(shape[axis])))
    places = [place * (a != axis) for a, place in enumerate(np.indices(wanted))]
    others = steps.constant(np.ravel_multi_index(places, shape, mode="clip"))
    numbers = steps.binary(nn.AddOp, steps.binary(nn.MulOp, within, stride), others)
    table, count = importer.in_order(importer.tensor(source)), prod(wanted)
    rows = importer.in_order(importer.tensor(numbers)).value
    value = looked_up(importer, table.value, (prod(shape), 1), rows, count)
    importer.result(node.proto.output[0], Tensor(value, wanted, tuple(range(len(wanted)))))


def gather_nd(importer: Importer, node: Node) -> None:
    """GatherND."""
    if importer.const(node.proto.input[1]) is None:
        from ml4f.frontend.importer_scatter import computed_gather_nd

        computed_gather_nd(importer, node)
        return
    shape, indices = importer.shape(node.proto.input[0]), constant_indices(importer, node)
    batch, depth = int(node.get("batch_dims", 0)), indices.shape[-1]
    whole = checked(indices, np.array(shape[batch : batch + depth]))
    places: list[np.ndarray] = list(np.indices(indices.shape[:-1])[:batch]) + [whole[..., i] for i in range(depth)]
    numbers = numbers_of(places, shape[: batch + depth])
    pieces(importer, node, numbers, shape[batch + depth :])


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
}
"""ONNX operator → the function that emits it."""
