"""Executes a module at whatever level it is: nn in numpy, loop on a memory image, thumb as machine code in Unicorn."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp as FunctionOp

from ml4f.backend.thumb.object_code import assemble
from ml4f.dialects.loop.structure import BufferOp, ProgramOp
from ml4f.dialects.thumb.registers import number
from ml4f.dialects.thumb.structure import FuncOp
from ml4f.errors import InternalError, Ml4fError
from ml4f.machine import Machine
from ml4f.pipelines import MINIMAL_THUMB


def level_of(module: ModuleOp) -> str | None:
    """`nn`, `loop` or `thumb`; None if there is no function and no program."""
    for op in module.body.block.ops:
        if isinstance(op, FunctionOp):
            return "nn"
        if isinstance(op, ProgramOp):
            return "loop"
        if isinstance(op, FuncOp):
            return "thumb"
    return None


def level(module: ModuleOp) -> str:
    """`nn`, `loop` or `thumb`; an Ml4fError if there is nothing to execute."""
    found = level_of(module)
    if found is None:
        raise Ml4fError("the module holds no func.func, no loop.program and no thumb.func: nothing to execute")
    return found


def input_sizes(module: ModuleOp) -> list[int]:
    """The number of elements of each input."""
    for op in module.body.block.ops:
        if isinstance(op, FunctionOp):
            types = [arg.type for arg in op.body.block.args]
            return [prod(t.get_shape()) for t in types if isinstance(t, TensorType)]
        if isinstance(op, ProgramOp):
            buffers = {b.sym_name.data: b.bytes.value.data for b in module.body.block.ops if isinstance(b, BufferOp)}
            return [buffers[symbol.root_reference.data] // 4 for symbol in op.inputs]
    shapes = module.attributes.get("input_shapes")
    if not isinstance(shapes, ArrayAttr):
        raise InternalError("the module does not say what its inputs are")
    return [prod(n.value.data for n in shape) for shape in shapes]  # pyright: ignore


def random_inputs(module: ModuleOp, seed: int = 0) -> list[np.ndarray]:
    """Seeded normal inputs, flat."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(np.float32) for size in input_sizes(module)]


def run_module(module: ModuleOp, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs, flat float32. A thumb module that has no registers yet is finished on a copy first."""
    where = level(module)
    if where == "nn":
        from ml4f.interpreters.nn import run_nn

        function = next(op for op in module.body.block.ops if isinstance(op, FunctionOp))
        shaped = [x.reshape(arg.type.get_shape()) for x, arg in zip(inputs, function.body.block.args, strict=True)]  # pyright: ignore
        return [np.ravel(y) for y in run_nn(module, shaped)]
    if where == "loop":
        from ml4f.interpreters.loop import run_loop

        return [np.ravel(y) for y in run_loop(module, list(inputs))]
    machine = Machine(assemble(finished(module)).binary, "module")
    return [np.ravel(y).view(np.float32) for y in machine.run_all(list(inputs))]


def unallocated(module: ModuleOp) -> str | None:
    """The first operation of a thumb function whose result has no register, for a message; None if all have one."""
    for func in module.body.block.ops:
        if isinstance(func, FuncOp):
            for op in func.walk():
                if any(number(result) is None for result in op.results):
                    return f"{op.name} in @{func.sym_name.data}"
    return None


def finished(module: ModuleOp) -> ModuleOp:
    """The module itself if its values have registers, else a copy with the mandatory passes applied."""
    return module if unallocated(module) is None else _finish(module.clone())


def _finish(module: ModuleOp) -> ModuleOp:
    from ml4f.passes import PASSES

    for name in MINIMAL_THUMB[1:]:
        PASSES[name]()().apply(Context(), module)
    return module
