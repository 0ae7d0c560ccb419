"""Float references of imported models: every tensor of an ONNX graph, by onnxruntime if installed, else onnx's
evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from ml4f.errors import Ml4fError


class Reference:
    """Evaluates an ONNX model and keeps every intermediate tensor."""

    def __init__(self, proto: onnx.ModelProto):
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        known = {entry.name for entry in self.proto.graph.output}
        constants = {entry.name for entry in self.proto.graph.initializer}
        for node in self.proto.graph.node:
            node.name = ""  # onnxruntime refuses two nodes of one name, which ONNX allows
            for name in node.output:
                if name and name not in known:
                    self.proto.graph.output.append(onnx.ValueInfoProto(name=name))
                    known.add(name)
        self.inputs = [entry.name for entry in self.proto.graph.input if entry.name not in constants]
        self._session = _onnxruntime_session(self.proto)

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """All tensors by name, the inputs included. inputs: in the graph's order, with or without a batch of one."""
        declared = {entry.name: entry for entry in self.proto.graph.input}
        shaped = [_declared(x, declared[name]) for name, x in zip(self.inputs, inputs, strict=True)]
        fed = dict(zip(self.inputs, shaped, strict=True))
        names = [entry.name for entry in self.proto.graph.output]
        if self._session is not None:
            types = {entry.name: entry.type for entry in self._session.get_inputs()}
            fed = {name: _as_type(value, types[name]) for name, value in fed.items()}
            values = self._session.run(names, fed)
        else:
            kinds = {
                onnx.TensorProto.INT32: "tensor(int32)",
                onnx.TensorProto.INT64: "tensor(int64)",
                onnx.TensorProto.BOOL: "tensor(bool)",
            }
            types = {
                name: kinds.get(entry.type.tensor_type.elem_type, "")  # pyright: ignore[reportArgumentType, reportCallIssue]: numbers
                for name, entry in declared.items()
            }
            fed = {name: _as_type(value, types[name]) for name, value in fed.items()}
            try:
                values = _evaluator(self.proto).run(names, fed)
            except Exception as error:  # it raises whatever it likes, also on models that are right
                line = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise Ml4fError(
                    f"{self.proto.graph.name or 'the model'}: onnx's reference evaluator, which the code is compared "
                    f"with, cannot compute it ({line}); pip install onnxruntime, which takes its place, or compile "
                    "with --no-validate"
                ) from None
        return {**fed, **dict(zip(names, values, strict=True))}


def _declared(x: np.ndarray, entry: onnx.ValueInfoProto) -> np.ndarray:
    """With the shape that the graph declares, free dimensions taken as one, if it has as many elements."""
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    return x.reshape(shape) if np.prod(shape, dtype=int) == x.size else x


def _as_type(value: np.ndarray, kind: str) -> np.ndarray:
    types = {
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
        "tensor(int32)": np.int32,
        "tensor(int64)": np.int64,
        "tensor(bool)": np.bool_,
    }
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
    except Exception:  # its exception classes differ from version to version
        return None


def _evaluator(proto: onnx.ModelProto) -> Any:
    """onnx's evaluator, with what it gets wrong replaced."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        """In inference form. Before opset 14 onnx's own normalises by the statistics of the input, as if it were
        training.
        """

        op_domain = ""

        def _run(
            self,
            x: np.ndarray,
            scale: np.ndarray,
            bias: np.ndarray,
            mean: np.ndarray,
            variance: np.ndarray,
            epsilon: float | None = None,
            **_: object,
        ) -> tuple[np.ndarray]:
            def along_channels(values: np.ndarray) -> np.ndarray:
                return values.reshape(-1, *[1] * (x.ndim - 2))

            factor = along_channels(scale) / np.sqrt(along_channels(variance) + (1e-5 if epsilon is None else epsilon))
            return ((factor * (x - along_channels(mean)) + along_channels(bias)).astype(x.dtype),)

    class GlobalMaxPool(OpRun):
        """Over all spatial axes. onnx's own takes two axes of any input, the wrong ones unless it is 2-D."""

        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    return ReferenceEvaluator(proto, new_ops=[BatchNormalization, GlobalMaxPool])
