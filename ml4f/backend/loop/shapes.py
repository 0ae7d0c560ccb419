"""Simplifies a nest's dims: drops those of extent 1 and merges neighbours that are contiguous in every operand."""

from __future__ import annotations

import itertools
from dataclasses import replace

from ml4f.backend.loop.nest import Extents, Guard, Linear, Nest


def _without(linear: Linear, dropped: set[str]) -> Linear:
    return Linear(tuple(t for t in linear.terms if t[0] not in dropped), linear.constant)


def _mergeable(nest: Nest, outer: str, inner: str) -> bool:
    extent = nest.extents[inner]
    if any(g.expr.mentions(outer) or g.expr.mentions(inner) for g in (*nest.guards, *nest.pool_guards)):
        return False
    return all(o.map.coefficient(outer) == extent * o.map.coefficient(inner) for o in nest.operands)


def redundant(nest: Nest, guard: Guard) -> bool:
    """Whether a guard always holds."""
    low = high = guard.expr.constant
    for dim, coefficient in guard.expr.terms:
        reach = coefficient * (nest.extents[dim] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low >= 0 and high < guard.extent


def _merge(extents: Extents, nest: Nest) -> tuple[Extents, str, str] | None:
    for (outer, m), (inner, n) in itertools.pairwise(extents):
        if _mergeable(nest, outer, inner):
            merged = tuple((d, m * n) if d == inner else (d, e) for d, e in extents if d != outer)
            return merged, outer, inner
    return None


def tightened(nest: Nest) -> Nest:
    """An equal nest whose reduction dims lack the points that a guard on them alone excludes everywhere.

    A window that is larger than its input, which has one position only, is such a dim. Weights keep their order.
    """
    for dim, extent in nest.reduction if not nest.has("w") else ():
        for guard in nest.guards:
            if {d for d in guard.expr.coefficients if nest.extents[d] > 1} != {dim}:
                continue
            alone = dict.fromkeys(guard.expr.coefficients, 0)
            kept = [k for k in range(extent) if 0 <= guard.expr(alone | {dim: k}) < guard.extent]
            if not kept or len(kept) == extent:
                continue
            moved = {dim: kept[0]}
            nest = replace(
                nest,
                reduction=tuple((d, len(kept) if d == dim else n) for d, n in nest.reduction),
                operands=tuple(replace(o, map=_moved(o.map, moved)) for o in nest.operands),
                guards=tuple(Guard(_moved(g.expr, moved), g.extent) for g in nest.guards),
            )
            extent = len(kept)
    return nest


def _moved(map_: Linear, by: dict[str, int]) -> Linear:
    """The function of dims that count from further on."""
    return Linear(map_.terms, map_.constant + sum(map_.coefficient(d) * n for d, n in by.items()))


def simplify(nest: Nest) -> Nest:
    """An equal nest with as few dims as possible. One dim of each kind that had any is kept."""
    nest = tightened(nest)
    nest = replace(
        nest,
        guards=tuple(g for g in nest.guards if not redundant(nest, g)),
        pool_guards=tuple(g for g in nest.pool_guards if not redundant(nest, g)),
    )
    ones = {d for d, n in nest.extents.items() if n == 1}
    parallel = tuple((d, n) for d, n in nest.parallel if d not in ones) or nest.parallel[-1:]
    reduction = tuple((d, n) for d, n in nest.reduction if d not in ones) or nest.reduction[-1:]
    ones -= {d for d, _ in (*parallel, *reduction)}
    nest = replace(
        nest,
        parallel=parallel,
        reduction=reduction,
        operands=tuple(replace(o, map=_without(o.map, ones)) for o in nest.operands),
        guards=tuple(Guard(_without(g.expr, ones), g.extent) for g in nest.guards),
        pool_guards=tuple(Guard(_without(g.expr, ones), g.extent) for g in nest.pool_guards),
    )
    while True:
        for kind in ("parallel", "reduction"):
            found = _merge(getattr(nest, kind), nest)
            if found is not None:
                merged, outer, _ = found
                operands = tuple(replace(o, map=_without(o.map, {outer})) for o in nest.operands)
                nest = replace(nest, operands=operands, **{kind: merged})
                break
        else:
            return nest
