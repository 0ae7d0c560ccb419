"""nn-remove-dead-channels: what it removes, what it must not remove, and that the network stays the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from ml4f.analysis.channel_ranges import channel_ranges
from ml4f.compiler import Options, compile_proto, run_passes
from ml4f.dialects.nn import ops as nn
from ml4f.dialects.nn import shape_of
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn

BEFORE = ("nn-canonicalize", "nn-fold-batch-norm", "nn-fuse-activation", "nn-canonicalize")
REMOVE = ("nn-remove-dead-channels", "nn-remove-dead-code")


class Network:
    """Builds an ONNX chain [1, c, h, w] → …"""

    def __init__(self, rng: np.random.Generator, channels: int, height: int, width: int):
        self.rng = rng
        self.shape = (1, channels, height, width)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last, self.channels = "x", channels

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> None:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [output], name=output, **attributes))
        self.last = output

    def conv(
        self, filters: int, kernel: int, tiny: float, scale: float = 1e-20, depthwise: bool = False, **kw: object
    ) -> None:
        """A convolution, a share `tiny` of whose filters have next to no weights; behind it a ReLU."""
        inputs = 1 if depthwise else self.channels
        filters = self.channels if depthwise else filters
        weights = self.rng.standard_normal((filters, inputs, kernel, kernel)) / (kernel * np.sqrt(inputs))
        weights[self.rng.random(filters) < tiny] *= scale
        bias = self.rng.standard_normal(filters)
        group = self.channels if depthwise else 1
        self.node("Conv", self.constant(weights), self.constant(bias), group=group, **kw)
        self.node("Relu")
        self.channels = filters

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def network(seed: int, scale: float = 1e-20, pool: str = "AveragePool") -> onnx.ModelProto:
    """Convolutions, depthwise ones with padding, a pool, a dense layer behind a flattening."""
    rng = np.random.default_rng(seed)
    net = Network(rng, 3, 9, 7)
    net.conv(int(rng.integers(4, 9)), 3, 0.4, scale, pads=[1, 1, 1, 1])
    net.conv(0, 3, 0.3, scale, depthwise=True, pads=[1, 1, 1, 1], strides=[int(rng.integers(1, 3))] * 2)
    net.conv(int(rng.integers(4, 9)), int(rng.choice([1, 3])), 0.5, scale, pads=[0, 0, 0, 0])
    net.conv(0, 2, 0.5, scale, depthwise=True, pads=[0, 1, 1, 0])
    net.node(pool, kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    net.node("Flatten")
    size = run_nn(import_onnx(net.model(), "m"), [np.zeros((3, 9, 7), np.float32)])[0].size
    net.node("MatMul", net.constant(rng.standard_normal((size, 5))))
    return net.model()


def prepared(proto: onnx.ModelProto) -> ModuleOp:
    module = import_onnx(proto, "m")
    run_passes(module, BEFORE)
    return module


def function_of(module: ModuleOp) -> FuncOp:
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp))


def channels(module: ModuleOp) -> int:
    ops = function_of(module).body.block.ops
    return sum(shape_of(op.y)[-1] for op in ops if isinstance(op, nn.Conv2dOp | nn.DepthwiseConv2dOp))


@pytest.mark.parametrize("seed", range(24))
def test_network_stays_the_same(seed: int):
    proto = network(seed, pool="MaxPool" if seed % 2 else "AveragePool")
    module = prepared(proto)
    inputs = [np.random.default_rng(seed + 100 * i).standard_normal((3, 9, 7)).astype(np.float32) for i in range(3)]
    before, expected = channels(module), [run_nn(module, [x * 100])[0] for x in inputs]
    run_passes(module, REMOVE)
    module.verify()
    assert channels(module) < before
    for x, wanted in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(run_nn(module, [x * 100])[0], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_border_of_a_constant_channel_becomes_an_added_tensor():
    rng = np.random.default_rng(0)
    net = Network(rng, 2, 6, 6)
    weights = rng.standard_normal((4, 2, 1, 1))
    weights[1] = 1e-25
    net.node("Conv", net.constant(weights), net.constant(np.ones(4)))
    net.node("Relu")
    net.channels = 4
    net.conv(0, 3, 0.0, depthwise=True, pads=[1, 1, 1, 1])
    net.node("Conv", net.constant(rng.standard_normal((3, 4, 1, 1))))
    proto = net.model()
    # the depthwise layer must let the constant channel through: a bias that keeps it above zero
    depthwise_bias = next(t for t in proto.graph.initializer if t.name == "w3")
    depthwise_bias.CopyFrom(numpy_helper.from_array(np.full(4, 5.0, np.float32), "w3"))
    module = prepared(proto)
    x = rng.standard_normal((2, 6, 6)).astype(np.float32)
    expected = run_nn(module, [x])[0]
    run_passes(module, REMOVE)
    ops = list(function_of(module).body.block.ops)
    addition = next(op for op in ops if isinstance(op, nn.AddOp))
    values = addition.b.owner.array()
    assert values.shape == (6, 6, 3) and len(np.unique(values.reshape(-1, 3), axis=0)) == 9
    np.testing.assert_allclose(run_nn(module, [x])[0], expected, rtol=1e-5, atol=1e-5)


def test_bound_depends_on_the_magnitude_of_the_input():
    """A filter of 1e-9 is constant for inputs up to 1, not for inputs up to 65536."""
    rng = np.random.default_rng(1)
    net = Network(rng, 2, 4, 4)
    weights = rng.standard_normal((3, 2, 1, 1))
    weights[0] = 1e-9
    net.node("Conv", net.constant(weights), net.constant(np.ones(3)))
    net.node("Conv", net.constant(rng.standard_normal((2, 3, 1, 1))))
    large, small = prepared(net.model()), prepared(net.model())
    run_passes(large, ("nn-remove-dead-channels",))
    run_passes(small, ("nn-remove-dead-channels{input_magnitude=1.0}",))
    assert channels(large) == 5 and channels(small) == 4


def test_every_value_keeps_a_channel():
    """All filters constant: the layer stays, with one channel."""
    rng = np.random.default_rng(2)
    net = Network(rng, 2, 4, 4)
    net.conv(4, 1, 1.0)
    net.conv(3, 1, 0.0)
    module = prepared(net.model())
    x = rng.standard_normal((2, 4, 4)).astype(np.float32)
    expected = run_nn(module, [x])[0]
    run_passes(module, REMOVE)
    np.testing.assert_allclose(run_nn(module, [x])[0], expected, rtol=1e-5)


def test_machine_code_is_validated_against_the_whole_network():
    compilation = compile_proto(network(5), "dead", Options())
    attributes = function_of(compilation.nn_module).attributes
    assert attributes["removed_channels"].value.data > 0
    assert any("channels" in note for note in compilation.notes)


@pytest.mark.parametrize("seed", range(60))
def test_analysis_holds_for_what_is_computed(seed: int):
    """Values that relu6 keeps away from 0 and 6, so that bounds of both signs occur: all lie within their bounds."""
    rng = np.random.default_rng(seed)
    net = Network(rng, 3, 5, 5)
    for layer in range(4):
        depthwise = layer % 2 == 1
        filters = net.channels if depthwise else int(rng.integers(4, 12))
        weights = rng.standard_normal((filters, 1 if depthwise else net.channels, 1, 1)) * rng.choice([0.02, 0.3, 3.0])
        bias = rng.standard_normal(filters) * rng.choice([0.02, 0.3, 3.0])
        group = net.channels if depthwise else 1
        net.node("Conv", net.constant(weights), net.constant(bias), group=group)
        net.node("Clip", net.constant(np.array(0.0)), net.constant(np.array(6.0)))
        net.channels = filters
    net.node("Conv", net.constant(rng.standard_normal((3, net.channels, 1, 1))))
    module = prepared(net.model())
    ranges = channel_ranges(function_of(module), 65536.0)
    for magnitude in (1e-3, 1.0, 100.0, 65536.0):
        x = rng.uniform(-magnitude, magnitude, (3, 5, 5)).astype(np.float32)
        seen: list[tuple[Operation, np.ndarray]] = []
        run_nn(module, [x], lambda op, value: seen.append((op, value)))  # noqa: B023
        for op, value in seen:
            known = ranges[op.results[0]]
            slack = 1e-5 * max(float(np.abs(value).max()), 1.0)
            assert (value >= known.low - slack).all() and (value <= known.high + slack).all(), op
            np.testing.assert_allclose(
                np.where(known.constant, value, 0), np.where(known.constant, known.values, 0), rtol=1e-6, atol=1e-6
            )
    expected = run_nn(module, [x])[0]
    run_passes(module, REMOVE)
    np.testing.assert_allclose(run_nn(module, [x])[0], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
