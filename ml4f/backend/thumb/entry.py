"""Where the entry function keeps the addresses of the object and the arena, and how calls get their arguments.

Both arrive in r0 and r1. Where two registers are left that nothing overwrites as long as they are needed, they stay in
registers, else in the frame, from where every argument loads them. Plain data: registers are numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml4f.backend.thumb.encoding import Part, addition_steps
from ml4f.dialects.thumb.core_ops import AddImmOp, MovOp

Base = Literal["object", "arena"]
ENTRY_REGISTERS: dict[Base, int] = {"object": 0, "arena": 1}
"""Where the caller passes them."""
CALLEE_SAVED = range(4, 12)
FREE = (12, 3, 2, 1, 0)
"""Registers that need no saving."""


@dataclass(frozen=True)
class Argument:
    """What a call wants in a register: `base + amount`, amount >= 0 in bytes."""

    register: int
    base: Base
    amount: int


@dataclass(frozen=True)
class CallNeeds:
    """A call's arguments, and the core registers that the kernel may change."""

    arguments: tuple[Argument, ...]
    written: frozenset[int]


def kept_registers(calls: Sequence[CallNeeds]) -> dict[Base, int] | None:
    """Registers that hold both addresses until the last call has its arguments; None if there are not enough.

    A single call takes them from where they arrive.
    """
    if len(calls) < 2:
        return dict(ENTRY_REGISTERS)
    taken = {a.register for call in calls for a in call.arguments}
    taken.update(*(call.written for call in calls[:-1]))
    left = [register for register in (*FREE, *CALLEE_SAVED) if register not in taken]
    return {"object": left[0], "arena": left[1]} if len(left) > 1 else None


def initial_moves(kept: Mapping[Base, int]) -> list[Part]:
    """From where the addresses arrive to where they are kept."""
    pending = {kept[base]: (register, 0) for base, register in ENTRY_REGISTERS.items()}
    return _parallel(pending, set(kept.values()) | set(ENTRY_REGISTERS.values()))


def argument_moves(call: CallNeeds, kept: Mapping[Base, int]) -> list[Part]:
    """A call's arguments from the registers of the addresses, which they may overwrite if it is the only call."""
    pending = {a.register: (kept[a.base], a.amount) for a in call.arguments}
    return _parallel(pending, set(pending) | set(kept.values()))


def _parallel(pending: dict[int, tuple[int, int]], used: Collection[int]) -> list[Part]:
    """Sums `target = source + amount` as if all were computed at once; a register that is not in use breaks cycles."""
    parts: list[Part] = []
    pending = {t: s for t, s in pending.items() if s != (t, 0)}
    while pending:
        free = [t for t in pending if all(t != source for other, (source, _) in pending.items() if other != t)]
        if free:
            target = max(free)
            parts += _sum(target, *pending.pop(target))
            continue
        blocked = min(pending)
        spare = next(register for register in (*FREE, *CALLEE_SAVED) if register not in used)
        parts.append(Part(MovOp.FORM, (spare, blocked)))
        pending = {t: (spare if source == blocked else source, amount) for t, (source, amount) in pending.items()}
    return parts


def _sum(target: int, source: int, amount: int) -> list[Part]:
    steps = addition_steps(amount)
    if not steps:
        return [Part(MovOp.FORM, (target, source))]
    first, *rest = steps
    return [Part(AddImmOp.FORM, (target, source, first)), *(Part(AddImmOp.FORM, (target, target, s)) for s in rest)]
