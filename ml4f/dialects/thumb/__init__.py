"""The thumb dialect: one operation an instruction, SSA values in registers, structured loops."""

from __future__ import annotations

from xdsl.ir import Dialect

from ml4f.dialects.thumb.bundles import BUNDLE_OPS
from ml4f.dialects.thumb.core_ops import CORE_OPS
from ml4f.dialects.thumb.float_ops import FLOAT_OPS
from ml4f.dialects.thumb.memory_ops import MEMORY_OPS
from ml4f.dialects.thumb.registers import CoreRegisterType, PortAttr, SingleRegisterType
from ml4f.dialects.thumb.structure import STRUCTURE_OPS

INSTRUCTION_OPS = [*CORE_OPS, *FLOAT_OPS, *MEMORY_OPS, *BUNDLE_OPS]

Thumb = Dialect("thumb", [*INSTRUCTION_OPS, *STRUCTURE_OPS], [CoreRegisterType, SingleRegisterType, PortAttr])
