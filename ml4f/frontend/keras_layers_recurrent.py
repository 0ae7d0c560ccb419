"""Keras's recurrent layers as ONNX LSTM, GRU and RNN, and the wrappers Bidirectional and TimeDistributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RnnOp
from ml4f.frontend.keras_activations import LEAKY_RELU_FUNCTION
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_weights import StoredTensor, WeightStore

GATES = {"LSTM": LstmOp.GATES, "GRU": GruOp.GATES, "SimpleRNN": RnnOp.GATES}
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
"""Keras class → ONNX operator."""
LSTM_ORDER = (0, 3, 1, 2)
"""Keras has the gates i, f, c, o; ONNX has i, o, f, c."""
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "linear": ("Affine", (1.0, 0.0)),
    "relu": ("Relu", ()),
    "leaky_relu": ("LeakyRelu", (LEAKY_RELU_FUNCTION,)),
    "elu": ("Elu", (1.0,)),
    "sigmoid": ("Sigmoid", ()),
    "sparse_sigmoid": ("HardSigmoid", (0.5, 0.5)),
    "tanh": ("Tanh", ()),
    "softplus": ("Softplus", ()),
    "softsign": ("Softsign", ()),
}
"""Keras's name → ONNX's in recurrent operators, alpha and beta."""


@dataclass(frozen=True)
class _Run:
    """What a recurrent layer gives: the sequence [1, steps, units] in the order of the steps, the last states."""

    sequence: Value | None
    states: list[Value]


@dataclass(frozen=True, eq=False)
class _PartOf:
    """A part of a wrapper's weights: a run of its tensors, or, in stores by place, what lies at the part's place."""

    store: WeightStore
    wrapper: Layer
    part: int
    parts: int

    @property
    def by_place(self) -> bool:
        return self.store.by_place

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        if self.by_place:
            return self.store.tensors(layer)
        found = self.store.tensors(self.wrapper)
        size = len(found) // self.parts
        return found[self.part * size : (self.part + 1) * size]


def wrapped(c: LayerContext, key: str, part: int = 0, parts: int = 1) -> LayerContext:
    """The context of a layer inside a wrapper, whose configuration is under `key`; "layer" if there is none."""
    entry = c.get(key) or c.get("layer")
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise Refused(f"its {key} is not in the file")
    place = "layer" if parts == 1 else key
    inner = replace(
        c.layer,
        kind=str(entry.get("class_name")),
        config=entry["config"],
        module=str(entry.get("module") or ""),
        stored=f"{c.layer.stored}/{place}",
    )
    return replace(c, layer=inner, store=_PartOf(c.store, c.layer, part, parts))


def _activation(c: LayerContext, key: str, default: str) -> tuple[str, tuple[float, ...]]:
    name = c.get(key, default)
    if isinstance(name, dict) and isinstance(name.get("config"), str):
        name = name["config"]
    if name == "hard_sigmoid":
        return "HardSigmoid", (1 / 6 if c.layer.keras >= 3 else 0.2, 0.5)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, "hard_sigmoid"}))
        raise Refused(f"its {key} is {str(name)[:80]}; recurrent layers may have {known}")
    return ACTIVATIONS[name]


def _reset_after(c: LayerContext) -> bool:
    """A GRU's bias tells, where it has one: [2, 3 * units] or [3 * units]."""
    stored = c.store.tensors(_cell(c.layer))
    if len(stored) == 3:
        return len(stored[2].shape) == 2
    return bool(c.get("reset_after", True))


def _cell(layer: Layer) -> Layer:
    return replace(layer, stored=f"{layer.stored}/cell")


def _blocks(array: np.ndarray, gates: int, order: Sequence[int]) -> np.ndarray:
    """The last axis, of `gates` blocks, in another order."""
    blocks = np.split(array, gates, axis=-1)
    return np.concatenate([blocks[i] for i in order], axis=-1)


