"""Keras's recurrent layers, LSTM, GRU, SimpleRNN and RNN of their cells, as ONNX LSTM, GRU and RNN.

Steps that a mask hides are left out: the others are moved to the front (a Gather), the layer runs over them, and each
step gets the output of the last step that counted (another Gather), as Keras carries states over hidden steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RnnOp
from ml4f.frontend.keras_activations import LEAKY_RELU_FUNCTION
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import Layer, snake_case
from ml4f.frontend.keras_masks import sequence_mask
from ml4f.frontend.keras_weights import StoredTensor, WeightStore

GATES = {"LSTM": LstmOp.GATES, "GRU": GruOp.GATES, "SimpleRNN": RnnOp.GATES}
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
"""Keras class → ONNX operator."""
STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}
CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
"""Class of a cell → class of the layer that has it."""
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
HELD = 1000.0
"""Added to what a gate sees, it is wholly open or shut: a sigmoid is 1 or 0 in float32 from 104 on."""
MASK_ROWS = 32
"""Steps whose places among those that count are found at once: bounds the memory that takes."""


@dataclass(frozen=True)
class Run:
    """What a recurrent layer gives: the sequence [1, steps, units] in the order of the steps, the last states."""

    sequence: Value | None
    last: Value
    """The last output, [1, units]."""
    states: list[Value]


@dataclass(frozen=True, eq=False)
class PartOf:
    """A run of a layer's weights, or, in stores by place, what lies at the part's place."""

    store: WeightStore
    whole: Layer
    start: int
    count: int

    @property
    def by_place(self) -> bool:
        """As the store."""
        return self.store.by_place

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        """Those of the part."""
        if self.by_place:
            return self.store.tensors(layer)
        return self.store.tensors(self.whole)[self.start : self.start + self.count]


def inner_context(c: LayerContext, entry: Any, key: str, place: str) -> LayerContext:
    """The context of a layer that is stored in another one's configuration; it has no masks."""
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise Refused(f"its {key} is not in the file")
    inner = replace(
        c.layer,
        kind=str(entry.get("class_name")),
        config=entry["config"],
        module=str(entry.get("module") or ""),
        stored=f"{c.layer.stored}/{place}",
    )
    return replace(c, layer=inner, masks=(), names=())


def cells_of(c: LayerContext) -> list[LayerContext]:
    """The cells of a recurrent layer, each with the class of a layer with one cell; one behind the other."""
    kind = c.layer.kind
    if kind in GATES:
        return [replace(c, layer=replace(c.layer, stored=f"{c.layer.stored}/cell"))]
    if kind != "RNN":
        raise Refused(f"a {kind[:80]} inside; LSTM, GRU, SimpleRNN and RNN are supported")
    outer = inner_context(c, c.get("cell"), "cell", "cell")
    if outer.layer.kind != "StackedRNNCells":
        return [_as_layer(outer)]
    if outer.get("reverse_state_order", False):
        raise Refused("its reverse_state_order is set; build it without")
    entries = outer.get("cells", [])
    found: list[LayerContext] = []
    counts: dict[str, int] = {}
    start = 0
    for entry in entries:
        base = snake_case(str(entry.get("class_name")))
        number = counts[base] = counts.get(base, -1) + 1
        cell = _as_layer(inner_context(outer, entry, "cells", f"cells/{base}" + (f"_{number}" if number else "")))
        count = 3 if cell.get("use_bias", True) else 2
        found.append(replace(cell, store=PartOf(c.store, c.layer, start, count)))
        start += count
    if not found:
        raise Refused("it has no cells")
    return found


def _as_layer(cell: LayerContext) -> LayerContext:
    kind = cell.layer.kind
    if kind not in CELLS:
        raise Refused(f"its cell is a {kind[:80]}; {', '.join(CELLS)} and StackedRNNCells of them are supported")
    return replace(cell, layer=replace(cell.layer, kind=CELLS[kind]))


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
    stored = c.store.tensors(c.layer)
    if len(stored) == 3:
        return len(stored[2].shape) == 2
    return bool(c.get("reset_after", True))


def _blocks(array: np.ndarray, gates: int, order: Sequence[int]) -> np.ndarray:
    """The last axis, of `gates` blocks, in another order."""
    blocks = np.split(array, gates, axis=-1)
    return np.concatenate([blocks[i] for i in order], axis=-1)


