"""ONNX nodes as the importer's handlers see them: `Node`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

WITHOUT_EFFECT = frozenset({"hidden_size", "momentum", "ratio", "round_mode", "saturate", "seed", "storage_order"})
"""Attributes that change nothing in inference with float numbers (storage_order: of indices, which
are refused; hidden_size: the weights say it)."""


class Attributes(dict[str, Any]):
    """A node's attributes, which remember which of them were asked for."""

    def __init__(self, values: dict[str, Any]):
        super().__init__(values)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.seen.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.seen.add(name)
        return super().get(name, default)


class Node:
    """One ONNX node: attributes by name, inputs resolved."""

    def __init__(self, proto: onnx.NodeProto, index: int, opset: int):
        self.proto = proto
        self.op_type = proto.op_type
        self.opset = opset
        named = {entry.key: entry.value for entry in getattr(proto, "metadata_props", ())}
        self.layer = named.get("layer") or proto.name or f"{proto.op_type}_{index}"
        self.kind = named.get("class") or proto.op_type
        self.attributes = Attributes({a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute})

    def altered(self, proto: onnx.NodeProto) -> Node:
        """The same layer with other inputs, outputs or attributes; what is asked of it counts as asked of this one."""
        made = Node(proto, 0, self.opset)
        made.layer, made.kind, made.attributes.seen = self.layer, self.kind, self.attributes.seen
        return made

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; bytes become text."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def ints(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(int(v) for v in self.attributes.get(name, default))

    def not_understood(self) -> list[str]:
        """Attributes that no handler has asked for, and that are not what they would be by default."""
        unread = [name for name in self.attributes if name not in (self.attributes.seen | WITHOUT_EFFECT)]
        if not unread:
            return []
        try:
            schema = onnx.defs.get_schema(self.op_type, self.opset, self.proto.domain)
        except onnx.defs.SchemaError:
            return sorted(unread)
        values = {a.name: a for a in self.proto.attribute}
        defaults = {name: a.default_value for name, a in schema.attributes.items()}
        get = onnx.helper.get_attribute_value
        return sorted(
            name
            for name in unread
            if values[name].type != onnx.AttributeProto.GRAPH
            and (name not in defaults or not defaults[name].name or get(values[name]) != get(defaults[name]))
        )
