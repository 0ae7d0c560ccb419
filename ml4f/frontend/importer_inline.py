"""Operators that ONNX defines as functions: the nodes that they consist of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, TypeProto, helper

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node


def function_body(importer: Importer, node: Node) -> tuple[list[onnx.NodeProto], int] | None:
    """The nodes that ONNX's own definition consists of, under names of their own, and their opset."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, importer.opset, "")  # the stubs lack some of its attributes
    except onnx.defs.SchemaError:
        return None
    version = importer.opset
    if schema.has_function:
        version = max([v for v in schema.function_opset_versions if v <= version], default=version)
        data = schema.get_function_with_opset_version(version)
    elif schema.has_context_dependent_function:
        version = max([v for v in schema.context_dependent_function_opset_versions if v <= version], default=version)
        types = [_type(importer, name).SerializeToString() for name in node.proto.input]
        data = schema.get_context_dependent_function_with_opset_version(version, node.proto.SerializeToString(), types)
    else:
        return None
    if not data:
        return None
    function = onnx.FunctionProto.FromString(data)
    imported = [entry.version for entry in function.opset_import if entry.domain == ""]
    return _renamed(function, node, schema), imported[0] if imported else version


def _type(importer: Importer, name: str) -> TypeProto:
    if not name:
        return TypeProto()
    constant = importer.const(name)
    if constant is not None:
        kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
    elif name in importer.masks:
        kind = TensorProto.BOOL
    else:
        kind = TensorProto.INT64 if name in importer.integers else TensorProto.FLOAT
    return helper.make_tensor_type_proto(kind, importer.shape(name))


def _renamed(function: onnx.FunctionProto, node: Node, schema: onnx.defs.OpSchema) -> list[onnx.NodeProto]:
    prefix = next(name for name in node.proto.output if name)
    names = {"": ""}
    for formal, actual in (
        *_pairs(function.input, node.proto.input),
        *_pairs(function.output, node.proto.output),
    ):
        names[formal] = actual or (f"{prefix}/{formal}" if formal in function.output else "")
    given = {a.name: a for a in node.proto.attribute}
    made = []
    for index, proto in enumerate(function.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        copy.name = f"{node.layer}/{proto.op_type}_{index}"
        for values in (copy.input, copy.output):
            for i, name in enumerate(values):
                values[i] = names.setdefault(name, f"{prefix}/{name}")
        _resolve(copy, given, schema, names)
        made.append(copy)
    return made


def _resolve(
    node: onnx.NodeProto,
    given: Mapping[str, onnx.AttributeProto],
    schema: onnx.defs.OpSchema,
    names: Mapping[str, str],
) -> None:
    """Put the attributes of the call into a node of the body, and into the nodes of its inner graphs, in place."""
    attributes = [_resolved(a, given, schema) for a in node.attribute]
    del node.attribute[:]
    node.attribute.extend(a for a in attributes if a is not None)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            own = {entry.name for entry in (*attribute.g.input, *attribute.g.initializer)}
            own |= {name for inner in attribute.g.node for name in inner.output}
            outer = {name: new for name, new in names.items() if name not in own}
            for inner in attribute.g.node:
                inner.input[:] = [outer.get(name, name) for name in inner.input]
                _resolve(inner, given, schema, outer)
            for entry in attribute.g.output:
                entry.name = outer.get(entry.name, entry.name)


def _pairs(formal: Sequence[str], actual: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, actual[i] if i < len(actual) else "") for i, name in enumerate(formal)]


def _resolved(
    attribute: onnx.AttributeProto, given: Mapping[str, onnx.AttributeProto], schema: onnx.defs.OpSchema
) -> onnx.AttributeProto | None:
    """An attribute of the function's body, those of the node put in."""
    if not attribute.ref_attr_name:
        return attribute
    name = attribute.ref_attr_name
    value = given.get(name) or (schema.attributes[name].default_value if name in schema.attributes else None)
    if value is None or not value.name:
        return None
    made = onnx.AttributeProto()
    made.CopyFrom(value)
    made.name = attribute.name
    return made
