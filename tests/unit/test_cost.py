"""ml4f-opt --cost: begins with what no optimization gives, ends with the compiler's own figures, changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline

import ml4f
from ml4f.cost import Cost, CostReport
from ml4f.errors import Ml4fError
from ml4f.frontend import load_model
from ml4f.frontend.importer import import_onnx
from ml4f.passes import PASSES
from ml4f.pipelines import DEFAULT, LOOP, NN_OPTIMIZE, THUMB

MODEL = Path(__file__).resolve().parents[2] / "examples" / "models" / "iris_mlp.tfjs"


def imported() -> ModuleOp:
    loaded = load_model(MODEL)
    return import_onnx(loaded.proto, loaded.name)


def run(module: ModuleOp, *passes: str) -> tuple[CostReport, list[str]]:
    lines: list[str] = []
    pipeline = PassPipeline.parse_spec(PASSES, ",".join(passes))
    report = CostReport([each.name for each in pipeline.passes], lines.append, seed=7)
    PassPipeline(pipeline.passes, report).apply(Context(), module)
    return report, lines


def compiled(optimize: bool) -> Cost:
    stats = ml4f.compile(MODEL, optimize=optimize, validate=False).stats
    return Cost(stats.cycles, stats.code_bytes, stats.arena_bytes)


def test_first_and_last_line_are_the_compilers_figures():
    report, lines = run(imported(), *DEFAULT)
    assert report.first == compiled(optimize=False)
    assert report.last == compiled(optimize=True)
    assert report.last.cycles < report.first.cycles
    assert [line.split()[0] for line in lines[2:-1]] == list(DEFAULT)
    assert f"{report.last.cycles:,}" in lines[-1] and lines[-1].startswith("all passes")


def test_a_pipeline_in_pieces_continues_where_it_stopped():
    module = imported()
    _, lines = run(module, *NN_OPTIMIZE, "convert-nn-to-loop")
    report, more = run(module, *LOOP)
    assert more[1].split()[1:] == lines[-2].split()[1::2]
    last = report.last
    report, _ = run(module, *THUMB)
    assert report.first == last and report.last.cycles < last.cycles


def test_the_module_is_not_changed():
    with_cost, without = imported(), imported()
    run(with_cost, *NN_OPTIMIZE)
    PassPipeline.parse_spec(PASSES, ",".join(NN_OPTIMIZE)).apply(Context(), without)
    assert str(with_cost) == str(without)


class EmptyPass(ModulePass):
    """Removes everything."""

    name = "empty"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in list(op.body.block.ops):
            each.detach()


def test_what_cannot_be_finished_is_an_error():
    report = CostReport(["empty"], lambda line: None)
    with pytest.raises(Ml4fError, match="--cost: after empty the module cannot be taken to machine code"):
        PassPipeline([EmptyPass()], report).apply(Context(), imported())
