"""What each TensorFlow Lite operator is in ONNX: `OPERATORS`."""

from __future__ import annotations

from ml4f.frontend import tflite_layers_conv as conv
from ml4f.frontend import tflite_layers_elementwise as elementwise
from ml4f.frontend import tflite_layers_recurrent as recurrent
from ml4f.frontend import tflite_layers_shape as shape
from ml4f.frontend.tflite_onnx import Translation

OPERATORS: dict[str, Translation] = {
    **conv.OPERATORS,
    **elementwise.OPERATORS,
    **recurrent.OPERATORS,
    **shape.OPERATORS,
}
"""TensorFlow Lite operator → translation."""
REMEDY = "give the model as .keras or .h5, or without that operation"
REMEDIES = {
    **dict.fromkeys(
        ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"),
        "convert the model with its variables frozen (TFLiteConverter.from_keras_model), or give it as .keras or .h5",
    ),
    **dict.fromkeys(("QUANTIZE", "FAKE_QUANT"), "convert the model without quantisation, or give it as .keras or .h5"),
}
"""What to do about an operator that is not supported."""
