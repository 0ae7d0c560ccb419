"""Functions, structured loops, calls and data: what stands around the instructions."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    i8,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    BaseAttr,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    HasParent,
    IsolatedFromAbove,
    IsTerminator,
    MemoryReadEffect,
    MemoryWriteEffect,
    RecursiveMemoryEffect,
    SymbolOpInterface,
)
from xdsl.utils.exceptions import VerifyException

from ml4f.dialects.thumb.base import parse_entries, parse_value, parse_values, print_entries
from ml4f.dialects.thumb.registers import CoreRegisterType, SingleRegisterType, number

CORE = BaseAttr(CoreRegisterType)
REGISTER = BaseAttr(CoreRegisterType) | BaseAttr(SingleRegisterType)
ARGUMENT_REGISTERS = 13
"""r0 to r12 can carry arguments."""


@irdl_op_definition
class ReturnOp(IRDLOperation):
    """Ends a function."""

    name = "thumb.return"
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(FuncOp)))
    assembly_format = "attr-dict"


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends a loop's body with the next values of what it carries; `counter`: a counter reloaded from its slot."""

    name = "thumb.yield"
    values = var_operand_def(REGISTER)
    counter = opt_operand_def(CORE)
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(LoopOp)))

    def print(self, printer: Printer) -> None:
        if self.values:
            printer.print_string(" ")
            printer.print_list(self.values, printer.print_ssa_value)
        if self.counter is not None:
            printer.print_string(" counter ")
            printer.print_ssa_value(self.counter)

    @classmethod
    def parse(cls, parser: Parser) -> YieldOp:
        values = parse_values(parser)
        counter = parse_value(parser) if parser.parse_optional_keyword("counter") else None
        return make_yield(values, counter)


def make_yield(values: Sequence[SSAValue], counter: SSAValue | None = None) -> YieldOp:
    """Builds a `thumb.yield`."""
    return YieldOp.build(operands=[list(values), counter])


@irdl_op_definition
class LoopOp(IRDLOperation):
    """`do { body } while (--count != 0)`; needs count ≥ 1. The count's register is the counter and is consumed.

    After spilling: `counter_slot`: the counter lives in the frame (the count was stored there); `slots`: frame slots of
    carried values that no longer appear in the lists.
    """

    name = "thumb.loop"
    count = operand_def(CORE)
    inits = var_operand_def(REGISTER)
    label = opt_prop_def(StringAttr)
    counter_slot = opt_prop_def(IntegerAttr)
    slots = opt_prop_def(DenseArrayBase)
    results_ = var_result_def(REGISTER)
    body = region_def("single_block")
    traits = traits_def(RecursiveMemoryEffect())

    def verify_(self) -> None:
        args, last = self.body.block.args, self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException("the body ends with thumb.yield")
        carried = (self.inits, args, last.values, self.results_)
        if len({len(values) for values in carried}) != 1:
            raise VerifyException("initial values, arguments, yielded values and results differ in number")
        for values in zip(*carried, strict=True):
            if len({type(value.type) for value in values}) != 1:
                raise VerifyException("a carried value changes its register class")
            registers = {number(value) for value in values} - {None}
            if len(registers) > 1:
                raise VerifyException("a carried value changes its register")
        if (self.counter_slot is None) != (last.counter is None):
            raise VerifyException("a counter in the frame is reloaded by the yield, and only such a counter")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.count)
        if self.inits:
            printer.print_string(" carry (")
            for i, (arg, init) in enumerate(zip(self.body.block.args, self.inits, strict=True)):
                printer.print_string(", " if i else "")
                printer.print_ssa_value(arg)
                printer.print_string(" = ")
                printer.print_ssa_value(init)
                printer.print_string(" : ")
                printer.print_attribute(arg.type)
            printer.print_string(")")
        if self.results:
            printer.print_string(" -> ")
            printer.print_list(self.result_types, printer.print_attribute)
        print_entries(printer, self, before_region=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> LoopOp:
        count = parse_value(parser)

        def carried() -> tuple[Parser.Argument, SSAValue]:
            arg = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            init = parse_value(parser)
            parser.parse_punctuation(":")
            return arg.resolve(parser.parse_type()), init

        pairs: list[tuple[Parser.Argument, SSAValue]] = []
        if parser.parse_optional_keyword("carry"):
            pairs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, carried)
        types: list[Attribute] = []
        if parser.parse_optional_punctuation("->"):
            types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        properties, attributes = parse_entries(parser, cls, before_region=True)
        body = parser.parse_region([arg for arg, _ in pairs])
        return cls.create(
            operands=[count, *(init for _, init in pairs)],
            result_types=types,
            properties=properties,
            attributes=attributes,
            regions=[body],
        )


