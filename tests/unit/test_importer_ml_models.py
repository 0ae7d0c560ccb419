"""Linear models, support vector machines and trees of ai.onnx.ml, in machine code, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import ml4f
from ml4f.compiler import Compilation
from ml4f.errors import UnsupportedError

onnxruntime = pytest.importorskip("onnxruntime")

ML = "ai.onnx.ml"
FEATURES = 4
RNG = np.random.default_rng(1)
X = RNG.standard_normal((6, FEATURES)).astype(np.float32)
X[0] = 0.0


def floats(count: int) -> list[float]:
    return np.random.default_rng(count).standard_normal(count).astype(np.float32).tolist()


def model(op_type: str, outputs: Sequence[str], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], list(outputs), domain=ML, name="model", **attributes)
    kinds = {"label": TensorProto.STRING if "classlabels_strings" in attributes else TensorProto.INT64}
    graph = helper.make_graph(
        [node],
        "pipeline",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def check(proto: onnx.ModelProto, rows: np.ndarray = X, texts: Sequence[str] = ()) -> Compilation:
    compiled, session = ml4f.compile(proto, validate=False), onnxruntime.InferenceSession(proto.SerializeToString())
    for x in rows:
        found = compiled.predict(x)
        values = list(found.values()) if isinstance(found, dict) else [found]
        for value, wanted in zip(values, session.run(None, {"x": x[None]}), strict=True):
            flat = np.ravel([texts.index(text) for text in wanted] if texts and wanted.dtype == object else wanted)
            np.testing.assert_allclose(np.ravel(value), flat, rtol=1e-4, atol=1e-5)
    return compiled


@pytest.mark.parametrize("targets", [1, 3])
def test_linear_regression(targets: int) -> None:
    numbers = {"coefficients": floats(FEATURES * targets), "intercepts": floats(targets)}
    check(model("LinearRegressor", ["y"], targets=targets, **numbers))


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize(("scores", "labels"), [(1, [5, 2]), (2, [0, 1]), (3, [7, 3, 9])])
def test_linear_classifier(kind: str, scores: int, labels: list[int]) -> None:
    numbers = {"coefficients": floats(FEATURES * scores), "intercepts": floats(scores)}
    check(model("LinearClassifier", ["label", "s"], classlabels_ints=labels, post_transform=kind, **numbers))


def test_classes_that_are_texts_become_numbers() -> None:
    numbers = {"coefficients": floats(FEATURES * 3), "intercepts": floats(3)}
    texts = ["setosa", "versicolor", "virginica"]
    proto = model("LinearClassifier", ["label", "s"], classlabels_strings=texts, **numbers)
    compiled = check(proto, texts=texts)
    assert any("number of the class" in note for note in compiled.notes)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vectors(kernel: str) -> None:
    shared = {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0], "support_vectors": floats(7 * FEATURES)}
    numbers = {"coefficients": floats(7), "n_supports": 7, "rho": [0.3]}
    check(model("SVMRegressor", ["y"], **shared, **numbers))
    check(model("SVMRegressor", ["y"], **shared, **numbers, one_class=1))
    for counts, labels in (([3, 4], [4, 6]), ([2, 3, 2], [0, 1, 2])):
        pairs = len(counts) * (len(counts) - 1) // 2
        numbers = {"coefficients": floats(7 * (len(counts) - 1)), "vectors_per_class": counts, "rho": floats(pairs)}
        check(model("SVMClassifier", ["label", "s"], **shared, **numbers, classlabels_ints=labels))


def test_far_from_zero_little_cancels() -> None:
    """Distances of rows around (1000, …): about the centre of the vectors."""
    vectors = (np.array(floats(5 * FEATURES)) + 1000.0).tolist()
    shared = {"kernel_type": "RBF", "kernel_params": [0.3, 0.0, 0.0], "support_vectors": vectors}
    check(model("SVMRegressor", ["y"], **shared, coefficients=floats(5), n_supports=5, rho=[0.3]), X + 1000.0)


def test_probabilities_of_support_vectors_are_refused() -> None:
    numbers = {"coefficients": floats(4), "vectors_per_class": [2, 2], "rho": [0.1], "prob_a": [1.0], "prob_b": [0.5]}
    proto = model("SVMClassifier", ["label", "s"], support_vectors=floats(16), classlabels_ints=[0, 1], **numbers)
    with pytest.raises(UnsupportedError, match=r"'model' \(SVMClassifier\).*probability=False"):
        ml4f.compile(proto, validate=False)


# Trees


def trees(count: int, depth: int, targets: Sequence[int], modes: Sequence[str], tracks: int, kind: str) -> Any:
    """Random trees some of whose thresholds are values of X; every leaf has a weight for each of the targets."""
    rng = np.random.default_rng(count)
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            *("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values"),
            *("nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true"),
        )
    }
    weights: dict[str, list[Any]] = {f"{kind}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}

    def grow(tree: int, numbers: list[int], levels: int) -> int:
        number, row = len(numbers), len(columns["nodes_modes"])
        numbers.append(row)
        leaf = levels == 0 or (levels < depth and rng.random() < 0.2)
        mode = "LEAF" if leaf else str(rng.choice(list(modes)))
        threshold = float(rng.choice(X.ravel())) if rng.random() < 0.5 else float(np.float32(rng.standard_normal()))
        tracked = int(rng.integers(2)) if tracks == 2 else tracks
        values = (tree, number, int(rng.integers(FEATURES)), mode, threshold, 0, 0, tracked)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        if leaf:
            for target in targets:
                for column, value in zip(
                    weights.values(), (tree, number, target, float(np.float32(rng.uniform(0.1, 1)))), strict=True
                ):
                    column.append(value)
        else:
            columns["nodes_truenodeids"][row] = grow(tree, numbers, levels - 1)
            columns["nodes_falsenodeids"][row] = grow(tree, numbers, levels - 1)
        return number

    for tree in range(count):
        grow(tree, [], depth)
    return {**columns, **weights}


WITH_NAN = np.where(RNG.random(X.shape) < 0.3, np.float32(np.nan), X)


@pytest.mark.parametrize("tracks", [0, 1, 2])
@pytest.mark.parametrize(
    "modes", [["BRANCH_LEQ"], ["BRANCH_GT", "BRANCH_GTE"], ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT"]]
)
def test_regression_trees(modes: list[str], tracks: int) -> None:
    """Values that equal a threshold, and NaN, go where onnxruntime sends them."""
    given = trees(5, 4, [0], modes, tracks, "target")
    check(model("TreeEnsembleRegressor", ["y"], n_targets=1, base_values=[0.5], **given), np.vstack([X, WITH_NAN]))


@pytest.mark.parametrize("aggregate", ["AVERAGE", "MIN", "MAX"])
def test_trees_with_several_targets(aggregate: str) -> None:
    given = trees(4, 3, [0, 1, 2], ["BRANCH_LEQ"], 0, "target")
    check(model("TreeEnsembleRegressor", ["y"], n_targets=3, aggregate_function=aggregate, **given))


@pytest.mark.parametrize("kind", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_classification_trees(kind: str) -> None:
    three = trees(6, 4, [0, 1, 2], ["BRANCH_LEQ"], 0, "class")
    check(model("TreeEnsembleClassifier", ["label", "s"], classlabels_int64s=[3, 1, 2], post_transform=kind, **three))
    if kind != "SOFTMAX":  # of one score, which skl2onnx does not write
        one = trees(6, 4, [0], ["BRANCH_LEQ"], 0, "class")
        check(model("TreeEnsembleClassifier", ["label", "s"], classlabels_int64s=[3, 4], post_transform=kind, **one))


def test_a_single_leaf() -> None:
    check(model("TreeEnsembleRegressor", ["y"], n_targets=1, **trees(1, 0, [0], [], 0, "target")))


def test_many_trees_share_their_code() -> None:
    """The code is that of a level, not of the nodes."""
    few, many = (
        ml4f.compile(
            model("TreeEnsembleRegressor", ["y"], n_targets=1, **trees(count, 5, [0], ["BRANCH_LEQ"], 0, "target"))
        )
        for count in (20, 80)
    )
    assert many.code.code_bytes < 1.2 * few.code.code_bytes
