"""Kernels read through a copy: the address in what was copied instead of the one in the copy. Plain data, no passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ml4f.backend.loop.nest import Linear, Nest


@dataclass(frozen=True)
class Copy:
    """Element `row * width + column` of a copy is element `row * row_stride + column * column_stride + first`."""

    width: int
    row_stride: int
    column_stride: int
    first: int


def copy_of(nest: Nest) -> Copy | None:
    """What a kernel copies, if it does nothing else: elements at one stride, or rows of such; else None.

    A transposition is none: reading through it would cost the readers their neighbouring elements.
    """
    plain = nest.combine == "copy" and not (nest.guards or nest.pool_guards or nest.epilogue or nest.reduction)
    if not plain or nest.sink is not None or {o.role for o in nest.operands} != {"x", "out"}:
        return None
    x, out = nest.by_role["x"].map, nest.by_role["out"].map
    dims = [d for d, _ in nest.parallel]
    if out.constant or len(dims) > 2 or out.coefficient(dims[-1]) != 1:
        return None
    width = nest.extents[dims[-1]]
    if len(dims) == 1:
        return Copy(width, 0, x.coefficient(dims[0]), x.constant)
    if out.coefficient(dims[0]) != width:
        return None
    row_stride, column_stride = x.coefficient(dims[0]), x.coefficient(dims[1])
    if abs(row_stride) < abs(column_stride) * width:
        return None
    return Copy(width, row_stride, column_stride, x.constant)


def read_through(copy: Copy, reader: Nest, role: str) -> Nest | None:
    """The reader with another address for an operand that was the copy; None where that is not affine.

    Steps by whole rows are told from those within a row, which must stay in it at every point of the nest.
    """
    map_ = reader.by_role[role].map
    if not copy.row_stride:
        terms = tuple((d, c * copy.column_stride) for d, c in map_.terms)
        moved = Linear(tuple(t for t in terms if t[1]), map_.constant * copy.column_stride + copy.first)
        return _with_map(reader, role, moved)
    row, column = divmod(map_.constant, copy.width)
    low = high = column
    coefficients: dict[str, int] = {}
    for dim, coefficient in map_.terms:
        rows, rest = divmod(coefficient, copy.width)
        if not rest:
            coefficients[dim] = rows * copy.row_stride
            continue
        reach = coefficient * (reader.extents[dim] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
        coefficients[dim] = coefficient * copy.column_stride
    if low < 0 or high >= copy.width:
        return None
    constant = row * copy.row_stride + column * copy.column_stride + copy.first
    return _with_map(reader, role, Linear.of(constant, **coefficients))


def _with_map(nest: Nest, role: str, map_: Linear) -> Nest:
    operands = tuple(replace(o, map=map_) if o.role == role else o for o in nest.operands)
    return replace(nest, operands=operands)
