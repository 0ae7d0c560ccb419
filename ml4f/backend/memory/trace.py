"""When a kernel touches each element of its buffers: the order of its loads and stores, from nest and schedule.

The nest is expanded by the same code that creates its operations, into a tree of loops and accesses. Every access gets
a slot, an affine function of the loops' iterations; each element's first store, last store and last load follow by
enumerating the addresses. Loops that an address does not depend on are not enumerated: only their first or last
iteration counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ml4f.backend.loop.borders import bounds_table, with_bounds
from ml4f.backend.loop.builder import Address, Terms
from ml4f.backend.loop.expand import expand
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.errors import InternalError

WORD = 4
NEVER = -1
"""The slot of what does not happen."""


@dataclass(frozen=True)
class Touches:
    """For each word of one operand's buffer: slots of its first store, last store and last load, or `NEVER`."""

    first_store: np.ndarray
    last_store: np.ndarray
    last_load: np.ndarray


@dataclass(frozen=True)
class Trace:
    """All accesses of a kernel's operands (by index) in buffers; slots run from 0 to `slots` - 1."""

    slots: int
    operands: dict[int, Touches]


@dataclass(eq=False)
class _Loop:
    """A loop, and at the same time its induction variable. `bounds`: addresses of first point and count in a table."""

    count: int
    first_slot: int
    parent: _Loop | None
    bounds: tuple[Address, Address] | None = None
    slots: int = 0


@dataclass
class _Group:
    """Accesses in the same loops with the same strides."""

    offsets: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


Key = tuple[int, bool, "_Loop | None", Terms]
"""(operand, is a store, innermost loop, terms)."""


class _Recorder:
    """A `Builder` that records accesses of the operands `wanted`; values are None, loaded bytes are their addresses."""

    def __init__(self, wanted: frozenset[int], extents: Mapping[str, int]):
        self.wanted = wanted
        self.extents = extents
        self.loop: _Loop | None = None
        self.slot = 0
        self.groups: defaultdict[Key, _Group] = defaultdict(_Group)

    def __getattr__(self, name: str) -> Any:
        """Arithmetic touches nothing. An access that is not recorded would make wrong plans, so it is an error."""
        if name.startswith(("load", "store")):
            raise AttributeError(f"the trace does not know the access {name}")
        setattr(self, name, self._nothing)
        return self._nothing

    @staticmethod
    def _nothing(*_: Any) -> None:
        return None

    def bits_pair(self, a: Any, b: Any) -> tuple[None, None]:
        return None, None

    def _touch(self, address: Address, is_store: bool, count: int = 1) -> None:
        if address.operand in self.wanted:
            group = self.groups[address.operand, is_store, self.loop, address.terms]
            for i in range(count):
                group.offsets.append(address.offset + WORD * i)
                group.slots.append(self.slot)
        self.slot += 1

    def load(self, address: Address, kind: str) -> None:
        self._touch(address, False)

    def load_byte(self, address: Address) -> Address:
        return address

    def load_multiple(self, address: Address, count: int) -> Sequence[None]:
        self._touch(address, False, count)
        return [None] * count

    def store(self, address: Address, value: Any) -> None:
        self._touch(address, True)

    def store_multiple(self, address: Address, values: Sequence[Any]) -> None:
        self._touch(address, True, len(values))

    def begin_loop(
        self, count: int | None, trip_count: Any, lower: Any, inits: Sequence[Any], label: str
    ) -> tuple[_Loop, Sequence[None]]:
        bounds = (lower, trip_count) if count is None else None
        loop = _Loop(count if count is not None else self.extents[label], self.slot, self.loop, bounds)
        self.loop, self.slot = loop, 0
        return loop, [None] * len(inits)

    def end_loop(self, yields: Sequence[Any]) -> Sequence[None]:
        loop = self.loop
        assert loop is not None
        loop.slots = max(self.slot, 1)
        self.loop, self.slot = loop.parent, loop.first_slot + loop.count * loop.slots
        return [None] * len(yields)


def _enclosing(loop: _Loop | None) -> list[_Loop]:
    chain = []
    while loop is not None:
        chain.append(loop)
        loop = loop.parent
    return chain[::-1]


