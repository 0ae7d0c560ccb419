"""What scikit-learn's exporter puts around a network: scaling in front, labels and maps of probabilities behind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f

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


def test_labels_that_are_texts_become_numbers() -> None:
    model = classifier(np.arange(3), False)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array(["a", "b", "c"], dtype=object), "labels"))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    compiled, numbers = ml4f.compile(model), ml4f.compile(classifier(np.arange(3), False))
    assert any("number of the class" in note for note in compiled.notes)
    for x in X:
        assert compiled.predict(x)["output_label"].tolist() == numbers.predict(x)["output_label"].tolist()


def test_columns_are_taken_by_constant_numbers() -> None:
    node = helper.make_node("ArrayFeatureExtractor", ["x", "columns"], ["y"], domain=ML)
    constant = numpy_helper.from_array(np.array([3, 0, 1]), "columns")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("x", 4), ("y", 3))]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [constant])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    compiled = ml4f.compile(helper.make_model(graph, opset_imports=imports, ir_version=8))
    np.testing.assert_array_equal(compiled.predict(X[0]).ravel(), X[0][[3, 0, 1]])


def test_missing_values_and_columns_of_several_inputs() -> None:
    nodes = [
        helper.make_node(
            *("Imputer", ["x"], ["z"]), domain=ML, imputed_value_floats=SCALE, replaced_value_float=float("nan")
        ),
        helper.make_node("FeatureVectorizer", ["z", "x2"], ["y"], domain=ML, inputdimensions=[4, 2]),
    ]
    sizes = {"x": 4, "x2": 2, "y": 6}
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in sizes.items()]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:2], info[2:]), opset_imports=imports, ir_version=8)
    compiled = ml4f.compile(model)
    x = X[0].copy()
    x[2] = np.nan
    wanted = [*np.where(np.isnan(x), np.float32(SCALE), x), 5.0, 6.0]
    np.testing.assert_array_equal(compiled.predict([x[None], np.array([[5.0, 6.0]])]).ravel(), np.float32(wanted))


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
