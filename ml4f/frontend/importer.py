"""ONNX graphs to the nn dialect: `import_onnx`.

An ONNX tensor becomes a `Tensor`: an SSA value whose elements, in memory order, are those of the tensor transposed by
`order`. Transpose therefore costs nothing; only operators that need a certain order (convolutions: channels last)
materialise one.
Constants are folded; every handler (`importer_ops.py`, `importer_windows.py`) sees shapes that are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from xdsl.dialects.builtin import ArrayAttr, FunctionType, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from ml4f.dialects.nn import ActAttr, ConstOp, NnOp, SourceAttr, named_location, numbers, shape_of, tensor_type
from ml4f.dialects.nn import ops as nn
from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.free_shapes import REMEDY
from ml4f.frontend.guards import diverged

OLDEST_OPSET = 6
FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
WITHOUT_EFFECT = frozenset({"hidden_size", "momentum", "ratio", "round_mode", "saturate", "seed", "storage_order"})
"""Attributes that change nothing in inference with float numbers (storage_order: of indices, which
are refused; hidden_size: the weights say it)."""
INTEGER_TYPES = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
"""Types of inputs whose whole numbers the code takes as float32."""
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
INTEGER_OPERATORS = (*EXACT_OPERATORS, *COMPARISONS, "ArrayFeatureExtractor", "Cast", "Gather", "OneHot")
"""What may be done to computed integers."""
DEFAULT_LIMIT = 10
"""Inputs of whole numbers are tried with numbers below it where no table says better."""
EXACT = 1 << 24
"""Whole numbers up to it are float32."""
MAX_ELEMENTS = 1 << 26
"""No tensor of a model that fits a microcontroller is larger."""

Shape = tuple[int, ...]


class NotSupported(Exception):
    """Raised by handlers; the importer collects them all into one UnsupportedError."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """Elements of `value` == ONNX tensor of `shape` transposed by `order`, flat. `shape` includes the batch."""

    value: SSAValue
    shape: Shape
    order: tuple[int, ...]

    @property
    def ordered(self) -> Shape:
        """The extents in memory order."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def memory_shape(self) -> Shape:
        """The extents in memory order, a batch of one left out."""
        return tuple(self.shape[axis] for axis in self.order if axis or self.shape[0] != 1 or len(self.shape) == 1)

    @property
    def significant(self) -> tuple[int, ...]:
        """The axes with more than one element, in memory order."""
        return tuple(axis for axis in self.order if self.shape[axis] > 1)

    @property
    def in_order(self) -> bool:
        """Whether memory order is the tensor's own."""
        return list(self.significant) == sorted(self.significant)


@dataclass(frozen=True, eq=False)
class Flattened:
    """A tensor with a new shape, its elements still in the order of `base`: dense layers permute weights instead."""

    base: Tensor
    shape: Shape


Value = Tensor | Flattened


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


