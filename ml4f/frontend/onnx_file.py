"""ONNX files from bytes: checked before memory is taken, external data beside the file, everything as float32."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, numpy_helper

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.exporter_slips import mend_exporter_slips, unknown_operators
from ml4f.frontend.guards import Budget, checked_shape, diverged, parser_errors

WIDENED = (TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
"""Float types that are computed as float32."""
ITEM_BITS = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.BFLOAT16: 16,
}
"""Element types that are read."""


def parse_onnx(data: bytes, name: str) -> onnx.ModelProto:
    """A model from a file's bytes."""
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise Ml4fError(
            f"{name}: neither a Keras model (.h5, .keras), a TF.js model (.json), a TensorFlow Lite model (.tflite), a "
            "frozen graph (.pb), a PyTorch program (.pt2) nor an ONNX model (.onnx); the file is "
            "damaged, truncated or of another kind"
        ) from None
    if not proto.ir_version or not proto.graph.node:
        raise Ml4fError(f"{name}: this is no ONNX model, or an empty one: it has no nodes; export the model again")
    return proto


def prepare_onnx(proto: onnx.ModelProto, name: str, folder: Path | None) -> tuple[onnx.ModelProto, list[str]]:
    """A checked copy with all data inside, as float32; and remarks. `folder`: where external data may lie."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    proto = made
    notes: list[str] = []
    budget = Budget(name)
    if len(proto.graph.sparse_initializer):
        raise Ml4fError(f"{name}: sparse weights are not supported; export the model with dense ones")
    for tensor in _tensors(proto):
        _check_tensor(tensor, name, budget, folder)
    if len(proto.functions):
        with parser_errors(name, "the ONNX model"):
            from onnx import inliner

            proto = inliner.inline_local_functions(proto)
    mend_exporter_slips(proto)
    foreign = [
        f"'{node.name}' is of the kind {node.op_type}, which ONNX does not have: the exporter could not convert it; "
        "give the model in the format of the framework that made it"
        for node in unknown_operators(proto)
    ]
    if foreign:
        raise UnsupportedError(name, foreign)
    if proto.ir_version <= onnx.IR_VERSION:
        try:
            onnx.checker.check_model(_with_output_shapes(proto))
        except onnx.checker.ValidationError as error:
            detail = " ".join(str(error).split())[:300]
            raise Ml4fError(f"{name}: the ONNX model is not valid: {detail}") from None
    notes += _without_maps(proto) + _without_texts(proto)
    if _widen(proto):
        notes.append("the model computes in float16 or float64; the code computes in float32")
    return proto, notes


def _without_maps(proto: onnx.ModelProto) -> list[str]:
    """Takes away ZipMap, which makes maps from labels to probabilities: the probabilities become the output."""
    notes = []
    outputs = {entry.name: entry for entry in proto.graph.output}
    for node in [n for n in proto.graph.node if n.op_type == "ZipMap" and n.domain == "ai.onnx.ml"]:
        entry = outputs.get(node.output[0])
        if entry is None:
            continue
        proto.graph.node.remove(node)
        entry.CopyFrom(onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
        for other in proto.graph.node:
            for names in (other.input, other.output):
                for i, name in enumerate(names):
                    if name == node.input[0]:
                        names[i] = entry.name
        notes.append(f"the output '{entry.name}' holds the probabilities in the order of the classes, not a map")
    return notes


TEXT_LABELS = {
    "LinearClassifier": ("classlabels_strings", "classlabels_ints"),
    "SVMClassifier": ("classlabels_strings", "classlabels_ints"),
    "TreeEnsembleClassifier": ("classlabels_strings", "classlabels_int64s"),
}
"""Classifiers of ai.onnx.ml: the attribute with classes that are texts, and the one with numbers."""


def _without_texts(proto: onnx.ModelProto) -> list[str]:
    """Classes that are texts become their numbers, in the classifiers' attributes and in tables of labels."""
    notes, tables = [], {t.name: t for t in proto.graph.initializer if t.data_type == TensorProto.STRING}
    renamed = set[str]()
    for node in [n for n in proto.graph.node if n.domain == "ai.onnx.ml"]:
        for attribute in node.attribute:
            if attribute.name == TEXT_LABELS.get(node.op_type, ("", ""))[0] and len(attribute.strings):
                count = len(attribute.strings)
                attribute.CopyFrom(onnx.helper.make_attribute(TEXT_LABELS[node.op_type][1], list(range(count))))
                renamed.add(node.output[0])
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in tables:
            table = tables[node.input[0]]
            numbers = np.arange(prod(table.dims), dtype=np.int64).reshape(tuple(table.dims))
            table.CopyFrom(numpy_helper.from_array(numbers, table.name))
            renamed.add(node.output[0])
    if not renamed:
        return []
    for node in proto.graph.node:
        if any(name in renamed for name in node.input) and node.op_type in ("Cast", "Identity", "Reshape", "Squeeze"):
            renamed.update(node.output)
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.i == TensorProto.STRING:
                    attribute.i = TensorProto.INT64
    for entry in proto.graph.output:
        if entry.name in renamed and entry.type.tensor_type.elem_type == TensorProto.STRING:
            entry.type.tensor_type.elem_type = TensorProto.INT64
            notes.append(f"the output '{entry.name}' holds the number of the class, from 0, not its text")
    return notes


