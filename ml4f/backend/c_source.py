"""Turns a compiled object into C: an array that a firmware links, and a header that says how to call it.

The array is the object, byte for byte. The two files need neither each other nor the runtime (`ml4f/runtime/ml4f.c`),
compile as C99 and as C++, and depend on their three arguments alone. Writing them to disk is the caller's business.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml4f.backend.thumb.image import FLOAT32, INT32, MAGIC_2, TensorInfo, parse_header
from ml4f.errors import Ml4fError

_MAGIC = (0x30470F62, 0x46344C4D)
_FIXED_WORDS = 16
_FLOAT32 = 1
_ALIGNMENT = 16
_BYTES_PER_LINE = 16
_HEX = tuple(f"0x{byte:02x}," for byte in range(256))


@dataclass(frozen=True)
class _Tensor:
    """An input or output; `name` follows `input_` or `output_`, empty where there is one of each."""

    name: str
    offset: int
    shape: tuple[int, ...]
    c_type: str = "float"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Header:
    """The words of a header that C code needs; offsets and sizes in bytes, shapes in elements."""

    header_size: int
    object_size: int
    weights_offset: int
    test_input_offset: int
    test_output_offset: int
    arena_bytes: int
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]


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
    if fixed[:2] == MAGIC_2:
        return _read_header_2(object_bytes)
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
        inputs=(_Tensor("", fixed[8], input_shape),),
        outputs=(_Tensor("", fixed[10], output_shape),),
    )


def _read_header_2(object_bytes: bytes) -> _Header:
    header = parse_header(object_bytes)
    return _Header(
        header_size=header.header_bytes,
        object_size=header.object_bytes,
        weights_offset=header.weights_offset,
        test_input_offset=header.test_input_offset,
        test_output_offset=header.test_output_offset,
        arena_bytes=header.arena_bytes,
        inputs=_named(header.inputs),
        outputs=_named(header.outputs),
    )


def _named(tensors: Sequence[TensorInfo]) -> tuple[_Tensor, ...]:
    """With names that differ as C identifiers: the model's, or numbers where those are empty or alike."""
    names = [re.sub(r"[^A-Za-z0-9]+", "_", tensor.name).strip("_") for tensor in tensors]
    if "" in names or len({name.upper() for name in names}) < len(names):
        names = [str(index) for index in range(len(tensors))]
    types = {FLOAT32: "float", INT32: "int32_t"}
    return tuple(_Tensor(n, t.offset, t.shape, types[t.type]) for n, t in zip(names, tensors, strict=True))


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
    ]
    for kind, tensors in (("INPUT", header.inputs), ("OUTPUT", header.outputs)):
        for tensor in tensors:
            key = f"{kind}_{tensor.name.upper()}".rstrip("_")
            remark = "as the model has it, no batch dimension, 0 at the end" if kind == "INPUT" else ""
            rows += [
                (f"{key}_OFFSET", tensor.offset, "in the arena, bytes"),
                (f"{key}_ELEMENTS", tensor.elements, "floats" if tensor.c_type == "float" else tensor.c_type),
                (f"{key}_RANK", len(tensor.shape), ""),
                (f"{key}_SHAPE", _shape(tensor.shape), remark),
            ]
    lines = []
    for key, value, remark in rows:
        literal = f"{value}u" if isinstance(value, int) else str(value)
        lines.append(f"#define {prefix}_{key} {literal}" + (f" /* {remark} */" if remark else ""))
    return "\n".join(lines)


def _usage(header: _Header, identifier: str, prefix: str) -> str:
    lines = [f"static float arena[{prefix}_ARENA_WORDS];", ""]
    for tensor in header.inputs:
        name = f"input_{tensor.name}".rstrip("_")
        lines += [
            f"for (i = 0; i < {prefix}_{name.upper()}_ELEMENTS; i++)",
            f"    {identifier}_{name}(arena)[i] = ...;",
        ]
    lines.append(f"{identifier}_run(arena);")
    for tensor in header.outputs:
        name = f"output_{tensor.name}".rstrip("_")
        lines.append(f"... = {identifier}_{name}(arena)[0 .. {prefix}_{name.upper()}_ELEMENTS - 1];")
    usage = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"""
{usage}

The arena is word aligned and keeps nothing from one run to the next; a run may overwrite the input.
Enable the FPU first."""


def _accessors(header: _Header, identifier: str, prefix: str) -> str:
    parts = []
    for tensor in header.inputs:
        name = f"input_{tensor.name}".rstrip("_")
        parts.append(f"""\
static inline {tensor.c_type} *{identifier}_{name}(void *arena) {{
    return ({tensor.c_type} *)(void *)((unsigned char *)arena + {prefix}_{name.upper()}_OFFSET);
}}""")
    for tensor in header.outputs:
        name = f"output_{tensor.name}".rstrip("_")
        parts.append(f"""\
static inline const {tensor.c_type} *{identifier}_{name}(const void *arena) {{
    return (const {tensor.c_type} *)(const void *)((const unsigned char *)arena + {prefix}_{name.upper()}_OFFSET);
}}""")
    return "\n\n".join(parts)


def _functions(header: _Header, identifier: str, prefix: str) -> str:
    one = len(header.inputs) == len(header.outputs) == 1
    places = (
        "Where the input goes, and where the output is" if one else "Where the inputs go, and where the outputs are"
    )
    return f"""\
/* {places} after a run. */
{_accessors(header, identifier, prefix)}

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

    `summary` (any text) becomes part of the comment on top. Raises Ml4fError if `object_bytes` is no object.
    """
    header = _read_header(object_bytes)
    identifier = c_identifier(name)
    prefix = identifier.upper()
    parts = [
        _comment(_title(name), "", summary, _usage(header, identifier, prefix)),
        f"#ifndef {prefix}_MODEL_H\n#define {prefix}_MODEL_H",
        "#include <stdint.h>",
        '#ifdef __cplusplus\nextern "C" {\n#endif',
        _constants(header, prefix),
        f"extern const unsigned char {identifier}_model[{prefix}_OBJECT_BYTES];",
        _functions(header, identifier, prefix),
        "#ifdef __cplusplus\n}\n#endif",
        "#endif",
    ]
    return "\n\n".join(parts) + "\n"


def c_source(object_bytes: bytes, name: str, summary: str) -> str:
    """The text of `<name>.c`: the object as `const unsigned char <name>_model[]`, aligned to 16 bytes.

    `summary` (any text) becomes part of the comment on top. Raises Ml4fError if `object_bytes` is no object.
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
