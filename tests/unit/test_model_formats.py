"""The lists of docs/model-formats.md are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from ml4f.frontend import guards
from ml4f.frontend.keras_activations import ACTIVATIONS
from ml4f.frontend.keras_onnx import LAYERS
from ml4f.frontend.keras_operations import OPERATIONS, TENSORFLOW_FUNCTIONS
from ml4f.frontend.tflite_layers import OPERATORS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "model-formats.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def listed(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def layer_classes() -> list[str]:
    """The second column of the table of layers."""
    rows = [line.split(" | ") for line in section("Keras layers").splitlines() if line.startswith("| ")]
    return [name for row in rows[1:] for name in listed(row[1])]


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (layer_classes(), LAYERS),
        (listed(section("Activations").split("attribute:")[1].split("\n\n")[0]), ACTIVATIONS),
        (listed(section("Operators of functional models").split("by class:")[1].split("Functions")[0]), OPERATIONS),
        (listed(section("Operators of functional models").split("Keras 2 models:")[1]), TENSORFLOW_FUNCTIONS),
        (listed(section("TensorFlow Lite operators").split(", with their")[0]), OPERATORS),
    ],
    ids=["layers", "activations", "operations", "TensorFlow functions", "TensorFlow Lite operators"],
)
def test_the_page_lists_what_the_code_has(page: list[str], code: Iterable[str]) -> None:
    assert sorted(page) == sorted(code)


def test_the_limits_are_the_codes() -> None:
    text = section("Limits")
    assert f"{guards.MAX_FILE_BYTES >> 20} MiB" in text
    assert f"{guards.MAX_WEIGHT_BYTES >> 20} MiB" in text
    assert f"2^{guards.MAX_ELEMENTS.bit_length() - 1} elements" in text
    assert f"{guards.MAX_NODES:,}" in text
