"""Handlers of the ONNX operators that are no windows: dense layers, activations, arithmetic, shapes. `HANDLERS` lists all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f32, i64

from ml4f.dialects.nn import ActAttr, numbers
from ml4f.dialects.nn import ops as nn
from ml4f.frontend import importer_windows as windows
from ml4f.frontend.importer import Flattened, Importer, Node, NotSupported, Tensor, Value


# Activations


def _activation(name: str, *parameters: tuple[str, float]) -> Callable[[Importer, Node], None]:
    """An activation whose parameters are attributes with defaults."""

    def handle(importer: Importer, node: Node) -> None:
        emit_activation(importer, node, name, [float(node.get(p, default)) for p, default in parameters])

    return handle


def emit_activation(importer: Importer, node: Node, name: str, parameters: Sequence[float] = ()) -> None:
    """One nn.activation in whatever order the input lies."""
    value = importer.tensors[node.proto.input[0]]
    base = value.base if isinstance(value, Flattened) else value
    act = ActAttr.of(name, parameters)
    made = importer.emit(nn.ActivationOp, [base.value], nn.shape_of(base.value), act=act)
    tensor = Tensor(made, base.shape, base.order)
    result: Value = Flattened(tensor, value.shape) if isinstance(value, Flattened) else tensor
    importer.result(node.proto.output[0], result)


def clip(importer: Importer, node: Node) -> None:
    """Clip with constant bounds, as attributes (opset < 11) or inputs."""
    bounds = [float(node.get("min", -math.inf)), float(node.get("max", math.inf))]
    for index, name in enumerate(node.proto.input[1:3]):
        if name:
            constant = importer.const(name)
            if constant is None:
                raise NotSupported("the bounds must be constants")
            bounds[index] = float(constant.reshape(-1)[0])
    largest = float(np.finfo(np.float32).max)
    low, high = (-math.inf if bounds[0] <= -largest else bounds[0]), (math.inf if bounds[1] >= largest else bounds[1])
    if low > high:
        low = high
    if (low, high) == (-math.inf, math.inf):
        identity(importer, node)
    elif (low, high) == (0, math.inf):
        emit_activation(importer, node, "relu")
    elif (low, high) == (0, 6):
        emit_activation(importer, node, "relu6")
    else:
        emit_activation(importer, node, "clip", [low, high])


def gelu(importer: Importer, node: Node) -> None:
    """Gelu, exact or with the tanh approximation."""
    emit_activation(importer, node, "gelu_tanh" if node.get("approximate", "none") == "tanh" else "gelu")


def prelu(importer: Importer, node: Node) -> None:
    """PRelu with a constant slope."""
    slope = importer.const(node.proto.input[1])
    if slope is None:
        raise NotSupported("the slope must be a constant")
    x = importer.tensor(node.proto.input[0])
    if slope.size == 1:
        emit_activation(importer, node, "leaky_relu", [float(slope.reshape(-1)[0])])
        return
    operand = importer.constant(aligned_constant(slope, x))
    source = importer.reshaped(x.value, x.memory_shape)
    importer.result(
        node.proto.output[0],
        Tensor(importer.emit(nn.PreluOp, [source, operand], x.memory_shape), x.shape, x.order),
    )


def softmax(importer: Importer, node: Node) -> None:
    """Softmax; before opset 13 over all dimensions from the axis on."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    axis = int(node.get("axis", -1 if importer.opset >= 13 else 1)) % max(rank, 1)
    if importer.opset < 13 and prod(x.shape[axis + 1 :]) > 1:
        x = importer.in_order(x)
        outer = prod(x.shape[:axis])
        source = importer.reshaped(x.value, (outer, prod(x.shape[axis:])))
        value = importer.emit(nn.SoftmaxOp, [source], nn.shape_of(source), axis=IntegerAttr(1, i64))
    else:
        ordered = x.ordered
        source = importer.reshaped(x.value, ordered)
        value = importer.emit(nn.SoftmaxOp, [source], ordered, axis=IntegerAttr(x.order.index(axis), i64))
    importer.result(node.proto.output[0], Tensor(value, x.shape, x.order))


