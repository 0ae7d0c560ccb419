"""Random kernels as whole loop-level modules, for differential tests of every pass below nn."""

from __future__ import annotations

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
    f32,
)
from xdsl.ir import Block, Region

from ml4f.backend.loop import kernels
from ml4f.backend.loop.nest import Nest, Step
from ml4f.backend.thumb.object_code import ObjectCode, assemble
from ml4f.dialects.loop.attributes import NestAttr, PointerType
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, KernelOp, NestOp, ProgramOp
from ml4f.passes import PASSES

LOOP_PASSES = (
    "loop-choose-schedule",
    "loop-plan-memory",
    "loop-pack-weights",
    "loop-expand",
    "loop-lower-addresses",
    "loop-share-kernels",
)
THUMB_PASSES = (
    "convert-loop-to-thumb",
    "thumb-schedule",
    "thumb-legalize-ties",
    "thumb-allocate-registers",
    "thumb-verify-allocation",
)


def data_op(symbol: str, values: np.ndarray) -> DataOp:
    flat = np.ascontiguousarray(values, dtype="<f4")
    value = DenseIntOrFPElementsAttr(TensorType(f32, [flat.size]), BytesAttr(flat.tobytes()))
    return DataOp.create(properties={"sym_name": StringAttr(symbol), "value": value})


def kernel_module(nest: Nest, constants: dict[str, np.ndarray], sizes: dict[str, int]) -> ModuleOp:
    """A program of one kernel; roles in `constants` are data, the others buffers of `sizes` elements."""
    return program_module([(nest, {o.role: o.role for o in nest.operands})], constants, sizes)


def program_module(
    steps: list[tuple[Nest, dict[str, str]]], constants: dict[str, np.ndarray], sizes: dict[str, int]
) -> ModuleOp:
    """A program of kernels, each with the symbols of its roles; `x` is the input, `out` the output."""
    ops: list = [data_op(symbol, values) for symbol, values in constants.items()]
    for symbol, size in sizes.items():
        ops.append(BufferOp.create(properties={"sym_name": StringAttr(symbol), "bytes": IntegerAttr(4 * size, 64)}))
    calls = []
    for i, (nest, symbols) in enumerate(steps):
        name = "k" if len(steps) == 1 else f"k{i}"
        block = Block(arg_types=[PointerType()] * len(nest.operands))
        block.add_op(NestOp.build(operands=[list(block.args)], properties={"nest": NestAttr(nest)}))
        spaces = ArrayAttr([StringAttr("const" if symbols[o.role] in constants else "arena") for o in nest.operands])
        properties = {"sym_name": StringAttr(name), "spaces": spaces}
        ops.append(KernelOp.create(properties=properties, regions=[Region(block)]))
        arguments = ArrayAttr([SymbolRefAttr(symbols[o.role]) for o in nest.operands])
        calls.append(CallOp.create(properties={"callee": SymbolRefAttr(name), "arguments": arguments}))
    shapes = {
        f"{kind}_shapes": ArrayAttr([ArrayAttr([IntegerAttr(sizes[role], 64)])])
        for kind, role in (("input", "x"), ("output", "out"))
    }
    program = ProgramOp.create(
        properties={
            "sym_name": StringAttr("main"),
            "inputs": ArrayAttr([SymbolRefAttr("x")]),
            "outputs": ArrayAttr([SymbolRefAttr("out")]),
        },
        attributes=shapes,
        regions=[Region(Block(calls))],
    )
    return ModuleOp([*ops, program])


def random_kernel(rng: np.random.Generator) -> tuple[Nest, dict[str, np.ndarray], dict[str, int]]:
    """A convolution, depthwise convolution or pool with odd shapes, strides, dilations, paddings and groups."""
    nest, constants, sizes, _ = shaped_kernel(rng)
    return nest, constants, sizes


