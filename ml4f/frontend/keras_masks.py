"""Masks of Keras: which steps of a sequence count. `MaskTable` follows them from layer to layer, as Keras does.

A mask is a float tensor [1, steps] of ones and zeros that stands beside a tensor, not in it. `Masking` and `Embedding`
make them; some layers hand on the mask of their input, some read it, and at all others it ends without a word.
The rules are those of Keras 3.15 and of Keras 2 (tf_keras 2.21). Knows nothing of what layers compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import Argument, Call

Mask = Value | None

HANDED_ON = frozenset(
    {
        *("Activation", "ActivityRegularization", "BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"),
        *("Dense", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D"),
        *("SpatialDropout2D", "SpatialDropout3D", "ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"),
        *("GroupNormalization", "LayerNormalization", "UnitNormalization", "InputLayer", "TimeDistributed"),
        *("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"),
    }
)
"""Layers whose (first) output has the mask of their (first) input."""
HANDED_ON_BY_KERAS_3 = HANDED_ON | {"Identity", "Normalization", "Rescaling"}
MERGED = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})
RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D"})
ATTENTION = frozenset({"Attention", "AdditiveAttention"})
READERS = frozenset(
    {
        *RECURRENT,
        *ATTENTION,
        *("Bidirectional", "GlobalAveragePooling1D", "GlobalAvgPool1D", "Softmax"),
        *("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"),
    }
)
"""Layers that compute something else where there is a mask."""
SAME_TENSOR = frozenset(
    {
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
        *("GaussianNoise", "ActivityRegularization", "Identity"),
    }
)
"""Layers of Keras 3 that return the very tensor that they get, so that both have one mask."""
ARGUMENTS = ("mask", "attention_mask", "query_mask", "value_mask", "key_mask")
"""Arguments of calls that are masks."""


def as_mask(c: LayerContext, x: Value) -> Value:
    """Ones where a tensor, of numbers or booleans, is not zero."""
    made = x
    if c.graph.type_of(x) != onnx.TensorProto.BOOL:
        made = c.emit("Cast", [x], x.shape, to=onnx.TensorProto.BOOL)
    return c.emit("Cast", [made], x.shape, to=onnx.TensorProto.FLOAT)


def _above_half(c: LayerContext, x: Value) -> Value:
    """What the layer Softmax takes for a mask."""
    if c.graph.type_of(x) == onnx.TensorProto.BOOL:
        return as_mask(c, x)
    above = c.emit("Greater", [x, np.asarray(0.5, dtype=np.float32)], x.shape)
    return c.emit("Cast", [above], x.shape, to=onnx.TensorProto.FLOAT)


def sequence_mask(c: LayerContext, states: Sequence[Value]) -> Mask:
    """Of a recurrent layer's steps. Keras 3 finds none beside initial states, unless the call names it."""
    if states and c.layer.keras >= 3 and c.layer.keywords.get("mask") is None:
        return None
    return c.mask


def not_equal(c: LayerContext, x: Value, value: float) -> Value:
    """Ones where x is another number than that."""
    same = c.emit("Equal", [x, np.asarray(value, dtype=np.float32)], x.shape)
    return c.emit("Cast", [c.emit("Not", [same], x.shape)], x.shape, to=onnx.TensorProto.FLOAT)


def either(c: LayerContext, masks: Sequence[Value]) -> Value:
    """Ones where any of some masks has one."""
    made = masks[0]
    for other in masks[1:]:
        made = c.binary("Max", made, other)
    return made


def both(c: LayerContext, masks: Sequence[Value | np.ndarray]) -> Value | np.ndarray:
    """Ones where all of some masks have one."""
    made = masks[0]
    for other in masks[1:]:
        if isinstance(made, np.ndarray) and isinstance(other, np.ndarray):
            made = np.asarray(made * other)
        else:
            made = c.binary("Mul", made, other)
    return made


