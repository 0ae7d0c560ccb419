"""Linear models and support vector machines of ai.onnx.ml."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_classifiers import (
    Second,
    both,
    chosen_label,
    class_labels,
    classified,
    matrix,
    rows_of,
    transformed,
)
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported


def _floats(node: Node, name: str) -> np.ndarray:
    return np.array(node.attributes.get(name, []), dtype=np.float64)


def _weights(node: Node, features: int, outputs: int) -> np.ndarray:
    """The attribute coefficients as [features, outputs]."""
    values = _floats(node, "coefficients")
    if values.size != features * outputs:
        raise NotSupported(f"{values.size} coefficients for {features} features and {outputs} results")
    return values.reshape(outputs, features).T


def linear_regressor(importer: Importer, node: Node) -> None:
    """`x @ coefficients + intercepts`."""
    x, targets, kind = node.proto.input[0], int(node.get("targets", 1)), node.get("post_transform", "NONE")
    if kind not in ("NONE", "") and targets == 1:
        raise NotSupported(f"post_transform {kind} of one target, on which runtimes do not agree; use NONE")
    steps, intercepts = Steps(importer, node), _floats(node, "intercepts")
    bias = intercepts if intercepts.size else np.zeros(targets)
    weights = _weights(node, rows_of(importer, x)[1], targets)
    transformed(steps, matrix(importer, node, x, weights, bias, steps.fresh()), kind, node.proto.output[0])


def linear_classifier(importer: Importer, node: Node) -> None:
    """`x @ coefficients + intercepts`, and the label of the largest; one score is that of the second of two classes."""
    x, labels = node.proto.input[0], class_labels(node, "classlabels_ints")
    kind, features = node.get("post_transform", "NONE"), rows_of(importer, x)[1]
    node.get("multi_class")  # how it was trained
    intercepts, outputs = _floats(node, "intercepts"), _floats(node, "coefficients").size // features
    bias = intercepts if intercepts.size else np.zeros(outputs)
    if outputs != labels.size and (outputs, labels.size) != (1, 2):
        raise NotSupported(f"{outputs} scores for {labels.size} classes")
    steps = Steps(importer, node, f"{next(filter(None, node.proto.output))}/scores")
    scores = matrix(importer, node, x, _weights(node, features, outputs), bias, steps.fresh())
    classified(importer, node, scores, labels, kind, Second(0.0, True) if outputs == 1 else None)


# Support vector machines


def _kernels(importer: Importer, node: Node, vectors: np.ndarray, steps: Steps) -> str:
    """[n, vectors]: the kernel function of each row and each support vector."""
    x, kind = node.proto.input[0], node.get("kernel_type", "LINEAR")
    gamma, offset, degree = (float(v) for v in (*node.attributes.get("kernel_params", ()), 0.0, 0.0, 0.0)[:3])
    if kind == "RBF":
        return _distances(importer, node, x, vectors, gamma, steps)
    if kind not in ("LINEAR", "POLY", "SIGMOID"):
        raise NotSupported(f"the kernel {kind}; LINEAR, POLY, RBF and SIGMOID are supported")
    if kind == "LINEAR":
        gamma, offset = 1.0, 0.0
    bias = np.full(len(vectors), offset)
    products = matrix(importer, node, x, gamma * vectors.T, bias, steps.fresh())
    if kind == "SIGMOID":
        return steps.activation("tanh", products)
    if kind == "LINEAR" or degree == 1:
        return products
    if degree not in (2, 3):
        return steps.operator("Pow", products, steps.constant(degree))
    square = steps.activation("square", products)
    return square if degree == 2 else steps.binary(nn.MulOp, square, products)


def _distances(importer: Importer, node: Node, x: str, vectors: np.ndarray, gamma: float, steps: Steps) -> str:
    """`exp(-gamma |x - v|²)` by |x|² - 2 x·v + |v|², about the vectors' centre, so that little cancels."""
    centre = vectors.mean(axis=0)
    around = vectors - centre
    shifted = steps.binary(nn.SubOp, x, steps.constant(centre))
    if importer.shape(shifted) == (vectors.shape[1],):
        shifted = steps.shaped(shifted, (1, vectors.shape[1]))
    lengths = -gamma * np.square(around).sum(axis=1)
    near = matrix(importer, node, shifted, 2 * gamma * around.T, lengths, steps.fresh())
    length = steps.reduce("sum", steps.activation("square", shifted), [1])
    exponent = steps.binary(nn.SubOp, near, steps.binary(nn.MulOp, length, gamma))
    return steps.activation("exp", steps.binary(nn.MinOp, exponent, 0.0))


