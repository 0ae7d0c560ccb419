"""Every instruction row against GNU as and Capstone, with random operands."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ml4f.backend.thumb.decoder import all_forms
from ml4f.backend.thumb.encoding import Form, Row, word_bytes
from ml4f.dialects.thumb import INSTRUCTION_OPS

SAMPLES = 40
ROWS: list[tuple[Form, Row]] = list({id(row): (form, row) for form in all_forms() for row in form.rows}.values())


def samples(form: Form, row: Row, rng: random.Random) -> list[tuple]:
    """Random operands of a row, found by decoding random field bits, that no narrower row takes."""
    found = {}
    for _ in range(SAMPLES * 60):
        word = row.value | (rng.getrandbits(8 * row.size) & ~row.mask)
        if rng.random() < 0.5:
            word &= row.value | rng.getrandbits(8 * row.size) | row.mask
        values = row.decode(word)
        if values is None or row.encode(values) is None:
            continue
        chosen, _ = form.select(values, row.size)
        if chosen is row:
            found[values] = None
        if len(found) == SAMPLES:
            break
    return list(found)


def cases() -> list[tuple[Row, tuple, int]]:
    rng = random.Random(1)
    made = []
    for form, row in ROWS:
        some = samples(form, row, rng)
        assert some, f"no operands found for {row.syntax}"
        for values in some:
            word = row.encode(values)
            assert word is not None
            made.append((row, values, word))
    return made


@pytest.fixture(scope="module")
def encoded() -> list[tuple[Row, tuple, int]]:
    return cases()


def test_rows_agree_with_gnu_as(encoded, tmp_path: Path):
    assembler = shutil.which("arm-none-eabi-as")
    if assembler is None:
        pytest.skip("GNU as for Arm (binutils-arm-none-eabi) is not installed")
    lines = [".syntax unified", ".cpu cortex-m7", ".fpu fpv5-sp-d16", ".thumb", ".text"]
    expected = []
    for row, values, word in encoded:
        text = row.text(values)
        if row.mnemonic == "it":
            condition = text.split()[1]
            lines += [text, f"mov{condition} r1, r2"]
            expected.append((text, word_bytes(word, row.size)))
            expected.append((f"mov{condition}", b"\x11\x46"))
            continue
        lines.append(text)
        expected.append((text, word_bytes(word, row.size)))
    source = tmp_path / "rows.s"
    source.write_text("\n".join(lines) + "\n")
    made = subprocess.run(
        [assembler, "-o", str(tmp_path / "rows.o"), str(source)], capture_output=True, text=True, check=False
    )
    numbered = {int(n): message for n, message in re.findall(r":(\d+): (?:Error|Warning): (.*)", made.stderr)}
    problems = [f"{lines[n - 1]}: {message}" for n, message in numbered.items()]
    assert not problems, "\n".join(problems[:20])
    subprocess.run(
        ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", str(tmp_path / "rows.o"), str(tmp_path / "rows.bin")],
        check=True,
    )
    binary = (tmp_path / "rows.bin").read_bytes()
    position, wrong = 0, []
    for text, data in expected:
        if binary[position : position + len(data)] != data:
            wrong.append(f"{text}: ours {data.hex()}, as {binary[position : position + len(data)].hex()}")
        position += len(data)
    assert not wrong, "\n".join(wrong[:40])
    assert not any(binary[position:].strip(b"\x00").replace(b"\xbf", b"")), "as made more bytes"


def test_rows_agree_with_capstone(encoded):
    capstone = pytest.importorskip("capstone")
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    wrong = []
    for row, values, word in encoded:
        decoded = list(engine.disasm(word_bytes(word, row.size), 0))
        text = row.text(values)
        if row.mnemonic == "it" or text.startswith("nop"):
            continue
        if len(decoded) != 1 or decoded[0].size != row.size:
            wrong.append(f"{text}: Capstone finds no instruction")
            continue
        mine, theirs = registers(text), registers(f"{decoded[0].mnemonic} {decoded[0].op_str}")
        if mine != theirs:
            wrong.append(f"{text}: Capstone says {decoded[0].mnemonic} {decoded[0].op_str}")
    assert not wrong, "\n".join(wrong[:20])


def registers(text: str) -> set[str]:
    """The registers that a line of assembly names, ranges written out."""
    aliases = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12"}
    text = re.sub(r"\b(sb|sl|fp|ip)\b", lambda m: aliases[m[1]], text.lower())
    found = set()
    for file, first, last in re.findall(r"\b([rs])(\d+)-[rs](\d+)", text):
        found |= {f"{file}{n}" for n in range(int(first), int(last) + 1)}
    found |= set(re.findall(r"\b(?:r\d+|s\d+|lr)\b", text))
    return found


def test_decode_inverts_encode(encoded):
    for row, _, word in encoded:
        again = row.decode(word)
        assert again is not None and row.encode(again) == word, row.syntax


def test_every_operation_s_rows_are_among_those_tested():
    rows = {id(row) for _, row in ROWS}
    assert all(id(row) in rows for op in INSTRUCTION_OPS for row in op.FORM.rows)
    assert {"it", "bl", "bx", "nop", "push", "vpush", "cmp", "vmrs"} <= {row.mnemonic for _, row in ROWS}
