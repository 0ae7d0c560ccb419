"""Handlers of ONNX operators that move elements in less regular ways: picks, reflections, blocks, interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx

from ml4f.dialects.nn import ops as nn
from ml4f.frontend import importer_copies as copies
from ml4f.frontend import importer_shapes as shape_ops
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_contractions import product
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_reading import evaluate_node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported, Tensor

MAX_RUNS = 64
"""Of evenly spaced indices: each is a copy of its own."""

FEW_RUNS = 4
"""So many copies are cheaper than a product with a matrix, and leave infinities where they are."""

MAX_MATRIX = 1 << 16
"""Elements of the matrix that interpolates along one axis."""


def runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, step, count) of evenly spaced stretches, equal neighbours apart."""
    found: list[tuple[int, int, int]] = []
    position = 0
    while position < len(indices):
        count, step = 1, 1
        if position + 1 < len(indices) and indices[position + 1] != indices[position]:
            step, count = indices[position + 1] - indices[position], 2
            while position + count < len(indices) and indices[position + count] - indices[position + count - 1] == step:
                count += 1
        found.append((indices[position], step, count))
        position += count
    return found


def picked(importer: Importer, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    """The elements of these numbers along an axis."""
    stretches = runs(indices)
    if len(stretches) > MAX_RUNS:
        raise NotSupported(f"{len(indices)} indices in {len(stretches)} stretches; at most {MAX_RUNS} are supported")
    parts = []
    for first, step, count in stretches:
        start, steps, sizes = [0] * len(x.shape), [1] * len(x.shape), list(x.shape)
        start[axis], steps[axis], sizes[axis] = first, step, count
        parts.append(shape_ops.sliced(importer, x, start, steps, sizes))
    return shape_ops.joined(importer, parts, axis)


def pad(importer: Importer, node: Node) -> None:
    """Pad with a constant, or with the elements themselves: reflect, edge, wrap."""
    mode = node.get("mode", "constant")
    if mode == "constant":
        shape_ops.pad(importer, node)
        return
    x = importer.tensor(node.proto.input[0])
    low, high = shape_ops.amounts(importer, node, len(x.shape))[:2]
    modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in modes:
        raise NotSupported(f"padding mode {mode}; constant, reflect, edge and wrap are supported")
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if not before and not after:
            continue
        numbers = np.arange(x.shape[axis])[max(-before, 0) : x.shape[axis] - max(-after, 0)]
        around = np.pad(numbers, (max(before, 0), max(after, 0)), mode=modes[mode])  # pyright: ignore[reportCallIssue, reportArgumentType]
        x = picked(importer, x, axis, [int(n) for n in around])
    importer.result(node.proto.output[0], x)


def _blocks(importer: Importer, node: Node, apart: Sequence[int], order: Sequence[int], final: Sequence[int]) -> None:
    """Reshape, transpose, reshape."""
    x = importer.in_order(importer.tensor(node.proto.input[0]))
    split = Tensor(x.value, tuple(apart), tuple(range(len(apart))))
    moved = Tensor(split.value, tuple(apart[a] for a in order), tuple(order.index(axis) for axis in split.order))
    made = importer.in_order(moved)
    importer.result(node.proto.output[0], Tensor(made.value, tuple(final), tuple(range(len(final)))))


def depth_to_space(importer: Importer, node: Node) -> None:
    """Channels become blocks of pixels."""
    n, c, h, w = importer.shape(node.proto.input[0])
    b = int(node.get("blocksize", 1))
    if c % (b * b):
        raise NotSupported(f"blocks of {b} x {b} of {c} channels")
    final = (n, c // (b * b), h * b, w * b)
    if node.get("mode", "DCR") == "DCR":
        _blocks(importer, node, (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2), final)
    else:
        _blocks(importer, node, (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3), final)


def space_to_depth(importer: Importer, node: Node) -> None:
    """Blocks of pixels become channels."""
    n, c, h, w = importer.shape(node.proto.input[0])
    b = int(node.get("blocksize", 1))
    if h % b or w % b:
        raise NotSupported(f"blocks of {b} x {b} of {h} x {w} pixels")
    apart = (n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    _blocks(importer, node, apart, order, (n, c * b * b, h // b, w // b))


# Resize


def resize(importer: Importer, node: Node) -> None:
    """Resize and Upsample: elements repeated by whole factors, or a product with a constant matrix along each axis."""
    try:
        copies.resize(importer, node)
        return
    except (NotSupported, ValueError):
        if node.op_type == "Upsample" or importer.opset < 11:
            raise
    x = importer.tensor(node.proto.input[0])
    scales, sizes = _extents(importer, node, x.shape)
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        _crop_and_resize(importer, node, x, scales, sizes)
        return
    for axis, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        if scale != 1 or size not in (None, x.shape[axis]):
            x = _interpolated(importer, x, axis, _matrix(importer, node, x.shape[axis], scale, size))
    importer.result(node.proto.output[0], x)


def _interpolated(importer: Importer, x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    """Along an axis; where every new element is an old one, and they are evenly spaced, nothing is computed."""
    chosen = matrix.argmax(axis=1)
    if np.array_equal(matrix, np.eye(matrix.shape[1])[chosen]) and len(runs(chosen.tolist())) <= FEW_RUNS:
        return picked(importer, x, axis, chosen.tolist())
    return along_axis(importer, x, axis, matrix)


def _crop_and_resize(
    importer: Importer, node: Node, x: Tensor, scales: Sequence[float], sizes: Sequence[int | None]
) -> None:
    """Interpolates a constant region of interest; elements outside of the input have a value of their own."""
    rank, given = len(x.shape), importer.const(node.proto.input[1])
    axes = [axis % rank for axis in node.ints("axes")] or list(range(rank))
    if given is None or given.size != 2 * len(axes):
        raise NotSupported("the region of interest must be constant, with a start and an end for each axis")
    ends = [[float(v) for v in half] for half in np.split(np.ravel(given), 2)]
    regions = dict(zip(axes, zip(*ends, strict=True), strict=True))
    steps = Steps(importer, node)
    for axis, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        region, extent = regions.get(axis, (0.0, 1.0)), x.shape[axis]
        count = int(np.floor(extent * scale)) if size is None else size
        if count == extent and region != (0.0, 1.0):
            raise NotSupported(
                "a crop that keeps the extent, on which runtimes do not agree; crop in a layer of its own"
            )
        if count == extent:
            continue
        if count < 1 or extent * count > MAX_MATRIX:
            raise NotSupported(f"{extent} elements to {count}; the matrix should have 1 to {MAX_MATRIX} elements")
        node.attributes.seen.update(node.attributes)
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        kept = [a for a in node.proto.attribute if a.name not in ("axes", "keep_aspect_ratio_policy")]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        proto.input[:] = ["x", "region", "", "sizes"]
        values = {
            "x": np.concatenate([np.zeros((1, extent)), np.eye(extent)]).astype(np.float32),
            "region": np.array([0, region[0], 1, region[1]], dtype=np.float32),
            "sizes": np.array([extent + 1, count], dtype=np.int64),
        }
        nothing, *units = np.asarray(evaluate_node(proto, values, importer.opset)[0])
        matrix = np.stack([unit - nothing for unit in units], axis=1).astype(np.float32)
        x = along_axis(importer, x, axis, matrix)
        if np.any(nothing):
            outside = nothing.reshape([count if a == axis else 1 for a in range(rank)])
            x = importer.tensor(steps.binary(nn.AddOp, steps.value(x), steps.constant(outside)))
    importer.result(node.proto.output[0], x)


def _extents(importer: Importer, node: Node, shape: Sequence[int]) -> tuple[list[float], list[int | None]]:
    """The factor of every axis, and its new extent where the node says it."""
    names = [*node.proto.input[1:], "", "", ""]
    given = importer.const(names[2]) if names[2] else importer.const(names[1])
    if given is None:
        raise NotSupported("the scales or sizes must be constants")
    axes = [axis % len(shape) for axis in node.ints("axes")] or list(range(len(shape)))
    scales: list[float] = [1.0] * len(shape)
    sizes: list[int | None] = [None] * len(shape)
    for axis, value in zip(axes, np.ravel(given), strict=True):
        scales[axis] = float(value) / shape[axis] if names[2] else float(value)
        sizes[axis] = int(value) if names[2] else None
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if names[2] and policy != "stretch":
        chosen = (min if policy == "not_larger" else max)(scales[axis] for axis in axes)
        for axis in axes:
            scales[axis], sizes[axis] = chosen, int(np.floor(chosen * shape[axis] + 0.5))
    return scales, sizes


def _matrix(importer: Importer, node: Node, extent: int, scale: float, size: int | None) -> np.ndarray:
    """[new, old]: what onnx's evaluator makes of each unit vector; every mode is linear in the elements."""
    if extent * extent * scale > MAX_MATRIX:
        raise NotSupported(f"{extent} elements times {scale:g} need a matrix of more than {MAX_MATRIX} elements")
    count = int(np.floor(extent * scale)) if size is None else size
    if count < 1:
        raise NotSupported("an empty result")
    if node.get("coordinate_transformation_mode") == "align_corners" and size is None and count != extent * scale:
        problem = f"{extent} elements times {scale:g} with align_corners, on which runtimes do not agree"
        raise NotSupported(f"{problem}; export the model with sizes instead of scales")
    if node.get("mode", "nearest") == "nearest":
        return np.eye(extent, dtype=np.float32)[nearest(node, extent, np.float32(scale), count)]
    if (
        node.get("coordinate_transformation_mode") == "pytorch_half_pixel"
        and count == 1
        and not node.get("antialias", 0)
    ):
        return np.eye(1, extent, dtype=np.float32)  # the first element; onnx's evaluator takes the place before it
    left_out = ("axes", "keep_aspect_ratio_policy")
    node.attributes.seen.update(node.attributes)
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    kept = [attribute for attribute in node.proto.attribute if attribute.name not in left_out]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    del proto.input[:]
    proto.input.extend(["x", "", "scales"])
    values = {"x": np.eye(extent, dtype=np.float32), "scales": np.array([1, scale], dtype=np.float32)}
    made = np.asarray(evaluate_node(proto, values, importer.opset)[0])
    if made.shape != (extent, count):
        del proto.input[:]
        proto.input.extend(["x", "", "", "sizes"])
        values = {"x": values["x"], "sizes": np.array([extent, count], dtype=np.int64)}
        made = np.asarray(evaluate_node(proto, values, importer.opset)[0])
    return made.T.astype(np.float32)


def nearest(node: Node, extent: int, scale: np.float32, count: int) -> np.ndarray:
    """Which of `extent` elements each of `count` new ones is, in float32 like onnxruntime, whose rounding counts."""
    one, half, new = np.float32(1), np.float32(0.5), np.arange(count, dtype=np.float32)
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    centred = (new + half) / scale - half
    if mode == "align_corners":
        places = new * np.float32(extent - 1) / np.float32(count - 1) if count > 1 else np.zeros_like(new)
    elif mode == "asymmetric":
        places = new / scale
    elif mode == "pytorch_half_pixel":
        places = centred if count > 1 else np.zeros_like(new)
    elif mode == "tf_half_pixel_for_nn":
        places = (new + half) / scale
    elif mode == "half_pixel_symmetric":
        adjustment = np.float32(count) / (scale * np.float32(extent))
        places = np.float32(extent) / 2 * (one - adjustment) + centred
    elif mode == "half_pixel":
        places = centred
    else:
        raise NotSupported(f"coordinates by {mode}")
    rounding = node.get("nearest_mode", "round_prefer_floor")
    down, up = np.floor(places), np.ceil(places)
    middle = places - down
    chosen = {
        "floor": down,
        "ceil": up,
        "round_prefer_floor": np.where(middle <= half, down, up),
        "round_prefer_ceil": np.where(middle < half, down, up),
    }
    if rounding not in chosen:
        raise NotSupported(f"nearest elements by {rounding}")
    return np.clip(chosen[rounding], 0, extent - 1).astype(int)


def along_axis(importer: Importer, x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    """Every line of elements along an axis times a matrix [new, old]."""
    position = x.order.index(axis)
    ordered = x.ordered
    outer, inner = prod(ordered[:position]), prod(ordered[position + 1 :])
    lines = Tensor(
        importer.reshaped(x.value, (outer, ordered[position], inner)), (outer, ordered[position], inner), (0, 1, 2)
    )
    weights = Tensor(importer.constant(matrix[None]), (1, *matrix.shape), (0, 1, 2))
    made = product(importer, weights, lines)
    shape = tuple(matrix.shape[0] if a == axis else n for a, n in enumerate(x.shape))
    return Tensor(made.value, shape, x.order)


def cumulative_sum(importer: Importer, node: Node) -> None:
    """CumSum along a constant axis: a product with a triangular matrix of ones."""
    x = importer.tensor(node.proto.input[0])
    given = importer.const(node.proto.input[1])
    if given is None:
        raise NotSupported("the axis must be a constant")
    axis = int(np.ravel(given)[0]) % len(x.shape)
    extent = x.shape[axis]
    if extent * extent > MAX_MATRIX:
        raise NotSupported(f"over {extent} elements; at most {int(MAX_MATRIX**0.5)} are supported")
    matrix = np.tri(extent, k=-1 if node.get("exclusive", 0) else 0, dtype=np.float32)
    matrix = matrix.T if node.get("reverse", 0) else matrix
    importer.result(node.proto.output[0], along_axis(importer, x, axis, np.ascontiguousarray(matrix)))


def triangle(importer: Importer, node: Node) -> None:
    """Trilu: the part above or below a diagonal, zeros elsewhere."""
    source = node.proto.input[0]
    rows, columns = importer.shape(source)[-2:]
    offset = importer.const(node.proto.input[1]) if len(node.proto.input) > 1 and node.proto.input[1] else np.array(0)
    if offset is None:
        raise NotSupported("the diagonal must be a constant")
    ones, k = np.ones((rows, columns), dtype=np.float32), int(np.ravel(offset)[0])
    mask = np.triu(ones, k) if node.get("upper", 1) else np.tril(ones, k)
    steps = Steps(importer, node)
    steps.binary(nn.WhereOp, source, steps.constant(mask), node.proto.output[0])


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "CumSum": cumulative_sum,
    "DepthToSpace": depth_to_space,
    "Pad": pad,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
    "Trilu": triangle,
    "Upsample": resize,
}
"""ONNX operator → the function that emits it."""
