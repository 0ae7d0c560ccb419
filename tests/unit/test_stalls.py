"""The stall report: convolution loops wait for no result, address, store or division; and it finds what does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nests import LOOP_PASSES, apply, compile_module, kernel_module, program_module

import ml4f
from ml4f.backend.loop import kernels
from ml4f.backend.loop.nest import Operand, Step
from ml4f.backend.thumb.object_code import ObjectCode
from ml4f.interpreters.loop import run_loop
from ml4f.machine import Machine
from ml4f.stalls import HAZARDS, LoopReport, loop_reports, stall_table, summary
from ml4f.tools.stalls import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"
ALIGNMENT_SHARE = 0.01
"""Epilogues mix 16-bit and 32-bit instructions: now and then three wide ones in a row are off their words."""


def convolution(size: int, channels: int, filters: int, kernel: int) -> ObjectCode:
    out = size - kernel + 1
    nest = kernels.conv2d(
        [size, size, channels],
        [kernel, kernel, channels, filters],
        [out, out, filters],
        [1, 1],
        [1, 1],
        [0] * 4,
        1,
        False,
        [],
    )
    weights = np.random.default_rng(0).standard_normal(kernel * kernel * channels * filters)
    module = kernel_module(nest, {"w": weights}, {"x": size * size * channels, "out": out * out * filters})
    apply(module, *LOOP_PASSES)
    return compile_module(module)


def assert_clean(loops: list[LoopReport]) -> None:
    assert loops
    for loop in loops:
        hazards = {kind: loop.steady_stalls[kind] for kind in HAZARDS if loop.steady_stalls[kind]}
        assert not hazards, f"{loop.operator} {loop.layers}, loop over {loop.over} at {loop.start:#x}: {hazards} cycles"
        lost = loop.steady_stalls.total()
        assert lost <= ALIGNMENT_SHARE * loop.cycles, f"{loop.layers}: {lost} of {loop.cycles} cycles lost to alignment"


@pytest.mark.parametrize(("size", "channels", "filters", "kernel"), [(9, 8, 12, 3), (12, 16, 16, 1), (10, 3, 8, 5)])
def test_convolutions_do_not_stall(size: int, channels: int, filters: int, kernel: int):
    assert_clean([loop for loop in loop_reports(convolution(size, channels, filters, kernel)) if loop.is_innermost])


@pytest.mark.parametrize("relu", [True, False])
def test_residual_sums_do_not_wait_for_stores(relu: bool):
    """The residuals of the next results are loaded in front of the stores of these ones."""
    steps = [Step("add", "residual"), *([Step("activation", name="relu")] if relu else [])]
    nest = kernels.conv2d([6, 5, 16], [1, 1, 16, 16], [6, 5, 16], [1, 1], [1, 1], [0] * 4, 1, False, steps)
    residual = Operand("residual", nest.by_role["out"].map)
    nest = replace(nest, operands=(*nest.operands[:-1], residual, nest.operands[-1]))
    symbols = {role: role for role in ("x", "w", "out")} | {"residual": "x"}
    rng = np.random.default_rng(3)
    module = program_module([(nest, symbols)], {"w": rng.standard_normal(256)}, {"x": 480, "out": 480})
    x = rng.standard_normal(480).astype(np.float32)
    expected = run_loop(module, [x])[0]
    apply(module, *LOOP_PASSES)
    code = compile_module(module)
    np.testing.assert_allclose(Machine(code.binary).run(x), expected, rtol=1e-4, atol=1e-5)
    assert all(loop.steady_stalls["store"] == 0 for loop in loop_reports(code))


@pytest.mark.parametrize("name", ["digits_conv2d.keras", "watch_gesture.h5"])
def test_convolution_loops_of_models_do_not_stall(name: str):
    compilation = ml4f.compile(EXAMPLES / name, validate=False)
    loops = loop_reports(compilation.code)
    assert_clean([loop for loop in loops if loop.is_innermost and loop.operator in ("conv2d", "dense")])
    assert sum(loop.cycles for loop in loops) <= compilation.stats.cycles
    assert sum(loop.cycles for loop in loops) > 0.8 * compilation.stats.cycles


@pytest.mark.parametrize("name", ["digits_conv2d.keras", "watch_gesture.h5"])
def test_conversions_of_float16_weights_hardly_stall(name: str):
    """Only where a chain of products begins with a single weight its conversion is waited for."""
    loops = loop_reports(ml4f.compile(EXAMPLES / name, validate=False, float16=True).code)
    for loop in loops:
        if loop.is_innermost and loop.operator in ("conv2d", "dense"):
            assert loop.steady_stalls.total() <= 0.02 * loop.cycles, f"{loop.layers}, loop over {loop.over}"


def test_unscheduled_code_stalls():
    compilation = ml4f.compile(EXAMPLES / "iris_mlp.tfjs", validate=False, optimize=False)
    loops = loop_reports(compilation.code)
    assert sum(loop.steady_stalls["result"] for loop in loops) > 0
    text = stall_table(loops)
    assert "result" in text.splitlines()[0] and len(text.splitlines()) == len(loops) + 2
    assert f"of {compilation.stats.cycles} cycles" in summary(loops, compilation.stats.cycles)


def test_iterations_and_nesting():
    loops = loop_reports(convolution(12, 16, 16, 1))
    outer = [loop for loop in loops if loop.depth == 1]
    assert any(not loop.is_innermost for loop in loops)
    assert all(loop.entries == 1 for loop in outer)
    for loop in loops:
        inside = [other for other in loops if loop.start <= other.start and other.end <= loop.end and other is not loop]
        assert loop.is_innermost == (not inside)
        assert all(other.depth > loop.depth and other.entries % loop.iterations == 0 for other in inside)


def test_command_line(capsys: pytest.CaptureFixture[str]):
    assert main([str(EXAMPLES / "iris_mlp.tfjs"), "--innermost"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("layer") and "dense" in output and "stalls in loops:" in output
    assert main(["missing.onnx"]) == 1
    assert "missing.onnx" in capsys.readouterr().err
