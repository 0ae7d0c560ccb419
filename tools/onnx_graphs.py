"""Random ONNX graphs of the operators in `onnx_draws.py`, and what onnxruntime computes with them, node by node.

A graph grows by one node at a time; a node is kept where onnxruntime computes it, its results are small and finite (or
infinite, if wanted), and rounding errors do not blow up in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

MAX_ELEMENTS = 400
"""Of any tensor: keeps emulation short."""
WIDE_ELEMENTS = 6000
"""The same for graphs with many channels."""
LARGEST = 1e6
"""Finite results above it say little, but for those of an input that was as large."""
NOISE = 4e-7
"""Relative error of a step of float32 arithmetic, a little pessimistic."""
FLOAT16_NOISE = 2.0**-11
"""Of a constant that is rounded to float16."""
Array = np.ndarray


def words(text: str) -> tuple[str, ...]:
    """A list of names, readable."""
    return tuple(text.split())


EXACT = words(
    "Abs And ArgMax ArgMin Cast CastLike Ceil Clip Compress Concat DepthToSpace Dropout Equal Expand Flatten Floor "
    "Gather GatherElements GatherND GlobalMaxPool Greater GreaterOrEqual Hardmax Identity IsInf IsNaN Less LessOrEqual "
    "Max MaxPool Min Neg Not OneHot Or Pad ReduceMax ReduceMin Relu Reshape ReverseSequence Round Sign Slice "
    "SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unsqueeze Where Xor If Binarizer ArrayFeatureExtractor "
    "Constant Shape Size"
)
"""Operators that round nothing."""
ELEMENTWISE = words(
    "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Div Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish Mul "
    "PRelu Pow Reciprocal Sigmoid Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
"""Operators whose error is relative to the element; that of others is relative to the largest one."""
BESIDE_ONE = words("Celu Elu Selu")
"""Of these relative to 1, where onnxruntime takes 1 from a power."""

CENTRING = words("GroupNormalization InstanceNormalization LayerNormalization MeanVarianceNormalization")
"""Operators that take the mean from the elements first, whose error may be large beside the rest."""


class Rejected(Exception):
    """The reference does not take a node, or its results say nothing."""


@dataclass
class Step:
    """A node, and the constants that only it reads."""

    node: onnx.NodeProto
    constants: dict[str, Array] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """Names of the results that there are."""
        return [name for name in self.node.output if name]

    def names_read(self) -> set[str]:
        """Of the tensors, constants among them, that it reads, also within."""
        names = {name for name in self.node.input if name}
        for attribute in self.node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = {name for node in attribute.g.node for name in node.output}
                inner |= {entry.name for entry in (*attribute.g.input, *attribute.g.initializer)}
                read = {name for node in attribute.g.node for name in node.input if name}
                read |= {entry.name for entry in attribute.g.output}
                names |= read - inner
        return names


@dataclass
class Graph:
    """Inputs with their values, nodes in order, names of the outputs."""

    opset: int
    inputs: dict[str, Array]
    steps: list[Step]
    outputs: list[str]
    values: dict[str, Array] = field(default_factory=dict)
    """Of all tensors, by the reference."""
    spread: dict[str, Array] = field(default_factory=dict)
    """How much rounding errors may change each element."""

    def model(self) -> onnx.ModelProto:
        """The whole as a file's content."""
        constants = {name: value for step in self.steps for name, value in step.constants.items()}
        graph = helper.make_graph(
            [step.node for step in self.steps],
            "fuzzed",
            [_info(name, value) for name, value in self.inputs.items()],
            [_info(name, self.values[name]) for name in self.outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        return _model(graph, self.opset)

    def tolerance(self, name: str) -> Array:
        """What a result may differ from the reference, elementwise."""
        finite = np.abs(self.values[name][np.isfinite(self.values[name])].astype(np.float64))
        return 40 * self.spread[name] + 4e-6 * finite.max(initial=0) + 1e-30

    def described(self) -> str:
        """As onnx's text, for people."""
        return onnx.printer.to_text(self.model())


def _info(name: str, value: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=domains, ir_version=min(10, onnx.IR_VERSION))


class NodeRunner:
    """Computes one node again and again, by onnxruntime, or by onnx's evaluator for what that does not know."""

    def __init__(self, step: Step, opset: int, values: Mapping[str, Array]):
        self.step = step
        self.names = sorted(step.names_read())
        inputs = [_info(name, values[name]) for name in self.names]
        outputs = [onnx.ValueInfoProto(name=name) for name in step.outputs]
        self.model = _model(helper.make_graph([step.node], "node", inputs, outputs), opset)

    @cached_property
    def session(self) -> Any:
        """Of onnxruntime; None where it does not know the operator or the opset."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(self.model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:
            if "NotImplemented" in type(error).__name__ or "NOT_IMPLEMENTED" in str(error) or "opset" in str(error):
                return None
            raise Rejected(str(error)) from None

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        """The results; Rejected says why there are none."""
        given = {name: values[name] for name in self.names}
        session = self.session
        try:
            with np.errstate(all="ignore"):
                results = session.run(None, given) if session else ReferenceEvaluator(self.model).run(None, given)
        except Exception as error:  # of whatever class
            raise Rejected(str(error)) from None
        if not all(isinstance(value, np.ndarray | np.generic) for value in results):
            raise Rejected("no tensor")
        return [np.asarray(value) for value in results]


def _shaken(value: Array, size: Any, rng: np.random.Generator) -> Array:
    return (value + NOISE * size * rng.uniform(-1, 1, value.shape)).astype(value.dtype)


def noisy(step: Step, results: list[Array], rng: np.random.Generator) -> list[Array]:
    """With errors as of rounding."""
    op_type = step.node.op_type
    if op_type in EXACT:
        return results
    changed = []
    for value in results:
        if value.dtype.kind != "f":
            changed.append(value)
            continue
        size = np.abs(value)
        finite = size[np.isfinite(size)]
        if op_type in BESIDE_ONE:
            size = np.maximum(size, 1)
        elif op_type not in ELEMENTWISE:
            size = np.full_like(size, finite.max(initial=0))
        changed.append(_shaken(value, np.where(np.isfinite(size), size, 0), rng))
    return changed


class Growing:
    """A graph that nodes are added to; `values` of the reference and of some runs with errors."""

    RUNS = 3

    def __init__(self, opset: int, rng: np.random.Generator, float16: bool, infinite: bool, wide: bool = False):
        self.rng = rng
        self.most = WIDE_ELEMENTS if wide else MAX_ELEMENTS
        self.float16 = float16
        self.infinite = infinite
        self.graph = Graph(opset, {}, [], [])
        self.runs: list[dict[str, Array]] = [{} for _ in range(self.RUNS)]

    def add_input(self, name: str, value: Array) -> None:
        self.graph.inputs[name] = value
        self._set(name, value, [value] * self.RUNS)

    def add(self, step: Step) -> None:
        """Raises Rejected, and is as before then."""
        graph = self.graph
        known = {**graph.values, **step.constants}
        runner = NodeRunner(step, graph.opset, known)
        results = runner.run(known)
        for value in results:
            self._check(value)
        spread = []
        for run in self.runs:
            constants = {name: self._rounded(value) for name, value in step.constants.items()}
            given = {**run, **constants}
            if step.node.op_type in CENTRING:
                name = step.node.input[0]
                given[name] = _shaken(given[name], np.abs(given[name]).max(initial=0), self.rng)
            spread.append(noisy(step, runner.run(given), self.rng))
        try:
            for index, (name, value) in enumerate(zip(step.outputs, results, strict=True)):
                self._set(name, value, [made[index] for made in spread])
                self._check_spread(name)
        except Rejected:
            for name in step.outputs:
                for table in (graph.values, graph.spread, *self.runs):
                    table.pop(name, None)
            raise
        graph.steps.append(step)

    def _check_spread(self, name: str) -> None:
        """Rounding errors must leave most digits."""
        values = self.graph.values[name]
        largest = np.abs(values[np.isfinite(values)].astype(np.float64)).max(initial=0)
        most = largest * (0.05 if self.float16 else 1e-3)
        if largest > 0 and not np.all(self.graph.tolerance(name) <= most):
            raise Rejected("ill conditioned")

    def _rounded(self, value: Array) -> Array:
        if not self.float16 or value.dtype.kind != "f":
            return value
        return (value * (1 + FLOAT16_NOISE * self.rng.uniform(-1, 1, value.shape))).astype(value.dtype)

    def _check(self, value: Array) -> None:
        if value.dtype.kind not in "fbi" or not 1 <= prod(value.shape) <= self.most or value.ndim > 6:
            raise Rejected("size or type")
        if value.dtype.kind == "f":
            bad = np.isnan(value).any() if self.infinite else not np.isfinite(value).all()
            large = np.abs(value[np.isfinite(value)]).max(initial=0) > (1e38 if self.infinite else LARGEST)
            if bad or large:
                raise Rejected("values")

    def _set(self, name: str, value: Array, runs: list[Array]) -> None:
        self.graph.values[name] = value
        spread = np.zeros(value.shape)
        for run, own in zip(self.runs, runs, strict=True):
            if own.shape != value.shape:
                raise Rejected("its shape depends on values")
            run[name] = own
            with np.errstate(all="ignore"):
                difference = np.abs(own.astype(np.float64) - value.astype(np.float64))
            spread = np.maximum(spread, np.where(own == value, 0, difference))
        self.graph.spread[name] = np.where(np.isnan(spread), np.inf, spread)


def cut(graph: Graph, outputs: list[str], inputs: set[str]) -> Graph:
    """The part that makes some outputs, with some tensors as inputs."""
    wanted, steps = set(outputs), []
    for step in reversed(graph.steps):
        if any(name in wanted and name not in inputs for name in step.outputs):
            steps.insert(0, step)
            wanted |= step.names_read()
    made = {name for step in steps for name in step.outputs}
    given = {name: value for name, value in graph.inputs.items() if name in wanted}
    given.update({name: graph.values[name] for name in graph.values if name in inputs and name in wanted})
    kept = [name for name in given if name not in made]
    return Graph(graph.opset, {name: given[name] for name in kept}, steps, outputs, graph.values, graph.spread)
