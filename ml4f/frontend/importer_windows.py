"""Convolutions, pools and reductions of ONNX, 1-D and 2-D. Everything is 2-D here: 1-D layers have height 1."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Attribute, SSAValue

from ml4f.dialects.nn import numbers, shapes
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer, Node, NotSupported, Shape, Tensor


class Window:
    """Kernel, strides, dilations and pads (top, left, bottom, right) of a 1-D or 2-D operator, as 2-D."""

    def __init__(self, node: Node, size: Sequence[int], kernel: Sequence[int]):
        rank = len(kernel)
        if rank not in (1, 2):
            raise NotSupported(f"{rank}-D windows are not supported, 1-D and 2-D are")
        self.size = two(size, 1)
        self.kernel = two(kernel, 1)
        self.strides = two(node.ints("strides", (1,) * rank), 1)
        self.dilations = two(node.ints("dilations", (1,) * rank), 1)
        pads = node.ints("pads", (0,) * (2 * rank))
        if len(pads) != 2 * rank:
            raise NotSupported(f"{len(pads)} pads for a {rank}-D window")
        self.pads = [*two(pads[:rank], 0), *two(pads[rank:], 0)]
        self._automatic(node.get("auto_pad", "NOTSET"))
        self.counted = list(self.pads)
        """The padding that the model declares, without what ceil_mode adds."""
        if min(self.pads) < 0:
            raise NotSupported(f"negative pads {self.pads}; crop in a layer of its own")

    def _automatic(self, mode: str) -> None:
        if mode == "VALID":
            self.pads = [0, 0, 0, 0]
        elif mode in ("SAME_UPPER", "SAME_LOWER"):
            for i in (0, 1):
                out = -(-self.size[i] // self.strides[i])
                reach = (self.kernel[i] - 1) * self.dilations[i] + 1
                total = max(0, (out - 1) * self.strides[i] + reach - self.size[i])
                small, large = total // 2, total - total // 2
                self.pads[i], self.pads[i + 2] = (small, large) if mode == "SAME_UPPER" else (large, small)
        elif mode not in ("NOTSET", ""):
            raise NotSupported(f"auto_pad {mode}")

    def ceil(self) -> None:
        """Extend the pads at the end as ceil_mode demands: no window begins behind the input and its first padding."""
        for i in (0, 1):
            reach = (self.kernel[i] - 1) * self.dilations[i] + 1
            available = self.size[i] + self.pads[i] + self.pads[i + 2] - reach
            out = -(-available // self.strides[i]) + 1
            if (out - 1) * self.strides[i] >= self.size[i] + self.pads[i]:
                out -= 1
            self.pads[i + 2] += max(0, (out - 1) * self.strides[i] - available)

    def shape(self) -> Shape:
        """Output height and width."""
        try:
            return shapes.window_shape(self.size, self.kernel, self.strides, self.dilations, self.pads)
        except ValueError as error:
            raise NotSupported(str(error)) from None

    def properties(self) -> dict[str, Attribute]:
        """For a convolution or pool operation."""
        return {
            "strides": numbers(self.strides),
            "dilations": numbers(self.dilations),
            "pads": numbers(self.pads),
        }


def two(values: Sequence[int], first: int) -> list[int]:
    """One value or two as two; `first` stands for a missing height."""
    return [first, *values] if len(values) == 1 else list(values)


def channels_last(importer: Importer, name: str) -> tuple[Tensor, SSAValue, Shape]:
    """A [1, C, …] tensor as [h, w, c]."""
    tensor = importer.tensor(name)
    rank = len(tensor.shape)
    if rank not in (3, 4) or tensor.shape[0] != 1:
        raise NotSupported(f"the input {list(tensor.shape)} should be [1, channels, …] with one or two more axes")
    tensor = importer.arranged(tensor, (0, *range(2, rank), 1))
    spatial = two(tensor.shape[2:], 1)
    shape = (*spatial, tensor.shape[1])
    return tensor, importer.reshaped(tensor.value, shape), shape


def window_result(importer: Importer, node: Node, value: SSAValue, out: Shape, channels: int, rank: int) -> None:
    """Name the output of an operator that works channels last."""
    spatial = out if rank == 4 else out[1:]
    order = (0, *range(2, rank), 1)
    importer.result(node.proto.output[0], Tensor(value, (1, channels, *spatial), order))


def check_kernel(node: Node, kernel: Sequence[int]) -> Sequence[int]:
    """The kernel's extents, which the node may repeat."""
    said = node.ints("kernel_shape", kernel)
    if tuple(said) != tuple(kernel):
        raise NotSupported(f"kernel_shape {list(said)} for weights of {list(kernel)}")
    return kernel


