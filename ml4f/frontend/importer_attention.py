"""FlexAttention, whose scores and probabilities pass through graphs; other attentions are functions of ONNX."""

from __future__ import annotations

from collections.abc import Callable

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_control_flow import inline
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported


def flex_attention(importer: Importer, node: Node) -> None:
    """FlexAttention: attention whose scores and probabilities pass through graphs of the node's own."""
    names, steps = list(node.proto.input), Steps(importer, node)
    heads, size = importer.shape(names[0])[1], importer.shape(names[0])[3]
    for position in (1, 2):
        batch, own, length, width = importer.shape(names[position])
        if heads % own:
            raise NotSupported(f"{heads} heads of queries and {own} of keys")
        if own != heads:
            apart = steps.shaped(names[position], (batch, own, 1, length, width))
            shared = steps.operator("Expand", apart, steps.whole([batch, own, heads // own, length, width]))
            names[position] = steps.shaped(shared, (batch, heads, length, width))
    node.get("softmax_precision")
    scale = float(node.get("scale", size**-0.5))
    turned = steps.operator("Transpose", names[1], perm=[0, 1, 3, 2])
    scores = steps.binary(nn.MulOp, steps.operator("MatMul", names[0], turned), scale)

    def modified(kind: str, value: str) -> str:
        body = node.attributes.get(kind)
        return inline(importer, node, body, f"{node.layer}#{kind}/", {body.input[0].name: value})[0] if body else value

    probabilities = steps.operator("Softmax", modified("score_mod", scores), axis=-1)
    steps.operator("MatMul", modified("prob_mod", probabilities), names[2], output=node.proto.output[0])


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"FlexAttention": flex_attention}
"""ONNX operator → the function that emits it."""