def _vectors(node: Node, count: int, features: int) -> np.ndarray:
    values = _floats(node, "support_vectors")
    if values.size != count * features:
        raise NotSupported(f"{values.size} numbers for {count} support vectors of {features} features")
    return values.reshape(count, features)


def svm_regressor(importer: Importer, node: Node) -> None:
    """The weighted sum of the kernels plus rho; one_class: its sign."""
    x, kind = node.proto.input[0], node.get("post_transform", "NONE")
    if kind not in ("NONE", ""):
        raise NotSupported(f"post_transform {kind} of one target, on which runtimes do not agree; use NONE")
    steps, features, count = Steps(importer, node), rows_of(importer, x)[1], int(node.get("n_supports", 0))
    rho, one_class = _floats(node, "rho")[:1], int(node.get("one_class", 0))
    coefficients, output = _floats(node, "coefficients"), node.proto.output[0]
    if count:
        source, size = _kernels(importer, node, _vectors(node, count, features), steps), count
    else:
        source, size = x, features
        node.get("kernel_params")
        if node.get("kernel_type", "LINEAR") != "LINEAR":
            raise NotSupported("there are no support vectors")
    if coefficients.size != size or rho.size != 1:
        raise NotSupported(f"{coefficients.size} coefficients and {rho.size} rho for {size} numbers")
    result = matrix(importer, node, source, coefficients[:, None], rho, steps.fresh() if one_class else output)
    if one_class:  # 1 above zero, else -1
        above = steps.activation("step", result)
        steps.binary(nn.SubOp, steps.binary(nn.MulOp, above, 2.0), 1.0, output)


def svm_classifier(importer: Importer, node: Node) -> None:
    """One decision for each pair of classes, and the class with most votes; or scores as of a linear classifier."""
    labels, kind = class_labels(node, "classlabels_ints"), node.get("post_transform", "NONE")
    x, per_class = node.proto.input[0], node.ints("vectors_per_class")
    features, rho = rows_of(importer, x)[1], _floats(node, "rho")
    steps = Steps(importer, node, f"{next(filter(None, node.proto.output))}/scores")
    if _floats(node, "prob_a").size or _floats(node, "prob_b").size:
        raise NotSupported("it estimates probabilities; train with probability=False, and use the decisions")
    if not per_class:
        raise NotSupported("there are no support vectors; export it as a linear classifier")
    classes, count = len(per_class), sum(per_class)
    if classes != labels.size or rho.size != classes * (classes - 1) // 2:
        raise NotSupported(f"{rho.size} rho and vectors of {classes} classes for {labels.size} labels")
    kernels = _kernels(importer, node, _vectors(node, count, features), steps)
    coefficients = _floats(node, "coefficients").reshape(classes - 1, count)
    begins = np.concatenate([[0], np.cumsum(per_class)])
    pairs = list(combinations(range(classes), 2))
    weights = np.zeros((count, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            part = slice(begins[own], begins[own + 1])
            weights[part, column] = coefficients[row, part]
    decisions = matrix(importer, node, kernels, weights, rho, steps.fresh())
    _decided(importer, node, steps, decisions, pairs, labels, kind)


def _decided(
    importer: Importer,
    node: Node,
    steps: Steps,
    decisions: str,
    pairs: list[tuple[int, int]],
    labels: np.ndarray,
    kind: str,
) -> None:
    """The outputs: votes are counted by a product with a matrix of 1 and -1."""
    if kind not in ("NONE", ""):
        raise NotSupported(f"post_transform {kind} of decisions, on which runtimes do not agree; use NONE")
    label, *scores = node.proto.output
    votes = np.zeros((len(pairs), labels.size))
    for row, (i, j) in enumerate(pairs):
        votes[row, i], votes[row, j] = 1.0, -1.0
    against = -np.minimum(votes, 0).sum(axis=0)
    if importer.is_read(label):
        above = steps.activation("step", decisions)
        counted = matrix(importer, node, above, votes, against, steps.fresh())
        number = steps.operator("ArgMax", counted, axis=1, keepdims=0)
        chosen_label(importer, number, labels, importer.shape(decisions)[0], label)
    if scores and importer.is_read(scores[0]):
        if labels.size == 2:
            both(steps, decisions, kind, Second(0.0, False), scores[0])
        else:
            importer.alias(scores[0], decisions)
