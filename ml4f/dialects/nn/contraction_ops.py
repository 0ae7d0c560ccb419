"""Operations of the nn dialect that contract two tensors, beyond convolutions and dense layers."""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerAttr, UnitAttr
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, opt_prop_def, prop_def, result_def

from ml4f.dialects.nn import shapes
from ml4f.dialects.nn.attributes import ActAttr
from ml4f.dialects.nn.ops import TENSOR, NnOp, Numbers, shape_of


@irdl_op_definition
class MatmulOp(NnOp):
    """`y[…, m, n] = act(sum a[…, m, k] * b[…, k, n])`, both operands computed; the other axes broadcast.

    With `transpose_a` the matrices of a lie as [k, m], with `transpose_b` those of b as [n, k].
    """

    name = "nn.matmul"
    a = operand_def(TENSOR)
    b = operand_def(TENSOR)
    transpose_a = opt_prop_def(UnitAttr)
    transpose_b = opt_prop_def(UnitAttr)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        a, b = shape_of(self.a), shape_of(self.b)
        a = (*a[:-2], *a[-2:][::-1]) if self.transpose_a is not None else a
        b = (*b[:-2], *b[-2:][::-1]) if self.transpose_b is not None else b
        return shapes.matmul(a, b)


@irdl_op_definition
class ConvTranspose2dOp(NnOp):
    """`y[i * s + k * d - p, …, f] += x[i, …, c] * w[k, l, c, f]`, then bias and act; pads take rows and columns away.

    Filter f of group g reads the g-th part of the channels; output_pads: rows and columns more at the end.
    """

    name = "nn.conv_transpose2d"
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    bias = opt_operand_def(TENSOR)
    strides = prop_def(Numbers)
    dilations = prop_def(Numbers)
    pads = prop_def(Numbers)
    output_pads = prop_def(Numbers)
    groups = prop_def(IntegerAttr)
    act = opt_prop_def(ActAttr)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        strides, dilations, pads, more = (
            self.integers(name) for name in ("strides", "dilations", "pads", "output_pads")
        )
        groups = self.groups.value.data
        out = shapes.conv_transpose2d(shape_of(self.x), shape_of(self.w), strides, dilations, pads, more, groups)
        if self.bias is not None:
            shapes.bias(out[-1], shape_of(self.bias))
        return out


@irdl_op_definition
class Conv3dOp(NnOp):
    """`y[h, i, j, f] = act(bias[f] + sum x[h * s + m * d - p, …, c] * w[m, k, l, c, f])`.

    pads: front, top, left, back, bottom, right.
    """

    name = "nn.conv3d"
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
        strides, dilations, pads = (self.integers(name) for name in ("strides", "dilations", "pads"))
        groups = self.groups.value.data
        out = shapes.conv3d(shape_of(self.x), shape_of(self.w), strides, dilations, pads, groups)
        if self.bias is not None:
            shapes.bias(out[-1], shape_of(self.bias))
        return out


OPS = [MatmulOp, ConvTranspose2dOp, Conv3dOp]
