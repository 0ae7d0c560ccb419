"""Operators that are made of others when importing: places in images, spectra, sequences, arithmetic on integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import test_frontend_operators as plain
from onnx import TensorProto, helper
from test_frontend_operators import Case, images

from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.frontend.importer_control_flow import HANDLERS as CONTROL_FLOW
from ml4f.frontend.importer_ops import HANDLERS
from ml4f.frontend.importer_recurrent import HANDLERS as RECURRENT
from ml4f.onnx_backend import run_node

FLOAT = {"to": TensorProto.FLOAT}


def grid_sample(c: Case) -> str:
    """At constant places, or at some that the input says; some are outside."""
    rows, columns = 3, 4
    constant = c.constant(c.rng.uniform(-1.7, 1.7, (1, rows, columns, 2)), np.float32)
    count = c.constant([1, rows, columns, 2])
    flat = c.node("Reshape", "x", c.constant([-1]))
    wrapped = c.node("Gather", flat, c.constant(np.arange(rows * columns * 2) % int(np.prod(c.shape))))
    computed = c.node("Reshape", wrapped, count)
    return c.node(
        "GridSample",
        "x",
        c.draw(constant, computed),
        mode=c.draw("bilinear", "bicubic", "nearest"),
        padding_mode=c.draw("zeros", "border", "reflection"),
        align_corners=c.draw(0, 1),
    )


def spatial_transformer(c: Case) -> str:
    weights, bias = c.random(int(np.prod(c.shape)), 6), c.constant([1, 0, 0, 0, 1, 0], np.float32)
    small = c.node("Mul", c.node("MatMul", c.node("Flatten", "x"), weights), c.constant(0.01, np.float32))
    theta = c.node("Reshape", c.node("Add", small, bias), c.constant([1, 2, 3]))
    size = c.constant([1, 1, c.draw(1, 2, 5), 3])
    return c.node("AffineGrid", theta, size, align_corners=0)


def dft(c: Case) -> str:
    """Real or complex, of some length, one-sided or not, there and back."""
    extents = c.shape[1:]
    parts = c.draw(1, 2) if int(np.prod(extents)) % 2 == 0 else 1
    rows = int(np.prod(extents)) // parts
    signal = c.node("Reshape", "x", c.constant([1, rows, parts]))
    inverse = c.draw(0, 1) if parts == 2 else 0
    onesided = c.draw(0, 1) if parts == 1 else 0
    length = c.draw("", c.constant(rows + 3), c.constant(max(rows - 2, 1)))
    return c.node("DFT", signal, length, c.constant(1), inverse=inverse, onesided=onesided)


def stft(c: Case) -> str:
    flat = c.node("Reshape", "x", c.constant([1, -1, 1]))
    length = min(8, int(np.prod(c.shape)))
    window = c.draw("", c.positive(length))
    return c.node("STFT", flat, c.constant(c.draw(1, 3)), window, c.constant(length), onesided=c.draw(0, 1))


def pool_with_indices(c: Case) -> str:
    kernel = [int(c.rng.integers(1, 4)) for _ in c.shape[2:]]
    attributes = plain.window(c, kernel)
    attributes["dilations"] = [1] * len(kernel)
    x = c.node("Round", c.node("Mul", "x", c.constant(2, np.float32)))  # some elements are equal
    values = c.node("MaxPool", x, kernel_shape=kernel, outputs=2, **attributes)
    return c.node("Add", values, c.node("Cast", c.nodes[-1].output[1], **FLOAT))


def column_to_image(c: Case) -> str:
    block, image = [c.draw(1, 2), c.draw(1, 3)], [5, 7]
    strides, dilations, pads = [c.draw(1, 2), 1], [1, c.draw(1, 2)], [c.draw(0, 1), 0, c.draw(0, 1), 1]
    room = [image[i] + pads[i] + pads[i + 2] - (block[i] - 1) * dilations[i] - 1 for i in (0, 1)]
    columns = int(np.prod([room[i] // strides[i] + 1 for i in (0, 1)]))
    rows = 2 * block[0] * block[1]
    flat = c.node("Reshape", "x", c.constant([-1]))
    numbers = c.constant(np.arange(rows * columns) % int(np.prod(c.shape)))
    source = c.node("Reshape", c.node("Gather", flat, numbers), c.constant([1, rows, columns]))
    options = {"strides": strides, "dilations": dilations, "pads": pads}
    return c.node("Col2Im", source, c.constant(image), c.constant(block), **options)


def max_unpool(c: Case) -> str:
    shape = (*c.shape[:2], 2 * c.shape[2], 2 * c.shape[3])
    numbers = np.arange(int(np.prod(shape))).reshape(shape)[:, :, ::2, 1::2]
    return c.node("MaxUnpool", "x", c.constant(numbers), kernel_shape=[2, 2], strides=[2, 2])


def determinant(c: Case) -> str:
    size = c.draw(1, 2, 3, 4)
    flat = c.node("Reshape", "x", c.constant([-1]))
    numbers = c.constant(np.arange(2 * size * size) % int(np.prod(c.shape)))
    return c.node("Det", c.node("Reshape", c.node("Gather", flat, numbers), c.constant([2, size, size])))


def modulo(c: Case) -> str:
    by = c.draw(c.constant(c.draw(0.7, -0.7, 3), np.float32), c.node("Add", "x", c.constant(4, np.float32)))
    return c.node("Mod", "x", by, fmod=1)


def of_sequences(c: Case) -> str:
    """Split, read, put together again in another order."""
    parts = c.node("SplitToSequence", "x", *c.draw([], [c.constant(2)]), axis=3)
    first = c.node("SequenceAt", parts, c.constant(0))
    longer = c.node("SequenceInsert", c.node("SequenceErase", parts, c.constant(0)), first)
    joined = c.node("ConcatFromSequence", longer, axis=3)
    count = c.node("Cast", c.node("SequenceLength", longer), **FLOAT)
    twice = c.node("SequenceConstruct", joined, c.node("Mul", joined, count))
    return c.node("ConcatFromSequence", twice, axis=c.draw(0, 1, -1), new_axis=1)


def of_bounded_integers(c: Case) -> str:
    """Counts of masks, and rows and columns of the largest element."""
    positive = c.node("Cast", c.node("Greater", "x", c.constant(0, np.float32)), to=TensorProto.INT64)
    count = c.node("ReduceSum", positive, c.constant([1]), keepdims=1)
    flat = c.node("Reshape", "x", c.constant([1, c.shape[1], -1]))
    place = c.node("ArgMax", flat, axis=2, keepdims=1)
    width = c.constant([c.shape[3]])
    row, column = c.node("Div", place, width), c.node("Mod", place, width)
    number = c.node("Sub", c.node("Add", c.node("Mul", row, c.constant([100])), column), c.constant([7]))
    whole = c.node("Reshape", c.node("ReduceSum", number, keepdims=0), c.constant([1, 1, 1, 1]))
    return c.node("Cast", c.node("Add", count, whole), **FLOAT)


def computed_elements(c: Case) -> str:
    """GatherElements at numbers that the input says."""
    numbers = c.node("Sub", c.node("ArgMax", "x", axis=2, keepdims=1), c.constant([c.draw(0, c.shape[2])]))
    return c.node("GatherElements", "x", numbers, axis=2)


def einsum(c: Case) -> str:
    square = c.node("MatMul", "x", c.node("Transpose", "x", perm=[0, 1, 3, 2]))
    third = c.random(c.shape[3], 4)
    return c.draw(
        lambda: c.node("Einsum", square, equation="...ii->...i"),
        lambda: c.node("Einsum", square, equation="bcii->bc"),
        lambda: c.node("Einsum", "x", third, equation="...k,kj->...j"),
        lambda: c.node("Einsum", "x", "x", third, equation="bcij,bckj,jm->bikm"),
        lambda: c.node("Einsum", "x", third, equation="...k,kj"),
    )()


def cumulative_product(c: Case) -> str:
    return c.node("CumProd", "x", c.constant(c.draw(1, 2, 3)), exclusive=c.draw(0, 1), reverse=c.draw(0, 1))


def eye_like(c: Case) -> str:
    matrix = c.node("Reshape", "x", c.constant([c.shape[1], -1]))
    return c.node("Mul", matrix, c.node("EyeLike", matrix, k=c.draw(-1, 0, 2), dtype=TensorProto.FLOAT))


CASES: list[tuple[str, Callable[[Case], str], int]] = [
    ("AffineGrid", spatial_transformer, 20),
    ("Col2Im", column_to_image, 18),
    ("DFT", dft, 20),
    ("Det", determinant, 18),
    ("Einsum", einsum, 18),
    ("EyeLike", eye_like, 18),
    ("GatherElements", computed_elements, 18),
    ("GridSample", grid_sample, 18),
    ("MaxPool", pool_with_indices, 18),
    ("MaxUnpool", max_unpool, 18),
    ("Mod", modulo, 18),
    ("Mod", of_bounded_integers, 18),
    ("SequenceAt", of_sequences, 18),
    ("STFT", stft, 18),
]
ELSEWHERE = {"CumProd", "FlexAttention", "Gelu", "Scatter", "SequenceEmpty", "Swish", "TensorScatter"}
SEQUENCES = {"ConcatFromSequence", "SequenceConstruct", "SequenceErase", "SequenceInsert", "SequenceLength"}


SPECTRA = 1e-4
"""Tolerance: onnxruntime's transforms of lengths that are no powers of 2 lose digits."""


