"""Recurrent layers of the nn dialect: one direction of an LSTM, GRU or simple RNN over a whole sequence."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import ArrayAttr, FloatAttr, UnitAttr
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.dialects.nn import shapes
from ml4f.dialects.nn.attributes import ActAttr
from ml4f.dialects.nn.ops import TENSOR, NnOp, shape_of


class RecurrentOp(NnOp):
    """Base: x [steps, inputs], w [inputs, gates * units], r [units, gates * units], bias, states [units].

    The result has a row of `units` for every step with `sequence`, else one for the last step. With `reverse` the last
    step comes first; rows stay where their steps are. w, r and bias are constants.
    """

    GATES: ClassVar[int] = 1
    ACTIVATIONS: ClassVar[int] = 1
    activations = prop_def(ArrayAttr[ActAttr])
    reverse = opt_prop_def(UnitAttr)
    sequence = opt_prop_def(UnitAttr)
    y = result_def(TENSOR)

    @property
    def steps(self) -> int:
        """The length of the sequence."""
        return shape_of(self.operands[0])[0]

    @property
    def units(self) -> int:
        """Elements of the state."""
        return shape_of(self.operands[2])[0]

    def infer(self) -> tuple[int, ...]:
        steps, units = shapes.recurrent(self.GATES, *(shape_of(value) for value in self.operands[:5]))
        return (steps if self.sequence is not None else 1, units)

    def verify_(self) -> None:
        super().verify_()
        if len(self.activations) != self.ACTIVATIONS:
            raise VerifyException(f"needs {self.ACTIVATIONS} activations, not {len(self.activations)}")
        for act in self.activations:
            if act.function not in ACTIVATIONS:
                raise VerifyException(f"there is no activation '{act.function}'")


@irdl_op_definition
class LstmOp(RecurrentOp):
    """`i, o, f = a0(x w + h r + bias)`, `g = a1(…)`, `c = f * c + i * g`, `h = o * a2(c)`; the gates are i, o, f, g.

    With `cell_clip` the new c is kept within plus and minus that. With `peephole` [3 * units] the gates i and f also
    see p_i * c and p_f * c, and o sees p_o * c of the new c. With `cell` the result has one row more, the last c.
    """

    name = "nn.lstm"
    GATES: ClassVar[int] = 4
    ACTIVATIONS: ClassVar[int] = 3
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    r = operand_def(TENSOR)
    bias = operand_def(TENSOR)
    initial_h = operand_def(TENSOR)
    initial_c = operand_def(TENSOR)
    peephole = opt_operand_def(TENSOR)
    cell = opt_prop_def(UnitAttr)
    cell_clip = opt_prop_def(FloatAttr)

    def infer(self) -> tuple[int, ...]:
        rows, units = super().infer()
        shapes.bias(units, shape_of(self.initial_c))
        if self.peephole is not None:
            shapes.bias(3 * units, shape_of(self.peephole))
        return (rows + (self.cell is not None), units)


@irdl_op_definition
class GruOp(RecurrentOp):
    """`z, r = a0(x w + h r + bias)`, `n = a1(x w + (r * h) r + bias)`, `h = (1 - z) * n + z * h`; gates z, r, n.

    With `recurrent_bias` [units] the product comes before the reset: `n = a1(x w + bias + r * (h r + recurrent_bias))`.
    """

    name = "nn.gru"
    GATES: ClassVar[int] = 3
    ACTIVATIONS: ClassVar[int] = 2
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    r = operand_def(TENSOR)
    bias = operand_def(TENSOR)
    initial_h = operand_def(TENSOR)
    recurrent_bias = opt_operand_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        out = super().infer()
        if self.recurrent_bias is not None:
            shapes.bias(out[1], shape_of(self.recurrent_bias))
        return out


@irdl_op_definition
class RnnOp(RecurrentOp):
    """`h = a0(x w + h r + bias)`."""

    name = "nn.rnn"
    GATES: ClassVar[int] = 1
    ACTIVATIONS: ClassVar[int] = 1
    x = operand_def(TENSOR)
    w = operand_def(TENSOR)
    r = operand_def(TENSOR)
    bias = operand_def(TENSOR)
    initial_h = operand_def(TENSOR)


OPS = [LstmOp, GruOp, RnnOp]