def conv(importer: Importer, node: Node) -> None:
    """Conv with constant weights [f, c / groups, …]."""
    names = [*node.proto.input, "", ""]
    weights = importer.const(names[1])
    bias = importer.const(names[2])
    if weights is None or (names[2] and bias is None):
        raise NotSupported("the weights must be constants")
    tensor, x, shape = channels_last(importer, names[0])
    rank = len(tensor.shape)
    if weights.ndim != rank:
        raise NotSupported(f"weights {list(weights.shape)} do not fit the input {list(tensor.shape)}")
    window = Window(node, tensor.shape[2:], check_kernel(node, weights.shape[2:]))
    out = window.shape()
    groups = int(node.get("group", 1))
    filters, per_group = weights.shape[:2]
    if groups < 1 or per_group * groups != shape[2] or filters % groups:
        raise NotSupported(f"weights {list(weights.shape)} in {groups} groups do not fit {shape[2]} channels")
    kernel = weights.reshape(filters, per_group, *window.kernel).transpose(2, 3, 1, 0)
    depthwise = groups == shape[2] and groups > 1
    if depthwise:
        kernel = kernel.reshape(*window.kernel, groups, filters // groups)
    operands = [x, importer.constant(kernel)]
    if bias is not None:
        operands.append(importer.constant(bias.reshape(-1)))
    if depthwise:
        value = importer.emit(nn.DepthwiseConv2dOp, operands, (*out, filters), **window.properties())
    else:
        attribute = IntegerAttr(groups, i64)
        properties = {"groups": attribute, **window.properties()}
        value = importer.emit(nn.Conv2dOp, operands, (*out, filters), **properties)
    window_result(importer, node, value, out, filters, rank)


def max_pool(importer: Importer, node: Node) -> None:
    """MaxPool without indices."""
    if len([name for name in node.proto.output if name]) > 1:
        raise NotSupported("the indices of MaxPool are not computed")
    tensor, x, shape = channels_last(importer, node.proto.input[0])
    window = Window(node, tensor.shape[2:], node.ints("kernel_shape"))
    if node.get("ceil_mode", 0):
        window.ceil()
    out = window.shape()
    kernel = numbers(window.kernel)
    value = importer.emit(nn.MaxPool2dOp, [x], (*out, shape[2]), kernel=kernel, **window.properties())
    window_result(importer, node, value, out, shape[2], len(tensor.shape))


def average_pool(importer: Importer, node: Node) -> None:
    """AveragePool; padding counts only if count_include_pad says so, what ceil_mode adds never does."""
    tensor, x, shape = channels_last(importer, node.proto.input[0])
    window = Window(node, tensor.shape[2:], node.ints("kernel_shape"))
    include = bool(node.get("count_include_pad", 0))
    if node.get("ceil_mode", 0):
        window.ceil()
    out = window.shape()
    value = importer.emit(
        nn.AvgPool2dOp,
        [x],
        (*out, shape[2]),
        kernel=numbers(window.kernel),
        count_include_pad=IntegerAttr(1, i64) if include else None,
        counted_pads=numbers(window.counted) if include and window.counted != window.pads else None,
        **window.properties(),
    )
    window_result(importer, node, value, out, shape[2], len(tensor.shape))


def global_pool(importer: Importer, node: Node) -> None:
    """GlobalAveragePool, GlobalMaxPool."""
    tensor, x, shape = channels_last(importer, node.proto.input[0])
    op = nn.AvgPool2dOp if node.op_type == "GlobalAveragePool" else nn.MaxPool2dOp
    value = importer.emit(
        op,
        [x],
        (1, 1, shape[2]),
        kernel=numbers(shape[:2]),
        strides=numbers((1, 1)),
        dilations=numbers((1, 1)),
        pads=numbers((0, 0, 0, 0)),
    )
    window_result(importer, node, value, (1, 1), shape[2], len(tensor.shape))
