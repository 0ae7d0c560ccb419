"""GNU as and objcopy for Arm, for tests that compare bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def assembled_bytes(source: str, folder: Path) -> bytes:
    """What GNU as makes of a listing, without a warning; skips the test where it is not installed."""
    assembler = shutil.which("arm-none-eabi-as")
    if assembler is None:
        pytest.skip("GNU as for Arm (binutils-arm-none-eabi) is not installed")
    listing, object_file, binary = (folder / f"listing.{ending}" for ending in ("s", "o", "bin"))
    listing.write_text(source)
    made = subprocess.run(
        [assembler, "-o", str(object_file), str(listing)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0 and not made.stderr, made.stderr[:2000]
    copy = ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", str(object_file), str(binary)]
    subprocess.run(copy, check=True)
    return binary.read_bytes()
