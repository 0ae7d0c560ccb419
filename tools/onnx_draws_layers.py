"""Further random nodes for `onnx_graphs.py`: layers with weights or windows, lookups, scattering, control flow."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx_draws import DRAWS, Draw, parameters
from onnx_graphs import Array, Rejected, Step

MAX_MACS = 30_000
"""Of a layer, so that emulation stays short."""
WIDE_MACS = 400_000
"""The same for graphs with many channels."""

# Windows


def window(d: Draw, size: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
    """Strides, dilations and pads."""
    rank = len(kernel)
    found: dict[str, Any] = {}
    if d.chance(0.5):
        found["strides"] = [d.of([1, 2, 2, 3]) for _ in range(rank)]
    if d.chance(0.25):
        found["dilations"] = [d.of([1, 2]) for _ in range(rank)]
    if d.chance(0.3):
        found["auto_pad"] = d.of(["SAME_UPPER", "SAME_LOWER", "VALID"])
        if found["auto_pad"] != "VALID":
            found.pop("dilations", None)  # which onnxruntime's pools forget there
    elif d.chance(0.6):
        found["pads"] = [d.number(0, max(0, k - 1)) for k in (*kernel, *kernel)]
    return found


def kernel_of(d: Draw, size: Sequence[int]) -> list[int]:
    return [d.number(1, min(n + 1, 4)) for n in size]


def conv(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 3, 4, 4, 4, 5)
    shape = d.shape(name)
    channels, size = shape[1], shape[2:]
    groups = d.of([g for g in range(1, channels + 1) if channels % g == 0] + [1, 1, channels])
    filters = groups * d.number(1, max(1, 24 // groups) if d.wide else 4)
    kernel = kernel_of(d, size)
    transposed = op == "ConvTranspose"
    dims = (channels, filters // groups, *kernel) if transposed else (filters, channels // groups, *kernel)
    if prod(dims) * prod(size) > (WIDE_MACS if d.wide else MAX_MACS):
        raise Rejected("too large")
    names = [name, *parameters(d, step, dims, 1)]
    if d.chance(0.6):
        names += parameters(d, step, (filters,), 1)
    more = window(d, size, kernel)
    if transposed and any(a > b for a, b in zip(more.get("strides", [1]), kernel, strict=False)):
        more.pop("auto_pad", None)  # onnxruntime's output is smaller than onnx says
    if transposed and d.chance(0.3):
        more["output_padding"] = [d.number(0, 1) for _ in kernel]
    return d.made(op, names, step, group=groups, kernel_shape=d.of([kernel, None]), **more)


def pool(d: Draw, op: str) -> Step:
    name = d.tensor("f", 3, 4, 4, 4, 5)
    size = d.shape(name)[2:]
    kernel = kernel_of(d, size)
    more = window(d, size, kernel)
    if not d.has(op, "dilations"):
        more.pop("dilations", None)
    if d.has(op, "ceil_mode") and d.chance(0.4):
        more["ceil_mode"] = 1
    if op == "AveragePool" and d.chance(0.5):
        more["count_include_pad"] = 1
    if op == "LpPool":
        more["p"] = d.of([1, 2, 3])
    return d.made(op, [name], {}, kernel_shape=kernel, **more)


def global_pool(d: Draw, op: str) -> Step:
    more = {"p": d.of([1, 2, 3])} if op == "GlobalLpPool" else {}
    return d.made(op, [d.tensor("f", 3, 4, 5)], {}, **more)


def resize(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 2, 3, 4, 4, 4)
    shape = d.shape(name)
    scales = [1.0 if i < 2 and len(shape) > 2 else d.of([1.0, 2.0, 3.0, 1.5, 0.5]) for i in range(len(shape))]
    mode = d.of(["nearest", "nearest", "linear"])
    if op == "Upsample" and d.opset < 9:
        return d.made(op, [name], {}, mode=mode, scales=scales)
    given = d.constant(step, np.array(scales, np.float32))
    if op == "Upsample" or d.opset < 11:
        return d.made(op, [name, given], step, mode=mode)
    mode = d.of([mode, mode, "cubic"])
    coordinates = d.of(["half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners", None])
    rounding = d.of(["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"]) if mode == "nearest" else None
    inputs = [name, "", given]
    if d.chance(0.4):
        inputs = [name, "", "", d.integers(step, [max(1, int(n * s)) for n, s in zip(shape, scales, strict=True)])]
        del step[given]
    if d.opset < 13:
        inputs[1] = d.constant(step, np.zeros(0, np.float32))
        if len(inputs) > 3:
            inputs[2] = d.constant(step, np.zeros(0, np.float32))
    return d.made(op, inputs, step, mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=rounding)


# Products


def matmul(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor("f", 1, 2, 3, 4, 5)
    shape = list(d.shape(first))
    if d.chance(0.35):
        floats = [(n, list(v.shape)) for n, v in d.values.items() if v.dtype.kind == "f"]
        fitting = [n for n, own in floats if own and own[-2:][0] == shape[-1]]
        return d.made(op, [first, d.of(fitting)], {})
    n = d.number(1, 40 if d.wide else 8)
    if d.chance(0.7):
        lead = d.like(shape[:-2]) if len(shape) > 2 and d.chance(0.3) else ()
        weights = (*lead, shape[-1], n) if d.chance(0.9) else (shape[-1],)
        return d.made(op, [first, *parameters(d, step, weights, 1)], step)
    rows = shape[-2] if len(shape) > 1 else shape[-1]
    return d.made(op, [*parameters(d, step, (n, rows), 1), first], step)


def gemm(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor("f", 2)
    flip = [d.of([0, 1]), d.of([0, 1])]
    m, k = d.shape(first)[:: -1 if flip[0] else 1]
    n = d.number(1, 40 if d.wide else 6)
    names = [first]
    computed = [x for x, v in d.values.items() if v.dtype.kind == "f" and v.ndim == 2 and v.shape[flip[1]] == k]
    if computed and d.chance(0.4):
        names.append(d.of(computed))
        n = d.shape(names[1])[1 - flip[1]]
    else:
        names += parameters(d, step, (n, k) if flip[1] else (k, n), 1)
    if d.chance(0.7) or d.opset < 11:
        names += parameters(d, step, d.of([(n,), (1, n), (m, n), (m, 1), (), (1,)]), 1)
    factors = {name: d.of([None, 0.5, 2.0]) for name in ("alpha", "beta")}
    return d.made(op, names, step, transA=flip[0] or None, transB=flip[1] or None, **factors)


def einsum(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor("f", 1, 2, 3, 4)
    shape = d.shape(first)
    letters = "abcdefg"[: len(shape)]
    if d.chance(0.3):
        kept = [c for c in letters if d.chance(0.7)]
        return d.made(op, [first], {}, equation=f"{letters}->{''.join(d.rng.permutation(kept)) if kept else ''}")
    own = [c for c in letters if d.chance(0.6)]
    own += ["x"] if d.chance(0.5) else []
    own = [str(c) for c in d.rng.permutation(own)] if own else []
    extents = dict(zip(letters, shape, strict=True)) | {"x": d.number(1, 4)}
    other = d.constant(step, d.floats(*[extents[c] for c in own]))
    result = [str(c) for c in d.rng.permutation(sorted({*letters, *own})) if d.chance(0.6)]
    return d.made(op, [first, other], step, equation=f"{letters},{''.join(own)}->{''.join(result)}")


def recurrent(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 3)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    direction = d.of([None, "forward", "reverse", "bidirectional"])
    count, units = (2 if direction == "bidirectional" else 1), d.number(1, 5)
    layout = 1 if d.opset >= 14 and d.chance(0.1) else None
    steps, batch, features = d.shape(name)
    names = [name]
    names += parameters(d, step, (count, gates * units, features), 1)
    names += parameters(d, step, (count, gates * units, units), 1)
    for key in list(step):
        step[key] *= np.float32(0.4)
    names += parameters(d, step, (count, 2 * gates * units), 1) if d.chance(0.7) else [""]
    lengths = [d.number(1, steps) for _ in range(batch)]
    names.append(d.constant(step, np.array(lengths, np.int32)) if d.chance(0.2) else "")
    names += parameters(d, step, (count, batch, units), 1) if d.chance(0.4) else [""]
    if op == "LSTM":
        names += parameters(d, step, (count, batch, units), 1) if d.chance(0.4) else [""]
        names += parameters(d, step, (count, 3 * units), 1) if d.chance(0.3) else [""]
    more: dict[str, Any] = {"direction": direction, "hidden_size": units, "layout": layout}
    if op == "GRU":
        more["linear_before_reset"] = d.of([0, 1, None])
    if d.chance(0.3):
        size = {"LSTM": 3, "GRU": 2, "RNN": 1}[op]
        more["activations"] = [d.of(["Sigmoid", "Tanh", "Relu", "HardSigmoid"]) for _ in range(size * count)]
    return d.made(op, names, step, 3 if op == "LSTM" else 2, **more)


# Lookups


def indices(d: Draw, extent: int, shape: Sequence[int]) -> Array:
    low = -extent if d.opset >= 11 and d.chance(0.3) else 0
    return np.asarray(d.rng.integers(low, extent, shape), np.int64)


def gather(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    if d.chance(0.15):
        return d.made(op, [name, d.tensor("i")], {}, axis=axis)
    shape = [d.number(1, 4) for _ in range(d.of([0, 1, 1, 2]))]
    return d.made(op, [name, d.constant(step, indices(d, d.shape(name)[axis], shape))], step, axis=axis)


def gather_elements(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    shape = [d.number(1, n) for n in d.shape(name)]
    shape[axis] = d.number(1, 5)
    return d.made(op, [name, d.constant(step, indices(d, d.shape(name)[axis], shape))], step, axis=axis)


def gather_nd(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 1, 2, 3, 4)
    depth = d.number(1, len(d.shape(name)))
    shape = [d.number(1, 4) for _ in range(d.number(0, 2))]
    columns = [indices(d, n, shape) for n in d.shape(name)[:depth]]
    return d.made(op, [name, d.constant(step, np.stack(columns, -1))], step)


def scatter(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    shape = [d.number(1, n) for n in d.shape(name)]
    reduction = d.of([None, "add", "mul", *(["max", "min"] if d.opset >= 18 else [])]) if d.opset >= 16 else None
    found = indices(d, d.shape(name)[axis], shape)
    if reduction is None:  # every place once: else runtimes may do as they like
        places = shape.copy()
        places[axis] = d.shape(name)[axis]
        found = np.take(np.argsort(d.rng.random(places), axis), range(shape[axis]), axis).astype(np.int64)
    updates = d.constant(step, d.floats(*shape))
    return d.made(op, [name, d.constant(step, found), updates], step, axis=axis, reduction=reduction)


def scatter_nd(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 1, 2, 3, 4)
    shape = d.shape(name)
    depth = d.number(1, len(shape))
    count = d.number(1, min(4, prod(shape[:depth])))
    places = d.rng.permutation(prod(shape[:depth]))[:count]
    found = np.stack(np.unravel_index(places, shape[:depth]), -1).astype(np.int64)
    updates = d.constant(step, d.floats(count, *shape[depth:]))
    reduction = d.of([None, "add", "mul"]) if d.opset >= 16 else None
    return d.made(op, [name, d.constant(step, found), updates], step, reduction=reduction)


def one_hot(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    depth = d.constant(step, np.array(d.number(1, 4), np.int64))
    values = d.constant(step, d.floats(2))
    shape = d.shape(d.tensor("i"))
    return d.made(op, [d.tensor("i"), depth, values], step, axis=d.of([None, d.number(-1, len(shape))]))


def compress(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.of([None, d.axis(d.shape(name))])
    count = prod(d.shape(name)) if axis is None else d.shape(name)[axis]
    return d.made(op, [name, d.constant(step, d.rng.random(count) < 0.5)], step, axis=axis)


def reverse_sequence(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 2, 3, 4)
    time = d.of([0, 1])
    shape = d.shape(name)
    lengths = d.rng.integers(1, shape[time] + 1, shape[1 - time])
    return d.made(op, [name, d.constant(step, lengths.astype(np.int64))], step, time_axis=time, batch_axis=1 - time)


# Control flow


def loop(d: Draw, op: str) -> Step:
    """A few iterations of arithmetic on a state, whose values are stacked."""
    step: dict[str, Array] = {}
    state = d.tensor()
    shape = d.shape(state)
    other = d.operand(shape, step)
    if d.operand and np.broadcast_shapes(shape, (step.get(other, d.values.get(other))).shape) != shape:  # pyright: ignore
        raise Rejected("the state changes its shape")
    trips = d.constant(step, np.array(d.number(1, 3), np.int64))
    condition = d.constant(step, np.array(True))
    nodes = [
        helper.make_node("Identity", ["go"], ["goes"]),
        helper.make_node(d.of(["Add", "Mul", "Sub", "Max"] if d.opset >= 8 else ["Add", "Mul"]), ["s", other], ["u"]),
        helper.make_node(d.of(["Tanh", "Relu", "Sigmoid"]), ["u"], ["v"]),
    ]
    float_info = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        "body",
        [
            float_info("i", TensorProto.INT64, ()),
            float_info("go", TensorProto.BOOL, ()),
            float_info("s", TensorProto.FLOAT, shape),
        ],
        [
            float_info("goes", TensorProto.BOOL, ()),
            float_info("v", TensorProto.FLOAT, shape),
            float_info("u", TensorProto.FLOAT, shape),
        ],
    )
    return d.made(op, [trips, condition, state], step, 2, body=body)


def scan(d: Draw, op: str) -> Step:
    """A running sum, or the like, over slices along an axis."""
    if d.opset < 9:
        raise Rejected("with a batch")
    step: dict[str, Array] = {}
    name = d.tensor("f", 1, 2, 3)
    shape = d.shape(name)
    axis = d.number(0, len(shape) - 1)
    part = [n for i, n in enumerate(shape) if i != axis]
    start = d.constant(step, d.floats(*part))
    float_info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node(d.of(["Add", "Sub", "Max"]), ["s", "x"], ["u"]), helper.make_node("Tanh", ["u"], ["v"])],
        "body",
        [float_info("s", TensorProto.FLOAT, part), float_info("x", TensorProto.FLOAT, part)],
        [float_info("u", TensorProto.FLOAT, part), float_info("v", TensorProto.FLOAT, part)],
    )
    more = {
        "scan_input_axes": [axis],
        "scan_input_directions": d.of([[0], [1], None]),
        "scan_output_axes": d.of([[0], [d.number(0, len(part))], None]),
        "scan_output_directions": d.of([[0], [1], None]),
    }
    return d.made(op, [start, name], step, 2, body=body, num_scan_inputs=1, **more)


def if_(d: Draw, op: str) -> Step:
    """A constant condition and two ways to compute something of a tensor of the graph around."""
    step: dict[str, Array] = {}
    name = d.tensor()
    condition = d.constant(step, np.array(d.chance(0.5)))
    branches = {}
    for branch in ("then_branch", "else_branch"):
        value = numpy_helper.from_array(d.floats(), f"{branch}_c")
        nodes = [helper.make_node(d.of(["Add", "Mul"]), [name, f"{branch}_c"], [f"{branch}_y"])]
        info = helper.make_tensor_value_info(f"{branch}_y", TensorProto.FLOAT, d.shape(name))
        branches[branch] = helper.make_graph(nodes, branch, [], [info], [value])
    return d.made(op, [condition], step, **branches)


DRAWS.update(
    {
        **dict.fromkeys(("AveragePool", "MaxPool"), (pool, 3)),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), (global_pool, 0.8)),
        **dict.fromkeys(("GRU", "LSTM", "RNN"), (recurrent, 1)),
        **dict.fromkeys(("Resize", "Upsample"), (resize, 1.5)),
        **dict.fromkeys(("Scatter", "ScatterElements"), (scatter, 0.6)),
        "Compress": (compress, 0.6),
        "Conv": (conv, 8),
        "ConvTranspose": (conv, 2),
        "Einsum": (einsum, 1),
        "Gather": (gather, 1.5),
        "GatherElements": (gather_elements, 0.6),
        "GatherND": (gather_nd, 0.6),
        "Gemm": (gemm, 3),
        "If": (if_, 0.4),
        "Loop": (loop, 0.5),
        "LpPool": (pool, 0.6),
        "MatMul": (matmul, 4),
        "OneHot": (one_hot, 0.5),
        "ReverseSequence": (reverse_sequence, 0.5),
        "Scan": (scan, 0.5),
        "ScatterND": (scatter_nd, 0.6),
    }
)

NOT_DRAWN = frozenset(
    {
        *("AffineGrid", "Col2Im", "CumProd", "Det", "DFT", "EyeLike", "GridSample", "MaxUnpool", "Mod", "STFT"),
        *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("FlexAttention", "SequenceInsert", "SequenceLength", "SplitToSequence", "TensorScatter"),
    }
)
"""Operators of which only the cases of onnx's own suite run."""
