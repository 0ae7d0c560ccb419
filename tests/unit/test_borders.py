"""Borders of padded convolutions: tiles that lack taps, and loops over taps where none is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from nests import apply, compile_module, kernel_module
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ml4f.backend.loop import kernels
from ml4f.backend.loop.borders import edge_segments, edge_taps
from ml4f.backend.loop.nest import Nest, Schedule, Step
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.schedules import mac_schedule, split_phases, tile_dims
from ml4f.compiler import Options, compile_proto
from ml4f.dialects.loop.attributes import NestAttr, ScheduleAttr
from ml4f.dialects.loop.structure import ForOp, KernelOp, NestOp
from ml4f.interpreters.plan_checker import check_plan
from ml4f.machine import Machine

Shape = tuple[list[int], list[int], list[int], list[int]]
"""Input [H, W, C], kernel [KH, KW, C, F], strides, padding [top, left, bottom, right]."""
EXPAND = ("loop-pack-weights", "loop-plan-memory", "loop-expand")


class Convolution:
    """A padded convolution with a relu: its nest, and its result by ONNX's reference implementation."""

    def __init__(self, shape: Shape, seed: int = 0):
        (h, w, c), kernel, strides, pads = shape
        rng = np.random.default_rng(seed)
        out = [(n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, n in enumerate((h, w))]
        self.nest = kernels.conv2d(
            [h, w, c], kernel, [*out, kernel[3]], strides, [1, 1], pads, 1, True, [Step("activation", None, "relu")]
        )
        self.sizes = {"x": h * w * c, "out": out[0] * out[1] * kernel[3]}
        self.weights = rng.standard_normal(kernel).astype(np.float32)
        self.bias = rng.standard_normal(kernel[3]).astype(np.float32)
        self.x = rng.standard_normal([h, w, c]).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["a"], strides=strides, pads=pads),
            helper.make_node("Relu", ["a"], ["y"]),
        ]
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xwb"]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))
        feeds = {"x": self.x.transpose(2, 0, 1)[None], "w": self.weights.transpose(3, 2, 0, 1), "b": self.bias}
        result: onnx.ModelProto = ReferenceEvaluator(model).run(None, feeds)[0]  # pyright: ignore
        self.expected = np.asarray(result)[0].transpose(1, 2, 0).ravel()

    def check(self, nest: Nest, schedule: Schedule) -> list[str]:
        """Runs the machine code of a schedule and checks its memory plan; the labels of its loops."""
        constants = {"w": self.weights.ravel(), "bias": self.bias}
        module = kernel_module(self.nest, constants, self.sizes)
        kernel = next(op for op in module.body.block.ops if isinstance(op, KernelOp))
        op = kernel.body.block.first_op
        assert isinstance(op, NestOp)
        op.properties |= {"nest": NestAttr(nest), "schedule": ScheduleAttr(schedule)}
        apply(module, *EXPAND)
        labels = [o.label.data for o in kernel.walk() if isinstance(o, ForOp) and o.label is not None]
        apply(module, "loop-lower-addresses")
        check_plan(module)
        result = Machine(compile_module(module).binary).run(self.x.ravel())
        np.testing.assert_allclose(result, self.expected, rtol=1e-4, atol=1e-5)
        return labels


STRIDED: dict[str, Shape] = {
    "eight taps": ([9, 22, 1], [3, 8, 1, 4], [2, 2], [1, 3, 1, 3]),
    "one side": ([7, 14, 2], [2, 4, 2, 3], [1, 2], [0, 0, 1, 2]),
    "three phases": ([5, 30, 1], [2, 6, 1, 5], [1, 3], [1, 2, 0, 2]),
    "no padding": ([6, 13, 3], [3, 4, 3, 4], [2, 2], [1, 0, 1, 0]),
}


@pytest.mark.parametrize("backwards", (False, True))
@pytest.mark.parametrize("name", STRIDED)
def test_taps_of_a_phase_are_a_loop_where_none_is_missing(name: str, backwards: bool):
    convolution = Convolution(STRIDED[name])
    phased = split_phases(convolution.nest)
    if name == "no padding":
        assert phased is None
        return
    assert phased is not None
    nest, dim = phased
    pixel, filters = tile_dims(nest)
    assert pixel is not None and filters is not None
    for width in (2, 3):
        schedule = mac_schedule(nest, {pixel: width, filters: 2}, 8, rolled=dim)
        if backwards:
            schedule = replace(schedule, reverse=tuple(d for d in nest.parallel_dims))
        labels = convolution.check(nest, schedule)
        assert dim in labels