def _run(c: LayerContext, x: Value, states: Sequence[Value], sequence: bool, backwards: bool) -> _Run:
    """One direction; `backwards` reads the last step first."""
    kind = c.layer.kind
    if kind not in GATES:
        raise Refused(f"a {kind[:80]} inside; LSTM, GRU and SimpleRNN are supported")
    if x.rank != 3:
        raise Refused("the input should have two dimensions besides the batch: steps and features")
    if c.get("stateful", False):
        raise Refused("it is stateful; build it with stateful=False: a call of the code gets a whole sequence")
    if c.get("time_major", False):
        raise Refused("its time_major is set; build it with time_major=False")
    gates, units = GATES[kind], c.whole("units")
    steps, features = x.shape[1:]
    order = LSTM_ORDER if kind == "LSTM" else tuple(range(gates))
    reset_after = kind == "GRU" and _reset_after(c)
    width = gates * units
    expected: list[tuple[str, Sequence[int]]] = [("kernel", (features, width)), ("recurrent_kernel", (units, width))]
    if c.get("use_bias", True):
        expected.append(("bias", (2, width) if reset_after else (width,)))
    cell = replace(c, layer=_cell(c.layer))
    kernel, recurrent, *bias = (_blocks(w, gates, order) for w in cell.weights(expected))
    inputs: list[Value | np.ndarray | str] = [
        c.transpose(x, (1, 0, 2)) if steps > 1 else c.reshape(x, (1, 1, features)),
        np.ascontiguousarray(kernel.T)[None],
        np.ascontiguousarray(recurrent.T)[None],
    ]
    inputs += _more_inputs(c, bias, states, kind, width, units)
    names = [_activation(c, "recurrent_activation", "sigmoid")] if kind != "SimpleRNN" else []
    names += [_activation(c, "activation", "tanh")] * (2 if kind == "LSTM" else 1)
    attributes: dict[str, Any] = {"hidden_size": units, "direction": "reverse" if backwards else "forward"}
    attributes["activations"] = [name for name, _ in names]
    attributes["activation_alpha"] = [values[0] for _, values in names if values]
    attributes["activation_beta"] = [values[1] for _, values in names if len(values) > 1]
    if kind == "GRU":
        attributes["linear_before_reset"] = int(reset_after)
    shapes = [(steps, 1, 1, units) if sequence else None, (1, 1, units)]
    shapes += [(1, 1, units)] if kind == "LSTM" else []
    found = c.emit_all(OPERATORS[kind], inputs, shapes, **{k: v for k, v in attributes.items() if v != []})
    whole = c.reshape(found[0], (1, steps, units)) if found[0] is not None else None
    return _Run(whole, [c.reshape(value, (1, units)) for value in found[1:] if value is not None])


def _more_inputs(
    c: LayerContext, bias: Sequence[np.ndarray], states: Sequence[Value], kind: str, width: int, units: int
) -> list[Value | np.ndarray | str]:
    """Bias and initial states, up to the last one that there is."""
    found: list[Value | np.ndarray | str] = [""] * 4
    if bias:
        both = bias[0] if bias[0].ndim == 2 else np.stack([bias[0], np.zeros(width, np.float32)])
        found[0] = both.reshape(1, 2 * width)
    if states:
        wanted = 2 if kind == "LSTM" else 1
        if len(states) != wanted or any(state.shape != (1, units) for state in states):
            raise Refused(
                f"{len(states)} initial states {[list(s.shape) for s in states]} for {wanted} of {units} units"
            )
        found[2 : 2 + wanted] = [c.reshape(state, (1, 1, units)) for state in states]
    while found and isinstance(found[-1], str):
        found.pop()
    return found


def _flipped(c: LayerContext, x: Value) -> Value:
    """[1, steps, units] with the last step first."""
    if x.shape[1] == 1:
        return x
    ends = [np.array([n], dtype=np.int64) for n in (-1, -x.shape[1] - 1, 1, -1)]
    return c.emit("Slice", [x, *ends], x.shape)


def recurrent(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """LSTM, GRU, SimpleRNN: the last output or all of them, then the states if return_state is set."""
    x, *states = inputs
    sequence, backwards = bool(c.get("return_sequences", False)), bool(c.get("go_backwards", False))
    run = _run(c, x, states, sequence, backwards)
    result = run.states[0]
    if run.sequence is not None:
        result = _flipped(c, run.sequence) if backwards else run.sequence
    return [result, *run.states] if c.get("return_state", False) else [result]


MERGES = {"sum": "Add", "mul": "Mul", "ave": "Add"}


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
    half = len(states) // 2
    runs = [
        _run(forward, x, states[:half], sequence, False),
        _run(backward, x, states[half:], sequence, True),
    ]
    first, second = (run.sequence if run.sequence is not None else run.states[0] for run in runs)
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
        outputs += [state for run in runs for state in run.states]
    return outputs


def time_distributed(c: LayerContext, inputs: Sequence[Value]) -> Value:
    """A layer on every step alone. Layers that work along the last axis do all steps at once."""
    from ml4f.frontend.keras_onnx import LAYERS

    (x,) = inputs
    if x.rank < 3:
        raise Refused("the input should have two dimensions besides the batch: steps and features")
    inner = wrapped(c, "layer")
    kind = inner.layer.kind
    if kind in EVERY_STEP_ALIKE:
        return _single(LAYERS[kind](inner, [x]))
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


def _single(made: Value | list[Value]) -> Value:
    if isinstance(made, Value):
        return made
    return made[0]


MAX_STEPS = 64
"""Copies of a layer that TimeDistributed may make."""
EVERY_STEP_ALIKE = ("Dense", "Activation", "LeakyReLU", "ReLU", "ELU", "Dropout", "Rescaling", "Identity")
"""Layers that treat every row of the last axis alike, whatever stands in front of it."""
WRAPPERS = ("Bidirectional", "TimeDistributed")

LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value | list[Value]]] = {
    "LSTM": recurrent,
    "GRU": recurrent,
    "SimpleRNN": recurrent,
    "Bidirectional": bidirectional,
    "TimeDistributed": time_distributed,
}
"""Keras class → translation."""