# Dense layers


def dense(importer: Importer, node: Node, x_name: str, weights: np.ndarray, bias: np.ndarray | None) -> None:
    """`x @ weights + bias` over the last axis of x."""
    value = importer.tensors[x_name]
    inputs, outputs = weights.shape
    if not value.shape or value.shape[-1] != inputs:
        raise NotSupported(f"weights {list(weights.shape)} do not fit the input {list(value.shape)}")
    rows = prod(value.shape[:-1])
    if isinstance(value, Flattened) and rows == 1:
        base = value.base
        weights = weights[memory_positions(base)]
        source, order = base.value, tuple(range(len(value.shape)))
    else:
        x = importer.tensor(x_name)
        last = len(x.shape) - 1
        if x.significant and x.shape[last] > 1 and x.significant[-1] != last:
            x = importer.in_order(x)
        order = (*(axis for axis in x.order if axis != last), last)
        source = x.value
    shape = (inputs,) if rows == 1 else (rows, inputs)
    operands = [importer.reshaped(source, shape), importer.constant(weights)]
    if bias is not None:
        operands.append(importer.constant(np.broadcast_to(bias.reshape(-1), (outputs,))))
    made = importer.emit(nn.DenseOp, operands, (*shape[:-1], outputs))
    importer.result(node.proto.output[0], Tensor(made, (*value.shape[:-1], outputs), order))


def memory_positions(tensor: Tensor) -> np.ndarray:
    """For each element in memory its position in the tensor's own order."""
    return np.arange(prod(tensor.shape)).reshape(tensor.shape).transpose(tensor.order).ravel()


def gemm(importer: Importer, node: Node) -> None:
    """Gemm with constant B and C."""
    names = [*node.proto.input, ""]
    weights, bias = importer.const(names[1]), importer.const(names[2])
    if weights is None or (names[2] and bias is None):
        raise NotSupported("the second and third operand must be constants")
    if node.get("transA", 0):
        raise NotSupported("a transposed first operand")
    if node.get("transB", 0):
        weights = weights.T
    weights = weights * np.float32(node.get("alpha", 1.0))
    if bias is not None:
        bias = bias * np.float32(node.get("beta", 1.0))
        if bias.ndim > 1 and prod(bias.shape[:-1]) != 1:
            raise NotSupported(f"a bias of shape {list(bias.shape)}")
    dense(importer, node, names[0], weights, bias)


def matmul(importer: Importer, node: Node) -> None:
    """MatMul with constant weights on the right."""
    weights = importer.const(node.proto.input[1])
    if weights is None or node.proto.input[0] in importer.constants:
        raise NotSupported("one operand must be computed and the right one constant")
    if weights.ndim == 1:
        raise NotSupported("a vector on the right")
    if prod(weights.shape[:-2]) != 1:
        raise NotSupported(f"weights of shape {list(weights.shape)}")
    dense(importer, node, node.proto.input[0], weights.reshape(weights.shape[-2:]), None)


# Arithmetic


def aligned_constant(array: np.ndarray, x: Tensor) -> np.ndarray:
    """A constant that broadcasts against the tensor's memory shape."""
    rank = len(x.shape)
    expanded = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(x.order)
    return expanded.reshape([expanded.shape[i] for i, axis in enumerate(x.order) if len(x.memory_shape) == rank or axis])


def _binary(op: type[nn.BinaryOp]) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        combine(importer, node, op, node.proto.input[0], node.proto.input[1])

    return handle


