"""What older operator sets say differently: nodes of opset 6 as the handlers, which know opset 7 and later, want them.

Broadcasting was an attribute there, with the axis of the first operand at which the second one begins.
"""

from __future__ import annotations

import numpy as np
import onnx

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import NotSupported, Tensor

BROADCASTING = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")


def modern(importer: Importer, node: Node) -> Node:
    """The same node in the words of opset 7."""
    if node.op_type == "BatchNormalization" and not node.get("spatial", 1):
        raise NotSupported("every pixel has parameters of its own (spatial is 0)")
    if node.opset >= 7:
        return node
    if node.op_type in ("BatchNormalization", "Dropout") and not node.get("is_test", 0):
        raise NotSupported("it is in training mode (is_test is 0); export the model for inference")
    if node.op_type == "Upsample":
        raise NotSupported("Upsample is experimental in this opset; export the model with a newer one")
    if node.op_type == "Gemm":
        node.get("broadcast")  # whether it must be said; later opsets always broadcast
    if node.op_type == "PRelu":
        return _slope_of_channels(importer, node)
    if node.op_type not in BROADCASTING:
        return node
    names = list(node.proto.input)
    shapes = [importer.shape(name) for name in names]
    if not node.get("broadcast", 0):
        if shapes[0] != shapes[1]:
            raise NotSupported("the shapes differ, but it does not broadcast")
        return node
    axis = node.get("axis")
    if axis is None:
        return node
    behind = len(shapes[0]) - axis % len(shapes[0]) - len(shapes[1])
    if behind < 0:
        raise NotSupported(f"axis {axis} does not fit")
    return _with_operand(importer, node, behind)


def _slope_of_channels(importer: Importer, node: Node) -> Node:
    """One slope a channel was a vector."""
    shape, slopes = importer.shape(node.proto.input[0]), importer.shape(node.proto.input[1])
    if len(shape) < 3 or slopes != shape[1:2]:
        return node
    return _with_operand(importer, node, len(shape) - 2)


def _with_operand(importer: Importer, node: Node, ones: int) -> Node:
    """The node with trailing axes of extent 1 at its second operand."""
    made = onnx.NodeProto()
    made.CopyFrom(node.proto)
    made.input[1] = f"{node.proto.output[0]}/operand"
    _with_trailing_ones(importer, node.proto.input[1], made.input[1], ones)
    return node.altered(made)


def _with_trailing_ones(importer: Importer, source: str, target: str, count: int) -> None:
    constant = importer.const(source)
    if constant is not None:
        importer.constants[target] = np.reshape(constant, (*constant.shape, *(1,) * count))
        return
    tensor = importer.tensor(source)
    rank = len(tensor.shape)
    shape = (*tensor.shape, *(1,) * count)
    importer.tensors[target] = Tensor(tensor.value, shape, (*tensor.order, *range(rank, rank + count)))
