"""Convolutions and pools of ONNX with one to three dimensions. 1-D layers are 2-D here, with a height of 1.

A pool of volumes is one of images whose channels are depth and channel, and one along the depth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Attribute, SSAValue

from ml4f.dialects.nn import numbers, shapes
from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn.contraction_ops import Conv3dOp
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_computed import biased, kernel_operand
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import NotSupported, Shape, Tensor


class Window:
    """Kernel, strides, dilations and pads (first those at the beginnings) of an operator with one to three axes.

    One axis counts as two, with a height of 1.
    """

    def __init__(self, node: Node, size: Sequence[int], kernel: Sequence[int]):
        rank = len(kernel)
        if rank not in (1, 2, 3) or len(size) != rank:
            raise NotSupported(f"a window {list(kernel)} on {list(size)}; one to three dimensions are supported")
        self.size = two(size, 1)
        self.kernel = two(kernel, 1)
        self.strides = two(node.ints("strides", (1,) * rank), 1)
        self.dilations = two(node.ints("dilations", (1,) * rank), 1)
        pads = node.ints("pads", (0,) * (2 * rank))
        if len(pads) != 2 * rank:
            raise NotSupported(f"{len(pads)} pads for a {rank}-D window")
        self.axes = len(self.kernel)
        self.pads = [*two(pads[:rank], 0), *two(pads[rank:], 0)]
        self._automatic(node.get("auto_pad", "NOTSET"))
        self.counted = list(self.pads)
        """The padding that the model declares, without what ceil_mode adds."""
        if min(self.pads) < 0:
            raise NotSupported(f"negative pads {self.pads}; crop in a layer of its own")

    def _automatic(self, mode: str) -> None:
        if mode == "VALID":
            self.pads = [0] * (2 * self.axes)
        elif mode in ("SAME_UPPER", "SAME_LOWER"):
            for i in range(self.axes):
                out = -(-self.size[i] // self.strides[i])
                total = max(0, (out - 1) * self.strides[i] + self._reach(i) - self.size[i])
                small, large = total // 2, total - total // 2
                ends = (small, large) if mode == "SAME_UPPER" else (large, small)
                self.pads[i], self.pads[i + self.axes] = ends
        elif mode not in ("NOTSET", ""):
            raise NotSupported(f"auto_pad {mode}")

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def ceil(self) -> None:
        """Extend the pads at the end as ceil_mode demands: no window begins behind the input and its first padding."""
        for i in range(self.axes):
            available = self.size[i] + self.pads[i] + self.pads[i + self.axes] - self._reach(i)
            out = -(-available // self.strides[i]) + 1
            if (out - 1) * self.strides[i] >= self.size[i] + self.pads[i]:
                out -= 1
            self.pads[i + self.axes] += max(0, (out - 1) * self.strides[i] - available)

    def shape(self) -> Shape:
        """The extents of the output."""
        try:
            return tuple(
                shapes.window_extent(
                    self.size[i],
                    self.kernel[i],
                    self.strides[i],
                    self.dilations[i],
                    self.pads[i],
                    self.pads[i + self.axes],
                )
                for i in range(self.axes)
            )
        except ValueError as error:
            raise NotSupported(str(error)) from None

    def properties(self) -> dict[str, Attribute]:
        """For a convolution operation, or a pool on two axes."""
        return {
            "strides": numbers(self.strides),
            "dilations": numbers(self.dilations),
            "pads": numbers(self.pads),
        }

    def across(self, axes: Sequence[int]) -> Window:
        """The part on one axis or two, as two."""
        made = copy.copy(self)
        for name, first in (("size", 1), ("kernel", 1), ("strides", 1), ("dilations", 1)):
            setattr(made, name, two([getattr(self, name)[i] for i in axes], first))
        for name in ("pads", "counted"):
            values = getattr(self, name)
            ends = [two([values[i + end] for i in axes], 0) for end in (0, self.axes)]
            setattr(made, name, [*ends[0], *ends[1]])
        made.axes = 2
        return made


def two(values: Sequence[int], first: int) -> list[int]:
    """One value as two, `first` for the missing height; others as they are."""
    return [first, *values] if len(values) == 1 else list(values)


def channels_last(importer: Importer, name: str, most: int = 2) -> tuple[Tensor, SSAValue, Shape]:
    """A [1, C, …] tensor as [h, w, c], or [d, h, w, c] if there may be three axes."""
    tensor = importer.tensor(name)
    rank = len(tensor.shape)
    if not 3 <= rank <= most + 2 or tensor.shape[0] != 1:
        more = ("one", "one or two", "one to three")[most - 1]
        raise NotSupported(f"the input {list(tensor.shape)} should be [1, channels, …] with {more} more axes")
    tensor = importer.arranged(tensor, (0, *range(2, rank), 1))
    spatial = two(tensor.shape[2:], 1)
    shape = (*spatial, tensor.shape[1])
    return tensor, importer.reshaped(tensor.value, shape), shape


def window_result(
    importer: Importer, node: Node, value: SSAValue, out: Shape, channels: int, rank: int, name: str | None = None
) -> None:
    """Name the output of an operator that works channels last."""
    spatial = out[1:] if rank == 3 else out
    order = (0, *range(2, rank), 1)
    importer.result(name or node.proto.output[0], Tensor(value, (1, channels, *spatial), order))


def check_kernel(node: Node, kernel: Sequence[int]) -> Sequence[int]:
    """The kernel's extents, which the node may repeat."""
    said = node.ints("kernel_shape", kernel)
    if tuple(said) != tuple(kernel):
        raise NotSupported(f"kernel_shape {list(said)} for weights of {list(kernel)}")
    return kernel


