"""Operations on tensors: batch dropped, channels last, pure. Weights are `nn.const` operands.

Text: `%y = nn.conv2d %x, %w, %b {strides = array<i64: 1, 1>, …} : tensor<…xf32>`: operands, one dictionary, the
result's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from xdsl.dialects.builtin import (
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.dialects.nn import shapes
from ml4f.dialects.nn.attributes import ActAttr
from ml4f.dialects.text import parse_entries, parse_values, print_entries

TENSOR = BaseAttr(TensorType)
Numbers = DenseArrayBase


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The extents of a tensor."""
    assert isinstance(value.type, TensorType)
    return tuple(int(n) for n in value.type.get_shape())


def numbers(values: Sequence[int]) -> DenseArrayBase:
    """An integer array attribute."""
    return DenseArrayBase.from_list(i64, [int(v) for v in values])


def tensor_type(shape: Sequence[int]) -> TensorType:
    """A float32 tensor type."""
    return TensorType(f32, list(shape))


def _list(attribute: Attribute) -> tuple[int, ...]:
    assert isinstance(attribute, DenseArrayBase)
    return tuple(int(v) for v in attribute.get_values())


class NnOp(IRDLOperation):
    """Base of all nn operations: `infer` computes the result's shape or raises ValueError."""

    traits = traits_def(Pure())

    def infer(self) -> tuple[int, ...]:
        """The shape that the result must have."""
        raise NotImplementedError(self.name)

    def integers(self, name: str) -> tuple[int, ...]:
        """An array property."""
        return _list(self.properties[name])

    def verify_(self) -> None:
        for value in (*self.operands, *self.results):
            if not isinstance(value.type, TensorType) or value.type.element_type != f32:
                raise VerifyException("operands and results are tensors of f32")
            if any(n < 1 for n in value.type.get_shape()):
                extents = ", ".join(str(n) if n >= 0 else "?" for n in value.type.get_shape())
                raise VerifyException(f"extents are constants of at least 1, not [{extents}]")
        try:
            wanted = self.infer()
        except ValueError as error:
            raise VerifyException(str(error)) from None
        if wanted != shape_of(self.results[0]):
            raise VerifyException(f"the result's shape is {list(wanted)}, not {list(shape_of(self.results[0]))}")
        act = self.properties.get("act")
        if isinstance(act, ActAttr) and act.function not in ACTIVATIONS:
            raise VerifyException(f"there is no activation '{act.function}'")

    def print(self, printer: Printer) -> None:
        if self.operands:
            printer.print_string(" ")
            printer.print_list(self.operands, printer.print_ssa_value)
        print_entries(printer, self)
        printer.print_string(" : ")
        printer.print_list(self.result_types, printer.print_attribute)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands = parse_values(parser)
        properties, attributes = parse_entries(parser, cls)
        parser.parse_punctuation(":")
        types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        return cls.create(operands=operands, result_types=types, properties=properties, attributes=attributes)


@irdl_op_definition
class ConstOp(IRDLOperation):
    """A constant tensor; `half`: every element is a float16 number and is stored as one."""

    name = "nn.const"
    value = prop_def(BaseAttr(DenseIntOrFPElementsAttr))
    half = opt_prop_def(UnitAttr)
    result = result_def(TENSOR)
    traits = traits_def(Pure())

    @classmethod
    def of(cls, values: np.ndarray) -> ConstOp:
        """From numpy."""
        data = np.ascontiguousarray(values, dtype="<f4")
        type_ = tensor_type(np.shape(values))
        attribute = DenseIntOrFPElementsAttr(type_, BytesAttr(data.tobytes()))  # pyright: ignore[reportArgumentType]
        return cls.create(properties={"value": attribute}, result_types=[type_])

    def array(self) -> np.ndarray:
        """The elements, read-only."""
        data = self.value.data
        assert isinstance(data, BytesAttr)
        flat = np.frombuffer(data.data, dtype="<f4")
        shape = shape_of(self.result)
        whole = np.broadcast_to(flat[0], shape) if flat.size == 1 else flat.reshape(shape)
        return whole.astype(np.float32, copy=False)

    def verify_(self) -> None:
        if self.value.type != self.result.type:
            raise VerifyException("the value's type is the result's")

    def print(self, printer: Printer) -> None:
        print_entries(printer, self)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> ConstOp:
        properties, attributes = parse_entries(parser, cls)
        parser.parse_punctuation(":")
        return cls.create(properties=properties, attributes=attributes, result_types=[parser.parse_type()])


