"""convert-nn-to-loop: every nn op becomes one or more kernels in nest form, every tensor a buffer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from ml4f.backend.loop import kernels
from ml4f.backend.loop.fusion import CHEAP_ACTIVATIONS
from ml4f.backend.loop.kernels import row_major
from ml4f.backend.loop.nest import Combine, Guard, Linear, Nest, Step
from ml4f.dialects.loop.attributes import NestAttr, PointerType
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, KernelOp, NestOp, ProgramOp
from ml4f.dialects.nn import ActAttr, layer_names
from ml4f.errors import InternalError
from ml4f.passes.nn_rewriting import const_array

TILED_OPS = frozenset(
    {"nn.conv2d", "nn.conv3d", "nn.depthwise_conv2d", "nn.dense", "nn.matmul", "nn.max_pool2d", "nn.avg_pool2d"}
)
"""Ops whose kernels keep a whole tile of accumulators in registers, and so have few to spare for a costly
activation.
"""

FREE_OPS = frozenset({"nn.const", "nn.reshape"})
"""Ops without a kernel."""

NON_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "exp", "abs", "square", "sqrt"})
"""Functions whose result is never negative (nor the negative zero that a bit comparison would misorder)."""


def shape_of(value: SSAValue) -> tuple[int, ...]:
    assert isinstance(value.type, TensorType)
    return tuple(int(n) for n in value.type.get_shape())


def elements(shape: Sequence[int]) -> int:
    n = 1
    for extent in shape:
        n *= extent
    return n


def integers(attribute: Attribute) -> tuple[int, ...]:
    """The numbers of a dense array or an array of integer attributes."""
    values = getattr(attribute, "get_values", None)
    if values is not None:
        return tuple(int(v) for v in values())
    assert isinstance(attribute, ArrayAttr)
    return tuple(int(a.value.data) for a in attribute)


def float_data(values: np.ndarray) -> DenseIntOrFPElementsAttr:
    """A dense attribute over raw float32 bytes."""
    data = np.ascontiguousarray(values, dtype="<f4")
    return DenseIntOrFPElementsAttr(TensorType(f32, [data.size]), BytesAttr(data.tobytes()))


@dataclass(eq=False)
class Place:
    """Where a tensor lives: a symbol, and which space it is in."""

    symbol: str
    space: str
    nonnegative: bool = False


@dataclass
class Converter:
    """Builds the loop-level module while walking the function."""

    places: dict[SSAValue, Place] = field(default_factory=dict)
    buffers: list[BufferOp] = field(default_factory=list)
    data: list[DataOp] = field(default_factory=list)
    kernels: list[KernelOp] = field(default_factory=list)
    calls: list[CallOp] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    position: int = -1
    """How many ops with kernels stand before the current one."""

    def unique(self, wanted: str) -> str:
        base = re.sub(r"\W+", "_", wanted).strip("_") or "kernel"
        name, i = base, 1
        while name in self.names:
            i += 1
            name = f"{base}_{i}"
        self.names.add(name)
        return name

    def buffer(self, size: int, name: str, nonnegative: bool = False) -> Place:
        """A new buffer of `size` elements."""
        symbol = self.unique(name)
        self.buffers.append(
            BufferOp.create(properties={"sym_name": StringAttr(symbol), "bytes": IntegerAttr(4 * size, i64)})
        )
        return Place(symbol, "arena", nonnegative)

    def constant(self, values: DenseIntOrFPElementsAttr | np.ndarray, name: str) -> Place:
        symbol = self.unique(name)
        attribute = float_data(values) if isinstance(values, np.ndarray) else values
        self.data.append(DataOp.create(properties={"sym_name": StringAttr(symbol), "value": attribute}))
        return Place(symbol, "const")

    def place(self, value: SSAValue) -> Place:
        """Where an operand is; constants become data when first used."""
        if value not in self.places:
            owner = value.owner
            if not isinstance(owner, Operation) or owner.name != "nn.const":
                raise InternalError(f"{value} has no buffer")
            attribute = owner.properties["value"]
            assert isinstance(attribute, DenseIntOrFPElementsAttr)
            flat = DenseIntOrFPElementsAttr(TensorType(f32, [elements(shape_of(value))]), attribute.data)
            self.places[value] = self.constant(flat, layer_of(owner) + "_data")
        return self.places[value]

    def kernel(self, op: Operation, nest: Nest, places: dict[str, Place], suffix: str = "", final: bool = True) -> None:
        """One kernel and its call. `places` by role; `final`: its output is the op's result."""
        name = self.unique(layer_of(op) + suffix)
        block = Block(arg_types=[PointerType()] * len(nest.operands))
        for arg, operand in zip(block.args, nest.operands, strict=True):
            arg.name_hint = operand.role
        block.add_op(NestOp.build(operands=[list(block.args)], properties={"nest": NestAttr(nest)}))
        spaces = ArrayAttr([StringAttr(places[o.role].space) for o in nest.operands])
        self.kernels.append(
            KernelOp.create(
                properties={"sym_name": StringAttr(name), "spaces": spaces},
                regions=[Region(block)],
                location=op.location,
            )
        )
        macs = nest.terms() if nest.combine == "mac" else 0
        attributes = call_attributes(self, op, macs, places["out"] if final else None)
        if nest.nonnegative:
            attributes["nonnegative"] = UnitAttr()
        self.call(op, name, [places[o.role].symbol for o in nest.operands], attributes)

    def call(self, op: Operation, kernel: str, symbols: Sequence[str], attributes: dict[str, Attribute]) -> None:
        """A call of a kernel on buffers and data."""
        arguments = ArrayAttr([SymbolRefAttr(symbol) for symbol in symbols])
        self.calls.append(
            CallOp.create(
                properties={"callee": SymbolRefAttr(kernel), "arguments": arguments},
                attributes=attributes,
                location=op.location,
            )
        )


