"""Wrapped indices beside inner graphs: what only computed the indices is not imported, what inner graphs read is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.frontend.importer import import_onnx
from ml4f.frontend.importer_indices import plain_indices
from ml4f.interpreters.nn import run_nn
from ml4f.reference import Reference

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3) * 0.25 - 1


def looked_up_and_looped() -> onnx.ModelProto:
    """An Embedding as TensorFlow exports it, whose rows a loop adds up; the loop's body reads a sum outside of it."""
    constants = {
        "table": TABLE,
        "zero": np.array(0, np.int32),
        "rows": np.array(4, np.int32),
        "two": np.array(2, np.int64),
        "true": np.array(True),
    }
    body = helper.make_graph(
        [helper.make_node("Add", ["carried", "doubled"], ["more"]), helper.make_node("Identity", ["on"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [1, 2, 3]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 2, 3]),
        ],
    )
    nodes = [
        helper.make_node("Less", ["i", "zero"], ["negative"]),
        helper.make_node("Add", ["i", "rows"], ["wrapped"]),
        helper.make_node("Where", ["negative", "wrapped", "i"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
        helper.make_node("Add", ["found", "found"], ["doubled"]),
        helper.make_node("Loop", ["two", "true", "found"], ["y"], body=body),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("i", TensorProto.INT32, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def test_only_what_is_read_stays() -> None:
    kept = plain_indices(looked_up_and_looped().graph, 15)
    assert [node.op_type for node in kept.node] == ["Gather", "Add", "Loop"]


@pytest.mark.parametrize("index", [[0, 3], [2, 1], [-1, -4]])
def test_the_rows_are_those_of_onnx(index: list[int]) -> None:
    model, x = looked_up_and_looped(), np.array([index], dtype=np.int32)
    expected = Reference(model).run([x])["y"]
    (found,) = run_nn(import_onnx(model, "looped.onnx"), [x.astype(np.float32)])
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-6)
