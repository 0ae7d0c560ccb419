"""Descriptions of models with something else in one place: an error of one of a few lines, never a bug of ours."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from model_files import dense_layers, keras_parts, write_tfjs
from onnx import TensorProto, helper

from ml4f.cli import main
from ml4f.errors import InternalError, Ml4fError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx

ODD: list[Any] = [None, -1, 0, 1e308, float("inf"), True, "x", "a" * 5000, [], {}, [[-1]], [None, 0], "linear"]
LONGEST_MESSAGE = 1100


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a JSON document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with a value in one place."""
    made = copy.deepcopy(document)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def check(path: Path) -> None:
    """Reads a model, or says what is wrong."""
    try:
        loaded = load_model(path)
        import_onnx(loaded.proto, loaded.name)
    except InternalError:
        raise
    except Ml4fError as error:
        assert str(error)


def cases(document: Any) -> Iterator[Any]:
    """Every place with some odd values."""
    for number, path in enumerate(places(document)):
        for offset in (0, 4, 8):
            yield changed(document, path, ODD[(number + offset) % len(ODD)])


def test_descriptions_of_tfjs_models(tmp_path: Path) -> None:
    path = write_tfjs(tmp_path / "model", dense_layers())
    file = path / "model.json" if path.is_dir() else path
    for case in cases(json.loads(file.read_text())):
        file.write_text(json.dumps(case))
        check(file)


def test_descriptions_of_keras_models(tmp_path: Path) -> None:
    parts = keras_parts(dense_layers())
    path = tmp_path / "model.keras"
    for case in cases(json.loads(parts["config.json"])):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**parts, "config.json": json.dumps(case).encode()}.items():
                archive.writestr(name, data)
        check(path)


@pytest.mark.parametrize("dtype", [{"config": "x"}, {"config": 3}, {"config": []}, {"class_name": "DTypePolicy"}])
def test_types_that_are_none(dtype: Any, tmp_path: Path) -> None:
    layers = dense_layers()
    layers[0][1]["dtype"] = dtype
    parts = keras_parts(layers)
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    check(path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Softsign", ["x"], ["y"])], "g", ends[:1], ends[1:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"Softsign", b"Softs\xffgn"))
    with pytest.raises(Ml4fError):
        load_model(path)


def test_a_stride_of_nothing_names_the_layer() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,1,4,4] x) => (float[1,1,4,4] y) {
      y = MaxPool <kernel_shape = [1,1], strides = [0,0]> (x)
    }"""
    with pytest.raises(Ml4fError, match="MaxPool_0"):
        import_onnx(load_model(onnx.parser.parse_model(text)).proto, "case")


def test_names_of_any_length_make_no_long_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = dense_layers()
    _, config, weights = layers[1]
    layers[1] = ("a" * 5000, {**config, "name": "b" * 5000}, weights)
    path = write_tfjs(tmp_path / "model", layers)
    assert main([str(path), "--output", str(tmp_path / "built")]) == 1
    assert 0 < len(capsys.readouterr().err) < 2 * LONGEST_MESSAGE
