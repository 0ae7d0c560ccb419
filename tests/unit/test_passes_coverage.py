"""What must be complete: every op round-trips in lit, every pass has a lit test, every op can run and be lowered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml4f.dialects.loop import Loop
from ml4f.dialects.loop.structure import BufferOp, CallOp, DataOp, KernelOp, NestOp, ProgramOp
from ml4f.dialects.loop.values import VALUE_OPS, AccessOp
from ml4f.dialects.nn import NN
from ml4f.dialects.nn.ops import OPS, ConstOp
from ml4f.dialects.thumb import Thumb
from ml4f.interpreters import loop as loop_interpreter
from ml4f.interpreters import nn as nn_interpreter
from ml4f.passes import PASSES
from ml4f.passes.convert_loop_to_thumb import _HANDLERS
from ml4f.passes.convert_nn_to_loop import CONVERSIONS
from ml4f.pipelines import PIPELINES

LIT = Path(__file__).resolve().parents[1] / "lit"


@pytest.mark.parametrize("dialect", [NN, Loop, Thumb], ids=lambda d: d.name)
def test_every_op_round_trips(dialect):
    text = (LIT / dialect.name / "ops.mlir").read_text()
    missing = [op.name for op in dialect.operations if not re.search(rf"(?m)^ *(%.* = )?{re.escape(op.name)}\b", text)]
    assert not missing, f"tests/lit/{dialect.name}/ops.mlir lacks {missing}"


def test_every_pass_has_a_lit_test():
    runs = [line for path in LIT.rglob("*.mlir") for line in path.read_text().splitlines() if "// RUN:" in line]
    used = {
        name for run in runs for spec in re.findall(r"-p '?([\w,{}=-]+)", run) for name in re.split(r"\{.*?\}|,", spec)
    }
    missing = PASSES.keys() - used
    assert not missing, f"no lit test runs {sorted(missing)}"


def test_every_pass_explains_itself_and_is_in_a_pipeline():
    piped = {spec.split("{")[0] for passes in PIPELINES.values() for spec in passes} | {"nn-round-weights"}
    for name, load in PASSES.items():
        loaded = load()
        assert loaded.name == name
        lines = (loaded.__doc__ or "").splitlines()
        assert len(lines) > 2, f"{name}: the docstring says what it does, and shows a pair of IR"
        assert name in piped, f"{name} is in no pipeline"


def test_every_nn_op_can_run_and_be_lowered():
    for op in OPS:
        assert op in nn_interpreter._EVALUATORS, f"{op.name} has no meaning in numpy"
        if op is not ConstOp:
            assert op.name in CONVERSIONS, f"{op.name} has no kernel"


def test_every_loop_op_can_run_and_be_lowered():
    explicit = {"loop.constant", "loop.int_constant", "loop.bits_pair", "loop.advance", "loop.scale"}
    explicit |= {"loop.fselect", "loop.iselect", "loop.to_index"}
    for op in VALUE_OPS:
        known = op in loop_interpreter._BINARY or op in loop_interpreter._INTEGER or op.name in explicit
        assert known or issubclass(op, AccessOp), f"{op.name} has no meaning in Python"
        assert op in _HANDLERS, f"{op.name} has no instruction"
    structure = {BufferOp, CallOp, DataOp, KernelOp, NestOp, ProgramOp}
    others = set(Loop.operations) - set(VALUE_OPS) - structure
    assert {op.name for op in others} == {"loop.for", "loop.repeat", "loop.yield"}
