"""The C runtime: which headers it believes, what it compares and allocates, and that it runs code on an emulated board.

The header checks run on the host. Objects are put right before an unreadable page, and in a child process, so that a
read beyond their end ends the child and fails the test.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ml4f.backend.c_source import c_header, c_source

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "ml4f" / "runtime"
FIRMWARE = ROOT / "examples" / "firmware"
HOST_COMPILER = shutil.which("gcc") or shutil.which("cc")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
ARM_FLAGS = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-ffreestanding"]

needs_host_compiler = pytest.mark.skipif(HOST_COMPILER is None, reason="no C compiler on this machine")
needs_arm_compiler = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc on this machine"
)
needs_emulated_board = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "make")),
    reason="needs arm-none-eabi-gcc, qemu-system-arm and make",
)

OK, NO_TEST_DATA = 0, 1
NO_MAXIMUM, BAD_HEADER, BAD_ALIGNMENT, NO_MEMORY, MISMATCH, UNSUPPORTED, IS_NULL = range(-1, -8, -1)


def words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def floats(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@dataclass(frozen=True)
class Model:
    """An object in the making: out[i] = in[i] * weight[0], so far as its code says so."""

    code: bytes = bytes(16)
    weights: bytes = floats([2.0])
    elements: int = 4
    test_input: bytes = b""
    test_output: bytes = b""
    changed_words: dict[int, int] = field(default_factory=dict)

    def build(self) -> bytes:
        """The bytes. Input and output lie at 16 and behind the input in the arena. `changed_words` is applied last."""
        header_words = [0] * 16 + [self.elements, 0, self.elements, 0]
        position = 4 * len(header_words)
        offsets = []
        for part in (self.code, self.weights, self.test_input, self.test_output):
            offsets.append(position if part else 0)
            position += len(part)
        total = -(-position // 16) * 16
        output_offset = 16 + 4 * self.elements
        arena_bytes = output_offset + 4 * self.elements
        header_words[:8] = [0x30470F62, 0x46344C4D, offsets[0], total, *offsets[1:], arena_bytes]
        header_words[8:12] = [16, 1, output_offset, 1]
        for index, value in self.changed_words.items():
            header_words[index] = value
        body = self.code + self.weights + self.test_input + self.test_output
        return (words(header_words) + body).ljust(total, b"\0")


# ---- the library on the host ----

# Stands in for the machine code: multiplies by the first weight, and says in its result that it was called.
FAKE_ENTRY = r"""
#include "ml4f.h"
int fake_enter(const ml4f_header_t *model, uint8_t *arena);
static unsigned char pool[4096 + 16];
static int taken;
int arenas_in_use(void) { return taken; }
void *test_alloc(size_t bytes) {
    uintptr_t start = ((uintptr_t)pool + 15u) & ~(uintptr_t)15u;
    if (taken || bytes > 4096) return NULL;
    taken++;
    return (void *)start;
}
void test_free(void *pointer) { (void)pointer; taken--; }
int fake_enter(const ml4f_header_t *model, uint8_t *arena) {
    const float *weight = (const float *)(const void *)((const uint8_t *)model + model->weights_offset);
    const float *input = (const float *)(const void *)(arena + model->input_offset);
    float *output = (float *)(void *)(arena + model->output_offset);
    uint32_t i;
    for (i = 0; i < ml4f_shape_elements(ml4f_input_shape(model)); i++) output[i] = input[i] * *weight;
    return ML4F_OK;
}
"""
FAKE_DECLARATIONS = r"""
#include <stddef.h>
#include <stdint.h>
struct ml4f_header;
int fake_enter(const struct ml4f_header *model, uint8_t *arena);
void *test_alloc(size_t bytes);
void test_free(void *pointer);
"""
FAKE_FLAGS = ["-include", "fake.h", "-DML4F_ENTER=fake_enter", "-DML4F_ALLOC=test_alloc", "-DML4F_FREE=test_free"]


def build_library(directory: Path, name: str, flags: Sequence[str] = (), sources: Sequence[str] = ()) -> Path:
    assert HOST_COMPILER is not None
    library = directory / name
    command = [HOST_COMPILER, "-std=c99", "-O2", "-g", "-shared", "-fPIC", *WARNINGS, f"-I{RUNTIME}", *flags]
    subprocess.run([*command, "-o", str(library), str(RUNTIME / "ml4f.c"), *sources], cwd=directory, check=True)
    return library


@pytest.fixture(scope="session")
def plain_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("runtime"), "plain.so")


@pytest.fixture(scope="session")
def faked(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The runtime with a C function in place of the machine code and a pool of 4096 bytes for arenas."""
    directory = tmp_path_factory.mktemp("faked")
    (directory / "fake.h").write_text(FAKE_DECLARATIONS)
    (directory / "fake.c").write_text(FAKE_ENTRY)
    return ctypes.CDLL(str(build_library(directory, "faked.so", FAKE_FLAGS, ["fake.c"])))


