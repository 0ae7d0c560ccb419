"""The structure of a loop-level program: buffers, data, kernels, the order of their calls, and loops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    IndexType,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
)
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrSizedOperandSegments,
    BaseAttr,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    lazy_traits_def,
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
    NoTerminator,
    RecursiveMemoryEffect,
    SingleBlockImplicitTerminator,
    SymbolOpInterface,
)
from xdsl.utils.exceptions import VerifyException

from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.backend.loop.nest import ARITHMETIC_STEPS, NEUTRAL, STEP_KINDS
from ml4f.dialects.loop.attributes import NestAttr, PointerType, ScheduleAttr


@irdl_op_definition
class BufferOp(IRDLOperation):
    """A piece of the arena: `bytes` long, at `offset` once the memory plan is made."""

    name = "loop.buffer"
    sym_name = prop_def(SymbolNameConstraint())
    bytes = prop_def(IntegerAttr)
    offset = opt_prop_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name attr-dict"


@irdl_op_definition
class DataOp(IRDLOperation):
    """Read-only bytes of the object: weights, tables."""

    name = "loop.data"
    sym_name = prop_def(SymbolNameConstraint())
    value = prop_def(BaseAttr(DenseIntOrFPElementsAttr))
    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name `=` $value attr-dict"


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """Ends a loop's body with the next values of what it carries."""

    name = "loop.yield"
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(ForOp, RepeatOp)))


@irdl_op_definition
class KernelOp(IRDLOperation):
    """Code over pointers; `spaces` tells for each whether it points into the arena or to constants."""

    name = "loop.kernel"
    sym_name = prop_def(SymbolNameConstraint())
    spaces = prop_def(ArrayAttr[StringAttr])
    body = region_def("single_block")
    traits = traits_def(SymbolOpInterface(), NoTerminator(), IsolatedFromAbove())

    def verify_(self) -> None:
        if len(self.spaces) != len(self.body.block.args):
            raise VerifyException("needs one space for each argument")
        for arg in self.body.block.args:
            if not isinstance(arg.type, PointerType):
                raise VerifyException("arguments are pointers")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        with printer.in_parens():
            for i, (arg, space) in enumerate(zip(self.body.block.args, self.spaces, strict=True)):
                printer.print_string(", " if i else "")
                printer.print_ssa_value(arg)
                printer.print_string(f" : {space.data}")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> KernelOp:
        name = parser.parse_symbol_name()

        def argument() -> tuple[Parser.Argument, StringAttr]:
            arg = parser.parse_argument(expect_type=False)
            parser.parse_punctuation(":")
            space = parser.parse_identifier()
            return arg.resolve(PointerType()), StringAttr(space)

        pairs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, argument)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region([a for a, _ in pairs])
        op = cls.create(
            properties={"sym_name": name, "spaces": ArrayAttr([s for _, s in pairs])},
            regions=[body],
            attributes=dict(attributes.data) if attributes is not None else {},
        )
        return op


