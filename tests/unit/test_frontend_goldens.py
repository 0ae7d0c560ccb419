"""Model files against outputs of the frameworks that made them: every format gives the same network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shared_models import shared_models

from ml4f.frontend import load_model
from ml4f.reference import Reference

ENDINGS = (".h5", ".keras", ".keras2.keras", ".tfjs", ".onnx", ".json", ".tfjsmodel.json")
OTHER_NAMES = {"pretrainedResnet.h5": "resnet8", "vww_96.h5": "vww96", "str_ww_ref_model.h5": "sww"}
TOLERANCE = 1e-5
"""Of the largest output: the same float32 sums in another order."""

MODELS = shared_models()


def _files() -> list[tuple[Path, Path]]:
    """Model files and their golden outputs."""
    if MODELS is None:
        return []
    found = []
    for folder in ("ml4f", "trained", "samples", "mlperf_tiny", "onnx"):
        for golden in sorted((MODELS / folder).glob("*.golden.npz")):
            base = golden.name.removesuffix(".golden.npz")
            found += [(golden.with_name(base + ending), golden) for ending in ENDINGS]
    found += [(MODELS / "mlperf_tiny" / f, MODELS / "mlperf_tiny" / f"{g}.golden.npz") for f, g in OTHER_NAMES.items()]
    return [(model, golden) for model, golden in found if model.exists()]


@pytest.mark.skipif(MODELS is None, reason="no shared models beside the checkout, and ML4F_SHARED is not set")
def test_every_format_gives_the_golden_outputs() -> None:
    wrong = []
    files = _files()
    for model, golden in files:
        data = np.load(golden)
        x, y = data["x"][:2].astype(np.float32), data["y"][:2]
        proto = load_model(model).proto
        reference = Reference(proto)
        shape = [d.dim_value or 1 for d in proto.graph.input[0].type.tensor_type.shape.dim]
        for values, expected in zip(x, y, strict=True):
            result = reference.run([values.reshape(shape)])[proto.graph.output[0].name]
            error = np.abs(result.ravel() - expected.ravel()).max() / max(1.0, np.abs(expected).max())
            if error > TOLERANCE:
                wrong.append(f"{model.name}: {error:.1e}")
    assert len(files) > 80
    assert wrong == []
