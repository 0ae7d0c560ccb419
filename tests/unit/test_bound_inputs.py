"""Inputs that are made constants: `--input-value`, `input_values`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.cli import main
from ml4f.errors import Ml4fError, UsageError
from ml4f.frontend.bound_inputs import parse_input_values

X = np.array([0.25, -3.0, 8.0, 1.5], np.float32)


def by_rate() -> onnx.ModelProto:
    """y = x * 2 at a rate of 16000, else x + bias; so that the rate chooses, as in voice activity detectors."""
    branches = [
        helper.make_graph([node], name, [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
        for name, node in (
            ("at_16000", helper.make_node("Mul", ["x", "two"], ["z"])),
            ("else", helper.make_node("Add", ["x", "bias"], ["z"])),
        )
    ]
    nodes = [
        helper.make_node("Mul", ["rate", "one"], ["same"]),
        helper.make_node("Equal", ["same", "wanted"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    constants = {"one": np.array(1), "wanted": np.array(16000), "two": np.array(2, np.float32)}
    graph = helper.make_graph(
        nodes,
        "by_rate",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_depends_on_the_constant_alone_is_computed_when_compiling() -> None:
    with pytest.raises(Ml4fError, match=r"--input-value"):
        ml4f.compile(by_rate())
    twice = ml4f.compile(by_rate(), input_values={"rate": 16000})
    np.testing.assert_array_equal(twice.predict({"x": X, "bias": X}).ravel(), 2 * X)
    assert not any("rate" in note for note in twice.notes)
    moved = ml4f.compile(by_rate(), input_values={"rate": 8000, "bias": [1, 2, 3, 4]})
    np.testing.assert_array_equal(moved.predict(X).ravel(), X + np.array([1, 2, 3, 4], np.float32))
    even = ml4f.compile(by_rate(), input_values={"rate": 8000, "bias": 0.5})
    np.testing.assert_array_equal(even.predict(X).ravel(), X + np.float32(0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 1}, r"no input 'speed' to fix; its inputs are 'x', 'rate', 'bias'"),
        ({"rate": 0.5}, r"input 'rate' \[\]: holds integers of type int64; 0.5 is none"),
        ({"bias": [1, 2, 3]}, r"input 'bias' \[1, 4\]: takes 4 numbers, or one for all of them"),
        ({"rate": "fast"}, r"input 'rate' \[\]: takes 1 numbers"),
        ({"x": 1, "rate": 16000, "bias": 0}, r"every input is fixed"),
    ],
)
def test_what_does_not_fit_is_an_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(Ml4fError, match=message):
        ml4f.compile(by_rate(), input_values=values)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "by_rate.onnx"
    path.write_bytes(by_rate().SerializeToString())
    arguments = ["compile", str(path), "--output", str(tmp_path / "built")]
    assert main([*arguments, "--input-value", "rate=16000"]) == 0
    assert main([*arguments, "--input-value", "rate=8000", "--input-value", "bias=1,2,3,4"]) == 0
    assert main([*arguments, "--input-value", "rate"]) == 2
    assert "as in --input-value sr=16000" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["16000"], ["rate=fast"], ["rate=nan"], ["rate="], ["rate=1", "rate=2"]])
def test_words_that_say_nothing_are_wrong_usage(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--input-value"):
        parse_input_values(words)
