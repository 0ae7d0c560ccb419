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
    "loop-pack-weights",
    "loop-plan-memory",
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
    ops: list = []
    for operand in nest.operands:
        role = operand.role
        if role in constants:
            ops.append(data_op(role, constants[role]))
        else:
            properties = {"sym_name": StringAttr(role), "bytes": IntegerAttr(4 * sizes[role], 64)}
            ops.append(BufferOp.create(properties=properties))
    block = Block(arg_types=[PointerType()] * len(nest.operands))
    block.add_op(NestOp.build(operands=[list(block.args)], properties={"nest": NestAttr(nest)}))
    spaces = ArrayAttr([StringAttr("const" if o.role in constants else "arena") for o in nest.operands])
    kernel = KernelOp.create(properties={"sym_name": StringAttr("k"), "spaces": spaces}, regions=[Region(block)])
    arguments = ArrayAttr([SymbolRefAttr(o.role) for o in nest.operands])
    call = CallOp.create(properties={"callee": SymbolRefAttr("k"), "arguments": arguments})
    shapes = {f"{kind}_shapes": ArrayAttr([ArrayAttr([IntegerAttr(sizes[role], 64)])]) for kind, role in (("input", "x"), ("output", "out"))}
    program = ProgramOp.create(
        properties={
            "sym_name": StringAttr("main"),
            "inputs": ArrayAttr([SymbolRefAttr("x")]),
            "outputs": ArrayAttr([SymbolRefAttr("out")]),
        },
        attributes=shapes,
        regions=[Region(Block([call]))],
    )
    return ModuleOp([*ops, kernel, program])


def random_kernel(rng: np.random.Generator) -> tuple[Nest, dict[str, np.ndarray], dict[str, int]]:
    """A convolution, depthwise convolution or pool with odd shapes, strides, dilations, paddings and groups."""

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
        nest = kernels.pool2d(combine, [h, w, c], [kh, kw], [oh, ow, c], strides, dilations, pads, steps, nonnegative=False)
    constants: dict[str, np.ndarray] = {}
    if weights:
        constants["w"] = rng.standard_normal(weights)
    if bias:
        constants["bias"] = rng.standard_normal(filters)
    return nest, constants, {"x": h * w * c, "out": oh * ow * filters}


def apply(module: ModuleOp, *names: str) -> None:
    """Apply passes by name."""
    for name in names:
        PASSES[name]()().apply(Context(), module)


def compile_module(module: ModuleOp) -> ObjectCode:
    """The object of a module in pointer form."""
    apply(module, *THUMB_PASSES)
    return assemble(module)
