"""TensorFlow SavedModels and frozen graphs as ONNX models, through TensorFlow and tf2onnx (extra `ml4f[tensorflow]`).

tf2onnx has silent errors, so that every converted model is compared with TensorFlow's own outputs before it is used.
Graphs that would touch files or call Python are refused before TensorFlow loads them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.comparison import largest_error
from ml4f.frontend.exporter_slips import mend_exporter_slips, unknown_operators
from ml4f.frontend.free_shapes import REMEDY, FreeShapes

OPSET = 15
"""What tf2onnx 1.16 and newer write without losses."""
TOLERANCE = 1e-4
"""Of the largest output: how far the converted model may be off."""
RUNS = 3
"""Random inputs that are compared."""
HOSTILE = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles"})
"""Operators that run Python or touch files; the checkpoint's own (SaveV2, RestoreV2) are not among them."""

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
COMPILED = "_XlaMustCompile"


@dataclass(frozen=True, eq=False)
class _Frozen:
    """A graph whose variables are constants; `run` gives TensorFlow's outputs."""

    graph_def: Any
    inputs: list[tuple[str, list[int]]]
    outputs: list[str]
    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def read_saved_model(path: Path, subject: str, shapes: FreeShapes) -> tuple[onnx.ModelProto, list[str]]:
    """A folder with saved_model.pb; its signature serving_default, or its only one."""
    with _tensorflow(subject) as tf:
        _check_graphs(path / "saved_model.pb", subject)
        try:
            frozen = _load_new(tf, path, subject)
        except Ml4fError:
            raise
        except Exception as new:  # TensorFlow raises whatever it likes; models of TensorFlow 1 need the old loader
            try:
                frozen = _load_old(tf, path, subject)
            except Ml4fError:
                raise
            except Exception as old:
                raise Ml4fError(
                    f"{subject}: TensorFlow cannot load it ({_line(new)}; as a model of TensorFlow 1: {_line(old)}); "
                    "save the model again"
                ) from None
        return _converted(tf, frozen, subject, shapes)


def read_frozen_graph(data: bytes, subject: str, shapes: FreeShapes) -> tuple[onnx.ModelProto, list[str]]:
    """A frozen GraphDef: its placeholders are the inputs, what nobody reads are the outputs."""
    with _tensorflow(subject) as tf:
        graph_def = tf.compat.v1.GraphDef()
        try:
            graph_def.ParseFromString(data)
        except Exception as error:  # protobuf's own errors
            raise Ml4fError(f"{subject}: is no frozen TensorFlow graph ({_line(error)})") from None
        _check_operators((node.op for node in graph_def.node), subject)
        read = {name.split(":")[0].lstrip("^") for node in graph_def.node for name in node.input}
        inputs = [
            (f"{node.name}:0", [d.size for d in node.attr["shape"].shape.dim])
            for node in graph_def.node
            if node.op == "Placeholder"
        ]
        outputs = [
            f"{n.name}:0" for n in graph_def.node if n.name not in read and n.op not in ("Const", "NoOp", "Placeholder")
        ]
        if not inputs or not outputs:
            raise Ml4fError(f"{subject}: the graph has {len(inputs)} placeholders and {len(outputs)} outputs")
        return _converted(tf, _of_graph(tf, graph_def, inputs, outputs), subject, shapes)


@contextmanager
def _tensorflow(subject: str) -> Iterator[Any]:
    """The module, quiet; an error with a way out where it is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    try:
        import tensorflow as tf
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise Ml4fError(
            f"{subject}: SavedModels and graphs of TensorFlow need it and tf2onnx: pip install 'ml4f[tensorflow]'; "
            f"or save the model as .keras or .h5 ({error})"
        ) from None
    quiet = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.CRITICAL)
    try:
        yield tf
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def _check_graphs(path: Path, subject: str) -> None:
    """All operators of all graphs and functions of a SavedModel, before anything is executed."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own errors, or a file that cannot be read
        raise Ml4fError(f"{subject}: saved_model.pb cannot be read ({_line(error)}); save the model again") from None
    for meta in saved.meta_graphs:
        _check_operators((node.op for node in meta.graph_def.node), subject)
        for function in meta.graph_def.library.function:
            _check_operators((node.op for node in function.node_def), subject)


def _check_operators(kinds: Iterator[str], subject: str) -> None:
    for kind in kinds:
        if kind in HOSTILE:
            raise Ml4fError(f"{subject}: the graph has the operator {kind}, which runs code or touches files; refused")


