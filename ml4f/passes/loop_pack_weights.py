"""loop-pack-weights: lays weights out in the order in which the schedule reads them."""

from __future__ import annotations

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseIntOrFPElementsAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    i8,
)
from xdsl.passes import ModulePass

from ml4f.backend.loop.borders import bounds_table, with_bounds
from ml4f.backend.loop.nest import Nest
from ml4f.backend.loop.packing import pack_weights, weight_layout
from ml4f.dialects.loop.attributes import NestAttr, PointerType
from ml4f.dialects.loop.structure import CallOp, DataOp, KernelOp, NestOp, ProgramOp
from ml4f.errors import InternalError


def byte_data(data: bytes) -> DenseIntOrFPElementsAttr:
    """A dense attribute over raw bytes."""
    return DenseIntOrFPElementsAttr(TensorType(i8, [len(data)]), BytesAttr(data))


def raw_bytes(data: DataOp) -> bytes:
    """The bytes of a data op, as they stand in the object."""
    buffer = data.value.data
    assert isinstance(buffer, BytesAttr)
    return buffer.data


class _Packer:
    def __init__(self, module: ModuleOp):
        ops = list(module.body.block.ops)
        self.module = module
        self.data = {op.sym_name.data: op for op in ops if isinstance(op, DataOp)}
        self.kernels = {op.sym_name.data: op for op in ops if isinstance(op, KernelOp)}
        program = next(op for op in ops if isinstance(op, ProgramOp))
        self.calls = [op for op in program.body.block.ops if isinstance(op, CallOp)]

    def run(self) -> None:
        for call in self.calls:
            kernel = self.kernels[call.callee.root_reference.data]
            for nest in [op for op in kernel.walk() if isinstance(op, NestOp)]:
                if nest.schedule is None or "packed" in nest.attributes:
                    continue
                if with_bounds(nest.nest.data, nest.schedule.data) != nest.nest.data:
                    self._add_bounds(call, kernel, nest)
                if nest.nest.data.has("w"):
                    self._pack(call, kernel, nest)
                for operand in nest.nest.data.operands:
                    if operand.element == "f16" and operand.role != "w":
                        self._halve(call, kernel, nest, operand.role)
                nest.attributes["packed"] = UnitAttr()
        used = {a.root_reference.data for call in self.calls for a in call.arguments}
        for name, op in list(self.data.items()):
            if name not in used:
                op.detach()
                op.erase()

    def _new_data(self, name: str, data: bytes, before: KernelOp) -> SymbolRefAttr:
        symbol, i = name, 1
        while symbol in self.data:
            i += 1
            symbol = f"{name}_{i}"
        op = DataOp.create(properties={"sym_name": StringAttr(symbol), "value": byte_data(data)})
        self.data[symbol] = op
        block = self.module.body.block
        block.insert_op_before(op, before)
        return SymbolRefAttr(symbol)

    @staticmethod
    def _argument(op: NestOp, role: str) -> int:
        """The number of the kernel's argument that is an operand of the nest."""
        return op.pointers[op.nest.data.index_of(role)].index  # pyright: ignore[reportAttributeAccessIssue]

    def _array(self, call: CallOp, index: int) -> np.ndarray:
        symbol = call.arguments.data[index].root_reference.data
        if symbol not in self.data:
            raise InternalError(f"{call.callee}: weights that are computed cannot be packed")
        return np.frombuffer(raw_bytes(self.data[symbol]), dtype="<f4")

    def _pack(self, call: CallOp, kernel: KernelOp, op: NestOp) -> None:
        nest, schedule = op.nest.data, op.schedule
        assert schedule is not None
        layout = weight_layout(nest, schedule.data)
        index = self._argument(op, "w")
        arguments = list(call.arguments.data)
        bias = self._array(call, self._argument(op, "bias")) if nest.has("bias") else None
        packed = pack_weights(nest, layout, self._array(call, index), bias)
        arguments[index] = self._new_data(f"{kernel.sym_name.data}_weights", packed, kernel)
        if nest.has("bias"):
            del arguments[self._argument(op, "bias")]
            self._drop_bias(kernel, op, nest)
        call.properties["arguments"] = ArrayAttr(arguments)

    def _halve(self, call: CallOp, kernel: KernelOp, op: NestOp, role: str) -> None:
        """Other float16 weights keep their order."""
        index = self._argument(op, role)
        arguments = list(call.arguments.data)
        data = self._array(call, index).astype("<f2").tobytes()
        arguments[index] = self._new_data(f"{kernel.sym_name.data}_{role}", data + bytes(-len(data) % 4), kernel)
        call.properties["arguments"] = ArrayAttr(arguments)

    def _drop_bias(self, kernel: KernelOp, op: NestOp, nest: Nest) -> None:
        """The biases stand in front of the weights of each block: one pointer serves both."""
        argument = self._argument(op, "bias")
        block = kernel.body.block
        pointers = list(op.pointers)
        pointers[nest.index_of("bias")] = pointers[nest.index_of("w")]
        op.operands = pointers
        block.erase_arg(block.args[argument])
        spaces = list(kernel.spaces.data)
        del spaces[argument]
        kernel.properties["spaces"] = ArrayAttr(spaces)

    def _add_bounds(self, call: CallOp, kernel: KernelOp, op: NestOp) -> None:
        """The table of bounds of loops over taps."""
        nest, schedule = op.nest.data, op.schedule
        assert schedule is not None
        table = bounds_table(nest, schedule.data)
        symbol = self._new_data(f"{kernel.sym_name.data}_bounds", table + bytes(-len(table) % 4), kernel)
        op.properties["nest"] = NestAttr(with_bounds(nest, schedule.data))
        arg = kernel.body.block.insert_arg(PointerType(), len(kernel.body.block.args))
        arg.name_hint = "bounds"
        op.operands = [*op.operands, arg]
        kernel.properties["spaces"] = ArrayAttr([*kernel.spaces.data, StringAttr("const")])
        call.properties["arguments"] = ArrayAttr([*call.arguments.data, symbol])


class LoopPackWeightsPass(ModulePass):
    """Reorders each nest's weights into blocks, biases in front, in reading order; adds tables of trimmed bounds.

        loop.call @k(@in, @w, @bias, @out)
    becomes
        loop.call @k(@in, @k_weights, @out)
    """

    name = "loop-pack-weights"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _Packer(op).run()