@irdl_op_definition
class CallOp(IRDLOperation):
    """Calls a function with arguments in r0, r1, …; every register but sp may change. Attributes name layers and
    source.
    """

    name = "thumb.call"
    arguments = var_operand_def(CORE)
    callee = prop_def(SymbolRefAttr)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def verify_(self) -> None:
        if len(self.arguments) > ARGUMENT_REGISTERS:
            raise VerifyException(f"at most {ARGUMENT_REGISTERS} arguments")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.callee)
        with printer.in_parens():
            printer.print_list(self.arguments, printer.print_ssa_value)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> CallOp:
        callee = SymbolRefAttr(parser.parse_symbol_name())
        arguments = parser.parse_comma_separated_list(parser.Delimiter.PAREN, lambda: parse_value(parser))
        attributes = parser.parse_optional_attr_dict()
        return cls.create(operands=arguments, properties={"callee": callee}, attributes=attributes)


@irdl_op_definition
class FuncOp(IRDLOperation):
    """A function with arguments in r0, r1, …; `frame`: bytes of spill slots; `entry`: the object's entry point."""

    name = "thumb.func"
    sym_name = prop_def(SymbolNameConstraint())
    frame = opt_prop_def(IntegerAttr)
    entry = opt_prop_def(UnitAttr)
    body = region_def("single_block")
    traits = traits_def(SymbolOpInterface(), IsolatedFromAbove())

    def verify_(self) -> None:
        for index, arg in enumerate(self.body.block.args):
            if number(arg) != index:
                raise VerifyException(f"argument {index} comes in r{index}")
        if not isinstance(self.body.block.last_op, ReturnOp):
            raise VerifyException("the body ends with thumb.return")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        with printer.in_parens():
            printer.print_list(self.body.block.args, printer.print_block_argument)
        print_entries(printer, self, hidden=("sym_name",), before_region=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> FuncOp:
        name = parser.parse_symbol_name()
        arguments = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_argument)
        properties, attributes = parse_entries(parser, cls, before_region=True)
        body = parser.parse_region(arguments)
        return cls.create(properties={"sym_name": name, **properties}, attributes=attributes, regions=[body])


@irdl_op_definition
class DataOp(IRDLOperation):
    """Read-only bytes of the object: weights, tables."""

    name = "thumb.data"
    sym_name = prop_def(SymbolNameConstraint())
    value = prop_def(BaseAttr(DenseIntOrFPElementsAttr))
    alignment = opt_prop_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name `=` $value attr-dict"

    def contents(self) -> bytes:
        """The bytes."""
        data = self.value.data
        assert isinstance(data, BytesAttr)
        return data.data


def make_data(name: str, contents: bytes, alignment: int) -> DataOp:
    """Builds a `thumb.data`."""
    value = DenseIntOrFPElementsAttr(TensorType(i8, [len(contents)]), BytesAttr(contents))
    return DataOp.create(
        properties={"sym_name": StringAttr(name), "value": value, "alignment": IntegerAttr(alignment, 64)}
    )


def make_func(name: str, body: Region, entry: bool = False) -> FuncOp:
    """Builds a `thumb.func` around a region."""
    properties: dict[str, Attribute] = {"sym_name": StringAttr(name)}
    if entry:
        properties["entry"] = UnitAttr()
    return FuncOp.create(properties=properties, regions=[body])


def make_loop(count: SSAValue, inits: Sequence[SSAValue], body: Region, label: str | None = None) -> LoopOp:
    """Builds a `thumb.loop` around a region whose block has an argument for each initial value."""
    properties: dict[str, Attribute] = {} if label is None else {"label": StringAttr(label)}
    block: Block = body.block
    return LoopOp.create(
        operands=[count, *inits], result_types=[arg.type for arg in block.args], properties=properties, regions=[body]
    )


STRUCTURE_OPS = [ReturnOp, YieldOp, LoopOp, CallOp, FuncOp, DataOp]

__all__ = [
    "STRUCTURE_OPS",
    "CallOp",
    "DataOp",
    "FuncOp",
    "LoopOp",
    "ReturnOp",
    "YieldOp",
    "make_data",
    "make_func",
    "make_loop",
    "make_yield",
]