def _load_new(tf: Any, path: Path, subject: str) -> _Frozen:
    """TensorFlow 2: the signature as a concrete function."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise ValueError("it has no signature")
    function = signatures[name]
    # Loops stay While, which tf2onnx knows; lowered to Switch and Merge they would leave TensorList operators behind.
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    if any(node.op in CALLS for node in frozen.graph.as_graph_def().node):
        frozen = _inlined(tf, frozen)
    names = set(function.structured_input_signature[1])  # in any order; the graph has TensorFlow's
    ordered = [t for t in frozen.inputs if t.name.split(":")[0] in names] or list(frozen.inputs)
    inputs = [(t.name, _extents(t.shape)) for t in ordered]
    keys = sorted(function.structured_outputs)  # as TensorFlow flattens them
    outputs = [tensor.name for tensor in frozen.outputs]

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        fed = {t.name.split(":")[0]: tf.constant(v, t.dtype) for t, v in zip(ordered, values, strict=True)}
        found = function(**fed)
        return [np.asarray(found[key]) for key in keys]

    return _Frozen(frozen.graph.as_graph_def(), inputs, outputs, run)


def _inlined(tf: Any, frozen: Any) -> Any:
    """Without calls that XLA is to compile, which TensorFlow does not inline: Keras's convolutions in groups."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph_def = frozen.graph.as_graph_def()
    for function in graph_def.library.function:
        function.attr.pop(COMPILED, None)
        function.signature.name += "_inlined"  # TensorFlow knows one of the old name, which differs
    for node in [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]:
        node.attr.pop(COMPILED, None)
        for attribute in node.attr.values():
            if attribute.HasField("func"):
                attribute.func.name += "_inlined"
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph_def, name=""), [])
    graph = wrapped.graph
    inputs, outputs = ([graph.as_graph_element(t.name) for t in ts] for ts in (frozen.inputs, frozen.outputs))
    pruned = wrapped.prune(inputs, outputs)
    return convert_variables_to_constants_v2(pruned, lower_control_flow=False, aggressive_inlining=True)


def _load_old(tf: Any, path: Path, subject: str) -> _Frozen:
    """TensorFlow 1: a session, whose variables are frozen."""
    from tensorflow.python.framework.graph_util import convert_variables_to_constants

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        signatures = dict(meta.signature_def)
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
        if name is None:
            raise ValueError("it has no signature")
        signature = signatures[name]
        outputs = [info.name for _, info in sorted(signature.outputs.items())]
        graph_def = convert_variables_to_constants(session, graph.as_graph_def(), [o.split(":")[0] for o in outputs])
    inputs = [(info.name, [d.size for d in info.tensor_shape.dim]) for _, info in sorted(signature.inputs.items())]
    return _of_graph(tf, graph_def, inputs, outputs)


def _of_graph(tf: Any, graph_def: Any, inputs: list[tuple[str, list[int]]], outputs: list[str]) -> _Frozen:
    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        graph = tf.Graph()
        with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
            tf.import_graph_def(graph_def, name="")
            return session.run(outputs, dict(zip((name for name, _ in inputs), values, strict=True)))

    return _Frozen(graph_def, inputs, outputs, run)


def _extents(shape: Any) -> list[int]:
    return [-1 if n is None else int(n) for n in shape]


def _converted(tf: Any, frozen: _Frozen, subject: str, given: FreeShapes) -> tuple[onnx.ModelProto, list[str]]:
    """By tf2onnx with a batch of 1, then compared."""
    import tf2onnx

    shapes: dict[str, list[int]] = {}
    for name, shape in frozen.inputs:
        known = [None if n < 1 else n for n in shape]
        filled = given.of(name, known, subject, alone=len(frozen.inputs) == 1)
        fixed = [1 if axis == 0 and n is None else n or -1 for axis, n in enumerate(filled)]
        if any(n < 1 for n in fixed):
            raise Ml4fError(f"{subject}: input '{name}' has the free shape {shape}; {REMEDY}")
        shapes[name] = fixed
    try:
        proto, _ = tf2onnx.convert.from_graph_def(
            frozen.graph_def,
            input_names=list(shapes),
            output_names=frozen.outputs,
            opset=OPSET,
            shape_override=shapes,
        )
    except Exception as error:  # tf2onnx raises whatever it likes
        raise UnsupportedError(
            subject, [f"tf2onnx cannot convert it ({_line(error)}); save it as .keras or .h5"]
        ) from None
    mend_exporter_slips(proto)
    left = [
        f"tf2onnx cannot convert the operator {n.op_type} ('{n.name}'); save it as .keras or .h5"
        for n in unknown_operators(proto)
    ]
    if left:
        raise UnsupportedError(subject, left)
    for entry in proto.graph.input:  # tf2onnx leaves some shapes open
        if entry.name in shapes:
            entry.type.tensor_type.shape.CopyFrom(
                onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shapes[entry.name]).tensor_type.shape
            )
    _compare(proto, frozen, shapes, subject)
    return proto, ["converted by tf2onnx, and compared with TensorFlow's outputs"]


def _compare(proto: onnx.ModelProto, frozen: _Frozen, shapes: dict[str, list[int]], subject: str) -> None:
    """Raises Ml4fError if the converted model computes something else than TensorFlow."""
    from ml4f.reference import Reference

    reference = Reference(proto)
    boolean = onnx.TensorProto.BOOL
    masks = {entry.name for entry in proto.graph.input if entry.type.tensor_type.elem_type == boolean}
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        values = {name: x > 0 if name in masks else x for name, x in values.items()}
        expected = frozen.run(list(values.values()))
        order = [values[name] for name in reference.inputs]
        found = reference.run(order)
        for name, y in zip(frozen.outputs, expected, strict=True):
            error = largest_error(found[name], y)
            if not error <= TOLERANCE:
                raise Ml4fError(
                    f"{subject}: tf2onnx converts it wrongly: its output '{name}' is off by {error:.1e} of the largest "
                    "element; save the model as .keras or .h5, which needs no conversion"
                )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
