"""Sample networks with seeded weights, as ONNX graphs: `sample_model(name)`.

Most are the architectures that the original ml4f (microsoft/ml4f, src/testing.ts) tests itself with, under its names;
`avgPool4`, `singleDimBatchNorm`, `accel` and `button` have our own extents, as the published sources state none for
them or publish them as trained models. `createAI` is the network of micro:bit CreateAI. Inputs are channels last, as
Keras has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ml4f.errors import UsageError

OPSET = 13
IR_VERSION = 8
BATCH_NORM_EPSILON = 1e-3
"""Keras's default."""


@dataclass
class Network:
    """An ONNX graph in the making. `tensor` is the last layer's output, `shape` its extents without the batch, channels
    last.
    """

    shape: tuple[int, ...]
    random: np.random.Generator
    tensor: str = "input"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    layer: str = ""

    def begin(self, kind: str) -> None:
        """The nodes that follow belong to a new layer of this kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.layer = f"{kind}_{self.counts[kind]}"

    def constant(self, name: str, values: np.ndarray) -> str:
        """An initializer of the current layer."""
        full_name = f"{self.layer}/{name}"
        self.constants.append(numpy_helper.from_array(values, full_name))
        return full_name

    def weights(self, name: str, shape: Sequence[int], scale: float) -> str:
        """Uniform between -scale and scale."""
        values = self.random.uniform(-scale, scale, size=tuple(shape))
        return self.constant(name, values.astype(np.float32))

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """Apply an operator to the current tensor and further inputs."""
        output = f"{self.layer}/{op_type}"
        if output in (name for node in self.nodes for name in node.output):
            output += "_back"
        node = helper.make_node(op_type, [self.tensor, *inputs], [output], name=output, **attributes)
        node.metadata_props.append(onnx.StringStringEntryProto(key="layer", value=self.layer))
        self.nodes.append(node)
        self.tensor = output

    def activate(self, activation: str | None) -> None:
        """Apply relu or softmax, or nothing."""
        if activation == "relu":
            self.node("Relu")
        elif activation == "softmax":
            self.node("Softmax", axis=-1)

    def channels_first(self) -> None:
        """To the order of ONNX's windowed operators."""
        rank = len(self.shape)
        self.node("Transpose", perm=[0, rank, *range(1, rank)])

    def channels_last(self) -> None:
        """Back."""
        rank = len(self.shape)
        self.node("Transpose", perm=[0, *range(2, rank + 1), 1])


Layer = Callable[[Network], None]


