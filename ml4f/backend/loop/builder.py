"""What expansion writes to: a builder of operations, and the addresses it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ml4f.backend.loop.elementary import Emitter

Value = Any
"""A value of the builder: an SSA value, or whatever a pricing builder uses."""

Terms = tuple[tuple[Any, int], ...]
"""((induction variable, stride), …)."""


class Address(NamedTuple):
    """Bytes from the pointer of operand `operand`: `offset + sum(stride * variable)`."""

    operand: int
    offset: int
    terms: Terms


class Builder(Emitter, Protocol):
    """What expansion needs beyond the elementary operations."""

    def load(self, address: Address, kind: str) -> Value: ...
    def load_byte(self, address: Address) -> Value: ...
    def load_multiple(self, address: Address, count: int) -> Sequence[Value]: ...
    def store(self, address: Address, value: Value) -> None: ...
    def store_multiple(self, address: Address, values: Sequence[Value]) -> None: ...
    def begin_loop(
        self, count: int | None, trip_count: Value, lower: Value, inits: Sequence[Value], label: str
    ) -> tuple[Value, Sequence[Value]]: ...
    def end_loop(self, yields: Sequence[Value]) -> Sequence[Value]: ...
    def fmax(self, a: Value, b: Value) -> Value: ...
    def fmin(self, a: Value, b: Value) -> Value: ...
    def imax(self, a: Value, b: Value) -> Value: ...
    def relu_bits(self, a: Value) -> Value: ...
    def bits_pair(self, a: Value, b: Value) -> tuple[Value, Value]: ...
    def half_low(self, a: Value) -> Value: ...
    def half_high(self, a: Value) -> Value: ...


class ScheduleError(Exception):
    """The schedule cannot execute the nest; the message says why."""


class Interleaved:
    """An emitter over tuples of values: each operation is emitted for every element in turn."""

    def __init__(
        self,
        builder: Builder,
        width: int,
        constants: dict[float, Value] | None,
        int_constants: dict[int, Value] | None = None,
    ):
        self._builder = builder
        self._width = width
        self._constants = constants
        self._int_constants = int_constants if int_constants is not None else {}

    def constant(self, x: float) -> Any:
        if self._constants is not None:
            if x not in self._constants:
                self._constants[x] = self._builder.constant(x)
            return (self._constants[x],) * self._width
        return (self._builder.constant(x),) * self._width

    def int_constant(self, x: int) -> Any:
        if x not in self._int_constants:
            self._int_constants[x] = self._builder.int_constant(x)
        return (self._int_constants[x],) * self._width

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._builder, name)

        def emit(*args: Any) -> Any:
            return tuple(method(*(a[i] if isinstance(a, tuple) else a for a in args)) for i in range(self._width))

        return emit


def summed(terms: Iterable[tuple[Any, int]]) -> Terms:
    """One term for each variable, none with stride 0."""
    strides: list[tuple[Any, int]] = []
    for variable, stride in terms:
        for i, (other, known) in enumerate(strides):
            if other is variable:
                strides[i] = (other, known + stride)
                break
        else:
            strides.append((variable, stride))
    return tuple(t for t in strides if t[1])


def runs(addresses: Sequence[Address]) -> list[tuple[Address, int]]:
    """Maximal runs of consecutive words, at most 16 each, in the given order."""
    runs: list[tuple[Address, int]] = []
    for address in addresses:
        if runs:
            first, count = runs[-1]
            if address.terms == first.terms and address.offset == first.offset + 4 * count and count < 16:
                runs[-1] = (first, count + 1)
                continue
        runs.append((address, 1))
    return runs
