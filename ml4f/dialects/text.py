"""Text of operations in the short form that nn and thumb share: operands, one dictionary, result types."""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.parser import Parser
from xdsl.printer import Printer


def print_entries(
    printer: Printer, op: IRDLOperation, hidden: tuple[str, ...] = (), before_region: bool = False
) -> None:
    """Properties and attributes as one dictionary; 64-bit integers without their type, units as bare names.

    before_region: a region follows, so that the dictionary needs the keyword `attributes` to be told from it.
    """
    entries = {k: v for k, v in (op.properties | op.attributes).items() if k not in hidden}
    if not entries:
        return

    def entry(item: tuple[str, Attribute]) -> None:
        name, value = item
        printer.print_string(name)
        if isinstance(value, IntegerAttr) and value.type == i64:
            printer.print_string(f" = {value.value.data}")
        elif not _is_unit(value):
            printer.print_string(" = ")
            printer.print_attribute(value)

    printer.print_string(" attributes {" if before_region else " {")
    printer.print_list(entries.items(), entry)
    printer.print_string("}")


def _is_unit(value: Attribute) -> bool:
    return value.name == "unit"


def parse_entries(
    parser: Parser, cls: type[IRDLOperation], before_region: bool = False
) -> tuple[dict[str, Attribute], dict[str, Attribute]]:
    """The inverse of `print_entries`: what the operation defines as property, and the rest."""
    entries: dict[str, Attribute] = {}
    if not before_region or parser.parse_optional_keyword("attributes"):
        entries = parser.parse_optional_attr_dict()
    known = cls.get_irdl_definition().properties
    properties = {k: v for k, v in entries.items() if k in known}
    return properties, {k: v for k, v in entries.items() if k not in known}


def parse_value(parser: Parser) -> SSAValue:
    """A value that is defined already; its type is known from there."""
    position = parser.pos
    name = parser.parse_unresolved_operand()
    known = parser.ssa_values.get(name.operand_name)
    if known is None or name.index >= len(known):
        parser.raise_error(f"%{name.operand_name} is not defined before its use", position)
    return known[name.index]


def parse_values(parser: Parser) -> list[SSAValue]:
    """A possibly empty list of values."""
    operands: list[SSAValue] = []
    position = parser.pos
    unresolved = parser.parse_optional_undelimited_comma_separated_list(
        parser.parse_optional_unresolved_operand, parser.parse_unresolved_operand
    )
    for name in unresolved or ():
        known = parser.ssa_values.get(name.operand_name)
        if known is None or name.index >= len(known):
            parser.raise_error(f"%{name.operand_name} is not defined before its use", position)
        operands.append(known[name.index])
    return operands
