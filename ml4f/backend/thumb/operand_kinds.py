"""The kinds of operands that Thumb-2 instructions encode: registers, register lists, immediates, conditions, offsets.

A kind turns an operand's value into the bits of its field, back, and into assembler text. Values are plain data:
register numbers, integers, floats, `(first, count)` for consecutive S registers, a bit mask for core registers,
`(shift, amount)`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
"""Condition codes by their encoding (ARM DDI 0403E, table A7-1)."""

SHIFTS = ("lsl", "lsr", "asr", "ror")
"""Shift types by their encoding."""

NO_SHIFT = ("lsl", 0)
"""The shift operand of an instruction that does not shift."""

SP, LR, PC = 13, 14, 15
CORE_NAMES = (*(f"r{i}" for i in range(13)), "sp", "lr", "pc")

FIRST_SINGLE = 16
"""Register ids in read and write sets: core registers are 0 to 15, s0 to s31 are 16 to 47."""


@dataclass(frozen=True)
class Kind:
    """`encode(value, bits)` gives the field or None; `decode(field, bits)` the value or None; `text(value)` the syntax.

    `registers(value)` are the register ids (see `FIRST_SINGLE`) that the operand names.
    """

    encode: Callable[[Any, int], int | None]
    decode: Callable[[int, int], Hashable | None]
    text: Callable[[Any], str]
    registers: Callable[[Any], tuple[int, ...]] = lambda value: ()


# Registers


def _core_decode(field: int, bits: int) -> int | None:
    return None if field in (SP, PC) else field


def _twice(field: int, bits: int) -> int | None:
    return _core_decode(field & 15, 4) if field >> 4 == field & 15 else None


def core_name(register: int) -> str:
    """`r4`, `lr`."""
    return CORE_NAMES[register]


def single_name(register: int) -> str:
    """`s17`."""
    return f"s{register}"


def _core_encode(value: int, bits: int) -> int | None:
    return value if 0 <= value < 1 << bits and value not in (SP, PC) else None


def _one_core(value: int) -> tuple[int, ...]:
    return (value,)


def _one_single(value: int) -> tuple[int, ...]:
    return (FIRST_SINGLE + value,)


def _ranges_text(prefix: str, registers: list[int]) -> str:
    """`{r0, r4-r6, lr}`; a range stays within the numbered registers."""
    parts: list[str] = []
    start = 0
    for index, register in enumerate(registers):
        last = index + 1 == len(registers) or registers[index + 1] != register + 1
        if last or (prefix == "r" and registers[index + 1] > 12):
            names = [CORE_NAMES[r] if prefix == "r" else f"s{r}" for r in (registers[start], register)]
            parts.append(names[0] if start == index else "-".join(names))
            start = index + 1
    return "{" + ", ".join(parts) + "}"


def mask_registers(mask: int) -> tuple[int, ...]:
    """The register numbers in a mask, ascending."""
    return tuple(register for register in range(16) if mask >> register & 1)


def _mask_text(mask: int) -> str:
    return _ranges_text("r", list(mask_registers(mask)))


def _single_list_encode(value: tuple[int, int], bits: int) -> int | None:
    first, count = value
    return first << 8 | count if first >= 0 and 1 <= count <= 32 and first + count <= 32 else None


def _single_list_decode(field: int, bits: int) -> tuple[int, int] | None:
    first, count = field >> 8, field & 255
    return (first, count) if count >= 1 and first + count <= 32 else None


def _mask_kind(extra: int, numbered: int, minimum: int) -> Kind:
    """A core register list: bits 0 to `numbered`-1, plus register `extra` in the bit above them if not negative."""
    allowed = (1 << numbered) - 1

    def encode(mask: int, bits: int) -> int | None:
        low, rest = mask & allowed, mask & ~allowed
        if (rest and (extra < 0 or rest != 1 << extra)) or mask.bit_count() < minimum:
            return None
        return low | ((1 << numbered) if rest else 0)

    def decode(field: int, bits: int) -> int | None:
        mask = (field & allowed) | ((1 << extra) if field >> numbered else 0)
        return mask if mask.bit_count() >= minimum else None

    return Kind(encode, decode, _mask_text, mask_registers)


# Immediates


def _hash(value: Any) -> str:
    return f"#{value}"


def _scaled(scale: int, lowest: int = 0) -> Kind:
    """An unsigned field that counts in units of `scale`, from `lowest`."""

    def encode(value: int, bits: int) -> int | None:
        units, rest = divmod(value - lowest, scale)
        return units if not rest and 0 <= units < 1 << bits else None

    return Kind(encode, lambda field, bits: field * scale + lowest, _hash)


def _offset_text(offset: int) -> str:
    return f", #{offset}" if offset else ""


def _offset(scale: int) -> Kind:
    """An unsigned memory offset, printed with its comma."""
    plain = _scaled(scale)
    return Kind(plain.encode, plain.decode, _offset_text)


def _signed_offset(scale: int) -> Kind:
    """The U bit, then the magnitude in units of `scale`."""

    def encode(value: int, bits: int) -> int | None:
        units, rest = divmod(abs(value), scale)
        return (value >= 0) << bits - 1 | units if not rest and units < 1 << bits - 1 else None

    def decode(field: int, bits: int) -> int | None:
        units = field & (1 << bits - 1) - 1
        if field >> bits - 1:
            return units * scale
        return -units * scale if units else None

    return Kind(encode, decode, _offset_text)


def modified_immediate(value: int) -> int | None:
    """The 12-bit i:imm3:imm8 field of a constant (ThumbExpandImm, ARM DDI 0403E A5.3.2), or None."""
    value &= 0xFFFFFFFF
    if value < 256:
        return value
    low, second = value & 255, value >> 8 & 255
    if value == low * 0x00010001:
        return 0x100 | low
    if value == second * 0x01000100:
        return 0x200 | second
    if value == low * 0x01010101:
        return 0x300 | low
    rotation = 8 + (32 - value.bit_length())
    byte = (value << rotation | value >> 32 - rotation) & 0xFFFFFFFF
    return rotation << 7 | byte & 0x7F if byte < 256 else None


def expand_immediate(field: int) -> int | None:
    """The inverse of `modified_immediate`."""
    byte = field & 255
    if field >> 10 == 0:
        pattern = field >> 8
        if pattern and not byte:
            return None
        return byte * (1, 0x00010001, 0x01000100, 0x01010101)[pattern]
    rotation, byte = field >> 7, 0x80 | field & 0x7F
    return (byte >> rotation | byte << 32 - rotation) & 0xFFFFFFFF


def _modified(value: int, bits: int) -> int | None:
    return modified_immediate(value) if -(1 << 31) <= value < 1 << 32 else None


def _inverted(value: int, bits: int) -> int | None:
    return _modified(~value & 0xFFFFFFFF, bits) if -(1 << 31) <= value < 1 << 32 else None


def _inverted_expand(field: int, bits: int) -> int | None:
    value = expand_immediate(field)
    return None if value is None else ~value & 0xFFFFFFFF


def _halfword_encode(value: int, bits: int) -> int | None:
    """i:imm3:imm8, then imm4, which is the most significant part of the constant."""
    return (value & 0xFFF) << 4 | value >> 12 if 0 <= value < 1 << 16 else None


def _halfword_decode(field: int, bits: int) -> int:
    return (field & 15) << 12 | field >> 4


def _unsigned32_text(value: int) -> str:
    return f"#{value & 0xFFFFFFFF}"


def _inverted_text(value: int) -> str:
    return f"#{~value & 0xFFFFFFFF}"


def float_immediate(value: float) -> int | None:
    """The 8-bit VFP immediate of a float (VFPExpandImm, ARM DDI 0403E A7.5.1), or None."""
    try:
        word = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return None
    if struct.unpack("<f", struct.pack("<I", word))[0] != value or word & 0x7FFFF:
        return None
    exponent = word >> 25 & 0x3F
    if exponent not in (0x1F, 0x20):
        return None
    return word >> 24 & 0x80 | (exponent & 1) << 6 | word >> 19 & 0x3F


def _float_expand(field: int, bits: int) -> float:
    exponent = 0x1F if field & 0x40 else 0x20
    word = (field & 0x80) << 24 | exponent << 25 | (field & 0x3F) << 19
    return struct.unpack("<f", struct.pack("<I", word))[0]


# Shifts, conditions, branches


def _shift_encode(value: tuple[str, int], bits: int) -> int | None:
    kind, amount = value
    if value == NO_SHIFT:
        return 0
    longest = {"lsl": 31, "lsr": 32, "asr": 32, "ror": 31}.get(kind, 0)
    return SHIFTS.index(kind) << 5 | amount & 31 if 1 <= amount <= longest else None


def _shift_decode(field: int, bits: int) -> tuple[str, int] | None:
    kind, amount = SHIFTS[field >> 5], field & 31
    if amount or kind == "lsl":
        return kind, amount
    return None if kind == "ror" else (kind, 32)


def _shift_text(value: tuple[str, int]) -> str:
    return "" if value == NO_SHIFT else f", {value[0]} #{value[1]}"


def _branch_encode(value: int, bits: int) -> int | None:
    """A displacement from the instruction's address plus 4, in halfwords, two's complement."""
    if value & 1 or not -(1 << bits) <= value < 1 << bits:
        return None
    return value >> 1 & (1 << bits) - 1


def _branch_decode(field: int, bits: int) -> int:
    return (field - (1 << bits) if field >> bits - 1 else field) * 2


def _branch_text(value: int) -> str:
    return f".{value + 4:+d}"


def _long_branch_encode(value: int, bits: int) -> int | None:
    """S:J1:J2:imm21 where I1 = NOT(J1 XOR S), I2 = NOT(J2 XOR S)."""
    field = _branch_encode(value, bits)
    return None if field is None else _swap_long(field)


def _swap_long(field: int) -> int:
    sign = field >> 23
    return field ^ (0 if sign else 0b11 << 21)


KINDS: dict[str, Kind] = {
    # r: core register; l: r0-r7 (a 3-bit field); rr: core register whose number stands twice; s: S register;
    # pair: two consecutive S registers
    "r": Kind(_core_encode, _core_decode, core_name, _one_core),
    "l": Kind(_core_encode, _core_decode, core_name, _one_core),
    "rr": Kind(lambda v, b: None if _core_encode(v, 4) is None else v << 4 | v, _twice, core_name, _one_core),
    "s": Kind(lambda v, b: v if 0 <= v < 32 else None, lambda f, b: f, single_name, _one_single),
    "pair": Kind(
        lambda v, b: v if 0 <= v < 31 else None,
        lambda f, b: f if f < 31 else None,
        lambda v: f"s{v}, s{v + 1}",
        lambda v: (FIRST_SINGLE + v, FIRST_SINGLE + v + 1),
    ),
    "slist": Kind(
        _single_list_encode,
        _single_list_decode,
        lambda v: _ranges_text("s", list(range(v[0], v[0] + v[1]))),
        lambda v: tuple(range(FIRST_SINGLE + v[0], FIRST_SINGLE + v[0] + v[1])),
    ),
    # core register lists: r0-r7; the same with lr, with pc; r0-r12 and lr; for a pop r0-r12, lr, pc (in that bit order)
    "lows": _mask_kind(-1, 8, 1),
    "lows_lr": _mask_kind(LR, 8, 1),
    "lows_pc": _mask_kind(PC, 8, 1),
    "cores": Kind(
        lambda v, b: v if not v & ~0x5FFF and v.bit_count() >= 2 else None,
        lambda f, b: f if not f & 0xA000 and f.bit_count() >= 2 else None,
        _mask_text,
        mask_registers,
    ),
    "cores_pc": Kind(
        lambda v, b: v if not v & ~0xDFFF and v.bit_count() >= 2 and v >> 14 != 3 else None,
        lambda f, b: f if not f & 0x2000 and f.bit_count() >= 2 and f >> 14 != 3 else None,
        _mask_text,
        mask_registers,
    ),
    # immediates: u: unsigned; n: unsigned and not 0; u1: from 1; x4: in words; zero: no field at all
    "u": _scaled(1),
    "n": Kind(lambda v, b: v if 0 < v < 1 << b else None, lambda f, b: f or None, _hash),
    "u1": _scaled(1, 1),
    "x4": _scaled(4),
    "zero": Kind(lambda v, b: 0 if v == 0 else None, lambda f, b: 0, _hash),
    "c32": Kind(lambda v, b: v & 31 if 1 <= v <= 32 else None, lambda f, b: f or 32, _hash),
    "wide": Kind(_halfword_encode, _halfword_decode, _hash),
    "mod": Kind(_modified, lambda f, b: expand_immediate(f), _unsigned32_text),
    "inv": Kind(_inverted, _inverted_expand, _inverted_text),
    "f8": Kind(lambda v, b: float_immediate(v), _float_expand, _hash),
    # memory offsets, printed with the comma: unsigned in bytes, halfwords, words; below zero; signed with a U bit
    "o1": _offset(1),
    "o2": _offset(2),
    "o4": _offset(4),
    "below": Kind(lambda v, b: -v if 0 < -v < 1 << b else None, lambda f, b: -f if f else None, _offset_text),
    "so1": _signed_offset(1),
    "so4": _signed_offset(4),
    # shift of a second operand; none
    "shift": Kind(_shift_encode, _shift_decode, _shift_text),
    "unshifted": Kind(lambda v, b: 0 if v == NO_SHIFT else None, lambda f, b: NO_SHIFT, _shift_text),
    # condition codes; branch displacements
    "cond": Kind(lambda v, b: v if 0 <= v < 14 else None, lambda f, b: f if f < 14 else None, CONDITIONS.__getitem__),
    "disp": Kind(_branch_encode, _branch_decode, _branch_text),
    "long": Kind(_long_branch_encode, lambda f, b: _branch_decode(_swap_long(f), b), _branch_text),
}
