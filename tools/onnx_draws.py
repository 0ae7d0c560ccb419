"""Draws random nodes for `onnx_graphs.py`: `Draw.step` makes one that reads tensors that there are.

Every operator that the importer knows is in `DRAWS`, and the functions there use what the opset in question says of it.
Nodes need not be valid: those that onnxruntime refuses are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_graphs import Array, Rejected, Step, words

UNARY = words(
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor HardSwish Identity Log Mish Neg Reciprocal Relu "
    "Round Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh IsInf IsNaN Dropout"
)
PARAMETERS: dict[str, tuple[str, ...]] = {
    "Celu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "Shrink": ("bias", "lambd"),
    "Swish": ("alpha",),
    "ThresholdedRelu": ("alpha",),
}
BINARY = ("Add", "Sub", "Mul", "Div", "Add", "Mul", "Sub", "Pow", "PRelu")
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGICAL = ("And", "Or", "Xor")
VARIADIC = ("Max", "Min", "Sum", "Mean")
REDUCTIONS = words(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
AXIS = ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")

LAYERS = words(
    "Add AveragePool BatchNormalization Clip Concat Conv ConvTranspose Gemm GlobalAveragePool LayerNormalization "
    "MatMul MaxPool Mul Relu Sigmoid Softmax Transpose"
)
"""What networks are made of."""


class Draw:
    """Draws nodes for a graph of an opset; `values`: of the tensors so far."""

    def __init__(self, opset: int, rng: np.random.Generator, values: Mapping[str, Array], infinite: bool = False):
        self.opset = opset
        self.wide = False
        """Whether layers are wide, and most nodes of them."""
        self.rng = rng
        self.values = values
        self.infinite = infinite
        self.count = 0

    # Chance

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def of(self, choices: Sequence[Any]) -> Any:
        if not len(choices):
            raise Rejected("nothing to choose from")
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def floats(self, *shape: int) -> Array:
        """Normal numbers, or special ones."""
        made = self.rng.standard_normal(shape).astype(np.float32)
        if self.chance(0.1):
            made = np.round(made * 2) / 2
        if self.infinite and made.size:
            special = [0.0, -0.0, 1e-41, -1e-39, 1e30, -1e30, np.inf, -np.inf, 1.0, 16777216.0, 0.5, -0.5, 2.5]
            where = self.rng.random(shape) < 0.2
            made = np.where(where, self.rng.choice(np.array(special, np.float32), shape), made)
        return np.asarray(made, np.float32)

    # Tensors

    def tensor(self, kind: str = "f", *ranks: int) -> str:
        """The name of a tensor of a kind ("f", "b", "i") and one of some ranks; later ones more often."""
        names = [n for n, v in self.values.items() if v.dtype.kind == kind and (not ranks or v.ndim in ranks)]
        return self.of(names[-4:] if self.chance(0.6) else names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def fresh(self, what: str = "t") -> str:
        self.count += 1
        return f"{what}{self.count}"

    def has(self, op_type: str, attribute: str) -> bool:
        """Whether the operator of this opset has an attribute."""
        try:
            return attribute in onnx.defs.get_schema(op_type, self.opset).attributes
        except onnx.defs.SchemaError:
            raise Rejected("not in this opset") from None

    def like(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to (or with) another."""
        made = [1 if self.chance(0.35) else n for n in shape]
        if self.chance(0.3):
            made = made[self.number(0, len(made)) :]
        if self.chance(0.1):
            made = [self.number(1, 3), *made]
        return tuple(made)

    def operand(self, shape: Sequence[int], step: dict[str, Array], kind: str = "f") -> str:
        """A second operand: a tensor that broadcasts, or a constant."""
        fitting = []
        for name, value in self.values.items():
            if value.dtype.kind == kind:
                try:
                    np.broadcast_shapes(value.shape, shape)
                except ValueError:
                    continue
                fitting.append(name)
        if fitting and self.chance(0.65):
            return self.of(fitting)
        value = self.floats(*self.like(shape))
        if kind == "b":
            value = value > 0
        elif kind == "i":
            value = np.asarray(np.round(value * 2), np.int64)
        return self.constant(step, value)

    def constant(self, step: dict[str, Array], value: Any, what: str = "c") -> str:
        name = self.fresh(what)
        step[name] = np.asarray(value)
        return name

    def integers(self, step: dict[str, Array], values: Sequence[int], what: str = "c") -> str:
        return self.constant(step, np.array(values, np.int64), what)

    def made(
        self, op_type: str, inputs: Sequence[str], step: Mapping[str, Array], outputs: int = 1, **more: Any
    ) -> Step:
        names = [self.fresh() for _ in range(outputs)]
        given = {key: value for key, value in more.items() if value is not None}
        return Step(helper.make_node(op_type, list(inputs), names, **given), dict(step))

    def axis(self, shape: Sequence[int]) -> int:
        if not shape:
            raise Rejected("a scalar has no axis")
        axis = self.number(0, len(shape) - 1)
        return axis - len(shape) if self.chance(0.4) else axis

    def axes(self, shape: Sequence[int]) -> list[int]:
        count = self.number(1, max(1, len(shape)))
        chosen = self.rng.permutation(max(1, len(shape)))[:count]
        return [int(a) - len(shape) if self.chance(0.3) else int(a) for a in chosen]

    def step(self) -> Step:
        """Any node; raises Rejected where the tensors that there are do not suit it."""
        names = list(DRAWS)
        weights = np.array([DRAWS[name][1] for name in names], float)
        if self.wide:
            weights *= [8 if name in LAYERS else 1 for name in names]
        name = names[int(self.rng.choice(len(names), p=weights / weights.sum()))]
        try:
            onnx.defs.get_schema(name, self.opset)
        except onnx.defs.SchemaError:
            raise Rejected("not in this opset") from None
        try:
            return DRAWS[name][0](self, name)
        except (ArithmeticError, IndexError, ValueError) as error:  # a tensor without the axes that it should have
            raise Rejected(str(error)) from None


