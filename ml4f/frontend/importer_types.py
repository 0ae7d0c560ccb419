"""Element types of ONNX, and what may be done to integers, which are float32 numbers in nn IR."""

from __future__ import annotations

import onnx

FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
INTEGER_TYPES = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
"""Types of inputs whose whole numbers the code takes as float32."""
BOOLEAN = onnx.TensorProto.BOOL
"""The type of inputs that the code takes as float32, too: 0 is false, every other number is true."""
MOVES = (
    "Concat",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Where",
)
EXACT_OPERATORS = (*MOVES, "Unsqueeze", "Abs", "Max", "Min", "Neg", "ReduceMax", "ReduceMin", "Sign")
"""What makes integers of integers, exactly so where these are held as float32."""
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
VALUES = (*COMPARISONS, "Concat", "Max", "Min", "Where")
"""Operators whose constant inputs are values like the computed ones."""
SEQUENCES = ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceInsert", "SplitToSequence")
INTEGER_OPERATORS = (
    *EXACT_OPERATORS,
    *COMPARISONS,
    *SEQUENCES,
    "ArrayFeatureExtractor",
    "Cast",
    "Gather",
    "GatherElements",
    "GatherND",
    "OneHot",
    "ScatterElements",
    "TensorScatter",
)
"""What may be done to computed integers."""
QUANTIZED = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
)
"""Operators of quantised networks, refused unless what they read is constant, as weights are."""
EXACT = 1 << 24
"""Whole numbers up to it are float32."""
MAX_ELEMENTS = 1 << 26
"""No tensor of a model that fits a microcontroller is larger."""