def _window(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], same: bool
) -> tuple[list[int], list[int]]:
    """The output's extents, and ONNX's pads: TensorFlow puts an odd element of padding behind."""
    if not same:
        return [(n - k) // s + 1 for n, k, s in zip(extents, kernel, strides, strict=True)], [0] * (2 * len(kernel))
    outputs = [-(-n // s) for n, s in zip(extents, strides, strict=True)]
    totals = [max((o - 1) * s + k - n, 0) for o, s, k, n in zip(outputs, strides, kernel, extents, strict=True)]
    return outputs, [t // 2 for t in totals] + [t - t // 2 for t in totals]


def conv(
    filters: int,
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    same: bool = False,
    activation: str = "relu",
) -> Layer:
    """Conv1D or Conv2D, by the rank of `kernel`, with bias."""

    def apply(network: Network) -> None:
        *extents, channels = network.shape
        steps = strides or [1] * len(kernel)
        network.begin(f"conv{len(kernel)}d")
        outputs, pads = _window(extents, kernel, steps, same)
        network.channels_first()
        limit = (3 / (channels * prod(kernel))) ** 0.5
        weights = network.weights("kernel", (filters, channels, *kernel), limit)
        bias = network.weights("bias", (filters,), 0.5)
        network.node("Conv", weights, bias, kernel_shape=list(kernel), strides=list(steps), pads=pads)
        network.activate(activation)
        network.channels_last()
        network.shape = (*outputs, filters)

    return apply


def depthwise(kernel: Sequence[int], multiplier: int, strides: Sequence[int]) -> Layer:
    """DepthwiseConv2D, valid, without bias."""

    def apply(network: Network) -> None:
        *extents, channels = network.shape
        network.begin("depthwise_conv2d")
        outputs, pads = _window(extents, kernel, strides, same=False)
        network.channels_first()
        weights = network.weights("kernel", (channels * multiplier, 1, *kernel), (3 / prod(kernel)) ** 0.5)
        network.node("Conv", weights, kernel_shape=list(kernel), strides=list(strides), pads=pads, group=channels)
        network.channels_last()
        network.shape = (*outputs, channels * multiplier)

    return apply


def pool(kind: str, size: Sequence[int], strides: Sequence[int] | None = None, same: bool = False) -> Layer:
    """Max or average pooling, 1-D or 2-D by the rank of `size`; strides default to the size."""

    def apply(network: Network) -> None:
        *extents, channels = network.shape
        network.begin(f"{kind.lower()}_pooling{len(size)}d")
        outputs, pads = _window(extents, size, strides or size, same)
        network.channels_first()
        network.node(f"{kind}Pool", kernel_shape=list(size), strides=list(strides or size), pads=pads)
        network.channels_last()
        network.shape = (*outputs, channels)

    return apply


def dense(units: int, activation: str | None = None) -> Layer:
    """Dense with bias, on a flat input."""

    def apply(network: Network) -> None:
        (inputs,) = network.shape
        network.begin("dense")
        weights = network.weights("kernel", (inputs, units), (3 / inputs) ** 0.5)
        bias = network.weights("bias", (units,), 0.5)
        network.node("Gemm", weights, bias)
        network.activate(activation)
        network.shape = (units,)

    return apply


def batch_norm() -> Layer:
    """BatchNormalization over the last axis."""

    def apply(network: Network) -> None:
        channels = network.shape[-1]
        network.begin("batch_normalization")
        if len(network.shape) > 1:
            network.channels_first()
        gamma = network.constant("gamma", network.random.uniform(0.5, 1.5, channels).astype(np.float32))
        beta = network.weights("beta", (channels,), 1.0)
        mean = network.weights("mean", (channels,), 1.0)
        variance = network.constant("variance", network.random.uniform(0.5, 1.5, channels).astype(np.float32))
        network.node("BatchNormalization", gamma, beta, mean, variance, epsilon=BATCH_NORM_EPSILON)
        if len(network.shape) > 1:
            network.channels_last()

    return apply


def reshape(*shape: int) -> Layer:
    """Reshape; Flatten with one extent, or -1."""

    def apply(network: Network) -> None:
        network.begin("reshape")
        wanted = shape if -1 not in shape else (prod(network.shape),)
        network.node("Reshape", network.constant("shape", np.array([1, *wanted], dtype=np.int64)))
        network.shape = tuple(wanted)

    return apply


def dropout() -> Layer:
    """Dropout, which does nothing once the network is trained."""

    def apply(network: Network) -> None:
        network.begin("dropout")
        network.node("Dropout")

    return apply


@dataclass(frozen=True)
class Sample:
    """A network: the input's shape without the batch, and layers."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]


def _sample(shape: Sequence[int], *layers: Layer) -> Sample:
    return Sample(tuple(shape), layers)


def _gesture_1d(length: int, channels: int, classes: int) -> Sample:
    """What the original's micro:bit editor trains on readings of a sensor."""
    return _sample(
        (length, channels),
        *(conv(16, [4]), pool("Max", [2]), dropout()),
        *(conv(16, [2]), pool("Max", [2]), dropout()),
        *(conv(16, [2]), dropout(), reshape(-1), dense(classes, "softmax")),
    )


def _pooled(*layers: Layer) -> Sample:
    """A flat recording of 50 readings of 3 axes."""
    return _sample((150,), reshape(50, 3, 1), *layers, reshape(-1), dense(3, "softmax"))


SAMPLES: dict[str, Sample] = {
    "id": _sample((10, 3, 1)),
    "conv2d": _sample((50, 3, 1), conv(16, [4, 4], same=True)),
    "dense": _sample((10, 3, 1), reshape(-1), dense(5, "softmax")),
    "padding": _sample((50, 3, 1), conv(16, [4, 4], same=True)),
    "dspDense": _sample((33,), dense(20, "relu"), dense(10, "relu"), dense(3, "softmax")),
    "noDsp": _sample(
        (150,),
        *(reshape(50, 3, 1), conv(16, [4, 4], same=True), pool("Max", [2, 2], same=True), dropout()),
        *(conv(16, [2, 2], same=True), pool("Max", [2, 2], same=True)),
        *(reshape(-1), dense(30, "relu"), dense(3, "softmax")),
    ),
    "tfjsGest": _sample(
        (50, 3, 1),
        *(conv(16, [4, 3]), pool("Max", [2, 1]), dropout()),
        *(conv(16, [2, 1]), dropout(), conv(16, [2, 1]), dropout()),
        *(reshape(-1), dense(4, "softmax")),
    ),
    "microSpeech": _sample((49, 40, 1), conv(8, [10, 8], [2, 2], same=True), reshape(-1), dense(4, "softmax")),
    "oneD": _gesture_1d(50, 4, 3),
    "oneD2": _sample((10, 3), conv(1, [4], same=True), reshape(-1), dense(3, "softmax")),
    "oneD2_x": _sample((23, 3), conv(16, [4], same=True), reshape(-1), dense(3, "softmax")),
    "avgPool": _pooled(conv(16, [4, 4], same=True), pool("Average", [2, 2])),
    "avgPool2": _pooled(conv(16, [4, 4], same=True), pool("Average", [2, 1])),
    "avgPool3": _pooled(pool("Average", [8, 1], [2, 1])),
    "avgPool4": _pooled(pool("Average", [3, 3], [1, 1])),
    "depth0": _sample((15, 1, 1), depthwise([5, 1], 4, [1, 1])),
    "depth1": _sample((213, 1, 15), depthwise([10, 1], 4, [2, 2])),
    "batch1": _sample((213, 1, 15), batch_norm()),
    "batch2": _sample((213, 1, 100), batch_norm()),
    "singleDimBatchNorm": _sample((100,), batch_norm()),
    "accel": _gesture_1d(20, 6, 3),
    "button": _gesture_1d(20, 1, 3),
    "createAI": _sample((24,), batch_norm(), dense(16, "relu"), dense(4, "softmax")),
}


def sample_model(name: str) -> onnx.ModelProto:
    """The ONNX model of a sample; the same weights every time. Raises UsageError for an unknown name."""
    sample = SAMPLES.get(name)
    if sample is None:
        raise UsageError(f"no sample model '{name}'; there are {', '.join(SAMPLES)}")
    network = Network(sample.shape, np.random.default_rng(crc32(name.encode())))
    for layer in sample.layers:
        layer(network)
    if not network.nodes:
        network.begin("input_layer")
        network.node("Identity")
    graph = helper.make_graph(
        network.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *sample.shape])],
        [helper.make_tensor_value_info(network.tensor, TensorProto.FLOAT, [1, *network.shape])],
        network.constants,
    )
    model = helper.make_model(graph, producer_name="ml4f", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model
