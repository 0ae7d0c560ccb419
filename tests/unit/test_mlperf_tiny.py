"""The reference networks of MLPerf Tiny as machine code, against the outputs of the framework that made them.

Every network is compiled from one of its files in float32 and from another in float16; with ML4F_ALL_FILES set, from
all of its files in both.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from shared_models import shared_models

from ml4f.compiler import Options, compile_model
from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model

MODELS = shared_models()
FILES = {
    "ad01": ("ad01.h5", "ad01.onnx", "ad01_fp32.tflite"),
    "kws": (
        "kws_ref_model",
        "kws.derived_float.tflite",
        "kws.keras2.keras",
        "kws.onnx",
        "kws_ref_model_float32.tflite",
    ),
    "resnet8": ("pretrainedResnet.tflite", "pretrainedResnet.h5", "resnet8.onnx"),
    "sww": ("sww.keras2.keras", "str_ww_ref_model.h5", "sww.derived_float.tflite", "sww.onnx"),
    "vww96": ("vww_96.h5", "vww_96_float.tflite", "vww96.onnx"),
}
"""The first is compiled in float32, the second in float16."""
QUANTISED = (
    "ad01_int8.tflite",
    "kws_ref_model.tflite",
    "pretrainedResnet_quant.tflite",
    "str_ww_ref_model.tflite",
    "vww_96_int8.tflite",
)
OTHER_TRAINING = ("ad01_fp32.tflite", "kws_ref_model_float32.tflite")
"""Their weights are not those of the network's other files; the goldens have outputs of TensorFlow Lite for them."""
TOLERANCE = {False: 5e-6, True: 2e-3}
"""Of the largest output, in float32 and with weights rounded to float16."""
LOOSE = {"kws_ref_model_float32.tflite": 0.01}
"""TensorFlow Lite rounds this one's activations to int8 as well."""
CASES = [
    (network, name, float16)
    for network, names in FILES.items()
    for index, name in enumerate(names)
    for float16 in (False, True)
    if index == int(float16) or "ML4F_ALL_FILES" in os.environ
]

pytestmark = pytest.mark.skipif(MODELS is None, reason="no shared models beside the checkout, and ML4F_SHARED not set")


@pytest.mark.parametrize(("network", "name", "float16"), CASES)
def test_machine_code_gives_the_golden_outputs(network: str, name: str, float16: bool) -> None:
    assert MODELS is not None
    if name.endswith(".tflite"):
        pytest.importorskip("tflite", reason="the package tflite is not installed (pip install -e '.[tflite]')")
    if "." not in name:
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[tensorflow]')")
    golden = np.load(MODELS / "mlperf_tiny" / f"{network}.golden.npz")
    compilation = compile_model(MODELS / "mlperf_tiny" / name, Options(float16=float16, validate=False))
    expected = golden["y_tflite_float" if name in OTHER_TRAINING else "y"][0].ravel()
    result = compilation.machine.run(golden["x"][0]).ravel()
    error = np.abs(result - expected).max() / max(1.0, float(np.abs(expected).max()))
    assert error <= LOOSE.get(name, TOLERANCE[float16])


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_files_are_refused_with_a_way_out(name: str) -> None:
    assert MODELS is not None
    pytest.importorskip("tflite", reason="the package tflite is not installed (pip install -e '.[tflite]')")
    with pytest.raises(UnsupportedError, match=r"is int8.*convert the model without quantisation"):
        load_model(MODELS / "mlperf_tiny" / name)
