"""Operations on the values of a kernel: memory accesses, float32 and int32 arithmetic, selections.

An `f32` lives in a single-precision register, an `i32` in a core register. Float arithmetic is IEEE single precision,
one rounding an operation. `index` values (induction variables, trip counts) are core registers too.
"""

from __future__ import annotations

from xdsl.dialects.builtin import (
    DenseArrayBase,
    IndexType,
    IntegerAttr,
    StringAttr,
    UnitAttr,
    f32,
    i32,
)
from xdsl.dialects.builtin import FloatAttr as BuiltinFloatAttr
from xdsl.irdl import (
    AttrSizedOperandSegments,
    EqAttrConstraint,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    opt_result_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from ml4f.dialects.loop.attributes import PointerType

F = f32
I = i32  # noqa: E741
INDEX = IndexType()
POINTER = PointerType()
VALUE = EqAttrConstraint(f32) | EqAttrConstraint(i32)


class AccessOp(IRDLOperation):
    """Base of the memory accesses: the address is `base + offset + sum(strides[i] * indices[i])`, all in bytes.

    `argument`: the access is of the kernel's argument with this number, whose address is that of the argument that the
    pointer comes from.
    """

    pointer = operand_def(POINTER)
    indices = var_operand_def(INDEX)
    strides = opt_prop_def(DenseArrayBase)
    offset = prop_def(IntegerAttr)
    space = prop_def(StringAttr)
    argument = opt_prop_def(IntegerAttr)

    def verify_(self) -> None:
        count = len(self.strides.get_values()) if self.strides is not None else 0  # pyright: ignore[reportAttributeAccessIssue]
        if count != len(self.indices):
            raise VerifyException(f"{len(self.indices)} indices need as many strides, not {count}")
        if self.space.data not in ("arena", "const"):
            raise VerifyException(f"space is 'arena' or 'const', not '{self.space.data}'")


@irdl_op_definition
class LoadOp(AccessOp):
    """A 4-byte load: `result = memory[address]`."""

    name = "loop.load"
    result = result_def(VALUE)
    traits = traits_def(MemoryReadEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$pointer `[` $indices `]` attr-dict `:` type($result)"


@irdl_op_definition
class LoadByteOp(AccessOp):
    """An unsigned byte of a table, as an index: `result = memory[address]`."""

    name = "loop.load_byte"
    result = result_def(INDEX)
    traits = traits_def(MemoryReadEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$pointer `[` $indices `]` attr-dict"


@irdl_op_definition
class LoadMultipleOp(AccessOp):
    """Consecutive 4-byte loads: `results[i] = memory[address + 4*i]`.

    With `advance` (pointer form only) the last result is the pointer behind the loaded words.
    """

    name = "loop.load_multiple"
    advance = opt_prop_def(UnitAttr)
    values = var_result_def(EqAttrConstraint(f32) | EqAttrConstraint(POINTER))
    traits = traits_def(MemoryReadEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$pointer `[` $indices `]` attr-dict `:` type($values)"


@irdl_op_definition
class StoreOp(AccessOp):
    """A 4-byte store: `memory[address] = value`."""

    name = "loop.store"
    value = operand_def(VALUE)
    traits = traits_def(MemoryWriteEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$value `,` $pointer `[` $indices `]` attr-dict `:` type($value)"


@irdl_op_definition
class StoreMultipleOp(AccessOp):
    """Consecutive 4-byte stores: `memory[address + 4*i] = values[i]`.

    In pointer form the result is the pointer behind the stored words.
    """

    name = "loop.store_multiple"
    values = var_operand_def(F)
    advanced = opt_result_def(POINTER)
    traits = traits_def(MemoryWriteEffect())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = "$values `to` $pointer `[` $indices `]` attr-dict (`:` type($advanced)^)?"


@irdl_op_definition
class AdvanceOp(IRDLOperation):
    """Pointer form: `result = pointer + offset + amount` (bytes)."""

    name = "loop.advance"
    pointer = operand_def(POINTER)
    amount = opt_operand_def(INDEX)
    offset = prop_def(IntegerAttr)
    result = result_def(POINTER)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$pointer (`by` $amount^)? attr-dict"


@irdl_op_definition
class ScaleOp(IRDLOperation):
    """`result = factor * index`: turns a trip count or a bound into bytes."""

    name = "loop.scale"
    index = operand_def(INDEX)
    factor = prop_def(IntegerAttr)
    result = result_def(INDEX)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$index attr-dict"


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A float32 constant."""

    name = "loop.constant"
    value = prop_def(BuiltinFloatAttr)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "attr-dict"


@irdl_op_definition
class IntegerConstantOp(IRDLOperation):
    """An int32 constant."""

    name = "loop.int_constant"
    value = prop_def(IntegerAttr)
    result = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "attr-dict"


class FloatUnary(IRDLOperation):
    """Base: float32 → float32."""

    operand = operand_def(F)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$operand attr-dict"


class FloatBinary(IRDLOperation):
    """Base: float32, float32 → float32."""

    lhs = operand_def(F)
    rhs = operand_def(F)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$lhs `,` $rhs attr-dict"


@irdl_op_definition
class AddOp(FloatBinary):
    """`lhs + rhs`."""

    name = "loop.fadd"


@irdl_op_definition
class SubOp(FloatBinary):
    """`lhs - rhs`."""

    name = "loop.fsub"


@irdl_op_definition
class MulOp(FloatBinary):
    """`lhs * rhs`."""

    name = "loop.fmul"


@irdl_op_definition
class DivOp(FloatBinary):
    """`lhs / rhs`."""

    name = "loop.fdiv"


@irdl_op_definition
class MaxOp(FloatBinary):
    """`rhs if lhs < rhs else lhs`: NaN in `lhs` stays, NaN in `rhs` is ignored."""

    name = "loop.fmax"


@irdl_op_definition
class MinOp(FloatBinary):
    """`rhs if lhs > rhs else lhs`."""

    name = "loop.fmin"


@irdl_op_definition
class NegOp(FloatUnary):
    """`-operand`."""

    name = "loop.fneg"


@irdl_op_definition
class AbsOp(FloatUnary):
    """`|operand|`."""

    name = "loop.fabs"


@irdl_op_definition
class SqrtOp(FloatUnary):
    """Correctly rounded square root."""

    name = "loop.fsqrt"


@irdl_op_definition
class FmaOp(IRDLOperation):
    """`a * b + c`, rounded once."""

    name = "loop.fma"
    a = operand_def(F)
    b = operand_def(F)
    c = operand_def(F)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$a `,` $b `,` $c attr-dict"


class FloatToInt(IRDLOperation):
    """Base: float32 → int32."""

    operand = operand_def(F)
    result = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$operand attr-dict"


@irdl_op_definition
class ToIntOp(FloatToInt):
    """Nearest integer towards zero; saturates, NaN gives 0."""

    name = "loop.to_int"


@irdl_op_definition
class ToIntNearestOp(FloatToInt):
    """Nearest integer, ties to even; saturates, NaN gives 0."""

    name = "loop.to_int_nearest"


@irdl_op_definition
class BitsOp(FloatToInt):
    """The bit pattern of a float."""

    name = "loop.bits"


@irdl_op_definition
class BitsPairOp(IRDLOperation):
    """The bit patterns of two floats, moved together."""

    name = "loop.bits_pair"
    first = operand_def(F)
    second = operand_def(F)
    first_bits = result_def(I)
    second_bits = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$first `,` $second attr-dict"


@irdl_op_definition
class ToIndexOp(IRDLOperation):
    """An integer as the bound of a loop: nothing happens to its register."""

    name = "loop.to_index"
    operand = operand_def(I)
    result = result_def(INDEX)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$operand attr-dict"


class IntToFloat(IRDLOperation):
    """Base: int32 → float32."""

    operand = operand_def(I)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$operand attr-dict"


@irdl_op_definition
class ToFloatOp(IntToFloat):
    """Signed integer to float."""

    name = "loop.to_float"


@irdl_op_definition
class FromBitsOp(IntToFloat):
    """The float with this bit pattern."""

    name = "loop.from_bits"


class HalfToFloat(FloatUnary):
    """Base: one of the two float16 of a word, widened (the word travels as an f32)."""


@irdl_op_definition
class HalfLowOp(HalfToFloat):
    """The float16 in bits 0-15, widened."""

    name = "loop.half_low"


@irdl_op_definition
class HalfHighOp(HalfToFloat):
    """The float16 in bits 16-31, widened."""

    name = "loop.half_high"


class IntBinary(IRDLOperation):
    """Base: int32, int32 or the constant `immediate` → int32, modulo 2^32."""

    lhs = operand_def(I)
    rhs = opt_operand_def(I)
    immediate = opt_prop_def(IntegerAttr)
    result = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$lhs (`,` $rhs^)? attr-dict"

    def verify_(self) -> None:
        if (self.rhs is None) == (self.immediate is None):
            raise VerifyException("needs a second operand or an immediate, and not both")


@irdl_op_definition
class IntAddOp(IntBinary):
    """`lhs + rhs`."""

    name = "loop.iadd"


@irdl_op_definition
class IntSubOp(IntBinary):
    """`lhs - rhs`."""

    name = "loop.isub"


@irdl_op_definition
class IntMulOp(IntBinary):
    """`lhs * rhs`."""

    name = "loop.imul"


@irdl_op_definition
class IntAndOp(IntBinary):
    """`lhs & rhs`."""

    name = "loop.iand"


@irdl_op_definition
class IntOrOp(IntBinary):
    """`lhs | rhs`."""

    name = "loop.ior"


@irdl_op_definition
class IntXorOp(IntBinary):
    """`lhs ^ rhs`."""

    name = "loop.ixor"


@irdl_op_definition
class IntBicOp(IntBinary):
    """`lhs & ~rhs`."""

    name = "loop.ibic"


@irdl_op_definition
class ShiftLeftOp(IntBinary):
    """`lhs << immediate`."""

    name = "loop.ishl"


@irdl_op_definition
class ShiftRightOp(IntBinary):
    """Unsigned `lhs >> immediate`."""

    name = "loop.ilshr"


@irdl_op_definition
class ShiftRightSignedOp(IntBinary):
    """Signed `lhs >> immediate`."""

    name = "loop.iashr"


@irdl_op_definition
class ReluBitsOp(IRDLOperation):
    """The bit pattern of a float, or 0 when its sign bit is set: `lhs & ~(lhs >> 31)`."""

    name = "loop.relu_bits"
    operand = operand_def(I)
    result = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$operand attr-dict"


@irdl_op_definition
class IntMaxOp(IRDLOperation):
    """Signed maximum: of two non-negative floats' bit patterns it is the pattern of their maximum."""

    name = "loop.imax"
    lhs = operand_def(I)
    rhs = operand_def(I)
    result = result_def(I)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$lhs `,` $rhs attr-dict"


FLOAT_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne", "uno")
INT_COMPARISONS = (*FLOAT_COMPARISONS[:-1], "hi")


@irdl_op_definition
class SelectOp(IRDLOperation):
    """`if_true if lhs <predicate> rhs else if_false`; false when unordered, but for `ne` and `uno`."""

    name = "loop.fselect"
    predicate = prop_def(StringAttr)
    lhs = operand_def(F)
    rhs = operand_def(F)
    if_true = operand_def(F)
    if_false = operand_def(F)
    result = result_def(F)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$predicate $lhs `,` $rhs `,` $if_true `,` $if_false attr-dict"

    def verify_(self) -> None:
        if self.predicate.data not in FLOAT_COMPARISONS:
            raise VerifyException(f"the predicate is one of {', '.join(FLOAT_COMPARISONS)}")


@irdl_op_definition
class IntSelectOp(IRDLOperation):
    """`if_true if lhs <predicate> rhs (or immediate) else if_false`, signed; `hi` is `>` of unsigned numbers."""

    name = "loop.iselect"
    predicate = prop_def(StringAttr)
    lhs = operand_def(I)
    if_true = operand_def(VALUE)
    if_false = operand_def(VALUE)
    rhs = opt_operand_def(I)
    immediate = opt_prop_def(IntegerAttr)
    result = result_def(VALUE)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$predicate $lhs `,` $if_true `,` $if_false (`,` $rhs^)? attr-dict `:` type($if_true) `,` type($if_false) `->` type($result)"  # noqa: E501

    def verify_(self) -> None:
        if self.predicate.data not in INT_COMPARISONS:
            raise VerifyException(f"the predicate is one of {', '.join(INT_COMPARISONS)}")
        if (self.rhs is None) == (self.immediate is None):
            raise VerifyException("needs a second operand or an immediate, and not both")


VALUE_OPS = [
    LoadOp,
    LoadByteOp,
    LoadMultipleOp,
    StoreOp,
    StoreMultipleOp,
    AdvanceOp,
    ScaleOp,
    ConstantOp,
    IntegerConstantOp,
    AddOp,
    SubOp,
    MulOp,
    DivOp,
    MaxOp,
    MinOp,
    NegOp,
    AbsOp,
    SqrtOp,
    FmaOp,
    ToIntOp,
    ToIntNearestOp,
    BitsOp,
    BitsPairOp,
    ToIndexOp,
    ToFloatOp,
    FromBitsOp,
    HalfLowOp,
    HalfHighOp,
    IntAddOp,
    IntSubOp,
    IntMulOp,
    IntAndOp,
    IntOrOp,
    IntXorOp,
    IntBicOp,
    ShiftLeftOp,
    ShiftRightOp,
    ShiftRightSignedOp,
    ReluBitsOp,
    IntMaxOp,
    SelectOp,
    IntSelectOp,
]

__all__ = ["FLOAT_COMPARISONS", "INT_COMPARISONS", "VALUE_OPS", "AccessOp", "f32", "i32"]
