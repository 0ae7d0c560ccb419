"""Reads the parts of an ONNX graph that are no operators: opset, inputs, constants, nodes of constants alone."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from ml4f.errors import Ml4fError
from ml4f.frontend.free_shapes import REMEDY
from ml4f.frontend.guards import diverged
from ml4f.frontend.importer_types import BOOLEAN, FLOAT_TYPES, INTEGER_TYPES, MAX_ELEMENTS
from ml4f.frontend.importer_values import NotSupported, Shape

OLDEST_OPSET = 6


def names_read(graph: onnx.GraphProto) -> set[str]:
    """The tensors that nodes of a graph or of the subgraphs in it read, or that are results."""
    names = {entry.name for entry in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= names_read(attribute.g)
    return names


def hint_of(name: str) -> str | None:
    """A tensor's name as the hint of an SSA value, if it can be one."""
    cleaned = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else None


def without_batch(shape: Shape) -> Shape:
    """Of an input or output: a batch of one is left out."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def opset_of(proto: onnx.ModelProto, name: str) -> int:
    """The version of ONNX's own operators that the model uses."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    version = versions[0] if versions else newest
    if not OLDEST_OPSET <= version <= newest:
        raise Ml4fError(f"{name}: ONNX opset {version}; {OLDEST_OPSET} to {newest} are supported, export it again")
    return version


def array_of(initializer: onnx.TensorProto, name: str) -> np.ndarray:
    """The value of an initializer; weights must be finite numbers."""
    try:
        array = numpy_helper.to_array(initializer)
    except Exception as error:  # whatever a broken file makes onnx raise
        raise Ml4fError(f"{name}: the constant '{initializer.name}' cannot be read: {error}") from None
    if array.dtype.kind == "f" and diverged(array):
        raise Ml4fError(
            f"{name}: the weights '{initializer.name}' {list(array.shape)} contain NaN or infinite values; "
            "the training has diverged, train the model again"
        )
    return array


def input_shape(entry: onnx.ValueInfoProto, name: str) -> Shape:
    """The input's shape with a free batch dimension set to 1."""
    tensor = entry.type.tensor_type
    if tensor.elem_type not in (*FLOAT_TYPES, *INTEGER_TYPES, BOOLEAN):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type else "unknown"
        raise Ml4fError(
            f"{name}: input '{entry.name}' has type {kind}; float, int32, int64 and bool inputs are supported: take "
            "one of them and cast it in the model, or give the model as .keras or .h5"
        )
    shape: list[int] = []
    for axis, dim in enumerate(tensor.shape.dim):
        free = not dim.HasField("dim_value") or dim.dim_value < 1
        if free and axis:
            shown = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
            raise Ml4fError(f"{name}: input '{entry.name}' has the shape {shown}: dimension {axis} is free; {REMEDY}")
        shape.append(1 if free else dim.dim_value)
    if not tensor.HasField("shape"):
        raise Ml4fError(f"{name}: input '{entry.name}' has no shape; export the model with a fixed input shape")
    if prod(shape) > MAX_ELEMENTS:
        raise Ml4fError(f"{name}: input '{entry.name}' {shape} is too large for a microcontroller")
    return tuple(shape)


def evaluate_node(proto: onnx.NodeProto, constants: dict[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """The outputs of one node on constant inputs, by onnx's reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    values = {name: constants[name] for name in proto.input if name}
    if proto.op_type in ("CumProd", "CumSum"):  # PyTorch writes the axis as a vector of one element
        values[proto.input[1]] = values[proto.input[1]].reshape(())
    unknown = onnx.TensorProto.UNDEFINED
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [onnx.helper.make_tensor_value_info(name, _element_type(array), array.shape) for name, array in values.items()],
        [onnx.helper.make_tensor_value_info(name, unknown, None) for name in proto.output if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    _check_sizes(model, values)
    try:
        results = ReferenceEvaluator(model).run(None, values)
    except Exception as error:  # the evaluator raises whatever it likes on bad nodes
        raise NotSupported(f"its constant inputs cannot be evaluated: {error}") from None
    return [np.asarray(value) for value in results]  # pyright: ignore[reportArgumentType]


def _element_type(array: np.ndarray) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


MAX_SHAPE_ELEMENTS = 64
"""Constants that say what shape another one has (shapes, repeats, pads) are smaller than this."""


def _check_sizes(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> None:
    """Refuses a node whose outputs would be too large, before it is evaluated."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    small = {name: array for name, array in values.items() if array.size <= MAX_SHAPE_ELEMENTS}
    probe.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in small.items())
    try:
        inferred = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except Exception as error:  # onnx has several exception classes of its own for this
        raise NotSupported(f"its constant inputs do not fit: {' '.join(str(error).split())[:200]}") from None
    for entry in inferred.graph.output:
        extents = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        if prod(extents) > MAX_ELEMENTS:
            raise NotSupported(f"its output {extents} is too large for a microcontroller")
