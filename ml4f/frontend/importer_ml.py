"""Handlers of the domain ai.onnx.ml, as far as scikit-learn's pipelines around a network need them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import gather
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import identity
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported

DOMAIN = "ai.onnx.ml"


def scaler(importer: Importer, node: Node) -> None:
    """(x - offset) * scale, of each column or of all."""
    steps = Steps(importer, node)
    x = node.proto.input[0]
    for op, name, neutral in ((nn.SubOp, "offset", 0.0), (nn.MulOp, "scale", 1.0)):
        values = np.array(node.attributes.get(name, []), dtype=np.float32)
        if values.size and np.any(values != neutral):
            x = steps.binary(op, x, steps.constant(values))
    importer.result(node.proto.output[0], importer.tensor(x))


def normalizer(importer: Importer, node: Node) -> None:
    """Rows divided by their largest magnitude, by the sum of magnitudes, or by their length; zeros stay zeros."""
    x, kind = node.proto.input[0], node.get("norm", "MAX")
    axis = len(importer.shape(x)) - 1
    steps = Steps(importer, node)
    if kind == "L2":
        norm = steps.activation("sqrt", steps.reduce("sum", steps.activation("square", x), [axis]))
    elif kind in ("L1", "MAX"):
        # onnxruntime divides by the largest element, whatever its sign; scikit-learn by the largest magnitude.
        if kind == "MAX":
            raise NotSupported("norm MAX, on which runtimes do not agree; use L1 or L2")
        norm = steps.reduce("sum", steps.activation("abs", x), [axis])
    else:
        raise NotSupported(f"norm {kind}")
    smallest = float(np.finfo(np.float32).tiny)
    steps.binary(nn.DivOp, x, steps.binary(nn.MaxOp, norm, smallest), node.proto.output[0])


def binarizer(importer: Importer, node: Node) -> None:
    """1 above the threshold, else 0."""
    steps = Steps(importer, node)
    difference = steps.binary(nn.SubOp, node.proto.input[0], float(node.get("threshold", 0.0)))
    steps.activation("step", difference, output=node.proto.output[0])


def array_feature_extractor(importer: Importer, node: Node) -> None:
    """Elements of the last axis by their numbers: the label of a class."""
    data, index = node.proto.input
    table = importer.const(data)
    if table is None:
        raise NotSupported("the elements must be constants")
    if table.dtype.kind not in "iuf":
        raise NotSupported("the labels are texts; take their numbers instead (the ArgMax before this operator)")
    output = node.proto.output[0]
    if np.array_equal(np.ravel(table), np.arange(table.size)):
        identity(importer, node_of(node, index))
    else:
        flat = f"{output}/labels"
        importer.constants[flat] = np.ravel(table)
        made = node_of(node, flat, index)
        made.attributes["axis"] = 0
        gather(importer, made)
    if table.dtype.kind in "iu":
        importer.integers.add(output)
    found = importer.in_order(importer.tensor(output))
    importer.tensors[output] = type(found)(found.value, (1, max(prod(found.shape), 1)), (0, 1))


def node_of(node: Node, *inputs: str) -> Node:
    """The same node with other inputs."""
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(inputs)
    return node.altered(proto)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "Normalizer": normalizer,
    "Scaler": scaler,
}
"""Operator of ai.onnx.ml → the function that emits it. ZipMap is taken away when the file is read."""
