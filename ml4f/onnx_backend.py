"""`onnx.backend.base` on our machine code: models are compiled and run in the emulated Cortex-M4.

ml4f compiles for constant parameters and shapes, while onnx's test suite passes everything as an input. Inputs that are
not floats (shapes, axes, conditions) are therefore made constants when `run` gives their values; the others are inputs
of the object. Where an operator needs a constant there as well (convolution weights), all inputs but the first are made
constants. What ml4f does not support is refused with the compiler's own message; a bug of ours never is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from ml4f.compiler import Compilation, Options, compile_proto
from ml4f.errors import InternalError, Ml4fError, UnsupportedError, ValidationError
from ml4f.frontend import load_model
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_types import BOOLEAN, FLOAT_TYPES, INTEGER_TYPES
from ml4f.interpreters.nn import run_nn

OPTIONS = Options(validate=False)
"""The caller compares the results."""


class Ml4fRep(BackendRep):
    """A model that is compiled when the first inputs come, and again for inputs of other shapes or other constants."""

    def __init__(self, model: onnx.ModelProto, options: Options = OPTIONS, level: str = "code"):
        self.model = model
        self.level = level
        self.options = options
        self.constants: frozenset[str] = frozenset()
        """The inputs that the last run made constants although they are floats."""
        self._compiled: dict[bytes, _Specialised] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for inputs in the graph's order, or by name."""
        values = self._named(inputs)
        floats = [entry.name for entry in self._inputs() if entry.type.tensor_type.elem_type in FLOAT_TYPES]
        floats = [name for name in floats if name in values and values[name].size]
        for kinds in (INTEGER_TYPES, (BOOLEAN,)):  # as of an embedding, are inputs where nothing else is
            others = [entry.name for entry in self._inputs() if entry.type.tensor_type.elem_type in kinds]
            floats = floats or [name for name in others if name in values and values[name].size]
        for name in floats:
            finite = values[name][np.isfinite(values[name])]
            if finite.size and np.abs(finite.astype(np.float64)).max() > np.finfo(np.float32).max:
                raise BackendIsNotSupposedToImplementIt(f"the input '{name}' is too large for float32")
        try:
            try:
                return self._specialised(values, floats).run(values)
            except UnsupportedError:
                first = [name for name in (entry.name for entry in self._inputs()) if name in values][:1]
                kept = floats[:1] if len(floats) > 1 and first[0] in floats else first
                if kept == floats or not values[kept[0]].size:
                    raise
                self.constants = frozenset(name for name in floats if name not in kept)
                return self._specialised(values, kept).run(values)
        except (InternalError, ValidationError):
            raise
        except Ml4fError as error:
            raise BackendIsNotSupposedToImplementIt(str(error)) from None

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        initialised = {tensor.name for tensor in self.model.graph.initializer}
        return [entry for entry in self.model.graph.input if entry.name not in initialised]

    def _named(self, inputs: Any) -> dict[str, np.ndarray]:
        """Inputs by name; those that are left out or are no tensors are not among them."""
        names = [entry.name for entry in self._inputs()]
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            listed = inputs if isinstance(inputs, list | tuple) else [inputs]
            given = dict(zip(names, listed, strict=False))
        return {
            name: np.asarray(value)
            for name, value in given.items()
            if isinstance(value, np.ndarray | np.generic | float)
        }

    def _specialised(self, values: Mapping[str, np.ndarray], dynamic: Sequence[str]) -> _Specialised:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for name, value in values.items():
            if name not in dynamic:
                model.graph.initializer.append(numpy_helper.from_array(value, name))
        for entry in model.graph.input:
            if entry.name in dynamic:
                shape = onnx.TensorShapeProto(
                    dim=[onnx.TensorShapeProto.Dimension(dim_value=n) for n in values[entry.name].shape]
                )
                entry.type.tensor_type.shape.CopyFrom(shape)
        model.ir_version = max(model.ir_version, 4)  # before, initializers had to be inputs as well
        fixed = {tensor.name for tensor in model.graph.initializer}
        kept = [entry for entry in model.graph.input if entry.name not in fixed]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        if any(not entry.type.tensor_type.HasField("shape") for entry in model.graph.output):
            model = onnx.shape_inference.infer_shapes(model)
        key = model.SerializeToString(deterministic=True)
        if key not in self._compiled:
            self._compiled[key] = _Specialised(model, self.options, self.level)
        return self._compiled[key]


class _Specialised:
    """A compiled model whose inputs are all floats of known shapes."""

    def __init__(self, model: onnx.ModelProto, options: Options, level: str):
        self.model = model
        loaded = load_model(model, name=model.graph.name or "model")
        self.compilation: Compilation | None = None
        if level == "code":
            self.compilation = compile_proto(loaded.proto, loaded.name, options)
        importer = Importer(loaded.proto, loaded.name)
        self.module = importer.run()
        self.integers = [entry.name in importer.integers for entry in loaded.proto.graph.output]
        self.shapes = [importer.shape(entry.name) for entry in loaded.proto.graph.output]

    def run(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs with the shapes and types that the graph declares."""
        names = [entry.name for entry in self.model.graph.input]
        results = self._results([values[name].astype(np.float32) for name in names])
        outputs = []
        for entry, shape, result in zip(self.model.graph.output, self.shapes, results, strict=True):
            kind = entry.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
            outputs.append(result.reshape(shape).astype(onnx.helper.tensor_dtype_to_np_dtype(kind)))
        return tuple(outputs)

    def _results(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.compilation is not None:
            return self.compilation.machine.run_all(list(inputs))
        self.module.verify()
        results = run_nn(self.module, inputs)
        return [y.view(np.int32) if whole else y for y, whole in zip(results, self.integers, strict=True)]


class Ml4fBackend(Backend):
    """The backend: stateless, as the interface wants it."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Every model may be tried; what is not supported is refused with a message."""
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Ml4fRep:
        """A handle whose `run` computes the model. `options`: an `ml4f.compiler.Options`.

        `level`: "code" runs machine code in the emulator, "nn" executes the imported model in numpy, which is faster.
        """
        if not cls.supports_device(device):
            raise BackendIsNotSupposedToImplementIt(f"device {device}: ml4f runs on CPU, an emulated Cortex-M4, alone")
        return Ml4fRep(model, kwargs.get("options", OPTIONS), kwargs.get("level", "code"))

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """One operator on some inputs. `outputs_info`: (dtype, shape) of each output; `opset_version`."""
        names = [name for name in dict.fromkeys(node.input) if name]
        values = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        entries = [_value_info(name, np.asarray(values[name]).dtype, np.shape(values[name])) for name in names]
        infos = outputs_info or [(np.dtype(np.float32), None)] * len(node.output)
        outputs = [
            _value_info(name, dtype, shape) for name, (dtype, shape) in zip(node.output, infos, strict=True) if name
        ]
        graph = onnx.helper.make_graph([node], node.op_type, entries, outputs)
        opset = onnx.helper.make_opsetid("", kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        model = onnx.helper.make_model(graph, opset_imports=[opset])
        return cls.prepare(model, device, **{k: v for k, v in kwargs.items() if k == "options"}).run(values)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """CPU alone."""
        return device.partition(":")[0] == "CPU"


def _value_info(name: str, dtype: Any, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


is_compatible = Ml4fBackend.is_compatible
prepare = Ml4fBackend.prepare
run_model = Ml4fBackend.run_model
run_node = Ml4fBackend.run_node
supports_device = Ml4fBackend.supports_device
