"""ml4f-translate: every translation, from every level, and what it says when it cannot."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from gnu_assembler import assembled_bytes
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.passes import PassPipeline

from ml4f.compiler import Options, compile_model
from ml4f.passes import PASSES
from ml4f.pipelines import DEFAULT
from ml4f.tools.translate import main, module_text, remaining_passes
from ml4f.universe import ML4F_UNIVERSE

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "models" / "cancer_mlp.onnx"
KERAS_MODEL = ROOT / "examples" / "models" / "watch_gesture.h5"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as nn IR."""
    path = tmp_path_factory.mktemp("translate") / "network.mlir"
    assert main(["--import-onnx", str(MODEL), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def expected() -> bytes:
    return compile_model(MODEL, Options(validate=False)).binary


def test_imported_ir_compiles_to_what_the_compiler_makes(network: Path, expected: bytes, tmp_path: Path):
    assert 'loc("' in network.read_text(), "layers keep their names"
    assert main(["--mlir-to-object", str(network), "-o", str(tmp_path / "a.ml4f")]) == 0
    assert (tmp_path / "a.ml4f").read_bytes() == expected


def test_assembly_and_disassembly_make_the_same_object(network: Path, expected: bytes, tmp_path: Path, capsys):
    assert main(["--mlir-to-asm", str(network)]) == 0
    listing = capsys.readouterr().out
    assert "@ loop over" in listing
    assert assembled_bytes(listing, tmp_path) == expected
    (tmp_path / "a.ml4f").write_bytes(expected)
    assert main(["--object-to-asm", str(tmp_path / "a.ml4f")]) == 0
    assert assembled_bytes(capsys.readouterr().out, tmp_path) == expected


STOPS = [
    "nn-canonicalize",
    "convert-nn-to-loop",
    "loop-choose-schedule",
    "loop-pack-weights",
    "loop-expand",
    "loop-lower-addresses",
    "convert-loop-to-thumb",
    "thumb-allocate-registers",
]


@pytest.mark.parametrize("stop", STOPS)
def test_ir_is_taken_up_at_any_level(stop: str, network: Path, tmp_path: Path):
    """Text IR behind any pass goes on to an object that computes what it should."""
    context = Context()
    for dialect in (Builtin, Func):
        context.load_dialect(dialect)
    for name, factory in ML4F_UNIVERSE.all_dialects.items():
        context.register_dialect(name, factory)
    module = Parser(context, network.read_text()).parse_module()
    before = DEFAULT[: DEFAULT.index(stop) + 1]
    PassPipeline.parse_spec(PASSES, ",".join(before)).apply(context, module)
    part = tmp_path / "part.mlir"
    part.write_text(module_text(module))
    assert main(["--mlir-to-object", str(part), "-o", str(tmp_path / "part.ml4f")]) == 0

    from ml4f.differential import DifferentialRun
    from ml4f.interpreters.execute import random_inputs, run_module
    from ml4f.machine import Machine

    (x,) = random_inputs(module)
    (reference,) = run_module(module, [x])
    result = Machine((tmp_path / "part.ml4f").read_bytes()).run(x).ravel()
    assert abs(result - reference).max() < 1e-5 * abs(reference).max() + 1e-7
    run = DifferentialRun()
    PassPipeline.parse_spec(PASSES, ",".join(remaining_passes(module)), run).apply(context, module)


def test_imports_any_model_file(tmp_path: Path, capsys):
    assert main(["--import-model", str(KERAS_MODEL)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("builtin.module {") and "nn.conv2d" in text
    assert main(["--import-onnx", str(KERAS_MODEL)]) == 1
    assert "watch_gesture.h5" in capsys.readouterr().err


def test_reads_standard_input_and_writes_standard_output(network: Path, expected: bytes):
    command = [sys.executable, "-m", "ml4f.tools.translate", "--mlir-to-object", "-"]
    done = subprocess.run(command, input=network.read_bytes(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    command[3] = "--import-onnx"
    done = subprocess.run(command, input=MODEL.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0 and b"nn.dense" in done.stdout


def test_no_bytes_on_a_terminal(network: Path):
    command = [sys.executable, "-m", "ml4f.tools.translate", "--mlir-to-object", str(network)]
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 2
    assert b"-o FILE" in done.stderr


@pytest.mark.parametrize("option", ["--import-onnx", "--import-model", "--mlir-to-asm", "--object-to-asm"])
@pytest.mark.parametrize("contents", [None, b"", b"\xff\xfe not a model" * 9, b"builtin.module {"])
def test_bad_files_are_the_inputs_fault(option: str, contents: bytes | None, tmp_path: Path, capsys):
    bad = tmp_path / "bad"
    if contents is not None:
        bad.write_bytes(contents)
    assert main([option, str(bad), "-o", str(tmp_path / "out")]) == 1
    written = capsys.readouterr()
    assert written.out == "" and written.err.startswith("ml4f-translate: ") and str(bad) in written.err
    assert "internal" not in written.err and not (tmp_path / "out").exists()


def test_usage(network: Path, tmp_path: Path, capsys):
    for words in ([str(network)], ["--import-onnx", "--mlir-to-asm", str(network)], ["--unknown"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
    assert main(["--mlir-to-asm", str(network), "-o", str(tmp_path / "file" / "below" / "x")]) == 0
    (tmp_path / "plain").write_text("")
    assert main(["--mlir-to-asm", str(network), "-o", str(tmp_path / "plain" / "x")]) == 1
    assert "plain" in capsys.readouterr().err
    assert main(["--mlir-to-asm", str(network), "-o", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_wrong_ir_names_the_operation(tmp_path: Path, capsys):
    wrong = tmp_path / "wrong.mlir"
    wrong.write_text(
        "func.func @main(%x : tensor<4xf32>) -> tensor<5xf32> {\n"
        '  %y = nn.activation %x {act = #nn.act<"relu">} : tensor<5xf32> loc("first")\n'
        "  func.return %y : tensor<5xf32>\n}\n"
    )
    assert main(["--mlir-to-asm", str(wrong)]) == 1
    message = capsys.readouterr().err
    assert "nn.activation in @main (layer first): the result's shape is [4], not [5]" in message
    wrong.write_text("builtin.module {\n}\n")
    assert main(["--mlir-to-asm", str(wrong)]) == 1
    assert "nothing to execute" in capsys.readouterr().err