@pytest.mark.parametrize(("name", "build", "opset"), CASES, ids=[build.__name__ for _, build, _ in CASES])
def test_composed_operators(name: str, build: Callable[[Case], str], opset: int) -> None:
    for seed in range(12):
        case = images(seed, opset=opset)
        case.check(build(case), SPECTRA if name in ("DFT", "STFT") else plain.TOLERANCE)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_dimensions(rank: int) -> None:
    for seed in range(8):
        case = images(seed, rank=rank)
        case.check(pool_with_indices(case) if rank == 1 else plain.conv_transpose(case))


def test_cumulative_product() -> None:
    """In numpy: onnxruntime does not have it yet."""
    x = np.random.default_rng(1).standard_normal((2, 7)).astype(np.float32)
    for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
        node = helper.make_node("CumProd", ["x", "axis"], ["y"], exclusive=exclusive, reverse=reverse)
        (found,) = run_node(node, [x, np.array(1)])
        ordered = x[:, ::-1] if reverse else x
        wanted = np.cumprod(ordered, axis=1)
        wanted = np.concatenate([np.ones((2, 1)), wanted[:, :-1]], axis=1) if exclusive else wanted
        np.testing.assert_allclose(found, wanted[:, ::-1] if reverse else wanted, rtol=1e-5, atol=1e-6)


def test_remainders_near_multiples_in_machine_code() -> None:
    """Where the quotient is rounded to the next whole number, the rest is nearly the divisor and not zero."""
    x = np.float32([2.1, 0.7, 1.4, -2.1, 2.8, 4.9, 100.1, -0.1, 0.0, 1e-20])
    for divisor in (0.7, -0.7, 0.1):
        y = np.full_like(x, divisor)
        (found,) = run_node(helper.make_node("Mod", ["x", "y"], ["z"], fmod=1), {"x": x, "y": y})
        np.testing.assert_allclose(found, np.fmod(x, y), rtol=1e-6, atol=1e-9)


def test_integers_without_a_bound_are_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"], name="product")],
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 3])],
    )
    loaded = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    with pytest.raises(UnsupportedError, match="it computes with integers"):
        import_onnx(loaded.proto, "integers")


def test_every_operator_has_a_case() -> None:
    tested = {name for name, *_ in (*plain.CASES, *CASES)} | ELSEWHERE | SEQUENCES | {"SplitToSequence"}
    assert tested | set(RECURRENT) | set(CONTROL_FLOW) == set(HANDLERS)
