"""Plain data of the loop level's nest form: the algorithm of a kernel, and apart from it the schedule that executes it.

A nest computes, for every point of its parallel dims, one accumulator over the points of its reduction dims, passes
it through an epilogue and stores it. It says nothing about order, tiles or registers: that is the `Schedule`.
The idea is `memref_stream.generic` of xDSL's Snitch back end (Lopoukhine et al., CGO 2025), tiles in several dims.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np

Combine = Literal["mac", "add", "square", "max", "min", "mul", "copy"]
"""How a term joins the accumulator: `acc + x*w`, `acc + x`, `acc + x*x`, `max(acc, x)`, `min(acc, x)`, `acc * x`, or
`x` itself (no reduction dims)."""

NEUTRAL: dict[Combine, float] = {
    "mac": 0.0,
    "add": 0.0,
    "square": 0.0,
    "max": float("-inf"),
    "min": float("inf"),
    "mul": 1.0,
    "copy": 0.0,
}
"""What the accumulator of a point without terms holds."""


@dataclass(frozen=True)
class Linear:
    """An affine function of a nest's dims: `constant + sum(coefficient * dim)`; dims that do not occur have no term."""

    terms: tuple[tuple[str, int], ...]
    constant: int = 0

    @staticmethod
    def of(constant: int = 0, **coefficients: int) -> Linear:
        """The function with these coefficients, zero ones left out."""
        return Linear(tuple((d, c) for d, c in coefficients.items() if c), constant)

    @cached_property
    def coefficients(self) -> dict[str, int]:
        return dict(self.terms)

    def coefficient(self, dim: str) -> int:
        return self.coefficients.get(dim, 0)

    def mentions(self, dim: str) -> bool:
        return dim in self.coefficients

    def __call__(self, point: Mapping[str, int]) -> int:
        return self.constant + sum(c * point[d] for d, c in self.terms)


@dataclass(frozen=True)
class Operand:
    """One pointer of a nest: its role and where the element of a point lies, in elements from the pointer.

    Roles: `x` the input, `w` constant weights, which are packed, or `v` computed ones, which are not; `bias`, `out`;
    any other name is an operand of the epilogue.
    `element` is the type in memory, `f32` or `f16` (weights only; 2 bytes, widened when loaded).
    """

    role: str
    map: Linear
    element: Literal["f32", "f16"] = "f32"


@dataclass(frozen=True)
class Guard:
    """A term exists only where `0 <= expr < extent`: this is what padding is."""

    expr: Linear
    extent: int


ARITHMETIC_STEPS = ("mul", "add", "sub", "rsub", "div", "rdiv", "max", "min")
STEP_KINDS = (*ARITHMETIC_STEPS, "activation", "prelu", "pow", "where", "pool_max", "pool_sum", "dense")
"""What `Step.kind` can be."""


@dataclass(frozen=True)
class Step:
    """One step of the epilogue, applied to the accumulator `a`.

    `mul`, `add`, `sub`, `rsub`, `div`, `rdiv`, `max`, `min`: with the operand of `role` or constant `parameters[0]`;
    `activation`: the elementwise function `name` with `parameters`;
    `prelu`: `a` where `a >= 0`, else `a` times the operand of `role`;
    `pow`: `a` to the power of the operand of `role`;
    `where`: `a` where the operand of `role` is not 0, else 0;
    `pool_max`, `pool_sum`: reduce the accumulators whose points have the same output element;
    `dense`, last: the result is not stored. `out[j] += a * operand[j]` for as many j as `parameters[0]` says, where the
    operand's map tells where the weights of a result begin; what `out` holds before is the bias.
    """

    kind: str
    role: str | None = None
    name: str = ""
    parameters: tuple[float, ...] = ()


Extents = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Nest:
    """A kernel's algorithm. `initial` is the accumulator of a point that has no term and no bias."""

    parallel: Extents
    reduction: Extents
    combine: Combine
    operands: tuple[Operand, ...]
    guards: tuple[Guard, ...] = ()
    epilogue: tuple[Step, ...] = ()
    initial: float = 0.0
    nonnegative: bool = False
    """The input is known to be non-negative (so that a maximum may compare bit patterns)."""
    pool_guards: tuple[Guard, ...] = ()
    """Over parallel dims: an accumulator exists, and takes part in pooling, only where all hold."""

    @cached_property
    def extents(self) -> dict[str, int]:
        return dict(self.parallel) | dict(self.reduction)

    @cached_property
    def by_role(self) -> dict[str, Operand]:
        return {o.role: o for o in self.operands}

    def index_of(self, role: str) -> int:
        return next(i for i, o in enumerate(self.operands) if o.role == role)

    def has(self, role: str) -> bool:
        return role in self.by_role

    @cached_property
    def parallel_dims(self) -> tuple[str, ...]:
        return tuple(d for d, _ in self.parallel)

    @cached_property
    def reduction_dims(self) -> tuple[str, ...]:
        return tuple(d for d, _ in self.reduction)

    @cached_property
    def sink(self) -> Step | None:
        """The step that makes a dense layer of the results, if they are not stored."""
        return self.epilogue[-1] if self.epilogue and self.epilogue[-1].kind == "dense" else None

    @property
    def result_role(self) -> str:
        """The operand whose map tells results apart: `out`, or the weights of a dense layer that consumes them."""
        return self.sink.role or "out" if self.sink is not None else "out"

    @cached_property
    def window_dims(self) -> tuple[str, ...]:
        """The parallel dims that the result does not mention: the epilogue pools over them, a tile holds them whole."""
        result = self.by_role[self.result_role].map
        return tuple(d for d in self.parallel_dims if not result.mentions(d) and self.extents[d] > 1)

    @cached_property
    def element_by_element(self) -> bool:
        """Whether each result lies where the element of the input lay that it is made of, if both begin at one place.

        Most such kernels work in place.
        """
        return self.combine == "copy" and self.by_role["x"].map == self.by_role["out"].map

    @cached_property
    def filter_dims(self) -> tuple[str, ...]:
        """The parallel dims that the weights depend on, outermost first."""
        factor = self.by_role.get("w", self.by_role.get("v"))
        return tuple(d for d in self.parallel_dims if factor is not None and factor.map.mentions(d))

    def terms(self) -> int:
        """The number of (parallel, reduction) points, padding included: nominal MACs of a convolution."""
        n = 1
        for extent in self.extents.values():
            n *= extent
        return n


