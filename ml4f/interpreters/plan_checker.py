"""Checks a memory plan by executing all address arithmetic of the final loops, without the values.

Every word of the arena remembers which element of which buffer was stored there last; every load must find the element
that it is meant to load, and at the end the outputs must be whole. Independent of the planner: it looks at kernels in
pointer form, not at nests and schedules, and compares identities, not lifetimes. Loops whose pointers advance by
constants are executed twice and continued by extrapolation: exact, as all addresses are affine in the pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.ir import Block, SSAValue

from ml4f.dialects.loop import values as v
from ml4f.dialects.loop.structure import (
    BufferOp,
    CallOp,
    DataOp,
    ForOp,
    KernelOp,
    NestOp,
    ProgramOp,
    RepeatOp,
    YieldOp,
)
from ml4f.errors import InternalError, ValidationError

WORD = 4
NOBODY = -1
"""The owner of a word that was never stored to."""

Pair = tuple[int, int]
Pointer = tuple[int, int]
"""(argument of the kernel, bytes from it)."""


@dataclass(frozen=True)
class Stream:
    """Accesses in order: which argument, how many bytes from it, whether it is a store."""

    arguments: np.ndarray
    addresses: np.ndarray
    stores: np.ndarray

    @staticmethod
    def concatenate(parts: Sequence[Stream]) -> Stream:
        if len(parts) == 1:
            return parts[0]
        empty = Stream(np.zeros(0, np.int16), np.zeros(0, np.int64), np.zeros(0, bool))
        parts = [empty, *parts]
        return Stream(
            np.concatenate([p.arguments for p in parts]),
            np.concatenate([p.addresses for p in parts]),
            np.concatenate([p.stores for p in parts]),
        )


class _Execution:
    """The accesses of one call of a kernel to the arena; `data`: contents of constant arguments."""

    def __init__(self, kernel: KernelOp, data: dict[int, bytes]):
        self.data = data
        self.values: dict[SSAValue, Pointer | int] = {arg: (i, 0) for i, arg in enumerate(kernel.body.block.args)}
        self.in_arena = [space.data == "arena" for space in kernel.spaces]
        self.read_data = False
        self.same: set[Pair] = set()
        """Arguments that are reached with pointers of others, which must have the same address."""
        self.stream = self.block(kernel.body.block)

    def pointer(self, value: SSAValue) -> Pointer:
        pointer = self.values[value]
        assert isinstance(pointer, tuple)
        return pointer

    def number(self, value: SSAValue) -> int:
        number = self.values[value]
        assert isinstance(number, int)
        return number

    def block(self, block: Block) -> Stream:
        parts: list[Stream] = []
        pending: list[tuple[int, int, bool]] = []

        def flush() -> None:
            if pending:
                arguments, addresses, stores = zip(*pending, strict=True)
                parts.append(Stream(np.array(arguments, np.int16), np.array(addresses, np.int64), np.array(stores)))
                pending.clear()

        for op in block.ops:
            if isinstance(op, RepeatOp):
                flush()
                parts.append(self.repeat(op))
            elif isinstance(op, v.AccessOp):
                self.access(op, pending)
            elif isinstance(op, v.AdvanceOp):
                argument, at = self.pointer(op.pointer)
                amount = self.number(op.amount) if op.amount is not None else 0
                self.values[op.result] = argument, at + amount + op.offset.value.data
            elif isinstance(op, v.ScaleOp):
                self.values[op.result] = self.number(op.index) * op.factor.value.data
            elif isinstance(op, ForOp | NestOp):
                raise InternalError("plans are checked in pointer form; run loop-lower-addresses first")
        flush()
        return Stream.concatenate(parts)

    def access(self, op: v.AccessOp, pending: list[tuple[int, int, bool]]) -> None:
        argument, at = self.pointer(op.pointer)
        at += op.offset.value.data
        if isinstance(op, v.LoadByteOp):
            self.read_data = True
            self.values[op.result] = self.data[argument][at]
            return
        words = 1
        if isinstance(op, v.LoadMultipleOp):
            words = len(op.values) - (op.advance is not None)
            if op.advance is not None:
                self.values[op.values[-1]] = argument, at + WORD * words
        elif isinstance(op, v.StoreMultipleOp):
            words = len(op.values)
            if op.advanced is not None:
                self.values[op.advanced] = argument, at + WORD * words
        if op.argument is not None:
            self.same.add((op.argument.value.data, argument))
            argument = op.argument.value.data
        if self.in_arena[argument]:
            stores = isinstance(op, v.StoreOp | v.StoreMultipleOp)
            pending.extend((argument, at + WORD * i, stores) for i in range(words))

    def repeat(self, op: RepeatOp) -> Stream:
        count = op.count.value.data if op.count is not None else self.number(op.trip_count)  # pyright: ignore
        body = op.body.block
        carried = [self.values.get(value) for value in op.inits]
        history, streams = [carried], []
        read_before, self.read_data = self.read_data, False
        for done in range(count):
            if done == 2 and not self.read_data and _steady(history):
                streams = [_extrapolate(streams[0], streams[1], count)]
                carried = [_along(a, b, count) for a, b in zip(history[0], history[1], strict=True)]
                break
            for arg, value in zip(body.args, carried, strict=True):
                if value is not None:
                    self.values[arg] = value
            streams.append(self.block(body))
            last = body.last_op
            carried = [self.values.get(value) for value in last.operands] if isinstance(last, YieldOp) else []
            history.append(carried)
        self.read_data = self.read_data or read_before
        for result, value in zip(op.results, carried, strict=True):
            if value is not None:
                self.values[result] = value
        return Stream.concatenate(streams)


def _steady(history: Sequence[Sequence[Pointer | int | None]]) -> bool:
    """Whether each carried pointer moved by the same distance in the first two iterations."""
    return all(b == _along(a, c, 2) for a, c, b in zip(*history[:3], strict=True))


def _along(first: Pointer | int | None, second: Pointer | int | None, steps: int) -> Pointer | int | None:
    """Where a pointer is after `steps` iterations."""
    if isinstance(first, tuple) and isinstance(second, tuple) and first[0] == second[0]:
        return first[0], first[1] + steps * (second[1] - first[1])
    return first if first == second else None


def _extrapolate(first: Stream, second: Stream, count: int) -> Stream:
    difference = second.addresses - first.addresses
    steps = np.arange(count, dtype=np.int64)[:, None]
    return Stream(
        np.tile(first.arguments, count),
        (first.addresses[None, :] + steps * difference[None, :]).ravel(),
        np.tile(first.stores, count),
    )


class _Arena:
    """Owners of all words: `start[buffer] + element`, or `NOBODY`."""

    def __init__(self, buffers: Sequence[BufferOp]):
        self.names = [op.sym_name.data for op in buffers]
        self.sizes = [op.bytes.value.data // WORD for op in buffers]
        places = [op.offset.value.data if op.offset is not None else None for op in buffers]
        if None in places:
            raise InternalError("there is no plan to check; run loop-plan-memory first")
        self.places = [place // WORD for place in places if place is not None]
        self.start = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        words = max((p + n for p, n in zip(self.places, self.sizes, strict=True)), default=0)
        self.owner = np.full(words, NOBODY, dtype=np.int64)

    def own(self, buffer: int) -> tuple[slice, np.ndarray]:
        """Where a buffer lies, and the owners that its words should have."""
        place, size = self.places[buffer], self.sizes[buffer]
        return slice(place, place + size), np.arange(self.start[buffer], self.start[buffer] + size)

    def describe(self, owner: int) -> str:
        if owner == NOBODY:
            return "nothing"
        buffer = max(i for i, start in enumerate(self.start) if start <= owner and self.sizes[i])
        return f"element {owner - self.start[buffer]} of @{self.names[buffer]}"

    def run(self, stream: Stream, buffers: Sequence[int | None], what: str) -> None:
        """All accesses of one call."""
        if not len(stream.addresses):
            return
        lookup = [(0, 0, 0) if b is None else (self.places[b], self.start[b], self.sizes[b]) for b in buffers]
        place, start, size = (np.array(column)[stream.arguments] for column in zip(*lookup, strict=True))
        element = stream.addresses // WORD
        outside = (element < 0) | (element >= size)
        if outside.any():
            at = int(np.argmax(outside))
            raise ValidationError(f"{what}: an access {int(stream.addresses[at])} bytes from a buffer is outside of it")
        word, identity = place + element, start + element
        order = np.argsort(word, kind="stable")
        word, identity, stores = word[order], identity[order], stream.stores[order]
        position = np.arange(len(word))
        begins = np.flatnonzero(np.append(True, word[1:] != word[:-1]))
        latest = np.where(stores, position, NOBODY)
        latest[begins] = np.where(stores[begins], begins, -2 - begins)
        latest = _last_known(latest)
        found = np.where(latest >= 0, identity[np.maximum(latest, 0)], self.owner[word])
        wrong = ~stores & (found != identity)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[np.argmin(order[wrong])])
            wanted, has = self.describe(int(identity[at])), self.describe(int(found[at]))
            raise ValidationError(f"{what}: loads {wanted}, but the word at arena+{WORD * int(word[at])} holds {has}")
        self.owner[word[stores]] = identity[stores]

    def check(self, buffer: int) -> None:
        where, wanted = self.own(buffer)
        wrong = np.flatnonzero(self.owner[where] != wanted)
        if wrong.size:
            first = int(wrong[0])
            has = self.describe(int(self.owner[where][first]))
            raise ValidationError(
                f"at the end element {first} of the output @{self.names[buffer]} is lost: {has} is there"
            )


def _last_known(latest: np.ndarray) -> np.ndarray:
    """For each access the position of the last store to its word so far, negative where there was none in this call.

    `latest` is the position at stores, negative (but not `NOBODY`) where a word's accesses begin with a load, else
    `NOBODY`.
    """
    marks = np.where(latest != NOBODY, np.arange(len(latest)), 0)
    return latest[np.maximum.accumulate(marks)]


def _layer(call: CallOp) -> str:
    names = call.attributes.get("layers")
    listed = [n.data for n in names if isinstance(n, StringAttr)] if isinstance(names, ArrayAttr) else []
    kernel = f"@{call.callee.root_reference.data}"
    return f"layer {'+'.join(listed)} ({kernel})" if listed else kernel


def check_plan(module: ModuleOp) -> None:
    """Raises ValidationError if a kernel of a planned program (in pointer form) loads what another one overwrote."""
    ops = list(module.body.block.ops)
    buffers = [op for op in ops if isinstance(op, BufferOp)]
    numbers = {op.sym_name.data: n for n, op in enumerate(buffers)}
    kernels = {op.sym_name.data: op for op in ops if isinstance(op, KernelOp)}
    data = {op.sym_name.data: op.value.data.data for op in ops if isinstance(op, DataOp)}  # pyright: ignore
    program = next(op for op in ops if isinstance(op, ProgramOp))
    arena = _Arena(buffers)
    for symbol in program.inputs:
        where, identity = arena.own(numbers[symbol.root_reference.data])
        arena.owner[where] = identity
    for call in program.body.block.ops:
        if isinstance(call, CallOp):
            symbols = [a.root_reference.data for a in call.arguments]
            contents = {i: data[s] for i, s in enumerate(symbols) if s in data}
            execution = _Execution(kernels[call.callee.root_reference.data], contents)
            if any(arena.places[numbers[symbols[a]]] != arena.places[numbers[symbols[b]]] for a, b in execution.same):
                raise ValidationError(f"{_layer(call)}: a pointer serves buffers that lie at different places")
            arena.run(execution.stream, [numbers.get(s) for s in symbols], _layer(call))
    for symbol in program.outputs:
        arena.check(numbers[symbol.root_reference.data])
