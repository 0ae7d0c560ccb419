"""Instruction encodings as data: one `Row` an encoding, from which encoder, printer, decoder and access sets derive.

A row is a bit string and a GNU as syntax string. Letters of the bit string are fields; the syntax names them:

    Row("1110 1110 0D11 nnnn dddd 1010 N0M0 mmmm", "vadd.f32 {=dD:s}, {nN:s}, {mM:s}", "fp")

`{=dD:s}` is operand d, of kind `s` (see `operand_kinds.py`), its bits are field d followed by field D. A leading `=`
says that the register is written, `+` read and written, nothing: read. `{n~d}` is operand n, which must be the register
of d. `<c>` is where a condition goes inside an IT block. A `Form` is the rows of one instruction, narrowest first; all
of them take the same operands, in the order in which the last row's syntax names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ml4f.backend.thumb.operand_kinds import KINDS, Kind
from ml4f.errors import InternalError

_PLACEHOLDER = re.compile(r"\{([=+]?)([A-Za-z]+)(?:([:~])(\w+))?\}")
_UNENCODABLE = -1

Values = tuple[Any, ...]
"""The operands of an instruction, one for each operand of its form."""


class Field:
    """One operand of a row: its kind and the places of its bits, as runs of (shift in word, mask, shift in field)."""

    __slots__ = ("access", "bits", "kind", "name", "runs")

    def __init__(self, name: str, kind: Kind, access: str, positions: Sequence[int]):
        self.name = name
        self.kind = kind
        self.access = access
        self.bits = len(positions)
        self.runs: list[tuple[int, int, int]] = []
        start = 0
        for index in range(len(positions)):
            last = index + 1 == len(positions)
            if last or positions[index + 1] != positions[index] - 1:
                self.runs.append((positions[index], (1 << index - start + 1) - 1, len(positions) - 1 - index))
                start = index + 1

    def scatter(self, value: Hashable) -> int:
        """The operand's bits in the instruction word, or -1."""
        field = self.kind.encode(value, self.bits)
        if field is None:
            return _UNENCODABLE
        return sum((field >> up & mask) << shift for shift, mask, up in self.runs)

    def gather(self, word: int) -> Hashable | None:
        """The operand's value in an instruction word, or None."""
        field = 0
        for shift, mask, up in self.runs:
            field |= (word >> shift & mask) << up
        return self.kind.decode(field, self.bits)


class Row:
    """One encoding. `size` is in bytes; a 32-bit word holds the first halfword in its upper half.

    `value` and `mask` are the fixed bits; `operands` the names of the form's operands; `requires` a core feature or "".
    """

    __slots__ = (
        "_fields",
        "_memo",
        "_order",
        "_pieces",
        "_same",
        "check",
        "mask",
        "mnemonic",
        "operands",
        "requires",
        "size",
        "syntax",
        "timing",
        "value",
    )

    def __init__(
        self,
        bits: str,
        syntax: str,
        timing: str,
        requires: str = "",
        check: Callable[[Values], bool] | None = None,
    ):
        bits = bits.replace(" ", "")
        if len(bits) not in (16, 32):
            raise InternalError(f"{syntax}: {len(bits)} bits")
        self.syntax, self.timing, self.requires, self.check = syntax, timing, requires, check
        self.size = len(bits) // 8
        self.mask = int("".join("1" if b in "01" else "0" for b in bits), 2)
        self.value = int("".join(b if b in "01" else "0" for b in bits), 2)
        self.mnemonic = syntax.split(" ")[0].split("<")[0].split(".")[0]
        positions: dict[str, list[int]] = {}
        for index, letter in enumerate(bits):
            if letter.isalpha():
                positions.setdefault(letter, []).append(len(bits) - 1 - index)
        fields: list[Field] = []
        names: list[str] = []
        same: list[tuple[str, str]] = []
        for access, letters, mark, kind in _PLACEHOLDER.findall(syntax):
            name = letters[0]
            names.append(name)
            if mark == "~":
                same.append((name, kind))
            elif mark == ":":
                places = [place for letter in letters for place in positions.pop(letter, ())]
                fields.append(Field(name, KINDS[kind], access, places))
            else:
                raise InternalError(f"{syntax}: operand {name} has no kind")
        if positions:
            raise InternalError(f"{syntax}: the syntax does not name the fields {', '.join(positions)}")
        self._fields = fields
        self._same_names(same, names)
        self.bind(tuple(names))

    def _same_names(self, same: list[tuple[str, str]], names: list[str]) -> None:
        self.operands = tuple(names)
        self._same = same

    def bind(self, operands: tuple[str, ...]) -> None:
        """Take operands in this order (the form's)."""
        if sorted(operands) != sorted(self.operands):
            raise InternalError(f"{self.syntax}: the form's operands are {operands}, not {self.operands}")
        self.operands = operands
        by_name = {field.name: field for field in self._fields}
        same = dict(self._same)
        self._order = tuple((operands.index(field.name), field) for field in self._fields)
        self._memo = tuple((index, dict[Hashable, int](), field) for index, field in self._order)
        pieces: list[tuple[str, int, Callable[[Any], str]]] = []
        end = 0
        for match in _PLACEHOLDER.finditer(self.syntax):
            name = match[2][0]
            kind = by_name[same.get(name, name)].kind
            pieces.append((self.syntax[end : match.start()], operands.index(name), kind.text))
            end = match.end()
        self._pieces = (tuple(pieces), self.syntax[end:])

    def ties(self) -> list[tuple[int, int]]:
        """Pairs of operand positions that must hold the same register."""
        return [(self.operands.index(a), self.operands.index(b)) for a, b in self._same]

    def encode(self, values: Values) -> int | None:
        """The instruction word, or None if this encoding cannot express the operands."""
        word = self.value
        for index, memo, field in self._memo:
            value = values[index]
            bits = memo.get(value)
            if bits is None:
                bits = memo[value] = field.scatter(value)
            if bits < 0:
                return None
            word |= bits
        for first, second in self._same:
            if values[self.operands.index(first)] != values[self.operands.index(second)]:
                return None
        if self.check is not None and not self.check(values):
            return None
        return word

    def accepts(self, values: Values) -> bool:
        """Whether the operands that are known (not None) can be encoded."""
        for index, field in self._order:
            value = values[index]
            if value is not None and field.scatter(value) < 0:
                return False
        for first, second in self._same:
            a, b = values[self.operands.index(first)], values[self.operands.index(second)]
            if a is not None and b is not None and a != b:
                return False
        return self.check is None or None in values or self.check(values)

    def decode(self, word: int) -> Values | None:
        """The operands in an instruction word, or None if it is not of this encoding."""
        if word & self.mask != self.value:
            return None
        values: list[Any] = [None] * len(self.operands)
        for index, field in self._order:
            value = field.gather(word)
            if value is None:
                return None
            values[index] = value
        for first, second in self._same:
            values[self.operands.index(first)] = values[self.operands.index(second)]
        result = tuple(values)
        return None if self.check is not None and not self.check(result) else result

    def text(self, values: Values, condition: str = "", target: str | None = None) -> str:
        """GNU as syntax; `condition` inside an IT block; `target`: what to print for a branch's displacement."""
        pieces, tail = self._pieces
        parts: list[str] = []
        for before, index, text in pieces:
            parts.append(before)
            parts.append(text(values[index]))
        if target is not None:
            parts[-1] = target
        return ("".join(parts) + tail).replace("<c>", condition)

    def reads(self, values: Values) -> tuple[int, ...]:
        """Ids of the registers read (0-15 core, from 16 S)."""
        found = [r for i, f in self._order if f.access != "=" for r in f.kind.registers(values[i])]
        found += [
            r
            for a, b in self._same
            for i, f in self._order
            if f.name == b
            for r in f.kind.registers(values[self.operands.index(a)])
        ]
        return tuple(found)

    def writes(self, values: Values) -> tuple[int, ...]:
        """Ids of the registers written."""
        return tuple(r for i, f in self._order if f.access for r in f.kind.registers(values[i]))

    def __repr__(self) -> str:
        return f"<{self.syntax}>"


