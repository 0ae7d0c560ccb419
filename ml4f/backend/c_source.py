"""Turns a compiled object into C: an array that a firmware links, and a header that says how to call it.

The array is the object, byte for byte. The two files need neither each other nor the runtime (`ml4f/runtime/ml4f.c`),
compile as C99 and as C++, and depend on their three arguments alone. Writing them to disk is the caller's business.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ml4f.errors import Ml4fError

_MAGIC = (0x30470F62, 0x46344C4D)
_FIXED_WORDS = 16
_FLOAT32 = 1
_ALIGNMENT = 16
_BYTES_PER_LINE = 16
_HEX = tuple(f"0x{byte:02x}," for byte in range(256))


@dataclass(frozen=True)
class _Header:
    """The words of a version-1 header that C code needs; offsets and sizes in bytes, shapes in elements."""

    header_size: int
    object_size: int
    weights_offset: int
    test_input_offset: int
    test_output_offset: int
    arena_bytes: int
    input_offset: int
    output_offset: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def _read_shapes(words: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    try:
        first = words.index(0)
        second = words.index(0, first + 1)
    except ValueError:
        raise Ml4fError("object: a shape in the header has no terminating zero") from None
    return tuple(words[:first]), tuple(words[first + 1 : second])


def _read_header(object_bytes: bytes) -> _Header:
    """Reads as much as is needed here; the runtime's ml4f_is_valid_object() is the complete check."""
    if len(object_bytes) < 4 * _FIXED_WORDS:
        raise Ml4fError(f"object: {len(object_bytes)} bytes are too few for a header of {4 * _FIXED_WORDS}")
    fixed = struct.unpack_from(f"<{_FIXED_WORDS}I", object_bytes)
    if fixed[:2] != _MAGIC:
        raise Ml4fError(f"object: magic is {fixed[0]:#010x} {fixed[1]:#010x}, not that of an ml4f object")
    header_size, object_size = fixed[2:4]
    if object_size != len(object_bytes) or header_size % 4 or not 4 * _FIXED_WORDS <= header_size < object_size:
        raise Ml4fError(
            f"object: header of {header_size} and object of {object_size} bytes do not fit {len(object_bytes)} bytes"
        )
    if fixed[9] != _FLOAT32 or fixed[11] != _FLOAT32 or any(fixed[12:]):
        raise Ml4fError(
            f"object: element types {fixed[9]} and {fixed[11]}, reserved words {list(fixed[12:])}: "
            "C code is made for float32 (1), with reserved words of 0"
        )
    shape_words = struct.unpack_from(f"<{header_size // 4 - _FIXED_WORDS}I", object_bytes, 4 * _FIXED_WORDS)
    input_shape, output_shape = _read_shapes(list(shape_words))
    return _Header(
        header_size=header_size,
        object_size=object_size,
        weights_offset=fixed[4],
        test_input_offset=fixed[5],
        test_output_offset=fixed[6],
        arena_bytes=fixed[7],
        input_offset=fixed[8],
        output_offset=fixed[10],
        input_shape=input_shape,
        output_shape=output_shape,
    )


def c_identifier(name: str) -> str:
    """The C identifier that stands for `name`: what is no ASCII letter or digit becomes one underscore."""
    identifier = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    if not identifier:
        return "network"
    return f"network_{identifier}" if identifier[0].isdigit() else identifier


def _comment(*paragraphs: str) -> str:
    """A block comment of one line a line of text; nothing in the text can end it."""
    lines = [line.rstrip() for paragraph in paragraphs for line in paragraph.splitlines() or [""]]
    printable = ["".join(c if c.isprintable() else " " for c in line) for line in lines]
    safe = [line.replace("*/", "* /").replace("/*", "/ *") for line in printable]
    return "\n".join(["/*", *(f" * {line}".rstrip() for line in safe), " */"])


def _title(name: str) -> str:
    return f"{name}: neural network compiled by ml4f for Arm Cortex-M with FPU. Generated: do not edit."


def _array_lines(object_bytes: bytes) -> Iterator[str]:
    for start in range(0, len(object_bytes), _BYTES_PER_LINE):
        yield "    " + "".join(_HEX[byte] for byte in object_bytes[start : start + _BYTES_PER_LINE])


def _shape(shape: tuple[int, ...]) -> str:
    return "{" + ", ".join(f"{extent}u" for extent in (*shape, 0)) + "}"


