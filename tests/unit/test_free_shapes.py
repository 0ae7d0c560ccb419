"""Dimensions that a model leaves free, given by the user: in ONNX, Keras, and on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from model_files import dense_layers, write_h5
from onnx import TensorProto, helper

import ml4f
from ml4f.cli import main
from ml4f.errors import Ml4fError, UsageError
from ml4f.frontend import load_model
from ml4f.frontend.free_shapes import FreeShapes


def pooled(*shape: int | str | None) -> onnx.ModelProto:
    """The maximum of each channel of an image."""
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], shape[1], 1, 1])
    node = helper.make_node("GlobalMaxPool", ["image"], ["y"])
    graph = helper.make_graph([node], "pooled", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    ("dims", "inputs"),
    [
        (["h=4", "w=5"], []),
        (["h=4", "w=5", "batch=1"], []),
        ([], ["1,2,4,5"]),
        ([], ["image=1x2x4x5"]),
        ([], ["2,4,5"]),
    ],
)
def test_onnx(dims: list[str], inputs: list[str]) -> None:
    proto = load_model(pooled("n", 2, "h", "w"), shapes=FreeShapes.parse(dims, inputs)).proto
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [2, 4, 5] and shape[0] in (0, 1)


def test_the_library_takes_them_too() -> None:
    x = np.arange(40, dtype=np.float32)
    for given in (
        {"dims": {"h": 4, "w": 5}},
        {"input_shapes": (1, 2, 4, 5)},
        {"input_shapes": {"image": (1, 2, 4, 5)}},
    ):
        compilation = ml4f.compile(pooled("n", 2, "h", "w"), **given)
        assert compilation.predict(x).ravel().tolist() == [19, 39]


@pytest.mark.parametrize(
    ("dims", "inputs", "message"),
    [
        (["d=3"], [], r"no input has a dimension 'd'; its free dimensions: h, n, w"),
        ([], ["1,3,4,5"], r"\['\?', 2, '\?', '\?'\], \[1, 3, 4, 5\] does not fit it"),
        ([], ["picture=1,2,4,5"], r"no input 'picture'; its inputs are 'image'"),
    ],
)
def test_what_does_not_fit_is_an_error(dims: list[str], inputs: list[str], message: str) -> None:
    with pytest.raises(Ml4fError, match=message):
        load_model(pooled("n", 2, "h", "w"), shapes=FreeShapes.parse(dims, inputs))


def test_keras(tmp_path: Path) -> None:
    layers = dense_layers()
    layers[0][1]["batch_input_shape"] = [None, None, 4]
    path = write_h5(tmp_path / "free.h5", layers)
    with pytest.raises(Ml4fError, match=r"dimension 1 is free; give it with --input-shape"):
        load_model(path)
    proto = load_model(path, shapes=FreeShapes.parse(["batch=1"], ["7,4"])).proto
    assert [d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] == [1, 7, 2]


@pytest.mark.parametrize(("dims", "inputs"), [(["h"], []), (["h=0"], []), ([], ["a,b"]), ([], ["1,-3"])])
def test_words_that_say_nothing_are_wrong_usage(dims: list[str], inputs: list[str]) -> None:
    with pytest.raises(UsageError, match="as in --"):
        FreeShapes.parse(dims, inputs)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pooled.onnx"
    path.write_bytes(pooled("n", 2, "h", "w").SerializeToString())
    arguments = [str(path), "--output", str(tmp_path / "built"), "--no-validate"]
    assert main(arguments) == 1
    assert "--input-shape or --dim" in capsys.readouterr().err
    assert main([*arguments, "--dim", "h=4", "--dim", "w=5"]) == 0
    assert main([*arguments, "--input-shape", "1,2,4,5"]) == 0
    assert main([*arguments, "--dim", "wide"]) == 2
