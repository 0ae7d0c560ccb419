"""What a user says about dimensions that a model leaves free: `--dim NAME=N`, `--input-shape NAME=1,3,32,32`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from ml4f.errors import Ml4fError, UsageError

REMEDY = "give it with --input-shape or --dim, or export the model with a fixed input shape"
"""For messages about dimensions that are free."""
BATCH = "batch"
"""The name under which every format's free batch may be given; it is 1."""


MOST_DIGITS = 18
"""Of an extent: Python refuses to read numbers of some thousands."""


def _is_extent(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS and int(text) > 0


@dataclass(frozen=True)
class FreeShapes:
    """`dims`: by the name of a free dimension; `inputs`: whole shapes by input, "" for a model's only one."""

    dims: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @staticmethod
    def parse(dims: Sequence[str], inputs: Sequence[str]) -> FreeShapes:
        """From the command line's words. Raises UsageError."""
        found: dict[str, int] = {}
        for word in dims:
            name, separator, value = word.rpartition("=")
            if not separator or not _is_extent(value):
                raise UsageError(f"--dim {word}: say NAME=N with N of at least 1, as in --dim batch=1")
            if found.setdefault(name, int(value)) != int(value):
                raise UsageError(f"--dim {word}: {name} is {found[name]} already")
        shapes: dict[str, tuple[int, ...]] = {}
        for word in inputs:
            name, _, value = word.rpartition("=")
            parts = value.strip("[]()").replace("x", ",").split(",")
            if not all(_is_extent(part.strip()) for part in parts):
                raise UsageError(f"--input-shape {word}: say [NAME=]N,N,…, as in --input-shape 1,3,32,32")
            shape = tuple(int(part) for part in parts)
            if shapes.setdefault(name, shape) != shape:
                raise UsageError(f"--input-shape {word}: {name or 'it'} is {list(shapes[name])} already")
        return FreeShapes(found, shapes)

    def of(self, name: str, shape: Sequence[int | None], subject: str, alone: bool = True) -> list[int | None]:
        """An input's shape with its batch, free dimensions (None) filled in where they were given."""
        given = self.inputs.get(name) or (self.inputs.get("") if alone else None)
        if given is None:
            return list(shape)
        if len(given) == len(shape) - 1:
            given = (1, *given)
        fits = len(given) == len(shape) and all(n in (None, g) for n, g in zip(shape, given, strict=False))
        if not fits:
            shown = ["?" if n is None else n for n in shape]
            raise Ml4fError(f"{subject}: input '{name}' has the shape {shown}, {list(given)} does not fit it")
        return list(given)

    def fix(self, proto: onnx.ModelProto, subject: str) -> None:
        """Fill in an ONNX model's free dimensions, in place; names that it does not have are errors."""
        if not self.dims and not self.inputs:
            return
        constants = {entry.name for entry in proto.graph.initializer}
        inputs = [entry for entry in proto.graph.input if entry.name not in constants]
        unknown = [name for name in self.inputs if name and name not in {entry.name for entry in inputs}]
        if unknown:
            names = ", ".join(f"'{entry.name}'" for entry in inputs)
            raise Ml4fError(f"{subject}: has no input '{unknown[0]}'; its inputs are {names}")
        if "" in self.inputs and len(inputs) > 1:
            raise Ml4fError(f"{subject}: has {len(inputs)} inputs; say whose shape it is: --input-shape NAME=…")
        values = dict(self.dims)
        for entry in inputs:
            values.update(self._matched(entry, subject))
        free = {d.dim_param for e in inputs for d in e.type.tensor_type.shape.dim if d.HasField("dim_param")}
        for name, value in self.dims.items():
            if name not in free and (name, value) != (BATCH, 1):
                known = ", ".join(sorted(free)) or "none"
                raise Ml4fError(f"{subject}: no input has a dimension '{name}'; its free dimensions: {known}")
        for entry in (*inputs, *proto.graph.output, *proto.graph.value_info):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.HasField("dim_param") and dim.dim_param in values:
                    dim.dim_value = values[dim.dim_param]

    def _matched(self, entry: onnx.ValueInfoProto, subject: str) -> dict[str, int]:
        """Fill in one input's shape; the values of its named dimensions."""
        dims = entry.type.tensor_type.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
        made = self.of(entry.name, shape, subject)
        values: dict[str, int] = {}
        for dim, old, new in zip(dims, shape, made, strict=True):
            if old is None and new is not None:
                if dim.HasField("dim_param"):
                    values[dim.dim_param] = new
                dim.dim_value = new
        return values
