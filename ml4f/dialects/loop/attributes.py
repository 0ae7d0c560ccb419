"""Types and attributes of the loop dialect: pointers, nests and schedules, each with a syntax that people can write."""

from __future__ import annotations

import re
from typing import cast

from xdsl.dialects.builtin import FloatAttr, IntAttr, f64
from xdsl.ir import Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer

from ml4f.backend.loop.nest import Combine, Guard, Linear, Nest, Operand, Schedule, Segments, Step


@irdl_attr_definition
class PointerType(ParametrizedAttribute, TypeAttribute):
    """The address of a buffer, or of a place inside it."""

    name = "loop.ptr"


_TERM = re.compile(r"([+-]?)\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*|\d+)\s*")


def linear_text(linear: Linear) -> str:
    """`3*oy + kx - 1`."""
    parts: list[str] = []
    for dim, coefficient in linear.terms:
        magnitude = dim if abs(coefficient) == 1 else f"{abs(coefficient)}*{dim}"
        parts.append(("- " if coefficient < 0 else "+ ") + magnitude)
    if linear.constant or not parts:
        parts.append(("- " if linear.constant < 0 else "+ ") + str(abs(linear.constant)))
    text = " ".join(parts)
    return text[2:] if text.startswith("+ ") else "-" + text[2:]


def parse_linear(text: str) -> Linear:
    """The inverse of `linear_text`; raises ValueError."""
    position, constant, coefficients = 0, 0, dict[str, int]()
    text = text.strip()
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or (position and not match[1]):
            raise ValueError(f"'{text}' is not a sum of terms like 3*oy")
        sign = -1 if match[1] == "-" else 1
        if match[3].isdigit():
            constant += sign * int(match[3]) * int(match[2] or 1)
        else:
            coefficients[match[3]] = coefficients.get(match[3], 0) + sign * int(match[2] or 1)
        position = match.end()
    return Linear.of(constant, **coefficients)


def _print_number(printer: Printer, value: float) -> None:
    printer.print_attribute(FloatAttr(value, f64))


def _parse_number(parser: AttrParser) -> float:
    attribute = parser.parse_attribute()
    if isinstance(attribute, FloatAttr):
        return cast(float, attribute.value.data)
    if isinstance(attribute, IntAttr):
        return float(attribute.data)
    parser.raise_error("expected a number")


def _parse_linear(parser: AttrParser) -> Linear:
    text = parser.parse_str_literal("an affine expression in quotes")
    try:
        return parse_linear(text)
    except ValueError as e:
        parser.raise_error(str(e))


def _parse_extents(parser: AttrParser) -> tuple[tuple[str, int], ...]:
    def pair() -> tuple[str, int]:
        name = parser.parse_identifier()
        parser.parse_punctuation("=")
        return name, parser.parse_integer(allow_boolean=False, allow_negative=False)

    return tuple(parser.parse_comma_separated_list(parser.Delimiter.PAREN, pair))


def _extents_text(extents: tuple[tuple[str, int], ...]) -> str:
    return "(" + ", ".join(f"{d} = {n}" for d, n in extents) + ")"


def _parse_operand(parser: AttrParser) -> Operand:
    role = parser.parse_identifier()
    parser.parse_punctuation("[")
    linear = _parse_linear(parser)
    parser.parse_punctuation("]")
    element = "f16" if parser.parse_optional_keyword("f16") else "f32"
    return Operand(role, linear, element)


def _parse_guard(parser: AttrParser) -> Guard:
    linear = _parse_linear(parser)
    parser.parse_punctuation("<")
    return Guard(linear, parser.parse_integer())


def _guards_text(guards: tuple[Guard, ...]) -> str:
    return ", ".join(f'"{linear_text(g.expr)}" < {g.extent}' for g in guards)


def _parse_step(parser: AttrParser) -> Step:
    kind = parser.parse_identifier()
    role, name = None, ""
    parameters: tuple[float, ...] = ()
    if kind == "activation":
        name = parser.parse_identifier()
    elif not kind.startswith("pool_"):
        role = parser.parse_optional_identifier()
    numbers = parser.parse_optional_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_number(parser))
    if numbers is not None:
        parameters = tuple(numbers)
    return Step(kind, role, name, parameters)


