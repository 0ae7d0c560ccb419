"""A Keras configuration as a list of layer calls in the order of execution: `read_graph`.

Models in models are unfolded, shared layers are called several times. Keras 2, Keras 3 and TF.js spellings are read.
Knows nothing of what a layer computes, of weights, or of ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ml4f.errors import Ml4fError
from ml4f.frontend.free_shapes import REMEDY, FreeShapes
from ml4f.frontend.guards import MAX_ELEMENTS, MAX_NODES, object_of

MODEL_CLASSES = ("Sequential", "Functional", "Model")
MAX_DEPTH = 24
"""Models in models."""
MAX_OUTPUTS = 64
"""Of one layer."""
OPERATION_CLASSES = ("TFOpLambda", "SlicingOpLambda")
"""How Keras 2 stores functions of TensorFlow; their arguments are those of the call."""
ARCHIVE_CLASSES = {"GroupQueryAttention": "GroupedQueryAttention"}
"""Classes that Keras exports under another name than the one that its archives go by."""
STORED_ARRAYS = ("__numpy__", "__tensor__")
"""How Keras 3 stores constants among a call's arguments."""
KERAS_MODULES = ("keras", "tf_keras", "tensorflow", "keras_core", "builtins")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: `path` its name and those of the models around it, `stored` its place in a .keras archive."""

    name: str
    kind: str
    config: dict[str, Any]
    module: str
    custom: bool
    path: tuple[str, ...]
    stored: str
    keras: int
    """The version of Keras whose rules the layer follows: 2 or 3."""
    keywords: dict[str, Any] = field(default_factory=dict)
    """What the call says besides tensors, e.g. {"training": False}."""


Argument = int | float | np.ndarray
"""A call's argument: the number of a tensor (int) or a constant (float, or an array of float32)."""


@dataclass(frozen=True, eq=False)
class Call:
    """`outputs = layer(*arguments)`; tensors are numbered. There are as many outputs as are read."""

    layer: Layer
    arguments: tuple[Argument, ...]
    names: tuple[str, ...]
    """Of the arguments: the keyword, or "" for those without."""
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """A model's input: `shape` without the batch."""

    name: str
    shape: tuple[int, ...]
    tensor: int


