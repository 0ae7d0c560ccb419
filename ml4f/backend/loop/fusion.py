"""Fuses a pool or an elementwise nest into the nest that computes its input, so that this is never stored.

An elementwise nest's steps go to the end of the epilogue. A pool's window becomes parallel dims of the producing nest
that the output does not mention; the epilogue reduces over them in registers. Pure functions on nests; which buffers
and calls that concerns is the pass's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ml4f.backend.loop.addressing import MOST_CORE_VALUES
from ml4f.backend.loop.elementary import monotone
from ml4f.backend.loop.nest import Extents, Guard, Linear, Nest, Operand, Step
from ml4f.backend.loop.shapes import redundant, simplify

CHEAP_ACTIVATIONS = frozenset(
    {"linear", "relu", "relu6", "clip", "leaky_relu", "keras_relu", "hard_sigmoid", "hard_swish"}
)
"""Activations cheap enough in registers and operations to be part of any kernel's epilogue."""


def split_dim(nest: Nest, dim: str, inner: int, name: str) -> Nest:
    """The same nest with `dim` as two dims, `dim` outside and `name`, of extent `inner`, inside."""

    def linear(map_: Linear) -> Linear:
        coefficient = map_.coefficient(dim)
        terms = {d: c * inner if d == dim else c for d, c in map_.terms}
        return Linear.of(map_.constant, **terms, **({name: coefficient} if coefficient else {}))

    def extents(all_: Extents) -> Extents:
        out: list[tuple[str, int]] = []
        for d, n in all_:
            out += [(d, n // inner), (name, inner)] if d == dim else [(d, n)]
        return tuple(out)

    return _rewritten(nest, linear, parallel=extents(nest.parallel), reduction=extents(nest.reduction))


def _rewritten(nest: Nest, linear: Callable[[Linear], Linear], **changes: object) -> Nest:
    return replace(
        nest,
        operands=tuple(replace(o, map=linear(o.map)) for o in nest.operands),
        guards=tuple(Guard(linear(g.expr), g.extent) for g in nest.guards),
        pool_guards=tuple(Guard(linear(g.expr), g.extent) for g in nest.pool_guards),
        **changes,  # pyright: ignore[reportArgumentType]
    )


def substitute(map_: Linear, by: Mapping[str, Linear]) -> Linear:
    """`map_` with affine functions in place of some dims."""
    constant, coefficients = map_.constant, dict[str, int]()
    for dim, coefficient in map_.terms:
        expr = by.get(dim, Linear(((dim, 1),)))
        constant += coefficient * expr.constant
        for d, c in expr.terms:
            coefficients[d] = coefficients.get(d, 0) + coefficient * c
    return Linear.of(constant, **coefficients)


def _fresh(name: str, taken: set[str]) -> str:
    i, candidate = 1, name
    while candidate in taken:
        i += 1
        candidate = f"{name}{i}"
    taken.add(candidate)
    return candidate


def coordinates(producer: Nest, consumer: Nest) -> tuple[Nest, dict[str, Linear]] | None:
    """Each of the producer's parallel dims as an affine function of the consumer's dims.

    With these `out` of the producer is `x` of the consumer; None where there are no such functions. The consumer's dims
    are split where they run over several of the producer's, so that it is returned too.
    """
    out = producer.by_role["out"].map
    dims = sorted((d for d in producer.parallel_dims if out.mentions(d)), key=lambda d: -out.coefficient(d))
    if len(dims) + len(producer.window_dims) != len([d for d, n in producer.parallel if n > 1 or out.mentions(d)]):
        return None
    consumer = _split_to_fit(consumer, [(out.coefficient(d), producer.extents[d]) for d in dims])
    x = consumer.by_role["x"].map
    terms: dict[str, dict[str, int]] = {d: {} for d in dims}
    for dim, coefficient in x.terms:
        for d in dims:
            share, coefficient = divmod(coefficient, out.coefficient(d))
            if share:
                terms[d][dim] = share
        if coefficient:
            return None
    origin = next(iter(np.stack(list(existing(consumer, consumer.extents).values()), axis=-1)[:1].tolist()), None)
    if origin is None:
        return None
    point = dict(zip(consumer.extents, origin, strict=True))
    rest = x(point) - out.constant
    found: dict[str, Linear] = {}
    for d in dims:
        digit, rest = divmod(rest, out.coefficient(d))
        found[d] = Linear.of(digit - Linear.of(0, **terms[d])(point), **terms[d])
    if rest or not all(_within(consumer, expr, producer.extents[d]) for d, expr in found.items()):
        return None
    return consumer, found | {d: Linear(()) for d, n in producer.parallel if n == 1 and d not in found}


def existing(nest: Nest, dims: Iterable[str]) -> dict[str, np.ndarray]:
    """The points over `dims` and all dims that guards tie to them, where the guards hold, in order."""
    wanted, guards = set(dims), list[Guard]()
    while more := [g for g in nest.guards if g not in guards and any(g.expr.mentions(d) for d in wanted)]:
        guards += more
        wanted |= {d for g in more for d, _ in g.expr.terms}
    names = [d for d in nest.extents if d in wanted]
    grids = np.indices([nest.extents[d] for d in names], dtype=np.int64).reshape(len(names), -1)
    for guard in guards:
        value = _evaluate(guard.expr, dict(zip(names, grids, strict=True)))
        grids = grids[:, (value >= 0) & (value < guard.extent)]
    return dict(zip(names, grids, strict=True))


def _evaluate(expr: Linear, points: Mapping[str, np.ndarray]) -> np.ndarray:
    value = np.full(next(iter(points.values())).shape, expr.constant) if points else np.array([expr.constant])
    for d, c in expr.terms:
        value = value + c * points[d]
    return value


def _within(nest: Nest, expr: Linear, extent: int) -> bool:
    """Whether `0 <= expr < extent` at all points of the nest that exist."""
    low = high = expr.constant
    for dim, coefficient in expr.terms:
        reach = coefficient * (nest.extents[dim] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    if low >= 0 and high < extent:
        return True
    value = _evaluate(expr, existing(nest, [d for d, _ in expr.terms]))
    return bool(((value >= 0) & (value < extent)).all())


def apart(nest: Nest, expr: Linear) -> bool:
    """Whether `expr` is different at different points that exist."""
    reach = 0
    for dim, coefficient in sorted(expr.terms, key=lambda t: t[1]):
        if coefficient <= reach:
            break
        reach += coefficient * (nest.extents[dim] - 1)
    else:
        return True
    points = existing(nest, [d for d, _ in expr.terms])
    points = {d: v for d, v in points.items() if expr.mentions(d)}
    distinct = np.unique(np.stack(list(points.values())), axis=1)
    values = _evaluate(expr, dict(zip(points, distinct, strict=True)))
    return len(np.unique(values)) == len(values)


def _split_to_fit(consumer: Nest, radix: Sequence[tuple[int, int]]) -> Nest:
    """Splits dims that run over several of the producer's; `radix`: their (coefficient, extent), largest first."""
    changed = True
    while changed:
        changed = False
        for dim, coefficient in consumer.by_role["x"].map.terms:
            inside = [(c, n) for c, n in radix if c <= coefficient and coefficient % c == 0]
            if not inside:
                continue
            c, n = inside[0]
            room, rest = divmod(c * n, coefficient)
            extent = consumer.extents[dim]
            larger = any(k == c * n for k, _ in radix)
            if rest == 0 and larger and 1 < room < extent and extent % room == 0:
                name = _fresh(f"{dim}_{room}", set(consumer.extents))
                consumer = split_dim(consumer, dim, room, name)
                changed = True
                break
    return consumer


def fuse_pool(producer: Nest, pool: Nest) -> Nest | None:
    """The nest that computes `pool` of `producer`; None where that is impossible or would compute anything twice."""
    if pool.combine not in ("max", "add") or not pool.reduction or producer.window_dims or pool.pool_guards:
        return None
    step = Step("pool_max" if pool.combine == "max" else "pool_sum")
    before, behind = list(producer.epilogue), list[Step]()
    while pool.combine == "max" and before and _is_monotone(before[-1]):
        behind.insert(0, before.pop())
    fused = _fuse(replace(producer, epilogue=tuple(before)), replace(pool, epilogue=(*behind, *pool.epilogue)), step)
    if fused is not None and not fused.has("w") and set(fused.parallel_dims) <= set(fused.window_dims):
        return None  # a single result: all of it would have to be in registers at once
    return fused


def _is_monotone(step: Step) -> bool:
    return step.kind == "activation" and monotone(step.name, step.parameters)


MIRRORED = {
    "add": "add",
    "mul": "mul",
    "max": "max",
    "min": "min",
    "sub": "rsub",
    "rsub": "sub",
    "div": "rdiv",
    "rdiv": "div",
}
"""The step that gives the same when accumulator and operand change places."""


def reading_first(nest: Nest, role: str) -> Nest | None:
    """An equal elementwise nest whose input `x` is the operand `role`; the operand of that role is what was `x`."""
    if role == "x":
        return nest
    first = nest.epilogue[0] if nest.epilogue else Step("none")
    others = [s.role for s in nest.epilogue[1:]]
    if first.role != role or role in others or first.kind not in MIRRORED or nest.guards:
        return None
    exchanged = {"x": role, role: "x"}
    operands = tuple(replace(o, role=exchanged.get(o.role, o.role)) for o in nest.operands)
    return replace(nest, operands=operands, epilogue=(replace(first, kind=MIRRORED[first.kind]), *nest.epilogue[1:]))


def fuse_elementwise(producer: Nest, consumer: Nest) -> Nest | None:
    """The nest that does `consumer`, without reductions and borders, to each result of `producer`.

    None where that is impossible or would compute a result of the producer several times (what is only copied may be
    repeated), where a costly activation would need registers that the producer's tile of accumulators has, and where
    the operands would need more core registers than there are.
    """
    if consumer.combine != "copy" or consumer.guards or consumer.window_dims:
        return None
    if len(producer.operands) + len(consumer.operands) - 2 > MOST_CORE_VALUES:  # without what is between them
        return None
    costly = any(s.kind == "activation" and s.name not in CHEAP_ACTIVATIONS for s in consumer.epilogue)
    if costly and producer.combine != "copy":
        return None
    x = consumer.by_role["x"].map
    copied = producer.combine == "copy" and not (producer.epilogue or producer.guards or producer.window_dims)
    if not copied and any(n > 1 and not x.mentions(d) for d, n in consumer.parallel):
        return None
    return _fuse(producer, consumer, None)


def _fuse(producer: Nest, consumer: Nest, step: Step | None) -> Nest | None:
    """The producer's nest over the consumer's dims; `step` stands between their epilogues."""
    matched = coordinates(producer, consumer)
    if matched is None:
        return None
    consumer, place = matched
    if not all(apart(consumer, e) for e in place.values()):
        return None
    along, names = _along(place), _names(producer, consumer, place)

    def renamed(map_: Linear) -> Linear:
        return Linear(tuple((names[d], c) for d, c in map_.terms), map_.constant)

    place = {d: renamed(e) for d, e in place.items()}
    operands = [replace(o, map=substitute(o.map, place)) for o in producer.operands if o.role != "out"]
    taken = {o.role for o in operands} | {"out"}
    roles = {o.role: _fresh(o.role, taken) for o in consumer.operands if o.role not in ("x", "out")}
    operands += [Operand(roles[o.role], renamed(o.map)) for o in consumer.operands if o.role in roles]
    operands.append(Operand("out", renamed(consumer.by_role["out"].map)))
    behind = [replace(s, role=roles.get(s.role, s.role)) if s.role else s for s in consumer.epilogue]
    pooled = [Guard(substitute(g.expr, place), g.extent) for g in producer.pool_guards]
    pooled += [Guard(renamed(g.expr), g.extent) for g in consumer.guards if not redundant(consumer, g)]
    fused = Nest(
        parallel=_parallel(producer, consumer, names, along),
        reduction=producer.reduction,
        combine=producer.combine,
        operands=tuple(operands),
        guards=tuple(Guard(substitute(g.expr, place), g.extent) for g in producer.guards),
        epilogue=(*producer.epilogue, *([step] if step is not None else []), *behind),
        initial=producer.initial,
        nonnegative=producer.nonnegative,
        pool_guards=tuple(pooled),
    )
    return simplify(fused)


def _along(place: Mapping[str, Linear]) -> dict[str, str]:
    """For each dim of the consumer the producer's dim that it walks along (the outermost of several)."""
    return {d: dim for dim, expr in reversed(list(place.items())) for d, _ in expr.terms}


def _names(producer: Nest, consumer: Nest, place: Mapping[str, Linear]) -> dict[str, str]:
    """A name for each dim of the consumer: that of the producer's dim; of a window, `p` and the dim without its `o`."""
    along, taken = _along(place), {*producer.reduction_dims, *producer.window_dims}
    names = {d: _fresh(along.get(d, d), taken) for d in consumer.parallel_dims}
    for d in consumer.reduction_dims:
        names[d] = _fresh("p" + along.get(d, d).removeprefix("o"), taken)
    return names


def _parallel(producer: Nest, consumer: Nest, names: Mapping[str, str], along: Mapping[str, str]) -> Extents:
    """Pixels, window, filters (or at least the innermost dim): outermost first."""
    dims = consumer.parallel_dims
    filters = [d for d in dims if along.get(d) in producer.filter_dims] or list(dims[-1:])
    pixels = [d for d in dims if d not in filters]
    window = [(names[d], n) for d, n in consumer.reduction] + [(d, producer.extents[d]) for d in producer.window_dims]
    return (
        *((names[d], consumer.extents[d]) for d in pixels),
        *window,
        *((names[d], consumer.extents[d]) for d in filters),
    )
