"""Attributes of the nn dialect: fused activations, and where a value comes from in the imported model."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    ArrayAttr,
    FloatAttr,
    FusedLoc,
    IntAttr,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
    f64,
)
from xdsl.ir import Attribute, Operation, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer


@irdl_attr_definition
class ActAttr(ParametrizedAttribute):
    """An activation: `#nn.act<"leaky_relu", 0.1>`, a name of `elementary.ACTIVATIONS` and its parameters."""

    name = "nn.act"
    activation: StringAttr
    arguments: ArrayAttr[FloatAttr]

    @classmethod
    def of(cls, activation: str, parameters: Sequence[float] = ()) -> ActAttr:
        """From plain data."""
        return cls(StringAttr(activation), ArrayAttr([FloatAttr(float(p), f64) for p in parameters]))

    @property
    def function(self) -> str:
        """The activation's name."""
        return self.activation.data

    @property
    def parameter_values(self) -> tuple[float, ...]:
        """Its parameters."""
        return tuple(float(p.value.data) for p in self.arguments)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> list[StringAttr | ArrayAttr[FloatAttr]]:
        parameters: list[FloatAttr] = []
        with parser.in_angle_brackets():
            activation = StringAttr(parser.parse_str_literal())
            while parser.parse_optional_punctuation(","):
                parameters.append(FloatAttr(_parse_float(parser), f64))
        return [activation, ArrayAttr(parameters)]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string("<")
        printer.print_string_literal(self.function)
        for value in self.parameter_values:
            printer.print_string(f", {_float_text(value)}")
        printer.print_string(">")


def _float_text(value: float) -> str:
    """Python's shortest form, which parses back to the same number; infinities as strings."""
    return repr(value) if value - value == 0 else f'"{value}"'


def _parse_float(parser: AttrParser) -> float:
    text = parser.parse_optional_str_literal()
    return float(text) if text is not None else float(parser.parse_number())


@irdl_attr_definition
class SourceAttr(ParametrizedAttribute):
    """`#nn.source<"tensor", [perm]>`: the value's elements are those of the ONNX tensor (without batch) transposed by
    perm.
    """

    name = "nn.source"
    tensor: StringAttr
    permutation: ArrayAttr[IntAttr]

    @classmethod
    def of(cls, tensor: str, permutation: Sequence[int]) -> SourceAttr:
        """From plain data."""
        return cls(StringAttr(tensor), ArrayAttr([IntAttr(axis) for axis in permutation]))

    @property
    def tensor_name(self) -> str:
        """The ONNX tensor."""
        return self.tensor.data

    @property
    def order(self) -> tuple[int, ...]:
        """The permutation of its axes, the batch not counted."""
        return tuple(axis.data for axis in self.permutation)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> list[StringAttr | ArrayAttr[IntAttr]]:
        with parser.in_angle_brackets():
            tensor = StringAttr(parser.parse_str_literal())
            parser.parse_punctuation(",")
            order = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        return [tensor, ArrayAttr([IntAttr(axis) for axis in order])]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string("<")
        printer.print_string_literal(self.tensor_name)
        printer.print_string(", [" + ", ".join(map(str, self.order)) + "]>")


def named_location(*layers: str) -> LocationAttr:
    """The location of an operation that computes these layers of the model."""
    locations = [NameLoc(StringAttr(layer), NoneAttr()) for layer in dict.fromkeys(layers)]
    return locations[0] if len(locations) == 1 else FusedLoc(ArrayAttr(locations), NoneAttr())


def layer_names(op: Operation) -> tuple[str, ...]:
    """The model's layers that an operation computes, from its location."""
    return tuple(dict.fromkeys(_names(op.location)))


def _names(location: Attribute | None) -> list[str]:
    if isinstance(location, NameLoc):
        return [location.desc.data]
    if isinstance(location, FusedLoc) and isinstance(location.locations, ArrayAttr):
        return [name for inner in location.locations for name in _names(inner)]
    return []
