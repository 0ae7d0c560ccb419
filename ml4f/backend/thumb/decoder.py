"""From bytes back to instructions, by the same rows that encode."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ml4f.backend.thumb.control_forms import CONTROL_FORMS
from ml4f.backend.thumb.encoding import Form, Row, Values, rows_of
from ml4f.errors import InternalError

FIRST_WIDE = 0b11101
"""The upper five bits of the first halfword of a 32-bit instruction are this or more (ARM DDI 0403E, A5.1)."""


class Decoded(NamedTuple):
    """One instruction at an address."""

    address: int
    row: Row
    values: Values

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.row.size


@lru_cache(maxsize=1)
def all_forms() -> tuple[Form, ...]:
    """Every form that the back end encodes with."""
    from ml4f.dialects.thumb import INSTRUCTION_OPS
    from ml4f.dialects.thumb.bundles import CMN_IMM, CMP, CMP_IMM, IT, VCMP, VMRS

    return (*CONTROL_FORMS, *(op.FORM for op in INSTRUCTION_OPS), CMP, CMP_IMM, CMN_IMM, IT, VCMP, VMRS)


@lru_cache(maxsize=1)
def _tables() -> dict[int, dict[int, dict[int, list[Row]]]]:
    """Rows by size, then by mask, then by value: one look-up a mask."""
    tables: dict[int, dict[int, dict[int, list[Row]]]] = {2: {}, 4: {}}
    for row in rows_of(all_forms()):
        tables[row.size].setdefault(row.mask, {}).setdefault(row.value, []).append(row)
    return {size: dict(sorted(masks.items(), key=lambda item: -item[0].bit_count())) for size, masks in tables.items()}


@lru_cache(maxsize=65536)
def _decode_word(word: int, size: int) -> tuple[Row, Values] | None:
    for mask, rows in _tables()[size].items():
        for row in rows.get(word & mask, ()):
            values = row.decode(word)
            if values is not None and row.encode(values) == word:
                return row, values
    return None


@lru_cache(maxsize=1)
def _forms_of_rows() -> dict[Row, Form]:
    return {row: form for form in reversed(all_forms()) for row in form.rows}


def is_preferred(instruction: Decoded) -> bool:
    """Whether an assembler that reads the instruction's text chooses this encoding among those of its size."""
    row, values = instruction.row, instruction.values
    for other in _forms_of_rows()[row].rows:
        if other.size == row.size and other.encode(values) is not None and other.text(values) == row.text(values):
            return other is row
    return False


def decode(code: bytes, position: int, address: int) -> Decoded:
    """The instruction at a position in some bytes."""
    word = int.from_bytes(code[position : position + 2], "little")
    size = 2
    if word >> 11 >= FIRST_WIDE:
        size = 4
        word = word << 16 | int.from_bytes(code[position + 2 : position + 4], "little")
    found = _decode_word(word, size)
    if found is None:
        raise InternalError(f"no instruction row decodes {word:#x} at {address:#x}")
    return Decoded(address, *found)


def decode_all(code: bytes, address: int) -> list[Decoded]:
    """All instructions of some code, in order."""
    found: list[Decoded] = []
    position = 0
    while position < len(code):
        found.append(decode(code, position, address + position))
        position += found[-1].row.size
    return found
