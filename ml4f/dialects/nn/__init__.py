"""The nn dialect: a network as tensor operations."""

from __future__ import annotations

from xdsl.ir import Dialect

from ml4f.dialects.nn import contraction_ops, lookup_ops, recurrent_ops
from ml4f.dialects.nn.attributes import ActAttr, SourceAttr, layer_names, named_location
from ml4f.dialects.nn.ops import OPS, ConstOp, NnOp, numbers, shape_of, tensor_type

NN = Dialect("nn", [*OPS, *contraction_ops.OPS, *lookup_ops.OPS, *recurrent_ops.OPS], [ActAttr, SourceAttr])

__all__ = [
    "NN",
    "ActAttr",
    "ConstOp",
    "NnOp",
    "SourceAttr",
    "layer_names",
    "named_location",
    "numbers",
    "shape_of",
    "tensor_type",
]
