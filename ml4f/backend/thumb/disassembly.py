"""From an object's bytes to GNU as source that assembles to the same bytes again.

Instructions are found by the encoder's own rows (`decoder.py`). Halfwords that no row encodes, or whose text would
assemble to something else, become `.short`. Names of layers and buffers are not in an object, and so not in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from ml4f.backend.thumb import control_forms as control
from ml4f.backend.thumb.assembly import INDENT, PROLOGUE, PROLOGUE_FPV5, comment_line, data_lines
from ml4f.backend.thumb.decoder import Decoded, decode, is_preferred
from ml4f.backend.thumb.encoding import Row
from ml4f.backend.thumb.image import WORD, Header, header_words, parse_header
from ml4f.backend.thumb.layout import ENTRY_SYMBOL
from ml4f.backend.thumb.operand_kinds import CONDITIONS
from ml4f.errors import InternalError

HALFWORD = 2
BRANCHES = frozenset(row for form in (control.BRANCH_IF, control.BRANCH, control.CALL) for row in form.rows)
PIPELINE = 4
"""A branch displacement counts from the branch's address plus 4."""


def disassembly_text(binary: bytes, name: str) -> str:
    """The object as assembler source; `name` is for messages and the title. Ml4fError if the header is not usable."""
    header = parse_header(binary, name)
    binary = binary[: header.object_bytes]
    found = list(_instructions(binary, header))
    newer = any(isinstance(item, Decoded) and item.row.requires == "fpv5" for item in found)
    lines = [comment_line(f"{name}, disassembled by ml4f"), (PROLOGUE_FPV5 if newer else PROLOGUE).rstrip("\n"), ""]
    lines += _header_lines(binary, header)
    lines += _code_lines(binary, found, header)
    lines += _data_lines(binary, header)
    return "\n".join(lines) + "\n"


def _header_lines(binary: bytes, header: Header) -> Iterator[str]:
    words = (binary[i : i + WORD] for i in range(0, header.header_bytes, WORD))
    comments = (comment for _, comment in header_words(header))
    for word, comment in zip_longest(words, comments, fillvalue="unknown"):
        if isinstance(word, bytes):
            yield f"{INDENT}.word 0x{int.from_bytes(word, 'little'):08x} @ {comment}"


def _instructions(binary: bytes, header: Header) -> Iterator[Decoded | tuple[int, int]]:
    """Instructions, or (address, halfword) where there is none."""
    position, end = header.header_bytes, header.weights_offset
    while position < end:
        try:
            found = decode(binary[:end], position, position)
        except InternalError:
            found = None
        if found is None or found.end > end or not is_preferred(found):
            yield position, int.from_bytes(binary[position : position + HALFWORD], "little")
            position += HALFWORD
        else:
            yield found
            position = found.end


def _target(instruction: Decoded) -> int | None:
    """The address that a branch goes to."""
    if instruction.row not in BRANCHES:
        return None
    return instruction.address + PIPELINE + instruction.values[-1]


def _labels(found: list[Decoded | tuple[int, int]], header: Header) -> dict[int, str]:
    """Names of the entry, of what is called, and of loop heads, where these are instructions."""
    starts = {item.address if isinstance(item, Decoded) else item[0] for item in found}
    labels = {header.entry: ENTRY_SYMBOL}
    calls = {t for i in found if isinstance(i, Decoded) and i.row in control.CALL.rows if (t := _target(i)) in starts}
    labels |= {address: f"function_{n}" for n, address in enumerate(sorted(calls - labels.keys()), 1)}
    others = {t for i in found if isinstance(i, Decoded) if (t := _target(i)) in starts}
    labels |= {address: f".L{n}" for n, address in enumerate(sorted(others - labels.keys()), 1)}
    return labels


def _code_lines(binary: bytes, found: list[Decoded | tuple[int, int]], header: Header) -> Iterator[str]:
    labels = _labels(found, header)
    condition = ""
    for item, following in zip_longest(found, found[1:]):
        address = item.address if isinstance(item, Decoded) else item[0]
        if address in labels:
            yield f"{labels[address]}:"
        text = None
        if isinstance(item, Decoded):
            if _is_it(item.row):
                if isinstance(following, Decoded) and "<c>" in following.row.syntax and following.end not in labels:
                    text = item.row.text(item.values)
                    condition = CONDITIONS[item.values[0]]
            else:
                text = _text(item, condition, labels)
                condition = ""
        if text is None:
            halfwords = binary[address : address + (item.row.size if isinstance(item, Decoded) else HALFWORD)]
            values = (halfwords[i : i + HALFWORD] for i in range(0, len(halfwords), HALFWORD))
            text = ".short " + ", ".join(f"0x{int.from_bytes(value, 'little'):04x}" for value in values)
        yield INDENT + text


def _is_it(row: Row) -> bool:
    return row.mnemonic == "it"


def _text(item: Decoded, condition: str, labels: dict[int, str]) -> str | None:
    """The instruction's text; None for a branch to a place without label."""
    target = _target(item)
    if target is None:
        return item.row.text(item.values, condition)
    return item.row.text(item.values, condition, labels[target]) if target in labels else None


def _data_lines(binary: bytes, header: Header) -> Iterator[str]:
    places = {header.weights_offset: "weights and tables"}
    if header.test_input_offset:
        places[header.test_input_offset] = "test input"
    if header.test_output_offset:
        places[header.test_output_offset] = "test output"
    starts = sorted(places)
    for start, end in zip(starts, [*starts[1:], header.object_bytes], strict=True):
        if start < end:
            yield from ("", f"{INDENT}@ {places[start]}: {end - start} bytes at {start}")
            yield from data_lines(binary[start:end])