@irdl_op_definition
class Conv2dOp(NnOp):
    """`y[i, j, f] = act(bias[f] + sum x[i * s + k * d - p, …, c] * w[k, l, c, f])`; pads: top, left, bottom, right."""

    name = "nn.conv2d"
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    strides = prop_def(Numbers)
    dilations = prop_def(Numbers)
    pads = prop_def(Numbers)
    groups = prop_def(IntegerAttr)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        window = [self.integers(name) for name in ("strides", "dilations", "pads")]
        out = shapes.conv2d(shape_of(self.x), shape_of(self.w), *window, self.groups.value.data)  # pyright: ignore[reportCallIssue]
        if self.bias is not None:
            shapes.bias(out[-1], shape_of(self.bias))
        return out


@irdl_op_definition
class DepthwiseConv2dOp(NnOp):
    """Each channel c by its own m filters: output channel c * m + j."""

    name = "nn.depthwise_conv2d"
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    strides = prop_def(Numbers)
    dilations = prop_def(Numbers)
    pads = prop_def(Numbers)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        window = [self.integers(name) for name in ("strides", "dilations", "pads")]
        out = shapes.depthwise_conv2d(shape_of(self.x), shape_of(self.w), *window)
        if self.bias is not None:
            shapes.bias(out[-1], shape_of(self.bias))
        return out


@irdl_op_definition
class DenseOp(NnOp):
    """`y[…, n] = act(bias[n] + sum x[…, k] * w[k, n])`."""

    name = "nn.dense"
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        out = shapes.dense(shape_of(self.x), shape_of(self.w))
        if self.bias is not None:
            shapes.bias(out[-1], shape_of(self.bias))
        return out


class PoolOp(NnOp):
    """Base of the pools."""

    x = operand_def(TENSOR)
    kernel = prop_def(Numbers)
    strides = prop_def(Numbers)
    dilations = prop_def(Numbers)
    pads = prop_def(Numbers)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        window = [self.integers(name) for name in ("kernel", "strides", "dilations", "pads")]
        return shapes.pool2d(shape_of(self.x), *window)


@irdl_op_definition
class MaxPool2dOp(PoolOp):
    """The maximum of each window; padding never wins."""

    name = "nn.max_pool2d"


@irdl_op_definition
class AvgPool2dOp(PoolOp):
    """The mean of each window. With `count_include_pad` the cells in `counted_pads` (default: pads) count as zeros."""

    name = "nn.avg_pool2d"
    count_include_pad = opt_prop_def(IntegerAttr)
    counted_pads = opt_prop_def(Numbers)


@irdl_op_definition
class BatchNormOp(NnOp):
    """`y = act(x * scale + offset)` along the last axis."""

    name = "nn.batch_norm"
    x = operand_def(TENSOR)
    scale = operand_def(TENSOR)
    offset = operand_def(TENSOR)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        x = shape_of(self.x)
        for operand in (self.scale, self.offset):
            shapes.bias(x[-1] if x else 1, shape_of(operand))
        return x


@irdl_op_definition
class ActivationOp(NnOp):
    """`y = act(x)`."""

    name = "nn.activation"
    x = operand_def(TENSOR)
    act = prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shape_of(self.x)


@irdl_op_definition
class PreluOp(NnOp):
    """`y = x if x >= 0 else slope * x`; the slope broadcasts."""

    name = "nn.prelu"
    x = operand_def(TENSOR)
    slope = operand_def(TENSOR)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        out = shapes.broadcast(shape_of(self.x), shape_of(self.slope))
        if out != shape_of(self.x):
            raise ValueError("the slope broadcasts to the input, not the input to the slope")
        return out


