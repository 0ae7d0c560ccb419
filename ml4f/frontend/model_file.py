"""Any model file as an ONNX model: the format is recognised by the contents, then its reader does the work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from ml4f.errors import Ml4fError, UsageError
from ml4f.frontend.free_shapes import FreeShapes
from ml4f.frontend.guards import MAX_FILE_BYTES, MAX_JSON_BYTES, parse_json
from ml4f.frontend.onnx_file import beside, parse_onnx, prepare_onnx
from ml4f.frontend.pytorch import is_module, is_program, read_module, read_program

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_PLACES = (0, 512, 1024, 2048)
"""Where the signature may be: behind a user block (HDF5 file format, section II.A)."""
ZIP_SIGNATURE = b"PK\x03\x04"
TFLITE_SIGNATURE = b"TFL3"
"""At offset 4 (FlatBuffers file identifier)."""
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".onnx", ".json", ".tflite")
NAME_ENDINGS = (
    ".tfjsmodel",
    ".tfjs",
    ".keras2",
    ".keras",
    ".h5",
    ".hdf5",
    ".onnx",
    ".json",
    ".tflite",
    ".pt2",
    ".pb",
    ".model",
)


FIXED = FreeShapes()
"""Nothing is said about free dimensions."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model: `proto` with all data inside and float32, `name` for files and messages, `notes` for the user."""

    proto: onnx.ModelProto
    name: str
    notes: list[str] = field(default_factory=list)


def load_model(
    source: str | Path | bytes | onnx.ModelProto | Any, name: str | None = None, shapes: FreeShapes = FIXED
) -> Loaded:
    """A model from a path (file or folder), the bytes of a file, an ONNX model or a torch.nn.Module.

    `shapes`: of dimensions that the model leaves free. Raises Ml4fError.
    """
    loaded = _load(source, name, shapes)
    shapes.fix(loaded.proto, loaded.name)
    return loaded


def _load(source: Any, name: str | None, shapes: FreeShapes) -> Loaded:
    if isinstance(source, onnx.ModelProto):
        own = name or source.graph.name or "model"
        proto, notes = prepare_onnx(source, own, None)
        return Loaded(proto, own, notes)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), name or "model", "the model", None, shapes)
    if is_module(source):
        own = name or type(source).__name__
        return _prepared(read_module(source, shapes, own), own, own)
    if not isinstance(source, str | Path):
        raise UsageError(f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}")
    path = Path(source)
    own = name or model_name(path)
    try:
        if path.is_dir():
            return _from_folder(path, own, shapes)
        return _from_bytes(_read(path, MAX_FILE_BYTES), own, str(source), path, shapes)
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Ml4fError(f"{source}: cannot be read: {detail}") from None


def model_name(path: Path) -> str:
    """From the file's name without endings; of model.json, from its folder's."""
    stem = path.name or path.resolve().name
    if stem.lower() in ("model.json", "config.json") and path.resolve().parent.name:
        stem = path.resolve().parent.name
    changed = True
    while changed:
        changed = False
        for ending in NAME_ENDINGS:
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                stem, changed = stem[: -len(ending)], True
    return stem or "model"


def _read(path: Path, limit: int) -> bytes:
    if path.exists() and not path.is_file():
        raise Ml4fError(f"{path}: is no file; give a model file or a folder that holds one")
    size = path.stat().st_size
    if size > limit:
        raise Ml4fError(
            f"{path}: takes {size} bytes, more than the limit of {limit}; this is no model for a microcontroller"
        )
    return path.read_bytes()