def run(c: LayerContext, x: Value, states: Sequence[Value], sequence: bool, backwards: bool, mask: Value | None) -> Run:
    """All cells of a layer in one direction; `backwards` reads the last step first."""
    if x.rank != 3:
        raise Refused("the input should have two dimensions besides the batch: steps and features")
    if c.get("stateful", False):
        raise Refused("it is stateful; build it with stateful=False: a call of the code gets a whole sequence")
    if c.get("time_major", False):
        raise Refused("its time_major is set; build it with time_major=False")
    cells = cells_of(c)
    wanted = [STATES[cell.layer.kind] for cell in cells]
    if states and len(states) != sum(wanted):
        raise Refused(f"{len(states)} initial states {[list(s.shape) for s in states]} for {sum(wanted)}")
    given = [list(states[sum(wanted[:i]) : sum(wanted[: i + 1])]) for i in range(len(cells))]
    if mask is not None:
        return _masked(c, cells, x, mask, given, sequence, backwards)
    found: list[Value] = []
    for number, (cell, initial) in enumerate(zip(cells, given, strict=True)):
        rows, ends = _run_cell(cell, x, initial, sequence or number + 1 < len(cells), backwards)
        x = x if rows is None else rows
        found += ends
        last = ends[0]
    return Run(x if sequence else None, last, found)


def _masked(
    c: LayerContext,
    cells: Sequence[LayerContext],
    x: Value,
    mask: Value,
    given: Sequence[Sequence[Value]],
    sequence: bool,
    backwards: bool,
) -> Run:
    """Over the steps that count alone. `backwards` is a matter of the order in which they are read."""
    steps = x.shape[1]
    if mask.shape != (1, steps):
        raise Refused(f"a mask {list(mask.shape)} for {steps} steps")
    if backwards:
        x, mask = flipped(c, x), flipped(c, mask)
    seen = c.reshape(mask, (steps,))
    count = c.emit("CumSum", [seen, np.asarray(0, dtype=np.int64)], (steps,)) if steps > 1 else seen
    x = c.emit("Gather", [x, _places(c, count)], x.shape, axis=1)
    # behind the steps that count, 1: there the memory of an LSTM is held
    numbers = np.arange(1, steps + 1, dtype=np.float32)
    total = _part(c, count, steps - 1)
    behind = c.emit("Cast", [c.emit("Less", [total, numbers], (steps,))], (steps,), to=onnx.TensorProto.FLOAT)
    keeps = bool(c.get("return_state", False))
    found: list[Value] = []
    for cell, initial in zip(cells, given, strict=True):
        held = c.reshape(behind, (1, steps, 1)) if keeps and cell.layer.kind == "LSTM" else None
        rows, ends = _run_cell(cell, x, initial, True, False, held)
        assert rows is not None
        x = rows
        if keeps:
            found += [c.reshape(_row(c, rows, initial[0] if initial else None, total), (1, rows.shape[2])), *ends[1:]]
    last = c.reshape(_row(c, x, None, total), (1, x.shape[2]))
    zero = _zeroes(c)
    if zero:
        last = c.binary("Mul", last, _part(c, seen, steps - 1))
    if not sequence:
        return Run(None, last, found)
    whole = _row(c, x, None, count)
    whole = c.binary("Mul", whole, c.reshape(seen, (1, steps, 1))) if zero else whole
    return Run(flipped(c, whole) if backwards else whole, last, found)


def _zeroes(c: LayerContext) -> bool:
    """Whether outputs of hidden steps are zero."""
    return bool(c.get("zero_output_for_mask", False))


def _part(c: LayerContext, x: Value, index: int) -> Value:
    """One element of a vector, as a vector."""
    if x.shape == (1,):
        return x
    ends = [np.array([n], dtype=np.int64) for n in (index, index + 1)]
    return c.emit("Slice", [x, *ends], (1,))


def _row(c: LayerContext, rows: Value, first: Value | None, numbers: Value) -> Value:
    """Behind so many steps that count: the rows [1, steps, units] by `numbers`; `first` behind none, else zeros."""
    units = rows.shape[2]
    front = np.zeros((1, 1, units), np.float32) if first is None else c.reshape(first, (1, 1, units))
    table = c.emit("Concat", [front, rows], (1, rows.shape[1] + 1, units), axis=1)
    index = c.emit("Cast", [numbers], numbers.shape, to=onnx.TensorProto.INT64)
    return c.emit("Gather", [table, index], (1, *numbers.shape, units), axis=1)


