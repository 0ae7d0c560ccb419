"""load_model: formats by their contents, names, folders, and what broken or hostile files are answered with."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from model_files import (
    Layers,
    dense_layers,
    dense_result,
    keras_parts,
    microbit_json,
    tfjs_document,
    write_h5,
    write_keras,
    write_tfjs,
)
from onnx import TensorProto, helper, numpy_helper

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend import guards, load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

X = np.array([0.5, -1.0, 2.0, 0.25], dtype=np.float32)


def compute(source: Any, x: np.ndarray = X) -> np.ndarray:
    """The loaded model's output."""
    loaded = load_model(source)
    return run_nn(import_onnx(loaded.proto, loaded.name), [x])[0]


def message(source: Any) -> str:
    """What loading and importing is answered with: one message for the user, exit code 1."""
    with pytest.raises(Ml4fError) as caught:
        compute(source)
    assert caught.value.exit_code == 1
    assert len(str(caught.value)) < 1200
    return str(caught.value)


def dense_onnx(layers: Layers, **changes: Any) -> onnx.ModelProto:
    """The network of `dense_layers` as an exporter would write it."""
    (kernel, bias), (kernel2, bias2) = layers[0][2], layers[1][2]
    constants = {"w": kernel, "b": bias, "v": kernel2, "c": bias2}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"]),
    ]
    kind = changes.get("type", TensorProto.FLOAT)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", kind, changes.get("shape", ["batch", 4]))],
        [helper.make_tensor_value_info("y", kind, ["batch", 2])],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", changes.get("opset", 17))], ir_version=8)


# Formats


def test_the_contents_decide_about_the_format_not_the_name(tmp_path: Path) -> None:
    layers = dense_layers()
    expected = dense_result(layers, X)
    document, data = tfjs_document(layers)
    (tmp_path / "group1-shard1of1.bin").write_bytes(data)
    files = {
        "h5": write_h5(tmp_path / "a.bin", layers).read_bytes(),
        "keras": write_keras(tmp_path / "b.bin", layers).read_bytes(),
        "microbit": json.dumps(microbit_json(layers)).encode(),
        "tfjs": json.dumps(document).encode(),
        "onnx": dense_onnx(layers).SerializeToString(),
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.model"
        path.write_bytes(content)
        np.testing.assert_allclose(compute(path), expected, rtol=1e-5, err_msg=name)
        if name != "tfjs":
            np.testing.assert_allclose(compute(content), expected, rtol=1e-5, err_msg=f"{name}, bytes")
    np.testing.assert_allclose(compute(dense_onnx(layers)), expected, rtol=1e-5)


def test_folders(tmp_path: Path) -> None:
    layers = dense_layers()
    expected = dense_result(layers, X)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for name, content in keras_parts(layers).items():
        (unpacked / name).write_bytes(content)
    one = tmp_path / "one"
    one.mkdir()
    write_h5(one / "best.h5", layers)
    (one / "README.txt").write_text("trained in May")
    for folder in (unpacked, one, write_tfjs(tmp_path / "gesture.tfjs", layers, cuts=3)):
        np.testing.assert_allclose(compute(folder), expected, rtol=1e-5, err_msg=str(folder))
    write_h5(one / "worst.h5", layers)
    assert "best.h5, worst.h5" in message(one)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no model" in message(empty)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("gestures.tfjsmodel.json", "gestures"),
        ("kws.keras2.keras", "kws"),
        ("my.model.h5", "my"),
        ("wand.tfjs/model.json", "wand"),
        ("v1.2.onnx", "v1.2"),
    ],
)
def test_names(path: str, name: str, tmp_path: Path) -> None:
    layers = dense_layers()
    target = tmp_path / path
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(microbit_json(layers)))
    assert load_model(target).name == name
    assert load_model(target, name="other").name == "other"


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    layers = dense_layers()
    path = tmp_path / "m.onnx"
    onnx.save(dense_onnx(layers), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_allclose(compute(path), dense_result(layers, X), rtol=1e-5)
    assert "give the path" in message(path.read_bytes())
    (tmp_path / "weights.bin").write_bytes(b"12")
    assert "too short" in message(path)
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in message(path)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_float_types_become_float32(kind: int) -> None:
    layers = dense_layers()
    loaded = load_model(dense_onnx(layers, type=kind))
    assert any("float32" in note for note in loaded.notes)
    assert {t.data_type for t in loaded.proto.graph.initializer} == {TensorProto.FLOAT}
    np.testing.assert_allclose(compute(loaded.proto), dense_result(layers, X), rtol=1e-2)


def test_quantised_tfjs_weights(tmp_path: Path) -> None:
    layers = dense_layers()
    document, _ = tfjs_document(layers)
    data, expected = b"", []
    for (_, _, weights), kind in zip(layers, ("uint8", "uint16"), strict=True):
        for values in weights:
            levels = 255 if kind == "uint8" else 65535
            low, scale = float(values.min()), float(np.ptp(values)) / levels
            stored = np.round((values - low) / scale).astype(f"<{'u1' if kind == 'uint8' else 'u2'}")
            spec = document["weightsManifest"][0]["weights"][len(expected)]
            spec["quantization"] = {"dtype": kind, "scale": scale, "min": low, "original_dtype": "float32"}
            data += stored.tobytes()
            expected.append((stored * scale + low).astype(np.float32))
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "group1-shard1of1.bin").write_bytes(data)
    unpacked = [("Dense", layers[0][1], expected[:2]), ("Dense", layers[1][1], expected[2:])]
    np.testing.assert_allclose(compute(tmp_path), dense_result(unpacked, X), rtol=1e-5)


