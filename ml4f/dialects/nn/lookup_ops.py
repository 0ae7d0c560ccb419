"""Operations of the nn dialect whose addresses are computed: rows of a table by their numbers."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition, operand_def, result_def

from ml4f.dialects.nn import shapes
from ml4f.dialects.nn.ops import TENSOR, NnOp, shape_of


@irdl_op_definition
class LookupOp(NnOp):
    """`y[i, :] = table[index[i], :]`; numbers below zero count from the end, those out of the table are its ends.

    The index holds floats, of which the whole part counts (NaN is 0). Both operands may be constants.
    """

    name = "nn.lookup"
    table = operand_def(TENSOR)
    index = operand_def(TENSOR)
    y = result_def(TENSOR)

    def infer(self) -> tuple[int, ...]:
        return shapes.lookup(shape_of(self.table), shape_of(self.index))


OPS = [LookupOp]
