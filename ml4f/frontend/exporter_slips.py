"""What exporters write though no ONNX operator set has it: mended where the meaning is plain, named where it is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper


def mend_exporter_slips(proto: onnx.ModelProto) -> None:
    """Replace, in place, tf2onnx's Erfc (in Keras's gelu) by 1 - Erf."""
    nodes: list[onnx.NodeProto] = []
    mended = False
    for node in proto.graph.node:
        if node.op_type != "Erfc" or node.domain:
            nodes.append(node)
            continue
        mended = True
        one, erf = f"{node.output[0]}/one", f"{node.output[0]}/erf"
        proto.graph.initializer.append(numpy_helper.from_array(np.ones((), dtype=np.float32), one))
        nodes.append(helper.make_node("Erf", list(node.input), [erf], name=f"{node.name}/erf"))
        nodes.append(helper.make_node("Sub", [one, erf], list(node.output), name=node.name))
    if mended:
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)


def unknown_operators(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the main graph in ONNX's own domain that no operator set knows: left over from another framework."""
    for node in proto.graph.node:
        known = isinstance(node.op_type, str) and onnx.defs.has(node.op_type)  # bytes where it is no text
        if node.domain in ("", "ai.onnx") and not known:
            yield node
