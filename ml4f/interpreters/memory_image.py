"""A flat memory for executing loop-level programs: the arena, then the read-only data, addressed by bytes."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from ml4f.dialects.loop.structure import BufferOp, DataOp

GUARD = 64
"""Bytes between regions, so that a stray access hits a NaN instead of a neighbour."""

NAN_PATTERN = 0x7FC0DEAD
"""What uninitialised memory holds."""


class MemoryImage:
    """The buffers and data of a module in one array of words; `address` maps a symbol to its byte address."""

    def __init__(self, module: ModuleOp):
        self.address: dict[str, int] = {}
        self.size: dict[str, int] = {}
        end = GUARD
        planned = [op for op in module.body.block.ops if isinstance(op, BufferOp) and op.offset is not None]
        contents: list[tuple[int, bytes]] = []
        for op in planned:
            assert op.offset is not None
            self._add(op.sym_name.data, GUARD + op.offset.value.data, op.bytes.value.data)
            end = max(end, GUARD + op.offset.value.data + op.bytes.value.data)
        for op in module.body.block.ops:
            if isinstance(op, BufferOp) and op.offset is None:
                end += GUARD
                self._add(op.sym_name.data, end, op.bytes.value.data)
                end += (op.bytes.value.data + 3) & ~3
            elif isinstance(op, DataOp):
                data: bytes = op.value.data.data  # pyright: ignore[reportAttributeAccessIssue]
                end += GUARD
                self._add(op.sym_name.data, end, len(data))
                contents.append((end, data))
                end += (len(data) + 3) & ~3
        self.words = np.full(((end + GUARD) // 4,), NAN_PATTERN, dtype=np.uint32)
        self.bytes = self.words.view(np.uint8)
        self.floats = self.words.view(np.float32)
        self.halves = self.words.view(np.float16)
        for start, data in contents:
            self.bytes[start : start + len(data)] = np.frombuffer(data, np.uint8)

    def _add(self, symbol: str, address: int, size: int) -> None:
        self.address[symbol] = address
        self.size[symbol] = size

    def read(self, symbol: str) -> np.ndarray:
        """A copy of a buffer's float32 elements."""
        start = self.address[symbol] // 4
        return self.floats[start : start + self.size[symbol] // 4].copy()

    def write(self, symbol: str, values: np.ndarray) -> None:
        start = self.address[symbol] // 4
        self.floats[start : start + self.size[symbol] // 4] = np.ravel(values).astype(np.float32)
