"""Draws functional Keras networks: several inputs and outputs, shared layers, attention, recurrence, masks.

A pool of tensors grows by layers that fit some of them; what nobody reads at the end are the outputs. Shapes are those
without a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

MAX_ELEMENTS = 600
"""Of any tensor: keeps emulation short."""
MAX_LAYERS = 9
VOCABULARY = 11
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
ACTIVATIONS = (None, "relu", "tanh", "sigmoid", "elu", "silu", "gelu", "softmax", "relu6", "hard_sigmoid", "mish")


class DoesNotFit(Exception):
    """The layer drawn needs another tensor; draw again."""


class GraphGenerator:
    """Draws one network; `keras` is the module keras, version 3."""

    def __init__(self, keras: Any, rng: np.random.Generator):
        self.keras, self.layers, self.ops, self.rng = keras, keras.layers, keras.ops, rng
        self.pool: list[Any] = []
        self.used: set[int] = set()
        self.inputs: list[Any] = []

    # Random choices

    def draw(self, values: Sequence[Any]) -> Any:
        """One of some values."""
        return values[int(self.rng.integers(len(values)))]

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return bool(self.rng.random() < probability)

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return int(self.rng.integers(low, high + 1))

    def tensor(self, *ranks: int) -> Any:
        """A tensor of the pool of one of these ranks; those that nobody has read are likelier."""
        fitting = [t for t in self.pool if len(t.shape) - 1 in ranks]
        fresh = [t for t in fitting if id(t) not in self.used]
        if fresh and self.chance(0.7):
            fitting = fresh
        if not fitting:
            raise DoesNotFit
        return self.draw(fitting)

    def other(self, tensor: Any, fits: Callable[[Any], bool]) -> Any:
        """Another tensor of the pool that fits; it may be the same one."""
        fitting = [t for t in self.pool if fits(t) and (t is not tensor or self.chance(0.1))]
        if not fitting:
            raise DoesNotFit
        return self.draw(fitting)

    # Networks

    def model(self) -> Any:
        """A model with one to three inputs and one to four outputs."""
        for index in range(self.draw((1, 1, 2, 2, 3))):
            self.input(index)
        wanted, attempts = self.number(2, MAX_LAYERS), 0
        while wanted and attempts < 100:
            attempts += 1
            step = self.draw(self.steps())
            try:
                results = step()
            except (DoesNotFit, ValueError, TypeError, IndexError):
                continue  # Keras names what does not fit by all of these
            results = results if isinstance(results, list | tuple) else [results]
            if all(None not in r.shape[1:] and 0 < prod(r.shape[1:]) <= MAX_ELEMENTS for r in results):
                self.pool += results
                wanted -= 1
        leaves = [t for t in self.pool if id(t) not in self.used and not any(t is i for i in self.inputs)]
        outputs = leaves[-4:] or [self.pool[-1]]
        return self.keras.Model(self.inputs, outputs if len(outputs) > 1 else outputs[0])

    def input(self, index: int) -> None:
        """An input of any rank, or one of indices that an Embedding reads."""
        name = f"in{index}"
        kind = self.draw(("ids", "vector", "sequence", "sequence", "image", "image"))
        if kind == "ids":
            ids = self.keras.Input((self.number(2, 7),), dtype="int32", name=name)
            self.inputs.append(ids)
            self.pool.append(self.layers.Embedding(VOCABULARY, self.number(2, 6), mask_zero=self.chance(0.5))(ids))
            return
        shape: tuple[int, ...] = (self.number(2, 12),)
        if kind == "sequence":
            shape = (self.number(2, 9), self.number(2, 6))
        elif kind == "image":
            shape = (self.number(3, 9), self.number(3, 9), self.number(1, 4))
        same = [tuple(i.shape[1:]) for i in self.inputs if i.dtype == "float32" and len(i.shape) - 1 == len(shape)]
        tensor = self.keras.Input(self.draw(same) if same and self.chance(0.5) else shape, name=name)
        self.inputs.append(tensor)
        self.pool.append(tensor)

    def apply(self, layer: Any, *tensors: Any, **options: Any) -> Any:
        """The result of a layer; its inputs are read now."""
        result = layer(tensors[0] if len(tensors) == 1 else list(tensors), **options)
        self.used |= {id(t) for t in tensors}
        return result

    def steps(self) -> list[Callable[[], Any]]:
        """The kinds of layers, likelier ones several times."""
        return [
            *(self.merge, self.merge, self.merge, self.concatenate, self.concatenate, self.operator, self.broadcast),
            *(self.vector, self.vector, self.sequence, self.sequence, self.image, self.image, self.image),
            *(self.recurrent, self.recurrent, self.attention, self.attention, self.self_attention, self.normalize),
            *(self.reshape, self.shared, self.nested, self.pool_down, self.part, self.operation, self.excite),
            *(self.masked, self.stateful_pair, self.time_distributed, self.dot, self.constant),
        ]

    # Several tensors

    def merge(self) -> Any:
        a = self.tensor(1, 2, 3)
        b = self.other(a, lambda t: t.shape == a.shape)
        name = self.draw(MERGES)
        tensors = [a, b]
        if name not in ("Subtract",) and self.chance(0.2):
            tensors.append(self.other(b, lambda t: t.shape == a.shape))
        return self.apply(getattr(self.layers, name)(), *tensors)

    def operator(self) -> Any:
        a = self.tensor(1, 2, 3)
        b = self.other(a, lambda t: t.shape == a.shape)
        self.used |= {id(a), id(b)}
        kind = self.number(0, 5)
        if kind < 3:
            return (a + b, a - b, a * b)[kind]
        return (self.ops.maximum(a, b), a / (1.5 + self.ops.abs(b)), 0.5 - a)[kind - 3]

    def broadcast(self) -> Any:
        a = self.tensor(2, 3)
        b = self.other(a, lambda t: len(t.shape) == 2 and t.shape[-1] == a.shape[-1])
        shaped = self.layers.Reshape((*(1,) * (len(a.shape) - 2), a.shape[-1]))(b)
        self.used |= {id(a), id(b)}
        return self.draw((lambda: a + shaped, lambda: shaped * a, lambda: self.layers.Multiply()([a, shaped])))()

    def concatenate(self) -> Any:
        a = self.tensor(1, 2, 3)
        axis = self.number(1, len(a.shape) - 1)

        def fits(t: Any) -> bool:
            return len(t.shape) == len(a.shape) and all(
                p == q for i, (p, q) in enumerate(zip(t.shape, a.shape, strict=True)) if i != axis
            )

        tensors = [a] + [self.other(a, fits) for _ in range(self.number(1, 2))]
        return self.apply(self.layers.Concatenate(axis=axis if self.chance(0.5) else axis - len(a.shape)), *tensors)

    def dot(self) -> Any:
        a = self.tensor(1, 2)
        b = self.other(a, lambda t: len(t.shape) == len(a.shape) and t.shape[-1] == a.shape[-1])
        return self.apply(self.layers.Dot(axes=-1, normalize=self.chance(0.3)), a, b)

    def attention(self) -> Any:
        a = self.tensor(2)
        b = self.other(a, lambda t: len(t.shape) == 3 and t.shape[-1] == a.shape[-1])
        kind = self.number(0, 4)
        if kind == 0:
            layer = self.layers.Attention(use_scale=self.chance(0.5), score_mode=self.draw(("dot", "concat")))
            return self.apply(layer, a, b)
        if kind == 1:
            return self.apply(self.layers.AdditiveAttention(use_scale=self.chance(0.5)), a, b)
        self.used |= {id(a), id(b)}
        if kind == 2:
            layer = self.layers.GroupQueryAttention(self.number(1, 3), self.draw((2, 4)), self.draw((1, 2)))
            return layer(a, b)
        return self.layers.MultiHeadAttention(self.number(1, 3), self.number(1, 4))(a, b)

    def self_attention(self) -> Any:
        a = self.tensor(2)
        self.used.add(id(a))
        layer = self.layers.MultiHeadAttention(self.number(1, 3), self.number(1, 4), use_bias=self.chance(0.7))
        options: dict[str, Any] = {"use_causal_mask": True} if self.chance(0.4) else {}
        if self.chance(0.2):
            length = a.shape[1]
            options["attention_mask"] = self.ops.convert_to_tensor(np.tril(np.ones((1, length, length), bool)))
        return layer(a, a, **options)

    def shared(self) -> Any:
        a = self.tensor(1, 2, 3)
        b = self.other(a, lambda t: t.shape == a.shape)
        layer = self.layers.Dense(self.number(1, 6), activation=self.draw(ACTIVATIONS))
        if len(a.shape) == 3 and self.chance(0.5):
            layer = self.layers.GRU(self.number(2, 4))
        if len(a.shape) == 4:
            layer = self.layers.Conv2D(self.number(1, 5), self.number(1, 3), activation=self.draw(ACTIVATIONS))
        return [self.apply(layer, a), self.apply(layer, b)]

    def nested(self) -> Any:
        a = self.tensor(1, 2)
        inner = self.keras.Input(a.shape[1:])
        x = self.layers.Dense(self.number(2, 5), activation="relu")(inner)
        x = self.layers.BatchNormalization()(x)
        y = self.layers.Dense(a.shape[-1])(x)
        model = self.keras.Model(inner, self.layers.Add()([y, inner]) if self.chance(0.5) else [x, y])
        first = self.apply(model, a)
        if self.chance(0.5):
            second = self.apply(model, self.other(a, lambda t: t.shape == a.shape))
            return [
                *(first if isinstance(first, list) else [first]),
                *(second if isinstance(second, list) else [second]),
            ]
        return first

    # One tensor

    def vector(self) -> Any:
        a = self.tensor(1)
        units = self.number(1, 9)
        return self.apply(self.layers.Dense(units, self.draw(ACTIVATIONS), use_bias=self.chance(0.8)), a)

    def sequence(self) -> Any:
        a, layers = self.tensor(2), self.layers
        size, stride, n = self.number(1, 4), self.number(1, 2), self.number(1, 6)
        padding, activation = self.draw(("same", "valid")), self.draw(ACTIVATIONS)
        options = {"strides": stride, "padding": padding, "activation": activation}
        return self.apply(
            self.draw(
                (
                    lambda: layers.Conv1D(n, size, **options),
                    lambda: layers.Conv1D(n, size, padding="causal", dilation_rate=self.number(1, 2)),
                    lambda: layers.SeparableConv1D(n, size, **options),
                    lambda: layers.DepthwiseConv1D(size, depth_multiplier=self.number(1, 2), **options),
                    lambda: layers.Conv1DTranspose(n, size, **options),
                    lambda: layers.MaxPooling1D(size, stride, padding),
                    lambda: layers.AveragePooling1D(size, stride, padding),
                    lambda: layers.UpSampling1D(2),
                    lambda: layers.ZeroPadding1D((0, 2)),
                    lambda: layers.Cropping1D((1, 0)),
                    lambda: layers.Dense(n, activation),
                    lambda: layers.PReLU(shared_axes=[1]),
                    lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, n), bias_axes="d"),
                )
            )(),
            a,
        )

    def image(self) -> Any:
        a, layers = self.tensor(3), self.layers
        size, stride, n = self.number(1, 3), self.number(1, 2), self.number(1, 5)
        padding, activation = self.draw(("same", "valid")), self.draw(ACTIVATIONS)
        options = {"strides": stride, "padding": padding, "activation": activation}
        return self.apply(
            self.draw(
                (
                    lambda: layers.Conv2D(n, (size, self.number(1, 3)), **options),
                    lambda: layers.Conv2D(n, size, **options),
                    lambda: layers.Conv2D(a.shape[-1] * 2, size, groups=a.shape[-1], padding=padding),
                    lambda: layers.SeparableConv2D(n, size, **options),
                    lambda: layers.DepthwiseConv2D(size, depth_multiplier=self.number(1, 2), **options),
                    lambda: layers.Conv2DTranspose(n, size, **options),
                    lambda: layers.MaxPooling2D(size, stride, padding),
                    lambda: layers.AveragePooling2D(size, stride, padding),
                    lambda: layers.UpSampling2D(2, interpolation=self.draw(("nearest", "bilinear"))),
                    lambda: layers.ZeroPadding2D(((0, 1), (2, 0))),
                    lambda: layers.Cropping2D(((1, 0), (0, 1))),
                    lambda: layers.PReLU(shared_axes=[1, 2]),
                    lambda: layers.Dense(n, activation),
                )
            )(),
            a,
        )

    def pool_down(self) -> Any:
        a = self.tensor(2, 3)
        kind = self.draw(("GlobalAveragePooling", "GlobalMaxPooling"))
        return self.apply(getattr(self.layers, f"{kind}{len(a.shape) - 2}D")(keepdims=self.chance(0.3)), a)

    def recurrent(self) -> Any:
        a, layers = self.tensor(2), self.layers
        units, backwards = self.number(1, 5), self.chance(0.25)
        sequences = self.chance(0.5)
        kind = self.draw((layers.LSTM, layers.GRU, layers.SimpleRNN))
        if self.chance(0.2):
            cell = self.draw((layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell))(units)
            return self.apply(layers.RNN(cell, return_sequences=sequences), a)
        if self.chance(0.3):
            mode = self.draw(("concat", "sum", "mul", "ave"))
            return self.apply(layers.Bidirectional(kind(units, return_sequences=sequences), merge_mode=mode), a)
        return self.apply(kind(units, return_sequences=sequences, go_backwards=backwards), a)

    def stateful_pair(self) -> Any:
        """An encoder's final state is a decoder's first."""
        a = self.tensor(2)
        b = self.other(a, lambda t: len(t.shape) == 3)
        units, lstm = self.number(1, 4), self.chance(0.5)
        kind = self.layers.LSTM if lstm else self.layers.GRU
        self.used |= {id(a), id(b)}
        result, *states = kind(units, return_state=True)(a)
        decoded = kind(units, return_sequences=self.chance(0.5))(b, initial_state=states if lstm else states[0])
        return [decoded, result] if self.chance(0.3) else decoded

    def time_distributed(self) -> Any:
        a = self.tensor(2, 3)
        inner = self.layers.Dense(self.number(1, 5), self.draw(ACTIVATIONS))
        if len(a.shape) == 4 and self.chance(0.6):
            inner = self.layers.Conv1D(self.number(1, 4), 2, padding="same")
        return self.apply(self.layers.TimeDistributed(inner), a)

    def masked(self) -> Any:
        """Padded steps are left out by what follows."""
        a = self.tensor(2)
        self.used.add(id(a))
        x = self.layers.Masking(mask_value=0.0)(self.ops.relu(a) if self.chance(0.5) else a)
        if self.chance(0.5):
            return self.layers.LSTM(self.number(1, 4), return_sequences=self.chance(0.4))(x)
        return self.layers.GlobalAveragePooling1D()(x)

    def normalize(self) -> Any:
        a, layers = self.tensor(1, 2, 3), self.layers
        channels = a.shape[-1]
        return self.apply(
            self.draw(
                (
                    lambda: layers.BatchNormalization(),
                    lambda: layers.LayerNormalization(),
                    lambda: layers.UnitNormalization(),
                    lambda: layers.RMSNormalization(),
                    lambda: layers.GroupNormalization(self.draw([g for g in (1, 2, 3, channels) if channels % g == 0])),
                    lambda: layers.Rescaling(0.5, offset=-0.1),
                    lambda: layers.Activation(self.draw(ACTIVATIONS[1:])),
                    lambda: layers.Softmax(axis=self.number(1, len(a.shape) - 1)),
                    lambda: layers.LeakyReLU(),
                )
            )(),
            a,
        )

    def reshape(self) -> Any:
        a = self.tensor(1, 2, 3)
        rank, shape = len(a.shape) - 1, tuple(a.shape[1:])
        kind = self.number(0, 3)
        if kind == 0:
            return self.apply(self.layers.Flatten(), a)
        if kind == 1 and rank > 1:
            return self.apply(self.layers.Permute(tuple(int(i) + 1 for i in self.rng.permutation(rank))), a)
        if kind == 2 and rank == 1:
            return self.apply(self.layers.RepeatVector(self.number(1, 4)), a)
        if rank == 3:
            return self.apply(self.layers.Reshape((shape[0], -1)), a)
        return self.apply(self.layers.Reshape((*shape, 1) if rank < 3 else (prod(shape),)), a)

    def part(self) -> Any:
        a = self.tensor(2, 3)
        self.used.add(id(a))
        kind = self.number(0, 3)
        if kind == 0:
            return a[:, 1:]
        if kind == 1:
            return a[:, ::2]
        if kind == 2:
            return a[:, -1]
        return self.ops.split(a, 2, axis=-1) if a.shape[-1] % 2 == 0 else a[..., :1]

    def operation(self) -> Any:
        a, ops = self.tensor(1, 2, 3), self.ops
        self.used.add(id(a))
        axis = self.number(1, len(a.shape) - 1)
        return self.draw(
            (
                lambda: ops.relu(a),
                lambda: ops.square(a) - 1.0,
                lambda: ops.mean(a, axis=axis, keepdims=True),
                lambda: ops.max(a, axis=axis, keepdims=True) - a,
                lambda: ops.softmax(a, axis=axis),
                lambda: ops.clip(a, -0.5, 0.5),
                lambda: ops.where(a > 0, a, 0.1 * a),
                lambda: ops.sqrt(ops.abs(a) + 0.1),
                lambda: ops.log1p(ops.abs(a)),
                lambda: ops.sum(a * a, axis=axis, keepdims=True),
                lambda: ops.flip(a, axis=axis),
                lambda: ops.roll(a, 1, axis=axis),
                lambda: ops.cumsum(a, axis=axis),
                lambda: ops.sin(a),
                lambda: ops.repeat(a, 2, axis=axis),
                lambda: ops.stack([a, -a], axis=axis) if len(a.shape) < 4 else ops.tanh(a),
                lambda: ops.pad(a, [(0, 0), (1, 0), *([(0, 1)] * (len(a.shape) - 2))]),
            )
        )()

    def constant(self) -> Any:
        a = self.tensor(1, 2, 3)
        self.used.add(id(a))
        shape = tuple(int(n) if self.chance(0.6) else 1 for n in a.shape[1:])
        values = self.ops.convert_to_tensor(self.rng.standard_normal((1, *shape)).astype(np.float32))
        return a * values if self.chance(0.5) else values - a

    def excite(self) -> Any:
        """Squeeze and excitation."""
        a = self.tensor(3)
        channels = a.shape[-1]
        x = self.layers.GlobalAveragePooling2D(keepdims=True)(a)
        x = self.layers.Conv2D(max(channels // 2, 1), 1, activation="relu")(x)
        x = self.layers.Conv2D(channels, 1, activation=self.draw(("sigmoid", "hard_sigmoid")))(x)
        return self.apply(self.layers.Multiply(), a, x)
