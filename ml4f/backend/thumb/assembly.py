"""The listing: GNU as source that assembles to exactly the bytes of the object, with comments a reader can follow."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ml4f.backend.thumb.image import Header, header_words
from ml4f.backend.thumb.layout import Comment, Label, Layout, Line, assembler_symbol

PROLOGUE = """\
    .syntax unified
    .cpu cortex-m4
    .fpu fpv4-sp-d16
    .thumb
    .text
"""
PROLOGUE_FPV5 = PROLOGUE.replace("cortex-m4", "cortex-m7").replace("fpv4", "fpv5")
"""For code with instructions that a Cortex-M4 lacks."""
WORDS_PER_LINE = 8
INDENT = "    "


def data_lines(data: bytes) -> Iterator[str]:
    """`.word` directives for some bytes, `.byte` for a rest."""
    whole = len(data) // 4 * 4
    words = struct.unpack(f"<{whole // 4}I", data[:whole])
    for start in range(0, len(words), WORDS_PER_LINE):
        yield INDENT + ".word " + ", ".join(f"0x{word:08x}" for word in words[start : start + WORDS_PER_LINE])
    if data[whole:]:
        yield INDENT + ".byte " + ", ".join(f"0x{byte:02x}" for byte in data[whole:])


def comment_line(text: str) -> str:
    """A comment of one line, whatever characters a layer's name has."""
    return f"{INDENT}@ " + "".join(c if c.isprintable() else " " for c in text)


def assembly_text(layout: Layout, header: Header, title: str, test_data: bytes = b"") -> str:
    """The whole object as assembler source; `title` becomes the first comment, `test_data` what follows the weights."""
    lines = [comment_line(line) for line in title.splitlines()]
    newer = any(line.row is not None and line.row.requires == "fpv5" for line in layout.lines())
    lines.append((PROLOGUE_FPV5 if newer else PROLOGUE).rstrip("\n"))
    lines.append("")
    for word, comment in header_words(header):
        lines.append(f"{INDENT}.word 0x{word:08x} @ {comment}")
    for item in layout.items:
        if isinstance(item, Comment):
            lines += ["", comment_line(item.text)]
        elif isinstance(item, Label):
            lines.append(f"{assembler_symbol(item.name)}:")
        elif isinstance(item, Line):
            lines.append(INDENT + item.text())
    position = 0
    for symbol, offset in sorted(layout.data_offsets.items(), key=lambda entry: entry[1]):
        start = offset - layout.data_start
        lines += data_lines(layout.data[position:start])
        size = layout.data_sizes[symbol]
        lines += ["", comment_line(f"{symbol}: {size} bytes at {offset}")]
        lines += data_lines(layout.data[start : start + size])
        position = start + size
    tail = header.object_bytes - layout.data_start - len(layout.data) - len(test_data)
    if test_data:
        lines += ["", f"{INDENT}@ test data", *data_lines(bytes(-len(layout.data) % 4) + test_data)]
        tail -= -len(layout.data) % 4
    if tail:
        lines += ["", *data_lines(bytes(tail))]
    return "\n".join(lines) + "\n"
