"""The ONNX graph that Keras layers become: `GraphBuilder`; and `LayerContext`, which a layer's function gets.

Tensors keep Keras's shapes (channels last unless the layer says otherwise) with a batch of 1; a layer that needs
channels first transposes for itself, which costs nothing, as the importer keeps orders instead of moving elements.
Knows no layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ml4f.frontend.guards import MAX_ELEMENTS
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_weights import WeightStore, layer_weights

OPSET = 20
"""ONNX operators as of 1.15: the first with Gelu; every onnx that ml4f runs with knows it."""
IR_VERSION = 9

Shape = tuple[int, ...]


class Refused(Exception):
    """A layer, or an option of one, that is not supported; the text says what and what would help."""


@dataclass(frozen=True)
class Value:
    """A computed tensor; `shape` includes the batch of 1."""

    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        """The number of dimensions, the batch included."""
        return len(self.shape)


class GraphBuilder:
    """Nodes and constants of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        """Of tensors that are not float32."""
        self.names: set[str] = set()

    def unique(self, wanted: str) -> str:
        """A tensor name that is not taken."""
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name

    def constant(self, array: np.ndarray, name: str) -> str:
        """An initializer."""
        name = self.unique(name)
        self.constants[name] = array
        if array.dtype == np.bool_:
            self.types[name] = TensorProto.BOOL
        return name

    def type_of(self, value: Value) -> int:
        """The type of a tensor's elements, of onnx.TensorProto."""
        return self.types.get(value.name, TensorProto.FLOAT)

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        shape: Shape,
        layer: str,
        kind: str,
        attributes: dict[str, Any],
    ) -> Value:
        """Append a node with one output."""
        (value,) = self.append(op_type, inputs, output, [shape], layer, kind, attributes)
        assert value is not None
        return value

    def append(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        shapes: Sequence[Shape | None],
        layer: str,
        kind: str,
        attributes: dict[str, Any],
    ) -> list[Value | None]:
        """Append a node; outputs without a shape are left out."""
        for shape in shapes:
            if shape is not None and (not shape or min(shape) < 1):
                raise Refused(f"its output would be empty, {list(shape)}; the input is too small for the layer")
            if shape is not None and prod(shape) > MAX_ELEMENTS:
                raise Refused(f"its output {list(shape)} is too large for a microcontroller")
        outputs = ["" if shape is None else self.unique(output) for shape in shapes]
        proto = helper.make_node(
            op_type, list(inputs), outputs, name=next(name for name in outputs if name), **attributes
        )
        for key, value in (("layer", layer), ("class", kind)):
            proto.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
        self.nodes.append(proto)
        elements = _element_type(proto, self.types)
        if elements != TensorProto.FLOAT:
            self.types.update(dict.fromkeys(proto.output, elements))
        self.shapes.update({name: shape for name, shape in zip(outputs, shapes, strict=True) if shape is not None})
        return [None if s is None else Value(name, s) for name, s in zip(outputs, shapes, strict=True)]

    def rename(self, value: Value, wanted: str, since: int) -> Value:
        """Give the output of a node, if it was appended after the first `since`, another name."""
        for proto in reversed(self.nodes[since:]):
            if value.name in proto.output:
                name = self.unique(wanted)
                for reader in self.nodes[since:]:
                    reader.input[:] = [name if operand == value.name else operand for operand in reader.input]
                proto.output[list(proto.output).index(value.name)] = name
                del self.shapes[value.name]
                self.shapes[name] = value.shape
                if value.name in self.types:
                    self.types[name] = self.types.pop(value.name)
                return Value(name, value.shape)
        return value

    def model(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
        """The finished model."""
        nodes = _needed(self.nodes, [value.name for value in outputs])
        read = {name for node in nodes for name in (*node.input, *node.output)}
        named = {value.name for value in outputs}
        infos = [
            helper.make_tensor_value_info(tensor, self.types.get(tensor, TensorProto.FLOAT), list(shape))
            for tensor, shape in self.shapes.items()
            if tensor in read and tensor not in named
        ]
        graph = helper.make_graph(
            nodes,
            name or "model",
            [_info(value) for value in inputs],
            [_info(value) for value in outputs],
            [numpy_helper.from_array(array, tensor) for tensor, array in self.constants.items() if tensor in read],
            value_info=infos,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="ml4f"
        )


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Those that outputs are computed with: a mask that nothing reads is not."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def _element_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """Of a node's results: what a Cast gives, what logic gives, or that of the operands that are moved."""
    if node.op_type == "Cast":
        return next(a.i for a in node.attribute if a.name == "to")
    if node.op_type in BOOLEAN:
        return TensorProto.BOOL
    if node.op_type in INDICES:
        return TensorProto.INT64
    return types.get(node.input[0], TensorProto.FLOAT) if node.op_type in MOVES else TensorProto.FLOAT


BOOLEAN = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"})
"""Operators whose result is true or false."""
INDICES = frozenset({"ArgMax", "ArgMin"})
MOVES = frozenset(
    {"Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Slice", "Concat", "Gather", "Expand", "Tile", "Split"}
)
"""Operators whose result has the type of the first operand."""


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, list(value.shape))