def check_weights(importer: Importer, node: Node) -> Shape:
    """The extents of a convolution's weights, which have as many axes as its input."""
    source, weights = (importer.shape(name) for name in node.proto.input[:2])
    if len(weights) != len(source):
        raise NotSupported(f"weights {list(weights)} do not fit the input {list(source)}")
    return weights


def constant_weights(importer: Importer, node: Node) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The weights and the bias of a convolution, if there is one; None if one of them is computed."""
    names = [*node.proto.input, ""]
    weights, bias = importer.const(names[1]), importer.const(names[2])
    return None if weights is None or (names[2] and bias is None) else (weights, bias)


def conv(importer: Importer, node: Node) -> None:
    """Conv with weights [f, c / groups, …]. A bias to computed weights, or a computed bias, is added behind it."""
    filters, per_group, *extents = check_weights(importer, node)
    tensor, x, shape = channels_last(importer, node.proto.input[0], 3)
    rank = len(tensor.shape)
    window = Window(node, tensor.shape[2:], check_kernel(node, extents))
    out = window.shape()
    groups = int(node.get("group", 1))
    if groups < 1 or per_group * groups != shape[-1] or filters % groups:
        problem = f"weights {[filters, per_group, *extents]} in {groups} groups do not fit {shape[-1]} channels"
        raise NotSupported(problem)
    depthwise = groups == shape[-1] and groups > 1 and rank < 5
    channels = (groups, filters // groups) if depthwise else (per_group, filters)
    operands, constants = [x], constant_weights(importer, node)
    name, bias = node.proto.output[0], [*node.proto.input, ""][2]
    if constants is None:
        operands.append(kernel_operand(importer, node.proto.input[1], (*window.kernel, *channels)))
        name = f"{name}/unbiased" if bias else name
    else:
        kernel = np.moveaxis(constants[0].reshape(filters, per_group, *window.kernel), (1, 0), (-2, -1))
        operands.append(importer.constant(kernel.reshape(*window.kernel, *channels)))
        operands.extend([] if constants[1] is None else [importer.constant(constants[1].reshape(-1))])
    properties: dict[str, Attribute] = {} if depthwise else {"groups": IntegerAttr(groups, i64)}
    op = nn.DepthwiseConv2dOp if depthwise else Conv3dOp if rank == 5 else nn.Conv2dOp
    value = importer.emit(op, operands, (*out, filters), **properties, **window.properties())
    window_result(importer, node, value, out, filters, rank, name)
    if name != node.proto.output[0]:
        biased(importer, node, name, bias)


def volume(importer: Importer, name: str) -> Tensor:
    """A [1, C, d, h, w] tensor with the order h, w, d, c in memory."""
    return importer.arranged(importer.tensor(name), (0, 3, 4, 2, 1))


Pool = Callable[[SSAValue, Window, Shape], SSAValue]
"""Emits a pool of [h, w, c] with a window; the shape is the result's."""


