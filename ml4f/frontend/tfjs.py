"""TF.js layers models: model.json with shards beside it, and the one-file JSON of the micro:bit's tools."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ml4f.errors import Ml4fError
from ml4f.frontend.guards import Budget, checked_shape, object_of, parse_json, parser_errors
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_weights import KerasFile, StoredTensor, major_version, named_tensors

TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "|u1", "uint16": "<u2", "bool": "|u1"}
"""Element types of tensors in a shard; shards are little-endian."""

ReadShard = Callable[[str], bytes]


def read_tfjs(document: Any, name: str, read_shard: ReadShard | None) -> KerasFile:
    """`document`: the parsed JSON; `read_shard` reads a file beside it, None if there is no folder."""
    outer = object_of(document, name, "the JSON file")
    inner = outer.get("modelJSON", outer)
    if isinstance(inner, str):
        inner = parse_json(inner, name, "modelJSON")
    inner = object_of(inner, name, "modelJSON")
    if "modelTopology" not in inner:
        raise Ml4fError(f"{name}: the JSON file is no TF.js model: it has no modelTopology")
    topology = object_of(inner["modelTopology"], name, "modelTopology")
    if inner.get("format") == "graph-model" or "node" in topology:
        raise Ml4fError(
            f"{name}: this is a TF.js graph model; ml4f reads layers models: give the Keras model that it was made from"
        )
    config = topology.get("model_config", topology)
    if isinstance(config, str):
        config = parse_json(config, name, "model_config")
    specs, data = _weights(outer, inner, name, read_shard)
    version = major_version(str(topology.get("keras_version", "2")))
    return KerasFile(object_of(config, name, "modelTopology"), version, _Weights(specs, data, name))


def _weights(
    outer: dict[str, Any], inner: dict[str, Any], name: str, read_shard: ReadShard | None
) -> tuple[list[dict[str, Any]], bytes]:
    """The specifications of all tensors, and their bytes one behind the other."""
    if "weightsManifest" in inner:
        groups = inner["weightsManifest"]
        if not isinstance(groups, list):
            raise Ml4fError(f"{name}: weightsManifest should be a list; save the model again")
        specs, data = [], b""
        for group in groups:
            group = object_of(group, name, "an entry of weightsManifest")
            own = _specifications(group.get("weights"), name)
            paths = group.get("paths", [])
            if not isinstance(paths, list):
                raise Ml4fError(f"{name}: the paths of weightsManifest should be a list; save the model again")
            part = b"".join(_shard(path, name, read_shard) for path in paths)
            specs += own
            data += _exactly(part, own, name)
        return specs, data
    specs = _specifications(inner.get("weightSpecs", outer.get("weightSpecs")), name)
    return specs, _exactly(_inline(outer, inner, name), specs, name)


def _shard(path: Any, name: str, read_shard: ReadShard | None) -> bytes:
    if not isinstance(path, str):
        raise Ml4fError(f"{name}: weightsManifest names a shard {str(path)[:40]}, which is no file name")
    if read_shard is None:
        raise Ml4fError(f"{name}: its weights are in the file '{path}' beside it; give the path of model.json")
    return read_shard(path)


def _inline(outer: dict[str, Any], inner: dict[str, Any], name: str) -> bytes:
    """`weights`: bit patterns as unsigned integers; `weightData`: base64."""
    for source in (outer, inner):
        if isinstance(source.get("weights"), list):
            with parser_errors(name, "the list 'weights'"):
                return np.array(source["weights"], dtype=np.uint32).astype("<u4").tobytes()
        if isinstance(source.get("weightData"), str):
            with parser_errors(name, "weightData"):
                return base64.b64decode(source["weightData"], validate=True)
    raise Ml4fError(f"{name}: the JSON file holds no weights: weightsManifest, weights and weightData are all missing")


def _specifications(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Ml4fError(
            f"{name}: the list of weights (weightSpecs or weightsManifest) is missing; save the model again"
        )
    specs = [object_of(spec, name, "an entry of the list of weights") for spec in value]
    for spec in specs:
        label = f"the tensor '{spec.get('name')}'"
        checked_shape(spec.get("shape"), name, label)
        if _stored_type(spec) not in TYPES:
            raise Ml4fError(
                f"{name}: {label} has the type {str(_stored_type(spec))[:40]}; only float weights are supported"
            )
    return specs


def _stored_type(spec: dict[str, Any]) -> str:
    quantization = spec.get("quantization")
    return str((quantization if isinstance(quantization, dict) else spec).get("dtype", "float32"))


def _bytes_of(spec: dict[str, Any]) -> int:
    return prod(spec["shape"]) * np.dtype(TYPES[_stored_type(spec)]).itemsize


def _exactly(data: bytes, specs: Sequence[dict[str, Any]], name: str) -> bytes:
    """The bytes that the specifications need; too few are an error."""
    needed = sum(_bytes_of(spec) for spec in specs)
    if needed > len(data):
        raise Ml4fError(
            f"{name}: the tensors in its list of weights take {needed} bytes, the file(s) hold {len(data)}; "
            "a shard is missing or truncated, save the model again"
        )
    return data[:needed]


class _Weights:
    """Tensors by name in one row of bytes."""

    by_place = False

    def __init__(self, specs: list[dict[str, Any]], data: bytes, name: str):
        self.name = name
        self.data = data
        self.budget = Budget(name)
        self.stored: dict[str, list[StoredTensor]] = {}
        offset = 0
        for spec in specs:
            tensor = self.tensor(spec, offset)
            offset += _bytes_of(spec)
            for part in dict.fromkeys(tensor.name.split("/")[:-1] or [""]):
                self.stored.setdefault(part, []).append(tensor)

    def tensor(self, spec: dict[str, Any], offset: int) -> StoredTensor:
        shape = tuple(spec["shape"])
        kind = _stored_type(spec)

        def read() -> np.ndarray:
            self.budget.spend(shape, 4, f"'{spec.get('name')}'")
            values = np.frombuffer(self.data, TYPES[kind], prod(shape), offset).reshape(shape)
            return _dequantised(values, spec, self.name)

        integer = kind in ("int32", "uint8", "uint16", "bool") and "quantization" not in spec
        dtype = kind if integer or kind == "float16" else "float32"
        if "quantization" in spec and kind != "float16":
            dtype = "float32" if str(spec.get("dtype", "float32")) == "float32" else str(spec["dtype"])
        return StoredTensor(str(spec.get("name")).removesuffix(":0"), shape, dtype, read)

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        return named_tensors(layer, self.stored.get(layer.name.split("/")[-1], []))


def _dequantised(values: np.ndarray, spec: dict[str, Any], name: str) -> np.ndarray:
    """value = stored * scale + min for uint8 and uint16; float16 as it is."""
    quantization = spec.get("quantization")
    if not isinstance(quantization, dict) or values.dtype.kind == "f":
        return values
    with parser_errors(name, f"the quantization of '{spec.get('name')}'"):
        scale, low = float(quantization["scale"]), float(quantization["min"])
        return (values.astype(np.float64) * scale + low).astype(np.float32)