@dataclass(eq=False)
class LayerContext:
    """What a layer's function works with: its configuration, its weights, and ways to append nodes."""

    graph: GraphBuilder
    layer: Layer
    store: WeightStore
    subject: str
    notes: list[str]
    names: tuple[str, ...] = ()
    """The keywords of the call's tensors but for masks, "" for those without."""
    masks: tuple[Value | None, ...] = ()
    """For each of these tensors the steps of it that count: [1, steps] of ones and zeros; None for all."""
    attention_mask: Value | np.ndarray | None = None
    """What the call's argument of that name is."""

    @property
    def path(self) -> str:
        """The layer's name, behind those of the models around it."""
        return "/".join(self.layer.path)

    # Configuration

    def get(self, key: str, default: Any = None) -> Any:
        """An entry of the configuration; null is absent."""
        value = self.layer.config.get(key)
        return default if value is None else value

    def number(self, keys: str | Sequence[str], default: float | None) -> float | None:
        """The first of some entries that is there, as a number; lists and arrays of one number are read too."""
        for key in (keys,) if isinstance(keys, str) else keys:
            value = self.layer.config.get(key)
            if isinstance(value, dict):  # a numpy scalar that Keras serialised
                value = value.get("config", {}).get("value", value.get("value"))
            while isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, int | float):
                return float(value)
            if value is not None:
                raise Refused(f"its {key} is {str(value)[:80]}, which is not a number")
        return default

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        return self.sizes(key, 1, default)[0]

    def sizes(self, key: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """`count` whole numbers of at least 1, given as a list or as one for all."""
        value = self.get(key, default)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in values):
            raise Refused(f"its {key} is {str(value)[:80]}; {count} whole number(s) of at least 1 are needed")
        return tuple(values)

    def channels_first(self) -> bool:
        """Whether data_format says channels first."""
        layout = self.get("data_format", "channels_last")
        if layout not in ("channels_last", "channels_first"):
            raise Refused(f"its data_format is {str(layout)[:80]}; channels_last and channels_first are supported")
        return layout == "channels_first"

    def weights(self, expected: Sequence[tuple[str, Sequence[int]]], optional: int = 0) -> list[np.ndarray]:
        """The layer's weights, checked; the last `optional` ones are not needed."""
        return layer_weights(self.store, self.layer, expected, self.subject, self.notes, optional)

    @property
    def mask(self) -> Value | None:
        """The mask of the first input."""
        return self.masks[0] if self.masks else None

    # Nodes

    def emit(
        self, op_type: str, inputs: Sequence[Value | np.ndarray | str], shape: Sequence[int], **attributes: Any
    ) -> Value:
        """A node; arrays become initializers, "" is an operand that is left out."""
        names = self._operands(op_type, inputs)
        return self.graph.node(
            op_type, names, f"{self.path}/{op_type}", tuple(shape), self.path, self.layer.kind, attributes
        )

    def emit_all(
        self,
        op_type: str,
        inputs: Sequence[Value | np.ndarray | str],
        shapes: Sequence[Sequence[int] | None],
        **attributes: Any,
    ) -> list[Value | None]:
        """A node with several outputs; those without a shape are left out."""
        wanted = [None if shape is None else tuple(shape) for shape in shapes]
        names = self._operands(op_type, inputs)
        return self.graph.append(
            op_type, names, f"{self.path}/{op_type}", wanted, self.path, self.layer.kind, attributes
        )

    def _operands(self, op_type: str, inputs: Sequence[Value | np.ndarray | str]) -> list[str]:
        names = []
        for position, operand in enumerate(inputs):
            if isinstance(operand, Value):
                names.append(operand.name)
            elif isinstance(operand, str):
                names.append(operand)
            else:
                role = _ROLES.get(op_type, {}).get(position, position)
                names.append(self.graph.constant(operand, f"{self.path}/{op_type.lower()}_{role}"))
        return names

    def constant(self, array: np.ndarray) -> Value:
        """A constant where a computed tensor is wanted."""
        return Value(self.graph.constant(array, f"{self.path}/constant"), array.shape)

    def pointwise(self, op_type: str, x: Value, **attributes: Any) -> Value:
        """A node with one operand and a result of the same shape."""
        return self.emit(op_type, [x], x.shape, **attributes)

    def binary(self, op_type: str, x: Value | float | np.ndarray, y: Value | float | np.ndarray) -> Value:
        """Elementwise arithmetic with broadcasting; numbers become constants."""
        operands = [v if isinstance(v, Value) else np.asarray(v, dtype=np.float32) for v in (x, y)]
        return self.emit(op_type, operands, np.broadcast_shapes(operands[0].shape, operands[1].shape))

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        """Axis i of the result is axis permutation[i] of x."""
        if list(permutation) == list(range(x.rank)):
            return x
        return self.emit("Transpose", [x], [x.shape[axis] for axis in permutation], perm=list(permutation))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements in the same order."""
        if tuple(shape) == x.shape:
            return x
        return self.emit("Reshape", [x, np.array(shape, dtype=np.int64)], shape)

    def to_channels_first(self, x: Value, first: bool) -> Value:
        """[1, channels, …] from the layout that the layer has."""
        return x if first else self.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))

    def from_channels_first(self, x: Value, first: bool) -> Value:
        """The layer's layout from [1, channels, …]."""
        return x if first else self.transpose(x, (0, *range(2, x.rank), 1))


_ROLES: dict[str, dict[int, str]] = {
    "Conv": {1: "kernel", 2: "bias"},
    "Gemm": {1: "kernel", 2: "bias"},
    "MatMul": {1: "kernel"},
    "Add": {1: "bias"},
    "Reshape": {1: "shape"},
    "BatchNormalization": {1: "gamma", 2: "beta", 3: "mean", 4: "variance"},
    "PRelu": {1: "slope"},
    "Pad": {1: "amounts"},
    "Clip": {1: "low", 2: "high"},
    **{key: {1: "kernel", 2: "recurrent_kernel", 3: "bias"} for key in ("LSTM", "GRU", "RNN")},
}
"""How constant operands are called, for readers of the ONNX file."""
