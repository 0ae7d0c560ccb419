"""Writes small model files of every format, without TensorFlow: a model is a list of layers with their weights."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layers = list[tuple[str, dict[str, Any], list[np.ndarray]]]
"""(class, configuration, weights) of each layer."""


def dense_layers(seed: int = 0) -> Layers:
    """4 → 3 relu → 2 softmax."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    first = {"name": "hidden", "units": 3, "activation": "relu", "batch_input_shape": [None, 4]}
    second = {"name": "classes", "units": 2, "activation": "softmax"}
    return [("Dense", first, [weights(4, 3), weights(3)]), ("Dense", second, [weights(3, 2), weights(2)])]


def dense_result(layers: Layers, x: np.ndarray) -> np.ndarray:
    """What the network of `dense_layers` computes."""
    (kernel, bias), (kernel2, bias2) = layers[0][2], layers[1][2]
    y = np.maximum(x @ kernel + bias, 0) @ kernel2 + bias2
    powers = np.exp(y - y.max())
    return powers / powers.sum()


def topology(layers: Layers) -> dict[str, Any]:
    """A Sequential model as Keras 2 and TF.js write it."""
    entries = [{"class_name": kind, "config": config} for kind, config, _ in layers]
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}


def write_h5(path: Path, layers: Layers, version: str = "2.15.0") -> Path:
    """A whole model as model.save("….h5") writes it."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(topology(layers))
        file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        for _, config, weights in layers:
            own = group.create_group(config["name"])
            own.attrs["weight_names"] = [f"{config['name']}/w{i}:0".encode() for i in range(len(weights))]
            for i, values in enumerate(weights):
                own[f"{config['name']}/w{i}:0"] = values
    return path


def keras_parts(layers: Layers) -> dict[str, bytes]:
    """The files of a .keras archive, for layers of different classes or Dense only."""
    buffer = BytesIO()
    counts: dict[str, int] = {}
    with h5py.File(buffer, "w") as file:
        for kind, _, weights in layers:
            base = kind.lower()
            count = counts.get(base, 0)
            counts[base] = count + 1
            for i, values in enumerate(weights):
                file[f"layers/{base}{f'_{count}' if count else ''}/vars/{i}"] = values
    metadata = {"keras_version": "3.15.1"}
    texts = {"config.json": topology(layers), "metadata.json": metadata}
    return {**{name: json.dumps(text).encode() for name, text in texts.items()}, "model.weights.h5": buffer.getvalue()}


def write_keras(path: Path, layers: Layers) -> Path:
    """A .keras archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in keras_parts(layers).items():
            archive.writestr(name, data)
    return path


def tfjs_document(layers: Layers) -> tuple[dict[str, Any], bytes]:
    """model.json and the bytes of its only shard."""
    specs, data = [], b""
    for _, config, weights in layers:
        for i, values in enumerate(weights):
            specs.append({"name": f"{config['name']}/w{i}", "shape": list(values.shape), "dtype": "float32"})
            data += values.astype("<f4").tobytes()
    manifest = [{"paths": ["group1-shard1of1.bin"], "weights": specs}]
    return {"format": "layers-model", "modelTopology": topology(layers), "weightsManifest": manifest}, data


def write_tfjs(folder: Path, layers: Layers, cuts: int = 1) -> Path:
    """A folder with model.json and `cuts` shards that need not end where tensors do."""
    folder.mkdir()
    document, data = tfjs_document(layers)
    size = -(-len(data) // cuts)
    names = [f"group1-shard{i + 1}of{cuts}.bin" for i in range(cuts)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(data[i * size : (i + 1) * size])
    document["weightsManifest"][0]["paths"] = names
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def microbit_json(layers: Layers) -> dict[str, Any]:
    """The one-file form of the micro:bit tools: bit patterns as integers."""
    document, data = tfjs_document(layers)
    return {
        "modelJSON": json.dumps({"modelTopology": document["modelTopology"]}),
        "weightSpecs": document["weightsManifest"][0]["weights"],
        "weights": np.frombuffer(data, "<u4").tolist(),
    }
