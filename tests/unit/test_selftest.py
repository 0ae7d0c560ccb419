"""Every sample network is right in float32 and float16, needs no more cycles than the original, and `ml4f self-test`
says so.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from shared_models import shared_models

from ml4f.cli import main
from ml4f.compiler import Options, compile_proto
from ml4f.errors import InternalError, ValidationError
from ml4f.reference import Reference
from ml4f.samples import SAMPLES, sample_model
from ml4f.selftest import outcomes

ORIGINAL_CYCLES = {
    "tfjsGest": 196_207,
    "oneD": 141_425,
    "noDsp": 568_571,
    "microSpeech": 1_655_757,
    "conv2d": 281_216,
    "dspDense": 4_952,
    "depth1": 493_859,
    "batch1": 27_117,
    "avgPool": 300_835,
}
"""Modelled cycles of the original ml4f's code, by the same rules."""
README = Path(__file__).resolve().parents[2] / "README.md"
README_ROW = re.compile(r"^\| (\w+) \| [^|]* \| ([\d,]+)[^|]*\| ([\d,]+)[^|]*\| ([\d,]+)[^|]*\|$", re.MULTILINE)
README_FIGURES = {
    name: tuple(int(n.replace(",", "")) for n in row) for name, *row in README_ROW.findall(README.read_text())
}
"""Cycles, arena and code of samples, as the README states them."""
SHARED = shared_models()
SHARED_SAMPLES = sorted(path.stem for path in (SHARED / "samples").glob("*.onnx")) if SHARED else []
DISTANCE = 1e-4
"""Allowed difference to the reference, relative to the largest output."""


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_right(name: str) -> None:
    """Validated while it is compiled, and compared here once more, on other inputs."""
    model = sample_model(name)
    compilation = compile_proto(model, name)
    x = np.random.default_rng(99).standard_normal((1, *compilation.input_shape)).astype(np.float32)
    expected = Reference(model).run([x])[model.graph.output[0].name]
    np.testing.assert_allclose(compilation.predict(x), expected, rtol=0, atol=DISTANCE * np.abs(expected).max())
    stats = compilation.stats
    assert stats.cycles <= ORIGINAL_CYCLES.get(name, math.inf)
    if name in README_FIGURES:
        figures = (stats.cycles, stats.arena_bytes, stats.code_bytes)
        assert all(figure <= stated for figure, stated in zip(figures, README_FIGURES[name], strict=True)), "README.md"


SMALL_CODE = {
    "tfjsGest": (2_516, 121_500),
    "oneD": (2_240, 108_000),
    "noDsp": (4_476, 283_500),
    "microSpeech": (1_572, 1_059_750),
    "depth1": (1_256, 203_850),
    "dspDense": (1_120, 4_860),
}
"""Bytes of the original's code, and cycles up to which ours, with --optimize size, may be smaller."""


@pytest.mark.parametrize("name", SMALL_CODE)
def test_small_code_is_no_more_than_the_originals(name: str) -> None:
    stats = compile_proto(sample_model(name), name, Options(goal="size", validate=False)).stats
    code, cycles = SMALL_CODE[name]
    assert stats.code_bytes <= code and stats.cycles <= cycles


FLOAT16_CYCLES = {"tfjsGest": 1.05, "oneD": 1.05, "noDsp": 1.05, "microSpeech": 1.05, "depth1": 1.05, "dspDense": 1.17}
"""At most so many times the cycles of float32 weights: convolutions and dense layers."""


@pytest.mark.parametrize("name", FLOAT16_CYCLES)
def test_float16_weights_cost_few_cycles(name: str) -> None:
    whole, half = (
        compile_proto(sample_model(name), name, Options(float16=float16, validate=False)).stats
        for float16 in (False, True)
    )
    assert half.cycles <= FLOAT16_CYCLES[name] * whole.cycles


def test_the_readme_states_figures() -> None:
    assert set(README_FIGURES) == set(ORIGINAL_CYCLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_right_with_float16_weights(name: str) -> None:
    compilation = compile_proto(sample_model(name), name, Options(float16=True))
    assert compilation.stats.cycles <= ORIGINAL_CYCLES.get(name, math.inf)


def test_there_are_the_originals_samples_and_the_microbits() -> None:
    assert len(SAMPLES) == 23
    create_ai = sample_model("createAI")
    assert [node.op_type for node in create_ai.graph.node] == ["BatchNormalization", "Gemm", "Relu", "Gemm", "Softmax"]


def test_samples_are_the_same_every_time() -> None:
    first, second = (sample_model("noDsp").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.skipif(not SHARED_SAMPLES, reason="the shared collection of models is not here (ML4F_SHARED)")
@pytest.mark.parametrize("name", SHARED_SAMPLES)
def test_architectures_are_the_originals(name: str) -> None:
    """The same network converted by tf2onnx has the same shapes and multiply-accumulates."""
    assert SHARED is not None
    theirs = onnx.load(SHARED / "samples" / f"{name}.onnx")
    options = Options(validate=False, optimize=False)
    ours, other = compile_proto(sample_model(name), name, options), compile_proto(theirs, name, options)
    assert (ours.input_shape, ours.output_shape) == (other.input_shape, other.output_shape)
    assert ours.stats.macs == other.stats.macs
    assert ours.stats.weight_bytes == other.stats.weight_bytes


def test_self_test_prints_a_line_a_compilation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self-test", "--only", "dense", "--only", "batch1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["dense", "float32"],
        ["dense", "float16"],
        ["batch1", "float32"],
        ["batch1", "float16"],
    ]
    assert all(line.endswith("  ok") for line in lines[1:5]) and lines[5:] == ["4 of 4 ok"]
    assert all(figure.isdigit() for line in lines[1:5] for figure in line.split()[2:5])


def test_self_test_reports_failures_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(model: object, name: str, options: Options, **_: object) -> None:
        raise KeyError(name) if options.float16 else ValidationError(f"{name}: layer conv2d_1 differs")

    monkeypatch.setattr("ml4f.selftest.compile_proto", fail)
    found = list(outcomes(["conv2d"]))
    assert isinstance(found[0].error, ValidationError) and isinstance(found[1].error, InternalError)
    assert main(["self-test", "--only", "conv2d"]) == InternalError.exit_code
    output = capsys.readouterr()
    assert output.out.count("FAILED") == 2 and "0 of 2 ok" in output.out and "layer conv2d_1 differs" in output.err
