"""Keras models as ONNX models: `keras_to_onnx`. Every layer is translated by a function of `LAYERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend import (
    keras_activations,
    keras_layers_attention,
    keras_layers_conv,
    keras_layers_conv_lstm,
    keras_layers_core,
    keras_layers_norm,
    keras_layers_pool,
    keras_layers_recurrent,
    keras_layers_shape,
    keras_layers_wrappers,
    keras_masks,
    keras_operations,
)
from ml4f.frontend.free_shapes import FreeShapes
from ml4f.frontend.keras_builder import GraphBuilder, LayerContext, Refused, Value
from ml4f.frontend.keras_graph import OPERATION_CLASSES, Argument, Call, Graph, read_graph, type_name
from ml4f.frontend.keras_weights import KerasFile

LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value | list[Value]]] = {
    **keras_layers_core.LAYERS,
    **keras_layers_attention.LAYERS,
    **keras_layers_conv.LAYERS,
    **keras_layers_conv_lstm.LAYERS,
    **keras_layers_norm.LAYERS,
    **keras_layers_pool.LAYERS,
    **keras_layers_shape.LAYERS,
    **keras_layers_recurrent.LAYERS,
    **keras_layers_wrappers.LAYERS,
    **keras_activations.LAYERS,
}
"""Keras class → the function that translates its layers."""
TRAINED = (
    "BatchNormalization",
    *(name for name in keras_layers_core.TRAINING_ONLY if name not in keras_layers_core.PICTURES_IN_TRAINING),
)
"""Layers that compute something else in training; Keras 3 calls those for pictures with training=True unless told."""
WAY_OUT = "write it with the layers and operations that docs/model-formats.md lists, or leave it to the program"
_ENCODED = "encode the numbers in the program, and give the network what the layer would make of them"
WAYS_OUT = {
    **dict.fromkeys(("CategoryEncoding", "Discretization", "Hashing", "HashedCrossing"), _ENCODED),
    **dict.fromkeys(("IntegerLookup", "StringLookup", "TextVectorization"), _ENCODED),
    **dict.fromkeys(("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"), "wrap it in a layer RNN"),
    **dict.fromkeys(("MelSpectrogram", "STFTSpectrogram"), "compute the spectrum in the program, and feed that"),
    "ConvLSTM3D": "take ConvLSTM2D on flattened pictures, or recurrent layers behind TimeDistributed convolutions",
}
"""Classes that are not supported → what to do instead."""
KEYWORDS = frozenset(
    {"args", "training", "initial_state", "use_causal_mask", "return_attention_scores", *keras_masks.ARGUMENTS}
)
"""Arguments of a layer's call that are heeded, besides tensors."""


def keras_to_onnx(file: KerasFile, subject: str, shapes: FreeShapes | None = None) -> tuple[onnx.ModelProto, list[str]]:
    """The model with a batch of 1, and remarks for the user; `shapes`: of inputs that leave some dimension free.

    Raises UnsupportedError with every layer that is not supported, Ml4fError if configuration and weights do not fit.
    """
    graph = read_graph(file.config, file.keras, subject, shapes)
    return _Translation(file, graph, subject).run(), graph.notes


