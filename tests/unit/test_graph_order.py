"""The order of a graph's steps: against all orders of small graphs, and what it saves of a real arena."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ml4f
from ml4f.backend.memory.ordering import Step, thriftiest_order
from ml4f.reference import Reference


def may_follow(order: Sequence[int], steps: Sequence[Step]) -> bool:
    """Whether every pair of steps that touch the same buffer, one of them writing, is in the order given."""
    place = {n: i for i, n in enumerate(order)}
    return all(
        place[i] < place[j]
        for j, later in enumerate(steps)
        for i, earlier in enumerate(steps[:j])
        if earlier.writes & (later.reads | later.writes) or earlier.reads & later.writes
    )


def words(
    order: Sequence[int], steps: Sequence[Step], sizes: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> int:
    """By the first and last use of each buffer."""
    spans: dict[int, tuple[int, int]] = dict.fromkeys(inputs, (-1, -1))
    for time, number in enumerate(order):
        for buffer in steps[number].reads | steps[number].writes:
            spans[buffer] = (spans.get(buffer, (time, time))[0], time)
    spans.update({b: (spans[b][0], len(order)) for b in outputs if b in spans})
    spans = {b: span for b, span in spans.items() if b not in inputs or span[1] >= 0}
    return max(
        sum(sizes[b] for b, (first, last) in spans.items() if first <= time <= last) for time in range(len(order))
    )


def random_graphs(count: int) -> Iterator[tuple[list[Step], list[int]]]:
    """Step i writes buffer i + 1 and reads some earlier ones; some also write into the buffer of an earlier step."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        steps: list[Step] = []
        for i in range(int(rng.integers(2, 7))):
            reads = {int(b) for b in rng.integers(0, i + 1, rng.integers(1, 3))}
            writes = {i + 1} | ({int(rng.integers(1, i + 1))} if i and rng.random() < 0.15 else set())
            steps.append(Step(frozenset(reads), frozenset(writes)))
        yield steps, [int(n) for n in rng.integers(1, 100, len(steps) + 1)]


@pytest.mark.parametrize("keep", [False, True])
def test_no_order_needs_fewer_words(keep: bool) -> None:
    improved = 0
    for steps, sizes in random_graphs(120):
        outputs = [len(steps)] + ([1] if keep else [])
        given, found = thriftiest_order(steps, sizes, [0], outputs)
        orders = [o for o in permutations(range(len(steps))) if may_follow(o, steps)]
        assert given.words == words(range(len(steps)), steps, sizes, [0], outputs)
        assert found.steps in orders
        assert found.words == words(found.steps, steps, sizes, [0], outputs)
        assert found.words == min(words(o, steps, sizes, [0], outputs) for o in orders)
        improved += found.words < given.words
    assert improved > 10


def test_the_given_order_stays_where_none_is_better() -> None:
    steps = [Step(frozenset({0}), frozenset({n})) for n in (1, 2, 3)]
    given, found = thriftiest_order(steps, [4, 5, 5, 5], [0], [1, 2, 3])
    assert found == given and found.steps == (0, 1, 2)


def branches(depth_first: bool) -> onnx.ModelProto:
    """Three branches that are wide inside and narrow at their end, by branch or, as PyTorch writes them, by depth."""
    rng = np.random.default_rng(8)
    wide, narrow, weights = [], [], []
    for i in range(3):
        for name, shape in ((f"a{i}", (16, 2, 3, 3)), (f"b{i}", (2, 16, 3, 3))):
            weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 4, name))
        wide.append(helper.make_node("Conv", ["x", f"a{i}"], [f"h{i}"], pads=[1] * 4, name=f"wide{i}"))
        narrow.append(helper.make_node("Conv", [f"h{i}", f"b{i}"], [f"o{i}"], strides=[2, 2], name=f"narrow{i}"))
    pairs = zip(wide, narrow, strict=True)
    nodes = [node for pair in pairs for node in pair] if depth_first else [*wide, *narrow]
    nodes.append(helper.make_node("Concat", ["o0", "o1", "o2"], ["y"], axis=1))
    entries = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 7, 7])]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 3, 3])
    graph = helper.make_graph(nodes, "branches", entries, [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_branches_are_computed_one_after_the_other() -> None:
    by_depth, by_branch = (ml4f.compile(branches(depth_first)) for depth_first in (False, True))
    assert by_depth.stats.arena_bytes <= 1.05 * by_branch.stats.arena_bytes
    assert by_depth.stats.arena_bytes < 2 * 4 * 16 * 7 * 7  # of the three wide tensors no two are kept together
    x = np.random.default_rng(9).standard_normal((1, 2, 7, 7)).astype(np.float32)
    expected = Reference(branches(False)).run([x])["y"]
    np.testing.assert_allclose(np.ravel(by_depth.predict(x)), expected.ravel(), rtol=1e-4, atol=1e-5)