def _with_output_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """For the checker, which wants shapes of outputs that some exporters leave out."""
    if all(entry.type.tensor_type.HasField("shape") for entry in proto.graph.output):
        return proto
    complete = onnx.ModelProto()
    complete.CopyFrom(proto)
    for entry in complete.graph.output:
        if not entry.type.tensor_type.HasField("shape"):
            entry.type.tensor_type.shape.dim.add()
            entry.type.tensor_type.elem_type = entry.type.tensor_type.elem_type or TensorProto.FLOAT
    return complete


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (
                (attribute.g, *attribute.graphs)
                if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
                else ()
            ):
                yield from _graphs(inner)


def _attributes(proto: onnx.ModelProto) -> Iterator[AttributeProto]:
    nodes = [node for graph in _graphs(proto.graph) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    for node in nodes:
        yield from node.attribute


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initializers and constants, also of inner graphs and functions."""
    for graph in _graphs(proto.graph):
        yield from graph.initializer
    for attribute in _attributes(proto):
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        yield from attribute.tensors


def _check_tensor(tensor: TensorProto, name: str, budget: Budget, folder: Path | None) -> None:
    """Its size is plausible and its data there; the values are finite."""
    label = f"the constant '{tensor.name}'"
    shape = checked_shape([int(n) for n in tensor.dims], name, label)
    if tensor.data_type == TensorProto.STRING:
        return
    bits = ITEM_BITS.get(tensor.data_type)  # pyright: ignore[reportArgumentType]: numbers, not members
    if bits is None:
        kind = {number: key for key, number in TensorProto.DataType.items()}.get(
            tensor.data_type, str(tensor.data_type)
        )
        raise Ml4fError(f"{name}: {label} has the type {kind}, which is not supported; export the model in float32")
    size = bits // 8
    budget.spend(shape, size, label)
    if tensor.data_location == TensorProto.EXTERNAL:
        _load_external(tensor, prod(shape) * size, name, folder)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != prod(shape) * size:
        raise Ml4fError(
            f"{name}: {label} {list(shape)} should take {prod(shape) * size} bytes, the file has "
            f"{len(tensor.raw_data)}; it is damaged or truncated, export the model again"
        )
    with parser_errors(name, label):
        array = numpy_helper.to_array(tensor)
    if array.dtype.kind in "fV" and tensor.data_type in (TensorProto.FLOAT, *WIDENED):
        values = array.astype(np.float32)
        if diverged(values):
            raise Ml4fError(
                f"{name}: the weights '{tensor.name}' {list(shape)} contain NaN or infinite values (or ones too large "
                "for float32); the training has diverged, train the model again"
            )


def _load_external(tensor: TensorProto, size: int, name: str, folder: Path | None) -> None:
    """Data in a file beside the model, and nowhere else."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise Ml4fError(f"{name}: its weights are in the file '{location}' beside it; give the path of the .onnx file")
    path = beside(folder, location, name)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise Ml4fError(
            f"{name}: the place of '{tensor.name}' in '{location}' is no number; export the model again"
        ) from None
    if length != size or offset < 0:
        raise Ml4fError(
            f"{name}: '{tensor.name}' needs {size} bytes, the model says {length} in '{location}'; export it again"
        )
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise Ml4fError(f"{name}: its weights in '{location}' cannot be read: {error.strerror or error}") from None
    if len(data) != size:
        raise Ml4fError(f"{name}: '{location}' is too short for '{tensor.name}'; copy the file again")
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def beside(folder: Path, location: str, name: str) -> Path:
    """A file in the model's folder (or below); names that lead out of it are refused."""
    root = folder.resolve()
    path = root / location
    if not location or "\0" in location or "\\" in location or not path.resolve().is_relative_to(root):
        raise Ml4fError(f"{name}: it wants to read '{location}', which is not a file beside it; refused")
    return path


def _widen(proto: onnx.ModelProto) -> bool:
    """Turn float16, bfloat16 and float64 into float32 everywhere; whether there was any."""
    found = False
    for tensor in _tensors(proto):
        if tensor.data_type in WIDENED:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            found = True
    for graph in _graphs(proto.graph):
        for entry in (*graph.input, *graph.output, *graph.value_info):
            if entry.type.tensor_type.elem_type in WIDENED:
                entry.type.tensor_type.elem_type = TensorProto.FLOAT
                found = True
        for node in graph.node:
            for attribute in node.attribute:
                if (
                    node.op_type in ("Cast", "RandomNormal", "EyeLike")
                    and attribute.name in ("to", "dtype")
                    and attribute.i in WIDENED
                ):
                    attribute.i = TensorProto.FLOAT
                    found = True
    return found
