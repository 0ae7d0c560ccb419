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
    """Replace, in place, what is left of TensorFlow's operators (Keras's gelu has Erfc), and pads that are none."""
    nodes: list[onnx.NodeProto] = []
    mended = False
    for node in proto.graph.node:
        if node.op_type == "ConvTranspose" and not node.domain:
            _mend_pads(node)
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


def _mend_pads(node: onnx.NodeProto) -> None:
    """Negative pads behind become output pads: tf2onnx pads so where the kernel is shorter than the stride, which
    onnxruntime does not take."""
    attributes = {a.name: a for a in node.attribute}
    pads = list(attributes["pads"].ints) if "pads" in attributes else []
    axes = len(pads) // 2
    given = attributes.get("output_padding")
    more = list(given.ints) if given is not None and given.ints else [0] * axes
    if len(pads) != 2 * len(more) or min(pads[axes:], default=0) >= 0:
        return
    more = [extra + max(-pad, 0) for extra, pad in zip(more, pads[axes:], strict=True)]
    kept = [a for a in node.attribute if a.name not in ("pads", "output_padding")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("pads", [*pads[:axes], *(max(pad, 0) for pad in pads[axes:])]))
    node.attribute.append(helper.make_attribute("output_padding", more))


def unknown_operators(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the main graph in ONNX's own domain that no operator set knows: left over from another framework."""
    for node in proto.graph.node:
        known = isinstance(node.op_type, str) and onnx.defs.has(node.op_type)  # bytes where it is no text
        if node.domain in ("", "ai.onnx") and not known:
            yield node
