"""The object: header, code, weights, optional test data. Writing and reading the version-1 header of the original ml4f.

All words little-endian, all offsets and sizes in bytes from the header's start.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ml4f.errors import Ml4fError

MAGIC = (0x30470F62, 0x46344C4D)
FLOAT32 = 1
FIXED_WORDS = 16
OBJECT_ALIGNMENT = 16
WORD = 4
MAX_DIMENSIONS = 16
MAX_ARENA = 1 << 30


@dataclass(frozen=True)
class Header:
    """The fields of a version-1 header, in bytes; shapes without the batch dimension."""

    header_bytes: int
    object_bytes: int
    weights_offset: int
    test_input_offset: int
    test_output_offset: int
    arena_bytes: int
    input_offset: int
    output_offset: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def entry(self) -> int:
        """Offset of the first instruction."""
        return self.header_bytes


def header_bytes(input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    """The size of a header with these shapes."""
    return WORD * (FIXED_WORDS + len(input_shape) + 1 + len(output_shape) + 1)


def header_words(header: Header) -> list[tuple[int, str]]:
    """Every word of a header with a comment for the listing."""
    words = [
        (MAGIC[0], "magic"),
        (MAGIC[1], "magic"),
        (header.header_bytes, "header size, offset of the entry point"),
        (header.object_bytes, "object size"),
        (header.weights_offset, "offset of the weights"),
        (header.test_input_offset, "offset of the test input, 0: none"),
        (header.test_output_offset, "offset of the test output, 0: none"),
        (header.arena_bytes, "arena bytes"),
        (header.input_offset, "offset of the input in the arena"),
        (FLOAT32, "its type: float32"),
        (header.output_offset, "offset of the output in the arena"),
        (FLOAT32, "its type: float32"),
        *[(0, "reserved")] * 4,
    ]
    for what, shape in (("input", header.input_shape), ("output", header.output_shape)):
        words += [(extent, f"{what} shape") for extent in shape] + [(0, f"end of the {what} shape")]
    return words


def pack_header(header: Header) -> bytes:
    """The header's bytes."""
    words = [word for word, _ in header_words(header)]
    return struct.pack(f"<{len(words)}I", *words)


def parse_header(data: bytes, name: str = "object") -> Header:
    """Read and check a header; Ml4fError says what is wrong with it."""

    def refuse(why: str) -> Ml4fError:
        return Ml4fError(f"{name}: not a usable ml4f object: {why}; compile the model again")

    if len(data) < WORD * (FIXED_WORDS + 2):
        raise refuse(f"only {len(data)} bytes")
    words = struct.unpack(f"<{len(data) // WORD}I", data[: len(data) // WORD * WORD])
    if words[:2] != MAGIC:
        raise refuse("it does not begin with the magic words")
    size, object_bytes, weights = words[2:5]
    if object_bytes > len(data) or object_bytes % OBJECT_ALIGNMENT:
        raise refuse(f"its size should be {object_bytes} bytes, the file has {len(data)}")
    if size % WORD or not WORD * (FIXED_WORDS + 2) <= size <= object_bytes:
        raise refuse(f"header size {size}")
    if weights % WORD or not size <= weights <= object_bytes:
        raise refuse(f"weights at {weights}")
    if words[9] != FLOAT32 or words[11] != FLOAT32:
        raise refuse(f"input type {words[9]}, output type {words[11]}; only float32 (1) is known")
    shapes = _shapes(words[FIXED_WORDS : size // WORD])
    if shapes is None:
        raise refuse("its shapes do not end inside the header")
    arena = words[7]
    header = Header(size, object_bytes, weights, words[5], words[6], arena, words[8], words[10], *shapes)
    for what, offset, shape in (
        ("input", header.input_offset, header.input_shape),
        ("output", header.output_offset, header.output_shape),
    ):
        if offset % WORD or offset + WORD * prod(shape) > arena or arena > MAX_ARENA:
            raise refuse(f"{what} {list(shape)} at {offset} does not fit the arena of {arena} bytes")
    for offset, shape in ((words[5], header.input_shape), (words[6], header.output_shape)):
        if offset % WORD or (offset and offset + WORD * prod(shape) > object_bytes):
            raise refuse(f"test data at {offset}")
    return header


def _shapes(words: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    shapes: list[tuple[int, ...]] = []
    shape: list[int] = []
    for word in words:
        if word:
            shape.append(word)
            if len(shape) > MAX_DIMENSIONS or prod(shape) > MAX_ARENA:
                return None
        else:
            shapes.append(tuple(shape))
            shape = []
    if len(shapes) < 2 or shape:
        return None
    return shapes[0], shapes[1]
