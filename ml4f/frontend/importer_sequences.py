"""Handlers of sequences of tensors: lists of names while importing, of which nothing is left in the code.

Exporters write them for `split`, `unbind` and `stack` in loops. Their lengths and the positions read must be known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported


def _position(importer: Importer, node: Node, index: int, default: int, count: int, last: int) -> int:
    """A constant position in a sequence of `count` tensors, up to `last`; negative ones count from the end."""
    names = [*node.proto.input, "", ""]
    if not names[index]:
        return default
    value = importer.const(names[index])
    if value is None:
        raise NotSupported("the position must be a constant")
    position = int(np.ravel(value)[0])
    position += count if position < 0 else 0
    if not 0 <= position <= last:
        raise NotSupported(f"position {position} of {count} tensors")
    return position


def _sequence(importer: Importer, node: Node) -> list[str]:
    found = importer.sequences.get(node.proto.input[0])
    if found is None:
        raise NotSupported("the sequence is an input of the model or optional; pass tensors")
    return found


def construct(importer: Importer, node: Node) -> None:
    """SequenceConstruct and SequenceEmpty."""
    node.get("dtype")
    importer.sequences[node.proto.output[0]] = list(node.proto.input)


def insert(importer: Importer, node: Node) -> None:
    """SequenceInsert: at the end, or before a position."""
    found = _sequence(importer, node)
    at = _position(importer, node, 2, len(found), len(found), len(found))
    importer.sequences[node.proto.output[0]] = [*found[:at], node.proto.input[1], *found[at:]]


def erase(importer: Importer, node: Node) -> None:
    """SequenceErase: the last one, or that at a position."""
    found = _sequence(importer, node)
    at = _position(importer, node, 1, len(found) - 1, len(found), len(found) - 1)
    importer.sequences[node.proto.output[0]] = [*found[:at], *found[at + 1 :]]


def at(importer: Importer, node: Node) -> None:
    """SequenceAt."""
    found = _sequence(importer, node)
    position = _position(importer, node, 1, 0, len(found), len(found) - 1)
    importer.alias(node.proto.output[0], found[position])


def length(importer: Importer, node: Node) -> None:
    """SequenceLength: a constant."""
    importer.constants[node.proto.output[0]] = np.array(len(_sequence(importer, node)), dtype=np.int64)


def split(importer: Importer, node: Node) -> None:
    """SplitToSequence: into parts of constant sizes, or single elements without their axis."""
    source = node.proto.input[0]
    shape = importer.shape(source)
    axis = int(node.get("axis", 0)) % len(shape)
    given = importer.const(node.proto.input[1]) if len(node.proto.input) > 1 and node.proto.input[1] else np.array(1)
    if given is None:
        raise NotSupported("the sizes must be constants")
    whole = len(node.proto.input) < 2 or not node.proto.input[1]
    if given.ndim == 0:
        size = int(given)
        sizes = [min(size, shape[axis] - first) for first in range(0, shape[axis], max(size, 1))]
    else:
        sizes = [int(n) for n in given]
    if min(sizes, default=0) < 1 or sum(sizes) != shape[axis]:
        raise NotSupported(f"parts {sizes} of {shape[axis]} elements")
    steps, first, parts = Steps(importer, node), 0, []
    keeps = bool(node.get("keepdims", 1))
    for size in sizes:
        part = steps.part(source, axis, first, size)
        if whole and not keeps:
            part = steps.shaped(part, (*shape[:axis], *shape[axis + 1 :]))
        parts.append(part)
        first += size
    if source in importer.integers:
        importer.integers.update(parts)
    importer.sequences[node.proto.output[0]] = parts


def concat(importer: Importer, node: Node) -> None:
    """ConcatFromSequence: side by side along an axis, or along a new one."""
    found = _sequence(importer, node)
    if not found:
        raise NotSupported("the sequence is empty")
    steps, rank = Steps(importer, node), len(importer.shape(found[0]))
    new = bool(node.get("new_axis", 0))
    axis = int(node.get("axis")) % (rank + new)
    parts = found
    if new:
        parts = [steps.shaped(name, (*importer.shape(name)[:axis], 1, *importer.shape(name)[axis:])) for name in found]
    if all(name in importer.constants for name in parts):
        arrays = [importer.constants[name] for name in parts]
        importer.constants[node.proto.output[0]] = np.concatenate(arrays, axis=axis)
        return
    steps.operator("Concat", *parts, output=node.proto.output[0], axis=axis)
    if any(name in importer.integers for name in found):
        importer.integers.add(node.proto.output[0])


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "ConcatFromSequence": concat,
    "SequenceAt": at,
    "SequenceConstruct": construct,
    "SequenceEmpty": construct,
    "SequenceErase": erase,
    "SequenceInsert": insert,
    "SequenceLength": length,
    "SplitToSequence": split,
}
"""ONNX operator → the function that emits it."""
