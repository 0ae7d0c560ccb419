"""Handlers of Det, EyeLike and CumProd, made of products of parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported

LARGEST_DETERMINANT = 4
"""Rows: larger matrices need a factorisation with a choice of pivots."""


def determinant(importer: Importer, node: Node) -> None:
    """Det of small matrices [..., n, n], by minors of the first row."""
    source, output = node.proto.input[0], node.proto.output[0]
    shape = importer.shape(source)
    size = shape[-1]
    if len(shape) < 2 or shape[-2] != size or not 1 <= size <= LARGEST_DETERMINANT:
        raise NotSupported(
            f"the determinant of {list(shape)}; square matrices of 1 to {LARGEST_DETERMINANT} rows have one"
        )
    steps, rank = Steps(importer, node), len(shape)

    def element(row: int, column: int) -> str:
        return steps.part(steps.part(source, rank - 2, row, 1), rank - 1, column, 1)

    elements = [[element(row, column) for column in range(size)] for row in range(size)]

    def minor(row: int, columns: tuple[int, ...]) -> str:
        if len(columns) == 1:
            return elements[row][columns[0]]
        total = ""
        for index, column in enumerate(columns):
            others = minor(row + 1, (*columns[:index], *columns[index + 1 :]))
            term = steps.binary(nn.MulOp, elements[row][column], others)
            total = steps.binary(nn.SubOp if index % 2 else nn.AddOp, total, term) if total else term
        return total

    importer.result(output, importer.tensor(steps.shaped(minor(0, tuple(range(size))), shape[:-2])))


def eye_like(importer: Importer, node: Node) -> None:
    """EyeLike: a constant of the input's shape, with ones on a diagonal."""
    shape, offset = importer.shape(node.proto.input[0]), int(node.get("k", 0))
    kind = node.get("dtype")
    if len(shape) != 2:
        raise NotSupported(f"a matrix like {list(shape)}")
    if kind is None:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.int64 if _is_whole(importer, node) else np.float32))
    values = np.eye(*shape, k=offset).astype(helper.tensor_dtype_to_np_dtype(kind))
    importer.constants[node.proto.output[0]] = values


def _is_whole(importer: Importer, node: Node) -> bool:
    return node.proto.input[0] in importer.integers


def cumulative_product(importer: Importer, node: Node) -> None:
    """CumProd along a constant axis: products with neighbours at distances 1, 2, 4, …, ones beyond the end."""
    source, output = node.proto.input[0], node.proto.output[0]
    shape, given = importer.shape(source), importer.const(node.proto.input[1])
    if given is None:
        raise NotSupported("the axis must be a constant")
    axis = int(np.ravel(given)[0]) % len(shape)
    extent, backwards = shape[axis], bool(node.get("reverse", 0))
    steps = Steps(importer, node)

    def moved(name: str, distance: int) -> str:
        kept = steps.part(name, axis, distance if backwards else 0, extent - distance) if distance < extent else ""
        ones = steps.constant(np.ones([min(distance, extent) if a == axis else n for a, n in enumerate(shape)]))
        parts = [name for name in ((kept, ones) if backwards else (ones, kept)) if name]
        return steps.operator("Concat", *parts, axis=axis) if kept else ones

    value = moved(source, 1) if node.get("exclusive", 0) else source
    distance = 1
    while distance < extent:
        value = steps.binary(nn.MulOp, value, moved(value, distance))
        distance *= 2
    if value in importer.constants:
        importer.constants[output] = importer.constants[value]
    else:
        importer.result(output, importer.tensor(value))


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "CumProd": cumulative_product,
    "Det": determinant,
    "EyeLike": eye_like,
}
"""ONNX operator → the function that emits it."""
