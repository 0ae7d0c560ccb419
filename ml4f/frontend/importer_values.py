"""What the importer knows of a tensor while it builds nn IR: its value, its shape, its order in memory."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

Shape = tuple[int, ...]


class NotSupported(Exception):
    """Raised by handlers; the importer collects them all into one UnsupportedError."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """Elements of `value` == ONNX tensor of `shape` transposed by `order`, flat. `shape` includes the batch."""

    value: SSAValue
    shape: Shape
    order: tuple[int, ...]

    @property
    def ordered(self) -> Shape:
        """The extents in memory order."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def memory_shape(self) -> Shape:
        """The extents in memory order, a batch of one left out."""
        return tuple(self.shape[axis] for axis in self.order if axis or self.shape[0] != 1 or len(self.shape) == 1)

    @property
    def significant(self) -> tuple[int, ...]:
        """The axes with more than one element, in memory order."""
        return tuple(axis for axis in self.order if self.shape[axis] > 1)

    @property
    def in_order(self) -> bool:
        """Whether memory order is the tensor's own."""
        return list(self.significant) == sorted(self.significant)


@dataclass(frozen=True, eq=False)
class Flattened:
    """A tensor with a new shape, its elements still in the order of `base`: dense layers permute weights instead."""

    base: Tensor
    shape: Shape


Value = Tensor | Flattened