def call_attributes(c: Converter, op: Operation, macs: int, result: Place | None) -> dict[str, Attribute]:
    """What a call tells about its nn operation; `result`: where the operation's result lies, if this call makes it."""
    attributes: dict[str, Attribute] = {
        "layers": ArrayAttr([StringAttr(n) for n in layer_names(op)]),
        "op": StringAttr(op.name.removeprefix("nn.")),
        "ops": ArrayAttr([IntegerAttr(c.position, i64)]),
        "macs": IntegerAttr(macs, i64),
    }
    if op.operands:
        attributes["input_shape"] = ArrayAttr([IntegerAttr(n, i64) for n in shape_of(op.operands[0])])
    if result is not None:
        attributes["result"] = SymbolRefAttr(result.symbol)
        attributes["shape"] = ArrayAttr([IntegerAttr(n, i64) for n in shape_of(op.results[0])])
        if "source" in op.attributes:
            attributes["source"] = op.attributes["source"]
    return attributes


def layer_of(op: Operation) -> str:
    names = layer_names(op)
    return names[0] if names else op.name.removeprefix("nn.")


def activation_of(op: Operation) -> Step | None:
    act = op.properties.get("act")
    if act is None:
        return None
    assert isinstance(act, ActAttr)
    return Step("activation", None, act.function, act.parameter_values)


def with_activation(
    c: Converter,
    op: Operation,
    nest_of: Callable[[list[Step]], Nest],
    places: dict[str, Place],
    steps: Sequence[Step] = (),
) -> None:
    """The kernel with the op's activation in its epilogue, or in a kernel of its own, in place, when it is costly."""
    act = activation_of(op)
    size = elements(shape_of(op.results[0]))
    out = c.buffer(size, layer_of(op) + "_out", act is not None and act.name in NON_NEGATIVE)
    c.places[op.results[0]] = out
    places["out"] = out
    has_tile = op.name in TILED_OPS
    if act is None or act.name in CHEAP_ACTIVATIONS or not has_tile:
        nest = nest_of([*steps, act] if act is not None and act.name != "linear" else list(steps))
        c.kernel(op, nest, places)
        return
    c.kernel(op, nest_of(list(steps)), places, final=False)
    c.kernel(op, kernels.elementwise([size], [1], epilogue=[act]), {"x": out, "out": out}, "_" + act.name)