def _from_bytes(data: bytes, name: str, subject: str, path: Path | None, shapes: FreeShapes) -> Loaded:
    """By the first bytes; `path`: of the file, if it is one."""
    folder = path.parent if path is not None else None
    if not data:
        raise Ml4fError(f"{subject}: the file is empty; save the model again")
    if any(data[at : at + 8] == HDF5_SIGNATURE for at in HDF5_PLACES):
        from ml4f.frontend.keras_archive import read_h5

        return _keras(read_h5(data, subject), name, subject, shapes)
    if data[:4] == ZIP_SIGNATURE and is_program(data):
        if path is None:
            raise Ml4fError(f"{subject}: give the path of a .pt2 file, not its bytes")
        return _prepared(read_program(path, subject), name, subject)
    if data[:4] == ZIP_SIGNATURE:
        from ml4f.frontend.keras_archive import read_archive

        return _keras(read_archive(data, subject), name, subject, shapes)
    if data[4:8] == TFLITE_SIGNATURE:
        from ml4f.frontend.tflite_onnx import tflite_to_onnx

        return Loaded(*_named(tflite_to_onnx(data, subject), name))
    text = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return _from_json(data, name, subject, folder, shapes)
    if data[:2] == b"\x80\x02" or data[:1] == b"\x80":
        raise Ml4fError(f"{subject}: this looks like a Python pickle (PyTorch, scikit-learn); export the model to ONNX")
    if _is_graph_def(data):
        from ml4f.frontend.savedmodel import read_frozen_graph

        return _prepared(read_frozen_graph(data, subject, shapes), name, subject)
    proto, notes = prepare_onnx(parse_onnx(data, subject), subject, folder)
    return Loaded(proto, name, notes)


def _is_graph_def(data: bytes) -> bool:
    """A GraphDef begins with its first node, field 1 of bytes, whose first field is a name; ONNX with a version."""
    at = 1
    while at < len(data) and data[at] & 0x80:
        at += 1
    return data[:1] == b"\n" and data[at + 1 : at + 2] == b"\n"


def _prepared(made: tuple[onnx.ModelProto, list[str]], name: str, subject: str) -> Loaded:
    """A model that a converter wrote, checked like one from a file."""
    proto, notes = prepare_onnx(made[0], subject, None)
    return Loaded(proto, name, [*made[1], *notes])


def _named(made: tuple[onnx.ModelProto, list[str]], name: str) -> tuple[onnx.ModelProto, str, list[str]]:
    proto, notes = made
    return proto, name, notes


def _from_json(data: bytes, name: str, subject: str, folder: Path | None, shapes: FreeShapes) -> Loaded:
    from ml4f.frontend.tfjs import read_tfjs

    def shard(location: str) -> bytes:
        assert folder is not None
        path = beside(folder, location, subject)
        try:
            return _read(path, MAX_FILE_BYTES)
        except OSError as error:
            raise Ml4fError(
                f"{subject}: its weights in '{location}' cannot be read: {error.strerror or error}"
            ) from None

    document: Any = parse_json(data, subject, "the JSON file")
    return _keras(read_tfjs(document, subject, shard if folder is not None else None), name, subject, shapes)


def _keras(file: Any, name: str, subject: str, shapes: FreeShapes) -> Loaded:
    from ml4f.frontend.keras_onnx import keras_to_onnx

    proto, notes = keras_to_onnx(file, subject, shapes)
    return Loaded(proto, name, notes)


def _from_folder(path: Path, name: str, shapes: FreeShapes) -> Loaded:
    """An unpacked .keras archive, a TF.js model, or a folder with one model file."""
    names = sorted(entry.name for entry in path.iterdir())
    if "config.json" in names and "model.weights.h5" in names:
        from ml4f.frontend.keras_archive import read_parts

        parts = read_parts(set(names), lambda part, limit: _read(path / part, limit), str(path))
        return _keras(parts, name, str(path), shapes)
    if "model.json" in names:
        model = path / "model.json"
        return _from_bytes(_read(model, MAX_JSON_BYTES), name, str(model), model, shapes)
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        if "saved_model.pb" not in names:
            raise Ml4fError(f"{path}: a SavedModel in text form is not read; load it and save it as .keras or .h5")
        from ml4f.frontend.savedmodel import read_saved_model

        return _prepared(read_saved_model(path, str(path), shapes), name, str(path))
    found = [entry for entry in names if entry.lower().endswith(MODEL_SUFFIXES) and (path / entry).is_file()]
    if len(found) == 1:
        return _load(path / found[0], name, shapes)
    if not found:
        raise Ml4fError(f"{path}: the folder holds no model (.keras, .h5, .onnx, TF.js model.json)")
    raise Ml4fError(
        f"{path}: the folder holds {len(found)} files that may be models ({', '.join(found[:5])}); give one of them"
    )
