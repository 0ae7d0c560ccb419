"""Every ONNX operator of the importer, with random options, against a reference evaluator of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.interpreters.nn import run_nn
from ml4f.reference import Reference

TOLERANCE = 2e-5
"""Of the largest output."""


class Case:
    """Builds one random model: `x` is its input; every helper appends a node and returns its output."""

    def __init__(self, seed: int, shape: tuple[int, ...], opset: int = 18):
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, **attributes))
        return names[0]

    def constant(self, value: Any, kind: Any = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape), np.float32)

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.3, 2, shape), np.float32)

    def draw(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def check(self, output: str, tolerance: float = TOLERANCE) -> None:
        graph = helper.make_graph(
            self.nodes,
            "case",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset > 8 else 4)
        loaded = load_model(proto)
        module = import_onnx(loaded.proto, "case")
        module.verify()
        x = self.rng.standard_normal(self.shape).astype(np.float32)
        expected = Reference(loaded.proto).run([x])[output]
        result = run_nn(module, [x])[0]
        assert result.size == expected.size
        error = np.abs(result.ravel() - expected.ravel()).max()
        assert error <= tolerance * max(1.0, float(np.abs(expected).max())), error


def images(seed: int, rank: int = 2, opset: int = 18) -> Case:
    """A case with an input [1, channels, …]."""
    rng = np.random.default_rng(seed + 1000)
    return Case(seed, (1, int(rng.integers(1, 6)), *(int(n) for n in rng.integers(3, 10, rank))), opset)


def window(c: Case, kernel: list[int]) -> dict[str, Any]:
    """Random strides, dilations and pads of a window."""
    rank = len(kernel)
    attributes: dict[str, Any] = {"strides": [c.draw(1, 1, 2, 3) for _ in kernel]}
    if c.draw(True, False):
        attributes["auto_pad"] = c.draw("SAME_UPPER", "SAME_LOWER", "VALID")
        attributes["strides"] = [int(c.rng.integers(1, k + 1)) for k in kernel]  # more would be negative padding
    else:
        attributes["pads"] = [int(c.rng.integers(0, k)) for k in kernel * 2]
        attributes["dilations"] = [c.draw(1, 1, 2) for _ in range(rank)]
    return attributes


def conv(c: Case) -> str:
    channels, rank = c.shape[1], len(c.shape) - 2
    groups = c.draw(1, 1, channels)
    filters = groups * int(c.rng.integers(1, 4))
    kernel = [int(c.rng.integers(1, 3)) for _ in range(rank)]
    operands = ["x", c.random(filters, channels // groups, *kernel)]
    operands += [c.random(filters)] if c.draw(True, False) else []
    return c.node("Conv", *operands, group=groups, **window(c, kernel))


def pool(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        kernel = [int(c.rng.integers(1, 4)) for _ in c.shape[2:]]
        attributes = window(c, kernel)
        if "dilations" in attributes:
            attributes["dilations"] = [
                1 if n < 6 else d for n, d in zip(c.shape[2:], attributes["dilations"], strict=True)
            ]
        if op_type == "AveragePool":
            attributes.pop("dilations", None)
            attributes["count_include_pad"] = c.draw(0, 1)
        if "auto_pad" not in attributes:
            attributes["ceil_mode"] = c.draw(0, 1) if op_type == "MaxPool" else 0
        return c.node(op_type, "x", kernel_shape=kernel, **attributes)

    return build


def plain(op_type: str, **attributes: Any) -> Callable[[Case], str]:
    return lambda c: c.node(op_type, "x", **attributes)


def of_positive(op_type: str) -> Callable[[Case], str]:
    return lambda c: c.node(op_type, c.node("Add", c.node("Abs", "x"), c.constant(0.1, np.float32)))


def broadcast(op_type: str) -> Callable[[Case], str]:
    """With a constant, or with another tensor, of a shape that broadcasts."""

    def build(c: Case) -> str:
        shape = [c.draw(n, 1) for n in c.shape]
        if c.draw(True, False):
            other = c.positive(*shape[int(c.rng.integers(0, len(shape))) :])
        else:
            axes = [axis for axis, n in enumerate(shape) if n == 1 and axis]
            other = c.node("ReduceMean", "x", c.constant(axes)) if axes else c.node("Relu", "x")
            other = c.node("Add", c.node("Abs", other), c.constant(0.5, np.float32))
        return c.node(op_type, *c.draw(("x", other), (other, "x")))

    return build


def compare(op_type: str) -> Callable[[Case], str]:
    return lambda c: c.node("Cast", c.node(op_type, "x", c.random(c.shape[1], 1, 1)), to=TensorProto.FLOAT)


def logic(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        a, b = c.node("Greater", "x", c.constant(0.2, np.float32)), c.node("Less", "x", c.constant(0.5, np.float32))
        return c.node("Cast", c.node(op_type, a) if op_type == "Not" else c.node(op_type, a, b), to=TensorProto.FLOAT)

    return build


def equal(c: Case) -> str:
    clipped = c.node("Relu", "x")
    return c.node("Cast", c.node("Equal", clipped, c.constant(0.0, np.float32)), to=TensorProto.FLOAT)


def where(c: Case) -> str:
    condition = c.node("Greater", "x", c.constant(0.0, np.float32))
    large = c.node("Exp", c.node("Mul", "x", c.constant(200.0, np.float32)))
    kept = c.draw(c.node("Neg", "x"), c.constant(0.0, np.float32), c.random(*c.shape[2:]))
    return c.node("Where", condition, kept, c.node("Min", large, c.constant(3.0, np.float32)))


def dense(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        flat = c.node("Flatten", "x")
        size, units = int(np.prod(c.shape)), int(c.rng.integers(1, 9))
        if op_type == "MatMul":
            return c.node("MatMul", flat, c.random(size, units))
        transposed = c.draw(0, 1)
        weights = c.random(*((units, size) if transposed else (size, units)))
        options = {"transB": transposed, "alpha": c.draw(1.0, 0.5), "beta": c.draw(1.0, 2.0)}
        return c.node("Gemm", flat, weights, *c.draw([c.random(units)], [c.random(1, units)], []), **options)

    return build


def batched_matmul(c: Case) -> str:
    return c.node("MatMul", "x", c.random(c.shape[-1], int(c.rng.integers(1, 6))))


def normalization(c: Case) -> str:
    n = c.shape[1]
    return c.node("BatchNormalization", "x", c.random(n), c.random(n), c.random(n), c.positive(n), epsilon=1e-3)


def prelu(c: Case) -> str:
    return c.node("PRelu", "x", c.random(*c.draw((c.shape[1], 1, 1), (1,), c.shape[1:], (c.shape[-1],))))


def reduce(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        axes = sorted({int(a) for a in c.rng.integers(1, len(c.shape), 2)})
        tensor = c.node("Transpose", "x", perm=[0, 2, 3, 1]) if c.draw(True, False) else "x"
        return c.node(op_type, tensor, c.constant(axes), keepdims=c.draw(0, 1))

    return build


def reshape(c: Case) -> str:
    shape = c.draw([1, -1], [0, 0, -1], [1, c.shape[1], 1, -1], [0, -1, c.shape[2]])
    tensor = c.node("Transpose", "x", perm=[0, 3, 1, 2]) if shape[-1] == -1 and shape[:2] != [0, 0] else "x"
    return c.node("Reshape", tensor, c.constant(shape))


def flatten_to_dense(c: Case) -> str:
    """Weights are permuted instead of elements."""
    tensor = c.node("Transpose", "x", perm=[0, *(int(a) + 1 for a in c.rng.permutation(3))])
    size = int(np.prod(c.shape))
    return c.node("Gemm", c.node("Flatten", c.node("Relu", tensor)), c.random(size, 5))


def concat(c: Case) -> str:
    axis = c.draw(1, 2, 3, -1)
    return c.node("Concat", "x", c.node("Relu", "x"), c.random(*c.shape), axis=axis)


def pad(c: Case) -> str:
    amounts = [0, *c.rng.integers(-1, 3, 3), 0, *c.rng.integers(-1, 3, 3)]
    return c.node("Pad", "x", c.constant(amounts), *c.draw([], [c.constant(0.75, np.float32)]))


def slice_(c: Case) -> str:
    axis = c.draw(1, 2, -1)
    size = c.shape[axis]
    start, end, step = c.draw((0, size, 2), (1, 10**6, 1), (-2, 10**6, 1), (size - 1, -(10**6), -1))
    return c.node("Slice", "x", c.constant([start]), c.constant([end]), c.constant([axis]), c.constant([step]))


def split(c: Case) -> str:
    first = int(c.rng.integers(1, c.shape[2]))
    name = c.node("Split", "x", c.constant([first, c.shape[2] - first]), axis=2, outputs=2)
    return c.draw(name, name[:-1] + "1")


def gather(c: Case) -> str:
    axis = c.draw(1, 2, 3)
    return c.node("Gather", "x", c.constant(c.draw(0, [0], [c.shape[axis] - 1, 0], [[0]], -1)), axis=axis)


def expand(c: Case) -> str:
    pooled = c.node("GlobalMaxPool", "x")
    return c.node("Expand", pooled, c.constant(c.draw([1, c.shape[1], 3, 2], [4, 1], [1, 1, 1, 5])))


def tile(c: Case) -> str:
    return c.node("Tile", "x", c.constant([1, *(int(n) for n in c.rng.integers(1, 4, 3))]))


def resize(c: Case) -> str:
    scales = c.constant([1, 1, *(int(n) for n in c.rng.integers(1, 4, 2))], np.float32)
    options = c.draw({}, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})
    return c.node("Resize", "x", "", scales, mode="nearest", **options)


def upsample(c: Case) -> str:
    c.opset = 9
    return c.node("Upsample", "x", c.constant([1, 1, 2, 3], np.float32), mode="nearest")


def softmax(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        scaled = c.node("Mul", c.node("Transpose", "x", perm=[0, 2, 3, 1]), c.constant(30.0, np.float32))
        return c.node(op_type, scaled, axis=c.draw(1, 2, 3, -1))

    return build


def squeeze(c: Case) -> str:
    wide = c.node("Unsqueeze", "x", c.constant(c.draw([1], [2, -1], [0])))
    return c.node("Squeeze", wide, *c.draw([c.constant([0])], []))


def variadic(op_type: str) -> Callable[[Case], str]:
    return lambda c: c.node(op_type, "x", c.random(c.shape[1], 1, 1), c.node("Neg", "x"), c.random(1))


def arg_extreme(op_type: str) -> Callable[[Case], str]:
    def build(c: Case) -> str:
        axis = c.draw(1, 2, 3)
        tied = c.node("Round", "x")
        found = c.node(op_type, tied, axis=axis, keepdims=c.draw(0, 1), select_last_index=c.draw(0, 1))
        return c.node("Cast", found, to=TensorProto.FLOAT)

    return build


def computed_matmul(c: Case) -> str:
    """Both operands computed, one of them perhaps transposed, perhaps broadcast."""
    other = c.node("Transpose", c.node("Tanh", "x"), perm=c.draw([0, 1, 3, 2], [0, 1, 3, 2], [0, 1, 3, 2]))
    if c.draw(True, False):
        other = c.node("ReduceMean", other, c.constant([1]), keepdims=1)
    return c.node("MatMul", *c.draw(("x", other), (other, "x")))


def constant_matmul(c: Case) -> str:
    """A constant on the left, or with axes of its own, or a vector."""
    rows, columns = c.shape[-2:]
    return c.draw(
        lambda: c.node("MatMul", c.random(3, rows), "x"),
        lambda: c.node("MatMul", "x", c.random(c.shape[1], columns, 2)),
        lambda: c.node("MatMul", "x", c.random(columns)),
        lambda: c.node("MatMul", c.random(rows), "x"),
    )()


def general_gemm(c: Case) -> str:
    """Any operand computed or constant, transposed or not, with a summand of any shape."""
    a = c.node("Reshape", "x", c.constant([c.shape[1], -1]))
    rows, depth = (int(np.prod(c.shape[2:])), c.shape[1]) if c.draw(0, 1) else (c.shape[1], int(np.prod(c.shape[2:])))
    trans_a, trans_b = int(rows != c.shape[1] or depth == c.shape[1] != rows), c.draw(0, 1)
    units = int(c.rng.integers(1, 6))
    if c.draw(True, False):
        b = c.random(*((units, depth) if trans_b else (depth, units)))
    else:
        b, units = c.node("Relu", a), rows
        trans_b = 1 - trans_a
    options = {"transA": trans_a, "transB": trans_b, "alpha": c.draw(1.0, 0.5), "beta": c.draw(1.0, 2.0)}
    return c.node("Gemm", a, b, *c.draw([], [c.random(units)], [c.random(rows, 1)], [c.random(rows, units)]), **options)


def conv_transpose(c: Case) -> str:
    channels, rank = c.shape[1], len(c.shape) - 2
    groups = c.draw(1, 1, channels)
    kernel = [int(c.rng.integers(1, 5)) for _ in range(rank)]
    strides = [int(c.rng.integers(1, 4)) for _ in range(rank)]
    operands = ["x", c.random(channels, int(c.rng.integers(1, 4)), *kernel)]
    operands += [c.random(int(c.constants[-1].dims[1]) * groups)] if c.draw(True, False) else []
    options: dict[str, Any] = {"group": groups, "strides": strides, "dilations": [c.draw(1, 1, 2) for _ in kernel]}
    choice = c.draw("pads", "same", "shape")
    if choice == "pads":
        options["pads"] = [int(c.rng.integers(0, k)) for k in kernel * 2]
        options["output_padding"] = [int(c.rng.integers(0, s)) for s in strides]
    elif choice == "same":
        options["auto_pad"] = c.draw("SAME_UPPER", "SAME_LOWER")
        options["dilations"] = [1] * rank
        options["strides"] = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
    return c.node("ConvTranspose", *operands, **options)


def layer_normalization(c: Case) -> str:
    axis = c.draw(1, 2, 3, -1)
    shape = c.shape[axis:]
    return c.node("LayerNormalization", "x", c.random(*shape), *c.draw([], [c.random(*shape)]), axis=axis, epsilon=1e-3)


def instance_normalization(c: Case) -> str:
    return c.node("InstanceNormalization", "x", c.random(c.shape[1]), c.random(c.shape[1]), epsilon=1e-3)


def group_normalization(c: Case) -> str:
    c.opset = 21
    twice = c.node("Concat", "x", c.node("Neg", "x"), axis=1)
    n = 2 * c.shape[1]
    return c.node("GroupNormalization", twice, c.random(n), c.random(n), num_groups=c.draw(1, 2, n), epsilon=1e-3)


def rms_normalization(c: Case) -> str:
    c.opset = 23
    return c.node("RMSNormalization", "x", c.random(c.shape[-1]), axis=-1, epsilon=1e-3)


def even(c: Case, factor: int = 4) -> str:
    """The input with `factor` times the channels."""
    return c.node("Concat", *(["x", c.node("Neg", "x"), c.node("Tanh", "x"), c.node("Abs", "x")][:factor]), axis=1)


def space_to_depth(c: Case) -> str:
    return c.node("SpaceToDepth", c.node("DepthToSpace", even(c), blocksize=2), blocksize=2)


def depth_to_space(c: Case) -> str:
    return c.node("DepthToSpace", even(c), blocksize=2, mode=c.draw("DCR", "CRD"))


def pad_with_elements(c: Case) -> str:
    c.opset = 19
    amounts = [0, *c.rng.integers(0, 2, 3), 0, *c.rng.integers(-1, 3, 3)]
    mode = c.draw("reflect", "edge", "wrap") if c.shape[1] > 2 else "edge"
    return c.node("Pad", "x", c.constant(amounts), mode=mode)


def gather_any(c: Case) -> str:
    axis = c.draw(1, 2, 3)
    return c.node("Gather", "x", c.constant(c.rng.integers(0, c.shape[axis], (2, 3))), axis=axis)


def einsum(c: Case) -> str:
    swapped = c.node("Transpose", "x", perm=[0, 2, 1, 3])
    weights = c.constant(c.rng.standard_normal((c.shape[3], 3)), np.float32)
    return c.draw(
        lambda: c.node("Einsum", "x", "x", equation="bchw,bchv->bcwv"),
        lambda: c.node("Einsum", "x", swapped, equation="bchw, bkcw -> khb"),
        lambda: c.node("Einsum", "x", equation="bchw->wc"),
        lambda: c.node("Einsum", "x", weights, equation="abcd,dk"),
        lambda: c.node("Einsum", "x", "x", equation="abcd,abcd->ac"),
    )()


def resize_any(c: Case) -> str:
    mode = c.draw("linear", "cubic", "nearest")
    options: dict[str, Any] = {
        "coordinate_transformation_mode": c.draw("half_pixel", "asymmetric", "pytorch_half_pixel")
    }
    if mode == "nearest":
        options["nearest_mode"] = c.draw("floor", "ceil", "round_prefer_ceil")
    if c.draw(True, False):
        return c.node("Resize", "x", "", c.constant([1, 1, c.draw(0.6, 1.5), 2], np.float32), mode=mode, **options)
    if c.draw(True, False):
        options["coordinate_transformation_mode"] = "align_corners"
    sizes = [1, c.shape[1], *(int(n) for n in c.rng.integers(2, 12, 2))]
    return c.node("Resize", "x", "", "", c.constant(sizes), mode=mode, **options)


def resized_region(c: Case) -> str:
    """A part of the image, or more than it, whose surroundings have a value."""
    starts, ends = ([float(v) for v in c.rng.uniform(*limits, 2)] for limits in ((-0.3, 0.3), (0.6, 1.3)))
    region = c.constant([0, 0, *starts, 1, 1, *ends], np.float32)
    sizes = c.constant([1, c.shape[1], *(n + c.draw(-1, 2) for n in c.shape[2:])])
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": c.draw(0.0, 2.5)}
    return c.node("Resize", "x", region, "", sizes, mode="linear", **options)


def power(c: Case) -> str:
    base = c.node("Add", c.node("Abs", "x"), c.constant(0.3, np.float32))
    return c.draw(
        lambda: c.node("Pow", "x", c.constant(c.draw(1, 2, 3, 4, 5), np.float32)),
        lambda: c.node("Pow", base, c.constant(c.draw(-1, -2, 0.5, 1.7, -0.3), np.float32)),
        lambda: c.node("Pow", c.constant(2.5, np.float32), "x"),
        lambda: c.node("Pow", base, "x"),
        lambda: c.node("Pow", "x", c.constant(c.rng.integers(-3, 4, c.shape[-1]), np.float32)),
    )()


def of_unit_interval(op_type: str) -> Callable[[Case], str]:
    """Of 0.02 to 0.98, or of 1.02 to 1.98 for Acosh."""

    def build(c: Case) -> str:
        x = c.node(
            "Add", c.node("Mul", c.node("Sigmoid", "x"), c.constant(0.96, np.float32)), c.constant(0.02, np.float32)
        )
        return c.node(op_type, c.node("Add", x, c.constant(1, np.float32)) if op_type == "Acosh" else x)

    return build


def of_special_values(op_type: str) -> Callable[[Case], str]:
    """Some elements are no numbers, some are infinite."""

    def build(c: Case) -> str:
        infinite = c.node("Div", "x", c.node("Relu", "x"))
        special = c.node("Mul", infinite, c.node("Sub", infinite, c.constant(2, np.float32)))
        options = {"detect_negative": c.draw(0, 1), "detect_positive": c.draw(0, 1)} if op_type == "IsInf" else {}
        return c.node("Cast", c.node(op_type, c.draw(infinite, special), **options), to=TensorProto.FLOAT)

    return build


def one_hot(c: Case) -> str:
    values, depth = c.constant([c.draw(0, -0.5), 2], np.float32), c.constant(4)
    computed = c.node("ArgMax", "x", axis=c.draw(1, 2, 3), keepdims=0)
    constant = c.constant(c.rng.integers(-4, 5, (1, 3)))
    return c.draw(
        lambda: c.node("OneHot", computed, depth, values, axis=c.draw(1, 2, -1)),
        lambda: c.node("Add", "x", c.node("ReduceSum", c.node("OneHot", constant, depth, values), keepdims=0)),
        lambda: c.node("OneHot", constant, depth, c.node("Slice", flat(c), c.constant([0]), c.constant([2]))),
    )()


def flat(c: Case) -> str:
    return c.node("Reshape", "x", c.constant([-1]))


def scatter_elements(c: Case) -> str:
    rows = int(c.rng.integers(1, c.shape[2] + 1))
    indices = c.rng.permuted(np.tile(np.arange(c.shape[2]), (*c.shape[:2], c.shape[3], 1)), axis=3)[..., :rows]
    reduction = c.draw("none", "add", "mul", "max", "min")
    if reduction != "none":  # the same place may be meant twice
        indices = c.rng.integers(-c.shape[2], c.shape[2], indices.shape)
    indices = np.moveaxis(indices, 3, 2)
    return c.node("ScatterElements", "x", c.constant(indices), c.random(*indices.shape), axis=2, reduction=reduction)


def scatter_nd(c: Case) -> str:
    indices = c.rng.permutation(c.shape[2])[: int(c.rng.integers(1, 4))]
    places = [[0, 0, int(i)] for i in indices]
    updates = c.random(len(places), c.shape[3])
    return c.node("ScatterND", "x", c.constant(places), updates, reduction=c.draw("none", "add", "mul", "max", "min"))


def top_k(c: Case) -> str:
    axis, count = c.draw(2, 3, -1), c.constant([c.draw(1, 2, 3)])
    values = c.node("TopK", c.draw("x", c.node("Round", "x")), count, axis=axis, largest=c.draw(0, 1), outputs=2)
    numbers = c.node("Cast", c.nodes[-1].output[1], to=TensorProto.FLOAT)
    return c.node("Add", values, numbers)


def of_integers(c: Case) -> str:
    """Moves, comparisons and selections of computed integers."""
    numbers, others = c.node("ArgMax", "x", axis=1), c.node("ArgMin", "x", axis=1)
    larger = c.node("Where", c.node("Less", numbers, others), others, numbers)
    parts = c.node("Concat", c.node("Max", larger, others), c.constant(np.full((1, 1, 1, c.shape[3]), 7)), axis=2)
    return c.node("Cast", c.node("Neg", parts), to=TensorProto.FLOAT)


def computed_clip(c: Case) -> str:
    low = c.node("ReduceMean", "x", keepdims=0)
    return c.node("Clip", "x", low, *c.draw([], [c.constant(0.5, np.float32)]))


BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")
# fmt: off
UNARY = (
    "Abs", "Ceil", "Celu", "Dropout", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Tanh",
    "ThresholdedRelu", "Asinh", "Atan", "Cos", "Cosh", "Sin", "Sinh", "Tan", "Flatten", "GlobalAveragePool",
    "GlobalMaxPool",
)
# fmt: on

CASES: list[tuple[str, Callable[[Case], str]]] = [
    *((name, plain(name)) for name in UNARY),
    *((name, broadcast(name)) for name in BINARY),
    *((name, variadic(name)) for name in ("Sum", "Max", "Min")),
    *((name, of_positive(name)) for name in ("Log", "Sqrt", "Reciprocal")),
    *((name, compare(name)) for name in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *((name, logic(name)) for name in ("And", "Or", "Not", "Xor")),
    *((name, of_unit_interval(name)) for name in ("Acos", "Acosh", "Asin", "Atanh")),
    *((name, of_special_values(name)) for name in ("IsInf", "IsNaN")),
    *((name, reduce(name)) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")),
    *((name, reduce(name)) for name in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")),
    *((name, arg_extreme(name)) for name in ("ArgMax", "ArgMin")),
    *((name, softmax(name)) for name in ("Softmax", "LogSoftmax")),
    ("AveragePool", pool("AveragePool")),
    ("CastLike", lambda c: c.node("CastLike", c.node("Greater", "x", c.constant(0.0, np.float32)), "x")),
    ("Clip", computed_clip),
    (
        "Compress",
        lambda c: c.node("Compress", "x", c.constant(c.draw([0, 1, 1], [1, 0, 1], [0, 0, 1]), np.bool_), axis=2),
    ),
    ("Compress", lambda c: c.node("Compress", "x", c.constant([0, 1, 1, 0, 1], np.bool_))),
    ("Max", of_integers),
    ("OneHot", one_hot),
    (
        "ReverseSequence",
        lambda c: c.node(
            "ReverseSequence", "x", c.constant(c.rng.integers(0, 2, c.shape[1])), time_axis=0, batch_axis=1
        ),
    ),
    (
        "ReverseSequence",
        lambda c: c.node("ReverseSequence", "x", c.constant([c.shape[1] - 1]), time_axis=1, batch_axis=0),
    ),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
    ("TopK", top_k),
    ("ConvTranspose", conv_transpose),
    (
        "CumSum",
        lambda c: c.node("CumSum", "x", c.constant(c.draw(1, 2, 3)), exclusive=c.draw(0, 1), reverse=c.draw(0, 1)),
    ),
    ("DepthToSpace", depth_to_space),
    ("Gather", gather_any),
    (
        "GatherElements",
        lambda c: c.node("GatherElements", "x", c.constant(c.rng.integers(-c.shape[2], c.shape[2], c.shape)), axis=2),
    ),
    ("GatherND", lambda c: c.node("GatherND", "x", c.constant([[[0, 0, 1], [0, -1, 0]]]))),
    ("Einsum", einsum),
    ("Gemm", general_gemm),
    ("GlobalLpPool", lambda c: c.node("GlobalLpPool", "x", p=c.draw(1, 2))),
    ("GroupNormalization", group_normalization),
    ("Hardmax", lambda c: c.node("Hardmax", "x", axis=c.draw(1, 2, 3, -1))),
    ("InstanceNormalization", instance_normalization),
    (
        "LRN",
        lambda c: c.node(
            "LRN", even(c), size=c.draw(1, 3, 5), alpha=0.3, beta=c.draw(0.5, 0.75), bias=c.draw(1.0, 2.0)
        ),
    ),
    ("LayerNormalization", layer_normalization),
    ("LpNormalization", lambda c: c.node("LpNormalization", "x", p=c.draw(1, 2), axis=c.draw(1, 2, -1))),
    ("LpPool", lambda c: c.node("LpPool", "x", p=c.draw(1, 2, 3), kernel_shape=[2, 3], strides=[c.draw(1, 2), 1])),
    ("MatMul", computed_matmul),
    ("MatMul", constant_matmul),
    ("Mean", variadic("Mean")),
    ("MeanVarianceNormalization", lambda c: c.node("MeanVarianceNormalization", "x", axes=c.draw([0, 2, 3], [1], [3]))),
    ("PRelu", lambda c: c.node("PRelu", "x", c.node("GlobalMaxPool", "x"))),
    ("Pad", pad_with_elements),
    ("RMSNormalization", rms_normalization),
    ("ReduceLogSum", lambda c: c.node("ReduceLogSum", c.node("Exp", "x"), c.constant([c.draw(1, 2, 3)]))),
    ("Resize", resize_any),
    ("Resize", resized_region),
    ("Shrink", lambda c: c.node("Shrink", "x", bias=c.draw(0.0, 0.3), lambd=c.draw(0.5, 0.2))),
    ("SpaceToDepth", space_to_depth),
    ("Trilu", lambda c: c.node("Trilu", "x", c.constant(c.draw(0, 1, -1)), upper=c.draw(0, 1))),
    ("BatchNormalization", normalization),
    ("Cast", lambda c: c.node("Cast", c.node("Cast", c.node("Relu", "x"), to=TensorProto.BOOL), to=TensorProto.FLOAT)),
    ("Clip", lambda c: c.node("Clip", "x", c.constant(-0.5, np.float32), c.draw("", c.constant(0.75, np.float32)))),
    ("Concat", concat),
    ("Conv", conv),
    ("Equal", equal),
    ("Expand", expand),
    ("Flatten", flatten_to_dense),
    ("Gather", gather),
    ("Gemm", dense("Gemm")),
    ("MatMul", batched_matmul),
    ("MatMul", dense("MatMul")),
    ("MaxPool", pool("MaxPool")),
    ("PRelu", prelu),
    ("Pad", pad),
    ("Pow", power),
    ("Reshape", reshape),
    ("Resize", resize),
    ("Slice", slice_),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", lambda c: c.node("Transpose", "x", perm=[0, *(int(a) + 1 for a in c.rng.permutation(3))])),
    ("Unsqueeze", squeeze),
    ("Upsample", upsample),
    ("Where", where),
]


@pytest.mark.parametrize(("name", "build"), CASES, ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)])
def test_operators(name: str, build: Callable[[Case], str]) -> None:
    for seed in range(8):
        case = images(seed)
        case.check(build(case))


@pytest.mark.parametrize("build", [conv, pool("MaxPool"), pool("AveragePool")])
def test_windows_in_one_dimension(build: Callable[[Case], str]) -> None:
    for seed in range(16):
        case = images(seed, rank=1)
        case.check(build(case))


@pytest.mark.parametrize("build", [conv, pool("MaxPool"), pool("AveragePool"), plain("GlobalMaxPool")])
def test_windows_in_three_dimensions(build: Callable[[Case], str]) -> None:
    for seed in range(12):
        case = images(seed, rank=3)
        case.check(build(case))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    case = images(1, opset=20)
    case.check(case.node("Gelu", "x", approximate=approximate))


def test_softmax_over_several_dimensions() -> None:
    """Before opset 13 from the axis on."""
    case = images(2, opset=11)
    case.check(case.node("Softmax", case.node("Transpose", "x", perm=[0, 2, 3, 1]), axis=2))


@pytest.mark.parametrize("build", [conv_transpose, instance_normalization])
def test_more_in_one_dimension(build: Callable[[Case], str]) -> None:
    for seed in range(16):
        case = images(seed, rank=1)
        case.check(build(case))


@pytest.mark.parametrize("rank", [1, 2])
def test_transposed_convolution_that_makes_blocks(rank: int) -> None:
    """Kernel and stride are equal: windows lie side by side. One filter, several, with a bias or an activation."""
    for seed in range(6):
        case = images(seed, rank=rank)
        kernel = [int(case.rng.integers(1, 5)) for _ in range(rank)]
        operands = ["x", case.random(case.shape[1], int(case.rng.integers(1, 4)), *kernel)]
        operands += [case.random(int(case.constants[-1].dims[1]))] if seed % 2 else []
        stretched = case.node("ConvTranspose", *operands, strides=kernel)
        case.check(case.node(("Relu", "Tanh", "Identity")[seed % 3], stretched))


def test_swish() -> None:
    case = images(3, opset=24)
    case.check(case.node("Swish", "x", alpha=0.5))
