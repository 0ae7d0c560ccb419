"""The command line: what it prints, byte for byte where that is promised, what it writes, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ml4f.cli import main
from ml4f.compiler import Compilation, Options, compile_proto
from ml4f.samples import sample_model

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"
ENDINGS = (".ml4f", ".asm", ".c", ".h", ".txt", "_layerStats.json")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the tool in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a compiled example."""
    folder = tmp_path_factory.mktemp("iris")
    assert main([str(MODELS / "iris_mlp.tfjs"), "--output", str(folder)]) == 0
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_evaluation_is_printed_in_the_promised_form(run: Run, tmp_path: Path) -> None:
    code, out, err = run(MODELS / "iris_mlp.tfjs", "--eval", MODELS / "iris_mlp.test.json")
    assert (code, err) == (0, "")
    stats = json.loads(run(MODELS / "iris_mlp.tfjs", "--json")[1])
    model_bytes, code_bytes, cycles = stats["total_bytes"], stats["code_bytes"], stats["cycles"]
    assert out.splitlines() == [
        "Accuracy: 0.9333",
        "   17    0    0",
        "    0   13    0",
        "    0    3   12",
        f"model: {model_bytes / 1024:.2f}k; code: {code_bytes / 1024:.2f}k ({100 * code_bytes / model_bytes:.1f}%); "
        f"arena: {stats['arena_bytes'] / 1024:.2f}k; test 0.00k",
        f"total cycles: {cycles} ({cycles / 84000:.3f}ms at 84MHz)",
    ]
    assert names(tmp_path / "built") == {f"iris_mlp{ending}" for ending in ENDINGS}


def test_an_object_evaluates_as_when_it_was_compiled(run: Run, tmp_path: Path) -> None:
    data = MODELS / "digits_conv2d.test.json"
    arguments = ("--test-data", "--float16", "--mhz", "64", "--eval", data)
    code, compiled, _ = run("compile", MODELS / "digits_conv2d.keras", *arguments)
    assert code == 0
    assert compiled.startswith("Accuracy: 0.98") and compiled.endswith("at 64MHz)\n")
    assert re.search(r"; test 0\.(29|30)k\n", compiled)  # 64 inputs and 10 outputs
    assert run("eval", "built/digits_conv2d.ml4f", data, "--mhz", 64) == (0, compiled, "")
    result = json.loads(run("eval", "built/digits_conv2d.ml4f", data, "--json")[1])
    assert result["accuracy"] == pytest.approx(0.98, abs=0.006)
    assert sum(map(sum, result["confusion"])) == result["samples"] == 200


def test_getting_started_shows_what_is_printed(run: Run) -> None:
    guide = (ROOT / "docs" / "getting-started.md").read_text()
    shown = re.search(r"^    Accuracy: .*\n(    [ \d]+\n)+", guide, re.MULTILINE)
    assert shown is not None
    arguments = ("--eval", MODELS / "watch_gesture.test.json", "--no-validate")
    _, out, _ = run(MODELS / "watch_gesture.h5", *arguments)
    assert out.splitlines()[:-2] == [line.removeprefix("    ") for line in shown[0].splitlines()]


def test_statistics_of_layers(iris: Path) -> None:
    layers = json.loads((iris / "iris_mlp_layerStats.json").read_text())
    assert {"name", "inputShape", "outputShape", "cycles", "codeBytes", "weightBytes", "arenaBytes", "macs"} <= set(
        layers[0]
    )
    assert layers[0]["inputShape"] == [4] and layers[0]["outputShape"] == [16]
    assert sum(layer["macs"] for layer in layers) == 4 * 16 + 16 * 8 + 8 * 3
    assert sum(layer["weightBytes"] for layer in layers) >= 243 * 4
    text = (iris / "iris_mlp.txt").read_text()
    assert f"total cycles: {sum(layer['cycles'] for layer in layers)}"[:15] in text
    listing = (iris / "iris_mlp.asm").read_text()
    assert "dense" in listing and "vmul.f32" in listing


