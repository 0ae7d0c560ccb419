"""Budgets of flash and RAM: kept, said, or refused with what would help."""

from __future__ import annotations

from pathlib import Path

import pytest

import ml4f
from ml4f.compiler import Options, compile_proto
from ml4f.errors import Ml4fError
from ml4f.samples import sample_model

MODEL = Path(__file__).parents[2] / "examples/models/watch_gesture.h5"


def compiled(**options):
    return ml4f.compile(str(MODEL), validate=False, **options)


def test_limits_are_kept_and_what_was_traded_is_said():
    free = compiled()
    limit = free.code.header.object_bytes - free.code.code_bytes // 4
    small = compiled(max_flash=limit)
    assert small.code.header.object_bytes <= limit
    assert any("traded" in note and "% cycles" in note for note in small.notes) and not free.notes
    assert small.stats.cycles > free.stats.cycles
    assert compiled(max_flash=free.code.header.object_bytes).binary == free.binary


@pytest.mark.parametrize("limit", ["max_flash", "max_ram"])
def test_a_limit_that_cannot_be_kept_is_refused(limit: str):
    with pytest.raises(Ml4fError, match=r"at least.*would (help|save)"):
        compiled(**{limit: 64})


def test_a_limit_that_small_code_keeps_is_kept():
    """Though the arena then has to do without exchanged schedules, which need code."""
    model = sample_model("depth1")
    small = compile_proto(model, "depth1", Options(goal="size", validate=False)).code.header.object_bytes
    compilation = compile_proto(model, "depth1", Options(max_flash=small + 100, validate=False))
    assert compilation.code.header.object_bytes <= small + 100
    assert any("traded" in note for note in compilation.notes)


def test_goals_order_cycles_and_code():
    speed, balanced, size = (compiled(goal=goal) for goal in ("speed", "balanced", "size"))
    assert speed.stats.cycles <= balanced.stats.cycles <= size.stats.cycles
    assert speed.code.code_bytes >= balanced.code.code_bytes > size.code.code_bytes