# Files that are no models


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, this is no model at all", "damaged, truncated or of another kind"),
        (b"\x00" * 4096, ""),
        (b"\x1c\x00\x00\x00TFL3" + b"\x00" * 64, "Lite"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"{", "cannot be read"),
        (b"{}", "no TF.js model"),
        (b"[1, 2]", "JSON object"),
        (b'{"modelTopology": {"node": []}}', "graph model"),
        (b"[" * 100_000, "nested too deeply"),
        (b"PK\x03\x04 but no archive", "zip archive"),
        (b"\x89HDF\r\n\x1a\n and no more", "damaged or incomplete"),
    ],
)
def test_other_files(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    assert words in message(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "nothing.h5: cannot be read: No such file" in message(tmp_path / "nothing.h5")
    assert "cannot be read" in message("a\0b.h5")
    assert "is no file" in message("/dev/zero")


@pytest.mark.parametrize("kind", ["h5", "keras", "tfjs", "json", "onnx"])
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    """Cut anywhere, a file is refused; what is left of it never becomes a model."""
    layers = dense_layers()
    if kind == "h5":
        content = write_h5(tmp_path / "m", layers).read_bytes()
    elif kind == "keras":
        content = write_keras(tmp_path / "m", layers).read_bytes()
    elif kind == "onnx":
        content = dense_onnx(layers).SerializeToString()
    else:
        content = json.dumps(microbit_json(layers) if kind == "json" else tfjs_document(layers)[0]).encode()
    if kind == "tfjs":
        (tmp_path / "group1-shard1of1.bin").write_bytes(tfjs_document(layers)[1])
    path = tmp_path / "cut"
    for part in range(1, 20):
        path.write_bytes(content[: len(content) * part // 20])
        message(path)


def test_a_shard_that_is_too_short_or_missing(tmp_path: Path) -> None:
    folder = write_tfjs(tmp_path / "m", dense_layers(), cuts=2)
    shard = folder / "group1-shard2of2.bin"
    shard.write_bytes(shard.read_bytes()[:-4])
    assert "shard is missing or truncated" in message(folder)
    shard.unlink()
    assert "group1-shard2of2.bin" in message(folder)


# Hostile files


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "link.bin", "", "a\0b"])
def test_shards_stay_in_the_folder(location: str, tmp_path: Path) -> None:
    folder = write_tfjs(tmp_path / "m", dense_layers())
    (tmp_path / "secret.bin").write_bytes((folder / "group1-shard1of1.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    document = json.loads((folder / "model.json").read_text())
    document["weightsManifest"][0]["paths"] = [location]
    (folder / "model.json").write_text(json.dumps(document))
    assert "refused" in message(folder)


def test_external_data_stays_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    proto = dense_onnx(dense_layers())
    tensor = proto.graph.initializer[0]
    (tmp_path / "secret").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    assert "refused" in message(folder / "m.onnx")


def test_links_out_of_an_hdf5_file_are_refused(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", dense_layers())
    write_h5(tmp_path / "other.h5", dense_layers(1))
    with h5py.File(path, "a") as file:
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/model_weights")
    assert "another file" in message(path)


def test_claims_of_gigabytes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    huge = [20_000, 40_000]
    document, data = tfjs_document(dense_layers())
    document["weightsManifest"][0]["weights"][0]["shape"] = huge
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "group1-shard1of1.bin").write_bytes(data)
    assert "3200000044" in message(tmp_path / "model.json")

    proto = dense_onnx(dense_layers())
    proto.graph.initializer[0].dims[:] = huge
    assert "limit" in message(proto)

    layers = dense_layers()
    layers[0][1].update(units=40_000, batch_input_shape=[None, 20_000])
    path = write_h5(tmp_path / "m.h5", layers)
    with h5py.File(path, "a") as file:
        del file["model_weights/hidden/hidden/w0:0"]
        del file["model_weights/hidden/hidden/w1:0"]
        file.create_dataset("model_weights/hidden/hidden/w0:0", huge, "f4", chunks=(1000, 1000))
        file.create_dataset("model_weights/hidden/hidden/w1:0", (40_000,), "f4")
    assert "limit" in message(path)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml4f.frontend.keras_archive.MAX_JSON_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (1 << 20))
        archive.writestr("model.weights.h5", b"")
    assert "unpacks to 1048576 bytes" in message(tmp_path / "m.keras")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(guards.MAX_FILE_BYTES + 1)
    assert "limit" in message(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    layers = dense_layers()
    layers[1][2][0][1, 1] = value
    sources = [write_h5(tmp_path / "m.h5", layers), write_keras(tmp_path / "m.keras", layers)]
    sources += [write_tfjs(tmp_path / "m", layers), dense_onnx(layers)]
    for source in sources:
        assert "NaN or infinite" in message(source)
    assert "'classes'" in message(sources[0])


def test_free_dimensions(tmp_path: Path) -> None:
    layers = dense_layers()
    layers[0][1]["batch_input_shape"] = [None, None]
    assert "dimension 1 is free" in message(write_h5(tmp_path / "m.h5", layers))
    assert "dimension 1 is free" in message(dense_onnx(dense_layers(), shape=["batch", "features"]))


def test_weights_of_another_model(tmp_path: Path) -> None:
    layers = dense_layers()
    layers[0][1]["units"] = 5
    text = message(write_h5(tmp_path / "m.h5", layers))
    assert "'hidden' (Dense)" in text and "[4, 3]" in text and "[4, 5]" in text
    del layers[1][2][1]
    layers[0][1]["units"] = 3
    assert "1 weight tensors" in message(write_h5(tmp_path / "n.h5", layers))


def test_every_unsupported_layer_is_named(tmp_path: Path) -> None:
    layers = dense_layers()
    layers.insert(1, ("TextVectorization", {"name": "norm"}, []))
    layers.insert(2, ("Lambda", {"name": "trick", "function": ["code", None, None]}, []))
    layers.insert(3, ("MyOwnLayer", {"name": "own"}, []))
    layers.append(("Dense", {"name": "last", "units": 2, "activation": "wobble"}, [np.eye(2, dtype=np.float32), X[:2]]))
    with pytest.raises(UnsupportedError) as caught:
        load_model(write_h5(tmp_path / "m.h5", layers))
    problems = caught.value.problems
    assert [problem.split("'")[1] for problem in problems] == ["norm", "trick", "own"]
    assert "TextVectorization" in problems[0] and "[1, 3]" in problems[0]
    assert "Lambda" in problems[1]
    del layers[1:4]
    assert "there is no activation 'wobble'" in message(write_h5(tmp_path / "n.h5", layers))


@pytest.mark.parametrize(
    "change",
    [
        {"units": "many"},
        {"units": -3},
        {"units": 10**12},
        {"activation": {"class_name": "__lambda__", "config": {"value": "4wEAAAAAA"}}},
        {"activation": 7},
        {"batch_input_shape": [None, "4"]},
        {"batch_input_shape": [None, 10**12]},
        {"batch_input_shape": 4},
        {"units": None},
    ],
)
def test_configurations_that_make_no_sense(change: dict[str, Any], tmp_path: Path) -> None:
    layers = dense_layers()
    layers[0][1].update(change)
    message(write_h5(tmp_path / "m.h5", layers))


def test_nested_configurations_without_end(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"class_name": "Dense", "config": {"name": "d", "units": 1}}
    for depth in range(200):
        inner = {"class_name": "Sequential", "config": {"name": f"s{depth}", "layers": [inner]}}
    (tmp_path / "m.json").write_text(json.dumps({"modelTopology": inner, "weightSpecs": [], "weights": []}))
    message(tmp_path / "m.json")


# ONNX


def test_operators_that_are_not_there_are_all_named() -> None:
    proto = dense_onnx(dense_layers())
    proto.graph.node[1].op_type = "Unique"
    proto.graph.node[3].op_type = "Det"
    text = message(proto)
    assert "Unique" in text
    proto.graph.node[1].CopyFrom(helper.make_node("Relu", ["h"], ["r"]))
    assert "Det" in message(proto)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_opsets(opset: int) -> None:
    layers = dense_layers()
    np.testing.assert_allclose(compute(dense_onnx(layers, opset=opset)), dense_result(layers, X), rtol=1e-5)
    assert "opset 5" in message(dense_onnx(layers, opset=5))


def test_graphs_that_are_not_valid() -> None:
    proto = dense_onnx(dense_layers())
    proto.graph.node[0].input[0] = "nobody"
    assert "not valid" in message(proto)
    proto = dense_onnx(dense_layers())
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]
    assert "damaged or truncated" in message(proto)
    proto = dense_onnx(dense_layers())
    del proto.graph.output[:]
    message(proto)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("Expand", ["one", "size"], ["big"]),
        helper.make_node("Tile", ["one", "size"], ["big"]),
    ],
)
def test_constants_that_would_fill_the_memory(node: onnx.NodeProto) -> None:
    proto = dense_onnx(dense_layers())
    proto.graph.initializer.append(numpy_helper.from_array(np.array([3_000_000_000]), "size"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"))
    proto.graph.node.insert(0, node)
    proto.graph.node.insert(1, helper.make_node("ReduceMax", ["big"], ["most"], keepdims=1))
    proto.graph.node.insert(2, helper.make_node("Add", ["x", "most"], ["shifted"]))
    proto.graph.node[3].input[0] = "shifted"
    assert "too large" in message(proto)


def test_local_functions_are_unfolded() -> None:
    layers = dense_layers()
    proto = dense_onnx(layers)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    proto.functions.append(helper.make_function("own", "Rectify", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node[1].CopyFrom(helper.make_node("Rectify", ["h"], ["r"], domain="own"))
    np.testing.assert_allclose(compute(proto), dense_result(layers, X), rtol=1e-5)
