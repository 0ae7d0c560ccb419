"""Validates the real bytes in Unicorn against float references, layer by layer.

Every prefix of the network: one run stops behind each layer and compares its buffer with the reference of the imported
model (onnxruntime or onnx's evaluator; for float16 the nn level in numpy, which has the same rounded weights). Every
layer alone: its input buffers get random values and only its code runs, compared with the nn level in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, IntegerAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from ml4f.backend.thumb.image import INT32, TensorInfo
from ml4f.backend.thumb.layout import CallSite
from ml4f.dialects.nn import ActAttr, ConstOp, SourceAttr, shape_of
from ml4f.errors import InternalError, ValidationError
from ml4f.interpreters.nn import evaluate, run_nn
from ml4f.machine import OBJECT_BASE, STOP_ADDRESS
from ml4f.reference import Reference
from ml4f.rounding import rounding

if TYPE_CHECKING:
    from ml4f.compiler import Compilation

TOLERANCE = 1e-4
"""Relative to the largest magnitude of a layer's reference output."""
MAX_PAIRS = 2
CHECKED_MACS = 300_000
"""Multiply-accumulates worth spending on pairs of inputs beyond the first."""
LARGE = 1e37
"""Of a constant: a sixteenth of what float32 can hold."""
OUR_BUG = "this is a bug of ml4f, please report it"
FACTORS = 4093
"""How many factors next to 1 there are for what is computed; a prime, so that no shape repeats them."""
ABSOLUTE = frozenset({"sigmoid", "silu", "gelu", "gelu_tanh"})
"""Activations that near 0 the reference rounds far more than ml4f: onnxruntime's sigmoid is off by 1.7e-7 everywhere,
of 1e-4 as of 1.
"""
FREE_OPS = ("nn.const", "nn.reshape", "func.return")
"""Operations that have no code of their own."""


@dataclass(frozen=True)
class Layer:
    """The calls of one nn operation or of a few that were fused, and those operations with their positions."""

    calls: tuple[CallSite, ...]
    ops: tuple[Operation, ...]
    positions: tuple[int, ...]

    @property
    def op(self) -> Operation:
        """The operation that makes the result."""
        return self.ops[-1]

    @property
    def name(self) -> str:
        """The model's layers it computes."""
        names = self.calls[-1].attributes.get("layers")
        listed = [n.data for n in names if isinstance(n, StringAttr)] if isinstance(names, ArrayAttr) else []
        return "+".join(dict.fromkeys(listed)) or self.calls[-1].callee

    @property
    def operator(self) -> str:
        """Its nn operator."""
        return "+".join(op.name.removeprefix("nn.") for op in self.ops)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} ({self.operator}, output {list(self.shape)})"

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        counts = [call.attributes.get("macs") for call in self.calls]
        return sum(count.value.data for count in counts if isinstance(count, IntegerAttr))

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's shape."""
        return _integers(self.calls[-1].attributes["shape"])

    @property
    def result(self) -> int:
        """The result's offset in the arena."""
        return _integers(ArrayAttr([self.calls[-1].attributes["result"]]))[0]


def _integers(attribute: object) -> tuple[int, ...]:
    assert isinstance(attribute, ArrayAttr)
    return tuple(a.value.data for a in attribute if isinstance(a, IntegerAttr))


def layers_of(compilation: Compilation) -> Iterator[Layer]:
    """The layers in execution order."""
    function = next(op for op in compilation.nn_module.body.block.ops if isinstance(op, FuncOp))
    ops = [op for op in function.body.block.ops if op.name not in FREE_OPS]
    pending: list[CallSite] = []
    for site in compilation.code.layout.calls:
        pending.append(site)
        if "shape" in site.attributes:
            positions = tuple(sorted({i for call in pending for i in _integers(call.attributes["ops"])}))
            yield Layer(tuple(pending), tuple(ops[i] for i in positions), positions)
            pending = []


def validate(compilation: Compilation, progress: Callable[[str], None] = lambda text: None) -> None:
    """Raises ValidationError that names the first wrong layer."""
    layers = list(layers_of(compilation))
    reference = Reference(compilation.proto)
    work = sum(layer.macs for layer in layers)
    progress(f"{compilation.name}: validating the network")
    if compilation.options.float16:
        check_import(compilation, reference)
    for x in seeded_inputs(compilation.machine.header.input_elements, runs_for(work)):
        check_prefixes(compilation, layers, reference, possible(compilation, x))
    places = places_of(compilation, layers)
    for index, layer in enumerate(layers):
        progress(f"{compilation.name}: validating layer {index + 1} of {len(layers)}, {layer.name}")
        check_alone(compilation, layer, places)


