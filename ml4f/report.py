"""What a person or a program is told about a compiled model: sizes, cycles, layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

KILO = 1024


@dataclass(frozen=True)
class LayerStats:
    """One call of a kernel; bytes and modelled cycles. Shared kernels count their code at the first call."""

    name: str
    operator: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    cycles: int
    code_bytes: int
    weight_bytes: int
    arena_bytes: int
    macs: int


@dataclass(frozen=True)
class ModelStats:
    """The whole object, in bytes and cycles."""

    name: str
    core: str
    weights: str
    total_bytes: int
    code_bytes: int
    weight_bytes: int
    arena_bytes: int
    test_bytes: int
    cycles: int
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: tuple[LayerStats, ...]
    arena_bound: int
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def kilobytes(size: int) -> str:
    """`12.75k`."""
    return f"{size / KILO:.2f}k"


def size_line(model_bytes: int, code_bytes: int, arena_bytes: int, test_bytes: int) -> str:
    """`model: 12.75k; code: 2.46k (19.3%); arena: 4.38k; test 0.00k`."""
    share = 100 * code_bytes / model_bytes if model_bytes else 0.0
    return (
        f"model: {kilobytes(model_bytes)}; code: {kilobytes(code_bytes)} ({share:.1f}%); "
        f"arena: {kilobytes(arena_bytes)}; test {kilobytes(test_bytes)}"
    )


def cycles_line(cycles: int, megahertz: float) -> str:
    """`total cycles: 225149 (2.680ms at 84MHz)`."""
    return f"total cycles: {cycles} ({cycles / megahertz / 1000:.3f}ms at {megahertz:g}MHz)"


def summary(stats: ModelStats, megahertz: float) -> str:
    """The two lines that every compilation ends with."""
    return "\n".join(
        [
            size_line(stats.total_bytes - stats.test_bytes, stats.code_bytes, stats.arena_bytes, stats.test_bytes),
            cycles_line(stats.cycles, megahertz),
        ]
    )


def bound_line(arena_bytes: int, bound: int) -> str:
    """`planner bound: 4488 bytes, reached`: what no memory plan of these kernels can go below."""
    missing = arena_bytes - bound
    return f"planner bound: {bound} bytes, " + (f"missed by {missing} bytes" if missing else "reached")


def table(rows: Sequence[Sequence[object]], headings: Sequence[str]) -> str:
    """A plain text table; numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *texts]) for i in range(len(headings))]
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(cells, widths, numeric, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(headings), line(["-" * w for w in widths]), *(line(row) for row in texts)])


def layer_table(layers: Sequence[LayerStats]) -> str:
    """One line a kernel."""
    rows = [
        (
            layer.name,
            layer.operator,
            "x".join(map(str, layer.output_shape)) or "-",
            layer.cycles,
            layer.macs,
            f"{layer.cycles / layer.macs:.2f}" if layer.macs else "-",
            layer.code_bytes,
            layer.weight_bytes,
            layer.arena_bytes,
        )
        for layer in layers
    ]
    headings = ("layer", "operator", "output", "cycles", "MACs", "cycles/MAC", "code", "weights", "arena")
    return table(rows, headings)


def report(stats: ModelStats, megahertz: float) -> str:
    """The text of `NAME.txt`."""
    lines = [
        f"model {stats.name}: {'x'.join(map(str, stats.input_shape))} -> {'x'.join(map(str, stats.output_shape))}",
        f"weights: {stats.weights}; core: {stats.core}; cycles are modelled for the Cortex-M4F",
        "",
        layer_table(stats.layers),
        "",
        summary(stats, megahertz),
        bound_line(stats.arena_bytes, stats.arena_bound),
    ]
    if stats.notes:
        lines += ["", *(f"note: {note}" for note in stats.notes)]
    return "\n".join(lines) + "\n"