def combine(importer: Importer, node: Node, op: type[nn.BinaryOp], left: str, right: str) -> None:
    """An elementwise operation of two values with broadcasting."""
    names = (left, right)
    constants = [importer.const(name) for name in names]
    lead = 1 if constants[0] is not None else 0
    shapes = [importer.shape(name) for name in names]
    shape = np.broadcast_shapes(*shapes)
    if constants[lead] is None and constants[1 - lead] is None and prod(shapes[0]) < prod(shapes[1]):
        lead = 1
    x = expanded(importer.tensor(names[lead]), len(shape))
    operands = [None, None]
    other = constants[1 - lead]
    if other is not None and other.dtype.kind != "f":
        other = other.astype(np.float32)
    if other is not None:
        y_shape = np.shape(aligned_constant(other, x))
        operands[1 - lead] = importer.constant(aligned_constant(other, x))
    else:
        y = importer.arranged(expanded(importer.tensor(names[1 - lead]), len(shape)), x.order)
        y_shape = tuple(y.shape[axis] for axis in x.order if len(x.memory_shape) == len(shape) or axis)
        operands[1 - lead] = importer.reshaped(y.value, y_shape)
    operands[lead] = importer.reshaped(x.value, x.memory_shape)
    memory = np.broadcast_shapes(x.memory_shape, y_shape)
    value = importer.emit(op, operands, memory)  # pyright: ignore[reportArgumentType]
    importer.result(node.proto.output[0], Tensor(value, tuple(shape), x.order))


def expanded(tensor: Tensor, rank: int) -> Tensor:
    """With axes of extent 1 in front."""
    extra = rank - len(tensor.shape)
    order = (*range(extra), *(axis + extra for axis in tensor.order))
    return Tensor(tensor.value, (1,) * extra + tensor.shape, order)


def _variadic(op: type[nn.BinaryOp]) -> Callable[[Importer, Node], None]:
    """Sum, Max, Min of any number of inputs."""

    def handle(importer: Importer, node: Node) -> None:
        names = list(node.proto.input)
        if len(names) == 1:
            identity(importer, node)
            return
        output = node.proto.output[0]
        accumulated = names[0]
        for index, name in enumerate(names[1:], 1):
            combine(importer, node, op, accumulated, name)
            if index < len(names) - 1:
                accumulated = f"{output}/{index}"
                importer.tensors[accumulated] = importer.tensors.pop(output)

    return handle