def pooled(importer: Importer, node: Node, pool: Pool) -> None:
    """A pool of the node's input, of volumes in two steps."""
    name = node.proto.input[0]
    shape = importer.shape(name)
    if len(shape) != 5 or shape[0] != 1:
        tensor, x, (*_, channels) = channels_last(importer, name, 3)
        window = Window(node, tensor.shape[2:], node.ints("kernel_shape"))
        if node.get("ceil_mode", 0):
            window.ceil()
        out = window.shape()
        window_result(importer, node, pool(x, window, (*out, channels)), out, channels, len(shape))
        return
    window = Window(node, shape[2:], node.ints("kernel_shape"))
    if node.get("ceil_mode", 0):
        window.ceil()
    channels, (depth, height, width) = shape[1], window.shape()
    value = importer.reshaped(volume(importer, name).value, (*shape[3:], shape[2] * channels))
    value = pool(value, window.across((1, 2)), (height, width, shape[2] * channels))
    value = importer.reshaped(value, (height * width, shape[2], channels))
    along = window.across((0,))
    along.size[0] = height * width
    value = pool(value, along, (height * width, depth, channels))
    importer.result(node.proto.output[0], Tensor(value, (1, channels, depth, height, width), (0, 3, 4, 2, 1)))


def max_pool(importer: Importer, node: Node) -> None:
    """MaxPool without indices."""

    def pool(x: SSAValue, window: Window, shape: Shape) -> SSAValue:
        return importer.emit(nn.MaxPool2dOp, [x], shape, kernel=numbers(window.kernel), **window.properties())

    pooled(importer, node, pool)


def average_pool(importer: Importer, node: Node, whole: bool = False) -> None:
    """AveragePool; padding counts only if count_include_pad says so, what ceil_mode adds never does.

    `whole`: every window counts as many elements as the kernel has.
    """
    include = whole or bool(node.get("count_include_pad", 0))

    def pool(x: SSAValue, window: Window, shape: Shape) -> SSAValue:
        return importer.emit(
            nn.AvgPool2dOp,
            [x],
            shape,
            kernel=numbers(window.kernel),
            count_include_pad=IntegerAttr(1, i64) if include else None,
            counted_pads=numbers(window.counted) if include and not whole and window.counted != window.pads else None,
            **window.properties(),
        )

    pooled(importer, node, pool)


def global_pool(importer: Importer, node: Node) -> None:
    """GlobalAveragePool, GlobalMaxPool."""
    tensor, x, shape = channels_last(importer, node.proto.input[0], 3)
    pixels, channels = shape[:-1], shape[-1]
    size = (prod(pixels[:-1]), pixels[-1])
    value = importer.emit(
        nn.AvgPool2dOp if node.op_type == "GlobalAveragePool" else nn.MaxPool2dOp,
        [importer.reshaped(x, (*size, channels))],
        (1, 1, channels),
        kernel=numbers(size),
        strides=numbers((1, 1)),
        dilations=numbers((1, 1)),
        pads=numbers((0, 0, 0, 0)),
    )
    ones = (1,) * len(pixels)
    window_result(importer, node, value, ones, channels, len(tensor.shape))
