"""Rolling accumulators: walks down the input rows once and keeps the partial sums of all output rows that a row feeds.

A change of basis (oy, ky) -> iy. For a depthwise kernel all weights of a channel then stay in registers and every input
is loaded once. A *beat* is the input rows (as many as the stride) behind which output row `oy` is complete; the beats
whose rows all exist form a loop, its partial sums are loop-carried, R beats to an iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml4f.backend.loop.nest import Nest
from ml4f.backend.loop.operands import Environment, Position

if TYPE_CHECKING:
    from ml4f.backend.loop.expand import Expansion

Key = tuple[int, tuple[int, ...]]
"""(output row relative to the current beat, tile point)."""


@dataclass(frozen=True)
class Rolling:
    """The geometry of a rolled pair of dims: stride, taps, rows, and the range of steady beats."""

    outer: str
    inner: str
    stride: int
    taps: int
    rows: int
    steady: range

    @property
    def lookahead(self) -> int:
        """How many further output rows a beat feeds."""
        return (self.taps - 1) // self.stride


def rolling(nest: Nest, outer: str, inner: str) -> Rolling | None:
    """The geometry, or None where the input access does not walk rows."""
    x = nest.by_role["x"].map
    row, tap = x.coefficient(outer), x.coefficient(inner)
    if not tap or row % tap or row // tap < 1:
        return None
    stride, taps, rows = row // tap, nest.extents[inner], nest.extents[outer]
    guards = [g for g in nest.guards if g.expr.mentions(outer) or g.expr.mentions(inner)]
    for guard in guards:
        if guard.expr.coefficient(outer) != stride * guard.expr.coefficient(inner) or len(guard.expr.terms) != 2:
            return None

    def exists(beat: int, tap_: int) -> bool:
        return all(0 <= g.expr({outer: beat, inner: tap_}) < g.extent for g in guards)

    lookahead = (taps - 1) // stride
    steady = [
        beat
        for beat in range(rows - lookahead)
        if all(exists(beat, tap_) for tap_ in range(max(taps - stride, 0), taps))
    ]
    contiguous = range(steady[0], steady[-1] + 1) if steady else range(0)
    return Rolling(outer, inner, stride, taps, rows, contiguous)


def expand_rolled(expansion: Expansion, env: Environment) -> None:
    """One column of tiles, from the first input row to the last. `env` holds all other parallel dims."""
    assert expansion.schedule.roll is not None
    outer, inner, unrolled = expansion.schedule.roll
    geometry = rolling(expansion.nest, outer, inner)
    assert geometry is not None
    _Walk(expansion, env, geometry, unrolled).run()


class _Walk:
    def __init__(self, expansion: Expansion, env: Environment, geometry: Rolling, unrolled: int):
        self.e = expansion
        self.operands = expansion.operands
        self.geometry = geometry
        self.unrolled = unrolled
        self.env = {**env, **{d: Position(0, n, 0) for d, n in expansion.nest.reduction}}
        self.points = expansion.tile_points({**env, geometry.outer: Position(0, 1, 0)})
        self.preload()

    def preload(self) -> None:
        """All weights of the tile and its biases, once."""
        e, env = self.e, {**self.env, self.geometry.outer: Position(0, 1, 0)}
        packed = self.operands.layout is not None
        self.weights = self.operands.packed_access(env) if packed else self.operands.access("v", env)
        self.first = self.operands.firsts(env)
        if e.nest.has("bias"):
            for key in self.points:
                self.first(key)
        for tap in range(self.geometry.taps):
            for point in self.others():
                for key in self.points:
                    self.operands.load_all("w", [self.weights.of({**point, self.geometry.inner: tap}, key)], "f32")

    def others(self) -> list[dict[str, int]]:
        """The points of the remaining reduction dims."""
        return [p for p in self.e.products.reduction_points(self.env) if p[self.geometry.inner] == 0]

    def run(self) -> None:
        g = self.geometry
        sums: dict[Key, Any] = {}
        trips = len(g.steady) // self.unrolled
        first = g.steady.start if trips > 1 else g.rows
        beat = -g.lookahead
        while beat < g.rows:
            if beat != first:
                sums = self.beat(beat, (), sums)
                beat += 1
                continue
            sums = self.loop(beat, trips, sums)
            beat += trips * self.unrolled

    def loop(self, first: int, trips: int, sums: dict[Key, Any]) -> dict[Key, Any]:
        e, g = self.e, self.geometry
        keys = [(d, p) for d in range(g.lookahead) for p in self.points]
        inits = [sums[k] if sums.get(k) is not None else self.first(k[1]) for k in keys]
        outer = dict(self.operands.cache)
        variable, carried = e.b.begin_loop(trips, None, None, inits, g.outer)
        inner = dict(zip(keys, carried, strict=True))
        for j in range(self.unrolled):
            inner = self.beat(first + j, ((variable, self.unrolled),), inner)
        results = e.b.end_loop([inner[k] if inner.get(k) is not None else self.first(k[1]) for k in keys])
        self.operands.cache = outer
        return dict(zip(keys, results, strict=True))

    def beat(self, beat: int, terms: Any, sums: dict[Key, Any]) -> dict[Key, Any]:
        """The rows of one beat; returns the partial sums, renumbered for the next beat."""
        g, e = self.geometry, self.e
        env = {**self.env, g.outer: Position(beat, 1, 0, terms)}
        for tap in range(g.taps - g.stride, g.taps):
            if tap >= 0 and self.row_exists(beat, tap):
                self.row(env, beat, tap, sums)
        if 0 <= beat < g.rows:
            finished = {p: sums.pop((0, p), None) for p in self.points}
            full = {**env, **{d: Position(0, 1, 0) for d in e.nest.reduction_dims}}
            e.epilogue.run(full, finished)
        return {(d - 1, p): v for (d, p), v in sums.items() if d > 0}

    def row_exists(self, beat: int, tap: int) -> bool:
        g = self.geometry
        guards = [x for x in self.e.nest.guards if x.expr.mentions(g.inner)]
        return all(0 <= x.expr({g.outer: beat, g.inner: tap}) < x.extent for x in guards)

    def row(self, env: Environment, beat: int, tap: int, sums: dict[Key, Any]) -> None:
        """Loads one input row of the tile in short chains and adds its products to every output row it feeds."""
        g, e = self.geometry, self.e
        inputs = self.operands.access("x", env)
        products: list[tuple[Any, Key, Any]] = []
        for d in range(g.lookahead + 1):
            own = tap - g.stride * d
            if own < 0 or not 0 <= beat + d < g.rows:
                continue
            for point in self.others():
                for key in self.points:
                    if self.e.products.exists(env, point, key, ignore=g.inner):
                        x = inputs.of({**point, g.inner: tap}, key)
                        products.append((x, (d, key), self.weights.of({**point, g.inner: own}, key)))
        addresses = sorted({x for x, _, _ in products}, key=lambda a: a.offset)
        size = e.schedule.chunk or len(addresses) or 1
        for i in range(0, len(addresses), size):
            part = addresses[i : i + size]
            self.operands.load_all("x", part, "f32")
            wanted = set(part)
            for x, key, w in products:
                if x in wanted:
                    value = e.b.fmul(self.operands.cache[x], self.operands.weight(w))
                    previous = sums.get(key)
                    if previous is None and e.nest.has("bias"):
                        previous = self.first(key[1])
                    sums[key] = value if previous is None else e.b.fadd(previous, value)
        for x in addresses:
            del self.operands.cache[x]