class Pointer(ctypes.c_void_p):
    """An address that keeps the buffer it points to alive."""

    owner: Buffer


class Buffer:
    """Memory aligned to 16 bytes that holds `data`."""

    def __init__(self, data: bytes) -> None:
        self._memory = ctypes.create_string_buffer(len(data) + 16)
        self.address = -(-ctypes.addressof(self._memory) // 16) * 16
        self.size = len(data)
        ctypes.memmove(self.address, data, len(data))

    def pointer(self, offset: int = 0) -> Pointer:
        pointer = Pointer(self.address + offset)
        pointer.owner = self
        return pointer

    def floats(self, offset: int, count: int) -> tuple[float, ...]:
        return struct.unpack(f"<{count}f", ctypes.string_at(self.address + offset, 4 * count))


# ---- headers ----

# Runs in a child: the arguments are the library and a file of objects in hexadecimal, a line each. Every object ends
# where an unreadable page begins. Prints [valid header, valid object, valid object one byte short] for each.
CHILD = r"""
import ctypes, json, mmap, sys
library = ctypes.CDLL(sys.argv[1])
libc = ctypes.CDLL(None)
PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(start + 2 * PAGE), ctypes.c_size_t(PAGE), 0) == 0
verdicts = []
for line in open(sys.argv[2]):
    data = bytes.fromhex(line)
    address = ctypes.c_void_p(start + 2 * PAGE - len(data))
    ctypes.memmove(address, data, len(data))
    header = library.ml4f_is_valid_header(address) if len(data) >= 160 else None
    sizes = (len(data), len(data) - 1)
    verdicts.append([header] + [library.ml4f_is_valid_object(address, ctypes.c_size_t(n)) for n in sizes])
print(json.dumps(verdicts))
"""


def judge(library: Path, objects: Sequence[bytes], directory: Path) -> list[list[int | None]]:
    """What the library says of each object; fails if it reads beyond the end of one."""
    cases = directory / "cases"
    cases.write_text("".join(data.hex() + "\n" for data in objects))
    command = [sys.executable, "-c", CHILD, str(library), str(cases)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, f"ended with {child.returncode}: {child.stderr}"
    return json.loads(child.stdout)


VALID = Model(code=bytes(48), test_input=floats([1, 2, 3, 4]), test_output=floats([2, 4, 6, 8]))
SHAPES_AT = 16
BIG = 0xFFFFFFFC

WRONG_HEADERS: dict[str, dict[int, int]] = {
    "magic of something else": {0: 0x30470F63},
    "second magic": {1: 0},
    "header smaller than its fixed part": {2: 60},
    "header ends within the shapes": {2: 76},
    "header size not a multiple of 4": {2: 82},
    "header as large as the object": {2: 176, 4: 176, 5: 0, 6: 0},
    "header larger than the object": {2: BIG},
    "object size not a multiple of 16": {3: 168},
    "object size 0": {3: 0},
    "weights in the header": {4: 64},
    "weights beyond the object": {4: 180},
    "weights not aligned": {4: 130},
    "weights at the end of the address space": {4: BIG},
    "test input in the header": {5: 64},
    "test input reaches beyond the object": {5: 164},
    "test input wraps around": {5: BIG},
    "test output not aligned": {6: 150},
    "test output reaches beyond the object": {6: 172},
    "arena too small for the output": {7: 44},
    "arena of nothing": {7: 0},
    "input beyond the arena": {8: 36},
    "input wraps around": {8: BIG},
    "offset and size that wrap around together": {5: 0, 7: 0x80000010, 8: 0x80000000, SHAPES_AT: 0x20000004},
    "input not aligned": {8: 18},
    "input type unknown": {9: 2},
    "input type 0": {9: 0},
    "output beyond the arena": {10: 36},
    "output wraps around": {10: BIG},
    "output not aligned": {10: 30},
    "output type unknown": {11: 0},
    "reserved word, as a later version may use": {13: 1},
    "input shape larger than the arena": {SHAPES_AT: 9},
    "output shape larger than the arena": {SHAPES_AT + 2: 9},
    "size of 2 ** 32 bytes": {SHAPES_AT: 1 << 30},
    "output shape without an end": {SHAPES_AT + 3: 1},
    "shapes without an end": {SHAPES_AT + 1: 1, SHAPES_AT + 3: 1},
}


@needs_host_compiler
def test_wrong_headers_are_refused(plain_library: Path, tmp_path: Path) -> None:
    assert len(VALID.build()) == 176
    objects = [VALID.build(), *(replace(VALID, changed_words=words).build() for words in WRONG_HEADERS.values())]
    verdicts = judge(plain_library, objects, tmp_path)
    assert verdicts[0] == [1, 1, 0]
    accepted = [name for name, verdict in zip(WRONG_HEADERS, verdicts[1:], strict=True) if verdict != [0, 0, 0]]
    assert accepted == []


@needs_host_compiler
def test_unusual_headers_that_are_right(plain_library: Path, tmp_path: Path) -> None:
    unusual = {
        "no weights": {4: 176},
        "input and output in one place": {10: 16, 7: 32},
        "arena larger than needed": {7: 100_000},
        "no test data": {5: 0, 6: 0},
        "test input alone": {6: 0},
        "a scalar for input": {SHAPES_AT: 0, SHAPES_AT + 1: 4, SHAPES_AT + 2: 0},
    }
    verdicts = judge(plain_library, [replace(VALID, changed_words=w).build() for w in unusual.values()], tmp_path)
    assert dict(zip(unusual, verdicts, strict=True)) == {name: [1, 1, 0] for name in unusual}


def shaped(input_shape: Sequence[int], output_shape: Sequence[int]) -> bytes:
    """A valid object but for its shapes; 16 bytes of code and nothing else."""
    shapes = [*input_shape, 0, *output_shape, 0]
    header_size = 64 + 4 * len(shapes)
    total = -(-(header_size + 16) // 16) * 16
    header = [0x30470F62, 0x46344C4D, header_size, total, header_size, 0, 0, 1 << 31, 0, 1, 0, 1, 0, 0, 0, 0, *shapes]
    return words(header).ljust(total, b"\0")


@needs_host_compiler
@pytest.mark.parametrize(
    ("shape", "is_right"),
    [
        ([1] * 16, 1),
        ([1] * 17, 0),
        ([1 << 14, 1 << 14], 1),
        ([1 << 15, 1 << 15], 0),
        ([1 << 16, 1 << 16], 0),
        ([1 << 16, 1 << 16, 1], 0),
        ([0x10001, 0xFFFF], 0),
        ([0xFFFFFFFF, 0xFFFFFFFF], 0),
        ([0xFFFFFFFF] * 8, 0),
    ],
)
def test_rank_and_overflow(shape: list[int], is_right: int, plain_library: Path, tmp_path: Path) -> None:
    verdicts = judge(plain_library, [shaped(shape, [1]), shaped([1], shape)], tmp_path)
    assert [verdict[1] for verdict in verdicts] == [is_right, is_right]


@needs_host_compiler
def test_every_truncation_is_refused(plain_library: Path, tmp_path: Path) -> None:
    valid = VALID.build()
    objects = [valid[:size] for size in range(4, len(valid), 4)]
    assert all(verdict[1:] == [0, 0] for verdict in judge(plain_library, objects, tmp_path))


def is_plausible(data: bytes) -> bool:
    """What ml4f.h promises of a valid object, written a second time and in another way: with unbounded integers."""
    word = struct.unpack(f"<{len(data) // 4}I", data)
    header_size, object_size, weights, test_input, test_output, arena = word[2:8]
    if word[:2] != (0x30470F62, 0x46344C4D) or any(word[12:16]) or object_size % 16 or object_size > len(data):
        return False
    if header_size % 4 or not 64 <= header_size < object_size:
        return False
    shapes: list[list[int]] = [[]]
    for extent in word[16 : header_size // 4]:
        if extent == 0:
            shapes.append([])
        else:
            shapes[-1].append(extent)
    if len(shapes) < 3 or any(len(shape) > 16 for shape in shapes[:2]):
        return False
    sizes = [4 * math.prod(shape) for shape in shapes[:2]]
    spans = [(weights, 0, header_size, object_size), (word[8], sizes[0], 0, arena), (word[10], sizes[1], 0, arena)]
    spans += [(test_input, sizes[0], header_size, object_size)] if test_input else []
    spans += [(test_output, sizes[1], header_size, object_size)] if test_output else []
    fits = all(at % 4 == 0 and low <= at and at + size <= high for at, size, low, high in spans)
    return fits and max(sizes) < 1 << 32 and word[9] == 1 and word[11] == 1


def corrupted(data: bytes, generator: random.Random) -> bytes:
    """Flips bits, puts telling values into the header's words, or moves them by a little; now and then cuts the end."""
    values = list(struct.unpack(f"<{len(data) // 4}I", data))
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        index = generator.randrange(2, 20) if generator.random() < 0.9 else generator.randrange(len(values))
        change = generator.randrange(4)
        if change == 0:
            values[index] ^= 1 << generator.randrange(32)
        elif change == 1:
            values[index] = generator.choice((0, 1, 3, 4, 64, 80, 160, 176, 0x7FFFFFFF, 0x80000000, BIG, 0xFFFFFFFF))
        elif change == 2:
            values[index] = (values[index] + generator.choice((-16, -4, -2, -1, 1, 2, 4, 16))) % (1 << 32)
        else:
            values[index] = generator.getrandbits(32)
    end = generator.randrange(40, len(values)) if generator.random() < 0.1 else len(values)
    return words(values[:end])


@needs_host_compiler
def test_thousands_of_corrupted_objects(plain_library: Path, tmp_path: Path) -> None:
    generator = random.Random(4)
    valid = VALID.build()
    objects = [corrupted(valid, generator) for _ in range(5000)]
    verdicts = judge(plain_library, objects, tmp_path)
    wrong = [
        data.hex()
        for data, verdict in zip(objects, verdicts, strict=True)
        if verdict[1] != is_plausible(data) or verdict[2] != is_plausible(data[:-4])
    ]
    assert wrong == []
    assert 100 < sum(verdict[1] == 1 for verdict in verdicts) < 2500


@needs_host_compiler
def test_noise_is_refused(plain_library: Path, tmp_path: Path) -> None:
    generator = random.Random(7)
    magic = words([0x30470F62, 0x46344C4D])
    objects = [magic + generator.randbytes(4 * generator.randrange(0, 60)) for _ in range(500)]
    assert all(verdict[1:] == [0, 0] for verdict in judge(plain_library, objects, tmp_path))


@needs_host_compiler
def test_null_and_unaligned_pointers(plain_library: Path) -> None:
    library = ctypes.CDLL(str(plain_library))
    unaligned = Buffer(b"\0\0" + VALID.build())
    assert library.ml4f_is_valid_header(None) == 0
    assert library.ml4f_is_valid_object(None, ctypes.c_size_t(176)) == 0
    assert library.ml4f_is_valid_header(unaligned.pointer(2)) == 0
    assert library.ml4f_is_valid_object(unaligned.pointer(2), ctypes.c_size_t(176)) == 0


# ---- running, with a stand-in for the machine code ----

Run = Callable[[Model], tuple[int, Buffer]]


@pytest.fixture
def run_test_vector(faked: ctypes.CDLL) -> Run:
    def run(model: Model) -> tuple[int, Buffer]:
        arena = Buffer(b"\xff" * 256)
        return faked.ml4f_test(Buffer(model.build()).pointer(), arena.pointer()), arena

    return run


@needs_host_compiler
def test_invoke_checks_its_arguments(faked: ctypes.CDLL) -> None:
    model, arena = Buffer(VALID.build()), Buffer(bytes(256))
    broken = Buffer(replace(VALID, changed_words={9: 3}).build())
    for function in (faked.ml4f_invoke, faked.ml4f_test):
        assert function(model.pointer(), arena.pointer()) == OK
        assert function(None, arena.pointer()) == IS_NULL
        assert function(model.pointer(), None) == IS_NULL
        assert function(broken.pointer(), arena.pointer()) == BAD_HEADER
        assert function(model.pointer(), arena.pointer(2)) == BAD_ALIGNMENT


@needs_host_compiler
def test_host_does_not_jump_into_arm_code(plain_library: Path) -> None:
    library = ctypes.CDLL(str(plain_library))
    assert library.ml4f_invoke(Buffer(VALID.build()).pointer(), Buffer(bytes(256)).pointer()) == UNSUPPORTED


@needs_host_compiler
def test_test_vector_is_run(run_test_vector: Run) -> None:
    status, arena = run_test_vector(VALID)
    assert status == OK
    assert arena.floats(32, 4) == (2.0, 4.0, 6.0, 8.0)


@needs_host_compiler
def test_objects_without_test_vector(run_test_vector: Run) -> None:
    for absent in ({5: 0}, {6: 0}, {5: 0, 6: 0}):
        assert run_test_vector(replace(VALID, changed_words=absent))[0] == NO_TEST_DATA


@needs_host_compiler
@pytest.mark.parametrize(
    ("actual", "expected", "status"),
    [
        ([1.0, 0.0, -3.0, 5.0], [1.0009, 0.0, -3.002, 4.996], OK),
        ([1.0, 0.0, -3.0, 5.0], [1.0012, 0.0, -3.0, 5.0], MISMATCH),
        ([1.0, 0.0, -3.0, 5.0], [1.0, 0.0, 3.0, 5.0], MISMATCH),
        ([1e-5, 0.0, 0.0, 5.0], [0.0, 4e-5, -4e-5, 5.0], OK),
        ([1e-4, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 5.0], MISMATCH),
        ([math.nan, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], MISMATCH),
        ([0.0, 0.0, 0.0, 0.0], [0.0, math.nan, 0.0, 0.0], MISMATCH),
        ([math.nan, 0.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 0.0], OK),
        ([math.inf, -math.inf, 0.0, 0.0], [math.inf, -math.inf, 0.0, 0.0], OK),
        ([math.inf, 0.0, 0.0, 0.0], [-math.inf, 0.0, 0.0, 0.0], MISMATCH),
        ([1.0, 0.0, 0.0, 0.0], [math.inf, 0.0, 0.0, 0.0], MISMATCH),
        ([1.0, 2.0, 3.0, 3.5], [math.inf, 2.0, 3.0, 4.0], MISMATCH),
        ([0.0, -0.0, 0.0, 0.0], [-0.0, 0.0, 0.0, 0.0], OK),
    ],
)
def test_tolerance(actual: list[float], expected: list[float], status: int, run_test_vector: Run) -> None:
    model = Model(weights=floats([1.0]), test_input=floats(actual), test_output=floats(expected))
    assert run_test_vector(model)[0] == status


def full_invoke(library: ctypes.CDLL, model: bytes, values: Sequence[float]) -> tuple[int, tuple[float, ...]]:
    output = Buffer(bytes(4 * len(values)))
    status = library.ml4f_full_invoke(Buffer(model).pointer(), Buffer(floats(values)).pointer(), output.pointer())
    return status, output.floats(0, len(values))


@needs_host_compiler
def test_full_invoke(faked: ctypes.CDLL) -> None:
    assert full_invoke(faked, VALID.build(), [1, -2, 0.5, 8]) == (OK, (2.0, -4.0, 1.0, 16.0))
    assert full_invoke(faked, replace(VALID, changed_words={9: 3}).build(), [1, 2, 3, 4])[0] == BAD_HEADER
    assert full_invoke(faked, replace(VALID, changed_words={7: 4097}).build(), [1, 2, 3, 4])[0] == NO_MEMORY
    model, data = Buffer(VALID.build()), Buffer(bytes(16))
    assert faked.ml4f_full_invoke(model.pointer(), None, data.pointer()) == IS_NULL
    assert faked.ml4f_full_invoke(model.pointer(), data.pointer(), None) == IS_NULL
    assert faked.ml4f_full_invoke(None, data.pointer(), data.pointer()) == IS_NULL
    assert faked.arenas_in_use() == 0


@needs_host_compiler
def test_full_invoke_argmax(faked: ctypes.CDLL) -> None:
    model = Buffer(VALID.build())

    def argmax(values: Sequence[float]) -> int:
        return faked.ml4f_full_invoke_argmax(model.pointer(), Buffer(floats(values)).pointer())

    assert argmax([1, 2, 9, 4]) == 2
    assert argmax([math.nan] * 4) == NO_MAXIMUM
    assert faked.ml4f_full_invoke_argmax(model.pointer(), None) == IS_NULL
    assert faked.arenas_in_use() == 0


@needs_host_compiler
@pytest.mark.parametrize(
    ("flags", "statuses"),
    [
        ([], (NO_MEMORY, NO_MEMORY)),
        (["-DML4F_STATIC_ARENA_BYTES=48"], (OK, NO_MEMORY)),
        (["-DML4F_USE_MALLOC"], (OK, OK)),
        (["-DML4F_USE_MALLOC", "-DML4F_STATIC_ARENA_BYTES=45"], (OK, NO_MEMORY)),
    ],
)
def test_where_arenas_come_from(flags: list[str], statuses: tuple[int, int], tmp_path: Path) -> None:
    """An arena of 48 bytes, then one of 52; twice, as the first must have been given back."""
    (tmp_path / "fake.h").write_text(FAKE_DECLARATIONS)
    (tmp_path / "fake.c").write_text(FAKE_ENTRY)
    flags = [*FAKE_FLAGS[:3], *flags]
    library = ctypes.CDLL(str(build_library(tmp_path, "allocation.so", flags, ["fake.c"])))
    small, large = VALID.build(), replace(VALID, changed_words={7: 52}).build()
    for _ in range(2):
        assert tuple(full_invoke(library, model, [1, 2, 3, 4])[0] for model in (small, large)) == statuses


@needs_host_compiler
def test_arena_is_given_back_after_a_failure(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build_library(tmp_path, "static.so", ["-DML4F_STATIC_ARENA_BYTES=48"])))
    assert [full_invoke(library, VALID.build(), [1, 2, 3, 4])[0] for _ in range(2)] == [UNSUPPORTED] * 2


@needs_host_compiler
def test_shapes(faked: ctypes.CDLL) -> None:
    model = Buffer(shaped([28, 14, 3], [10]))
    for function in (faked.ml4f_input_shape, faked.ml4f_output_shape):
        function.restype = ctypes.POINTER(ctypes.c_uint32)
    assert faked.ml4f_input_shape(model.pointer())[:4] == [28, 14, 3, 0]
    assert faked.ml4f_output_shape(model.pointer())[:2] == [10, 0]
    for function in (faked.ml4f_shape_elements, faked.ml4f_shape_size):
        function.restype = ctypes.c_uint32
    assert faked.ml4f_shape_elements(Buffer(words([28, 14, 3, 0])).pointer()) == 28 * 14 * 3
    assert faked.ml4f_shape_elements(Buffer(words([0])).pointer()) == 1
    assert faked.ml4f_shape_elements(Buffer(words([1 << 16, 1 << 16, 0])).pointer()) == 0
    assert faked.ml4f_shape_size(Buffer(words([5, 0])).pointer(), 1) == 20
    assert faked.ml4f_shape_size(Buffer(words([5, 0])).pointer(), 2) == 20
    assert faked.ml4f_shape_size(Buffer(words([5, 0])).pointer(), 3) == 0
    assert faked.ml4f_shape_size(Buffer(words([1 << 30, 0])).pointer(), 1) == 0


@needs_host_compiler
@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([1, 3, 2], 1),
        ([-3, -1, -2], 1),
        ([2, 5, 5], 1),
        ([math.nan, -5, math.nan, -4], 3),
        ([-math.inf, -math.inf], 0),
        ([math.nan], NO_MAXIMUM),
        ([], NO_MAXIMUM),
    ],
)
def test_argmax(values: list[float], index: int, faked: ctypes.CDLL) -> None:
    assert faked.ml4f_argmax(Buffer(floats(values)).pointer(), ctypes.c_uint32(len(values))) == index


# ---- compilers ----


@needs_host_compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("flags", [[], ["-DML4F_USE_MALLOC"], ["-DML4F_STATIC_ARENA_BYTES=64"]])
def test_compiles_as_cpp(flags: list[str], tmp_path: Path) -> None:
    command = ["g++", "-std=c++11", "-x", "c++", *WARNINGS, *flags, "-c", str(RUNTIME / "ml4f.c"), "-o", "ml4f.o"]
    subprocess.run(command, cwd=tmp_path, check=True)


@needs_arm_compiler
@pytest.mark.parametrize("optimisation", ["-O0", "-O2", "-O3", "-Os"])
def test_arm_build_needs_no_library(optimisation: str, tmp_path: Path) -> None:
    """No memcpy, no malloc, nothing: whatever the optimiser makes of the loops."""
    flags = [*ARM_FLAGS, "-std=c99", optimisation, *WARNINGS]
    subprocess.run(
        ["arm-none-eabi-gcc", *flags, "-c", str(RUNTIME / "ml4f.c"), "-o", "ml4f.o"], cwd=tmp_path, check=True
    )
    listed = subprocess.run(
        ["arm-none-eabi-nm", "-u", "ml4f.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == []


# ---- on the emulated board ----

# out[i] = in[i] * weight. The weight's place is reckoned from r0, the arena's from r1; s16 is used and preserved.
SCALE_BY_WEIGHT = """
    .syntax unified
    .cpu cortex-m4
    .fpu fpv4-sp-d16
    .thumb
    push {{r4, lr}}
    vpush {{s16}}
    ldr r4, [r0, #16]
    add r0, r0, r4
    vldr s16, [r0]
    movs r4, #{elements}
    add r0, r1, #{output_offset}
    add r1, r1, #16
loop:
    vldmia r1!, {{s0}}
    vmul.f32 s0, s0, s16
    vstmia r0!, {{s0}}
    subs r4, #1
    bne loop
    vpop {{s16}}
    pop {{r4, pc}}
"""


def assemble(text: str, directory: Path) -> bytes:
    """The code's bytes, padded to a multiple of 4."""
    (directory / "code.s").write_text(text)
    subprocess.run(["arm-none-eabi-as", "code.s", "-o", "code.o"], cwd=directory, check=True)
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "code.o", "code.bin"], cwd=directory, check=True)
    code = (directory / "code.bin").read_bytes()
    return code.ljust(-(-len(code) // 4) * 4, b"\0")


@pytest.fixture
def scaling_code(tmp_path: Path) -> Iterator[Callable[[int], bytes]]:
    yield lambda elements: assemble(
        SCALE_BY_WEIGHT.format(elements=elements, output_offset=16 + 4 * elements), tmp_path
    )


def run_firmware(object_bytes: bytes, directory: Path, inputs: str | None = None) -> tuple[int, list[str]]:
    """Builds the firmware for the object and runs it in QEMU: the exit code and the lines printed."""
    (directory / "hand-made.c").write_text(c_source(object_bytes, "hand-made", "a test"))
    (directory / "hand-made.h").write_text(c_header(object_bytes, "hand-made", "a test"))
    if inputs is None:
        return run_firmware_of(directory, "hand-made")
    (directory / "input.txt").write_text(inputs)
    return run_firmware_of(directory, "hand-made", directory / "input.txt")


def run_firmware_of(directory: Path, model: str, inputs: Path | None = None) -> tuple[int, list[str]]:
    """The same for the C source `model`.c and .h in a directory."""
    variables = [
        f"MODEL_DIR={directory}",
        f"MODEL={model}",
        f"BUILD={directory / 'build'}",
        f"PYTHON={sys.executable}",
    ]
    if inputs is not None:
        variables.append(f"INPUT={inputs}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    make = ["make", "--no-print-directory", "-C", str(FIRMWARE), *variables]
    built = subprocess.run(make, capture_output=True, text=True, env=environment, timeout=120)
    assert built.returncode == 0, built.stderr
    printed = subprocess.run(
        ["make", "-n", *make[1:], "run"], capture_output=True, text=True, env=environment, timeout=60
    )
    command = printed.stdout.splitlines()[-1].split()
    board = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True, timeout=60)
    assert board.stderr == ""
    return board.returncode, board.stdout.splitlines()


def bits(values: Sequence[float]) -> list[str]:
    return [f"{word:08x}" for (word,) in struct.iter_unpack("<I", floats(values))]


@needs_emulated_board
def test_firmware_runs_a_hand_made_object(scaling_code: Callable[[int], bytes], tmp_path: Path) -> None:
    model = Model(code=scaling_code(4), weights=floats([2.5]))
    status, lines = run_firmware(model.build(), tmp_path, "1, -2\n0.1 1e30")
    assert (status, lines) == (0, [*bits([2.5, -5.0, 0.1 * 2.5, 1e30 * 2.5]), "# test vector: none"])


@needs_emulated_board
def test_firmware_takes_a_ramp_and_runs_the_test_vector(scaling_code: Callable[[int], bytes], tmp_path: Path) -> None:
    test_input, test_output = floats([1, 2, 3, 4, 5]), floats([2, 4, 6, 8, 10])
    model = Model(scaling_code(5), floats([2.0]), 5, test_input, test_output)
    ramp = bits([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert run_firmware(model.build(), tmp_path) == (0, [*ramp, "# test vector: passed"])
    wrong = replace(model, test_output=floats([2, 4, 6, 8, 11]))
    assert run_firmware(wrong.build(), tmp_path) == (1, [*ramp, "# test vector: wrong output"])


@needs_emulated_board
def test_firmware_refuses_and_survives_bad_objects(scaling_code: Callable[[int], bytes], tmp_path: Path) -> None:
    model = Model(code=scaling_code(4))
    invalid = replace(model, changed_words={8: 0x7FFFFFF0}).build()
    assert run_firmware(invalid, tmp_path) == (2, ["# the object is not valid"])
    undefined_instruction = replace(model, code=bytes.fromhex("00de00de")).build()
    assert run_firmware(undefined_instruction, tmp_path) == (5, ["# fault"])
