"""The checked-in figures of docs/benchmarks.csv must not get worse, for the models that every checkout has."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import bench_tables as tables
from bench_models import CORE, VARIANTS, Figures, Model, Variant, measure, models

OWN_GROUPS = ("samples", "examples")
FURTHER = ("samples/oneD", "samples/microSpeech", "samples/depth1", "samples/dspDense", "examples/cancer_mlp")
"""Compiled in every variant; the others only as `ml4f MODEL` does."""
OWN = [model for model in models() if model.group in OWN_GROUPS]
CASES = [(model, Variant()) for model in OWN]
CASES += [(model, variant) for model in OWN if model.key in FURTHER for variant in VARIANTS if variant != Variant()]


def row(model: Model, variant: Variant) -> Figures:
    found = tables.read_figures().get((model.key, CORE, variant.weights, variant.optimize))
    what = f"{model.key} ({variant.weights}, {variant.optimize})"
    assert found is not None, f"{what} is not in {tables.FIGURES_FILE.name}; add it: {regenerate(model)}"
    return found


def regenerate(model: Model) -> str:
    return f"python tools/bench.py --models {model.key}"


@pytest.mark.parametrize(("model", "variant"), CASES, ids=[f"{m.key}-{v.weights}-{v.optimize}" for m, v in CASES])
def test_figures_do_not_get_worse(model: Model, variant: Variant):
    changes = tables.compare(row(model, variant), measure(model, variant))
    worse = [str(change) for change in changes if change.is_worse]
    assert not worse, "\n".join(
        [*worse, f"if that is what you want, say why in the commit, and run {regenerate(model)}"]
    )
    for change in changes:
        warnings.warn(f"{change}; keep that: {regenerate(model)}", stacklevel=1)


def test_every_variant_of_every_model_is_in_the_table():
    for model in OWN:
        for variant in VARIANTS:
            row(model, variant)


FIGURES = Figures("samples/x", "cortex-m4", "float32", "balanced", 100, 250, 80, 40, 20, 16)


@pytest.mark.parametrize("figure", tables.COMPARED)
def test_a_worse_figure_is_found(figure: str):
    before = getattr(FIGURES, figure)
    (change,) = tables.compare(FIGURES, replace(FIGURES, **{figure: before + 1}))
    assert change.is_worse and figure.replace("_", " ") in str(change) and "samples/x" in str(change)
    (change,) = tables.compare(FIGURES, replace(FIGURES, **{figure: before - 1}))
    assert not change.is_worse and "better" in str(change)
    assert not tables.compare(FIGURES, FIGURES)


def test_tables_keep_what_is_written(tmp_path: Path):
    table = {entry.key: entry for entry in (FIGURES, replace(FIGURES, weights="float16", macs=0))}
    tables.write_figures(table, tmp_path / "figures.csv")
    assert tables.read_figures(tmp_path / "figures.csv") == table
    assert "2.500,25.0" in (tmp_path / "figures.csv").read_text()


def test_the_page_is_made_of_the_tables():
    page = tables.page(tables.read_figures(), tables.read_efforts())
    assert tables.PAGE.read_text() == page, "docs/benchmarks.md is not what tools/bench.py writes"