class Importer:
    """Builds one function; `tensors` and `constants` map names of the ONNX graph."""

    def __init__(self, proto: onnx.ModelProto, name: str):
        self.proto = proto
        self.name = name
        self.block = Block()
        self.tensors: dict[str, Value] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.poisoned: set[str] = set()
        self.masks: set[str] = set()
        """Boolean tensors, which hold 0.0 and 1.0."""
        self.integers: set[str] = set()
        """Tensors of integers, which hold whole numbers as floats: those of ArgMax."""
        self.rows: int | None = None
        """What computed row numbers must be less than, in the smallest of the tables that they are of."""
        self.whole: set[int] = set()
        """Numbers of the inputs that hold whole numbers."""
        self.problems: list[str] = []
        self.node: Node | None = None
        self.opset = _opset(proto, name)
        self.constant_ops: dict[int, SSAValue] = {}
        self.read = _names_read(proto.graph)

    # Emitting

    def emit(
        self, op_type: type[NnOp], operands: Sequence[SSAValue], shape: Shape, **properties: Attribute | None
    ) -> SSAValue:
        """Append an operation; its location names the current layer."""
        assert self.node is not None
        op = op_type.create(
            operands=operands,
            result_types=[tensor_type(shape)],
            properties={key: value for key, value in properties.items() if value is not None},
            location=named_location(self.node.layer),
        )
        self.block.add_op(op)
        return op.results[0]

    def constant(self, values: np.ndarray) -> SSAValue:
        """A constant operand."""
        op = ConstOp.of(np.asarray(values, dtype=np.float32))
        if self.node is not None:
            op.location = named_location(self.node.layer)
        self.block.add_op(op)
        return op.result

    def reshaped(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """The same elements in the same order."""
        shape = tuple(shape)
        if shape_of(value) == shape:
            return value
        owner = value.owner
        if isinstance(owner, nn.ReshapeOp) and shape_of(owner.x) == shape:
            return owner.x
        return self.emit(nn.ReshapeOp, [value], shape)

    def note_rows(self, rows: int) -> None:
        """A table of so many rows is read at computed numbers."""
        self.rows = rows if self.rows is None else min(self.rows, rows)

    # Values

    def const(self, name: str) -> np.ndarray | None:
        """The value of a constant input, None if it is not constant or absent."""
        return self.constants.get(name) if name else None

    def tensor(self, name: str) -> Tensor:
        """A tensor input; constants become operands, flattened ones are brought into order."""
        if name in self.constants:
            array = self.constants[name]
            return Tensor(self.constant(array), array.shape, tuple(range(array.ndim)))
        found = self.tensors[name]
        if isinstance(found, Flattened):
            base = self.in_order(found.base)
            found = Tensor(base.value, found.shape, tuple(range(len(found.shape))))
            self.tensors[name] = found
        return found

    def value(self, name: str) -> Value:
        """A tensor input, flattened or not; constants become operands."""
        return self.tensor(name) if name in self.constants else self.tensors[name]

    def in_order(self, tensor: Tensor) -> Tensor:
        """With the tensor's own order in memory."""
        return self.arranged(tensor, tuple(range(len(tensor.shape))))

    def arranged(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """With a given order in memory; a transposition only if extents above one change places."""
        order = tuple(order)
        wanted = [axis for axis in order if tensor.shape[axis] > 1]
        if wanted != list(tensor.significant):
            present = list(tensor.significant)
            source = self.reshaped(tensor.value, [tensor.shape[axis] for axis in present])
            permutation = [present.index(axis) for axis in wanted]
            shape = tuple(tensor.shape[axis] for axis in wanted)
            value = self.emit(nn.TransposeOp, [source], shape, permutation=numbers(permutation))
            return Tensor(value, tensor.shape, order)
        return Tensor(tensor.value, tensor.shape, order)

    def result(self, name: str, value: Value) -> None:
        """Name a node's output, and note the source on the operation that makes it."""
        if prod(value.shape) > MAX_ELEMENTS:
            raise NotSupported(f"its output {list(value.shape)} is too large for a microcontroller")
        self.tensors[name] = value
        if isinstance(value, Tensor):
            owner = value.value.owner
            if isinstance(owner, Operation) and owner.name not in ("nn.const", "nn.reshape"):
                owner.attributes.setdefault("source", SourceAttr.of(name, value.order))

    def alias(self, output: str, name: str) -> None:
        """Give a tensor or constant a further name; nothing where what it depends on has been refused."""
        if not output:
            return
        if name in self.constants:
            self.constants[output] = self.constants[name]
        elif name in self.tensors:
            self.tensors[output] = self.tensors[name]
            for kind in (self.masks, self.integers):
                if name in kind:
                    kind.add(output)
        else:
            self.poisoned.add(output)

    # Running

    def run(self) -> ModuleOp:
        from ml4f.frontend.importer_indices import plain_indices
        from ml4f.frontend.importer_ops import HANDLERS

        graph = plain_indices(self.proto.graph, self.opset)
        for initializer in graph.initializer:
            self.add_constant(initializer.name, initializer)
        inputs = [entry for entry in graph.input if entry.name not in self.constants]
        if not inputs or not graph.output:
            problem = f"the model has {len(inputs)} inputs and {len(graph.output)} outputs"
            raise UnsupportedError(self.name, [f"{problem}; it needs at least one of each"])
        for entry in inputs:
            self.add_input(entry)
        for index, proto in enumerate(graph.node):
            self.visit(Node(proto, index, self.opset), HANDLERS)
        if self.problems:
            raise UnsupportedError(self.name, self.problems)
        return self.finish([entry.name for entry in inputs], [entry.name for entry in graph.output])

    def add_input(self, entry: onnx.ValueInfoProto) -> None:
        shape = input_shape(entry, self.name)
        argument = self.block.insert_arg(tensor_type(without_batch(shape)), len(self.block.args))
        argument.name_hint = _hint(entry.name)
        self.tensors[entry.name] = Tensor(argument, shape, tuple(range(len(shape))))
        if entry.type.tensor_type.elem_type in INTEGER_TYPES:
            self.integers.add(entry.name)
            self.whole.add(argument.index)

    def add_constant(self, name: str, initializer: onnx.TensorProto) -> None:
        """Name the value of an initializer."""
        self.constants[name] = _array(initializer, self.name)

    def visit_within(self, node: Node) -> None:
        """Visit a node that stands for a part of the current one."""
        from ml4f.frontend.importer_ops import HANDLERS

        current = self.node
        self.visit(node, HANDLERS)
        self.node = current

    def visit(self, node: Node, handlers: dict[str, Callable[[Importer, Node], None]]) -> None:
        self.node = node
        names = [name for name in node.proto.input if name]
        if any(name in self.poisoned for name in names):
            self.poisoned.update(node.proto.output)
            return
        try:
            if self.foldable(node):
                self.fold(node)
            elif (handler := handler_of(node, handlers)) is not None:
                self.handle(node, handler)
            else:
                self.inline(node, handlers)
        except NotSupported as problem:
            self.poisoned.update(node.proto.output)
            shapes = ", ".join(str(list(self.shape(name))) for name in names if name in self.tensors)
            kind = node.kind if node.kind == node.op_type else f"{node.kind}, ONNX {node.op_type}"
            self.problems.append(f"layer '{node.layer}' ({kind}), input {shapes or 'constant'}: {problem}")

    def inline(self, node: Node, handlers: dict[str, Callable[[Importer, Node], None]]) -> None:
        """Visit the nodes that a node without a handler stands for."""
        from ml4f.frontend.importer_inline import function_body

        known, problems = self.opset, len(self.problems)
        found = function_body(self, node) if node.proto.domain in ("", "ai.onnx") else None
        if found is None:
            raise NotSupported(f"there is no ONNX operator {node.op_type} in ml4f")
        nodes, self.opset = found
        for index, proto in enumerate(nodes):
            self.visit(Node(proto, index, self.opset), handlers)
        self.opset, self.node = known, node
        if len(self.problems) > problems:
            inner = self.problems[problems].partition(": ")[2]
            del self.problems[problems:]
            raise NotSupported(f"it is made of operators, one of which is not supported: {inner}")

    def handle(self, node: Node, handler: Callable[[Importer, Node], None]) -> None:
        """Emit a node; what an operator's definition forbids is a problem of this layer."""
        integers = [name for name in node.proto.input if name in self.integers]
        if integers and node.op_type not in INTEGER_OPERATORS:
            raise NotSupported("it computes with integers; cast them to float before, or leave them to the program")
        if integers and node.op_type in VALUES and any(self.is_inexact(name) for name in node.proto.input):
            raise NotSupported(f"it computes with integers above {EXACT}, which float32 does not hold")
        from ml4f.frontend.importer_versions import modern

        try:
            node = modern(self, node)
            handler(self, node)
            if unread := node.not_understood():
                raise NotSupported(f"the attribute {unread[0]} is not supported with this value")
            if node.op_type in EXACT_OPERATORS and integers:
                self.integers.update(node.proto.output)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            detail = f"{type(error).__name__}: {error}"
            raise NotSupported(f"its attributes, inputs and shapes do not fit together ({detail})") from error

    def is_inexact(self, name: str) -> bool:
        """Whether a constant is of integers that float32 does not hold."""
        array = self.const(name)
        if array is None or array.dtype.kind not in "iu" or not array.size:
            return False
        return float(np.max(np.abs(array.astype(np.float64)))) > EXACT

    def shape(self, name: str) -> Shape:
        """The shape of a tensor or constant."""
        return self.constants[name].shape if name in self.constants else self.tensors[name].shape

    def is_read(self, name: str) -> bool:
        """Whether a node or the model's caller reads a tensor."""
        return bool(name) and name in self.read

    def foldable(self, node: Node) -> bool:
        """Whether the node's outputs do not depend on the model's input."""
        if node.proto.domain not in ("", "ai.onnx"):
            return False
        if node.op_type in ("Shape", "Size"):
            return True
        if node.op_type.startswith("Random") or any(a.type == onnx.AttributeProto.GRAPH for a in node.proto.attribute):
            return False
        return all(name in self.constants for name in node.proto.input if name)

    def fold(self, node: Node) -> None:
        """Evaluate a node whose inputs are constants."""
        if node.op_type == "Shape" and node.proto.input[0] in self.tensors:
            shape = np.array(self.tensors[node.proto.input[0]].shape, dtype=np.int64)
            self.constants[node.proto.output[0]] = shape[slice(node.get("start", 0), node.get("end", None))]
            return
        if node.op_type == "Size" and node.proto.input[0] in self.tensors:
            count = prod(self.tensors[node.proto.input[0]].shape)
            self.constants[node.proto.output[0]] = np.array(count, dtype=np.int64)
            return
        for name, value in zip(node.proto.output, evaluate_node(node.proto, self.constants, self.opset), strict=False):
            self.constants[name] = np.asarray(value)

    def finish(self, inputs: Sequence[str], outputs: Sequence[str]) -> ModuleOp:
        """The function: its arguments are there already, its results in the model's declared order."""
        self.node = self.node or Node(onnx.helper.make_node("Identity", [], []), 0, self.opset)
        values = [self.returned(name) for name in outputs]
        self.block.add_op(ReturnOp(*values))
        signature = [arg.type for arg in self.block.args], [value.type for value in values]
        function = FuncOp("main", FunctionType.from_lists(*signature), Region(self.block))
        function.attributes["model"] = StringAttr(self.name)
        if self.whole:
            limits = [(self.rows or DEFAULT_LIMIT) if i in self.whole else 0 for i in range(len(inputs))]
            function.attributes["input_limits"] = numbers(limits)
        types = ["int32" if name in self.integers else "float32" for name in outputs]
        for key, texts in (("input_names", inputs), ("output_names", outputs), ("output_types", types)):
            function.attributes[key] = ArrayAttr([StringAttr(text) for text in texts])
        return ModuleOp([function])

    def returned(self, output: str) -> SSAValue:
        """The value of one of the model's outputs, in order and without a batch of one."""
        if output not in self.tensors and output not in self.constants:
            raise Ml4fError(f"{self.name}: the graph's output '{output}' is computed by no node")
        tensor = self.in_order(self.copied(output) if output in self.constants else self.tensor(output))
        value = self.reshaped(tensor.value, without_batch(tensor.shape))
        if output in self.integers:
            value = self.emit(nn.ActivationOp, [value], shape_of(value), act=ActAttr.of("to_int32"))
        return value

    def copied(self, output: str) -> Tensor:
        """An output that does not depend on the model's input: a copy of the constant."""
        array = self.constants[output]
        if not array.size:
            raise UnsupportedError(self.name, [f"the output '{output}' {list(array.shape)} is empty; leave it out"])
        if array.dtype.kind in "iu":
            if self.is_inexact(output):
                raise UnsupportedError(self.name, [f"the output '{output}' is a constant above {EXACT}; leave it out"])
            self.integers.add(output)
        elif array.dtype.kind not in "fb":
            raise UnsupportedError(self.name, [f"the output '{output}' is no number; leave it out"])
        places = {"start": (0,) * array.ndim, "strides": (1,) * array.ndim, "sizes": array.shape}
        properties = {name: numbers(values) for name, values in places.items()}
        value = self.emit(nn.SliceOp, [self.constant(array)], array.shape, **properties)
        return Tensor(value, array.shape, tuple(range(array.ndim)))


def _names_read(graph: onnx.GraphProto) -> set[str]:
    """The tensors that nodes of a graph or of the subgraphs in it read, or that are results."""
    names = {entry.name for entry in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= _names_read(attribute.g)
    return names


def handler_of(
    node: Node, handlers: dict[str, Callable[[Importer, Node], None]]
) -> Callable[[Importer, Node], None] | None:
    """The function that emits a node of ONNX's own domain or of ai.onnx.ml."""
    from ml4f.frontend import importer_ml

    if node.proto.domain == importer_ml.DOMAIN:
        return importer_ml.HANDLERS.get(node.op_type)
    return handlers.get(node.op_type) if node.proto.domain in ("", "ai.onnx") else None


def without_batch(shape: Shape) -> Shape:
    """Of an input or output: a batch of one is left out."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _hint(name: str) -> str | None:
    cleaned = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else None


def _opset(proto: onnx.ModelProto, name: str) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    version = versions[0] if versions else newest
    if not OLDEST_OPSET <= version <= newest:
        raise Ml4fError(f"{name}: ONNX opset {version}; {OLDEST_OPSET} to {newest} are supported, export it again")
    return version


def _array(initializer: onnx.TensorProto, name: str) -> np.ndarray:
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
    if tensor.elem_type not in (*FLOAT_TYPES, *INTEGER_TYPES):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type else "unknown"
        raise Ml4fError(f"{name}: input '{entry.name}' has type {kind}; float, int32 and int64 inputs are supported")
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


def import_onnx(proto: onnx.ModelProto, name: str) -> ModuleOp:
    """An ONNX model as nn IR: one function @main on tensors without batch, in the model's declared order.

    Raises UnsupportedError that lists every layer that is not supported, Ml4fError for models that make no sense.
    """
    try:
        module = Importer(proto, name).run()
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Ml4fError(f"{name}: the ONNX graph is inconsistent: {type(error).__name__}: {error}") from None
    return module