@irdl_op_definition
class NestOp(IRDLOperation):
    """The nest form of a kernel's body: the algorithm, and, once chosen, its schedule.

    In a `loop.for` it is executed in every iteration, and `strides` says by how many elements each pointer has moved on
    since the iteration before.
    """

    name = "loop.nest"
    pointers = var_operand_def(BaseAttr(PointerType))
    nest = prop_def(NestAttr)
    schedule = opt_prop_def(ScheduleAttr)
    strides = opt_prop_def(DenseArrayBase)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$pointers `:` $nest (`schedule` $schedule^)? attr-dict"

    @property
    def loop(self) -> ForOp | None:
        """The loop around, if there is one."""
        parent = self.parent_op()
        return parent if isinstance(parent, ForOp) else None

    @property
    def steps(self) -> tuple[int, ...]:
        """For each pointer how many elements it moves on with each iteration of the loop around."""
        if self.strides is None:
            return (0,) * len(self.pointers)
        return tuple(int(n) for n in self.strides.get_values())  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def count(self) -> int:
        """How often the nest is executed in a call of its kernel."""
        return 1 if self.loop is None or self.loop.count is None else self.loop.count.value.data

    def verify_(self) -> None:
        nest = self.nest.data
        self._verify_algorithm()
        if len(self.steps) != len(self.pointers):
            raise VerifyException(f"needs a stride for each of the {len(self.pointers)} pointers")
        if any(self.steps) and (self.loop is None or self.loop.count is None):
            raise VerifyException("strides need a loop with a constant count around the nest")
        if len(self.pointers) != len(nest.operands):
            raise VerifyException(f"the nest has {len(nest.operands)} operands, not {len(self.pointers)}")
        dims = set(nest.extents)
        for linear in (*(o.map for o in nest.operands), *(g.expr for g in nest.guards)):
            unknown = set(linear.coefficients) - dims
            if unknown:
                raise VerifyException(f"no such dim: {', '.join(sorted(unknown))}")
        for step in nest.epilogue:
            if step.role is not None and not nest.has(step.role):
                raise VerifyException(f"the epilogue's operand '{step.role}' is missing")
        if not nest.has("out"):
            raise VerifyException("a nest needs the operand 'out'")
        if self.schedule is not None:
            self._verify_schedule()

    def _verify_algorithm(self) -> None:
        nest = self.nest.data
        if nest.combine not in NEUTRAL:
            raise VerifyException(f"terms combine by one of {', '.join(NEUTRAL)}, not '{nest.combine}'")
        factor = "v" if nest.has("v") else "w"  # computed or constant
        for role in ("x", factor) if nest.combine == "mac" else ("x",):
            if not nest.has(role):
                raise VerifyException(f"'{nest.combine}' needs the operand '{role}'")
        if nest.combine == "copy" and nest.terms() != prod(n for _, n in nest.parallel):
            raise VerifyException("'copy' has one term, and so no reduction dims")
        for step in nest.epilogue:
            if step.kind not in STEP_KINDS:
                raise VerifyException(f"'{step.kind}' is no step of an epilogue; those are {', '.join(STEP_KINDS)}")
            if step.kind == "activation" and step.name not in ACTIVATIONS:
                raise VerifyException(f"there is no activation '{step.name}'")
            if step.kind in ARITHMETIC_STEPS and step.role is None and len(step.parameters) != 1:
                raise VerifyException(f"'{step.kind}' needs an operand or one constant")

    def _verify_schedule(self) -> None:
        assert self.schedule is not None
        nest, schedule = self.nest.data, self.schedule.data
        names = [d for d, _ in schedule.loops]
        if sorted(names) != sorted(nest.extents):
            raise VerifyException(f"the schedule must name each dim once: {', '.join(nest.extents)}")
        for dim, segments in schedule.loops:
            covered = sum(step * count for step, count in segments)
            if covered != nest.extents[dim]:
                raise VerifyException(f"the segments of {dim} cover {covered} of {nest.extents[dim]} points")
        kinds = [d in nest.reduction_dims for d in names]
        if kinds != sorted(kinds):
            raise VerifyException("parallel dims stand before reduction dims")
        forward = {*nest.reduction_dims, *(schedule.roll[:1] if schedule.roll is not None else ())}
        for dim in schedule.reverse:
            if dim not in nest.parallel_dims or dim in forward:
                raise VerifyException(f"{dim} cannot run backwards: it is no parallel dim, or it is rolled")


