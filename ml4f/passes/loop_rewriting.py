"""Helpers that the passes on nests share: who writes and reads a buffer, making one call of two. No pass lives here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, Block

from ml4f.backend.loop.nest import Nest
from ml4f.dialects.loop.attributes import NestAttr, PointerType
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, KernelOp, NestOp, ProgramOp


class Program:
    """A loop-level module's program while its calls are being fused."""

    def __init__(self, module: ModuleOp):
        self.module = module
        ops = list(module.body.block.ops)
        self.kernels = {op.sym_name.data: op for op in ops if isinstance(op, KernelOp)}
        self.buffers = {op.sym_name.data: op for op in ops if isinstance(op, BufferOp)}
        self.data = {op.sym_name.data: op for op in ops if isinstance(op, DataOp)}
        programs = [op for op in ops if isinstance(op, ProgramOp)]
        self.program = programs[0] if programs else None

    @cached_property
    def calls(self) -> list[CallOp]:
        """The calls in execution order."""
        return [] if self.program is None else [op for op in self.program.body.block.ops if isinstance(op, CallOp)]

    @cached_property
    def order(self) -> dict[CallOp, int]:
        """Each call's place in the execution order."""
        return {call: index for index, call in enumerate(self.calls)}

    @cached_property
    def users(self) -> dict[str, list[CallOp]]:
        """The calls that read or write a buffer, in execution order."""
        users: dict[str, list[CallOp]] = {}
        for call in self.calls:
            for symbol in dict.fromkeys(self.symbols(call)):
                users.setdefault(symbol, []).append(call)
        return users

    def forget(self) -> None:
        """Calls have changed: what is known of them is found anew."""
        for name in ("calls", "order", "users"):
            self.__dict__.pop(name, None)

    def kernel(self, call: CallOp) -> KernelOp:
        return self.kernels[call.callee.root_reference.data]

    def nest(self, call: CallOp) -> Nest | None:
        """The nest of a call's kernel, if it is in nest form and without a schedule."""
        first = self.kernel(call).body.block.first_op
        return first.nest.data if isinstance(first, NestOp) and first.schedule is None else None

    def symbols(self, call: CallOp) -> list[str]:
        """The buffers and data of a call's operands."""
        return [a.root_reference.data for a in call.arguments]

    def operands(self, call: CallOp, but: Sequence[str]) -> list[str]:
        """The buffers and data of a call's operands whose roles are not in `but`."""
        nest = self.nest(call)
        assert nest is not None
        return [s for o, s in zip(nest.operands, self.symbols(call), strict=True) if o.role not in but]

    def symbol(self, call: CallOp, role: str) -> str:
        """The buffer or data of one operand."""
        nest = self.nest(call)
        assert nest is not None
        return self.symbols(call)[nest.index_of(role)]

    def is_last(self, call: CallOp) -> bool:
        """Whether a call is the last of the calls of its nn operation (there are none where there was no nn level)."""
        return "shape" in call.attributes or "ops" not in call.attributes

    def is_boundary(self, symbol: str) -> bool:
        """Whether a buffer holds an input or an output of the network."""
        assert self.program is not None
        return symbol in {s.root_reference.data for s in (*self.program.inputs, *self.program.outputs)}

    def only_producer(self, call: CallOp, role: str) -> CallOp | None:
        """The call that writes this operand, if nobody else touches that buffer and it can move down to its reader."""
        symbol = self.symbol(call, role)
        if symbol not in self.buffers or self.is_boundary(symbol) or self.symbols(call).count(symbol) != 1:
            return None
        users = self.users[symbol]
        if len(users) != 2 or users[1] is not call:
            return None
        producer = users[0]
        nest = self.nest(producer)
        if nest is None or self.symbol(producer, "out") != symbol or self.symbols(producer).count(symbol) != 1:
            return None
        between = self.calls[self.order[producer] + 1 : self.order[call]]
        reads = set(self.symbols(producer)) - {symbol}
        if any(self.output(c) is None or self.output(c) in reads for c in between):
            return None
        return producer

    def output(self, call: CallOp) -> str | None:
        """The buffer that a call writes, where its kernel is a nest."""
        first = self.kernel(call).body.block.first_op
        if not isinstance(first, NestOp):
            return None
        return self.symbols(call)[first.nest.data.index_of("out")]


def fuse_calls(program: Program, producer: CallOp, consumer: CallOp, nest: Nest, read: str = "x") -> None:
    """One call in the consumer's place.

    `nest` has the producer's operands but `out`, then the consumer's but `read` and `out`, then `out`.
    """
    buffer, write = program.symbol(consumer, read), program.symbol(consumer, "out")
    symbols = [*program.operands(producer, ("out",)), *program.operands(consumer, (read, "out")), write]
    replace_kernel(program, program.kernel(producer), nest, symbols)
    attributes = dict(consumer.attributes)
    for name in ("layers", "ops"):
        attributes[name] = ArrayAttr([*_array(producer, name), *_array(consumer, name)])
    for name in ("op", "macs", "input_shape", "nonnegative"):
        attributes.pop(name, None)
        if name in producer.attributes:
            attributes[name] = producer.attributes[name]
    call = CallOp.create(
        properties={"callee": producer.callee, "arguments": ArrayAttr([SymbolRefAttr(s) for s in symbols])},
        attributes=attributes,
        location=consumer.location,
    )
    block = consumer.parent
    assert block is not None
    block.insert_op_before(call, consumer)
    kernel = program.kernels.pop(consumer.callee.root_reference.data)
    for op in (producer, consumer, kernel, program.buffers.pop(buffer)):
        op.detach()
        op.erase(safe_erase=False)
    program.forget()


def _array(call: CallOp, name: str) -> Sequence[Attribute]:
    value = call.attributes.get(name)
    return list(value) if isinstance(value, ArrayAttr) else []


def replace_kernel(program: Program, kernel: KernelOp, nest: Nest, symbols: Sequence[str]) -> None:
    """Gives a kernel another nest; `symbols` are its operands' buffers and data."""
    block = Block(arg_types=[PointerType()] * len(nest.operands))
    for arg, operand in zip(block.args, nest.operands, strict=True):
        arg.name_hint = operand.role
    block.add_op(NestOp.build(operands=[list(block.args)], properties={"nest": NestAttr(nest)}))
    spaces = [StringAttr("const" if s in program.data else "arena") for s in symbols]
    kernel.properties["spaces"] = ArrayAttr(spaces)
    region = kernel.body
    old = region.block
    region.detach_block(old)
    old.erase(safe_erase=False)
    region.add_block(block)
