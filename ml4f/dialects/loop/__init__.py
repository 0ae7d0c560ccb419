"""The loop dialect: kernels over buffers, first as nests, then as indexed loops, then with pointers."""

from xdsl.ir import Dialect

from ml4f.dialects.loop.attributes import NestAttr, PointerType, ScheduleAttr
from ml4f.dialects.loop.structure import (
    BufferOp,
    CallOp,
    DataOp,
    ForOp,
    KernelOp,
    NestOp,
    ProgramOp,
    RepeatOp,
    YieldOp,
)
from ml4f.dialects.loop.values import VALUE_OPS

Loop = Dialect(
    "loop",
    [BufferOp, CallOp, DataOp, ForOp, KernelOp, NestOp, ProgramOp, RepeatOp, YieldOp, *VALUE_OPS],
    [NestAttr, PointerType, ScheduleAttr],
)

__all__ = [
    "BufferOp",
    "CallOp",
    "DataOp",
    "ForOp",
    "KernelOp",
    "Loop",
    "NestAttr",
    "NestOp",
    "PointerType",
    "ProgramOp",
    "RepeatOp",
    "ScheduleAttr",
    "YieldOp",
]
