"""Compiles within a budget of flash and RAM, trading cycles for bytes, and says what was traded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ml4f.backend.thumb.object_code import ObjectCode
from ml4f.errors import Ml4fError
from ml4f.machine import Machine
from ml4f.profile import profile, typical_input

SMALLER_TILES = (4, 3, 2, 1)
"""Tiles of at most so many pixels: the narrower, the closer an output follows the input that it overwrites."""
ROUNDS = 6
"""The search knows code bytes by an estimate; so often what is still missing is asked for again."""


@dataclass(frozen=True)
class Tuning:
    """What the schedule search is asked for besides its goal: bytes of code, pixels of a tile; 0 is no limit.

    `frugal`: no code is spent on a smaller arena.
    """

    max_code: int = 0
    max_pixels: int = 0
    frugal: bool = False


NO_TUNING = Tuning()


def within_limits(
    name: str, max_flash: int, max_ram: int, build: Callable[[Tuning], ObjectCode], float16: bool
) -> tuple[ObjectCode, tuple[str, ...]]:
    """The object, and notes on what was traded; 0 is no limit. Raises Ml4fError where a budget cannot be kept."""
    first = code = build(NO_TUNING)
    tuning = NO_TUNING
    if max_ram and _arena(code) > max_ram:
        code, tuning = _less_ram(code, max_ram, build)
        if _arena(code) > max_ram:
            raise Ml4fError(
                f"{name}: --max-ram {max_ram}: the arena needs {_arena(code)} bytes at least; "
                "a smaller input, fewer channels, or pooling or strides in an earlier layer would help"
            )
    if max_flash and code.header.object_bytes > max_flash:
        code = _less_flash(code, max_flash, tuning, build)
        if code.header.object_bytes > max_flash:
            raise Ml4fError(f"{name}: --max-flash {max_flash}: {_unreachable_flash(code, float16)}")
        if max_ram and _arena(code) > max_ram:
            raise Ml4fError(
                f"{name}: --max-ram {max_ram} and --max-flash {max_flash} cannot be kept together: with code for "
                f"{code.header.object_bytes} bytes of flash the arena needs {_arena(code)} bytes"
            )
    return code, () if code is first else (_traded(name, first, code),)


def _arena(code: ObjectCode) -> int:
    return code.header.arena_bytes


def _less_ram(code: ObjectCode, limit: int, build: Callable[[Tuning], ObjectCode]) -> tuple[ObjectCode, Tuning]:
    """The first narrower tiles that keep the limit, or those with the smallest arena."""
    best, best_tuning = code, NO_TUNING
    for pixels in SMALLER_TILES:
        tuning = Tuning(max_pixels=pixels)
        tried = build(tuning)
        if _arena(tried) < _arena(best):
            best, best_tuning = tried, tuning
        if _arena(best) <= limit:
            break
    return best, best_tuning


def _less_flash(code: ObjectCode, limit: int, tuning: Tuning, build: Callable[[Tuning], ObjectCode]) -> ObjectCode:
    """Ask for less code until the object fits, or does not get smaller any more; at last without any for the arena."""
    for frugal in (False, True):
        code = _less_code(code, limit, replace(tuning, frugal=frugal), build)
        if code.header.object_bytes <= limit:
            break
    return code


def _less_code(code: ObjectCode, limit: int, tuning: Tuning, build: Callable[[Tuning], ObjectCode]) -> ObjectCode:
    wanted = code.code_bytes
    for _ in range(ROUNDS):
        excess = code.header.object_bytes - limit
        if excess <= 0:
            break
        wanted = max(wanted - excess, 1)
        tried = build(replace(tuning, max_code=wanted))
        if tried.code_bytes >= code.code_bytes and wanted == 1:
            break
        code = tried if tried.code_bytes < code.code_bytes else code
    return code


def _unreachable_flash(code: ObjectCode, float16: bool) -> str:
    needed, weights = code.header.object_bytes, code.weight_bytes
    text = f"{needed} bytes are needed at least, {weights} of them weights and {code.code_bytes} code; "
    if float16:
        return text + "fewer filters or units would help"
    return text + f"--float16 would save about {weights // 2} bytes"


def _traded(name: str, before: ObjectCode, after: ObjectCode) -> str:
    """What changed: bytes of code and arena, and cycles."""
    cycles = [_cycles(name, code) for code in (before, after)]
    parts = []
    for what, old, new in (
        ("code", before.code_bytes, after.code_bytes),
        ("arena", before.header.arena_bytes, after.header.arena_bytes),
    ):
        if old != new:
            parts.append(f"{what} {new} instead of {old} bytes")
    change = 100 * (cycles[1] / cycles[0] - 1)
    return f"traded to keep the limits: {', '.join(parts)}, for {change:+.1f} % cycles ({cycles[1]})"


def _cycles(name: str, code: ObjectCode) -> int:
    machine = Machine(code.binary, name)
    return profile(machine, typical_input(machine)).total
