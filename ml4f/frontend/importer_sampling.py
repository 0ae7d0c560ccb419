"""Handlers of AffineGrid and GridSample: pixels at places that are constants or computed (spatial transformers).

Along each axis a place becomes some neighbours with weights. The elements of all pixels that a result is made of are
rows of a table, so that a place that is computed costs no more than one that is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import looked_up
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported, Tensor

MODES = {"bilinear": "linear", "linear": "linear", "bicubic": "cubic", "cubic": "cubic", "nearest": "nearest"}
"""Names of opset 16, and those of opset 20."""
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75
"""The parameter of the cubic kernel (Keys 1981), as ONNX and PyTorch set it."""
MAX_WHOLE = float(1 << 22)
"""Places are kept below, where float32 has halves; so far outside of an image they are all the same."""


def grid_sample(importer: Importer, node: Node) -> None:
    """GridSample of images or volumes [n, c, …] at a grid [n, …, axes]."""
    mode, padding = MODES.get(node.get("mode", "linear")), node.get("padding_mode", "zeros")
    corners = bool(node.get("align_corners", 0))
    source, grid = node.proto.input
    shape, places = importer.shape(source), importer.shape(grid)
    axes = len(shape) - 2
    if mode is None or padding not in PADDINGS:
        raise NotSupported(f"mode {node.get('mode')}, padding_mode {padding}")
    if len(places) != len(shape) or places[-1] != axes or places[0] != shape[0]:
        raise NotSupported(f"a grid {list(places)} for {list(shape)}")
    if mode == "cubic" and axes > 2:
        raise NotSupported("cubic interpolation of volumes, which runtimes do not have")
    steps, count = Steps(importer, node), prod(places[1:-1])
    results = []
    for image in range(shape[0]):
        pixels = importer.arranged(
            importer.tensor(steps.part(source, 0, image, 1)), (0, *range(2, len(shape)), 1)
        )  # rows of channels
        points = steps.shaped(steps.part(grid, 0, image, 1), (count, axes))
        neighbours = []
        for axis, extent in enumerate(shape[2:]):
            place = steps.part(points, 1, axes - 1 - axis, 1)
            neighbours.append(_neighbours(steps, place, extent, mode, padding, corners))
        results.append(_gathered(steps, pixels, neighbours, shape[1], shape[2:], count))
    made = results[0] if len(results) == 1 else steps.operator("Concat", *results, axis=0)
    last = len(shape) - 1
    tensor = importer.in_order(importer.tensor(made))
    moved = Tensor(tensor.value, (shape[0], shape[1], *places[1:-1]), (0, *range(2, last + 1), 1))
    importer.result(node.proto.output[0], moved)


Neighbours = list[tuple[str, str]]
"""Numbers along one axis, and the weights of the elements there."""


def _neighbours(steps: Steps, place: str, extent: int, mode: str, padding: str, corners: bool) -> Neighbours:
    """The elements along an axis that a place [n, 1] between -1 and 1 is interpolated from."""
    scale = (extent - 1) / 2 if corners else extent / 2
    x = steps.binary(nn.AddOp, steps.binary(nn.MulOp, place, scale), (extent - 1) / 2)
    x = steps.binary(nn.MinOp, steps.binary(nn.MaxOp, x, -MAX_WHOLE), MAX_WHOLE)
    if mode == "nearest":
        x = steps.activation("round", x)
    if mode != "cubic":  # there the runtimes move only the neighbours
        x = _inside(steps, x, extent, padding, corners)
    if mode == "nearest":
        return [_element(steps, steps.activation("floor", x), "", extent, padding, corners)]
    first = steps.activation("floor", x)
    rest = steps.binary(nn.SubOp, x, first)
    offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    weigh: Callable[[Steps, str, int], str] = _linear if mode == "linear" else _cubic
    return [
        _element(steps, steps.binary(nn.AddOp, first, float(n)), weigh(steps, rest, n), extent, padding, corners)
        for n in offsets
    ]


def _inside(steps: Steps, x: str, extent: int, padding: str, corners: bool) -> str:
    """Places outside of the image moved to its border, or reflected there."""
    if padding == "border":
        return steps.binary(nn.MinOp, steps.binary(nn.MaxOp, x, 0.0), float(extent - 1))
    if padding == "zeros":
        return x
    low, span = (0.0, float(extent - 1)) if corners else (-0.5, float(extent))
    if not span:
        return steps.binary(nn.MulOp, x, 0.0)
    # a triangle wave: the distance to the nearest even multiple of the span
    there = steps.binary(nn.SubOp, x, low)
    turns = steps.activation("floor", steps.binary(nn.AddOp, steps.binary(nn.MulOp, there, 0.5 / span), 0.5))
    folded = steps.activation("abs", steps.binary(nn.SubOp, there, steps.binary(nn.MulOp, turns, 2 * span)))
    return steps.binary(nn.AddOp, folded, low)


def _element(steps: Steps, number: str, weight: str, extent: int, padding: str, corners: bool) -> tuple[str, str]:
    """A number within the image and the weight there, "" for 1."""
    inside = _inside(steps, number, extent, padding, corners) if padding == "reflection" else number
    limited = steps.binary(nn.MinOp, steps.binary(nn.MaxOp, inside, 0.0), float(extent - 1))
    if padding == "zeros":
        off = steps.activation("abs", steps.binary(nn.SubOp, number, limited))
        present = steps.binary(nn.SubOp, steps.constant(1.0), steps.activation("step", off))
        weight = steps.binary(nn.MulOp, weight, present) if weight else present
    return limited, weight


def _linear(steps: Steps, rest: str, offset: int) -> str:
    return rest if offset else steps.binary(nn.SubOp, steps.constant(1.0), rest)


def _cubic(steps: Steps, rest: str, offset: int) -> str:
    """The kernel at the distance of the neighbour."""
    distance = steps.activation("abs", steps.binary(nn.SubOp, rest, float(offset)))
    near = (CUBIC + 2, -(CUBIC + 3), 0.0, 1.0)
    far = (CUBIC, -5 * CUBIC, 8 * CUBIC, -4 * CUBIC)
    value = steps.constant((near if offset in (0, 1) else far)[0])
    for factor in (near if offset in (0, 1) else far)[1:]:
        value = steps.binary(nn.AddOp, steps.binary(nn.MulOp, value, distance), factor)
    return value


def _gathered(
    steps: Steps, pixels: Tensor, axes: Sequence[Neighbours], channels: int, extents: Sequence[int], count: int
) -> str:
    """[1, n, c]: the weighted sum over all combinations of neighbours."""
    importer, total = steps.importer, ""
    for chosen in product(*axes):
        number, weight = "", ""
        for (index, own), extent in zip(chosen, extents, strict=True):
            number = steps.binary(nn.AddOp, steps.binary(nn.MulOp, number, float(extent)), index) if number else index
            weight = steps.binary(nn.MulOp, weight, own) if weight and own else weight or own
        index = importer.in_order(importer.tensor(number)).value
        rows = looked_up(importer, pixels.value, (prod(extents), channels), index, count)
        value = steps.value(Tensor(rows, (count, channels), (0, 1)))
        value = steps.binary(nn.MulOp, value, weight) if weight else value
        total = steps.binary(nn.AddOp, total, value) if total else value
    return steps.shaped(total, (1, count, channels))


def affine_grid(importer: Importer, node: Node) -> None:
    """AffineGrid of a constant size: the places of the pixels times each matrix.

    ONNX's own definition as a function does not hold for a batch of one.
    """
    theta, size = node.proto.input
    given, shape = importer.const(size), importer.shape(theta)
    if given is None:
        raise NotSupported("the size must be a constant")
    images, _, *extents = (int(n) for n in given)
    axes = len(extents)
    if shape != (images, axes, axes + 1):
        raise NotSupported(f"matrices {list(shape)} for the size {[int(n) for n in given]}")
    corners = bool(node.get("align_corners", 0))
    lines = [_places(extent, corners) for extent in extents]
    coordinates = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(extents)], axis=-1)
    steps = Steps(importer, node)
    turned = steps.operator("Transpose", theta, perm=[0, 2, 1])
    made = steps.operator("MatMul", steps.constant(coordinates.reshape(1, -1, axes + 1)), turned)
    importer.result(node.proto.output[0], importer.tensor(steps.shaped(made, (images, *extents, axes))))


def _places(extent: int, corners: bool) -> np.ndarray:
    """Of the pixels along an axis, from -1 to 1: of their centres, or with the first and last at the ends."""
    if extent == 1:
        return np.zeros(1)
    return np.linspace(-1, 1, extent) if corners else (2 * np.arange(extent) + 1) / extent - 1


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"AffineGrid": affine_grid, "GridSample": grid_sample}
"""ONNX operator → the function that emits it."""