def test_taps_are_unrolled_where_some_are_missing():
    """A tile that is a whole row lacks taps at both ends: nothing is left for a loop."""
    convolution = Convolution(STRIDED["eight taps"])
    phased = split_phases(convolution.nest)
    assert phased is not None
    nest, dim = phased
    pixel, _ = tile_dims(nest)
    assert pixel is not None
    labels = convolution.check(nest, mac_schedule(nest, {pixel: nest.extents[pixel]}, 8, rolled=dim))
    assert dim not in labels


EDGED: dict[str, Shape] = {
    "both sides": ([7, 16, 1], [3, 5, 1, 4], [1, 1], [1, 2, 1, 2]),
    "more on one side": ([9, 20, 2], [2, 4, 2, 4], [2, 2], [0, 0, 1, 2]),
    "unequal sides": ([5, 19, 3], [3, 6, 3, 6], [1, 1], [1, 2, 1, 3]),
    "first side": ([4, 17, 2], [1, 3, 2, 5], [1, 1], [0, 2, 0, 0]),
    "strides": ([11, 24, 1], [4, 8, 1, 8], [2, 2], [1, 3, 2, 3]),
    "rows without padding": ([6, 12, 2], [3, 3, 2, 4], [1, 1], [0, 1, 0, 1]),
}


@pytest.mark.parametrize("backwards", (False, True))
@pytest.mark.parametrize("name", EDGED)
def test_edges_share_a_loop_over_taps(name: str, backwards: bool):
    convolution = Convolution(EDGED[name])
    nest = convolution.nest
    pixel, filters = tile_dims(nest)
    assert pixel is not None and filters is not None
    taps = edge_taps(nest, pixel)
    assert taps is not None
    for width in (1, 2, 3, 4):
        if edge_segments(nest, pixel, taps, width) is None:
            continue
        for points in (1, 2, 12):
            schedule = mac_schedule(nest, {pixel: width, filters: 2}, points, edge=(pixel, taps))
            if backwards:
                schedule = replace(schedule, reverse=tuple(d for d in nest.parallel_dims))
            assert price(nest, schedule) is not None
            assert taps in convolution.check(nest, schedule)


def test_edges_of_equal_size_have_one_copy_of_code():
    convolution = Convolution(EDGED["strides"])
    labels = convolution.check(convolution.nest, mac_schedule(convolution.nest, {"ox": 2}, 1, edge=("ox", "kx")))
    assert labels.count("kx") == 2


def test_edge_segments():
    """The middle is whole tiles; edges get as many pixels as that takes, and equally many so that they share code."""
    nest = Convolution(EDGED["strides"]).nest
    assert nest.extents["ox"] == 12
    assert edge_segments(nest, "ox", "kx", 2) == ((1, 2), (2, 4), (1, 2))
    assert edge_segments(nest, "ox", "kx", 3) == ((1, 3), (3, 2), (1, 3))
    assert edge_segments(nest, "ox", "kx", 5) is None
    one_side = Convolution(EDGED["more on one side"]).nest
    assert edge_segments(one_side, "ox", "kx", 4) == ((4, 2), (1, 2))


def test_taps_of_no_edge():
    unpadded = Convolution(([6, 12, 2], [3, 3, 2, 4], [1, 1], [0, 0, 0, 0])).nest
    assert edge_taps(unpadded, "ox") is None
    narrow = Convolution(([6, 3, 2], [3, 5, 2, 4], [1, 1], [0, 2, 0, 2])).nest
    assert edge_segments(narrow, "ox", "kx", 1) is None


@pytest.mark.parametrize(
    ("op_type", "size", "attributes"),
    [
        ("MaxPool", (60, 50), {"kernel_shape": [12, 15], "pads": [3, 4, 3, 4], "strides": [3, 2], "dilations": [2, 3]}),
        ("MaxPool", (30, 30), {"kernel_shape": [13, 13], "pads": [6, 6, 6, 6]}),
        ("AveragePool", (40, 33), {"kernel_shape": [20, 11], "pads": [4, 5, 4, 5], "strides": [5, 4]}),
        ("AveragePool", (7, 40), {"kernel_shape": [7, 21], "pads": [3, 10, 3, 10], "count_include_pad": 1}),
    ],
)
def test_large_windows_are_loops_at_the_borders_too(op_type: str, size: tuple[int, int], attributes: dict[str, object]):
    node = helper.make_node(op_type, ["x"], ["y"], **attributes)
    x = np.random.default_rng(0).standard_normal((1, 2, *size)).astype(np.float32)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(
            helper.make_graph([node], "g", ends, results), opset_imports=[helper.make_opsetid("", 19)], ir_version=9
        )
    )
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})  # pyright: ignore[reportGeneralTypeIssues]
    compilation = compile_proto(model, "pool", Options())
    np.testing.assert_allclose(compilation.machine.run(x)[None], expected, rtol=1e-5, atol=1e-6)
    assert len(compilation.binary) < 13000