class _Translation:
    def __init__(self, file: KerasFile, graph: Graph, subject: str):
        self.file = file
        self.graph = graph
        self.subject = subject
        self.builder = GraphBuilder()
        self.values: dict[int, Value | None] = {}
        """By the tensor's number; None behind a layer that is not supported."""
        self.masks = keras_masks.MaskTable(graph.calls)
        self.problems: dict[str, None] = {}

    def run(self) -> onnx.ModelProto:
        inputs = []
        for entry in self.graph.inputs:
            value = Value(self.builder.unique(entry.name), (1, *entry.shape))
            inputs.append(value)
            self.values[entry.tensor] = value
        for call in self.graph.calls:
            self.values.update(zip(call.outputs, self.call(call), strict=True))
        if self.problems:
            raise UnsupportedError(self.subject, list(self.problems))
        outputs = [value for number in self.graph.outputs if (value := self.values[number]) is not None]
        taken = {value.name for value in inputs} | self.builder.constants.keys()
        for index, value in enumerate(outputs):
            if value.name in taken or self.builder.type_of(value) != onnx.TensorProto.FLOAT:
                attributes = {"to": onnx.TensorProto.FLOAT}
                outputs[index] = self.builder.node(
                    "Cast", [value.name], "output", value.shape, "output", "Cast", attributes
                )
            taken.add(outputs[index].name)
        return self.builder.model(self.graph.name, inputs, outputs)

    def call(self, call: Call) -> list[Value | None]:
        """Translate one call; None for each output, and a problem, if that cannot be done."""
        nothing: list[Value | None] = [None] * len(call.outputs)
        layer = call.layer
        known = [self.values.get(argument) for argument in call.arguments if isinstance(argument, int)]
        shapes = ", ".join(str(list(value.shape)) for value in known if value is not None) or "unknown"
        label = f"layer '{'/'.join(layer.path)}' ({layer.kind}), input {shapes}"
        if layer.kind == "Lambda":
            self.refuse(label, "a Lambda layer's code is not read; write it with layers that Keras has")
            return nothing
        if layer.custom:
            self.refuse(
                label, "a layer of your own, whose code is not in the file; write it with layers that Keras has"
            )
            return nothing
        translate = self.translation(call)
        if translate is None:
            what = str(layer.config.get("function"))[:80] if layer.kind in OPERATION_CLASSES else layer.kind
            self.refuse(label, f"there is no {what} in ml4f; {WAYS_OUT.get(what, WAY_OUT)}")
            return nothing
        if any(value is None for value in known):
            return nothing
        problem = _call_problem(call)
        if problem:
            self.refuse(label, problem)
            return nothing
        self.note_precision(layer.config)
        since = len(self.builder.nodes)
        try:
            context, inputs = self.context(call)
            made = translate(context)
            made = made if isinstance(made, list) else [made]
            named = self.builder.rename(made[0], context.path, since)
            outputs = [named if value == made[0] else value for value in made][: len(call.outputs)]
            if len(outputs) < len(call.outputs):
                raise Refused(f"output {len(call.outputs)} of it is read, it has {len(outputs)}")
            self.masks.after(call, context, inputs)
            return [*outputs]
        except Refused as problem:
            self.refuse(label, str(problem))
            return nothing
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise Ml4fError(
                f"{self.subject}: {label}: its configuration is inconsistent ({detail}); save the model again"
            ) from None

    def operand(self, argument: Argument) -> Value | float | np.ndarray | None:
        """What a call's argument is; None for what could not be translated."""
        return self.values.get(argument) if isinstance(argument, int) else argument

    def context(self, call: Call) -> tuple[LayerContext, list[Value]]:
        """For a call: its layer's context, with masks for its tensors, and these tensors."""
        layer = call.layer
        context = LayerContext(self.builder, layer, self.file.weights, self.subject, self.graph.notes)
        given = list(zip(call.arguments, call.names, strict=True))
        if keras_operations.operation_of(layer) is not None:
            context.names = call.names
            return context, []
        unknown = [name for name, value in layer.keywords.items() if name not in KEYWORDS and value and _plain(value)]
        if unknown:
            raise Refused(
                f"it is called with {unknown[0]}={str(layer.keywords[unknown[0]])[:80]}, which ml4f does not know"
            )
        tensors = [(a, name, self.operand(a)) for a, name in given if name not in keras_masks.ARGUMENTS]
        tensors = [(a, name, value) for a, name, value in tensors if isinstance(value, Value)]
        context.names = tuple(name for _, name, _ in tensors)
        context.masks = tuple(self.masks.of(a) for a, _, _ in tensors)
        named = {key: [self.operand(a) for a, name in given if name == key] for key in keras_masks.ARGUMENTS}
        keras_masks.given_masks(context, named)
        return context, [value for _, _, value in tensors]

    def translation(self, call: Call) -> Callable[[LayerContext], Value | list[Value]] | None:
        """What translates a layer, or an operation such as `x + y`; None if there is nothing."""
        layer = call.layer
        operands = [self.operand(a) for a in call.arguments]
        operation = keras_operations.operation_of(layer)
        if operation is not None:
            return lambda context: operation(context, [v for v in operands if v is not None])
        if layer.kind in LAYERS and not keras_operations.is_operation(layer):
            inputs = [
                v
                for v, name in zip(operands, call.names, strict=True)
                if isinstance(v, Value) and name not in keras_masks.ARGUMENTS
            ]
            return lambda context: LAYERS[layer.kind](context, inputs)
        return None

    def note_precision(self, config: dict[str, Any]) -> None:
        """A remark if a layer computes with less precision than the code will."""
        policy = type_name(config.get("dtype"))
        note = f"the model computes in {policy}; the code computes in float32, and so differs in the last digits"
        if policy in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16") and note not in self.graph.notes:
            self.graph.notes.append(note)

    def refuse(self, label: str, problem: str) -> None:
        self.problems[f"{label}: {problem}"] = None


def _is_random_or_trained(kind: str, config: dict[str, Any]) -> bool:
    """Whether a layer, or one inside a wrapper, computes something else in training."""
    inner = [config.get(key) for key in ("layer", "forward_layer", "backward_layer")]
    return (
        kind in TRAINED
        or any(config.get(key) for key in ("dropout", "recurrent_dropout"))
        or any(
            _is_random_or_trained(str(part.get("class_name")), part["config"])
            for part in inner
            if isinstance(part, dict) and isinstance(part.get("config"), dict)
        )
    )


def _call_problem(call: Call) -> str:
    """Why a call cannot be translated, whatever its layer computes; "" if it can."""
    if call.layer.keywords.get("training") is True and _is_random_or_trained(call.layer.kind, call.layer.config):
        return "it is called with training=True, as in training; build the model with training=False"
    return ""


def _plain(value: Any) -> bool:
    """Whether an argument of a call is, or has in it, what is not a tensor."""
    if isinstance(value, dict):
        return value.get("class_name") != "__keras_tensor__"
    if isinstance(value, list):
        reference = len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)
        return not reference and any(_plain(inner) for inner in value)
    return value is not None
