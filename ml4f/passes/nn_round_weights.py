"""nn-round-weights: rounds weights to float16, and marks them so that they are stored as such."""

from __future__ import annotations

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.passes import ModulePass

from ml4f.dialects.nn import ConstOp
from ml4f.passes.nn_rewriting import const_array, main_block

LARGEST = 65504.0
"""The largest finite float16."""
WEIGHTS = {
    **dict.fromkeys(("nn.conv2d", "nn.conv3d", "nn.depthwise_conv2d", "nn.dense"), (1,)),
    **dict.fromkeys(("nn.lstm", "nn.gru", "nn.rnn"), (1, 2)),
}
"""By operation: the operands that are weights."""


class NnRoundWeightsPass(ModulePass):
    """Rounds the weights of convolutions, dense and recurrent layers; biases and all that is small stay float32.

        %w = nn.const {value = …}          %w = nn.const {value = … rounded …, half}

    Weights that float16 cannot hold (above 65504) stay float32.
    """

    name = "nn-round-weights"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        block = main_block(op)
        for inner in list(block.ops) if block is not None else ():
            for index in WEIGHTS.get(inner.name, ()):
                weights = const_array(inner.operands[index])
                if weights is not None and np.max(np.abs(weights), initial=0.0) <= LARGEST:
                    rounded = ConstOp.of(weights.astype(np.float16).astype(np.float32))
                    rounded.properties["half"] = UnitAttr()
                    rounded.location = inner.location
                    block.insert_op_before(rounded, inner)  # pyright: ignore[reportOptionalMemberAccess]
                    inner.operands = [rounded.result if i == index else v for i, v in enumerate(inner.operands)]
        _remove_unread(op)


def _remove_unread(module: ModuleOp) -> None:
    from ml4f.passes.nn_remove_dead_code import NnRemoveDeadCodePass

    NnRemoveDeadCodePass().apply(Context(), module)