@irdl_op_definition
class SoftmaxOp(NnOp):
    """`y = exp(x - max) / sum exp(x - max)` along an axis."""

    name = "nn.softmax"
    x = operand_def(TENSOR)
    axis = prop_def(IntegerAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        if not 0 <= self.axis.value.data < len(shape_of(self.x)):
            raise ValueError(f"axis {self.axis.value.data} of {list(shape_of(self.x))}")
        return shape_of(self.x)


class BinaryOp(NnOp):
    """Base: elementwise with numpy's broadcasting."""

    a = operand_def(TENSOR)
    b = operand_def(TENSOR)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.broadcast(shape_of(self.a), shape_of(self.b))


@irdl_op_definition
class AddOp(BinaryOp):
    """`y = act(a + b)`."""

    name = "nn.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """`y = act(a - b)`."""

    name = "nn.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """`y = act(a * b)`."""

    name = "nn.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """`y = act(a / b)`."""

    name = "nn.div"


@irdl_op_definition
class MaxOp(BinaryOp):
    """`y = act(max(a, b))`."""

    name = "nn.max"


@irdl_op_definition
class MinOp(BinaryOp):
    """`y = act(min(a, b))`."""

    name = "nn.min"


@irdl_op_definition
class PowOp(BinaryOp):
    """`y = act(a ^ b)`; NaN where a < 0 and b is no integer."""

    name = "nn.pow"


@irdl_op_definition
class WhereOp(BinaryOp):
    """`y = act(a where b != 0, else 0)`; b is a mask of zeros and ones."""

    name = "nn.where"


@irdl_op_definition
class PadOp(NnOp):
    """Adds `low` and `high` elements of `value` to each axis."""

    name = "nn.pad"
    x = operand_def(TENSOR)
    low = prop_def(Numbers)
    high = prop_def(Numbers)
    value = prop_def(FloatAttr)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.pad(shape_of(self.x), self.integers("low"), self.integers("high"))


@irdl_op_definition
class SliceOp(NnOp):
    """`y[i] = x[start + i * stride]` on every axis; strides may be negative, or 0 to repeat."""

    name = "nn.slice"
    x = operand_def(TENSOR)
    start = prop_def(Numbers)
    strides = prop_def(Numbers)
    sizes = prop_def(Numbers)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.crop(shape_of(self.x), *(self.integers(name) for name in ("start", "strides", "sizes")))


@irdl_op_definition
class ConcatOp(NnOp):
    """The inputs side by side along an axis."""

    name = "nn.concat"
    inputs = var_operand_def(TENSOR)
    axis = prop_def(IntegerAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        if not self.inputs:
            raise ValueError("needs an input")
        return shapes.concat([shape_of(value) for value in self.inputs], self.axis.value.data)


@irdl_op_definition
class ReduceOp(NnOp):
    """Sum, mean, max, min or prod over axes, which the result lacks; sum or mean of the elements' squares."""

    name = "nn.reduce"
    KINDS: ClassVar[tuple[str, ...]] = ("sum", "mean", "max", "min", "prod", "sum_square", "mean_square")
    x = operand_def(TENSOR)
    axes = prop_def(Numbers)
    kind = prop_def(StringAttr)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        if self.kind.data not in self.KINDS:
            raise ValueError(f"the kind is one of {', '.join(self.KINDS)}")
        return shapes.reduce(shape_of(self.x), self.integers("axes"))


@irdl_op_definition
class ReshapeOp(NnOp):
    """The same elements in the same order: free."""

    name = "nn.reshape"
    x = operand_def(TENSOR)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.reshape(shape_of(self.x), shape_of(self.y))


@irdl_op_definition
class TransposeOp(NnOp):
    """Axis i of the result is axis permutation[i] of the input."""

    name = "nn.transpose"
    x = operand_def(TENSOR)
    permutation = prop_def(Numbers)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.transpose(shape_of(self.x), self.integers("permutation"))


OPS = [
    ConstOp,
    Conv2dOp,
    DepthwiseConv2dOp,
    DenseOp,
    MaxPool2dOp,
    AvgPool2dOp,
    BatchNormOp,
    ActivationOp,
    PreluOp,
    SoftmaxOp,
    AddOp,
    SubOp,
    MulOp,
    DivOp,
    MaxOp,
    MinOp,
    PowOp,
    WhereOp,
    PadOp,
    SliceOp,
    ConcatOp,
    ReduceOp,
    ReshapeOp,
    TransposeOp,
]