Segments = tuple[tuple[int, int], ...]
"""The ((step, count), …) that cover a dim's extent in order; a count of 1 is not a loop."""


@dataclass(frozen=True)
class Schedule:
    """How a nest is executed. Every dim occurs once in `loops`, parallel dims before reduction dims.

    loops        outer to inner; each segment's step is the extent of the tile (parallel) or unrolled body (reduction);
                 in a tile that lacks terms a guarded reduction dim is no loop, its points are unrolled
    tile         parallel dims in the order in which a k-step visits its accumulators, outermost first
    unroll       reduction dims in the order in which the body visits its terms, outermost first
    order        explicit order of the points of a dim inside the body (stride-2 taps: even ones first)
    points       a k-step is this many consecutive terms of the body; 0: all of them
    chunk        at most this many products behind one chain of loads; 0: the whole k-step
    early        roles whose loads stand in front of the whole k-step, not of the chunk that needs them
    multiple     roles that are loaded (`out`: stored) by multiple loads and stores instead of single ones
    trim         (parallel dim, reduction dim): the reduction dim's bounds depend on the parallel dim, read from a table
    edge         (parallel dim, reduction dim): where points of the parallel dim lack terms, in first and last segments
                 of single points, the reduction dim's bounds are read from the table; edges of equal size share code
    resident     operands of the epilogue that are loaded outside of the innermost loops in which they do not change
    skew         (parallel dim, reduction dim, n): in a loop over the parallel dim, a tile's points of the reduction
                 dim are n less than those of the tile before, so that both read the same inputs
    hoist        constants of the epilogue are loaded once, before all loops
    reverse      parallel dims whose loops run backwards, last tile first (so that an output may slide the other way)
    """

    loops: tuple[tuple[str, Segments], ...]
    tile: tuple[str, ...] = ()
    unroll: tuple[str, ...] = ()
    order: tuple[tuple[str, tuple[int, ...]], ...] = ()
    points: int = 1
    chunk: int = 0
    early: tuple[str, ...] = ()
    multiple: tuple[str, ...] = ()
    resident: tuple[str, ...] = ()
    trim: tuple[str, str] | None = None
    edge: tuple[str, str] | None = None
    roll: tuple[str, str, int] | None = None
    skew: tuple[str, str, int] | None = None
    hoist: bool = False
    reverse: tuple[str, ...] = ()
    vector: int = field(default=4)
    """How many accumulators the epilogue handles together (interleaved)."""

    @cached_property
    def segments(self) -> dict[str, Segments]:
        return dict(self.loops)

    @cached_property
    def explicit_order(self) -> dict[str, tuple[int, ...]]:
        return dict(self.order)


def steps_of(segments: Segments) -> Iterator[tuple[int, int, int]]:
    """(start, step, count) of each segment."""
    start = 0
    for step, count in segments:
        yield start, step, count
        start += step * count


def _where_guards_hold(guards: Sequence[Guard], dim: str, extent: int, others: Mapping[str, range]) -> np.ndarray:
    """[point of `dim`, point of the other dims]: whether all guards hold there."""
    shape = [len(r) for r in others.values()]
    grid = dict(zip(others, np.indices(shape).reshape(len(shape), prod(shape)), strict=True))
    holds = np.ones((extent, prod(shape)), dtype=bool)
    points = np.arange(extent)[:, None]
    for guard in guards:
        value = guard.expr.constant + guard.expr.coefficient(dim) * points
        value = value + sum(c * grid[d] for d, c in guard.expr.terms if d != dim)
        holds &= (value >= 0) & (value < guard.extent)
    return holds


def uniform_segments(nest: Nest, dim: str, step: int, limit: int | None = None) -> Segments:
    """Covers `dim` with tiles of `step` such that in each segment every guard has the same outcome for every tile.

    The guards that mention `dim` are evaluated with their other dims over their whole extents. A remainder tile of its
    own size covers what `step` does not divide. `limit`: cover only the first `limit` points.
    """
    whole, rest = divmod(limit if limit is not None else nest.extents[dim], step)
    return uniform(nest, dim, tuple(t for t in ((step, whole), (rest, min(rest, 1))) if t[1]))


def uniform(nest: Nest, dim: str, tiles: Segments) -> Segments:
    """The same tiles, in segments within which every guard has the same outcome for every tile."""
    guards = [g for g in (*nest.guards, *nest.pool_guards) if g.expr.mentions(dim)]
    others = {d: range(nest.extents[d]) for g in guards for d, _ in g.expr.terms if d != dim}
    segments: list[list[int]] = []
    holds = _where_guards_hold(guards, dim, sum(size * count for size, count in tiles), others)
    previous: object = None
    for first, size, count in steps_of(tiles):
        for start in range(first, first + size * count, size):
            signature = (size, holds[start : start + size].tobytes())
            if segments and signature == previous:
                segments[-1][1] += 1
            else:
                segments.append([size, 1])
            previous = signature
    return tuple((s, c) for s, c in segments)