def _stored(nest: Nest, weights: SSAValue) -> Nest:
    """The nest with its weights as float16 in memory, if the constant says that they are float16 numbers."""
    if not isinstance(weights.owner, Operation) or "half" not in weights.owner.properties:
        return nest
    return replace(nest, operands=tuple(replace(o, element="f16") if o.role == "w" else o for o in nest.operands))


def _conv2d(c: Converter, op: Operation) -> None:
    """A convolution of images or of volumes; computed weights are read as they lie, like a matrix of nn.matmul."""
    x, w = op.operands[0], op.operands[1]
    role = "v" if const_array(w) is None else "w"
    places = {"x": c.place(x), role: c.place(w)}
    if len(op.operands) > 2:
        places["bias"] = c.place(op.operands[2])

    def nest(steps: list[Step]) -> Nest:
        window = [integers(op.properties[k]) for k in ("strides", "dilations", "pads")]
        shapes = [shape_of(x), shape_of(w), shape_of(op.results[0])]
        if op.name == "nn.depthwise_conv2d":
            found = kernels.depthwise_conv2d(*shapes, *window, "bias" in places, steps)  # pyright: ignore[reportCallIssue]
            return _stored(_with_weights(found, role), w)
        groups = op.properties["groups"]
        assert isinstance(groups, IntegerAttr)
        make = kernels.conv3d if op.name == "nn.conv3d" else kernels.conv2d
        found = make(*shapes, *window, groups.value.data, "bias" in places, steps)  # pyright: ignore[reportCallIssue]
        return _stored(_with_weights(found, role), w)

    with_activation(c, op, nest, places)


def _with_weights(nest: Nest, role: str) -> Nest:
    """The nest with its weights as operand `role`: w is packed, v is not."""
    return replace(nest, operands=tuple(replace(o, role=role) if o.role == "w" else o for o in nest.operands))


def _dense(c: Converter, op: Operation) -> None:
    x, w = op.operands[0], op.operands[1]
    places = {"x": c.place(x), "w": c.place(w)}
    if len(op.operands) > 2:
        places["bias"] = c.place(op.operands[2])
    inputs, outputs = shape_of(w)
    rows = elements(shape_of(x)[:-1])
    with_activation(
        c, op, lambda steps: _stored(kernels.dense(rows, inputs, outputs, "bias" in places, steps), w), places
    )


def _pool(c: Converter, op: Operation) -> None:
    x = op.operands[0]
    shape, out = shape_of(x), shape_of(op.results[0])
    kernel, strides, dilations, pads = (integers(op.properties[k]) for k in ("kernel", "strides", "dilations", "pads"))
    places = {"x": c.place(x)}
    nonnegative = places["x"].nonnegative
    if op.name == "nn.max_pool2d":
        with_activation(
            c, op, lambda s: kernels.pool2d("max", shape, kernel, out, strides, dilations, pads, s, nonnegative), places
        )
        if nonnegative and activation_of(op) is None:
            c.places[op.results[0]].nonnegative = True
        return
    steps = _average_steps(c, op, places, shape, out)
    with_activation(
        c, op, lambda s: kernels.pool2d("add", shape, kernel, out, strides, dilations, pads, s), places, steps
    )


def _average_steps(
    c: Converter, op: Operation, places: dict[str, Place], shape: Sequence[int], out: Sequence[int]
) -> list[Step]:
    """The division by the number of cells: one constant, or a factor a row and a factor a column at borders."""
    counts = [average_counts(op, shape, out, axis) for axis in (0, 1)]
    if all(n == counts[axis][0] for axis in (0, 1) for n in counts[axis]):
        return [Step("mul", parameters=(1.0 / (counts[0][0] * counts[1][0]),))]
    steps = []
    for role, numbers in zip(("rows", "columns"), counts, strict=True):
        places[role] = c.constant(np.array([1.0 / n for n in numbers], dtype=np.float32), f"{layer_of(op)}_{role}")
        steps.append(Step("mul", role))
    return steps


