"""Keras's ConvLSTM1D and ConvLSTM2D: LSTMs whose products are convolutions, a copy of the nodes for each step.

The steps have equal nests and one set of weights, so that the compiler makes one set of kernels, called for every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ml4f.frontend.keras_activations import apply_activation
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_layers_conv import filters_first, window_extents, window_pads
from ml4f.frontend.keras_masks import sequence_mask

MAX_STEPS = 64
"""Copies of the nodes: each is a few calls in the code."""


def conv_lstm(rank: int) -> Callable[[LayerContext, Sequence[Value]], list[Value]]:
    """With `rank` dimensions besides steps and channels."""

    def translate(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
        x, *states = inputs
        if x.rank != rank + 3:
            raise Refused(f"the input should have {rank + 2} dimensions besides the batch: steps, places and channels")
        if c.get("stateful", False):
            raise Refused("it is stateful; build it with stateful=False: a call of the code gets a whole sequence")
        if sequence_mask(c, states) is not None:
            raise Refused("steps of its input are masked; give every sequence its full length")
        if x.shape[1] > MAX_STEPS:
            raise Refused(f"{x.shape[1]} steps; up to {MAX_STEPS} are supported")
        return _ConvLstm(c, x.shape, rank).run(x, states)

    return translate


class _ConvLstm:
    def __init__(self, c: LayerContext, shape: Sequence[int], rank: int):
        self.c = c
        self.rank = rank
        self.first = c.channels_first()
        self.filters, self.window = c.whole("filters"), c.sizes("kernel_size", rank)
        self.channels = shape[2] if self.first else shape[-1]
        width = 4 * self.filters
        expected = [
            ("kernel", (*self.window, self.channels, width)),
            ("recurrent_kernel", (*self.window, self.filters, width)),
        ]
        expected += [("bias", (width,))] if c.get("use_bias", True) else []
        cell = replace(c, layer=replace(c.layer, stored=f"{c.layer.stored}/cell"))
        kernel, recurrent, *bias = cell.weights(expected)
        self.kernel = [c.constant(filters_first(kernel)), *(c.constant(b) for b in bias)]
        self.recurrent = [c.constant(filters_first(recurrent))]

    def run(self, x: Value, states: Sequence[Value]) -> list[Value]:
        """The last output or all of them, then the states if return_state is set."""
        c, steps = self.c, x.shape[1]
        h, memory = (c.to_channels_first(state, self.first) for state in states) if states else (None, None)
        backwards = bool(c.get("go_backwards", False))
        rows: list[Value] = []
        for index in reversed(range(steps)) if backwards else range(steps):
            ends = [np.array([n], dtype=np.int64) for n in (index, index + 1, 1)]
            row = c.emit("Slice", [x, *ends], (1, 1, *x.shape[2:])) if steps > 1 else x
            h, memory = self.step(c.to_channels_first(c.reshape(row, (1, *x.shape[2:])), self.first), h, memory)
            rows.append(c.from_channels_first(h, self.first))
        assert h is not None and memory is not None
        result = rows[-1]
        if c.get("return_sequences", False):
            parts = [c.reshape(row, (1, 1, *row.shape[1:])) for row in rows]
            result = parts[0]
            if steps > 1:
                result = c.emit("Concat", parts, (1, steps, *parts[0].shape[2:]), axis=1)
        if not c.get("return_state", False):
            return [result]
        return [result, rows[-1], c.from_channels_first(memory, self.first)]

    def step(self, x: Value, h: Value | None, memory: Value | None) -> tuple[Value, Value]:
        """The next state and memory, [1, filters, …]; None for zeros."""
        c = self.c
        strides, dilations = c.sizes("strides", self.rank, 1), c.sizes("dilation_rate", self.rank, 1)
        total = self.convolve(x, self.kernel, c.get("padding", "valid"), strides, dilations)
        if h is not None:
            ones = (1,) * self.rank
            total = c.binary("Add", total, self.convolve(h, self.recurrent, "same", ones, ones))
        entry, forget, new, exit_ = (self.gate(total, number) for number in range(4))
        gates = c.get("recurrent_activation", "sigmoid")
        activation = c.get("activation", "tanh")
        kept = c.binary("Mul", apply_activation(c, entry, gates), apply_activation(c, new, activation))
        if memory is not None:
            kept = c.binary("Add", c.binary("Mul", apply_activation(c, forget, gates), memory), kept)
        return c.binary("Mul", apply_activation(c, exit_, gates), apply_activation(c, kept, activation)), kept

    def gate(self, total: Value, number: int) -> Value:
        """Its channels; Keras has the gates i, f, c, o."""
        ends = [np.array([n], dtype=np.int64) for n in (number * self.filters, (number + 1) * self.filters, 1)]
        return self.c.emit("Slice", [total, *ends], (1, self.filters, *total.shape[2:]))

    def convolve(
        self, x: Value, weights: Sequence[Value], padding: object, strides: Sequence[int], dilations: Sequence[int]
    ) -> Value:
        """Of all gates at once."""
        pads = window_pads(padding, x.shape[2:], self.window, strides, dilations)
        extents = window_extents(x.shape[2:], self.window, strides, dilations, pads)
        return self.c.emit(
            "Conv",
            [x, *weights],
            (1, 4 * self.filters, *extents),
            kernel_shape=list(self.window),
            strides=list(strides),
            dilations=list(dilations),
            pads=pads,
        )


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], list[Value]]] = {
    "ConvLSTM1D": conv_lstm(1),
    "ConvLSTM2D": conv_lstm(2),
}
"""Keras class → translation."""