class Form:
    """The encodings of one instruction, narrowest first."""

    __slots__ = ("operands", "rows", "size", "timing")

    def __init__(self, rows: Sequence[Row]):
        self.rows = tuple(rows)
        self.operands = rows[-1].operands
        self.timing = rows[-1].timing
        for row in rows:
            row.bind(self.operands)
        self.size = max(row.size for row in rows)

    def select(self, values: Values, minimum: int = 2) -> tuple[Row, int]:
        """The first row of at least `minimum` bytes that can express the operands, and the word."""
        for row in self.rows:
            if row.size >= minimum:
                word = row.encode(values)
                if word is not None:
                    return row, word
        raise InternalError(f"cannot encode {self.rows[-1].syntax} with {values}")

    def accepts(self, values: Values) -> bool:
        """Whether some row can express the operands that are known (not None)."""
        return any(row.accepts(values) for row in self.rows)

    def largest(self, values: Values) -> int:
        """The size in bytes of the narrowest row that fits whatever registers the operands marked None get, or 4."""
        for row in self.rows:
            if row.encode(values) is not None if None not in values else row.size == 4 and row.accepts(values):
                return row.size
        return self.size

    def __repr__(self) -> str:
        return f"Form({self.rows[-1].syntax})"


def form(timing: str, *encodings: tuple[str, str], requires: str = "", check: Callable[[Values], bool] | None = None):
    """A form from (bit string, syntax) pairs, narrowest first."""
    return Form([Row(bits, syntax, timing, requires, check) for bits, syntax in encodings])


class Part(NamedTuple):
    """One machine instruction of an operation. `condition`: inside an IT block; `narrow`: must be the 16-bit
    encoding.
    """

    form: Form
    values: Values
    condition: str = ""


def word_bytes(word: int, size: int) -> bytes:
    """An instruction as it lies in memory: little-endian halfwords, the first one first."""
    if size == 2:
        return word.to_bytes(2, "little")
    return (word >> 16).to_bytes(2, "little") + (word & 0xFFFF).to_bytes(2, "little")


@lru_cache(maxsize=4096)
def constant_steps(value: int) -> tuple[tuple[str, int], ...]:
    """The instructions that build a 32-bit constant: `mov_imm`, or `movw` and `movt`, with their immediates."""
    from ml4f.backend.thumb.operand_kinds import modified_immediate

    value &= 0xFFFFFFFF
    if value < 1 << 16 or modified_immediate(value) is not None or modified_immediate(~value) is not None:
        return (("mov_imm", value),)
    return (("movw", value & 0xFFFF), ("movt", value >> 16))


def addition_steps(amount: int) -> tuple[int, ...]:
    """Summands, each the immediate of one `add_imm`, that make up a non-negative constant: at most three below 2^28."""
    from ml4f.backend.thumb.operand_kinds import modified_immediate

    steps: list[int] = []
    while amount > 4095 and modified_immediate(amount) is None:
        shift = max(amount.bit_length() - 8, 12 if amount.bit_length() <= 20 else 0)
        high = amount >> shift << shift
        steps.append(high)
        amount -= high
    if amount:
        steps.append(amount)
    return tuple(steps)


def rows_of(forms: Iterable[Form]) -> list[Row]:
    """All different rows of some forms, in order."""
    return list(dict.fromkeys(row for each in forms for row in each.rows))