def average_counts(op: Operation, shape: Sequence[int], out: Sequence[int], axis: int) -> list[int]:
    """How many cells of a window count, for each output position along one axis."""
    kernel, strides, dilations, pads = (integers(op.properties[k]) for k in ("kernel", "strides", "dilations", "pads"))
    include = op.properties.get("count_include_pad")
    low, high = 0, shape[axis]
    if include is not None and bool(include.value.data):  # pyright: ignore[reportAttributeAccessIssue]
        declared = op.properties.get("counted_pads")
        limits = integers(declared) if declared is not None else pads
        low, high = -limits[axis], shape[axis] + limits[axis + 2]
    counts = []
    for o in range(out[axis]):
        start = o * strides[axis] - pads[axis]
        cells = (start + k * dilations[axis] for k in range(kernel[axis]))
        counts.append(max(sum(low <= i < high for i in cells), 1))
    return counts


def _batch_norm(c: Converter, op: Operation) -> None:
    x, scale, offset = op.operands
    shape = shape_of(x)
    per_channel = [0] * (len(shape) - 1) + [1]
    places = {"x": c.place(x), "scale": c.place(scale), "offset": c.place(offset)}
    steps = [Step("mul", "scale"), Step("add", "offset")]
    others = [("scale", per_channel), ("offset", per_channel)]
    with_activation(c, op, lambda s: kernels.elementwise(shape, row_major(shape), others, s), places, steps)


def _activation(c: Converter, op: Operation) -> None:
    size = elements(shape_of(op.operands[0]))
    places = {"x": c.place(op.operands[0])}
    with_activation(c, op, lambda s: kernels.elementwise([size], [1], epilogue=s), places)


def broadcast_strides(shape: Sequence[int], out: Sequence[int]) -> list[int]:
    """Element strides of a tensor of `shape` when it is broadcast to `out` (numpy's rules)."""
    own = [0 if n == 1 else s for n, s in zip(shape, row_major(shape), strict=True)]
    return [0] * (len(out) - len(shape)) + own


def _prelu(c: Converter, op: Operation) -> None:
    x, slope = op.operands
    shape = shape_of(op.results[0])
    places = {"x": c.place(x), "slope": c.place(slope)}
    others = [("slope", broadcast_strides(shape_of(slope), shape))]
    step = [Step("prelu", "slope")]
    with_activation(c, op, lambda s: kernels.elementwise(shape, row_major(shape), others, s), places, step)


BINARY_STEPS = ("add", "sub", "mul", "div", "max", "min", "pow", "where")
"""Names of binary nn operations and of the epilogue steps that they are."""


def _binary(c: Converter, op: Operation) -> None:
    a, b = op.operands
    shape = shape_of(op.results[0])
    places = {"x": c.place(a), "other": c.place(b)}
    strides = broadcast_strides(shape_of(a), shape)
    others = [("other", broadcast_strides(shape_of(b), shape))]
    step = [Step(op.name.removeprefix("nn."), "other")]
    with_activation(c, op, lambda s: kernels.elementwise(shape, strides, others, s), places, step)


