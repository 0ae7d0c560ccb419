"""Keras layers around other layers: Bidirectional, TimeDistributed and SpectralNormalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import MODEL_CLASSES
from ml4f.frontend.keras_layers_recurrent import PartOf, inner_context, run
from ml4f.frontend.keras_masks import READERS, sequence_mask

MERGES = {"sum": "Add", "mul": "Mul", "ave": "Add"}


def wrapped(c: LayerContext, key: str, part: int = 0, parts: int = 1) -> LayerContext:
    """The context of a layer inside a wrapper, whose configuration is under `key`; "layer" if there is none."""
    inner = inner_context(c, c.get(key) or c.get("layer"), key, "layer" if parts == 1 else key)
    size = 0 if c.store.by_place else len(c.store.tensors(c.layer)) // parts
    return replace(inner, store=PartOf(c.store, c.layer, part * size, size))


def bidirectional(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """Both directions, and their outputs side by side, added, multiplied or averaged."""
    x, *states = inputs
    forward = wrapped(c, "forward_layer", 0, 2)
    backward = wrapped(c, "backward_layer", 1, 2)
    if forward.layer.kind == "Bidirectional" or len(states) % 2:
        raise Refused("its layer or its initial states make no sense")
    sequence = bool(forward.get("return_sequences", False))
    if forward.get("go_backwards", False):
        raise Refused("its forward layer goes backwards; swap the layers")
    if c.get("backward_layer") and not backward.get("go_backwards", False):
        raise Refused("its backward layer goes forwards")
    if c.layer.keras < 3:  # whose Bidirectional decides this for its layers
        forward, backward = (_with_zeros(inner, sequence) for inner in (forward, backward))
    half, mask = len(states) // 2, sequence_mask(c, states)
    runs = [
        run(forward, x, states[:half], sequence, False, mask),
        run(backward, x, states[half:], sequence, True, mask),
    ]
    first, second = (made.sequence if made.sequence is not None else made.last for made in runs)
    mode = c.layer.config.get("merge_mode", "concat")
    if mode is None:
        outputs = [first, second]
    elif mode == "concat":
        shape = (*first.shape[:-1], first.shape[-1] + second.shape[-1])
        outputs = [c.emit("Concat", [first, second], shape, axis=first.rank - 1)]
    elif mode in MERGES and first.shape == second.shape:
        merged = c.binary(MERGES[mode], first, second)
        outputs = [c.binary("Mul", merged, 0.5) if mode == "ave" else merged]
    else:
        raise Refused(f"its merge_mode is {str(mode)[:80]}; concat, sum, mul, ave and null are supported")
    if forward.get("return_state", False):
        outputs += [state for made in runs for state in made.states]
    return outputs


def _with_zeros(c: LayerContext, zeros: bool) -> LayerContext:
    config = {**c.layer.config, "zero_output_for_mask": zeros}
    return replace(c, layer=replace(c.layer, config=config))


def time_distributed(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """A layer on every step alone. Layers that work along the last axis do all steps at once."""
    from ml4f.frontend.keras_onnx import LAYERS

    (x,) = inputs
    if x.rank < 3:
        raise Refused("the input should have two dimensions besides the batch: steps and features")
    inner = wrapped(c, "layer")
    kind = inner.layer.kind
    if (c.mask is not None and kind in READERS) or kind == "Masking" or inner.get("mask_zero", False):
        raise Refused(f"a {kind} with a mask inside; put the mask in front of TimeDistributed")
    if kind in EVERY_STEP_ALIKE:
        return _single(LAYERS[kind](inner, [x]))
    if kind in MODEL_CLASSES:
        raise Refused(
            f"a whole model ({kind}) inside; put each of the model's layers into a TimeDistributed of its own"
        )
    if kind not in LAYERS or kind in WRAPPERS:
        raise Refused(f"a {kind[:80]} inside; take a layer that is supported without TimeDistributed")
    if x.shape[1] > MAX_STEPS:
        raise Refused(f"a {kind} on {x.shape[1]} steps; up to {MAX_STEPS} are supported, as each has code of its own")
    results: list[Value] = []
    for step in range(x.shape[1]):
        numbers = [np.array([n], dtype=np.int64) for n in (step, step + 1, 1)]
        row = c.emit("Slice", [x, *numbers], (1, 1, *x.shape[2:])) if x.shape[1] > 1 else x
        made = _single(LAYERS[kind](inner, [c.reshape(row, (1, *x.shape[2:]))]))
        results.append(c.reshape(made, (1, 1, *made.shape[1:])))
    if len(results) == 1:
        return results[0]
    return c.emit("Concat", results, (1, len(results), *results[0].shape[2:]), axis=1)


def spectral_normalization(c: LayerContext, inputs: Sequence[Value]) -> Value | list[Value]:
    """The layer inside: its kernel is normalised in training, and is stored so."""
    from ml4f.frontend.keras_onnx import LAYERS

    inner = inner_context(c, c.get("layer"), "layer", "layer")
    kind = inner.layer.kind
    if kind not in ("Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Embedding"):
        raise Refused(f"a {kind[:80]} inside; a dense layer, a convolution or an embedding is supported")
    if c.layer.keras < 3:
        raise Refused("of Keras 2; take the layer out of it, with its weights")
    count = 2 if inner.get("use_bias", kind != "Embedding") else 1
    stored = c.store.tensors(c.layer)
    first = next((i for i, tensor in enumerate(stored) if "vector_u" not in tensor.name), 0)
    return LAYERS[kind](replace(inner, store=PartOf(c.store, c.layer, first, count)), inputs)


def _single(made: Value | list[Value]) -> Value:
    if isinstance(made, Value):
        return made
    return made[0]


MAX_STEPS = 64
"""Copies of a layer that TimeDistributed may make."""
EVERY_STEP_ALIKE = ("Dense", "Activation", "LeakyReLU", "ReLU", "ELU", "Dropout", "Rescaling", "Identity")
"""Layers that treat every row of the last axis alike, whatever stands in front of it."""
WRAPPERS = ("Bidirectional", "SpectralNormalization", "TimeDistributed")

LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value | list[Value]]] = {
    "Bidirectional": bidirectional,
    "SpectralNormalization": spectral_normalization,
    "TimeDistributed": time_distributed,
}
"""Keras class → translation."""