def shaped_kernel(
    rng: np.random.Generator,
) -> tuple[Nest, dict[str, np.ndarray], dict[str, int], tuple[int, int, int]]:
    """The same, with the shape of its output."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    while True:
        h, w, c, kh, kw = pick(1, 9), pick(1, 12), pick(1, 6), pick(1, 4), pick(1, 4)
        strides, dilations = [pick(1, 3), pick(1, 3)], [pick(1, 2), pick(1, 2)]
        pads = [pick(0, kh), pick(0, kw), pick(0, kh), pick(0, kw)] if pick(0, 1) else [0] * 4
        oh = (h + pads[0] + pads[2] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
        ow = (w + pads[1] + pads[3] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
        if oh >= 1 and ow >= 1:
            break
    bias = bool(pick(0, 1))
    steps = [Step("activation", None, "relu")] if pick(0, 1) else []
    kind, weights = pick(0, 2), 0
    if kind == 0:
        groups = pick(1, 2)
        filters = groups * pick(1, 10)
        c *= groups
        shapes = [h, w, c], [kh, kw, c // groups, filters], [oh, ow, filters]
        nest = kernels.conv2d(*shapes, strides, dilations, pads, groups, bias, steps)
        weights = kh * kw * c // groups * filters
    elif kind == 1:
        multiplier = pick(1, 5)
        filters = c * multiplier
        shapes = [h, w, c], [kh, kw, c, multiplier], [oh, ow, filters]
        nest = kernels.depthwise_conv2d(*shapes, strides, dilations, pads, bias, steps)
        weights = kh * kw * filters
    else:
        combine = ("max", "add")[pick(0, 1)]
        filters, bias = c, False
        nest = kernels.pool2d(
            combine, [h, w, c], [kh, kw], [oh, ow, c], strides, dilations, pads, steps, nonnegative=False
        )
    constants: dict[str, np.ndarray] = {}
    if weights:
        constants["w"] = rng.standard_normal(weights)
    if bias:
        constants["bias"] = rng.standard_normal(filters)
    return nest, constants, {"x": h * w * c, "out": oh * ow * filters}, (oh, ow, filters)


POOLED_ACTIVATIONS = (("relu", ()), ("clip", (0.0, 0.5)), ("clip", (-0.5, 0.5)))
ELEMENTWISE_ACTIVATIONS = (
    ("relu", ()),
    ("clip", (-1.0, 0.5)),
    ("clip", (0.0, 0.75)),
    ("leaky_relu", (0.25,)),
    ("hard_sigmoid", (0.2, 0.5)),
    ("hard_swish", ()),
)


def random_pooled(rng: np.random.Generator) -> tuple[ModuleOp, bool]:
    """A random kernel with a pool behind it, and whether it must be fused.

    It must where the pool's windows are apart, and steps along its width are told from steps along its height.
    """

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    while True:
        nest, constants, sizes, shape = shaped_kernel(rng)
        kernel = [pick(1, 3), pick(1, 3)]
        strides = [k + (pick(0, 3) == 0) - (pick(0, 7) == 0) for k in kernel]
        pads = [pick(0, kernel[0] // 2), pick(0, kernel[1] // 2), pick(0, kernel[0] // 2), pick(0, kernel[1] // 2)]
        pads = pads if pick(0, 1) else [0] * 4
        out = [(shape[i] + pads[i] + pads[i + 2] - kernel[i]) // max(strides[i], 1) + 1 for i in (0, 1)]
        if min(out) >= 1 and min(strides) >= 1 and kernel != [1, 1]:
            break
    combine, steps = (
        ("max", "add")[pick(0, 1)],
        [[], *([Step("activation", None, *act)] for act in POOLED_ACTIVATIONS), [Step("mul", None, "", (0.25,))]][
            pick(0, 1 + len(POOLED_ACTIVATIONS))
        ],
    )
    pool = kernels.pool2d(combine, list(shape), kernel, [*out, shape[2]], strides, [1, 1], pads, steps)
    first = {o.role: o.role for o in nest.operands} | {"out": "between"}
    sizes = {"x": sizes["x"], "between": sizes["out"], "out": out[0] * out[1] * shape[2]}
    apart = all(s >= k for s, k, n in zip(strides, kernel, out, strict=True) if n > 1)
    apart = apart and (out[1] == 1 or strides[1] != shape[1])
    return program_module([(nest, first), (pool, {"x": "between", "out": "out"})], constants, sizes), apart


def random_elementwise(rng: np.random.Generator) -> ModuleOp:
    """One or two random kernels, then something done to each of their results; can always be fused."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    nest, constants, sizes, shape = shaped_kernel(rng)
    buffers = {"x": sizes["x"], "a": sizes["out"], "out": sizes["out"]}
    calls = [(nest, {o.role: o.role for o in nest.operands} | {"out": "a"})]
    strides, operands, kind = kernels.row_major(shape), {"x": "a", "out": "out"}, pick(0, 3)
    act = Step("activation", None, *ELEMENTWISE_ACTIVATIONS[pick(0, len(ELEMENTWISE_ACTIVATIONS) - 1)])
    if kind == 0:
        others = [("scale", [0, 0, 1]), ("offset", [0, 0, 1])]
        for role, _ in others:
            constants[role] = rng.standard_normal(shape[2])
            operands[role] = role
        after = kernels.elementwise(shape, strides, others, [Step("mul", "scale"), Step("add", "offset"), act])
    elif kind == 1:
        after = kernels.elementwise([shape[2], shape[0], shape[1]], [1, *strides[:2]], epilogue=[act])
    else:
        buffers["b"] = sizes["out"]
        second = {o.role: o.role for o in nest.operands} | {"out": "b"}
        for role in {"w", "bias"} & set(constants):
            constants[role + "2"] = rng.standard_normal(len(constants[role]))
            second[role] = role + "2"
        calls.append((nest, second))
        step = Step(("add", "sub", "mul", "rsub", "max", "min", "prelu")[pick(0, 6)], "other")
        operands = {"x": "ab"[kind - 2], "other": "ba"[kind - 2], "out": "out"}
        after = kernels.elementwise(shape, strides, [("other", strides)], [step, act])
    return program_module([*calls, (after, operands)], constants, buffers)


def apply(module: ModuleOp, *names: str) -> None:
    """Apply passes by name."""
    for name in names:
        PASSES[name]()().apply(Context(), module)


def compile_module(module: ModuleOp) -> ObjectCode:
    """The object of a module in pointer form."""
    apply(module, *THUMB_PASSES)
    return assemble(module)
