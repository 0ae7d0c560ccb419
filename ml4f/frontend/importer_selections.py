"""Handlers of ONNX operators that put elements elsewhere or choose some: OneHot, Scatter, TopK and their like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, i64

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import checked, constant_indices, looked_up, numbers_of, pieces
from ml4f.frontend.importer_masks import equal
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_scatter import computed_scatter_elements
from ml4f.frontend.importer_shapes import identity, joined
from ml4f.frontend.importer_shuffles import picked
from ml4f.frontend.importer_steps import Steps, squeezed
from ml4f.frontend.importer_values import NotSupported, Tensor

MOST_CHOSEN = 32
"""Elements that TopK finds, each with some passes over the input."""

REDUCTIONS: dict[str, tuple[type[nn.BinaryOp], float]] = {
    "add": (nn.AddOp, 0.0),
    "mul": (nn.MulOp, 1.0),
    "max": (nn.MaxOp, -np.inf),
    "min": (nn.MinOp, np.inf),
}
"""What Scatter does with an update and what is there: the operation, and what changes nothing."""


def compress(importer: Importer, node: Node) -> None:
    """Compress with a constant condition: those elements along an axis, or of all, where it is set."""
    source, output = node.proto.input[0], node.proto.output[0]
    condition = importer.const(node.proto.input[1])
    if condition is None:
        raise NotSupported("the condition must be a constant, or the number of results is unknown")
    chosen = np.flatnonzero(condition)
    if "axis" not in node.attributes:
        pieces(importer, node, chosen, ())
        return
    x = importer.tensor(source)
    axis = int(node.get("axis")) % len(x.shape)
    if not chosen.size or chosen[-1] >= x.shape[axis]:
        raise NotSupported(
            f"a condition of {condition.size} for {x.shape[axis]} elements, {chosen.size} of them chosen"
        )
    importer.result(output, picked(importer, x, axis, [int(n) for n in chosen]))


def reverse_sequence(importer: Importer, node: Node) -> None:
    """ReverseSequence with constant lengths: the first so many elements of each sequence backwards."""
    shape = importer.shape(node.proto.input[0])
    lengths = importer.const(node.proto.input[1])
    time, batch = int(node.get("time_axis", 0)), int(node.get("batch_axis", 1))
    if lengths is None or {time, batch} != {0, 1} or len(shape) < 2:
        raise NotSupported("the lengths must be constants, time and batch the first two axes")
    if lengths.size != shape[batch] or np.any((lengths < 0) | (lengths > shape[time])):
        raise NotSupported(f"lengths {list(lengths)} for {shape[batch]} sequences of {shape[time]} elements")
    places = list(np.indices(shape[:2]))
    own = lengths.astype(np.int64)[places[batch]]
    places[time] = np.where(places[time] < own, own - 1 - places[time], places[time])
    pieces(importer, node, numbers_of(places, shape[:2]), shape[2:])


# Scatter


def scatter_elements(importer: Importer, node: Node) -> None:
    """ScatterElements (and Scatter, its old name)."""
    data, index = node.proto.input[:2]
    shape = importer.shape(data)
    axis = int(node.get("axis", 0)) % len(shape)
    if data in importer.integers:
        importer.integers.add(node.proto.output[0])
    if importer.shape(index) != importer.shape(node.proto.input[2]):
        problem = f"{list(importer.shape(index))} indices for updates {list(importer.shape(node.proto.input[2]))}"
        raise NotSupported(problem)
    if importer.const(index) is None:
        reduction = node.get("reduction", "none")
        if reduction not in ("none", *REDUCTIONS):
            raise NotSupported(f"the reduction {reduction}; there are none, {', '.join(REDUCTIONS)}")
        computed_scatter_elements(importer, node, axis, REDUCTIONS.get(reduction))
        return
    indices = constant_indices(importer, node)
    places = [np.asarray(place) for place in np.indices(indices.shape)]
    places[axis] = checked(indices, shape[axis])
    _scatter(importer, node, np.ravel(numbers_of(places, shape)), ())


def scatter_nd(importer: Importer, node: Node) -> None:
    """ScatterND with constant indices."""
    shape, indices = importer.shape(node.proto.input[0]), constant_indices(importer, node)
    depth = indices.shape[-1]
    whole = checked(indices, np.array(shape[:depth]))
    numbers = numbers_of([whole[..., i] for i in range(depth)], shape[:depth])
    if (*indices.shape[:-1], *shape[depth:]) != importer.shape(node.proto.input[2]):
        raise NotSupported(f"{list(indices.shape)} indices for updates {list(importer.shape(node.proto.input[2]))}")
    _scatter(importer, node, np.ravel(numbers), shape[depth:])


def _scatter(importer: Importer, node: Node, targets: np.ndarray, behind: Sequence[int]) -> None:
    """The updates, pieces of extents `behind`, change the pieces of the data of these numbers, one after the other."""
    data, _, updates = node.proto.input
    output, reduction = node.proto.output[0], node.get("reduction", "none")
    shape, width = importer.shape(data), prod(behind)
    count = prod(shape) // width
    if not targets.size:
        identity(importer, node)
        return
    if reduction == "none":
        chosen = np.arange(count)
        chosen[targets] = count + np.arange(targets.size)
        result = _chosen(importer, [data, updates], chosen, width)
    elif reduction in REDUCTIONS:
        result = _reduced(importer, node, targets, width, *REDUCTIONS[reduction])
    else:
        raise NotSupported(f"the reduction {reduction}; there are none, {', '.join(REDUCTIONS)}")
    importer.result(output, Tensor(result.value, shape, tuple(range(len(shape)))))


def _reduced(
    importer: Importer, node: Node, targets: np.ndarray, width: int, op: type[nn.BinaryOp], neutral: float
) -> Tensor:
    """Rounds in which every piece of the data has one update or a neutral one."""
    data, _, updates = node.proto.input
    steps, count = Steps(importer, node), prod(importer.shape(data)) // width
    nothing = steps.constant(np.full(width, neutral))
    ordinal = np.array([np.count_nonzero(targets[:i] == n) for i, n in enumerate(targets)])
    whole = importer.in_order(importer.tensor(data))
    value = steps.value(Tensor(whole.value, (count, width), (0, 1)))
    for number in range(int(ordinal.max()) + 1):
        chosen = np.full(count, targets.size)
        now = np.flatnonzero(ordinal == number)
        chosen[targets[now]] = now
        value = steps.binary(op, value, steps.value(_chosen(importer, [updates, nothing], chosen, width)))
    return importer.in_order(importer.tensor(value))


def _chosen(importer: Importer, names: Sequence[str], numbers: np.ndarray, width: int) -> Tensor:
    """[n, width]: pieces of some tensors, numbered through one tensor after the other."""
    tensors = [importer.in_order(importer.tensor(name)) for name in names]
    rows = [prod(tensor.shape) // width for tensor in tensors]
    values = [importer.reshaped(tensor.value, (n, width)) for tensor, n in zip(tensors, rows, strict=True)]
    table = importer.emit(nn.ConcatOp, values, (sum(rows), width), axis=IntegerAttr(0, i64))
    index = importer.constant(numbers.astype(np.float32))
    value = looked_up(importer, table, (sum(rows), width), index, numbers.size)
    return Tensor(value, (numbers.size, width), (0, 1))


# Comparisons with positions


def one_hot(importer: Importer, node: Node) -> None:
    """OneHot: `on` where a position along the new axis is the index, or the index is that far from the end."""
    indices, depth_name, values = node.proto.input
    output = node.proto.output[0]
    depth_constant = importer.const(depth_name)
    if depth_constant is None:
        raise NotSupported("the depth must be a constant")
    depth, shape = int(np.ravel(depth_constant)[0]), importer.shape(indices)
    axis = int(node.get("axis", -1)) % (len(shape) + 1)
    expanded = (*shape[:axis], 1, *shape[axis:])
    extents = [depth if a == axis else 1 for a in range(len(expanded))]
    positions = np.arange(depth, dtype=np.float32).reshape(extents)
    steps = Steps(importer, node)
    constant = importer.const(indices)
    if constant is not None:
        index = np.reshape(constant, expanded)
        mask = steps.constant((index == positions) | (index + depth == positions))
    else:
        x = importer.in_order(importer.tensor(indices))
        place = steps.value(Tensor(x.value, expanded, tuple(range(len(expanded)))))
        found = [_is_equal(steps, place, steps.constant(positions - back)) for back in (0, depth)]
        mask = steps.binary(nn.MaxOp, found[0], found[1])
    off, on = (steps.value(_element(importer, values, number)) for number in (0, 1))
    hot = steps.binary(nn.WhereOp, on, mask)
    cold = steps.binary(nn.WhereOp, off, steps.binary(nn.SubOp, steps.constant(1.0), mask))
    steps.binary(nn.AddOp, hot, cold, output)


def _is_equal(steps: Steps, a: str, b: str) -> str:
    name = steps.fresh()
    proto = type(steps.node.proto)()
    proto.CopyFrom(steps.node.proto)
    proto.input[:], proto.output[:] = [a, b], [name]
    equal(steps.importer, steps.node.altered(proto))
    return name


def _element(importer: Importer, name: str, number: int) -> Tensor:
    """One element of a vector, as a scalar."""
    x = importer.tensor(name)
    return squeezed(picked(importer, x, 0, [number]), [0])


def top_k(importer: Importer, node: Node) -> None:
    """TopK with a constant k: the largest elements along an axis and their numbers, found one after the other."""
    source = node.proto.input[0]
    outputs = [*node.proto.output, ""]
    given = importer.const(node.proto.input[1]) if len(node.proto.input) > 1 else np.array(node.get("k"))
    if given is None:
        raise NotSupported("k must be a constant")
    count, shape = int(np.ravel(given)[0]), importer.shape(source)
    axis = int(node.get("axis", -1)) % len(shape)
    node.get("sorted")  # any order will do where it is 0
    if not 1 <= count <= min(shape[axis], MOST_CHOSEN):
        raise NotSupported(f"k {count} of {shape[axis]} elements; 1 to {MOST_CHOSEN} are supported")
    steps, extent = Steps(importer, node), float(shape[axis])
    positions = steps.constant(np.arange(extent).reshape([int(extent) if a == axis else 1 for a in range(len(shape))]))
    rest = source if node.get("largest", 1) else steps.activation("neg", source)
    behind, values, indices = positions, [], []
    for number in range(count):
        largest = steps.reduce("max", rest, [axis])
        values.append(largest)
        other = steps.activation("step", steps.binary(nn.SubOp, largest, rest))
        first = steps.reduce("min", steps.binary(nn.AddOp, behind, steps.binary(nn.MulOp, other, extent)), [axis])
        indices.append(first)
        if number < count - 1:
            distance = steps.activation("abs", steps.binary(nn.SubOp, positions, first))
            taken = steps.binary(nn.SubOp, steps.constant(1.0), steps.activation("step", distance))
            behind = steps.binary(nn.AddOp, behind, steps.binary(nn.MulOp, taken, 2 * extent))
            kept = steps.binary(nn.WhereOp, rest, steps.binary(nn.SubOp, steps.constant(1.0), taken))
            rest = steps.binary(nn.AddOp, kept, steps.binary(nn.WhereOp, steps.constant(-np.inf), taken))
    found = _side_by_side(importer, values, axis)
    if outputs[0]:
        if node.get("largest", 1):
            importer.result(outputs[0], found)
        else:
            steps.activation("neg", steps.value(found), output=outputs[0])
    if outputs[1]:
        importer.result(outputs[1], _side_by_side(importer, indices, axis))
        importer.integers.add(outputs[1])
        importer.bounds[outputs[1]] = extent


def _side_by_side(importer: Importer, names: Sequence[str], axis: int) -> Tensor:
    tensors = [importer.in_order(importer.tensor(name)) for name in names]
    return joined(importer, tensors, axis)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "Compress": compress,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top_k,
}
"""ONNX operator → the function that emits it."""