@irdl_op_definition
class ForOp(IRDLOperation):
    """Indexed form: executes the body `count` times (at least once), the induction variable counting up from `lower`.

    `lower` (default 0) and the trip count may be run-time values.
    """

    name = "loop.for"
    lower = opt_operand_def(IndexType)
    trip_count = opt_operand_def(IndexType)
    inits = var_operand_def(AnyAttr())
    count = opt_prop_def(IntegerAttr)
    label = opt_prop_def(StringAttr)
    results_ = var_result_def(AnyAttr())
    body = region_def("single_block")
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(RecursiveMemoryEffect(), SingleBlockImplicitTerminator(YieldOp))

    @property
    def induction_variable(self) -> SSAValue:
        return self.body.block.args[0]

    def verify_(self) -> None:
        if (self.trip_count is None) == (self.count is None):
            raise VerifyException("needs a constant or a run-time trip count")
        if self.count is not None and self.count.value.data < 1:
            raise VerifyException("runs at least once")
        _verify_carried(self.inits, self.body.block.args[1:], self.results_, self.body.block)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.body.block.args[0])
        if self.lower is not None:
            printer.print_string(" from ")
            printer.print_ssa_value(self.lower)
        _print_count(printer, self.count, self.trip_count)
        _print_carried(printer, self.inits, self.body.block.args[1:], self.label)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> ForOp:
        variable = parser.parse_argument(expect_type=False).resolve(IndexType())
        index = IndexType()
        lower = (
            parser.resolve_operand(parser.parse_unresolved_operand(), index)
            if parser.parse_optional_keyword("from")
            else None
        )
        count, trip_count = _parse_count(parser)
        inits, arguments, label = _parse_carried(parser)
        body = parser.parse_region([variable, *arguments])
        _ensure_yield(body)
        return make_for(count, trip_count, lower, inits, body, label)


def make_for(
    count: int | None,
    trip_count: SSAValue | None,
    lower: SSAValue | None,
    inits: Sequence[SSAValue],
    body: Region,
    label: str | None = None,
) -> ForOp:
    """Builds a `loop.for` around an existing region (arguments: induction variable, carried values)."""
    return ForOp.build(
        operands=[lower, trip_count, list(inits)],
        properties={
            "count": None if count is None else IntegerAttr(count, 64),
            "label": None if label is None else StringAttr(label),
        },
        result_types=[[v.type for v in inits]],
        regions=[body],
    )


@irdl_op_definition
class RepeatOp(IRDLOperation):
    """Pointer form: executes the body `count` times (at least once); everything that changes is carried."""

    name = "loop.repeat"
    trip_count = opt_operand_def(IndexType)
    inits = var_operand_def(AnyAttr())
    count = opt_prop_def(IntegerAttr)
    label = opt_prop_def(StringAttr)
    results_ = var_result_def(AnyAttr())
    body = region_def("single_block")
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(RecursiveMemoryEffect(), SingleBlockImplicitTerminator(YieldOp))

    def verify_(self) -> None:
        if (self.trip_count is None) == (self.count is None):
            raise VerifyException("needs a constant or a run-time trip count")
        _verify_carried(self.inits, self.body.block.args, self.results_, self.body.block)

    def print(self, printer: Printer) -> None:
        _print_count(printer, self.count, self.trip_count)
        _print_carried(printer, self.inits, self.body.block.args, self.label)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> RepeatOp:
        count, trip_count = _parse_count(parser)
        inits, arguments, label = _parse_carried(parser)
        body = parser.parse_region(arguments)
        _ensure_yield(body)
        return make_repeat(count, trip_count, inits, body, label)


def make_repeat(
    count: int | None, trip_count: SSAValue | None, inits: Sequence[SSAValue], body: Region, label: str | None = None
) -> RepeatOp:
    """Builds a `loop.repeat` around an existing region (arguments: carried values)."""
    return RepeatOp.build(
        operands=[trip_count, list(inits)],
        properties={
            "count": None if count is None else IntegerAttr(count, 64),
            "label": None if label is None else StringAttr(label),
        },
        result_types=[[v.type for v in inits]],
        regions=[body],
    )


def _ensure_yield(body: Region) -> None:
    if body.block.last_op is None or not isinstance(body.block.last_op, YieldOp):
        body.block.add_op(YieldOp())


