"""The generated C compiles without a warning as C and C++, and says what the object says."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from ml4f.backend.c_source import c_header, c_identifier, c_source
from ml4f.errors import Ml4fError

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
DIALECTS = {"c99": ["gcc", "-std=c99", "-x", "c"], "c++11": ["g++", "-std=c++11", "-x", "c++"]}

NASTY_SUMMARY = 'ends a comment */ and #error, opens one /*\n"quotes" \\\nthree lines, a bell \a, ?\u200b and a é'


def make_object(input_shape: tuple[int, ...] = (2, 3), output_shape: tuple[int, ...] = (5,)) -> bytes:
    """An object of 160 bytes with a header that is right and code and weights that are every byte value's turn."""
    shapes = [*input_shape, 0, *output_shape, 0]
    header_size = 64 + 4 * len(shapes)
    words = [0x30470F62, 0x46344C4D, header_size, 160, 128, 0, 0, 400, 8, 1, 64, 1, 0, 0, 0, 0, *shapes]
    header = struct.pack(f"<{len(words)}I", *words)
    return header + bytes(255 - i for i in range(160 - len(header)))


MAIN = r"""
#include <stdio.h>
#include "net.h"
#include "net.h"

static float arena[NET_ARENA_WORDS];
static const uint32_t input_shape[] = NET_INPUT_SHAPE;
static const uint32_t output_shape[] = NET_OUTPUT_SHAPE;

int main(void) {
    unsigned i;
    printf("{\"bytes\": [");
    for (i = 0; i < sizeof(net_model); i++) printf("%s%u", i ? ", " : "", (unsigned)net_model[i]);
    printf("], \"misaligned\": %u", (unsigned)((uintptr_t)net_model & 15u));
    printf(", \"entry\": %u, \"arena\": %u, \"words\": %u", NET_ENTRY_OFFSET, NET_ARENA_BYTES, NET_ARENA_WORDS);
    printf(", \"input\": [%u, %u, %u, %u]", NET_INPUT_OFFSET, NET_INPUT_ELEMENTS, NET_INPUT_RANK, input_shape[1]);
    printf(", \"output\": [%u, %u, %u, %u]", NET_OUTPUT_OFFSET, NET_OUTPUT_ELEMENTS, NET_OUTPUT_RANK, output_shape[1]);
    printf(", \"input_at\": %d", (int)((const char *)net_input(arena) - (const char *)arena));
    printf(", \"output_at\": %d", (int)((const char *)net_output(arena) - (const char *)arena));
    printf(", \"run\": %d}", net_run(arena));
    return 0;
}
"""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_compiled_array_and_constants(dialect: str, tmp_path: Path) -> None:
    if shutil.which(DIALECTS[dialect][0]) is None:
        pytest.skip(f"no {DIALECTS[dialect][0]} on this machine")
    object_bytes = make_object()
    (tmp_path / "net.c").write_text(c_source(object_bytes, "net", NASTY_SUMMARY), encoding="utf-8")
    (tmp_path / "net.h").write_text(c_header(object_bytes, "net", NASTY_SUMMARY), encoding="utf-8")
    (tmp_path / "main.c").write_text(MAIN)
    command = [*DIALECTS[dialect], *WARNINGS, "-o", "main", "main.c", "net.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    shown = json.loads(subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout)
    assert bytes(shown.pop("bytes")) == object_bytes
    assert shown == {
        "misaligned": 0,
        "entry": 84,
        "arena": 400,
        "words": 100,
        "input": [8, 6, 2, 3],
        "output": [64, 5, 1, 0],
        "input_at": 8,
        "output_at": 64,
        "run": -1,
    }


@pytest.mark.parametrize("suffix", [".c", ".h"])
def test_arm_compiler_takes_it_without_warning(suffix: str, tmp_path: Path) -> None:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("no arm-none-eabi-gcc on this machine")
    writer = c_source if suffix == ".c" else c_header
    (tmp_path / "net.c").write_text(writer(make_object(), "net", "a summary"), encoding="utf-8")
    flags = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-ffreestanding", "-std=c99"]
    subprocess.run([compiler, *flags, *WARNINGS, "-c", "net.c", "-o", "net.o"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("mnist", "mnist"),
        ("Keyword Spotting-v2.onnx", "Keyword_Spotting_v2_onnx"),
        ("96x96", "network_96x96"),
        ("__weird__", "weird"),
        ("é/..", "network"),
        ("", "network"),
    ],
)
def test_identifier(name: str, identifier: str) -> None:
    assert c_identifier(name) == identifier


def test_name_reaches_no_code_unsanitised() -> None:
    text = c_header(make_object(), 'x"; */ int evil;', "")
    assert "const unsigned char x_int_evil_model[X_INT_EVIL_OBJECT_BYTES];" in text
    assert text.count("*/ int evil") == 0


def test_scalar_has_one_element() -> None:
    text = c_header(make_object((), ()), "net", "")
    assert "#define NET_INPUT_ELEMENTS 1u" in text
    assert "#define NET_OUTPUT_SHAPE {0u}" in text


@pytest.mark.parametrize(
    ("object_bytes", "message"),
    [
        (b"", "too few"),
        (bytes(160), "magic"),
        (make_object()[:-16], "do not fit 144 bytes"),
        (make_object()[:36] + b"\2" + make_object()[37:], "element types 2 and 1"),
        (make_object()[:60] + b"\1" + make_object()[61:], "reserved words"),
        (make_object((2, 3), (5,))[:80] + b"\1" + make_object()[81:], "no terminating zero"),
    ],
)
def test_what_is_no_object_is_refused(object_bytes: bytes, message: str) -> None:
    for writer in (c_source, c_header):
        with pytest.raises(Ml4fError, match=message):
            writer(object_bytes, "net", "")
