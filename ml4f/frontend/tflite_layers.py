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
