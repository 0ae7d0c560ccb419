"""Slices that cost no copy: addresses through random copies, and networks that split, as machine code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.backend.loop import kernels
from ml4f.backend.loop.forwarding import copy_of, read_through
from ml4f.compiler import Compilation, Options, compile_proto


def test_addresses_through_a_copy_are_those_of_what_it_copied() -> None:
    through = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rows, columns, step, first = (int(n) for n in rng.integers(1, 7, 4))
        stride = columns * step + int(rng.integers(0, 5))
        copying = kernels.elementwise([rows, columns], [stride, step], x_offset=first)
        copy = copy_of(copying)
        assert copy is not None
        copied = np.arange(rows)[:, None] * stride + np.arange(columns) * step + first
        taps = int(rng.integers(1, columns + 1))
        out = [rows, columns - taps + 1]
        reader = kernels.pool2d("max", [rows, columns, 1], [1, taps], [*out, 1], [1, 1], [1, 1], [0] * 4)
        moved = read_through(copy, reader, "x")
        if moved is None:
            continue
        through += 1
        dims = list(reader.extents)
        for point in np.ndindex(*reader.extents.values()):
            values = dict(zip(dims, point, strict=True))
            old, new = (nest.by_role["x"].map(values) for nest in (reader, moved))
            assert copied.ravel()[old] == new
    assert through > 200


def test_transpositions_and_functions_are_no_slices() -> None:
    assert copy_of(kernels.elementwise([3, 4], [1, 3])) is None
    assert copy_of(kernels.elementwise([3, 4], [4, 1], [("other", [4, 1])])) is None
    assert copy_of(kernels.elementwise([3, 4], [8, 1], out_offset=2)) is None


def compiled(nodes: Sequence[onnx.NodeProto], shape: Sequence[int], constants: dict[str, np.ndarray]) -> Compilation:
    """Validated, every pass included."""
    graph = helper.make_graph(
        nodes,
        "splits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return compile_proto(proto, "splits", Options(check_passes=True))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32) * np.float32(0.3)


@pytest.mark.parametrize("kind", ["channels", "rows", "gates"])
def test_a_split_costs_no_copy(kind: str) -> None:
    parts = ["a", "b"] if kind == "channels" else ["a", "b", "c"]
    split = helper.make_node("Split", ["h", "sizes"], parts, "split", axis=1)
    if kind == "channels":  # convolutions of halves
        nodes = [
            helper.make_node("Conv", ["x", "k"], ["h"], "conv", pads=[1, 1, 1, 1]),
            split,
            helper.make_node("Conv", ["a", "u"], ["p"], "first", pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["b", "v"], ["q"], "second", pads=[1, 1, 1, 1]),
            helper.make_node("Concat", ["p", "q"], ["y"], "concat", axis=1),
        ]
        constants = {"k": random(8, 3, 3, 3), "u": random(5, 4, 3, 3), "v": random(4, 4, 3, 3)}
        made = compiled(nodes, [1, 3, 6, 5], {**constants, "sizes": np.array([4, 4])})
    elif kind == "rows":  # stretches of a sequence
        nodes = [
            helper.make_node("Relu", ["x"], ["h"], "relu"),
            split,
            helper.make_node("MatMul", ["a", "w"], ["p"], "first"),
            helper.make_node("MatMul", ["b", "w"], ["q"], "second"),
            helper.make_node("Add", ["p", "q"], ["z"], "sum"),
            helper.make_node("Softmax", ["c"], ["e"], "softmax", axis=-1),
            helper.make_node("Sub", ["e", "z"], ["y"], "difference"),
        ]
        made = compiled(nodes, [1, 6, 8], {"w": random(8, 8), "sizes": np.array([2, 2, 2])})
    else:
        nodes = [
            helper.make_node("Gemm", ["x", "w"], ["h"], "dense"),
            split,
            helper.make_node("Sigmoid", ["a"], ["i"], "gate"),
            helper.make_node("Mul", ["i", "b"], ["j"], "product"),
            helper.make_node("Add", ["c", "j"], ["k"], "sum"),
            helper.make_node("Sub", ["k", "a"], ["y"], "difference"),
        ]
        made = compiled(nodes, [1, 6], {"w": random(6, 12), "sizes": np.array([4, 4, 4])})
    assert not any(layer.name == "split" for layer in made.stats.layers)
