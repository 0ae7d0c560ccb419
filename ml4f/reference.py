"""Float references of imported models: every tensor of an ONNX graph, by onnxruntime if installed, else onnx's evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx


class Reference:
    """Evaluates an ONNX model and keeps every intermediate tensor."""

    def __init__(self, proto: onnx.ModelProto):
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        known = {entry.name for entry in self.proto.graph.output}
        constants = {entry.name for entry in self.proto.graph.initializer}
        for node in self.proto.graph.node:
            for name in node.output:
                if name and name not in known:
                    self.proto.graph.output.append(onnx.ValueInfoProto(name=name))
                    known.add(name)
        self.inputs = [entry.name for entry in self.proto.graph.input if entry.name not in constants]
        self._session = _onnxruntime_session(self.proto)

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """All tensors by name, the inputs included. inputs: in the graph's order, batch included."""
        fed = dict(zip(self.inputs, inputs, strict=True))
        names = [entry.name for entry in self.proto.graph.output]
        if self._session is not None:
            types = {entry.name: entry.type for entry in self._session.get_inputs()}
            fed = {name: _as_type(value, types[name]) for name, value in fed.items()}
            values = self._session.run(names, fed)
        else:
            from onnx.reference import ReferenceEvaluator

            values = ReferenceEvaluator(self.proto).run(names, fed)
        return {**fed, **dict(zip(names, values, strict=True))}


def _as_type(value: np.ndarray, kind: str) -> np.ndarray:
    types = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    return value.astype(types.get(kind, np.float32))


def _onnxruntime_session(proto: onnx.ModelProto) -> Any:
    """A session, or None if onnxruntime is not installed or refuses the model."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001: its exception classes differ from version to version
        return None
