"""The LSTM of TensorFlow Lite in ONNX."""

from __future__ import annotations

import numpy as np

from ml4f.frontend.keras_builder import Refused, Value
from ml4f.frontend.keras_layers_recurrent import LSTM_ORDER
from ml4f.frontend.tflite_activations import ACTIVATIONS
from ml4f.frontend.tflite_onnx import OperatorContext, Translation


def _sequence_lstm(c: OperatorContext) -> Value:
    """UNIDIRECTIONAL_SEQUENCE_LSTM with all gates, without projection and layer normalisation."""
    x = c.value(0)
    if any(c.optional(i) is not None for i in (*range(16, 18), *range(20, 24)) if i < len(c.operands)):
        raise Refused("a projection or layer normalisation inside")
    if c.optional(1) is None:
        raise Refused("coupled input and forget gates")
    if ACTIVATIONS[c.operator.option("FusedActivationFunction", 0)] != "TANH":
        raise Refused("an activation but tanh")
    time_major = c.operator.option("TimeMajor", False)
    steps, batch = (x.shape[0], x.shape[1]) if time_major else (x.shape[1], x.shape[0])
    if batch != 1:
        raise Refused(f"a batch of {batch}")
    kernel = np.concatenate([c.constant(1 + i) for i in LSTM_ORDER])[None]
    recurrent = np.concatenate([c.constant(5 + i) for i in LSTM_ORDER])[None]
    units = recurrent.shape[-1]
    bias = np.concatenate([*(c.constant(12 + i).ravel() for i in LSTM_ORDER), np.zeros(4 * units, np.float32)])[None]
    sequence = c.reshape(x, (steps, 1, x.shape[2]))
    operands: list[Value | np.ndarray | str] = [sequence, kernel, recurrent, bias]
    peephole = [c.optional(i) for i in (9, 11, 10)]
    if any(part is not None for part in peephole):
        parts = [np.zeros(units, np.float32) if part is None else part.ravel() for part in peephole]
        operands += ["", "", "", np.concatenate(parts)[None]]
    found = c.emit_all("LSTM", operands, [(steps, 1, 1, units)], hidden_size=units)[0]
    assert found is not None
    limit = float(c.operator.option("CellClip", 0.0))
    if 0 < limit < steps:  # a cell grows by at most 1 with every step
        c.graph.nodes[-1].metadata_props.add(key="cell_clip", value=repr(limit))
    return c.reshape(found, (steps, 1, units) if time_major else (1, steps, units))


OPERATORS: dict[str, Translation] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence_lstm,
}
"""TensorFlow Lite operator → translation."""
