"""ONNX graphs to the nn dialect: `import_onnx`.

An ONNX tensor becomes a `Tensor`: an SSA value whose elements, in memory order, are those of the tensor transposed by
`order`. Transpose therefore costs nothing; only operators that need a certain order (convolutions: channels last)
materialise one.
Constants are folded; every handler (`importer_ops.py`, `importer_windows.py`) sees shapes that are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx
from xdsl.dialects.builtin import ArrayAttr, FunctionType, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from ml4f.dialects.nn import ActAttr, ConstOp, NnOp, SourceAttr, named_location, numbers, shape_of, tensor_type
from ml4f.dialects.nn import ops as nn
from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_reading import (
    array_of,
    evaluate_node,
    hint_of,
    input_shape,
    names_read,
    opset_of,
    without_batch,
)
from ml4f.frontend.importer_types import (
    BOOLEAN,
    EXACT,
    EXACT_OPERATORS,
    INTEGER_OPERATORS,
    INTEGER_TYPES,
    MAX_ELEMENTS,
    QUANTIZED,
    VALUES,
)
from ml4f.frontend.importer_values import Flattened, NotSupported, Shape, Tensor, Value

INCONSISTENT = (ArithmeticError, AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError)
"""What handlers raise where attributes, inputs and shapes do not fit together."""

DOMAINS = ("", "ai.onnx", "ai.onnx.preview")
"""ONNX's own domains but for that of classical machine learning, which has a module of its own."""

DEFAULT_LIMIT = 10
"""Inputs of whole numbers are tried with numbers below it where no table says better."""


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
        self.bounds: dict[str, float] = {}
        """What no element of a tensor of integers is larger than in magnitude, where that is known."""
        self.sequences: dict[str, list[str]] = {}
        """Sequences of tensors: the names of their elements."""
        self.rows: int | None = None
        """What computed row numbers must be less than, in the smallest of the tables that they are of."""
        self.whole: set[int] = set()
        """Numbers of the inputs that hold whole numbers."""
        self.flags: set[int] = set()
        """Numbers of the inputs that are boolean."""
        self.problems: list[str] = []
        self.node: Node | None = None
        self.opset = opset_of(proto, name)
        self.constant_ops: dict[int, SSAValue] = {}
        self.read = names_read(proto.graph)

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
        elif name in self.sequences:
            self.sequences[output] = self.sequences[name]
        elif name in self.tensors:
            self.tensors[output] = self.tensors[name]
            if name in self.bounds:
                self.bounds[output] = self.bounds[name]
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
        argument.name_hint = hint_of(entry.name)
        self.tensors[entry.name] = Tensor(argument, shape, tuple(range(len(shape))))
        kind = entry.type.tensor_type.elem_type
        if kind in INTEGER_TYPES:
            self.integers.add(entry.name)
            self.whole.add(argument.index)
        elif kind == BOOLEAN:
            from ml4f.frontend.importer_masks import ones_and_zeros

            self.flags.add(argument.index)
            ones_and_zeros(self, entry.name)

    def add_constant(self, name: str, initializer: onnx.TensorProto) -> None:
        """Name the value of an initializer."""
        self.constants[name] = array_of(initializer, self.name)

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
        if node.op_type in QUANTIZED:
            raise NotSupported("it computes with integers of 8 bits; export the model as it was before quantisation")
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
        from ml4f.frontend.importer_integers import integer_arithmetic, result_bound

        integers = [name for name in node.proto.input if name in self.integers]
        exact = node.op_type in EXACT_OPERATORS
        if integers and node.op_type not in INTEGER_OPERATORS:
            handler = integer_arithmetic(self, node) or handler
            exact = True
        if integers and node.op_type in VALUES and any(self.is_inexact(name) for name in node.proto.input):
            raise NotSupported(f"it computes with integers above {EXACT}, which float32 does not hold")
        from ml4f.frontend.importer_versions import modern

        try:
            node = modern(self, node)
            handler(self, node)
            if unread := node.not_understood():
                raise NotSupported(f"the attribute {unread[0]} is not supported with this value")
            if exact and integers:
                self.integers.update(node.proto.output)
            bound = result_bound(self, node) if integers or node.op_type == "Cast" else None
            if bound is not None:
                self.bounds.update({name: bound for name in node.proto.output if name in self.integers})
        except INCONSISTENT as error:
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
        if "Sequence" in node.op_type:
            return False
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
        if self.whole or self.flags:
            limits = [(self.rows or DEFAULT_LIMIT) if i in self.whole else 0 for i in range(len(inputs))]
            limits = [2 if i in self.flags else limit for i, limit in enumerate(limits)]
            function.attributes["input_limits"] = numbers(limits)
        types = ["int32" if name in self.integers else "float32" for name in outputs]
        for key, texts in (("input_names", inputs), ("output_names", outputs), ("output_types", types)):
            function.attributes[key] = ArrayAttr([StringAttr(text) for text in texts])
        return ModuleOp([function])

    def returned(self, output: str) -> SSAValue:
        """The value of one of the model's outputs, in order and without a batch of one."""
        if output in self.sequences:
            raise UnsupportedError(self.name, [f"the output '{output}' is a sequence; return tensors"])
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


def handler_of(
    node: Node, handlers: dict[str, Callable[[Importer, Node], None]]
) -> Callable[[Importer, Node], None] | None:
    """The function that emits a node of ONNX's own domain or of ai.onnx.ml."""
    from ml4f.frontend import importer_ml

    if node.proto.domain == importer_ml.DOMAIN:
        return importer_ml.HANDLERS.get(node.op_type)
    return handlers.get(node.op_type) if node.proto.domain in DOMAINS else None


def import_onnx(proto: onnx.ModelProto, name: str) -> ModuleOp:
    """An ONNX model as nn IR: one function @main on tensors without batch, in the model's declared order.

    Raises UnsupportedError that lists every layer that is not supported, Ml4fError for models that make no sense.
    """
    try:
        module = Importer(proto, name).run()
    except INCONSISTENT as error:
        raise Ml4fError(f"{name}: the ONNX graph is inconsistent: {type(error).__name__}: {error}") from None
    return module
