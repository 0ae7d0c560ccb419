"""Runs compiled objects in Unicorn's Cortex-M4: the only way in which results, cycles and safety are ever measured.

Before every run the arena, the stack and all registers hold NaN patterns; after it the callee-saved registers must be
unchanged, the object unchanged, and the guards around arena and stack untouched. Memory beyond the guards is not
mapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import unicorn
from unicorn import arm_const

from ml4f.backend.thumb.image import INT32, Header, TensorInfo, parse_header
from ml4f.errors import InternalError, Ml4fError

PAGE = 0x1000
OBJECT_BASE = 0x0001_0000
ARENA_BASE = 0x2000_0000
STACK_BASE = 0x6000_0000
STACK_BYTES = 0x4000
STOP_ADDRESS = 0x0000_1000
STACK_GUARD = 64
"""Bytes above the initial stack pointer that must keep their pattern."""
GUARD = 256
"""Bytes in front of and behind the arena that must keep their pattern."""
NAN_PATTERN = 0x7FC0_DEAD
TIME_LIMIT = 100_000_000
"""Microseconds of emulation, after which code is taken to be in an endless loop: 4.5 billion instructions or so."""
TIME_PER_MAC = 0.4
"""Microseconds of it more for each multiply-accumulate that is known to be in the code; four times what it takes."""
CPACR = 0xE000_ED88
FULL_FPU_ACCESS = 0xF << 20
FPEXC_ENABLE = 1 << 30

_SAVED = [*range(arm_const.UC_ARM_REG_R4, arm_const.UC_ARM_REG_R11 + 1), arm_const.UC_ARM_REG_SP]
_SAVED += list(range(arm_const.UC_ARM_REG_S16, arm_const.UC_ARM_REG_S31 + 1))


class Machine:
    """An object loaded into an emulated microcontroller."""

    def __init__(self, binary: bytes, name: str = "object", macs: int = 0):
        self.time_limit = TIME_LIMIT + int(macs * TIME_PER_MAC)
        self.header: Header = parse_header(binary, name)
        self.name = name
        self.binary = binary[: self.header.object_bytes]
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        self._map()

    def _map(self) -> None:
        uc = self.uc
        uc.mem_map(STOP_ADDRESS, PAGE)
        uc.mem_write(STOP_ADDRESS, b"\xfe\xe7" * 2)
        uc.mem_map(OBJECT_BASE, _pages(len(self.binary)), unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_write(OBJECT_BASE, self.binary)
        self.arena_span = _pages(self.header.arena_bytes + 2 * GUARD)
        uc.mem_map(ARENA_BASE, self.arena_span)
        uc.mem_map(STACK_BASE, STACK_BYTES)
        uc.mem_map(CPACR & ~(PAGE - 1), PAGE)
        uc.mem_write(CPACR, FULL_FPU_ACCESS.to_bytes(4, "little"))
        uc.reg_write(arm_const.UC_ARM_REG_FPEXC, FPEXC_ENABLE)
        self.arena = ARENA_BASE + GUARD
        self.pattern = NAN_PATTERN.to_bytes(4, "little") * (self.arena_span // 4)

    def run(self, inputs: Any) -> np.ndarray:
        """The first output for one run: of one array, or of several by position or by name (see `arranged`)."""
        return self.run_all(inputs)[0]

    def run_all(self, inputs: Any) -> list[np.ndarray]:
        """All outputs for one run."""
        values = self.checked_inputs(inputs)
        self.prepare()
        self.write_inputs(values)
        self.call(OBJECT_BASE + self.header.entry)
        return self.read_outputs()

    def write_inputs(self, values: Sequence[np.ndarray]) -> None:
        """Put checked inputs where the header says."""
        for tensor, array in zip(self.header.inputs, values, strict=True):
            self.write_arena(tensor.offset, array.tobytes())

    def read_outputs(self) -> list[np.ndarray]:
        """The outputs as they lie in the arena."""
        return [self.read_tensor(tensor) for tensor in self.header.outputs]

    def checked_inputs(self, inputs: Any) -> list[np.ndarray]:
        """The inputs as flat float32 in the header's order, or an error about their names or sizes."""
        given = self.arranged(inputs)
        values = []
        for index, (tensor, array) in enumerate(zip(self.header.inputs, given, strict=True)):
            floats = np.asarray(array, dtype="<f4")
            if not fits(floats.shape, tensor.shape):
                which = "the input" if len(given) == 1 else f"input {tensor.name or index}"
                raise Ml4fError(
                    f"{self.name}: {which} has shape {list(floats.shape)}, {floats.size} values; "
                    f"the model takes shape {list(tensor.shape)}, {tensor.elements} values, also as a flat list"
                )
            values.append(floats.ravel())
        return values

    def arranged(self, inputs: Any) -> list[Any]:
        """One array an input: from a mapping by name, a list or tuple of as many arrays as inputs, or one array.

        That array is the only input, or the elements of all inputs one behind the other.
        """
        tensors = self.header.inputs
        names = [tensor.name or str(index) for index, tensor in enumerate(tensors)]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise Ml4fError(
                    f"{self.name}: inputs {', '.join(sorted(inputs))} given, the model takes {', '.join(names)}"
                )
            return [inputs[name] for name in names]
        if len(tensors) == 1:
            return [inputs[0] if isinstance(inputs, list | tuple) and len(inputs) == 1 else inputs]
        if isinstance(inputs, np.ndarray) and inputs.shape == (self.header.input_elements,):
            return self.split(inputs)
        if not isinstance(inputs, list | tuple) or len(inputs) != len(tensors):
            raise Ml4fError(
                f"{self.name}: the model takes {len(tensors)} inputs ({', '.join(names)}); give one array each"
            )
        return list(inputs)

    def split(self, x: np.ndarray) -> list[np.ndarray]:
        """All inputs, in their shapes, from their elements one behind the other."""
        ends = np.cumsum([tensor.elements for tensor in self.header.inputs])[:-1]
        parts = np.split(np.ravel(x), ends)
        return [part.reshape(tensor.shape) for tensor, part in zip(self.header.inputs, parts, strict=True)]

    def prepare(self) -> None:
        """Fill the arena and the stack with the NaN pattern."""
        self.uc.mem_write(ARENA_BASE, self.pattern)
        self.uc.mem_write(STACK_BASE, NAN_PATTERN.to_bytes(4, "little") * (STACK_BYTES // 4))

    def write_arena(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset in the arena."""
        self.uc.mem_write(self.arena + offset, data)

    def read_tensor(self, tensor: TensorInfo) -> np.ndarray:
        """An input or output, in its type."""
        data = self.uc.mem_read(self.arena + tensor.offset, tensor.bytes)
        kind = "<i4" if tensor.type == INT32 else "<f4"
        return np.frombuffer(bytes(data), kind).reshape(tensor.shape).copy()

    def read_floats(self, offset: int, shape: Sequence[int]) -> np.ndarray:
        """Float32 elements at an offset in the arena."""
        data = self.uc.mem_read(self.arena + offset, 4 * prod(shape))
        return np.frombuffer(bytes(data), "<f4").reshape(shape).copy()

    def call(self, entry: int) -> None:
        """Execute a function from entry to return; checks what the code must leave alone."""
        self.begin()
        self.resume(entry, STOP_ADDRESS)
        self.check_preserved()
        self.check_guards()

    def begin(self) -> None:
        """Registers as at the entry: the two arguments, NaN patterns everywhere else."""
        uc = self.uc
        for register in range(arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R0 + 13):
            uc.reg_write(register, NAN_PATTERN ^ register << 8)
        for register in range(arm_const.UC_ARM_REG_S0, arm_const.UC_ARM_REG_S31 + 1):
            uc.reg_write(register, NAN_PATTERN)
        uc.reg_write(arm_const.UC_ARM_REG_R0, OBJECT_BASE)
        uc.reg_write(arm_const.UC_ARM_REG_R1, self.arena)
        uc.reg_write(arm_const.UC_ARM_REG_SP, STACK_BASE + STACK_BYTES - STACK_GUARD)
        uc.reg_write(arm_const.UC_ARM_REG_LR, STOP_ADDRESS | 1)
        self._preserved = [uc.reg_read(register) for register in _SAVED]

    def resume(self, address: int, until: int) -> None:
        """Execute from an address until another one is reached."""
        if address == until:
            return
        if until != STOP_ADDRESS:
            self.uc.ctl_flush_tb()  # translated blocks know nothing of a new place to stop
        try:
            self.uc.emu_start(address | 1, until, timeout=self.time_limit)
            if until != STOP_ADDRESS:
                self.uc.ctl_flush_tb()
        except unicorn.UcError as error:
            pc = self.uc.reg_read(arm_const.UC_ARM_REG_PC)
            raise InternalError(
                f"{self.name}: the machine code faults at offset {pc - OBJECT_BASE:#x}: {error}"
            ) from None
        if self.uc.reg_read(arm_const.UC_ARM_REG_PC) & ~1 != until:
            seconds = self.time_limit / 1e6
            raise InternalError(f"{self.name}: the machine code runs on and on; stopped after {seconds:g} s")

    def check_preserved(self) -> None:
        """The callee-saved registers hold what they held at `begin`."""
        if self._preserved != [self.uc.reg_read(register) for register in _SAVED]:
            raise InternalError(f"{self.name}: the machine code changes a register that it must preserve")

    def check_guards(self) -> None:
        """The bytes around the arena and above the stack pointer still hold the pattern."""
        end = GUARD + self.header.arena_bytes
        low = bytes(self.uc.mem_read(ARENA_BASE, GUARD))
        high = bytes(self.uc.mem_read(ARENA_BASE + end, self.arena_span - end))
        if low != self.pattern[:GUARD] or high != self.pattern[end:]:
            raise InternalError(
                f"{self.name}: the machine code writes outside its arena of {self.header.arena_bytes} bytes"
            )
        top = bytes(self.uc.mem_read(STACK_BASE + STACK_BYTES - STACK_GUARD, STACK_GUARD))
        if top != NAN_PATTERN.to_bytes(4, "little") * (STACK_GUARD // 4):
            raise InternalError(f"{self.name}: the machine code writes above the stack pointer")


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether an array of `shape` is an input of shape `wanted`: the same but for extents of one, or a flat list of as
    many values.
    """
    if len(shape) <= 1:
        return prod(shape) == prod(wanted)
    return [n for n in shape if n != 1] == [n for n in wanted if n != 1]


def _pages(size: int) -> int:
    return -(-max(size, 1) // PAGE) * PAGE
