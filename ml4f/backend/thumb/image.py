"""The object's header, written and read: version 1 of the original ml4f for one input and output, 2 for several.

All words little-endian, all offsets and sizes in bytes from the header's start. docs/object-format.md describes both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ml4f.errors import Ml4fError

MAGIC = (0x30470F62, 0x46344C4D)
MAGIC_2 = (0x30470F62, 0x32344C4D)
"""Of version 2: loaders that know version 1 alone compare both words and refuse it."""
FLOAT32 = 1
INT32 = 2
TYPE_NAMES = {FLOAT32: "float32", INT32: "int32"}
FIXED_WORDS = 16
ENTRY_WORDS = 4
"""Words of a tensor in the table of a version-2 header: name, type, place in the arena, shape."""
OBJECT_ALIGNMENT = 16
WORD = 4
MAX_DIMENSIONS = 16
MAX_ARENA = 1 << 30
MAX_TENSORS = 256
MAX_NAME = 1024


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its shape without a batch of one, its offset in the arena in bytes, its element type."""

    shape: tuple[int, ...]
    offset: int = 0
    type: int = FLOAT32
    name: str = ""

    @property
    def elements(self) -> int:
        """How many there are; each takes a word."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size in the arena."""
        return WORD * self.elements


@dataclass(frozen=True)
class Header:
    """What a header says, whatever its version; sizes and offsets in bytes."""

    header_bytes: int
    object_bytes: int
    weights_offset: int
    test_input_offset: int
    test_output_offset: int
    arena_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @property
    def version(self) -> int:
        """1 or 2."""
        return header_version(self.inputs, self.outputs)

    @property
    def entry(self) -> int:
        """Offset of the first instruction."""
        return self.header_bytes

    @property
    def input_elements(self) -> int:
        """Of all inputs together."""
        return sum(tensor.elements for tensor in self.inputs)

    @property
    def input_offset(self) -> int:
        """Of the first input, in the arena."""
        return self.inputs[0].offset

    @property
    def output_offset(self) -> int:
        """Of the first output, in the arena."""
        return self.outputs[0].offset

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return self.inputs[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the first output."""
        return self.outputs[0].shape


Words = list[tuple[int, str]]


def header_version(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> int:
    """1 where it is enough: one float32 input and one float32 output."""
    simple = len(inputs) == len(outputs) == 1 and inputs[0].type == outputs[0].type == FLOAT32
    return 1 if simple else 2


def header_bytes(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> int:
    """The size of a header with these tensors."""
    return WORD * len(header_words(Header(0, 0, 0, 0, 0, 0, tuple(inputs), tuple(outputs))))


def header_words(header: Header) -> Words:
    """Every word of a header with a comment for the listing."""
    return _words_1(header) if header.version == 1 else _words_2(header)


def _common_words(header: Header, magic: tuple[int, int]) -> Words:
    return [
        (magic[0], "magic"),
        (magic[1], "magic"),
        (header.header_bytes, "header size, offset of the entry point"),
        (header.object_bytes, "object size"),
        (header.weights_offset, "offset of the weights"),
        (header.test_input_offset, "offset of the test input, 0: none"),
        (header.test_output_offset, "offset of the test output, 0: none"),
        (header.arena_bytes, "arena bytes"),
    ]


def _shape_words(what: str, shape: Sequence[int]) -> Words:
    return [*((extent, f"{what} shape") for extent in shape), (0, f"end of the {what} shape")]


def _words_1(header: Header) -> Words:
    return [
        *_common_words(header, MAGIC),
        (header.input_offset, "offset of the input in the arena"),
        (FLOAT32, "its type: float32"),
        (header.output_offset, "offset of the output in the arena"),
        (FLOAT32, "its type: float32"),
        *[(0, "reserved")] * 4,
        *_shape_words("input", header.input_shape),
        *_shape_words("output", header.output_shape),
    ]


def _words_2(header: Header) -> Words:
    tensors = [*header.inputs, *header.outputs]
    names = [f"input {i}" for i in range(len(header.inputs))] + [f"output {i}" for i in range(len(header.outputs))]
    table = WORD * FIXED_WORDS
    position = table + WORD * ENTRY_WORDS * len(tensors)
    entries: Words = []
    tail: Words = []
    for what, tensor in zip(names, tensors, strict=True):
        shape_offset = position
        tail += _shape_words(what, tensor.shape)
        position += WORD * (len(tensor.shape) + 1)
        name = _name_words(tensor.name)
        entries += [
            (position, f"{what}: offset of its name"),
            (tensor.type, f"its type: {TYPE_NAMES[tensor.type]}"),
            (tensor.offset, "its offset in the arena"),
            (shape_offset, "offset of its shape"),
        ]
        tail += [(word, f"{what} name") for word in name]
        position += WORD * len(name)
    return [
        *_common_words(header, MAGIC_2),
        (len(header.inputs), "number of inputs"),
        (len(header.outputs), "number of outputs"),
        (table, "offset of the table of tensors, inputs first"),
        *[(0, "reserved")] * 5,
        *entries,
        *tail,
    ]


def _name_words(name: str) -> list[int]:
    """UTF-8 with a zero behind it, in whole words."""
    data = name.encode()[:MAX_NAME]
    data += bytes(WORD - len(data) % WORD)
    return list(struct.unpack(f"<{len(data) // WORD}I", data))


def pack_header(header: Header) -> bytes:
    """The header's bytes."""
    words = [word for word, _ in header_words(header)]
    return struct.pack(f"<{len(words)}I", *words)


class _Malformed(Exception):
    """What is wrong with a header."""


def parse_header(data: bytes, name: str = "object") -> Header:
    """Read and check a header of either version; Ml4fError says what is wrong with it."""
    try:
        return _parse(data)
    except _Malformed as why:
        raise Ml4fError(f"{name}: not a usable ml4f object: {why}; compile the model again") from None


def _parse(data: bytes) -> Header:
    if len(data) < WORD * (FIXED_WORDS + 2):
        raise _Malformed(f"only {len(data)} bytes")
    words = struct.unpack(f"<{len(data) // WORD}I", data[: len(data) // WORD * WORD])
    if words[:2] not in (MAGIC, MAGIC_2):
        raise _Malformed("it does not begin with the magic words")
    size, object_bytes, weights = words[2:5]
    if object_bytes > len(data) or object_bytes % OBJECT_ALIGNMENT:
        raise _Malformed(f"its size should be {object_bytes} bytes, the file has {len(data)}")
    if size % WORD or not WORD * (FIXED_WORDS + 2) <= size <= object_bytes:
        raise _Malformed(f"header size {size}")
    if weights % WORD or not size <= weights <= object_bytes:
        raise _Malformed(f"weights at {weights}")
    if words[7] > MAX_ARENA:
        raise _Malformed(f"an arena of {words[7]} bytes")
    inputs, outputs = (_tensors_1 if words[:2] == MAGIC else _tensors_2)(words[: size // WORD])
    header = Header(size, object_bytes, weights, words[5], words[6], words[7], inputs, outputs)
    for what, tensors, test in (("input", inputs, words[5]), ("output", outputs, words[6])):
        for tensor in tensors:
            if tensor.type not in TYPE_NAMES:
                raise _Malformed(f"{what} type {tensor.type}; only float32 (1) and int32 (2) are known")
            if tensor.offset % WORD or tensor.offset + tensor.bytes > header.arena_bytes:
                place = f"{list(tensor.shape)} at {tensor.offset}"
                raise _Malformed(f"{what} {place} does not fit the arena of {header.arena_bytes} bytes")
        if test % WORD or (test and test + sum(tensor.bytes for tensor in tensors) > object_bytes):
            raise _Malformed(f"test data at {test}")
    return header


def _tensors_1(words: Sequence[int]) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    if words[9] != FLOAT32 or words[11] != FLOAT32:
        raise _Malformed(f"input type {words[9]}, output type {words[11]}; only float32 (1) is known")
    shape = _shape(words, FIXED_WORDS)
    output = _shape(words, FIXED_WORDS + len(shape) + 1)
    return (TensorInfo(shape, words[8]),), (TensorInfo(output, words[10]),)


def _tensors_2(words: Sequence[int]) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    inputs, outputs, table = words[8:11]
    if not 0 < inputs <= MAX_TENSORS or not 0 < outputs <= MAX_TENSORS:
        raise _Malformed(f"{inputs} inputs and {outputs} outputs")
    first = table // WORD
    end = first + ENTRY_WORDS * (inputs + outputs)
    if table % WORD or first < FIXED_WORDS or end > len(words):
        raise _Malformed("its table of tensors does not end inside the header")
    tensors = []
    for at in range(first, end, ENTRY_WORDS):
        name, kind, offset, shape = words[at : at + ENTRY_WORDS]
        if name % WORD or shape % WORD:
            raise _Malformed("an entry of its table of tensors is not aligned")
        tensors.append(TensorInfo(_shape(words, shape // WORD), offset, kind, _name(words, name // WORD)))
    return tuple(tensors[:inputs]), tuple(tensors[inputs:])


def _shape(words: Sequence[int], start: int) -> tuple[int, ...]:
    shape: list[int] = []
    for word in words[start : start + MAX_DIMENSIONS + 1]:
        if word == 0:
            return tuple(shape)
        shape.append(word)
        if prod(shape) > MAX_ARENA:
            break
    raise _Malformed("its shapes do not end inside the header")


def _name(words: Sequence[int], start: int) -> str:
    taken = words[start : start + MAX_NAME // WORD + 1]
    data, zero, _ = struct.pack(f"<{len(taken)}I", *taken).partition(b"\0")
    if not zero:
        raise _Malformed("a name does not end inside the header")
    return data.decode(errors="replace")