@dataclass
class Graph:
    """A whole model; `calls` are in an order in which they can be executed."""

    name: str
    inputs: list[Input] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_graph(config: dict[str, Any], keras: int, subject: str, shapes: FreeShapes | None = None) -> Graph:
    """`config`: {"class_name": …, "config": …} of a model. `subject` names the file in errors; `shapes`: free ones."""
    kind = config.get("class_name")
    if not isinstance(kind, str) or "config" not in config:
        raise Ml4fError(f"{subject}: the model's configuration has no class_name; save the whole model with Keras")
    reader = _Reader(keras, subject, shapes or FreeShapes())
    try:
        return reader.model(config)
    except (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        detail = f"{type(error).__name__}: {str(error)[:100]}"
        raise Ml4fError(f"{subject}: the model's configuration is inconsistent ({detail}); save it again") from None


def snake_case(name: str) -> str:
    """The name of a class in a .keras archive: Conv2D → conv2d, PReLU → p_re_lu."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


@dataclass(frozen=True)
class _Scope:
    """Where a model stands in the models around it."""

    path: tuple[str, ...] = ()
    stored: str = ""
    depth: int = 0


class _Reader:
    def __init__(self, keras: int, subject: str, shapes: FreeShapes):
        self.keras = keras
        self.shapes = shapes
        self.subject = subject
        self.tensors = 0
        self.graph = Graph("")

    def model(self, config: dict[str, Any]) -> Graph:
        inner = config["config"]
        self.graph.name = str(inner.get("name", "")) if isinstance(inner, dict) else ""
        self.graph.outputs = self.unfold(config, None, _Scope())
        if not self.graph.inputs:
            raise Ml4fError(f"{self.subject}: the model has no input; give its first layer an input shape")
        return self.graph

    def tensor(self) -> int:
        self.tensors += 1
        if self.tensors > MAX_NODES:
            raise Ml4fError(f"{self.subject}: the model has more than {MAX_NODES} layers")
        return self.tensors

    def unfold(self, config: dict[str, Any], inputs: list[int] | None, scope: _Scope) -> list[int]:
        """Append a model's calls; its own inputs are `inputs`, or the whole model's if None."""
        if scope.depth > MAX_DEPTH:
            raise Ml4fError(f"{self.subject}: models are nested more than {MAX_DEPTH} deep")
        self.tensor()
        inner = config["config"]
        if isinstance(inner, list):  # a Sequential before Keras 2.2.3
            return self.sequential({"layers": inner}, inputs, scope)
        if config["class_name"] not in MODEL_CLASSES or "layers" not in inner or _custom(config):
            raise Ml4fError(
                f"{self.subject}: the model is of the class {config['class_name']}, whose code is not in the file; "
                "build it as a Sequential or functional model"
            )
        if "output_layers" in inner:
            return _Functional(self, inner, inputs, scope).run()
        return self.sequential(inner, inputs, scope)

    def sequential(self, inner: dict[str, Any], inputs: list[int] | None, scope: _Scope) -> list[int]:
        entries = inner["layers"]
        current = inputs
        if current is None:
            current = [self.input_of(entries, inner)]
        names = _StoredNames(scope.stored)
        for entry in entries:
            stored = names.next(entry["class_name"])
            if entry["class_name"] != "InputLayer":
                current = self.call(entry, tuple(current), scope, stored)
        return current

    def call(
        self,
        entry: dict[str, Any],
        arguments: Sequence[Argument],
        scope: _Scope,
        stored: str,
        operands: _Operands | None = None,
        count: int = 1,
    ) -> list[int]:
        """One call of a layer, or of all layers of a model; its keywords are what configures functions of
        TensorFlow.
        """
        name = _name(entry)
        keywords = operands.keywords if operands else {}
        names = operands.names if operands else [""] * len(arguments)
        if entry["class_name"] in MODEL_CLASSES and not _custom(entry):
            if keywords.get("training") is True:
                raise Ml4fError(
                    f"{self.subject}: the model '{name}' is called with training=True, as in training; "
                    "build the model with training=False"
                )
            inner = _Scope((*scope.path, name), stored, scope.depth + 1)
            return self.unfold(entry, self.masked_inputs(name, arguments, names, keywords, scope), inner)
        config = object_of(entry.get("config", {}), self.subject, f"the configuration of layer '{name}'")
        layer = Layer(
            name=name,
            kind=str(entry["class_name"]),
            config={**config, "keywords": keywords} if entry["class_name"] in OPERATION_CLASSES else config,
            module=str(entry.get("module") or ""),
            custom=_custom(entry),
            path=(*scope.path, name),
            stored=stored,
            keras=self.keras,
            keywords=keywords,
        )
        outputs = [self.tensor() for _ in range(count)]
        self.graph.calls.append(Call(layer, tuple(arguments), tuple(names), tuple(outputs)))
        return outputs

    def masked_inputs(
        self,
        name: str,
        arguments: Sequence[Argument],
        names: Sequence[str],
        keywords: dict[str, Any],
        scope: _Scope,
    ) -> list[int]:
        """The inputs of a model in a model, with the masks that its call names."""
        tensors = [(a, key) for a, key in zip(arguments, names, strict=True) if isinstance(a, int)]
        found, masks = [a for a, key in tensors if key != "mask"], [a for a, key in tensors if key == "mask"]
        whole = keywords.get("mask")
        places = [True] * len(masks)
        if isinstance(whole, list) and not (whole and isinstance(whole[0], str)):
            places = [entry is not None for entry in whole]
        for index, there in enumerate(places[: len(found)]):
            if there and masks:
                layer = Layer(f"{name}_input", "InputLayer", {}, "", False, (*scope.path, name), "", self.keras)
                output = self.tensor()
                self.graph.calls.append(Call(layer, (found[index], masks.pop(0)), ("", "mask"), (output,)))
                found[index] = output
        return found

    def input_of(self, entries: list[dict[str, Any]], inner: dict[str, Any]) -> int:
        """The input of a Sequential: of its InputLayer, its first layer, or its build_input_shape."""
        first = entries[0] if entries else {}
        name = _name(first) if first.get("class_name") == "InputLayer" else f"{_name(first)}_input"
        depth = 0
        while isinstance(first, dict) and first.get("class_name") in MODEL_CLASSES and depth < MAX_DEPTH:
            config = first["config"]
            layers = config if isinstance(config, list) else config["layers"]
            first, depth = layers[0], depth + 1
        config = first.get("config", {})
        shape = config.get("batch_input_shape") or config.get("batch_shape") or inner.get("build_input_shape")
        shape = shape or (first.get("build_config") or {}).get("input_shape")
        if not shape:
            raise Ml4fError(f"{self.subject}: the model has no input shape; begin it with keras.Input(shape=…)")
        return self.add_input(name, shape, config)

    def add_input(self, name: str, shape: Any, config: dict[str, Any]) -> int:
        """A new input of the whole model; all its dimensions but the first must be numbers."""
        if not isinstance(shape, list | tuple) or not shape:
            raise Ml4fError(f"{self.subject}: input '{name}' has no shape but {str(shape)[:80]}")
        shape = [shape[0], *self.shapes.of(name, [None, *shape[1:]], self.subject)[1:]]
        inner = tuple(shape[1:])
        if any(n is None for n in inner):
            axis = inner.index(None) + 1
            raise Ml4fError(
                f"{self.subject}: input '{name}' has the shape {list(shape)}: dimension {axis} is free; {REMEDY}"
            )
        size = 1
        for n in inner:
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise Ml4fError(
                    f"{self.subject}: input '{name}' has the shape {str(list(shape))[:80]}, which makes no sense"
                )
            size *= n
        if size > MAX_ELEMENTS:
            raise Ml4fError(f"{self.subject}: input '{name}' {list(shape)} is too large for a microcontroller")
        kind = type_name(config.get("dtype"))
        if kind not in ("float32", "float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"):
            self.graph.notes.append(f"input '{name}' is {kind} in the model; the code takes the same values as float32")
        if shape[0] not in (None, 1):
            self.graph.notes.append(
                f"input '{name}' has a batch of {shape[0]} in the model; the code takes one at a time"
            )
        tensor = self.tensor()
        self.graph.inputs.append(Input(name, inner, tensor))
        return tensor


class _StoredNames:
    """Places in a .keras archive: snake-case classes, counted in each model."""

    def __init__(self, stored: str):
        self.prefix = f"{stored}/layers/" if stored else "layers/"
        self.counts: dict[str, int] = {}

    def next(self, kind: str) -> str:
        base = snake_case(ARCHIVE_CLASSES.get(str(kind), str(kind)))
        count = self.counts.get(base, 0)
        self.counts[base] = count + 1
        return self.prefix + (f"{base}_{count}" if count else base)


class _Functional:
    """Unfolds one functional model: calls whose arguments are known are made until none is left."""

    def __init__(self, reader: _Reader, inner: dict[str, Any], inputs: list[int] | None, scope: _Scope):
        self.reader = reader
        self.inner = inner
        self.inputs = inputs
        self.scope = scope
        self.tensors: dict[tuple[str, int], list[int]] = {}
        """(layer, number of the call) → its output tensors."""
        self.calls: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        """How many of a layer's outputs are read."""
        self.first: dict[str, int] = {}
        """The number of a layer's first call: 1 for models in models of Keras 2, which count their own first."""
        self.first_output: dict[str, int] = {}
        """The same in output_layers; Keras 3 counts a functional model's own graph there, and not in arguments."""

    def run(self) -> list[int]:
        names = _StoredNames(self.scope.stored)
        own = len(self.reader.graph.inputs)
        pending: list[tuple[dict[str, Any], int, _Operands, str]] = []
        references = _references(self.inner["input_layers"])
        for entry in self.inner["layers"]:
            operation = str(entry.get("module") or "").startswith("keras.src.ops")
            stored = "" if operation else names.next(entry["class_name"])
            nodes = entry.get("inbound_nodes") or []
            self.calls[_name(entry)] = max(1, len(nodes))
            if entry["class_name"] == "InputLayer":
                self.bind_input(entry, references)
            else:
                pending += [(entry, index, _operands(node), stored) for index, node in enumerate(nodes)]
        if self.inputs is None:  # the caller's order, not that of the layers
            order = {reference.layer: i for i, reference in reversed(list(enumerate(references)))}
            self.reader.graph.inputs[own:] = sorted(
                self.reader.graph.inputs[own:], key=lambda entry: order.get(entry.name, len(order))
            )
        used = [r for item in pending for r in item[2].arguments if isinstance(r, _Reference)]
        last = _references(self.inner["output_layers"])
        for reference in (*used, *last):
            self.counts[reference.layer] = max(self.counts.get(reference.layer, 1), _checked_index(reference) + 1)
        self.number_calls(used, last)
        while pending:
            left = [item for item in pending if not self.attempt(*item)]
            if len(left) == len(pending):
                names_left = ", ".join(repr(_name(item[0])) for item in left[:5])
                raise Ml4fError(
                    f"{self.reader.subject}: the inputs of the layers {names_left} are computed by no layer"
                )
            pending = left
        outputs = [self.find(reference, self.first_output) for reference in last]
        if not outputs or any(output is None for output in outputs):
            raise Ml4fError(f"{self.reader.subject}: an output of the model is computed by no layer")
        return [output for output in outputs if output is not None]

    def number_calls(self, used: Sequence[_Reference], last: Sequence[_Reference]) -> None:
        """Where the calls of layers with several calls begin to count; `used`, `last`: what calls and outputs read."""
        for entry in self.inner["layers"]:
            name, nodes = _name(entry), entry.get("inbound_nodes") or []
            if self.calls[name] == 1:
                continue
            if isinstance(nodes[0], dict):  # Keras 3
                functional = entry["class_name"] == "Functional"
                self.first_output[name] = int(functional and all(r.call > 0 for r in last if r.layer == name))
            elif any(r.layer == name and r.call == self.calls[name] for r in (*used, *last)):
                self.first[name] = self.first_output[name] = 1

    def bind_input(self, entry: dict[str, Any], references: list[_Reference]) -> None:
        name, config = _name(entry), entry["config"]
        if self.inputs is None:
            shape = config.get("batch_input_shape") or config.get("batch_shape")
            self.tensors[name, 0] = [self.reader.add_input(name, shape, config)]
            return
        position = [reference.layer for reference in references].index(name)
        self.tensors[name, 0] = [self.inputs[position]]

    def attempt(self, entry: dict[str, Any], index: int, operands: _Operands, stored: str) -> bool:
        """Make one call if its arguments are known."""
        found: list[Argument] = []
        for argument in operands.arguments:
            tensor = self.find(argument, self.first) if isinstance(argument, _Reference) else argument
            if tensor is None:
                return False
            found.append(tensor)
        count = self.counts.get(_name(entry), 1)
        outputs = self.reader.call(entry, found, self.scope, stored, operands, count)
        self.tensors[_name(entry), index] = outputs
        return True

    def find(self, reference: _Reference, first: Mapping[str, int]) -> int | None:
        """The tensor; a lone call is found under any number, as Keras counts calls outside the model too."""
        found = self.tensors.get((reference.layer, reference.call - first.get(reference.layer, 0)))
        if found is None and self.calls.get(reference.layer) == 1:
            found = self.tensors.get((reference.layer, 0))
        return found[reference.tensor] if found else None


@dataclass(frozen=True)
class _Reference:
    layer: str
    call: int
    tensor: int


def _references(value: Any) -> list[_Reference]:
    """input_layers or output_layers: one reference, a list of them, or a dictionary, which Keras sorts by its keys."""
    if isinstance(value, dict):
        return [found for key in sorted(value) for found in _references(value[key])]
    if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [_Reference(value[0], value[1], int(value[2]))]
    return [found for inner in value for found in _references(inner)]


def _checked_index(reference: _Reference) -> int:
    if not 0 <= reference.tensor < MAX_OUTPUTS:
        raise ValueError(f"output {reference.tensor} of layer '{reference.layer}'")
    return reference.tensor


@dataclass(frozen=True)
class _Operands:
    """A call's references and constants, the keywords that they stand under, and its keywords that are neither."""

    arguments: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    keywords: dict[str, Any] = field(default_factory=dict)

    def add(self, found: Sequence[Any], name: str = "") -> None:
        self.arguments.extend(found)
        self.names.extend([name] * len(found))


def _operands(node: Any) -> _Operands:
    """Of a call: Keras 3 {"args", "kwargs"}, Keras 2 [["layer", 0, 0, {…}], …]."""
    made = _Operands()
    if isinstance(node, dict):
        made.keywords.update(args=node.get("args", []), **node.get("kwargs", {}))
        made.add(_collect(node.get("args", [])))
        for key, value in made.keywords.items():
            if isinstance(value, dict | list) and key != "args":
                made.add(_collect(value), key)
        return made
    if node and isinstance(node[0], str):
        node = [node]
    for entry in node:
        name, call, tensor = entry[:3]
        made.add([float(tensor) if name == "_CONSTANT_VALUE" else _Reference(name, int(call), int(tensor))])
        if len(entry) > 3 and isinstance(entry[3], dict):
            made.keywords.update(entry[3])
            for key, value in entry[3].items():
                made.add(_keyword_operands(key, value), key)
    return made


def _keyword_operands(key: str, value: Any) -> list[Any]:
    """Operands of Keras 2 calls: {"value": ["layer", 0, 0]}, a list of such, or a number: {"y": 2.0}."""
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [_Reference(value[0], int(value[1]), int(value[2]))]
    if isinstance(value, list) and value and all(inner is None or isinstance(inner, list) for inner in value):
        return [found for inner in value if inner is not None for found in _keyword_operands("", inner)]
    if key == "y" and isinstance(value, int | float) and not isinstance(value, bool):
        return [float(value)]
    return []


def _collect(value: Any) -> list[Any]:
    """Keras 3: the tensors in nested arguments, and numbers among them."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            name, call, tensor = value["config"]["keras_history"]
            return [_Reference(name, int(call), int(tensor))]
        if value.get("class_name") in STORED_ARRAYS:
            return [np.asarray(value["config"]["value"], dtype=np.float32)]
        return [found for inner in value.values() for found in _collect(inner)]
    if isinstance(value, list | tuple):
        return [found for inner in value for found in _collect(inner)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _name(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return str(entry.get("name") or inner or entry.get("class_name") or "input")


def _custom(entry: dict[str, Any]) -> bool:
    """Whether the class is not Keras's own."""
    module = str(entry.get("module") or "keras")
    return module.split(".")[0] not in KERAS_MODULES or ">" in str(entry.get("registered_name") or "")


def type_name(dtype: Any) -> str:
    """The name of a dtype or of a serialised DTypePolicy."""
    if isinstance(dtype, dict):
        config = dtype.get("config")
        return str(config.get("name", "float32")) if isinstance(config, dict) else "float32"
    return str(dtype or "float32")
