"""What classifiers of ai.onnx.ml have in common: labels from scores, and the functions on scores (post_transform)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_lookups import looked_up
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported, Tensor


@dataclass(frozen=True)
class Second:
    """How one score of two classes becomes two: of the second class above `threshold`."""

    threshold: float
    complement: bool
    """Whether the first class has 1 - score instead of -score."""


def rows_of(importer: Importer, name: str) -> tuple[int, int]:
    """The input's extents [n, features]; a vector is one row."""
    shape = importer.shape(name)
    if len(shape) > 2 or not shape:
        raise NotSupported("the input should be [n, features]")
    return (1, *shape) if len(shape) == 1 else (shape[0], shape[1])


def class_labels(node: Node, *names: str) -> np.ndarray:
    """The numbers that stand for the classes; texts have been replaced when the file was read."""
    for name in names:
        if name in node.attributes:
            values = node.attributes[name]
            if len(values):
                return np.array(values, dtype=np.int64)
    raise NotSupported("the classes have no numbers (no classlabels_int64s); set them")


def transformed(steps: Steps, scores: str, kind: str, output: str) -> None:
    """The function of the attribute post_transform on scores [n, classes]."""
    if kind == "SOFTMAX":
        steps.operator("Softmax", scores, axis=-1, output=output)
    elif kind == "LOGISTIC":
        steps.activation("sigmoid", scores, output=output)
    elif kind in ("NONE", ""):
        steps.importer.alias(output, scores)
    else:
        raise NotSupported(f"post_transform {kind}; NONE, SOFTMAX and LOGISTIC are supported")


def both(steps: Steps, score: str, kind: str, second: Second, output: str) -> None:
    """[n, 2] from the score [n, 1] of the second class."""
    if kind == "LOGISTIC":
        pair = [steps.activation("sigmoid", steps.activation("neg", score)), steps.activation("sigmoid", score)]
    elif kind not in ("NONE", "SOFTMAX", ""):
        raise NotSupported(f"post_transform {kind}; NONE, SOFTMAX and LOGISTIC are supported")
    elif second.complement:
        pair = [steps.binary(nn.SubOp, steps.constant(1.0), score), score]
    else:
        pair = [steps.activation("neg", score), score]
    steps.operator("Concat", *pair, axis=1, output=output)


def classified(
    importer: Importer, node: Node, scores: str, labels: np.ndarray, kind: str, second: Second | None = None
) -> None:
    """The outputs of a classifier: the label of the largest score [n], and the scores [n, classes].

    `second`: there is one score [n, 1] for two classes.
    """
    steps, (label, *probabilities) = Steps(importer, node, node.proto.output[0] or scores), node.proto.output
    count = importer.shape(scores)[0]
    if importer.is_read(label):
        if second is None:
            chosen = steps.operator("ArgMax", scores, axis=1, keepdims=0)
        else:
            chosen = steps.activation("step", steps.binary(nn.SubOp, scores, second.threshold))
        chosen_label(importer, chosen, labels, count, label)
    if probabilities and importer.is_read(probabilities[0]):
        if second is None:
            transformed(steps, scores, kind, probabilities[0])
        else:
            both(steps, scores, kind, second, probabilities[0])


def chosen_label(importer: Importer, number: str, labels: np.ndarray, count: int, output: str) -> None:
    """[n]: the label of the class of a computed number."""
    value = importer.reshaped(importer.in_order(importer.tensor(number)).value, (count,))
    if not np.array_equal(labels, np.arange(labels.size)):
        table = importer.constant(labels.astype(np.float32))
        value = importer.reshaped(looked_up(importer, table, (labels.size, 1), value, count), (count,))
    importer.result(output, Tensor(value, (count,), (0,)))
    importer.integers.add(output)
    importer.bounds[output] = float(np.abs(labels).max())


def matrix(importer: Importer, node: Node, x: str, weights: np.ndarray, bias: np.ndarray, output: str) -> str:
    """`x @ weights + bias` of rows x."""
    from ml4f.frontend.importer_contractions import dense

    if x in importer.constants:
        raise NotSupported("its input is a constant")
    dense(importer, node, x, weights.astype(np.float32), bias.astype(np.float32), output)
    return output
