"""Keras's own containers, .h5 and .keras (a zip): configuration and weights. No TensorFlow, no code."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from ml4f.errors import Ml4fError
from ml4f.frontend.guards import (
    MAX_JSON_BYTES,
    MAX_WEIGHT_BYTES,
    Budget,
    checked_shape,
    object_of,
    parse_json,
    parser_errors,
)
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_weights import KerasFile, StoredTensor, bfloat16_values, major_version, named_tensors

WEIGHT_ROOTS = ("layers", "_layer_checkpoint_dependencies")
"""Where .keras archives keep layers: all versions, and those of Keras 2.12."""


def read_h5(data: bytes, name: str) -> KerasFile:
    """A whole model saved as .h5 by Keras 1 (functional ones), 2 or 3."""
    file = _open_h5(data, name)
    with parser_errors(name, "the HDF5 file"):
        if "model_config" not in file.attrs:
            raise Ml4fError(f"{name}: the file holds weights but no model; save the whole model with model.save(…)")
        config = object_of(parse_json(_text(file.attrs["model_config"]), name, "the model's configuration"), name, "it")
        group = _child(file, "model_weights", name)
        group = file if group is None else group
        if not isinstance(group, h5py.Group):
            raise Ml4fError(f"{name}: model_weights should be a group of the HDF5 file; save the model again")
        version = file.attrs.get("keras_version", group.attrs.get("keras_version", "2"))
    return KerasFile(config, major_version(_text(version)), _H5Weights(group, name))


def read_archive(data: bytes, name: str) -> KerasFile:
    """A .keras archive."""
    with parser_errors(name, "the zip archive"):
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {info.filename: info for info in archive.infolist()}

    def member(part: str, limit: int) -> bytes:
        if members[part].file_size > limit:
            size = members[part].file_size
            raise Ml4fError(f"{name}: {part} unpacks to {size} bytes, more than the limit of {limit}; it is no model")
        with parser_errors(name, part):
            return archive.read(part)

    return read_parts(set(members), member, name)


def read_parts(members: set[str], member: Callable[[str, int], bytes], name: str) -> KerasFile:
    """The files of a .keras archive; `member(part, limit)` reads one of them."""
    if "config.json" not in members:
        hint = (
            "; this looks like a PyTorch file: export the model to ONNX"
            if any("data.pkl" in m for m in members)
            else ""
        )
        raise Ml4fError(f"{name}: the zip archive has no config.json, so it is no .keras model{hint}")
    if "model.weights.h5" not in members:
        raise Ml4fError(f"{name}: the .keras archive has no model.weights.h5; save the model again, unsharded")
    config = object_of(parse_json(member("config.json", MAX_JSON_BYTES), name, "config.json"), name, "config.json")
    version = "3"
    if "metadata.json" in members:
        metadata = parse_json(member("metadata.json", MAX_JSON_BYTES), name, "metadata.json")
        version = str(object_of(metadata, name, "metadata.json").get("keras_version", "3"))
    weights = _open_h5(member("model.weights.h5", MAX_WEIGHT_BYTES), f"{name}: model.weights.h5")
    return KerasFile(config, major_version(version), _ArchiveWeights(weights, name))


class _H5Weights:
    """model_weights/<outermost layer> with the names of the tensors, in order, as attribute."""

    by_place = False

    def __init__(self, group: h5py.Group, name: str):
        self.group = group
        self.name = name
        self.budget = Budget(name)

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        with parser_errors(self.name, f"the weights of layer '{layer.name}'"):
            group = _child(self.group, layer.path[0], self.name)
            if not isinstance(group, h5py.Group):
                return []
            found = []
            for name in _names_attribute(group, "weight_names"):
                dataset = _child(group, name, self.name)
                if not isinstance(dataset, h5py.Dataset):
                    raise Ml4fError(
                        f"{self.name}: layer '{layer.name}': its weights '{name}' are missing; save the model again"
                    )
                found.append(_stored(dataset, name.removesuffix(":0"), self.budget))
            return found if len(layer.path) == 1 else named_tensors(layer, found)


class _ArchiveWeights:
    """layers/<snake case class>_<count>/vars/<index>."""

    by_place = True

    def __init__(self, file: h5py.File, name: str):
        self.file = file
        self.name = name
        self.budget = Budget(name)

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        with parser_errors(self.name, f"the weights of layer '{layer.name}'"):
            for root in WEIGHT_ROOTS:
                place = "/".join(root if part == "layers" else part for part in f"{layer.stored}/vars".split("/"))
                group = _child(self.file, place, self.name) if layer.stored else None
                if isinstance(group, h5py.Group):
                    keys = sorted(group.keys(), key=lambda key: (len(key), key))
                    datasets = [(key, _child(group, key, self.name)) for key in keys]
                    return [_stored(d, key, self.budget) for key, d in datasets if isinstance(d, h5py.Dataset)]
        return []


def _open_h5(data: bytes, name: str) -> h5py.File:
    with parser_errors(name, "the HDF5 file"):
        return h5py.File(io.BytesIO(data), "r")


def _child(group: h5py.Group, path: str, name: str) -> h5py.Group | h5py.Dataset | None:
    """A member of a group; links out of the file are refused, as they would read other files."""
    current: Any = group
    for part in path.split("/"):
        if not part:
            continue
        if not isinstance(current, h5py.Group) or part not in current:
            return None
        if isinstance(current.get(part, getlink=True), h5py.ExternalLink):
            raise Ml4fError(f"{name}: '{path}' lies in another file; save the model in one file")
        current = current[part]
    if isinstance(current, h5py.Dataset) and (current.external or current.is_virtual):
        raise Ml4fError(f"{name}: '{path}' lies in another file; save the model in one file")
    return current


def _stored(dataset: h5py.Dataset, tensor: str, budget: Budget) -> StoredTensor:
    """A dataset as a tensor that is read later; its size counts now."""
    shape = checked_shape([int(n) for n in dataset.shape or ()], budget.name, f"'{tensor}'")
    halves = dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2
    bfloat16 = halves or _text(dataset.attrs.get("dtype", "")) == "bfloat16"

    def read() -> np.ndarray:
        with parser_errors(budget.name, f"'{dataset.name}'"):
            budget.spend(shape, max(4, dataset.dtype.itemsize), f"'{dataset.name}'")
            values = np.asarray(dataset[()])
            return bfloat16_values(values) if bfloat16 else values

    return StoredTensor(tensor, shape, "bfloat16" if bfloat16 else dataset.dtype.name, read)


def _names_attribute(group: h5py.Group, key: str) -> list[str]:
    """A list of names; Keras splits long ones into key0, key1, …"""
    if key in group.attrs:
        return [_text(value) for value in np.ravel(np.asarray(group.attrs[key]))]
    found: list[str] = []
    index = 0
    while f"{key}{index}" in group.attrs:
        found += [_text(value) for value in np.ravel(np.asarray(group.attrs[f"{key}{index}"]))]
        index += 1
    return found


def _text(value: Any) -> str:
    """h5py gives bytes or str, as the file was written."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