def _constants(header: _Header, prefix: str) -> str:
    rows: list[tuple[str, object, str]] = [
        ("OBJECT_BYTES", header.object_size, ""),
        ("ENTRY_OFFSET", header.header_size, "in the object, bytes"),
        ("WEIGHTS_OFFSET", header.weights_offset, "in the object, bytes"),
        ("TEST_INPUT_OFFSET", header.test_input_offset, "in the object, bytes; 0: there is none"),
        ("TEST_OUTPUT_OFFSET", header.test_output_offset, "in the object, bytes; 0: there is none"),
        ("ARENA_BYTES", header.arena_bytes, ""),
        ("ARENA_WORDS", (header.arena_bytes + 3) // 4, "as many floats make an arena"),
        ("INPUT_OFFSET", header.input_offset, "in the arena, bytes"),
        ("INPUT_ELEMENTS", math.prod(header.input_shape), "floats"),
        ("INPUT_RANK", len(header.input_shape), ""),
        ("INPUT_SHAPE", _shape(header.input_shape), "channels last, no batch dimension, 0 at the end"),
        ("OUTPUT_OFFSET", header.output_offset, "in the arena, bytes"),
        ("OUTPUT_ELEMENTS", math.prod(header.output_shape), "floats"),
        ("OUTPUT_RANK", len(header.output_shape), ""),
        ("OUTPUT_SHAPE", _shape(header.output_shape), ""),
    ]
    lines = []
    for key, value, remark in rows:
        literal = f"{value}u" if isinstance(value, int) else str(value)
        lines.append(f"#define {prefix}_{key} {literal}" + (f" /* {remark} */" if remark else ""))
    return "\n".join(lines)


def _usage(identifier: str, prefix: str) -> str:
    return f"""
    static float arena[{prefix}_ARENA_WORDS];

    for (i = 0; i < {prefix}_INPUT_ELEMENTS; i++)
        {identifier}_input(arena)[i] = ...;
    {identifier}_run(arena);
    ... = {identifier}_output(arena)[0 .. {prefix}_OUTPUT_ELEMENTS - 1];

The arena is word aligned and keeps nothing from one run to the next; a run may overwrite the input.
Enable the FPU first."""


def _functions(identifier: str, prefix: str) -> str:
    return f"""\
/* Where the input goes, and where the output is after a run. */
static inline float *{identifier}_input(void *arena) {{
    return (float *)(void *)((unsigned char *)arena + {prefix}_INPUT_OFFSET);
}}

static inline const float *{identifier}_output(const void *arena) {{
    return (const float *)(const void *)((const unsigned char *)arena + {prefix}_OUTPUT_OFFSET);
}}

/* 0, or -1 where the processor is no Arm or the arena is not word aligned. */
static inline int {identifier}_run(void *arena) {{
#if defined(__arm__) || defined(__ICCARM__) || defined(__CC_ARM)
    const uintptr_t thumb_state = 1u;
    void (*entry)(const void *, void *);
    if (((uintptr_t)arena & 3u) != 0u) {{
        return -1;
    }}
    entry = (void (*)(const void *, void *))(((uintptr_t){identifier}_model + {prefix}_ENTRY_OFFSET) | thumb_state);
    entry({identifier}_model, arena);
    return 0;
#else
    (void)arena;
    return -1;
#endif
}}"""


def c_header(object_bytes: bytes, name: str, summary: str) -> str:
    """The text of `<name>.h`: constants `<NAME>_…` and, inline, `<name>_input`, `<name>_output` and `<name>_run`.

    `summary` (any text) becomes part of the comment on top. Raises Ml4fError if `object_bytes` is no version-1 object.
    """
    header = _read_header(object_bytes)
    identifier = c_identifier(name)
    prefix = identifier.upper()
    parts = [
        _comment(_title(name), "", summary, _usage(identifier, prefix)),
        f"#ifndef {prefix}_MODEL_H\n#define {prefix}_MODEL_H",
        "#include <stdint.h>",
        '#ifdef __cplusplus\nextern "C" {\n#endif',
        _constants(header, prefix),
        f"extern const unsigned char {identifier}_model[{prefix}_OBJECT_BYTES];",
        _functions(identifier, prefix),
        "#ifdef __cplusplus\n}\n#endif",
        "#endif",
    ]
    return "\n\n".join(parts) + "\n"


def c_source(object_bytes: bytes, name: str, summary: str) -> str:
    """The text of `<name>.c`: the object as `const unsigned char <name>_model[]`, aligned to 16 bytes.

    `summary` (any text) becomes part of the comment on top. Raises Ml4fError if `object_bytes` is no version-1 object.
    """
    header = _read_header(object_bytes)
    identifier = c_identifier(name)
    array = f"const unsigned char {identifier}_model[{header.object_size}]"
    parts = [
        _comment(_title(name), "", summary),
        f'#ifdef __cplusplus\nextern "C"\n#else\nextern\n#endif\n{array};',
        f"""\
#if defined(__ICCARM__)
#pragma data_alignment = {_ALIGNMENT}
{array} =
#else
{array} __attribute__((aligned({_ALIGNMENT}))) =
#endif
{{""",
    ]
    return "\n\n".join(parts) + "\n" + "\n".join(_array_lines(object_bytes)) + "\n};\n"
