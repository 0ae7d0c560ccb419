"""Handlers of ONNX operators that repeat or pick elements: Expand, Tile, Resize by whole factors, Split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_arithmetic import expanded
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import sliced
from ml4f.frontend.importer_types import MAX_ELEMENTS
from ml4f.frontend.importer_values import NotSupported, Tensor


def _constant_list(importer: Importer, name: str, what: str) -> list[float]:
    constant = importer.const(name)
    if constant is None:
        raise NotSupported(f"{what} must be constants")
    return [float(v) for v in np.ravel(constant)]


def _broadcast(importer: Importer, name: str, factors: Sequence[int], output: str) -> None:
    """Repeat along axes of extent 1."""
    x = expanded(importer.tensor(name), len(factors))
    sizes = [n * factor for n, factor in zip(x.shape, factors, strict=True)]
    if prod(sizes) > MAX_ELEMENTS:
        raise NotSupported("its output is too large for a microcontroller")
    steps = [1 if factor == 1 else 0 for factor in factors]
    importer.result(output, sliced(importer, x, [0] * len(sizes), steps, sizes))


def expand(importer: Importer, node: Node) -> None:
    """Broadcast to a constant shape."""
    shape = importer.shape(node.proto.input[0])
    wanted = [int(n) for n in _constant_list(importer, node.proto.input[1], "the extents")]
    rank = max(len(shape), len(wanted))
    own = (1,) * (rank - len(shape)) + tuple(shape)
    wanted = [1] * (rank - len(wanted)) + wanted
    if any(m != n and 1 not in (m, n) for m, n in zip(own, wanted, strict=True)):
        raise NotSupported(f"{list(shape)} cannot become {wanted}")
    _broadcast(
        importer,
        node.proto.input[0],
        [n if m == 1 else 1 for m, n in zip(own, wanted, strict=True)],
        node.proto.output[0],
    )


def repeated(importer: Importer, node: Node, name: str, factors: Sequence[int], inner: bool, output: str) -> None:
    """Each axis `factors` times: every element beside its copies (`inner`), or the whole axis again and again."""
    shape = importer.shape(name)
    if min(factors) < 1:
        raise NotSupported(f"an empty result, {list(factors)} copies")
    x = importer.in_order(importer.tensor(name))
    split: list[int] = []
    copies: list[int] = []
    for n, factor in zip(shape, factors, strict=True):
        pair = (n, 1) if inner else (1, n)
        split += [1, n] if factor == 1 else pair
        copies += [1, 1] if factor == 1 else ([1, factor] if inner else [factor, 1])
    apart = f"{output}/apart"
    importer.tensors[apart] = Tensor(x.value, tuple(split), tuple(range(len(split))))
    _broadcast(importer, apart, copies, f"{output}/copies")
    made = importer.in_order(importer.tensor(f"{output}/copies"))
    final = tuple(n * factor for n, factor in zip(shape, factors, strict=True))
    importer.result(output, Tensor(made.value, final, tuple(range(len(final)))))


def tile(importer: Importer, node: Node) -> None:
    """Tile by constant numbers of repeats."""
    factors = [int(n) for n in _constant_list(importer, node.proto.input[1], "the repeats")]
    if all(factor == 1 for factor in factors):
        importer.tensors[node.proto.output[0]] = importer.tensors[node.proto.input[0]]
        return
    repeated(importer, node, node.proto.input[0], factors, False, node.proto.output[0])


def resize(importer: Importer, node: Node) -> None:
    """Resize and Upsample that repeat every element a whole number of times."""
    if node.get("mode", "nearest") != "nearest":
        raise NotSupported(f"mode {node.get('mode')}; nearest by whole factors is supported")
    shape = importer.shape(node.proto.input[0])
    names = [*node.proto.input[1:], "", "", ""]
    if "scales" in node.attributes:  # Upsample before opset 9
        scales = [float(s) for s in node.attributes["scales"]]
    elif node.op_type == "Upsample" or importer.opset < 11:
        scales = _constant_list(importer, names[0], "the scales")
    elif names[2]:
        sizes = _constant_list(importer, names[2], "the sizes")
        scales = [m / n for m, n in zip(sizes, shape, strict=True)]
    else:
        scales = _constant_list(importer, names[1], "the scales")
    if "axes" in node.attributes:
        by_axis = dict(zip([a % len(shape) for a in node.ints("axes")], scales, strict=True))
        scales = [by_axis.get(axis, 1.0) for axis in range(len(shape))]
    if len(scales) != len(shape) or any(s != int(s) or s < 1 for s in scales):
        raise NotSupported(f"factors {scales}; whole factors are supported")
    _check_rounding(node)
    factors = [int(s) for s in scales]
    if all(factor == 1 for factor in factors):
        importer.tensors[node.proto.output[0]] = importer.tensors[node.proto.input[0]]
        return
    repeated(importer, node, node.proto.input[0], factors, True, node.proto.output[0])


def _check_rounding(node: Node) -> None:
    """Which element is nearest: those combinations that repeat each the same number of times."""
    transformation = node.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.get("nearest_mode", "round_prefer_floor")
    plain = node.op_type == "Upsample" or node.opset < 11
    half = transformation in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric") and rounding.startswith(
        "round"
    )
    if not (plain or half or (transformation == "asymmetric" and rounding == "floor")):
        raise NotSupported(f"nearest elements by {transformation}, {rounding}")


def split(importer: Importer, node: Node) -> None:
    """Split into parts of constant sizes."""
    x = importer.tensor(node.proto.input[0])
    axis = int(node.get("axis", 0)) % len(x.shape)
    outputs = list(node.proto.output)
    if len(node.proto.input) > 1 and node.proto.input[1]:
        sizes = [int(n) for n in _constant_list(importer, node.proto.input[1], "the sizes")]
    elif "split" in node.attributes:
        sizes = list(node.ints("split"))
    else:
        if int(node.get("num_outputs", len(outputs))) != len(outputs):
            raise NotSupported(f"num_outputs {node.get('num_outputs')} for {len(outputs)} outputs")
        part = -(-x.shape[axis] // len(outputs))
        sizes = [min(part, x.shape[axis] - part * i) for i in range(len(outputs))]
    if sum(sizes) != x.shape[axis] or len(sizes) != len(outputs):
        raise NotSupported(f"parts {sizes} of {x.shape[axis]} elements")
    first = 0
    for name, size in zip(outputs, sizes, strict=True):
        start, shape = [0] * len(x.shape), list(x.shape)
        start[axis], shape[axis] = first, size
        if name and not size:
            importer.constants[name] = np.zeros(shape, dtype=np.float32)
        elif name:
            importer.result(name, sliced(importer, x, start, [1] * len(shape), shape))
        first += size


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "Expand": expand,
    "Split": split,
    "Tile": tile,
}
"""ONNX operator → the function that emits it."""