# Elementwise


def unary(d: Draw, op: str) -> Step:
    return d.made(op, [d.tensor()], {})


def with_parameters(d: Draw, op: str) -> Step:
    names = [name for name in PARAMETERS[op] if d.chance(0.7)]
    values: dict[str, Any] = {name: float(np.float32(d.rng.uniform(0.05, 1.5))) for name in names}
    return d.made(op, [d.tensor()], {}, **values)


def gelu(d: Draw, op: str) -> Step:
    return d.made(op, [d.tensor()], {}, approximate=d.of([None, "none", "tanh"]))


def binary(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor()
    second = d.operand(d.shape(first), step)
    if op == "Pow" and d.chance(0.7):
        shape = d.like(d.shape(first)) if d.chance(0.3) else ()
        second = d.constant(step, np.full(shape, d.of([1, 2, 3, 0.5, -1, -2, 0, 4, 1.5, 7]), np.float32))
    if d.chance(0.4) and op != "PRelu":
        first, second = second, first
    return d.made(op, [first, second], step)


def comparison(d: Draw, op: str) -> Step:
    if d.opset < (11 if op == "Equal" else 9):
        raise Rejected("not of floats")
    step: dict[str, Array] = {}
    kind = "i" if d.chance(0.1) else "f"
    first = d.tensor(kind)
    names = [first, d.operand(d.shape(first), step, kind)]
    return d.made(op, names[:: d.of([1, -1])], step)


def logical(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor("b")
    return d.made(op, [first, d.operand(d.shape(first), step, "b")], step)


def logical_not(d: Draw, op: str) -> Step:
    return d.made(op, [d.tensor("b")], {})


def variadic(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    names = [d.tensor()]
    names += [d.operand(d.shape(names[0]), step) for _ in range(d.number(0, 2))]
    return d.made(op, names, step)


def cast(d: Draw, op: str) -> Step:
    kind = d.of(["b", "b", "i", "f"])
    to = d.of([TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32])
    return d.made(op, [d.tensor(kind)], {}, to=to)


def cast_like(d: Draw, op: str) -> Step:
    return d.made(op, [d.tensor(d.of("bif")), d.tensor(d.of("ffb"))], {})


def where(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    mask = d.tensor("b")
    shape = d.shape(mask)
    if d.chance(0.1):
        mask = d.constant(step, d.floats(*shape) > 0)
    return d.made(op, [mask, d.operand(shape, step), d.operand(shape, step)], step)


def clip(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    low, high = float(np.float32(d.rng.uniform(-1, 0.5))), float(np.float32(d.rng.uniform(0, 7)))
    if d.chance(0.2):
        low, high = 0.0, 6.0
    if d.has(op, "min"):
        return d.made(op, [d.tensor()], {}, min=d.of([low, None]), max=d.of([high, None]))
    bounds = [d.of([d.constant(step, np.float32(v)), ""]) for v in (low, high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    return d.made(op, [d.tensor(), *bounds], {name: step[name] for name in bounds if name})


# Moves


def transpose(d: Draw, op: str) -> Step:
    name = d.tensor(d.of("ffffb"))
    permutation = [int(n) for n in d.rng.permutation(len(d.shape(name)))]
    return d.made(op, [name], {}, perm=d.of([permutation, permutation, None]))


def _factors(d: Draw, count: int) -> list[int]:
    """A shape of so many elements."""
    shape = []
    while count > 1 and len(shape) < 5:
        divisor = d.of([n for n in range(1, count + 1) if count % n == 0])
        shape.append(divisor)
        count //= divisor
    shape += [count] if count > 1 or not shape or d.chance(0.2) else []
    return [shape[i] for i in d.rng.permutation(len(shape))]


def reshape(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor(d.of("ffffb"))
    own = d.shape(name)
    shape = _factors(d, prod(own))
    if d.chance(0.3):
        shape[d.number(0, len(shape) - 1)] = -1
    if own and d.chance(0.2) and shape[0] == own[0]:
        shape[0] = 0
    return d.made(op, [name, d.integers(step, shape)], step)


def flatten(d: Draw, op: str) -> Step:
    name = d.tensor()
    low = -len(d.shape(name)) if d.opset >= 11 else 0
    return d.made(op, [name], {}, axis=d.of([None, d.number(low, len(d.shape(name)))]))


def with_axes(d: Draw, op: str, inputs: list[str], step: dict[str, Array], axes: Any, **more: Any) -> Step:
    """With axes as an attribute or as an input, whatever the opset wants."""
    if axes is None:
        return d.made(op, inputs, step, **more)
    if d.has(op, "axes"):
        if d.opset < 11:
            rank = len(d.shape(inputs[0])) + (len(axes) if op == "Unsqueeze" else 0)
            axes = [a % rank for a in axes]
        return d.made(op, inputs, step, axes=axes, **more)
    return d.made(op, [*inputs, d.integers(step, axes)], step, **more)


def squeeze(d: Draw, op: str) -> Step:
    name = d.tensor()
    ones = [axis for axis, n in enumerate(d.shape(name)) if n == 1]
    chosen = [a for a in ones if d.chance(0.6)] or [d.of(ones)]
    return with_axes(d, op, [name], {}, chosen if d.chance(0.8) else None)


def unsqueeze(d: Draw, op: str) -> Step:
    name = d.tensor()
    count = d.number(1, 2)
    rank = len(d.shape(name)) + count
    axes = [int(n) - (rank if d.chance(0.3) else 0) for n in d.rng.permutation(rank)[:count]]
    return with_axes(d, op, [name], {}, axes)


def concat(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    first = d.tensor()
    shape = list(d.shape(first))
    axis = d.axis(shape)
    names = [first]
    for _ in range(d.number(1, 3)):
        fitting = [
            n
            for n, v in d.values.items()
            if v.dtype.kind == "f" and v.ndim == len(shape) and _but(v.shape, axis) == _but(shape, axis)
        ]
        if d.chance(0.6):
            names.append(d.of(fitting))
        else:
            shape[axis] = d.number(1, 3)
            names.append(d.constant(step, d.floats(*shape)))
    return d.made(op, [names[i] for i in d.rng.permutation(len(names))], step, axis=axis)


def _but(shape: Sequence[int], axis: int) -> list[int]:
    kept = list(shape)
    del kept[axis]
    return kept


def slice_(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    shape = d.shape(name)
    axes = d.axes(shape)
    starts, ends, steps = [], [], []
    for axis in axes:
        n = shape[axis]
        begin, end = sorted((d.number(0, n), d.number(0, n)))
        stride = d.of([1, 1, 2, 3])
        if d.opset >= 10 and d.chance(0.3):
            begin, end, stride = end - 1, begin - 1 - n, -stride
        elif d.chance(0.2):
            begin -= n
        ends.append(d.of([end, end, 2**31 - 1 if stride > 0 else -(2**31)]))
        starts.append(begin)
        steps.append(stride)
    if d.opset < 10:
        return d.made(op, [name], {}, starts=starts, ends=ends, axes=[a % len(shape) for a in axes])
    lists = [starts, ends, axes, steps] if d.chance(0.8) else [starts, ends, axes]
    return d.made(op, [name, *[d.integers(step, values) for values in lists]], step)


def split(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    n = d.shape(name)[axis]
    count = d.number(1, min(n, 3))
    places = sorted(int(p) for p in d.rng.permutation(n - 1)[: count - 1] + 1)
    sizes = [b - a for a, b in zip([0, *places], [*places, n], strict=True)]
    if d.has(op, "split"):
        return d.made(op, [name], {}, count, axis=axis, split=sizes)
    if d.has(op, "num_outputs") and d.chance(0.4):
        return d.made(op, [name], {}, count, axis=axis, num_outputs=count)
    return d.made(op, [name, d.integers(step, sizes)], step, count, axis=axis)


def pad(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    rank = len(d.shape(name))
    mode = d.of([None, "constant", "reflect", "edge", *(["wrap"] if d.opset >= 19 else [])])
    low = 0 if mode == "wrap" else -1
    pads = [d.of([0, 0, d.number(low, 2)]) for _ in range(2 * rank)]
    value = float(np.float32(d.rng.normal())) if mode in (None, "constant") and d.chance(0.5) else None
    if d.has(op, "pads"):
        return d.made(op, [name], {}, mode=mode, pads=pads, value=value)
    inputs = [name, d.integers(step, pads)]
    if value is not None:
        inputs.append(d.constant(step, np.float32(value)))
    return d.made(op, inputs, step, mode=mode)


def expand(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    wanted = [d.number(2, 3) if n == 1 and d.chance(0.6) else d.of([n, 1]) for n in d.shape(name)]
    wanted = [d.number(1, 2), *wanted] if d.chance(0.3) else wanted
    return d.made(op, [name, d.integers(step, wanted)], step)


def tile(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    return d.made(op, [name, d.integers(step, [d.of([1, 1, 2, 3]) for _ in d.shape(name)])], step)


def blocks(d: Draw, op: str) -> Step:
    mode = d.of(["DCR", "CRD", None]) if op == "DepthToSpace" and d.opset >= 11 else None
    return d.made(op, [d.tensor("f", 4)], {}, blocksize=d.of([1, 2, 2, 3]), mode=mode)


def triangle(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    names = [d.tensor("f", 2, 3, 4)]
    if d.chance(0.7):
        names.append(d.constant(step, np.array(d.number(-2, 3), np.int64)))
    return d.made(op, names, step, upper=d.of([None, 0, 1]))


# Reductions


def reduction(d: Draw, op: str) -> Step:
    name = d.tensor()
    axes = d.axes(d.shape(name)) if d.shape(name) and d.chance(0.85) else None
    return with_axes(d, op, [name], {}, axes, keepdims=d.of([None, 0, 1]))


def extreme(d: Draw, op: str) -> Step:
    name = d.tensor()
    more = {"select_last_index": d.of([0, 1, None])} if d.opset >= 12 else {}
    axis = d.axis(d.shape(name))
    axis = axis % len(d.shape(name)) if d.opset < 11 else axis
    return d.made(op, [name], {}, axis=axis, keepdims=d.of([None, 0, 1]), **more)


def along_axis(d: Draw, op: str) -> Step:
    name = d.tensor()
    axis = d.axis(d.shape(name))
    if d.opset < 11 and op != "LpNormalization":
        axis %= len(d.shape(name))
    more = {"p": d.of([1, 2])} if op == "LpNormalization" else {}
    return d.made(op, [name], {}, axis=d.of([None, axis, axis]), **more)


def cumulative(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.constant(step, np.array(d.axis(d.shape(name)), np.int64))
    return d.made(op, [name, axis], step, exclusive=d.of([0, 1, None]), reverse=d.of([0, 1, None]))


def top_k(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    count = d.number(1, d.shape(name)[axis])
    if d.has(op, "k"):
        return d.made(op, [name], {}, 2, axis=axis, k=count)
    more = {"largest": d.of([0, 1, None])} if d.opset >= 11 else {}
    return d.made(op, [name, d.integers(step, [count])], step, 2, axis=axis, **more)


# Normalisations


def batch_norm(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 2, 3, 4, 5)
    n = d.shape(name)[1]
    values = [d.rng.normal(size=n), d.rng.normal(size=n), d.rng.normal(size=n), d.rng.uniform(0.3, 2, n)]
    names = [d.constant(step, v.astype(np.float32)) for v in values]
    return d.made(op, [name, *names], step, epsilon=d.of([None, 1e-3]))


def several(count: int) -> None:
    """Refuses to centre a single element: what is left of it are rounding errors."""
    if count < 2:
        raise Rejected("one element")


def parameters(d: Draw, step: dict[str, Array], shape: Sequence[int], count: int) -> list[str]:
    return [d.constant(step, d.rng.normal(size=shape).astype(np.float32)) for _ in range(count)]


def layer_norm(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor()
    axis = d.axis(d.shape(name))
    several(prod(d.shape(name)[axis:]))
    count = 1 if op == "RMSNormalization" else d.number(1, 2)
    names = parameters(d, step, d.shape(name)[axis:], count)
    return d.made(op, [name, *names], step, axis=axis, epsilon=d.of([None, 1e-3]))


def instance_norm(d: Draw, op: str) -> Step:
    step: dict[str, Array] = {}
    name = d.tensor("f", 3, 4, 5)
    several(prod(d.shape(name)[2:]))
    return d.made(op, [name, *parameters(d, step, d.shape(name)[1:2], 2)], step)


def group_norm(d: Draw, op: str) -> Step:
    if d.opset < 21:
        raise Rejected("onnx has withdrawn it")
    step: dict[str, Array] = {}
    name = d.tensor("f", 3, 4, 5)
    n = d.shape(name)[1]
    groups = d.of([g for g in range(1, n + 1) if n % g == 0])
    several(prod(d.shape(name)[1:]) // groups)
    names = parameters(d, step, (n,), 2)
    return d.made(op, [name, *names], step, num_groups=groups)


def mean_variance(d: Draw, op: str) -> Step:
    name = d.tensor()
    axes = [a % len(d.shape(name)) for a in d.axes(d.shape(name))] if d.chance(0.7) else None
    if axes is None and len(d.shape(name)) != 4:
        raise Rejected("the axes are those of an image")
    several(prod(d.shape(name)[a] for a in axes or (0, 2, 3)))
    return d.made(op, [name], {}, axes=axes)


def lrn(d: Draw, op: str) -> Step:
    return d.made(op, [d.tensor("f", 3, 4)], {}, size=d.of([1, 3, 5]), alpha=d.of([None, 0.1]), beta=d.of([None, 0.5]))


DRAWS: dict[str, tuple[Callable[[Draw, str], Step], float]] = {
    **dict.fromkeys(UNARY, (unary, 0.5)),
    **dict.fromkeys(PARAMETERS, (with_parameters, 0.5)),
    **dict.fromkeys(BINARY, (binary, 2)),
    **dict.fromkeys(COMPARISONS, (comparison, 0.5)),
    **dict.fromkeys(LOGICAL, (logical, 0.5)),
    **dict.fromkeys(VARIADIC, (variadic, 1)),
    **dict.fromkeys(REDUCTIONS, (reduction, 0.8)),
    **dict.fromkeys(AXIS, (along_axis, 0.6)),
    **dict.fromkeys(("ArgMax", "ArgMin"), (extreme, 0.5)),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), (blocks, 1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), (layer_norm, 0.7)),
    "BatchNormalization": (batch_norm, 2),
    "Cast": (cast, 1),
    "CastLike": (cast_like, 0.5),
    "Clip": (clip, 1),
    "Concat": (concat, 3),
    "CumSum": (cumulative, 0.7),
    "Expand": (expand, 1),
    "Flatten": (flatten, 1),
    "Gelu": (gelu, 0.5),
    "GroupNormalization": (group_norm, 0.7),
    "InstanceNormalization": (instance_norm, 0.7),
    "LRN": (lrn, 0.7),
    "MeanVarianceNormalization": (mean_variance, 0.5),
    "Not": (logical_not, 0.5),
    "Pad": (pad, 2.5),
    "Reshape": (reshape, 4),
    "Slice": (slice_, 3),
    "Softmax": (along_axis, 2),
    "Split": (split, 1.5),
    "Squeeze": (squeeze, 1),
    "Tile": (tile, 1),
    "TopK": (top_k, 0.5),
    "Transpose": (transpose, 4),
    "Trilu": (triangle, 0.6),
    "Unsqueeze": (unsqueeze, 1),
    "Where": (where, 1.5),
}
"""Operator → the function that draws it, how often."""
