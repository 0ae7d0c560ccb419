"""The plan checker passes every real plan, on example models and random networks, and catches plans made wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nests import LOOP_PASSES, apply, kernel_module
from onnx import TensorProto, helper
from shared_models import shared_models
from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp

from ml4f import pipelines
from ml4f.backend.loop import kernels
from ml4f.compiler import Options, compile_proto, run_passes
from ml4f.dialects.loop.structure import BufferOp, ProgramOp
from ml4f.errors import ValidationError
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.plan_checker import check_plan

PLANNED = pipelines.DEFAULT[: pipelines.DEFAULT.index(pipelines.THUMB[0])]
SAMPLES = ("avgPool", "batch1", "conv2d", "depth1", "dspDense", "noDsp", "oneD", "tfjsGest")


def planned(proto: onnx.ModelProto) -> ModuleOp:
    """The model in pointer form."""
    module = import_onnx(proto, "model")
    run_passes(module, PLANNED)
    return module


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_models(name: str):
    shared = shared_models()
    if shared is None:
        pytest.skip("the shared models are not there")
    check_plan(planned(onnx.load(shared / "samples" / f"{name}.onnx")))


class RandomNetwork:
    """A chain of convolutions, depthwise ones, pools and activations; some are added or joined to earlier values."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = tuple(int(n) for n in self.rng.integers((1, 3, 3), (5, 9, 9)))
        self.kept: dict[tuple[int, ...], list[str]] = {}
        self.value = "x"
        first = self.shape
        for _ in range(int(self.rng.integers(3, 7))):
            kinds = (self.convolution, self.pool, self.activation, self.combine)
            kinds[int(self.rng.choice(4, p=(0.5, 0.15, 0.1, 0.25)))]()
            self.kept.setdefault(self.shape, []).append(self.value)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *first])]
        outputs = [helper.make_tensor_value_info(self.value, TensorProto.FLOAT, [1, *self.shape])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.constants)
        self.proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        self.proto.ir_version = 8

    def node(self, operator: str, *inputs: str, **attributes: object) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))  # pyright: ignore
        self.value = name

    def convolution(self) -> None:
        depth, height, width = self.shape
        kernel, groups = int(self.rng.choice((1, 2, 3))), int(self.rng.choice((1, depth)))
        filters = depth if groups > 1 else int(self.rng.integers(1, 9))
        pad, stride = int(self.rng.integers(0, kernel)), int(self.rng.integers(1, 3))
        size = [(n + 2 * pad - kernel) // stride + 1 for n in (height, width)]
        if min(size) < 1:
            return self.activation()
        weights = self.rng.standard_normal((filters, depth // groups, kernel, kernel)).astype(np.float32)
        self.constants.append(onnx.numpy_helper.from_array(weights, f"w{len(self.nodes)}"))
        attributes = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2, "group": groups}
        self.node("Conv", self.value, f"w{len(self.nodes)}", **attributes)
        self.shape = (filters, *size)

    def pool(self) -> None:
        depth, height, width = self.shape
        if min(height, width) < 2:
            return self.activation()
        self.node(str(self.rng.choice(("MaxPool", "AveragePool"))), self.value, kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (depth, height // 2, width // 2)

    def activation(self) -> None:
        self.node(str(self.rng.choice(("Relu", "Sigmoid"))), self.value)

    def combine(self) -> None:
        """With an earlier value of the same shape, if there is one."""
        candidates = [value for value in self.kept.get(self.shape, []) if value != self.value]
        if not candidates:
            return self.convolution()
        other = candidates[int(self.rng.integers(len(candidates)))]
        if self.rng.integers(2):
            self.node("Add", self.value, other)
        else:
            self.node("Concat", self.value, other, axis=1)
            self.shape = (2 * self.shape[0], *self.shape[1:])


@pytest.mark.parametrize("seed", range(16))
def test_random_networks(seed: int):
    """Every pass by running, the plan by its checker, and the machine code layer by layer."""
    compile_proto(RandomNetwork(seed).proto, f"random{seed}", Options(check_passes=True))


@pytest.mark.parametrize("seed", range(8))
def test_all_buffers_at_one_place_is_caught(seed: int):
    """Unless the plan shows that this is possible: in place all the way."""
    module = planned(RandomNetwork(seed).proto)
    buffers = [op for op in module.body.block.ops if isinstance(op, BufferOp)]
    program = next(op for op in module.body.block.ops if isinstance(op, ProgramOp))
    assert program.arena_bytes is not None
    in_place = program.arena_bytes.value.data == max(op.bytes.value.data for op in buffers)
    for op in buffers:
        op.properties["offset"] = IntegerAttr(0, 64)
    if not in_place:
        with pytest.raises(ValidationError):
            check_plan(module)


def sliding_convolution() -> tuple[ModuleOp, BufferOp, BufferOp]:
    """A 3 x 3 convolution with padding, its input and its output: the output lies below the input's last rows."""
    nest = kernels.conv2d([9, 9, 4], [3, 3, 4, 4], [9, 9, 4], [1, 1], [1, 1], [1] * 4, 1, False)
    module = kernel_module(nest, {"w": np.ones(144)}, {"x": 324, "out": 324})
    apply(module, *LOOP_PASSES)
    buffers = {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, BufferOp)}
    return module, buffers["x"], buffers["out"]


def place(buffer: BufferOp) -> int:
    assert buffer.offset is not None
    return buffer.offset.value.data


def test_one_word_closer_is_caught():
    module, x, out = sliding_convolution()
    check_plan(module)
    lower, upper = sorted((x, out), key=place)
    assert place(lower) == 0 < place(upper) < lower.bytes.value.data
    lower.properties["offset"] = IntegerAttr(4, 64)
    with pytest.raises(
        ValidationError, match=r"@k: loads element \d+ of @x, but the word at arena\+\d+ holds element \d+ of @out"
    ):
        check_plan(module)
    upper.properties["offset"] = IntegerAttr(place(upper) + 4, 64)
    check_plan(module)


def test_uninitialised_word_is_caught():
    module, x, _ = sliding_convolution()
    program = next(op for op in module.body.block.ops if isinstance(op, ProgramOp))
    program.properties["inputs"] = ArrayAttr([])
    with pytest.raises(ValidationError, match="holds nothing"):
        check_plan(module)
    assert place(x) >= 0


def test_output_that_was_not_written_is_caught():
    module, _, out = sliding_convolution()
    out.properties["bytes"] = IntegerAttr(out.bytes.value.data + 4, 64)
    with pytest.raises(ValidationError, match="element 324 of the output @out is lost"):
        check_plan(module)


def test_access_outside_of_a_buffer_is_caught():
    module, x, _ = sliding_convolution()
    x.properties["bytes"] = IntegerAttr(x.bytes.value.data - 4, 64)
    with pytest.raises(ValidationError, match="is outside of it"):
        check_plan(module)
