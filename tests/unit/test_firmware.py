"""Compiled example models on an emulated Cortex-M4 board: the same bits as `ml4f run`, through the C runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_runtime import needs_emulated_board, run_firmware_of

import ml4f
from ml4f.cli import main

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


@needs_emulated_board
@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("model", ["microbit_acc_gestures.json", "digits_conv2d.keras", "cancer_mlp.onnx"])
def test_the_board_computes_the_same_bits(
    model: str, float16: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compilation = ml4f.compile(MODELS / model, float16=float16, test_data=True, validate=False)
    compilation.save(tmp_path)
    x = np.random.default_rng(5).standard_normal(compilation.input_shape).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert main(["run", str(tmp_path / f"{compilation.basename}.ml4f"), str(tmp_path / "x.npy"), "--hex"]) == 0
    bits = capsys.readouterr().out.split()
    assert len(bits) == compilation.outputs and len(set(bits)) > 1
    assert run_firmware_of(tmp_path, compilation.basename, tmp_path / "x.npy") == (0, [*bits, "# test vector: passed"])