def _softmax(c: Converter, op: Operation) -> None:
    """Maximum, exp(x - maximum), 1 / sum, product: no overflow for any finite input."""
    shape = shape_of(op.operands[0])
    axis_attribute = op.properties["axis"]
    assert isinstance(axis_attribute, IntegerAttr)
    axis = axis_attribute.value.data % max(len(shape), 1)
    outer, extent, inner = elements(shape[:axis]), shape[axis], elements(shape[axis + 1 :])
    x = c.place(op.operands[0])
    out = c.buffer(elements(shape), layer_of(op) + "_out", nonnegative=True)
    rows = c.buffer(outer * inner, layer_of(op) + "_row")
    c.places[op.results[0]] = out
    dims = [outer, extent, inner]
    strides, per_row = row_major(dims), [inner, 0, 1]
    maximum = kernels.reduce_axis("max", outer, extent, inner, nonnegative=x.nonnegative)
    c.kernel(op, maximum, {"x": x, "out": rows}, "_max", final=False)
    exponential = kernels.elementwise(
        dims, strides, [("row", per_row)], [Step("sub", "row"), Step("activation", None, "exp_nonpositive")]
    )
    c.kernel(op, exponential, {"x": x, "row": rows, "out": out}, "_exp", final=False)
    total = kernels.reduce_axis("add", outer, extent, inner, [Step("rdiv", parameters=(1.0,))])
    c.kernel(op, total, {"x": out, "out": rows}, "_sum", final=False)
    scale = kernels.elementwise(dims, strides, [("row", per_row)], [Step("mul", "row")])
    c.kernel(op, scale, {"x": out, "row": rows, "out": out}, "_scale")


def _transpose(c: Converter, op: Operation) -> None:
    shape = shape_of(op.operands[0])
    permutation = integers(op.properties["permutation"])
    strides = row_major(shape)
    out = shape_of(op.results[0])
    places = {"x": c.place(op.operands[0])}
    with_activation(c, op, lambda s: kernels.elementwise(out, [strides[i] for i in permutation], epilogue=s), places)


def _pad(c: Converter, op: Operation) -> None:
    shape, out = shape_of(op.operands[0]), shape_of(op.results[0])
    low = integers(op.properties["low"])
    value = op.properties["value"].value.data  # pyright: ignore[reportAttributeAccessIssue]
    strides = row_major(shape)
    guards = [Guard(Linear.of(-low[i], **{f"d{i}": 1}), n) for i, n in enumerate(shape)]
    offset = -sum(n * s for n, s in zip(low, strides, strict=True))
    places = {"x": c.place(op.operands[0])}
    with_activation(
        c,
        op,
        lambda s: kernels.elementwise(out, strides, epilogue=s, x_offset=offset, guards=guards, initial=float(value)),
        places,
    )


def _slice(c: Converter, op: Operation) -> None:
    start, steps, sizes = (integers(op.properties[k]) for k in ("start", "strides", "sizes"))
    strides = row_major(shape_of(op.operands[0]))
    offset = sum(first * stride for first, stride in zip(start, strides, strict=True))
    picks = [step * stride for step, stride in zip(steps, strides, strict=True)]
    places = {"x": c.place(op.operands[0])}
    with_activation(c, op, lambda s: kernels.elementwise(sizes, picks, epilogue=s, x_offset=offset), places)


REDUCTIONS: dict[str, Combine] = {
    "sum": "add",
    "mean": "add",
    "sum_square": "square",
    "mean_square": "square",
    "max": "max",
    "min": "min",
    "prod": "mul",
}


def _reduce(c: Converter, op: Operation) -> None:
    shape, axes = shape_of(op.operands[0]), integers(op.properties["axes"])
    kind = op.properties["kind"]
    assert isinstance(kind, StringAttr)
    places = {"x": c.place(op.operands[0])}
    nonnegative = kind.data == "max" and places["x"].nonnegative
    steps = [Step("mul", parameters=(1.0 / elements([shape[i] for i in axes]),))]
    if not kind.data.startswith("mean"):
        steps = []

    def nest(epilogue: list[Step]) -> Nest:
        if not axes:
            squares = [Step("activation", None, "square")] if kind.data.endswith("_square") else []
            return kernels.elementwise([elements(shape)], [1], epilogue=[*squares, *epilogue])
        return kernels.reduce_axes(REDUCTIONS[kind.data], shape, axes, epilogue, nonnegative)

    with_activation(c, op, nest, places, steps)