def power(importer: Importer, node: Node) -> None:
    """Pow with the exponents 1, 2, 0.5 and -1."""
    exponent = importer.const(node.proto.input[1])
    functions = {1.0: "linear", 2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    value = float(exponent.reshape(-1)[0]) if exponent is not None and exponent.size == 1 else math.nan
    if value not in functions:
        raise NotSupported("the exponent must be the constant 1, 2, 0.5 or -1")
    emit_activation(importer, node, functions[value])


def batch_normalization(importer: Importer, node: Node) -> None:
    """In inference form: scale = gamma / sqrt(variance + epsilon), offset = beta - mean * scale."""
    parameters = [importer.const(name) for name in node.proto.input[1:5]]
    if len(parameters) != 4 or any(p is None for p in parameters) or node.get("training_mode", 0):
        raise NotSupported("the parameters must be four constants, and the model be exported for inference")
    gamma, beta, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
    scale = gamma / np.sqrt(variance + float(node.get("epsilon", 1e-5)))
    offset = beta - mean * scale
    x = importer.tensor(node.proto.input[0])
    affine(importer, node, x, scale, offset, 1 if len(x.shape) > 1 else 0)


def affine(importer: Importer, node: Node, x: Tensor, scale: np.ndarray, offset: np.ndarray, axis: int) -> None:
    """`x * scale + offset` along an axis, as one operation if that axis is last in memory."""
    if x.shape[axis] != scale.size:
        raise NotSupported(f"{scale.size} parameters for {x.shape[axis]} channels")
    if not x.significant or x.significant[-1] == axis or x.shape[axis] == 1:
        shape = (prod(x.shape) // scale.size, scale.size) if scale.size != prod(x.shape) else (scale.size,)
        shape = x.memory_shape if x.memory_shape and x.memory_shape[-1] == scale.size else shape
        operands = [importer.reshaped(x.value, shape), importer.constant(scale), importer.constant(offset)]
        value = importer.emit(nn.BatchNormOp, operands, shape)
    else:
        per_axis = [scale.size if a == axis else 1 for a in range(len(x.shape))]
        source = importer.reshaped(x.value, x.memory_shape)
        factors = importer.constant(aligned_constant(scale.reshape(per_axis), x))
        value = importer.emit(nn.MulOp, [source, factors], x.memory_shape)
        summands = importer.constant(aligned_constant(offset.reshape(per_axis), x))
        value = importer.emit(nn.AddOp, [value, summands], x.memory_shape)
    importer.result(node.proto.output[0], Tensor(value, x.shape, x.order))


# Shapes


def identity(importer: Importer, node: Node) -> None:
    """Identity, Dropout and other training-only operators."""
    importer.tensors[node.proto.output[0]] = importer.tensors[node.proto.input[0]]


def cast(importer: Importer, node: Node) -> None:
    """Between float types."""
    from ml4f.frontend.importer import FLOAT_TYPES

    if node.get("to") not in FLOAT_TYPES:
        raise NotSupported("only casts to float types")
    identity(importer, node)


def transpose(importer: Importer, node: Node) -> None:
    """Only the order changes."""
    x = importer.tensor(node.proto.input[0])
    permutation = node.ints("perm", tuple(range(len(x.shape)))[::-1])
    if sorted(permutation) != list(range(len(x.shape))):
        raise NotSupported(f"permutation {list(permutation)} of {list(x.shape)}")
    order = tuple(permutation.index(axis) for axis in x.order)
    importer.result(node.proto.output[0], Tensor(x.value, tuple(x.shape[axis] for axis in permutation), order))


def with_shape(importer: Importer, node: Node, shape: Sequence[int]) -> None:
    """The same elements with another shape: free if memory is in order, else decided by whoever reads it."""
    shape = tuple(int(n) for n in shape)
    value = importer.tensors[node.proto.input[0]]
    if prod(shape) != prod(value.shape):
        raise NotSupported(f"{list(value.shape)} cannot become {list(shape)}")
    output = node.proto.output[0]
    if isinstance(value, Flattened):
        importer.tensors[output] = Flattened(value.base, shape)
        return
    kept = [n for n in value.shape if n > 1]
    if kept == [n for n in shape if n > 1]:
        importer.result(output, Tensor(value.value, shape, _same_order(value, shape)))
    elif value.in_order:
        importer.result(output, Tensor(value.value, shape, tuple(range(len(shape)))))
    else:
        importer.tensors[output] = Flattened(value, shape)


def _same_order(x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The order of axes when only extents of 1 came or went."""
    new = [axis for axis, n in enumerate(shape) if n > 1]
    old = [axis for axis, n in enumerate(x.shape) if n > 1]
    ones = [axis for axis, n in enumerate(shape) if n == 1]
    return (*ones, *(new[old.index(axis)] for axis in x.significant))


def reshape(importer: Importer, node: Node) -> None:
    """Reshape to a constant shape; 0 copies, -1 is inferred."""
    constant = importer.const(node.proto.input[1]) if len(node.proto.input) > 1 else np.array(node.ints("shape"))
    if constant is None:
        raise NotSupported("the shape must be a constant")
    value = importer.tensors[node.proto.input[0]]
    shape = [int(n) for n in np.ravel(constant)]
    if not node.get("allowzero", 0):
        shape = [value.shape[axis] if n == 0 and axis < len(value.shape) else n for axis, n in enumerate(shape)]
    if shape.count(-1) == 1:
        known = -prod(shape)
        if known and prod(value.shape) % known == 0:
            shape[shape.index(-1)] = prod(value.shape) // known
    with_shape(importer, node, shape)


def flatten(importer: Importer, node: Node) -> None:
    """To two dimensions."""
    shape = importer.shape(node.proto.input[0])
    axis = int(node.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    with_shape(importer, node, (prod(shape[:axis]), prod(shape[axis:])))


def _axes(importer: Importer, node: Node) -> list[int] | None:
    if len(node.proto.input) > 1 and node.proto.input[1]:
        constant = importer.const(node.proto.input[1])
        if constant is None:
            raise NotSupported("the axes must be constants")
        return [int(a) for a in np.ravel(constant)]
    return list(node.ints("axes")) if "axes" in node.attributes else None


def squeeze(importer: Importer, node: Node) -> None:
    """Drop axes of extent 1."""
    shape = importer.shape(node.proto.input[0])
    axes = _axes(importer, node)
    dropped = [i for i, n in enumerate(shape) if n == 1] if axes is None else [axis % len(shape) for axis in axes]
    with_shape(importer, node, [n for axis, n in enumerate(shape) if axis not in dropped])


def unsqueeze(importer: Importer, node: Node) -> None:
    """Insert axes of extent 1."""
    shape = list(importer.shape(node.proto.input[0]))
    axes = _axes(importer, node) or []
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    with_shape(importer, node, shape)


def concat(importer: Importer, node: Node) -> None:
    """Concat of computed tensors (constants may be among them)."""
    names = list(node.proto.input)
    first = next(importer.tensor(name) for name in names if name not in importer.constants)
    axis = int(node.get("axis", 0)) % len(first.shape)
    tensors = [importer.arranged(importer.tensor(name), first.order) for name in names]
    if axis == 0 and len(first.shape) > 1:
        raise NotSupported("joining along the batch dimension")
    values = [importer.reshaped(t.value, t.memory_shape) for t in tensors]
    extent = sum(t.shape[axis] for t in tensors)
    shape = (*first.shape[:axis], extent, *first.shape[axis + 1 :])
    memory_axis = [a for a in first.order if a or len(first.memory_shape) == len(first.shape)].index(axis)
    memory = list(first.memory_shape)
    memory[memory_axis] = extent
    value = importer.emit(nn.ConcatOp, values, tuple(memory), axis=IntegerAttr(memory_axis, i64))
    importer.result(node.proto.output[0], Tensor(value, shape, first.order))


def pad(importer: Importer, node: Node) -> None:
    """Pad with a constant; negative amounts crop."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    if node.get("mode", "constant") != "constant":
        raise NotSupported(f"padding mode {node.get('mode')}")
    amounts, value, axes = list(node.ints("pads")), float(node.get("value", 0.0)), list(range(rank))
    inputs = [*node.proto.input, "", "", ""]
    if inputs[1]:
        constants = [importer.const(name) if name else None for name in inputs[1:4]]
        if constants[0] is None:
            raise NotSupported("the amounts must be constants")
        amounts = [int(n) for n in np.ravel(constants[0])]
        value = 0.0 if constants[1] is None else float(np.ravel(constants[1])[0])
        axes = axes if constants[2] is None else [int(a) % rank for a in np.ravel(constants[2])]
    low, high = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        low[axis], high[axis] = amounts[index], amounts[index + len(axes)]
    if low[0] or high[0]:
        raise NotSupported("padding of the batch dimension")
    tensor = Tensor(importer.reshaped(x.value, x.ordered), x.shape, x.order)
    if min((*low, *high)) < 0:
        tensor = cropped(importer, tensor, [max(0, -n) for n in low], [max(0, -n) for n in high])
    if max((*low, *high)) > 0:
        tensor = padded(importer, tensor, [max(0, n) for n in low], [max(0, n) for n in high], value)
    importer.result(node.proto.output[0], tensor)


def padded(importer: Importer, x: Tensor, low: Sequence[int], high: Sequence[int], value: float) -> Tensor:
    """With more elements at both ends of each axis."""
    shape = tuple(a + n + b for a, n, b in zip(low, x.shape, high, strict=True))
    ordered = tuple(shape[axis] for axis in x.order)
    made = importer.emit(
        nn.PadOp,
        [x.value],
        ordered,
        low=numbers([low[axis] for axis in x.order]),
        high=numbers([high[axis] for axis in x.order]),
        value=FloatAttr(value, f32),
    )
    return Tensor(made, shape, x.order)


def cropped(importer: Importer, x: Tensor, low: Sequence[int], high: Sequence[int]) -> Tensor:
    """With fewer elements at both ends of each axis."""
    shape = tuple(n - a - b for a, n, b in zip(low, x.shape, high, strict=True))
    return sliced(importer, x, low, [1] * len(shape), shape)


def sliced(importer: Importer, x: Tensor, start: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Every `steps`-th element from `start`, `sizes` of them, on each axis."""
    if min(sizes) < 1:
        raise NotSupported(f"an empty result {list(sizes)}")
    made = importer.emit(
        nn.SliceOp,
        [importer.reshaped(x.value, x.ordered)],
        tuple(sizes[axis] for axis in x.order),
        start=numbers([start[axis] for axis in x.order]),
        strides=numbers([steps[axis] for axis in x.order]),
        sizes=numbers([sizes[axis] for axis in x.order]),
    )
    return Tensor(made, tuple(sizes), x.order)


def slice_(importer: Importer, node: Node) -> None:
    """Slice with constant starts, ends, axes and steps."""
    x = importer.tensor(node.proto.input[0])
    rank = len(x.shape)
    if len(node.proto.input) > 1:
        given = [importer.const(name) if name else None for name in [*node.proto.input[1:], "", ""][:4]]
        if given[0] is None or given[1] is None:
            raise NotSupported("starts and ends must be constants")
        lists = [None if g is None else [int(v) for v in np.ravel(g)] for g in given]
    else:
        lists = [list(node.ints("starts")), list(node.ints("ends")), list(node.ints("axes")) or None, None]
    starts, ends = lists[0] or [], lists[1] or []
    axes = lists[2] if lists[2] is not None else list(range(len(starts)))
    steps = lists[3] if lists[3] is not None else [1] * len(starts)
    start, stride, size = [0] * rank, [1] * rank, list(x.shape)
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= rank
        picked = range(x.shape[axis])[slice(begin, end, step)]
        start[axis], stride[axis], size[axis] = (picked[0] if len(picked) else 0), step, len(picked)
    importer.result(node.proto.output[0], sliced(importer, x, start, stride, size))


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "Abs": _activation("abs"),
    "Add": _binary(nn.AddOp),
    "AveragePool": windows.average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Ceil": _activation("ceil"),
    "Celu": _activation("celu", ("alpha", 1.0)),
    "Clip": clip,
    "Concat": concat,
    "Conv": windows.conv,
    "Div": _binary(nn.DivOp),
    "Dropout": identity,
    "Elu": _activation("elu", ("alpha", 1.0)),
    "Erf": _activation("erf"),
    "Exp": _activation("exp"),
    "Flatten": flatten,
    "Floor": _activation("floor"),
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": windows.global_pool,
    "GlobalMaxPool": windows.global_pool,
    "HardSigmoid": _activation("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": _activation("hard_swish"),
    "Identity": identity,
    "LeakyRelu": _activation("leaky_relu", ("alpha", 0.01)),
    "Log": _activation("log"),
    "MatMul": matmul,
    "Max": _variadic(nn.MaxOp),
    "MaxPool": windows.max_pool,
    "Min": _variadic(nn.MinOp),
    "Mish": _activation("mish"),
    "Mul": _binary(nn.MulOp),
    "Neg": _activation("neg"),
    "PRelu": prelu,
    "Pad": pad,
    "Pow": power,
    "Reciprocal": _activation("reciprocal"),
    "ReduceMax": windows.reduce,
    "ReduceMean": windows.reduce,
    "ReduceSum": windows.reduce,
    "Relu": _activation("relu"),
    "Reshape": reshape,
    "Round": _activation("round"),
    "Selu": _activation("selu", ("alpha", 1.6732631921768188), ("gamma", 1.0507010221481323)),
    "Sigmoid": _activation("sigmoid"),
    "Sign": _activation("sign"),
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Sqrt": _activation("sqrt"),
    "Squeeze": squeeze,
    "Sub": _binary(nn.SubOp),
    "Sum": _variadic(nn.AddOp),
    "Tanh": _activation("tanh"),
    "ThresholdedRelu": _activation("thresholded_relu", ("alpha", 1.0)),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
"""ONNX operator → the function that emits it."""