def masking(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """Zeros in steps whose features all are mask_value."""
    (x,) = inputs
    return c.binary("Mul", x, _any_feature(c, x))


def _any_feature(c: LayerContext, x: Value) -> Value:
    """[1, steps, 1]: whether a step has a feature that is not mask_value."""
    if x.rank < 2:
        raise Refused("the input should have a dimension besides the batch")
    differs = not_equal(c, x, c.number("mask_value", 0.0) or 0.0)
    if x.shape[-1] == 1:
        return differs
    axes = np.array([x.rank - 1], dtype=np.int64)
    return c.emit("ReduceMax", [differs, axes], (*x.shape[:-1], 1), keepdims=1)


class MaskTable:
    """The masks of a graph's tensors, by their numbers."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.masks: dict[int, Value] = {}
        self.calls = calls
        self.roots: dict[int, int] = {}
        """For tensors that Keras has as one object: the number of the first."""
        self.taken: set[int] = set()
        """Tensors whose masks an attention layer has taken away."""

    def of(self, argument: Argument) -> Mask:
        """The mask of a tensor, if it has one."""
        return self.masks.get(self._root(argument)) if isinstance(argument, int) else None

    def _root(self, number: int) -> int:
        return self.roots.get(number, number)

    def after(self, call: Call, c: LayerContext, inputs: Sequence[Value]) -> None:
        """Masks of what a call has made. `inputs`: its tensors without masks, for which `c` has the masks."""
        layer = call.layer
        if layer.kind == "InputLayer":  # of a model in the model
            root = self.roots[call.outputs[0]] = (
                self._root(call.arguments[0]) if isinstance(call.arguments[0], int) else 0
            )
            if c.mask is not None:
                self.masks[root] = c.mask
            return
        tensors = [a for a, name in zip(call.arguments, call.names, strict=True) if name not in ARGUMENTS]
        if layer.keras >= 3 and tensors and isinstance(tensors[0], int) and _returns_its_input(c):
            self.roots[call.outputs[0]] = self._root(tensors[0])
            return
        for number, mask in zip(call.outputs, _made(c, inputs), strict=False):
            if mask is not None:
                self.masks[number] = mask
        if layer.kind == "MultiHeadAttention" and layer.keras >= 3:
            self._take(call, [a for a in tensors if isinstance(a, int)], c.path)

    def _take(self, call: Call, tensors: Sequence[int], path: str) -> None:
        """Keras 3's MultiHeadAttention takes the masks off its inputs: layers behind it see none.

        What stands beside it would depend on which comes first.
        """
        for number in {self._root(t) for t in tensors}:
            if number not in self.masks:
                continue
            behind = {self._root(number) for number in call.outputs}
            for other in self.calls:
                reads = {self._root(a) for a in other.arguments if isinstance(a, int)}
                if other is call:
                    continue
                if reads & behind:
                    behind |= set(other.outputs)
                elif number in reads and self._heeds(other) and not self._decided(other, call):
                    raise Refused(
                        f"layer '{other.layer.name}' reads a masked tensor that this layer reads too: in Keras 3 it "
                        f"depends on the order of execution which of them sees the mask; give '{path}' its masks as "
                        "attention_mask"
                    )
            del self.masks[number]

    def _heeds(self, call: Call) -> bool:
        """Whether a layer reads the masks of its inputs, or hands them on to one that does."""
        if call.layer.kind in READERS:
            return not call.layer.keywords.get("mask")
        handed = call.layer.kind in HANDED_ON_BY_KERAS_3 | MERGED | {"Concatenate"}
        return handed and any(self._heeds(other) for other in self.calls if other.layer.kind in READERS)

    def _decided(self, other: Call, call: Call) -> bool:
        """Whether `other` certainly comes before: the attention layer needs what it makes."""
        needed = {self._root(a) for a in call.arguments if isinstance(a, int)}
        for earlier in reversed(self.calls):
            if {self._root(o) for o in earlier.outputs} & needed:
                needed |= {self._root(a) for a in earlier.arguments if isinstance(a, int)}
        return bool({self._root(o) for o in other.outputs} & needed)


def _returns_its_input(c: LayerContext) -> bool:
    if c.layer.kind == "Activation":
        return c.get("activation", "linear") == "linear"
    return c.layer.kind in SAME_TENSOR


def _made(c: LayerContext, inputs: Sequence[Value]) -> Sequence[Mask]:
    """The masks of a call's outputs."""
    kind = c.layer.kind
    if kind == "Masking":
        made = _any_feature(c, inputs[0])
        return [c.reshape(made, made.shape[:-1])]
    if kind == "Embedding":
        return [not_equal(c, inputs[0], 0.0)] if c.get("mask_zero", False) else []
    masks = c.masks
    if not any(mask is not None for mask in masks):
        return []
    if kind in MERGED:
        return [_merged(c, masks)]
    if kind == "Concatenate":
        return [_concatenated(c, inputs)]
    if kind in RECURRENT:
        return [masks[0]] if c.get("return_sequences", False) else []
    if kind == "Bidirectional":
        config = (c.get("layer") or c.get("forward_layer") or {}).get("config") or {}
        outputs = 1 if c.layer.config.get("merge_mode", "concat") is not None else 2
        return [masks[0]] * outputs if config.get("return_sequences") else []
    if kind in ATTENTION:
        return [masks[0]]
    return [masks[0]] if kind in (HANDED_ON_BY_KERAS_3 if c.layer.keras >= 3 else HANDED_ON) else []


def _merged(c: LayerContext, masks: Sequence[Mask]) -> Mask:
    """Keras 3: steps that count in any input, if all have masks. Keras 2: steps that count in all with masks."""
    known = [mask for mask in masks if mask is not None]
    if len({mask.shape for mask in known}) > 1:
        raise Refused(f"masks of the shapes {[list(mask.shape) for mask in known]}; give all inputs the same steps")
    if c.layer.keras >= 3:
        return either(c, known) if len(known) == len(masks) else None
    made = both(c, known)
    return made if isinstance(made, Value) else None


def _concatenated(c: LayerContext, inputs: Sequence[Value]) -> Mask:
    """Along the features: of the steps that count in any input (Keras 3) or all (Keras 2). Else one after the other."""
    axis, rank = int(c.get("axis", -1)) % inputs[0].rank, inputs[0].rank
    known = [mask for mask in c.masks if mask is not None]
    if any(mask.rank != rank - 1 for mask in known):
        raise Refused(f"masks of the shapes {[list(mask.shape) for mask in known]} for inputs with {rank} dimensions")
    if axis == rank - 1:
        if c.layer.keras >= 3:
            return either(c, known) if len(known) == len(inputs) else None
        made = both(c, known)
        return made if isinstance(made, Value) else None
    parts = [
        np.ones(x.shape[:-1], dtype=np.float32) if mask is None else mask
        for x, mask in zip(inputs, c.masks, strict=True)
    ]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return c.emit("Concat", parts, shape, axis=axis)


def given_masks(c: LayerContext, named: Mapping[str, Sequence[Value | float | np.ndarray | None]]) -> None:
    """Puts masks that a call names in the place of those that its tensors have. `named`: all of `ARGUMENTS`."""
    for name in ("query_mask", "value_mask", "key_mask"):
        if named[name]:
            raise Refused(f"it is called with a {name}; give it an attention_mask instead")
    if named["attention_mask"]:
        (found,) = named["attention_mask"]
        if not isinstance(found, Value | np.ndarray):
            raise Refused("its attention_mask is no tensor")
        constant = isinstance(found, np.ndarray)
        c.attention_mask = (found != 0).astype(np.float32) if constant else as_mask(c, found)
    found = list(named["mask"])
    if not found:
        return
    whole = c.layer.keywords.get("mask")
    places = [entry is not None for entry in whole] if isinstance(whole, list) and _is_list(whole) else [True]
    if sum(places) != len(found) or not all(isinstance(mask, Value) for mask in found):
        raise Refused("its mask is not made of tensors")
    half = c.layer.kind == "Softmax"
    masks = [_above_half(c, mask) if half else as_mask(c, mask) for mask in found if isinstance(mask, Value)]
    given = [masks.pop(0) if there else None for there in places]
    c.masks = tuple([*given, *c.masks[len(given) :]][: max(len(c.masks), len(given))])


def _is_list(mask: Sequence[object]) -> bool:
    """Whether it is a list of masks; Keras 2 has lists as references to a tensor, too."""
    return not (len(mask) >= 3 and isinstance(mask[0], str))