def _concat(c: Converter, op: Operation) -> None:
    axis_attribute = op.properties["axis"]
    assert isinstance(axis_attribute, IntegerAttr)
    out_shape = shape_of(op.results[0])
    axis = axis_attribute.value.data % len(out_shape)
    out_strides = row_major(out_shape)
    inputs = [c.place(v) for v in op.operands]
    out = c.buffer(elements(out_shape), layer_of(op) + "_out", all(p.nonnegative for p in inputs))
    c.places[op.results[0]] = out
    position = 0
    for i, (value, place) in enumerate(zip(op.operands, inputs, strict=True)):
        shape = shape_of(value)
        nest = kernels.elementwise(
            shape, row_major(shape), out_strides=out_strides, out_offset=position * out_strides[axis]
        )
        c.kernel(op, nest, {"x": place, "out": out}, f"_{i}", final=i == len(op.operands) - 1)
        position += shape[axis]


def _reshape(c: Converter, op: Operation) -> None:
    c.places[op.results[0]] = c.place(op.operands[0])


CONVERSIONS: dict[str, Callable[[Converter, Any], None]] = {
    "nn.conv2d": _conv2d,
    "nn.conv3d": _conv2d,
    "nn.depthwise_conv2d": _conv2d,
    "nn.dense": _dense,
    "nn.max_pool2d": _pool,
    "nn.avg_pool2d": _pool,
    "nn.batch_norm": _batch_norm,
    "nn.activation": _activation,
    "nn.prelu": _prelu,
    "nn.softmax": _softmax,
    "nn.transpose": _transpose,
    "nn.pad": _pad,
    "nn.slice": _slice,
    "nn.reduce": _reduce,
    "nn.concat": _concat,
    "nn.reshape": _reshape,
    **{f"nn.{name}": _binary for name in BINARY_STEPS},
}


def convert(module: ModuleOp) -> None:
    """Replaces the function `main` by a loop-level program."""
    from ml4f.passes import nn_contraction_kernels, nn_lookup_kernels, nn_recurrent_kernels

    conversions = dict(CONVERSIONS)
    for more in (nn_contraction_kernels, nn_lookup_kernels, nn_recurrent_kernels):
        conversions.update(more.CONVERSIONS)
    function = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    c = Converter()
    for i, arg in enumerate(function.body.block.args):
        c.places[arg] = c.buffer(elements(shape_of(arg)), arg.name_hint or f"input{i}")
    inputs = [c.places[a].symbol for a in function.body.block.args]
    outputs: list[str] = []
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            outputs = [c.place(v).symbol for v in op.operands]
        elif op.name != "nn.const":
            if op.name not in conversions:
                raise InternalError(f"{op.name} has no kernel")
            c.position += op.name not in FREE_OPS
            conversions[op.name](c, op)
    attributes: dict[str, Attribute] = {}
    returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
    for name, values in (("input_shapes", function.body.block.args), ("output_shapes", returned.operands)):
        attributes[name] = ArrayAttr([ArrayAttr([IntegerAttr(n, i64) for n in shape_of(v)]) for v in values])
    attributes.update(function.attributes)
    if function.arg_attrs is not None:
        attributes["input_attributes"] = function.arg_attrs
    program = ProgramOp.create(
        properties={
            "sym_name": StringAttr("main"),
            "inputs": ArrayAttr([SymbolRefAttr(s) for s in inputs]),
            "outputs": ArrayAttr([SymbolRefAttr(s) for s in outputs]),
        },
        attributes=attributes,
        regions=[Region(Block(c.calls))],
    )
    function.detach()
    function.erase(safe_erase=False)
    module.body.block.add_ops([*c.buffers, *c.data, *c.kernels, program])


class ConvertNnToLoopPass(ModulePass):
    """Turns every tensor into a buffer and every nn op into kernels in nest form.

        %1 = nn.activation %0 {act = #nn.act<"relu">} : tensor<8xf32> -> tensor<8xf32>
    becomes
        loop.buffer @a_out {bytes = 32 : i64}
        loop.kernel @a(%x : arena, %out : arena) {
          loop.nest %x, %out : <parallel (d0 = 8) copy x["d0"], out["d0"] then activation relu>
        }
        loop.program @main … { loop.call @a(@input0, @a_out) {layers = ["a"], …} }
    """

    name = "convert-nn-to-loop"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        convert(op)
