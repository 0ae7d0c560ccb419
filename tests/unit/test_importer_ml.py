"""What scikit-learn's exporter puts around a network: scaling in front, labels and maps of probabilities behind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.errors import UnsupportedError

ML = "ai.onnx.ml"
RNG = np.random.default_rng(1)
WEIGHTS = RNG.standard_normal((4, 3)).astype(np.float32)
OFFSET, SCALE = RNG.standard_normal(4).tolist(), RNG.uniform(0.5, 2, 4).tolist()
X = RNG.standard_normal((6, 4)).astype(np.float32)


def classifier(labels: np.ndarray, maps: bool) -> onnx.ModelProto:
    """As skl2onnx writes a pipeline of a scaler and a perceptron without hidden layers."""
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain=ML, offset=OFFSET, scale=SCALE, name="scaler"),
        helper.make_node("MatMul", ["scaled", "w"], ["z"], name="product"),
        helper.make_node("Softmax", ["z"], ["p"], name="softmax"),
        helper.make_node("ArgMax", ["p"], ["number"], axis=1, name="argmax"),
        helper.make_node("ArrayFeatureExtractor", ["labels", "number"], ["found"], domain=ML, name="label"),
        helper.make_node("Reshape", ["found", "shape"], ["output_label"], name="reshape"),
    ]
    probabilities = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 3])
    if maps:
        keys = labels.tolist()
        nodes.append(helper.make_node("ZipMap", ["p"], ["maps"], domain=ML, classlabels_int64s=keys, name="zip"))
        element = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        probabilities = helper.make_value_info("maps", helper.make_sequence_type_proto(element))
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]), probabilities],
        [
            numpy_helper.from_array(WEIGHTS, "w"),
            numpy_helper.from_array(labels, "labels"),
            numpy_helper.from_array(np.array([-1]), "shape"),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("labels", [np.arange(3), np.array([15, 5, 25])], ids=["numbers", "others"])
def test_labels_and_probabilities(labels: np.ndarray, maps: bool) -> None:
    compiled = ml4f.compile(classifier(labels, maps))
    for x in X:
        powers = np.exp((x - np.float32(OFFSET)) * np.float32(SCALE) @ WEIGHTS)
        label, probabilities = compiled.predict(x).values()
        assert int(label.ravel()[0]) == labels[np.argmax(powers)] and label.dtype == np.int32
        np.testing.assert_allclose(probabilities.ravel(), powers / powers.sum(), rtol=1e-5)


def test_labels_that_are_texts_are_refused() -> None:
    model = classifier(np.arange(3), False)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array(["a", "b", "c"], dtype=object), "labels"))
    with pytest.raises(UnsupportedError, match=r"'label'.*ArgMax"):
        ml4f.compile(model)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_rows_are_normalised(norm: str) -> None:
    nodes = [
        helper.make_node("Normalizer", ["x"], ["n"], domain=ML, norm=norm),
        helper.make_node("Binarizer", ["n"], ["y"], domain=ML, threshold=0.25),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("x", "n", "y")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:]), opset_imports=imports, ir_version=8)
    compiled = ml4f.compile(model)
    for x in (*X, np.zeros(4, np.float32)):
        norms = {"L1": np.abs(x).sum(), "L2": np.sqrt((x * x).sum())}
        wanted = x / norms[norm] if norms[norm] else x
        normal, binary = compiled.predict(x).values()
        np.testing.assert_allclose(normal.ravel(), wanted, rtol=1e-5)
        np.testing.assert_array_equal(binary.ravel(), wanted > 0.25)