class _Grid:
    """The iterations of some loops as flat arrays."""

    def __init__(self, loops: Sequence[_Loop]):
        shape = [loop.count for loop in loops]
        index = np.indices(shape, dtype=np.int64).reshape(len(shape), -1) if shape else np.zeros((0, 1), np.int64)
        self.size = index.shape[1]
        self.index = dict(zip(loops, index, strict=True))

    def affine(self, terms: Terms) -> np.ndarray:
        value = np.zeros(self.size, dtype=np.int64)
        for loop, stride in terms:
            value = value + stride * self.index[loop]
        return value

    def runs(self, loops: Sequence[_Loop], table: np.ndarray) -> np.ndarray:
        """Which iterations happen, where loops take their bounds from `table`."""
        happens = np.ones(self.size, dtype=bool)
        for loop in loops:
            if loop.bounds is not None:
                lower, count = (table[a.offset + self.affine(a.terms)] for a in loop.bounds)
                happens &= (self.index[loop] >= lower) & (self.index[loop] < lower + count)
        return happens


def _enumerate(key: Key, group: _Group, table: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """(words, slots) of a group's accesses; loops that do not matter stand at their last or first iteration."""
    _, _, innermost, terms = key
    chain = _enclosing(innermost)
    needed = {loop for loop, stride in terms if stride}
    for loop in chain:
        if loop.bounds is not None:
            needed |= {loop, *(variable for address in loop.bounds for variable, _ in address.terms)}
    loops = [loop for loop in chain if loop in needed]
    grid = _Grid(loops)
    slot = grid.affine(tuple((loop, loop.slots) for loop in loops))
    slot += sum(
        loop.first_slot + (0 if loop in needed or not last else (loop.count - 1) * loop.slots) for loop in chain
    )
    places = grid.affine(terms)
    if any(loop.bounds is not None for loop in chain):
        happens = grid.runs(chain, table)
        places, slot = places[happens], slot[happens]
    words = np.add.outer(np.asarray(group.offsets), places).ravel() // WORD
    slots = np.add.outer(np.asarray(group.slots), slot).ravel()
    return words, slots


def _without_weights(nest: Nest, schedule: Schedule, followed: Set[int]) -> Nest:
    """A nest that touches everything but weights in the same order, and is expanded in half the time.

    Rolled kernels hold their weights in registers and cannot do without; weights in the arena are followed.
    """
    weights = {i for i, o in enumerate(nest.operands) if o.role in ("w", "bias")}
    if schedule.roll is not None or not nest.has("w") or weights & followed:
        return nest
    operands = tuple(o if o.role not in ("w", "bias") else replace(o, role=f"no_{o.role}") for o in nest.operands)
    return replace(nest, combine="add", operands=operands)


@lru_cache(maxsize=512)
def _trace(nest: Nest, schedule: Schedule, sizes: tuple[tuple[int, int], ...]) -> Trace:
    recorder = _Recorder(frozenset(operand for operand, _ in sizes), nest.extents)
    table = np.frombuffer(bounds_table(nest, schedule), np.uint8).astype(np.int64)
    nest = with_bounds(nest, schedule)
    expand(_without_weights(nest, schedule, {operand for operand, _ in sizes}), schedule, recorder)  # pyright: ignore[reportArgumentType]
    touches = {operand: Touches(*(np.full(words, NEVER, dtype=np.int64) for _ in range(3))) for operand, words in sizes}
    never_stored = {operand: np.full(words, np.iinfo(np.int64).max) for operand, words in sizes}
    for key, group in recorder.groups.items():
        operand, is_store = key[0], key[1]
        words, slots = _enumerate(key, group, table, last=True)
        if words.size and not 0 <= words.min() <= words.max() < len(touches[operand].last_load):
            raise InternalError(f"operand {nest.operands[operand].role} is accessed outside of its buffer")
        target = touches[operand].last_store if is_store else touches[operand].last_load
        np.maximum.at(target, words, slots)
        if is_store:
            words, slots = _enumerate(key, group, table, last=False)
            np.minimum.at(never_stored[operand], words, slots)
    for operand, first in never_stored.items():
        stored = touches[operand].last_store != NEVER
        touches[operand].first_store[stored] = first[stored]
    return Trace(max(recorder.slot, 1), touches)


def trace(nest: Nest, schedule: Schedule, sizes: Mapping[int, int]) -> Trace:
    """The trace of a kernel; `sizes`: words of the buffers of those operands (by index) that are to be followed."""
    return _trace(nest, schedule, tuple(sorted(sizes.items())))


def opaque_trace(sizes: Mapping[int, int]) -> Trace:
    """Of a kernel that nothing is known of: it may store everything at once and load everything at the end."""

    def constant(words: int, slot: int) -> np.ndarray:
        return np.full(words, slot, dtype=np.int64)

    return Trace(2, {o: Touches(constant(n, 0), constant(n, 1), constant(n, 1)) for o, n in sizes.items()})
