"""What exporters write though no ONNX operator set has it: mended where the meaning is plain, named where it is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

COMPOSED: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Erfc": (("Erf", "x", ""), ("Sub", "1", "last")),
    "Log1p": (("Add", "x", "1"), ("Log", "last", "")),
    "Expm1": (("Exp", "x", ""), ("Sub", "last", "1")),
    "LogicalXor": (("Xor", "x", "y"),),
}
"""TensorFlow's operators that tf2onnx leaves as they are, as steps: an operator and its operands. Those are the node's
own ("x", "y"), a one, and the step before ("last")."""


def mend_exporter_slips(proto: onnx.ModelProto) -> None:
    """Replace, in place, what is left of TensorFlow's operators; Keras's gelu has Erfc."""
    nodes: list[onnx.NodeProto] = []
    mended = False
    for node in proto.graph.node:
        steps = () if node.domain else COMPOSED.get(node.op_type, ())
        if not steps:
            nodes.append(node)
            continue
        mended = True
        output, one = node.output[0], f"{node.output[0]}/one"
        proto.graph.initializer.append(numpy_helper.from_array(np.ones((), dtype=np.float32), one))
        names = {"x": node.input[0], "y": node.input[-1], "1": one}
        for index, (kind, *operands) in enumerate(steps):
            last = index == len(steps) - 1
            result, name = (output, node.name) if last else (f"{output}/{index}", f"{node.name}/{kind}")
            nodes.append(helper.make_node(kind, [names[o] for o in operands if o], [result], name=name))
            names["last"] = result
    if mended:
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)


def unknown_operators(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the main graph in ONNX's own domain that no operator set knows: left over from another framework."""
    for node in proto.graph.node:
        known = isinstance(node.op_type, str) and onnx.defs.has(node.op_type)  # bytes where it is no text
        if node.domain in ("", "ai.onnx") and not known:
            yield node