def _verify_carried(
    inits: Sequence[SSAValue], args: Sequence[SSAValue], results: Sequence[SSAValue], body: Block
) -> None:
    terminator = body.last_op
    yielded = terminator.operands if isinstance(terminator, YieldOp) else ()
    for what, values in (("arguments", args), ("results", results), ("yielded values", yielded)):
        if [v.type for v in values] != [v.type for v in inits]:
            raise VerifyException(f"the {what} do not match the initial values")


def _print_count(printer: Printer, count: IntegerAttr | None, trip_count: SSAValue | None) -> None:
    printer.print_string(" times ")
    if count is not None:
        printer.print_string(str(count.value.data))
    else:
        assert trip_count is not None
        printer.print_ssa_value(trip_count)


def _parse_count(parser: Parser) -> tuple[int | None, SSAValue | None]:
    parser.parse_keyword("times")
    count = parser.parse_optional_integer()
    if count is not None:
        return count, None
    return None, parser.resolve_operand(parser.parse_unresolved_operand(), IndexType())


def _print_carried(
    printer: Printer, inits: Sequence[SSAValue], args: Sequence[SSAValue], label: StringAttr | None
) -> None:
    if inits:
        printer.print_string(" carry (")
        for i, (arg, init) in enumerate(zip(args, inits, strict=True)):
            printer.print_string(", " if i else "")
            printer.print_ssa_value(arg)
            printer.print_string(" = ")
            printer.print_ssa_value(init)
            printer.print_string(" : ")
            printer.print_attribute(init.type)
        printer.print_string(")")
    if label is not None:
        printer.print_string(" label ")
        printer.print_string_literal(label.data)


def _parse_carried(parser: Parser) -> tuple[list[SSAValue], list[Parser.Argument], str | None]:
    def one() -> tuple[SSAValue, Parser.Argument]:
        arg = parser.parse_argument(expect_type=False)
        parser.parse_punctuation("=")
        init = parser.parse_unresolved_operand()
        parser.parse_punctuation(":")
        type_ = parser.parse_attribute()
        return parser.resolve_operand(init, type_), arg.resolve(type_)

    pairs = (
        parser.parse_comma_separated_list(parser.Delimiter.PAREN, one) if parser.parse_optional_keyword("carry") else []
    )
    label = parser.parse_str_literal() if parser.parse_optional_keyword("label") else None
    return [v for v, _ in pairs], [a for _, a in pairs], label


@irdl_op_definition
class CallOp(IRDLOperation):
    """Runs a kernel on buffers and data. `layers` names the model's layers it computes, `source` its result's
    tensor.
    """

    name = "loop.call"
    callee = prop_def(SymbolRefAttr)
    arguments = prop_def(ArrayAttr[SymbolRefAttr])
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.callee)
        with printer.in_parens():
            printer.print_list(self.arguments, printer.print_attribute)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> CallOp:
        def symbol() -> SymbolRefAttr:
            return SymbolRefAttr(parser.parse_symbol_name())

        callee = symbol()
        arguments = parser.parse_comma_separated_list(parser.Delimiter.PAREN, symbol)
        attributes = parser.parse_optional_attr_dict()
        return cls.create(properties={"callee": callee, "arguments": ArrayAttr(arguments)}, attributes=attributes)


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """The calls of the kernels in execution order, and which buffers hold the network's inputs and outputs."""

    name = "loop.program"
    sym_name = prop_def(SymbolNameConstraint())
    inputs = prop_def(ArrayAttr[SymbolRefAttr])
    outputs = prop_def(ArrayAttr[SymbolRefAttr])
    arena_bytes = opt_prop_def(IntegerAttr)
    arena_bound = opt_prop_def(IntegerAttr)
    body = region_def("single_block")
    traits = traits_def(SymbolOpInterface(), NoTerminator(), IsolatedFromAbove())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name attr-dict-with-keyword $body"


__all__ = [
    "BufferOp",
    "CallOp",
    "DataOp",
    "ForOp",
    "KernelOp",
    "NestOp",
    "ProgramOp",
    "RepeatOp",
    "YieldOp",
    "make_for",
    "make_repeat",
]
