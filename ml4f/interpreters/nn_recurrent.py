"""What recurrent operations mean, in numpy: step by step in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.dialects.nn.recurrent_ops import GruOp, LstmOp, RecurrentOp, RnnOp

Array = np.ndarray
State = tuple[Array, ...]


def _activations(op: RecurrentOp) -> list[Callable[[Array], Array]]:
    def applied(act: Any) -> Callable[[Array], Array]:
        return lambda x: np.asarray(ACTIVATIONS[act.function].reference(x, *act.parameter_values))

    return [applied(act) for act in op.activations]


def _run(op: RecurrentOp, x: Array, state: State, step: Callable[[Array, State], State]) -> tuple[Array, State]:
    """The rows of the result, and the last state."""
    steps = range(op.steps)
    rows = np.zeros((op.steps, op.units))
    for t in reversed(steps) if op.reverse is not None else steps:
        state = step(x[t], state)
        rows[t] = state[0]
    return (rows if op.sequence is not None else state[0][None]), state


def _lstm(op: LstmOp, operands: Sequence[Array]) -> Array:
    x, w, r, bias, h0, c0, *more = (v.astype(np.float64) for v in operands)
    gate, candidate, output = _activations(op)
    limit = np.inf if op.cell_clip is None else float(op.cell_clip.value.data)
    peephole = more[0].reshape(3, -1) if more else np.zeros((3, op.units))

    def step(row: Array, state: State) -> State:
        h, c = state
        i, o, f, g = np.split(row @ w + h @ r + bias, 4)
        c_new = gate(f + peephole[2] * c) * c + gate(i + peephole[0] * c) * candidate(g)
        c_new = np.clip(c_new, -limit, limit)
        return gate(o + peephole[1] * c_new) * output(c_new), c_new

    rows, (_, c) = _run(op, x, (h0, c0), step)
    return np.concatenate([rows, c[None]]) if op.cell is not None else rows


def _gru(op: GruOp, operands: Sequence[Array]) -> Array:
    x, w, r, bias, h0, *more = (v.astype(np.float64) for v in operands)
    gate, candidate = _activations(op)
    units = op.units

    def step(row: Array, state: State) -> State:
        (h,) = state
        inputs = row @ w + bias
        z, reset = np.split(gate(inputs[: 2 * units] + h @ r[:, : 2 * units]), 2)
        if more:
            hidden = reset * (h @ r[:, 2 * units :] + more[0])
        else:
            hidden = (reset * h) @ r[:, 2 * units :]
        n = candidate(inputs[2 * units :] + hidden)
        return ((1 - z) * n + z * h,)

    return _run(op, x, (h0,), step)[0]


def _rnn(op: RnnOp, operands: Sequence[Array]) -> Array:
    x, w, r, bias, h0 = (v.astype(np.float64) for v in operands)
    (activation,) = _activations(op)
    return _run(op, x, (h0,), lambda row, state: (activation(row @ w + state[0] @ r + bias),))[0]


EVALUATORS: dict[type, Callable[[Any, Sequence[Array]], Array]] = {LstmOp: _lstm, GruOp: _gru, RnnOp: _rnn}
