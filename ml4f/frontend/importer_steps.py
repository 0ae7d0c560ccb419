"""Building blocks for operators that are made of several nn operations: values by name, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from xdsl.dialects.builtin import StringAttr

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.dialects.nn import numbers
from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_arithmetic import combine, emit_activation
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_values import NotSupported, Tensor

FOLDED: dict[type[nn.BinaryOp], Callable[[Any, Any], Any]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: np.multiply,
    nn.DivOp: np.divide,
    nn.MaxOp: np.maximum,
    nn.MinOp: np.minimum,
    nn.WhereOp: lambda a, mask: np.where(mask != 0, a, np.float32(0)),
}
"""Operations of two constants, which are computed when importing."""


class Steps:
    """Emits the steps of one node. Intermediate values are named after the node's first output."""

    def __init__(self, importer: Importer, node: Node, base: str | None = None):
        self.importer = importer
        self.node = node
        self.base = base or next(name for name in node.proto.output if name)
        self.count = 0

    def fresh(self) -> str:
        """A name that no tensor of the model has."""
        self.count += 1
        return f"{self.base}/{self.node.op_type}{self.count}"

    def constant(self, value: Any) -> str:
        """A constant, under a name."""
        name = self.fresh()
        self.importer.constants[name] = np.asarray(value, dtype=np.float32)
        return name

    def value(self, tensor: Tensor) -> str:
        """A tensor, under a name."""
        name = self.fresh()
        self.importer.tensors[name] = tensor
        return name

    def binary(self, op: type[nn.BinaryOp], a: str, b: str | float, output: str | None = None) -> str:
        """Elementwise, with broadcasting; a number is a constant."""
        output = output or self.fresh()
        b = b if isinstance(b, str) else self.constant(b)
        left, right = self.importer.const(a), self.importer.const(b)
        if left is not None and right is not None and op in FOLDED:
            values = FOLDED[op](left.astype(np.float32), right.astype(np.float32))
            self.importer.constants[output] = np.asarray(values, dtype=np.float32)
        else:
            combine(self.importer, self.node, op, a, b, output)
        return output

    def activation(self, name: str, x: str, *parameters: float, output: str | None = None) -> str:
        """An elementwise function."""
        output = output or self.fresh()
        if (value := self.importer.const(x)) is not None:
            result = ACTIVATIONS[name].reference(value.astype(np.float32), *parameters)
            self.importer.constants[output] = np.asarray(result, dtype=np.float32)
            return output
        emit_activation(self.importer, self.node, name, parameters, x, output)
        return output

    def operator(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """An operator of ONNX, of the newest opset, with one output."""
        from ml4f.frontend.importer_ops import HANDLERS

        output = output or self.fresh()
        proto = onnx.helper.make_node(op_type, list(inputs), [output], name=self.node.layer, **attributes)
        HANDLERS[op_type](self.importer, self.node.altered(proto))
        return output

    def part(self, x: str, axis: int, first: int, count: int, step: int = 1, output: str | None = None) -> str:
        """Some elements along an axis."""
        constants = [self.whole([n]) for n in (first, first + step * (count - 1) + 1, axis, step)]
        return self.operator("Slice", x, *constants, output=output)

    def shaped(self, x: str, shape: Sequence[int]) -> str:
        """The same elements, in the tensor's own order, with another shape."""
        constant = self.importer.const(x)
        if constant is not None:
            return self.constant(constant.reshape(tuple(shape)))
        value = self.importer.in_order(self.importer.tensor(x)).value
        return self.value(Tensor(value, tuple(shape), tuple(range(len(shape)))))

    def whole(self, value: Any) -> str:
        """A constant of whole numbers, as shapes and axes are."""
        name = self.fresh()
        self.importer.constants[name] = np.asarray(value, dtype=np.int64)
        return name

    def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
        """Over axes, which stay with extent 1."""
        return self.value(reduced(self.importer, self.importer.tensor(x), axes, kind))


def reduced(importer: Importer, tensor: Tensor, axes: Sequence[int], kind: str) -> Tensor:
    """Sum, mean, max, min or prod over axes, which stay with extent 1."""
    tensor = adjacent(importer, tensor, axes)
    positions = [tensor.order.index(axis) for axis in axes if tensor.shape[axis] > 1]
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(tensor.shape))
    if not positions:
        return Tensor(tensor.value, shape, tensor.order)
    first, last = min(positions), max(positions)
    ordered = tensor.ordered
    outer, extent, inner = prod(ordered[:first]), prod(ordered[first : last + 1]), prod(ordered[last + 1 :])
    source = importer.reshaped(tensor.value, (outer, extent, inner))
    value = importer.emit(nn.ReduceOp, [source], (outer, inner), axes=numbers([1]), kind=StringAttr(kind))
    return Tensor(value, shape, tensor.order)


def adjacent(importer: Importer, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """With the axes next to each other in memory, as they are if possible, else all at the end."""
    positions = [i for i, axis in enumerate(tensor.significant) if axis in axes]
    if not positions or positions == list(range(positions[0], positions[-1] + 1)):
        order = list(tensor.significant) + [axis for axis in range(len(tensor.shape)) if tensor.shape[axis] == 1]
        return Tensor(tensor.value, tensor.shape, tuple(order))
    kept = [axis for axis in tensor.order if axis not in axes]
    return importer.arranged(tensor, (*kept, *axes))


def squeezed(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """Without axes of extent 1."""
    kept = [axis for axis in range(len(tensor.shape)) if axis not in axes]
    order = tuple(kept.index(axis) for axis in tensor.order if axis in kept)
    return Tensor(tensor.value, tuple(tensor.shape[axis] for axis in kept), order)


def constant_axes(importer: Importer, node: Node, index: int, rank: int, name: str = "axes") -> list[int] | None:
    """Axes from an attribute or from the input `index`, which must be constant; None if there are none."""
    axes = list(node.ints(name)) if name in node.attributes else None
    if len(node.proto.input) > index and node.proto.input[index]:
        constant = importer.const(node.proto.input[index])
        if constant is None:
            raise NotSupported("the axes must be constants")
        axes = [int(a) for a in np.ravel(constant)]
    if axes is not None and any(not -rank <= axis < rank for axis in axes):
        raise NotSupported(f"axes {axes} of {rank} dimensions")
    return None if axes is None else sorted({axis % rank for axis in axes})
