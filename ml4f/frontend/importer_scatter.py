"""Handlers that put elements where computed numbers say, or take them from there: ScatterElements, GatherND, caches."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import looked_up
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_types import EXACT
from ml4f.frontend.importer_values import NotSupported, Tensor

MOST_UPDATES = 32
"""Updates along the axis of a ScatterElements with computed indices, each with a pass over the data."""


def from_the_beginning(steps: Steps, index: str, extent: int) -> str:
    """Indices of which negative ones count from the end."""
    negative = steps.activation("step", steps.activation("neg", index))
    return steps.binary(nn.AddOp, index, steps.binary(nn.MulOp, negative, float(extent)))


def is_one_of(steps: Steps, a: str, b: str) -> str:
    """A mask: 1 where whole numbers are equal."""
    distance = steps.activation("abs", steps.binary(nn.SubOp, a, b))
    return steps.binary(nn.SubOp, steps.constant(1.0), steps.activation("step", distance))


def computed_scatter_elements(
    importer: Importer, node: Node, axis: int, reduction: tuple[type[nn.BinaryOp], float] | None
) -> None:
    """ScatterElements with computed indices: one update after the other, masked where its index is the position.

    `reduction`: what an update does with what is there, and the value that changes nothing; None: it takes its place.
    """
    data, index, updates = node.proto.input
    shape, wanted = importer.shape(data), importer.shape(index)
    if tuple(n for a, n in enumerate(wanted) if a != axis) != tuple(n for a, n in enumerate(shape) if a != axis):
        raise NotSupported(f"computed indices {list(wanted)} for a part of the data {list(shape)} only")
    if wanted[axis] > MOST_UPDATES:
        raise NotSupported(f"{wanted[axis]} updates at computed indices; at most {MOST_UPDATES} are supported")
    steps, result = Steps(importer, node), data
    importer.note_rows(shape[axis])
    positions = steps.constant(np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    whole = from_the_beginning(steps, index, shape[axis])
    for number in range(wanted[axis]):
        here = is_one_of(steps, steps.part(whole, axis, number, 1), positions)
        update = steps.part(updates, axis, number, 1)
        elsewhere = steps.binary(nn.SubOp, steps.constant(1.0), here)
        if reduction is None:
            kept = steps.binary(nn.WhereOp, result, elsewhere)
            result = steps.binary(nn.AddOp, kept, steps.binary(nn.WhereOp, update, here))
        else:
            op, neutral = reduction
            change = steps.binary(nn.WhereOp, update, here)
            if neutral:
                unchanged = steps.binary(nn.WhereOp, steps.constant(neutral), elsewhere)
                change = steps.binary(nn.AddOp, change, unchanged)
            result = steps.binary(op, result, change)
    importer.alias(node.proto.output[0], result)


def computed_gather_nd(importer: Importer, node: Node) -> None:
    """GatherND with computed indices: the number in memory of each piece, and a look-up."""
    source, index = node.proto.input
    shape, wanted = importer.shape(source), importer.shape(index)
    batch, depth = int(node.get("batch_dims", 0)), wanted[-1]
    extents = shape[: batch + depth]
    if prod(extents) > EXACT:
        raise NotSupported(f"computed numbers of {prod(extents)} pieces; float32 counts to {EXACT}")
    steps, places = Steps(importer, node), wanted[:-1]
    offsets = np.zeros(places)
    for axis, place in enumerate(np.indices(places)[:batch]):
        offsets = offsets + place * prod(extents[axis + 1 :])
    number = steps.constant(offsets)
    for component in range(depth):
        part = steps.shaped(steps.part(index, len(wanted) - 1, component, 1), places)
        whole = from_the_beginning(steps, part, extents[batch + component])
        stride = float(prod(extents[batch + component + 1 :]))
        number = steps.binary(nn.AddOp, steps.binary(nn.MulOp, whole, stride), number)
    importer.note_rows(min(extents[batch:]))
    table, count = importer.in_order(importer.tensor(source)).value, prod(places)
    rows = importer.in_order(importer.tensor(number)).value
    found = looked_up(importer, table, (prod(extents), prod(shape[batch + depth :])), rows, count)
    final = (*places, *shape[batch + depth :])
    importer.result(node.proto.output[0], Tensor(found, final, tuple(range(len(final)))))
    if source in importer.integers:
        importer.integers.add(node.proto.output[0])


def tensor_scatter(importer: Importer, node: Node) -> None:
    """TensorScatter: a cache with an update written from an index on, which may be computed, for each of a batch."""
    cache, update, *indices = node.proto.input
    shape, axis = importer.shape(cache), int(node.get("axis", -2)) % len(importer.shape(cache))
    length, mode = importer.shape(update)[axis], node.get("mode", "linear")
    if not axis or mode not in ("linear", "circular"):
        raise NotSupported(f"axis {axis} and mode {mode}; an axis behind the batch, and linear or circular")
    steps, extent = Steps(importer, node), shape[axis]
    positions = steps.constant(np.arange(extent))
    results: list[str] = []
    for batch in range(shape[0]):
        begin = steps.shaped(steps.part(indices[0], 0, batch, 1), (1,)) if indices and indices[0] else ""
        number = _source(steps, positions, begin, extent, length, circular=mode == "circular")
        both = [steps.part(name, 0, batch, 1) for name in (cache, update)]
        results.append(_rows(steps, steps.operator("Concat", *both, axis=axis), number, axis, extent))
    importer.note_rows(extent - length + 1)
    steps.operator("Concat", *results, output=node.proto.output[0], axis=0)


def _source(steps: Steps, positions: str, begin: str, extent: int, length: int, *, circular: bool) -> str:
    """[extent]: for each position of the cache its number among the elements of cache and update."""
    place = steps.binary(nn.SubOp, positions, begin) if begin else positions
    if circular:
        before = steps.activation("step", steps.activation("neg", place))
        place = steps.binary(nn.AddOp, place, steps.binary(nn.MulOp, before, float(extent)))
    from_begin = steps.activation("step", steps.binary(nn.AddOp, place, 0.5))
    to_end = steps.activation("step", steps.binary(nn.SubOp, steps.constant(length - 0.5), place))
    inside = steps.binary(nn.MulOp, from_begin, to_end)
    further = steps.binary(nn.SubOp, steps.binary(nn.AddOp, place, float(extent)), positions)
    return steps.binary(nn.AddOp, positions, steps.binary(nn.MulOp, inside, further))


def _rows(steps: Steps, x: str, number: str, axis: int, count: int) -> str:
    """`count` elements along an axis by their numbers."""
    importer, shape = steps.importer, steps.importer.shape(x)
    front = importer.arranged(importer.tensor(x), (axis, *(a for a in range(len(shape)) if a != axis)))
    rows = importer.in_order(importer.tensor(number)).value
    value = looked_up(importer, front.value, (shape[axis], prod(shape) // shape[axis]), rows, count)
    return steps.value(Tensor(value, (*shape[:axis], count, *shape[axis + 1 :]), front.order))


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"TensorScatter": tensor_scatter}
"""ONNX operator → the function that emits it."""