def runs_for(macs: int) -> int:
    """How many inputs to try: an even number, more for small networks and layers."""
    return 2 * max(1, min(MAX_PAIRS, CHECKED_MACS // max(macs, 1)))


def seeded_inputs(size: int, runs: int) -> Iterator[np.ndarray]:
    """Normally distributed inputs in pairs, x and -x: what a relu hides from one of them shows with the other."""
    for seed in range(1, runs // 2 + 1):
        values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
        yield values
        yield -values


def possible(compilation: Compilation, x: np.ndarray) -> np.ndarray:
    """The inputs, with whole numbers below their limits where the model wants them."""
    function = next(op for op in compilation.nn_module.body.block.ops if isinstance(op, FuncOp))
    limits = function.attributes.get("input_limits")
    if not isinstance(limits, DenseArrayBase):
        return x
    parts = []
    for part, limit in zip(compilation.machine.split(x), limits.get_values(), strict=True):
        parts.append(np.floor(np.abs(part) * limit) % int(limit) if limit else part)
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Faults, endless loops and stray writes of the machine code are failed validations of `what`."""
    try:
        yield
    except InternalError as error:
        raise ValidationError(f"{what}: {error}; {OUR_BUG}") from None


def check_import(compilation: Compilation, reference: Reference) -> None:
    """The nn level before rounding to float16 agrees with the reference, as the prefixes do in float32."""
    from ml4f.compiler import run_passes
    from ml4f.frontend.importer import import_onnx

    module = import_onnx(compilation.proto, compilation.name)
    passes = [p for p in compilation.options.pipeline() if p.startswith("nn-") and p != "nn-round-weights"]
    run_passes(module, tuple(passes))
    for seeded in seeded_inputs(compilation.machine.header.input_elements, 2):
        x = possible(compilation, seeded)
        results = run_nn(module, compilation.machine.split(x))
        expected = Expectations(compilation, reference, x, rounded=False).outputs()
        for result, wanted, tensor in zip(results, expected, compilation.machine.header.outputs, strict=True):
            compare(output_values(result, tensor), wanted, f"{compilation.name}: the imported model")


def check_prefixes(compilation: Compilation, layers: list[Layer], reference: Reference, x: np.ndarray) -> None:
    """Run the network once, stopping behind every layer: each result is read before another layer can overwrite it."""
    machine, name = compilation.machine, compilation.name
    expected = Expectations(compilation, reference, x, rounded=compilation.options.float16)
    machine.prepare()
    machine.write_inputs(machine.split(x))
    position = OBJECT_BASE + machine.header.entry
    machine.begin()
    for layer in layers:
        what = f"{name}: layer {layer.title}, as part of the network"
        stop = OBJECT_BASE + layer.calls[-1].end
        with blaming(what):
            machine.resume(position, stop)
            machine.check_guards()
        position = stop
        wanted = expected.of(layer)
        if wanted is not None:
            noise = partial(network_noise, compilation, x, layer.positions[-1])
            compare(np.ravel(machine.read_floats(layer.result, layer.shape)), wanted, what, noise)
    with blaming(f"{name}: behind the last layer"):
        machine.resume(position, STOP_ADDRESS)
        machine.check_preserved()
        machine.check_guards()
    for index, (final, wanted) in enumerate(zip(machine.read_outputs(), expected.outputs(), strict=True)):
        which = f"output {expected.names[index]}" if index else "output"
        noise = partial(network_noise, compilation, x, None, index)
        compare(np.ravel(final), wanted, f"{name}: the network's {which}", noise)


class Expectations:
    """What each layer should produce for inputs `x`: by the reference, or by numpy with the code's rounded weights."""

    def __init__(self, compilation: Compilation, reference: Reference, x: np.ndarray, rounded: bool):
        self.tensors: dict[str, np.ndarray] = {}
        self.values: list[np.ndarray] = []
        self.names = [entry.name for entry in compilation.proto.graph.output]
        self.infos = compilation.machine.header.outputs
        self.results: list[np.ndarray] | None = None
        inputs = compilation.machine.split(x)
        if rounded:

            def observe(op: Operation, value: np.ndarray) -> None:
                if op.name not in FREE_OPS:
                    self.values.append(np.ravel(value))

            self.results = run_nn(compilation.nn_module, inputs, observe)
        else:
            self.tensors = reference.run(inputs)

    def of(self, layer: Layer) -> np.ndarray | None:
        """A layer's output in memory order; None if it is no tensor of the ONNX model."""
        if self.values:
            return self.values[layer.positions[-1]]
        source = layer.op.attributes.get("source")
        if not isinstance(source, SourceAttr) or source.tensor_name not in self.tensors:
            return None
        tensor = self.tensors[source.tensor_name]
        order = source.order
        tensor = tensor.reshape(tensor.shape[1:]) if tensor.ndim == len(order) + 1 else tensor
        tensor = tensor.transpose(order) if tensor.ndim == len(order) else tensor
        kept = layer.op.attributes.get("channels")
        if isinstance(kept, DenseArrayBase):
            tensor = np.take(tensor, kept.get_values(), axis=-1)
        return np.ravel(tensor) if tensor.size == prod(layer.shape) else None

    def outputs(self) -> list[np.ndarray]:
        """The network's outputs, flat."""
        if self.results is not None:
            return [output_values(value, tensor) for value, tensor in zip(self.results, self.infos, strict=True)]
        return [np.ravel(self.tensors[name]) for name in self.names]


def output_values(result: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    """An output of the nn level, flat; of integers it holds the bits."""
    flat = np.ravel(result)
    return flat.view(np.int32) if tensor.type == INT32 else flat


def check_alone(compilation: Compilation, layer: Layer, places: Mapping[SSAValue, int]) -> None:
    """Run one layer's code on random values in its input buffers. places: where values lie in the arena."""
    inputs = layer_inputs(layer)
    sizes = [prod(shape_of(value)) for value in inputs]
    what = f"{compilation.name}: layer {layer.title}, alone"
    for x in seeded_inputs(sum(sizes), runs_for(layer.macs)):
        x = np.abs(x) if _is_nonnegative(layer) else x
        x = x - np.floor(x) if _hides(layer) else x
        arrays = np.split(x, np.cumsum(sizes)[:-1]) if inputs else []
        with blaming(what):
            result = run_alone(compilation, layer, {places[v]: a for v, a in zip(inputs, arrays, strict=True)})
        values = {value: array.reshape(shape_of(value)) for value, array in zip(inputs, arrays, strict=True)}
        wanted = np.ravel(evaluate_value(layer.op.results[0], values))
        compare(result, wanted, what, partial(layer_noise, layer, inputs, arrays))


def layer_noise(layer: Layer, inputs: Sequence[SSAValue], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What rounding may do to a layer's result."""

    def evaluated(moved: Sequence[np.ndarray]) -> np.ndarray:
        values = {value: array.reshape(shape_of(value)) for value, array in zip(inputs, moved, strict=True)}
        return np.ravel(evaluate_value(layer.op.results[0], values))

    return rounding(evaluated, arrays)


def network_noise(compilation: Compilation, x: np.ndarray, position: int | None, output: int = 0) -> np.ndarray:
    """What rounding may do to the result of an operation of the network, or to an output (position None).

    The inputs are rounded, and what is computed of them. Inputs stay that must be whole numbers, and results that are:
    they look something up.
    """
    whole = not np.array_equal(possible(compilation, x + np.float32(0.5)), x + np.float32(0.5))

    def evaluated(moved: Sequence[np.ndarray]) -> np.ndarray:
        values: list[np.ndarray] = []
        used = 0

        def observe(op: Operation, value: np.ndarray) -> np.ndarray | None:
            nonlocal used
            if op.name in FREE_OPS:
                return None
            factors = np.resize(np.roll(moved[1], used), value.shape)
            used += value.size
            moving = value != np.floor(value)
            if act_of(op) in ABSOLUTE:
                value = value + (factors - 1) / 8
            value = np.where(moving, value * factors, value).astype(np.float32)
            values.append(np.ravel(value))
            return value

        results = run_nn(compilation.nn_module, compilation.machine.split(x if whole else moved[0]), observe)
        return np.ravel(results[output]) if position is None else values[position]

    return rounding(evaluated, [x, np.ones(FACTORS, np.float32)])


def act_of(op: Operation) -> str:
    """The activation of an operation, or "" if it has none."""
    act = op.properties.get("act")
    return act.function if isinstance(act, ActAttr) else ""


def places_of(compilation: Compilation, layers: Iterable[Layer]) -> dict[SSAValue, int]:
    """Where the network's inputs and the layers' results lie in the arena."""
    function = next(op for op in compilation.nn_module.body.block.ops if isinstance(op, FuncOp))
    inputs = compilation.machine.header.inputs
    places: dict[SSAValue, int] = {a: t.offset for a, t in zip(function.body.block.args, inputs, strict=True)}
    return places | {layer.op.results[0]: layer.result for layer in layers}


def run_alone(compilation: Compilation, layer: Layer, inputs: Mapping[int, np.ndarray]) -> np.ndarray:
    """The result of a layer's code. inputs: by their offset in the arena."""
    machine = compilation.machine
    machine.prepare()
    machine.begin()
    machine.resume(OBJECT_BASE + machine.header.entry, OBJECT_BASE + compilation.code.layout.calls[0].start)
    for place, values in inputs.items():
        machine.write_arena(place, values.tobytes())
    machine.resume(OBJECT_BASE + layer.calls[0].start, OBJECT_BASE + layer.calls[-1].end)
    machine.check_guards()
    return np.ravel(machine.read_floats(layer.result, layer.shape))


def _is_nonnegative(layer: Layer) -> bool:
    """Whether the layer's code relies on inputs without sign bits."""
    return any("nonnegative" in call.attributes for call in layer.calls)


def _hides(layer: Layer) -> bool:
    """Whether a constant of the layer is about the largest of float32, as where attention hides what a mask of zeros
    and ones says: with a larger input the product with it is infinite.
    """
    owners = [stored_value(operand).owner for op in layer.ops for operand in op.operands]
    return any(isinstance(o, ConstOp) and np.abs(o.array()).max(initial=0.0) > LARGE for o in owners)


def layer_inputs(layer: Layer) -> list[SSAValue]:
    """The values that a layer reads and does not compute, without constants; each is a buffer."""
    found: dict[SSAValue, None] = {}
    by_position = dict(zip(layer.positions, layer.ops, strict=True))
    for position in (n for call in layer.calls for n in _integers(call.attributes["ops"])):
        for operand in by_position[position].operands:
            root = stored_value(operand)
            owner = root.owner
            if not isinstance(owner, Operation) or (owner.name != "nn.const" and owner not in layer.ops):
                found[root] = None
    return list(found)


def stored_value(value: SSAValue) -> SSAValue:
    """The value behind reshapes, whose buffer it shares."""
    while isinstance(value.owner, Operation) and value.owner.name == "nn.reshape":
        value = value.owner.operands[0]
    return value


def evaluate_value(value: SSAValue, values: dict[SSAValue, np.ndarray]) -> np.ndarray:
    """A value of the network in numpy, from `values`, which it is added to."""
    if value not in values:
        op = value.owner
        assert isinstance(op, Operation)
        values[value] = evaluate(op, [evaluate_value(operand, values) for operand in op.operands])
    return values[value]


def compare(result: np.ndarray, expected: np.ndarray, what: str, noise: Callable[[], np.ndarray] | None = None) -> None:
    """Raise ValidationError if any element is off by more than the tolerance, or NaN where it should not be.

    `noise`: what rounding alone may do to each element, asked for only where some are off.
    """
    expected = expected.astype(np.float64)
    scale = max(float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)), 1e-30)
    with np.errstate(invalid="ignore"):  # of two infinities
        wrong = ~(np.abs(result - expected) <= TOLERANCE * scale)
    wrong &= ~((result == expected) | (np.isnan(result) & np.isnan(expected)))
    if wrong.any() and noise is not None:
        with np.errstate(invalid="ignore"):
            wrong &= ~(np.abs(result - expected) <= noise())
    if wrong.any():
        with np.errstate(invalid="ignore"):
            distance = np.nan_to_num(np.abs(result - expected), nan=np.inf)
        worst = int(np.argmax(np.where(wrong, distance, -1)))
        raise ValidationError(
            f"{what}: element {worst} of {result.size} is {result[worst]:.8g}, the reference says {expected[worst]:.8g}"
            f" ({int(wrong.sum())} elements off by more than {TOLERANCE:g} of {scale:.4g}); {OUR_BUG}"
        )
