"""Differential execution must be able to fail: a pass that is wrong on purpose, one a level, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from ml4f.dialects.loop.values import LoadOp
from ml4f.dialects.nn.ops import MulOp, SubOp
from ml4f.dialects.thumb import build
from ml4f.dialects.thumb.float_ops import VaddOp, VmulOp
from ml4f.dialects.thumb.memory_ops import VldrOp
from ml4f.differential import close, same_bits
from ml4f.passes import PASSES
from ml4f.pipelines import LOOP, NN_OPTIMIZE, THUMB, TO_LOOP
from ml4f.tools.opt import main

NETWORK = """
func.func @main(%x : tensor<6x5x2xf32>) -> tensor<4x3x3xf32> {
  %w = nn.const {value = dense<"0xWEIGHTS"> : tensor<3x3x2x3xf32>} : tensor<3x3x2x3xf32>
  %b = nn.const {value = dense<[0.5, -1.0, 0.25]> : tensor<3xf32>} : tensor<3xf32>
  %y = nn.conv2d %x, %w, %b {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>,
      pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<4x3x3xf32>
  %z = nn.sub %y, %b : tensor<4x3x3xf32>
  func.return %z : tensor<4x3x3xf32>
}
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolution whose weights are not round, so that every rounding shows."""
    weights = np.random.default_rng(3).standard_normal(54).astype("<f4").tobytes().hex().upper()
    path = tmp_path_factory.mktemp("differential") / "network.mlir"
    path.write_text(NETWORK.replace("WEIGHTS", weights))
    return path


def first(module: ModuleOp, kind: type[Operation]) -> Operation:
    return next(op for op in module.walk() if isinstance(op, kind))


def replace(old: Operation, new: Operation) -> None:
    block = old.parent
    assert block is not None
    block.insert_op_before(new, old)
    old.results[0].replace_all_uses_with(new.results[0])
    old.detach()
    old.erase()


def wrong_operator(module: ModuleOp) -> None:
    """nn: a subtraction becomes a product."""
    op = first(module, SubOp)
    replace(op, MulOp.create(operands=list(op.operands), result_types=[op.results[0].type]))


def wrong_address(module: ModuleOp) -> None:
    """loop: the first load reads the word behind the one it should."""
    op = first(module, LoadOp)
    assert isinstance(op, LoadOp)
    op.properties["offset"] = IntegerAttr(op.offset.value.data + 4, 64)


def wrong_rounding(module: ModuleOp) -> None:
    """thumb: products and sums, rounded twice, become instructions that round once."""
    fused = 0
    for op in list(module.walk()):
        if isinstance(op, VaddOp) and isinstance(op.operands[1].owner, VmulOp):
            replace(op, build.vfma(op.operands[0], *op.operands[1].owner.operands))
            fused += 1
    assert fused, "no product is added"


def wrong_immediate(module: ModuleOp) -> None:
    """thumb, registers allocated: the first load's offset is off by a word."""
    op = first(module, VldrOp)
    assert isinstance(op, VldrOp)
    op.properties["offset"] = IntegerAttr(op.offset.value.data + 4, 64)


def registered(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[ModuleOp], None]) -> None:
    """Make a wrong pass known to ml4f-opt for one test."""
    pass_name = name

    @dataclass(frozen=True)
    class BrokenPass(ModulePass):
        name: ClassVar[str] = pass_name

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            change(op)

    monkeypatch.setitem(PASSES, name, lambda: BrokenPass)


TO_POINTERS = (*TO_LOOP, *LOOP)
EXPANDED = LOOP.index("loop-expand") + 1
CASES = {
    "nn-broken": (wrong_operator, NN_OPTIMIZE[:1], NN_OPTIMIZE[1:]),
    "loop-broken": (wrong_address, (*TO_LOOP, *LOOP[:EXPANDED]), LOOP[EXPANDED:]),
    "thumb-broken-rounding": (wrong_rounding, (*TO_POINTERS, *THUMB[:1]), THUMB[1:]),
    "thumb-broken-immediate": (wrong_immediate, (*TO_POINTERS, *THUMB[:4]), THUMB[4:]),
}


@pytest.mark.parametrize("name", CASES)
def test_names_the_first_wrong_pass(name: str, network: Path, monkeypatch, capsys):
    change, before, after = CASES[name]
    passes = ",".join((*before, after[0])) if after else ",".join(before)
    assert main([str(network), "-p", passes, "--run-between-passes"]) == 0, capsys.readouterr().err
    capsys.readouterr()

    registered(monkeypatch, name, change)
    broken = ",".join((*before, name, *after))
    assert main([str(network), "-p", broken, "--run-between-passes"]) == 1
    written = capsys.readouterr()
    assert written.err.startswith(f"ml4f-opt: {name}: output 0 differs at element ")
    assert written.out == "", "nothing is printed when a pass is wrong"
    assert main([str(network), "-p", ",".join((*before, name))]) == 0, (
        "the broken pass makes valid IR: only running shows it"
    )


def test_a_module_that_cannot_run_names_the_pass(network: Path, monkeypatch, capsys):
    def remove_everything(module: ModuleOp) -> None:
        for op in list(module.body.block.ops):
            op.detach()
            op.erase(safe_erase=False)

    registered(monkeypatch, "nn-vanish", remove_everything)
    assert main([str(network), "-p", "nn-canonicalize,nn-vanish", "--run-between-passes"]) == 1
    assert "after nn-vanish the module cannot be executed" in capsys.readouterr().err


def test_every_part_of_a_split_file_runs_on_its_own_inputs(network: Path, tmp_path: Path, capsys):
    other = "func.func @main(%x : tensor<3xf32>) -> tensor<3xf32> {\n  func.return %x : tensor<3xf32>\n}\n"
    both = tmp_path / "both.mlir"
    both.write_text(network.read_text() + "// -----\n" + other)
    assert main([str(both), "-p", "nn-canonicalize", "--run-between-passes", "--split-input-file"]) == 0
    assert "tensor<3xf32>" in capsys.readouterr().out


def test_close_is_relative_to_the_largest_and_strict_about_what_is_not_finite():
    expected = np.array([1000.0, 0.0, np.inf, -np.inf, np.nan], np.float32)
    assert close(expected, expected).all()
    assert close(expected + np.float32(0.05), expected)[:2].all()
    assert not close(expected + np.float32(0.2), expected)[:2].any()
    wrong = np.array([np.nan, np.inf, 3e38, np.inf, 0.0], np.float32)
    assert not close(wrong, expected).any()


def test_same_bits_tells_zeros_apart_but_not_nans():
    one = np.array([0.0, 0x7FC00001, 1.0], np.float32)
    one.view(np.uint32)[1] = 0x7FC00001
    other = one.copy()
    other.view(np.uint32)[1] = 0xFFC12345
    assert same_bits(one, other).all()
    other[0] = -0.0
    assert same_bits(one, other).tolist() == [False, True, True]