def _places(c: LayerContext, count: Value) -> Value:
    """Where the first, second, … step that counts stands: behind as many steps as have counted less than that."""
    (steps,) = count.shape
    row = c.reshape(count, (1, steps))
    parts = []
    for start in range(0, steps, MASK_ROWS):
        numbers = np.arange(start + 1, min(start + MASK_ROWS, steps) + 1, dtype=np.float32)[:, None]
        fewer = c.emit("Less", [row, numbers], (len(numbers), steps))
        fewer = c.emit("Cast", [fewer], fewer.shape, to=onnx.TensorProto.FLOAT)
        parts.append(c.emit("ReduceSum", [fewer, np.array([1], dtype=np.int64)], (len(numbers),), keepdims=0))
    made = parts[0] if len(parts) == 1 else c.emit("Concat", parts, (steps,), axis=0)
    made = c.binary("Min", made, float(steps - 1))
    return c.emit("Cast", [made], (steps,), to=onnx.TensorProto.INT64)


def _run_cell(
    c: LayerContext,
    x: Value,
    states: Sequence[Value],
    sequence: bool,
    backwards: bool,
    held: Value | None = None,
) -> tuple[Value | None, list[Value]]:
    """One cell: rows of all steps, if they are wanted, and the last states. `held` [1, steps, 1]: LSTMs keep c at 1."""
    kind = c.layer.kind
    gates, units = GATES[kind], c.whole("units")
    steps, features = x.shape[1:]
    order = LSTM_ORDER if kind == "LSTM" else tuple(range(gates))
    reset_after = kind == "GRU" and _reset_after(c)
    width = gates * units
    expected: list[tuple[str, Sequence[int]]] = [("kernel", (features, width)), ("recurrent_kernel", (units, width))]
    if c.get("use_bias", True):
        expected.append(("bias", (2, width) if reset_after else (width,)))
    kernel, recurrent, *bias = (_blocks(w, gates, order) for w in c.weights(expected))
    names = [_activation(c, "recurrent_activation", "sigmoid")] if kind != "SimpleRNN" else []
    if held is not None:
        if names[0][0] not in ("Sigmoid", "HardSigmoid"):
            raise Refused("its state is returned behind a mask; that needs gates with sigmoid or hard_sigmoid")
        x = c.emit("Concat", [x, held], (1, steps, features + 1), axis=2)
        features += 1
        gate = np.repeat(np.array([-HELD, 0.0, HELD, 0.0], np.float32), units)  # input, output, forget, cell
        kernel = np.concatenate([kernel, gate[None]])
    inputs: list[Value | np.ndarray | str] = [
        c.transpose(x, (1, 0, 2)) if steps > 1 else c.reshape(x, (1, 1, features)),
        np.ascontiguousarray(kernel.T)[None],
        np.ascontiguousarray(recurrent.T)[None],
    ]
    inputs += _more_inputs(c, bias, states, kind, width, units)
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
    return whole, [c.reshape(value, (1, units)) for value in found[1:] if value is not None]


def _more_inputs(
    c: LayerContext, bias: Sequence[np.ndarray], states: Sequence[Value], kind: str, width: int, units: int
) -> list[Value | np.ndarray | str]:
    """Bias and initial states, up to the last one that there is."""
    found: list[Value | np.ndarray | str] = [""] * 4
    if bias:
        both = bias[0] if bias[0].ndim == 2 else np.stack([bias[0], np.zeros(width, np.float32)])
        found[0] = both.reshape(1, 2 * width)
    if states:
        wanted = STATES[kind]
        if len(states) != wanted or any(state.shape != (1, units) for state in states):
            raise Refused(
                f"{len(states)} initial states {[list(s.shape) for s in states]} for {wanted} of {units} units"
            )
        found[2 : 2 + wanted] = [c.reshape(state, (1, 1, units)) for state in states]
    while found and isinstance(found[-1], str):
        found.pop()
    return found


def flipped(c: LayerContext, x: Value) -> Value:
    """[1, steps, …] with the last step first."""
    if x.shape[1] == 1:
        return x
    ends = [np.array([n], dtype=np.int64) for n in (-1, -x.shape[1] - 1, 1, -1)]
    return c.emit("Slice", [x, *ends], x.shape)


def recurrent(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """LSTM, GRU, SimpleRNN, RNN: the last output or all of them, then the states if return_state is set."""
    x, *states = inputs
    sequence, backwards = bool(c.get("return_sequences", False)), bool(c.get("go_backwards", False))
    made = run(c, x, states, sequence, backwards, sequence_mask(c, states))
    result = made.last
    if made.sequence is not None:
        result = flipped(c, made.sequence) if backwards else made.sequence
    return [result, *made.states] if c.get("return_state", False) else [result]


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], Value | list[Value]]] = {
    "LSTM": recurrent,
    "GRU": recurrent,
    "SimpleRNN": recurrent,
    "RNN": recurrent,
}
"""Keras class → translation."""