@irdl_attr_definition
class NestAttr(Data[Nest]):
    """A `Nest`: `<parallel (oy = 4, f = 8) reduce (k = 9) mac x["oy + k"], w["8*k + f"], out["8*oy + f"] …>`.

    Then optionally `where "oy + ky - 1" < 4` for each guard, `then relu, …` for the epilogue, `initial 0.0`,
    `nonnegative`, `pooled where "2*ox + px" < 3` for the accumulators that take part in pooling.
    """

    name = "loop.nest"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Nest:
        with parser.in_angle_brackets():
            parser.parse_keyword("parallel")
            parallel = _parse_extents(parser)
            reduction = _parse_extents(parser) if parser.parse_optional_keyword("reduce") else ()
            combine = cast(Combine, parser.parse_identifier())
            operands = parser.parse_comma_separated_list(parser.Delimiter.NONE, lambda: _parse_operand(parser))
            guards: list[Guard] = []
            if parser.parse_optional_keyword("where"):
                guards = parser.parse_comma_separated_list(parser.Delimiter.NONE, lambda: _parse_guard(parser))
            steps: list[Step] = []
            if parser.parse_optional_keyword("then"):
                steps = parser.parse_comma_separated_list(parser.Delimiter.NONE, lambda: _parse_step(parser))
            initial = _parse_number(parser) if parser.parse_optional_keyword("initial") else 0.0
            nonnegative = parser.parse_optional_keyword("nonnegative") is not None
            pooled: list[Guard] = []
            if parser.parse_optional_keyword("pooled"):
                parser.parse_keyword("where")
                pooled = parser.parse_comma_separated_list(parser.Delimiter.NONE, lambda: _parse_guard(parser))
        lists = (tuple(operands), tuple(guards), tuple(steps))
        return Nest(parallel, reduction, combine, *lists, initial, nonnegative, tuple(pooled))

    def print_parameter(self, printer: Printer) -> None:
        nest = self.data
        with printer.in_angle_brackets():
            printer.print_string("parallel " + _extents_text(nest.parallel))
            if nest.reduction:
                printer.print_string(" reduce " + _extents_text(nest.reduction))
            printer.print_string(f" {nest.combine} ")
            for i, operand in enumerate(nest.operands):
                printer.print_string(", " if i else "")
                printer.print_string(f'{operand.role}["{linear_text(operand.map)}"]')
                printer.print_string(" f16" if operand.element == "f16" else "")
            if nest.guards:
                printer.print_string(" where " + _guards_text(nest.guards))
            for i, step in enumerate(nest.epilogue):
                printer.print_string(", " if i else " then ")
                self._print_step(printer, step)
            if nest.initial:
                printer.print_string(" initial ")
                _print_number(printer, nest.initial)
            if nest.nonnegative:
                printer.print_string(" nonnegative")
            if nest.pool_guards:
                printer.print_string(" pooled where " + _guards_text(nest.pool_guards))

    @staticmethod
    def _print_step(printer: Printer, step: Step) -> None:
        printer.print_string(" ".join(filter(None, (step.kind, step.name, step.role))))
        if step.parameters:
            with printer.in_parens():
                printer.print_list(step.parameters, lambda value: _print_number(printer, value))


def _segments_text(segments: Segments) -> str:
    return "[" + ", ".join(f"{step} * {count}" for step, count in segments) + "]"


def _parse_segments(parser: AttrParser) -> Segments:
    def pair() -> tuple[int, int]:
        step = parser.parse_integer()
        parser.parse_punctuation("*")
        return step, parser.parse_integer()

    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, pair))


def _parse_loop(parser: AttrParser) -> tuple[str, Segments]:
    return parser.parse_identifier(), _parse_segments(parser)


def _parse_names(parser: AttrParser) -> tuple[str, ...]:
    return tuple(parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_identifier))


def _parse_order(parser: AttrParser) -> tuple[str, tuple[int, ...]]:
    name = parser.parse_identifier()
    return name, tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))


@irdl_attr_definition
class ScheduleAttr(Data[Schedule]):
    """A `Schedule`: `<loops (oy[1 * 4], f[4 * 2], k[9 * 1]) tile (f, oy) unroll (k) points 1 chunk 0 …>`."""

    name = "loop.schedule"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Schedule:
        values: dict[str, object] = {}
        with parser.in_angle_brackets():
            parser.parse_keyword("loops")
            values["loops"] = tuple(
                parser.parse_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_loop(parser))
            )
            while (key := parser.parse_optional_identifier()) is not None:
                if key in ("tile", "unroll", "multiple", "early", "reverse", "resident"):
                    values[key] = _parse_names(parser)
                elif key == "order":
                    values[key] = tuple(
                        parser.parse_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_order(parser))
                    )
                elif key in ("points", "chunk", "vector"):
                    values[key] = parser.parse_integer()
                elif key == "hoist":
                    values[key] = True
                elif key in ("trim", "edge"):
                    outer, inner = _parse_names(parser)
                    values[key] = (outer, inner)
                elif key in ("roll", "skew"):
                    outer, inner = _parse_names(parser)
                    values[key] = (outer, inner, parser.parse_integer())
                else:
                    parser.raise_error(f"'{key}' is not part of a schedule")
        return Schedule(**values)  # pyright: ignore[reportArgumentType]

    def print_parameter(self, printer: Printer) -> None:
        s = self.data
        parts = ["loops (" + ", ".join(f"{d}{_segments_text(g)}" for d, g in s.loops) + ")"]
        for key in ("tile", "unroll", "multiple", "early", "reverse", "resident"):
            names = getattr(s, key)
            if names:
                parts.append(f"{key} ({', '.join(names)})")
        if s.order:
            parts.append("order (" + ", ".join(f"{d}[{', '.join(map(str, p))}]" for d, p in s.order) + ")")
        parts.append(f"points {s.points} chunk {s.chunk} vector {s.vector}")
        if s.trim is not None:
            parts.append(f"trim ({s.trim[0]}, {s.trim[1]})")
        if s.edge is not None:
            parts.append(f"edge ({s.edge[0]}, {s.edge[1]})")
        if s.roll is not None:
            parts.append(f"roll ({s.roll[0]}, {s.roll[1]}) {s.roll[2]}")
        if s.skew is not None:
            parts.append(f"skew ({s.skew[0]}, {s.skew[1]}) {s.skew[2]}")
        if s.hoist:
            parts.append("hoist")
        with printer.in_angle_brackets():
            printer.print_string(" ".join(parts))