def test_run_prints_what_the_object_computes(
    run: Run, iris: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [-0.8952, 1.0524, -1.4106, -1.383]  # a setosa
    (tmp_path / "x.json").write_text(json.dumps(values))
    np.save(tmp_path / "x.npy", np.array([values], np.float32))
    np.savez(tmp_path / "x.npz", x=np.array(values))
    code, bits, _ = run("run", iris / "iris_mlp.ml4f", "x.json", "--hex")
    outputs = np.array([int(line, 16) for line in bits.split()], np.uint32).view(np.float32)
    assert code == 0 and outputs.argmax() == 0 and outputs.sum() == pytest.approx(1, abs=1e-6)
    for source in ("x.json", "x.npy", "x.npz"):
        _, plain, _ = run("run", iris / "iris_mlp.ml4f", source)
        assert [np.float32(line) for line in plain.split()] == list(outputs)
    assert json.loads(run("run", iris / "iris_mlp.ml4f", "x.json", "--json")[1]) == [float(y) for y in outputs]
    with (tmp_path / "x.json").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run("run", iris / "iris_mlp.ml4f", "-", "--hex")[1] == bits


def test_save_onnx_keeps_the_model_that_was_compiled(run: Run, tmp_path: Path) -> None:
    assert run(MODELS / "iris_mlp.tfjs", "--save-onnx", "kept/iris.onnx", "--output", "first")[0] == 0
    assert run("kept/iris.onnx", "--output", "second", "--basename", "iris_mlp")[0] == 0
    objects = [(tmp_path / folder / "iris_mlp.ml4f").read_bytes() for folder in ("first", "second")]
    assert objects[0] == objects[1]


def test_options_change_what_they_say(run: Run, tmp_path: Path) -> None:
    sizes = {}
    for options in ((), ("--float16",), ("--no-optimize",), ("--test-data",)):
        code, out, _ = run("--sample-model", "dspDense", "--json", *options)
        assert code == 0
        sizes[options] = json.loads(out)
    plain = sizes[()]
    assert sizes[("--test-data",)]["test_bytes"] in range(4 * (33 + 3), 4 * (33 + 3) + 16) and plain["test_bytes"] == 0
    assert sizes[("--no-optimize",)]["cycles"] > plain["cycles"]
    assert names(tmp_path / "built") == {f"dspDense{ending}" for ending in ENDINGS}


def test_debug_runs_every_pass(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml4f.differential import DifferentialRun

    seen: list[str] = []
    original = DifferentialRun.__call__

    def record(self: DifferentialRun, previous: object, module: object, following: object) -> None:
        seen.append(getattr(previous, "name", ""))
        original(self, previous, module, following)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(DifferentialRun, "__call__", record)
    assert run("--sample-model", "dense", "--debug")[0] == 0
    assert {"nn-fold-batch-norm", "loop-plan-memory", "thumb-allocate-registers"} <= set(seen)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "usage"),
        (("--no-such-option",), "unrecognized"),
        (("compile",), "give one model file"),
        (("a.h5", "--sample-model", "dense"), "give one model file"),
        (("--sample-model", "nonsense"), "no sample model 'nonsense'; there are id, conv2d"),
        (("--sample-model", "dense", "--mhz", "0"), "no clock frequency"),
        (("--sample-model", "dense", "--mhz", "fast"), "no clock frequency"),
        (("--sample-model", "dense", "--basename", "../x"), "is no file name"),
        (("--sample-model", "dense", "--basename", ""), "is no file name"),
        (("--sample-model", "dense", "--basename", "_._"), "is no file name"),
        (("--sample-model", "dense", "--dim", "n=" + "9" * 5000), "say NAME=N"),
        (("--sample-model", "dense", "--dim", "n=1", "--dim", "n=2"), "n is 1 already"),
        (("--sample-model", "dense", "--input-shape", "4", "--input-shape", "5"), "it is [4] already"),
        (("run", "only.ml4f"), "INPUT"),
        (("self-test", "--only", "nonsense"), "no sample model"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], complaint: str, run: Run, tmp_path: Path) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err and "Traceback" not in err
    assert names(tmp_path) == set()


