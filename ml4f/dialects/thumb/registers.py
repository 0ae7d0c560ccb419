"""Register types of the thumb dialect, other attributes, and cached attribute objects for fast construction."""

from __future__ import annotations

from functools import cache, lru_cache

from xdsl.backend.register_type import RegisterType
from xdsl.dialects.builtin import ArrayAttr, IntAttr, IntegerAttr, StringAttr, i64
from xdsl.ir import ParametrizedAttribute, SSAValue
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer

_CORE = {f"r{i}": i for i in range(13)} | {"lr": 14}
_SINGLE = {f"s{i}": i for i in range(32)}


@irdl_attr_definition
class CoreRegisterType(RegisterType):
    """A core register, r0 to r12 or lr; sp and pc are only used implicitly."""

    name = "thumb.r"

    @classmethod
    def index_by_name(cls) -> dict[str, int]:
        return _CORE

    @classmethod
    def infinite_register_prefix(cls) -> str:
        return "vr"


@irdl_attr_definition
class SingleRegisterType(RegisterType):
    """A single-precision register, s0 to s31."""

    name = "thumb.s"

    @classmethod
    def index_by_name(cls) -> dict[str, int]:
        return _SINGLE

    @classmethod
    def infinite_register_prefix(cls) -> str:
        return "vs"


@irdl_attr_definition
class PortAttr(ParametrizedAttribute):
    """An input or output of the network: `#thumb.port<offset, [extents]>`, offset in bytes in the arena, float32."""

    name = "thumb.port"
    offset: IntAttr
    shape: ArrayAttr[IntAttr]

    @classmethod
    def of(cls, offset: int, shape: tuple[int, ...]) -> PortAttr:
        """From plain numbers."""
        return cls(IntAttr(offset), ArrayAttr([IntAttr(extent) for extent in shape]))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> list[IntAttr | ArrayAttr[IntAttr]]:
        with parser.in_angle_brackets():
            offset = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_punctuation(",")
            shape = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False, allow_negative=False)
            )
        return [IntAttr(offset), ArrayAttr([IntAttr(extent) for extent in shape])]

    def print_parameters(self, printer: Printer) -> None:
        extents = ", ".join(str(extent.data) for extent in self.shape)
        printer.print_string(f"<{self.offset.data}, [{extents}]>")


R = CoreRegisterType.unallocated()
"""A core register, not allocated yet."""
S = SingleRegisterType.unallocated()
"""A single-precision register, not allocated yet."""
ARENA = StringAttr("arena")
CONST = StringAttr("const")


@cache
def r(index: int) -> CoreRegisterType:
    """The core register with this number."""
    return CoreRegisterType.from_index(index)


@cache
def s(index: int) -> SingleRegisterType:
    """The single-precision register with this number."""
    return SingleRegisterType.from_index(index)


@lru_cache(maxsize=65536)
def int_attr(value: int) -> IntegerAttr:
    """An integer property (prints without its type)."""
    return IntegerAttr(value, i64)


@lru_cache(maxsize=4096)
def string_attr(value: str) -> StringAttr:
    """A string property."""
    return StringAttr(value)


def number(value: SSAValue) -> int | None:
    """The register number of a value, None while it is not allocated."""
    return getattr(value.type.index, "data", None)  # pyright: ignore[reportAttributeAccessIssue]
