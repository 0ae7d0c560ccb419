"""Handlers of the domain ai.onnx.ml: what scikit-learn's pipelines consist of, around a network or without one."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend import importer_trees as trees
from ml4f.frontend import importer_vectors as vectors
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


def imputer(importer: Importer, node: Node) -> None:
    """Elements that equal a value, which may be NaN, are replaced by another, of each column or of all."""
    x, replaced = node.proto.input[0], float(node.get("replaced_value_float", 0.0))
    imputed = np.array(node.attributes.get("imputed_value_floats", []), dtype=np.float32)
    if x in importer.integers or not imputed.size:
        raise NotSupported("it replaces integers; cast them to float before")
    if imputed.size not in (1, importer.shape(x)[-1]):
        raise NotSupported(f"{imputed.size} values for {importer.shape(x)[-1]} columns")
    steps = Steps(importer, node)
    if np.isnan(replaced):
        missing = steps.operator("IsNaN", x)
    else:
        missing = steps.operator("Equal", x, steps.constant(replaced))
    steps.operator("Where", missing, steps.constant(imputed), x, output=node.proto.output[0])


def feature_vectorizer(importer: Importer, node: Node) -> None:
    """Columns of all inputs side by side."""
    steps, given = Steps(importer, node), node.ints("inputdimensions")
    names = [
        name if len(importer.shape(name)) == 2 else steps.shaped(name, (1, prod(importer.shape(name))))
        for name in node.proto.input
    ]
    if given and [importer.shape(name)[1] for name in names] != list(given):
        raise NotSupported(f"inputdimensions {list(given)} for {[list(importer.shape(name)) for name in names]}")
    steps.operator("Concat", *names, axis=1, output=node.proto.output[0])


def array_feature_extractor(importer: Importer, node: Node) -> None:
    """Elements of the last axis by their numbers: the label of a class, or some columns of a matrix."""
    data, index = node.proto.input
    table, output = importer.const(data), node.proto.output[0]
    if table is None:
        _columns(importer, node)
        return
    if table.dtype.kind not in "iuf":
        raise NotSupported("the labels are texts; take their numbers instead (the ArgMax before this operator)")
    if table.size != table.shape[-1]:
        raise NotSupported(f"computed columns of a constant matrix {list(table.shape)}")
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


def _columns(importer: Importer, node: Node) -> None:
    """Constant columns of computed rows; a vector is one row."""
    data, index = node.proto.input
    numbers, output = importer.const(index), node.proto.output[0]
    if numbers is None:
        raise NotSupported("elements and indices are computed; one of them must be constant")
    steps, shape = Steps(importer, node), importer.shape(data)
    made = node_of(node, data, steps.whole(np.ravel(numbers)))
    made.attributes["axis"] = len(shape) - 1
    gather(importer, made)
    if len(shape) == 1:
        found = importer.in_order(importer.tensor(output))
        importer.tensors[output] = type(found)(found.value, (1, *found.shape), (0, 1))


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
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LinearClassifier": vectors.linear_classifier,
    "LinearRegressor": vectors.linear_regressor,
    "Normalizer": normalizer,
    "SVMClassifier": vectors.svm_classifier,
    "SVMRegressor": vectors.svm_regressor,
    "Scaler": scaler,
    "TreeEnsemble": trees.tree_ensemble,
    "TreeEnsembleClassifier": trees.classifier,
    "TreeEnsembleRegressor": trees.regressor,
}
"""Operator of ai.onnx.ml → the function that emits it. ZipMap is taken away when the file is read."""