def test_models_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    whole = (MODELS / "watch_gesture.h5").read_bytes()
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "folder").mkdir()
    before = names(tmp_path)
    for name in ("empty.h5", "half.h5", "noise.onnx", "folder", "absent.keras"):
        code, out, err = run(name)
        assert (code, out) == (1, ""), name
        assert err.startswith("ml4f: ") and name in err and "Traceback" not in err
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        ('{"x": [[1, 2, 3]], "y": [0]}', "x has shape [1, 3], but the model takes [1, 4]"),
        ('{"x": [[[1, 2], [3, 4]]], "y": [0]}', "x has shape [1, 2, 2], but the model takes [1, 4]"),
        ('{"x": [[1, 2, 3, 4]], "y": [[0, 1]]}', "y has shape [1, 2], 2 values a sample, but the model has 3 outputs"),
        ('{"x": [[1, 2, 3, 4]], "y": [3]}', "whole numbers from 0 to 2"),
        ('{"x": [[1, 2, 3, 4]], "y": [0, 1]}', "1 samples in x of shape [1, 4], but y has shape [2]"),
        ('{"x": [[1, 2, 3, NaN]], "y": [0]}', "x contains NaN"),
        ('{"x": [[1, 2, 3, 4], [1]], "y": [0, 0]}', "equally long rows"),
        ('{"x": [], "y": []}', "x holds no samples"),
        ('{"x": [[1, 2, 3, 4]]}', "has no y"),
        ("[1, 2]", "has no x and no y"),
        ("{", "JSON"),
        ("[" * 100000, "nested too deeply"),
        ("", "JSON"),
    ],
)
def test_samples_that_do_not_fit(samples: str, complaint: str, run: Run, iris: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(samples)
    for arguments in (("eval", iris / "iris_mlp.ml4f", "bad.json"), (MODELS / "iris_mlp.tfjs", "--eval", "bad.json")):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert "bad.json" in err and complaint in err and "Traceback" not in err
    assert names(tmp_path) == {"bad.json"}


def test_transposed_input_is_refused(run: Run, tmp_path: Path) -> None:
    """As many values, but in another order: computing on would be a silent wrong answer."""
    assert run("--sample-model", "oneD2", "--no-validate")[0] == 0
    np.save(tmp_path / "x.npy", np.zeros((3, 10), np.float32))
    code, out, err = run("run", "built/oneD2.ml4f", "x.npy")
    assert (code, out) == (1, "") and "[3, 10]" in err and "[10, 3]" in err


def test_damaged_objects(run: Run, iris: Path, tmp_path: Path) -> None:
    whole = (iris / "iris_mlp.ml4f").read_bytes()
    (tmp_path / "x.json").write_text("[1, 2, 3, 4]")
    code_start = int.from_bytes(whole[8:12], "little")
    for name, data in {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "noise": bytes(range(256)) * 4,
        "huge": whole[:28] + (3 << 30).to_bytes(4, "little") + whole[32:],
        "undefined": whole[:code_start] + b"\xff\xff" * 32 + whole[code_start + 64 :],
    }.items():
        (tmp_path / name).write_bytes(data)
        code, out, err = run("run", name, "x.json")
        assert (code, out) == (1, ""), name
        assert err.startswith(f"ml4f: {name}: ") and "Traceback" not in err
    assert run("run", iris / "iris_mlp.ml4f", "absent.json")[0] == 1
    assert run("run", "absent.ml4f", "x.json")[0] == 1


def test_folders_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "dense.asm").mkdir(parents=True)
    for output in ("file", "file/below", "taken", "/proc/ml4f/x"):
        code, out, err = run("--sample-model", "dense", "--output", output)
        assert (code, out) == (1, "") and output.split("/")[0] in err and "Traceback" not in err
    assert names(tmp_path) == {"file", "taken"} and (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path / "taken") == {"dense.asm"}
    code, _, err = run("--sample-model", "dense", "--output", "new/deep", "--save-onnx", "file/x.onnx")
    assert code == 1 and "x.onnx" in err and names(tmp_path) == {"file", "taken"}


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_full_disk_leaves_what_was_there(
    failing: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--sample-model", "dense")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    calls = 0
    originals = {"write": os.fsync, "replace": os.replace}

    def full(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        originals[failing](*arguments)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(os, "fsync" if failing == "write" else "replace", full)
    code, out, err = run("--sample-model", "dense", "--float16", "--test-data", "--save-onnx", "dense.onnx")
    monkeypatch.undo()
    assert (code, out) == (1, "") and "No space left on device" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()} == before
    assert names(tmp_path) == {"built"}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code with a wrong weight."""
    import ml4f.compiler
    from ml4f.backend.thumb.object_code import ObjectCode, assemble

    def damaged(*arguments: object) -> ObjectCode:
        code = assemble(*arguments)  # pyright: ignore[reportArgumentType]
        at = code.header.weights_offset + 31  # the exponent of a weight
        flipped = bytes([code.binary[at] ^ 0x01])
        object.__setattr__(code, "binary", code.binary[:at] + flipped + code.binary[at + 1 :])
        return code

    monkeypatch.setattr(ml4f.compiler, "assemble", damaged)


def test_code_that_is_wrong_is_not_written(broken: None, run: Run, tmp_path: Path) -> None:
    code, out, err = run("--sample-model", "dense")
    assert (code, out) == (1, "")
    assert "dense: layer dense_1" in err and "the reference says" in err
    assert names(tmp_path) == set()


def test_force_writes_it_and_says_so(broken: None, run: Run, tmp_path: Path) -> None:
    code, _, err = run("--sample-model", "dense", "--force")
    assert code == 0 and "validation failed" in err and "dense_" in err
    assert names(tmp_path / "built") == {f"dense{ending}" for ending in ENDINGS}
    assert "validation failed" in (tmp_path / "built" / "dense.txt").read_text()


def test_bugs_of_ours_have_an_exit_code_of_their_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> Compilation:
        raise KeyError("spilled")

    monkeypatch.setattr("ml4f.compiler.compile_model", bug)
    code, out, err = run("--sample-model", "dense")
    assert (code, out) == (70, "") and "internal error: KeyError" in err and "Traceback" not in err
    with pytest.raises(KeyError):
        main(["--sample-model", "dense", "--debug"])


def ml4f(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ml4f.cli", *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False, timeout=60, **options)  # pyright: ignore


def test_help_needs_no_heavy_import() -> None:
    program = (
        "import sys, ml4f.cli; ml4f.cli.build_parser(); print(*{'numpy', 'onnx', 'xdsl', 'unicorn'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=True
    )
    assert result.stdout.split() == []
    help_text = ml4f("--help")
    assert help_text.returncode == 0 and "ml4f eval built/model.ml4f" in help_text.stdout
    assert all(len(line) <= 100 for line in help_text.stdout.splitlines())


def test_a_reader_that_leaves_is_no_error(iris: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1, 2, 3, 4]")
    command = f"{sys.executable} -m ml4f.cli run {iris}/iris_mlp.ml4f {tmp_path}/x.json; echo $? >&2"
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with os.fdopen(writing, "w") as stream:
        result = subprocess.run(
            ["sh", "-c", command], stdout=stream, stderr=subprocess.PIPE, env=environment, text=True, check=False
        )
    assert result.stderr == "0\n"


def test_progress_goes_to_a_terminal_only() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ml4f.cli", "--sample-model", "dense", "--output", os.devnull + "x/y"]
    del command[-2:]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL, env=environment, cwd="/tmp") as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:
                break
            if not part:
                break
            seen += part
        assert process.wait(timeout=60) == 0
    os.close(leader)
    assert b"dense: loop-plan-memory" in seen and b"validating layer" in seen
    assert ml4f("--sample-model", "dense", "--output", "/tmp/ml4f-no-progress").stderr == ""


@pytest.mark.parametrize("float16", [False, True])
def test_same_input_same_bytes(float16: bool) -> None:
    options = Options(float16=float16, validate=False)
    first, second = (compile_proto(sample_model("oneD2"), "oneD2", options).files() for _ in range(2))
    assert first == second
