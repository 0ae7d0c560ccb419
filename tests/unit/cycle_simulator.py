"""A second, independent counter of cycles: steps through a run instruction by instruction and applies the cycle table.

It shares nothing with `ml4f/backend/thumb`: instructions are decoded by Capstone, their order comes from a Unicorn hook
on every instruction, and the rules are written down again from the table (Cortex-M4F, memory without wait states):

    ALU, MUL, VMOV, VCMP, VMRS, VCVT, VADD, VSUB, VMUL, VABS, VNEG   1
    VMLA, VMLS, VFMA, VFMS                                          3
    VDIV, VSQRT                                  14; integer instructions behind it overlap
    FP arithmetic result used by the very next instruction          +1, but not as the addend of a multiply-accumulate
    LDR, VLDR    2; directly behind another single load 1, unless its address needs the loaded or written-back register
    STR 1, VSTR 2; a load directly behind a store                   +1
    address register computed by the instruction directly before    +1
    LDM, STM, VLDM, VSTM, PUSH, POP of n words                      1 + n
    VMOV of two registers                                           2
    taken branch      1 + 2, and +1 more when the target is a 32-bit instruction that is not word aligned
    untaken branch                                                  1
    IT                                                              0 directly behind a 16-bit instruction, else 1
    three or more 32-bit instructions in a row that are not word aligned    +2 once
    SDIV, UDIV                                                      2 to 12, taken as 7

Where the table leaves a choice, this takes the dearer reading: every instruction on S registers, loads and stores
included, waits for a division, and for one cycle more if it uses the result directly behind; the results of VABS, VNEG
and VCVT are arithmetic; SP is an address register like any other; a pop of PC refills the pipeline like a branch, and
so does the return at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import capstone
import numpy as np
import unicorn
from capstone import arm

from ml4f.machine import OBJECT_BASE, Machine

BRANCH_REFILL = 2
DIVIDE = 7
FP_DIVIDE = 14
FP_MULTIPLY_ADD = 3
MISALIGNED_RUN = 3
MISALIGNED_RUN_STALL = 2

MULTIPLY_ADD = {"vmla", "vmls", "vfma", "vfms"}
FP_DIVIDES = {"vdiv", "vsqrt"}
FP_ARITHMETIC = (
    MULTIPLY_ADD | FP_DIVIDES | {"vadd", "vsub", "vmul", "vnmul", "vabs", "vneg", "vcvt", "vcvtr", "vcvtb", "vcvtt"}
)
FP_MOVES = {"vmov", "vcmp", "vmrs"}
SINGLE_LOADS = {"ldr", "ldrh", "ldrb", "ldrsh", "ldrsb", "vldr"}
SINGLE_STORES = {"str": 1, "strh": 1, "strb": 1, "vstr": 2}
MULTIPLE_LOADS = {"ldm", "vldmia", "pop", "vpop"}
MULTIPLE_STORES = {"stm", "vstmia", "push", "vpush"}
STACK_MULTIPLES = {"pop", "vpop", "push", "vpush"}
INTEGER = {
    *("mov", "movs", "movw", "movt", "mvn", "add", "adds", "addw", "sub", "subs", "subw", "rsb", "rsbs", "mul", "muls"),
    *(
        "mla",
        "mls",
        "and",
        "ands",
        "orr",
        "orrs",
        "eor",
        "eors",
        "bic",
        "bics",
        "lsl",
        "lsls",
        "lsr",
        "lsrs",
        "asr",
        "asrs",
    ),
    *("ror", "sxth", "uxth", "sxtb", "uxtb", "cmp", "cmn", "tst", "nop", "clz", "ssat", "usat"),
}
BRANCHES = {"b", "bl", "bx"}
CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")


@dataclass(frozen=True)
class Facts:
    """One instruction, as far as the rules ask. Registers by Capstone's name; `late`: read as the addend only."""

    name: str
    size: int
    misaligned_wide: bool
    reads: frozenset[str]
    writes: frozenset[str]
    late: frozenset[str]
    address: frozenset[str]
    words: int
    two_registers: bool

    @property
    def is_load(self) -> bool:
        return self.name in SINGLE_LOADS or self.name in MULTIPLE_LOADS

    @property
    def is_store(self) -> bool:
        return self.name in SINGLE_STORES or self.name in MULTIPLE_STORES

    @property
    def is_floating(self) -> bool:
        return self.name.startswith("v")

    def cycles(self) -> int:
        """Without any influence of the neighbours and, for a branch, not taken."""
        if self.name in SINGLE_LOADS:
            return 2
        if self.name in SINGLE_STORES:
            return SINGLE_STORES[self.name]
        if self.name in MULTIPLE_LOADS or self.name in MULTIPLE_STORES:
            return 1 + self.words
        if self.name in MULTIPLY_ADD:
            return FP_MULTIPLY_ADD
        if self.name in ("sdiv", "udiv"):
            return DIVIDE
        if self.two_registers:
            return 2
        if self.name in INTEGER | FP_ARITHMETIC | FP_MOVES | BRANCHES | {"it"}:
            return 1
        raise AssertionError(f"the cycle table does not say what {self.name} costs")


def bare_name(mnemonic: str) -> str:
    """`vadd.f32` → `vadd`, `bne.n` → `b`, `movlt` → `mov`."""
    name = mnemonic.split(".")[0]
    if name.startswith("it"):
        return "it"
    if name in INTEGER or name in FP_ARITHMETIC or name in SINGLE_STORES or name in ("b", "bl", "bx", "vmls"):
        return name
    if name[-2:] in CONDITIONS and name[:-2] in INTEGER | FP_MOVES | {"b"}:
        return name[:-2]
    return name


class Decoder:
    """Facts of instructions in some bytes, by address."""

    def __init__(self, binary: bytes, base: int):
        mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS
        self.capstone = capstone.Cs(capstone.CS_ARCH_ARM, mode)
        self.capstone.detail = True
        self.binary = binary
        self.base = base
        self.known: dict[int, Facts] = {}

    def facts(self, address: int) -> Facts:
        found = self.known.get(address)
        if found is None:
            found = self.known[address] = self.examine(address)
        return found

    def examine(self, address: int) -> Facts:
        start = address - self.base
        insn = next(self.capstone.disasm(self.binary[start : start + 4], address, 1))
        name = bare_name(insn.mnemonic)
        read_ids, write_ids = insn.regs_access()
        reads = {insn.reg_name(register) for register in read_ids}
        writes = {insn.reg_name(register) for register in write_ids}
        registers = [insn.reg_name(o.reg) for o in insn.operands if o.type == arm.ARM_OP_REG]
        address_registers: set[str] = set()
        for operand in insn.operands:
            if operand.type == arm.ARM_OP_MEM:
                address_registers |= {insn.reg_name(r) for r in (operand.mem.base, operand.mem.index) if r}
        words = 0
        if name in MULTIPLE_LOADS | MULTIPLE_STORES:
            listed = registers if name in STACK_MULTIPLES else registers[1:]
            words = sum(2 if register.startswith("d") else 1 for register in listed)
            address_registers = {"sp"} if name in STACK_MULTIPLES else {registers[0]}
            writes |= address_registers & {"sp"}
        late: set[str] = set()
        if name in MULTIPLY_ADD:
            late = {registers[0]} - set(registers[1:])
        single = {"apsr_nzcv", "fpscr", "cpsr", "itstate"}
        return Facts(
            name,
            insn.size,
            insn.size == 4 and address % 4 != 0,
            frozenset(reads - single),
            frozenset(writes - single),
            frozenset(late),
            frozenset(address_registers),
            words,
            name == "vmov" and len(registers) >= 3,
        )


class Simulator:
    """The processor's state between two instructions: the time, the previous instruction, the busy divider."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.time = 0
        self.divider_busy_until = 0
        self.run = 0
        self.before: Facts | None = None
        self.before_end = 0
        self.instructions = 0

    def step(self, address: int) -> None:
        """Account for the next instruction of the run."""
        facts = self.decoder.facts(address)
        self.instructions += 1
        before = self.before
        if before is not None and before.name == "it" and address != self.before_end:
            before = self.skip(self.decoder.facts(self.before_end))
        if before is not None and address != self.before_end:
            self.time += BRANCH_REFILL + facts.misaligned_wide
            self.run = 0
            before = None
        self.time += self.cost(before, facts)
        self.before, self.before_end = facts, address + facts.size

    def skip(self, facts: Facts) -> Facts:
        """An instruction whose condition does not hold takes its cycle and does nothing; Unicorn passes it over."""
        self.time += 1 + self.fetch(facts)
        self.before_end += facts.size
        return replace(facts, name="nop", reads=frozenset(), writes=frozenset(), address=frozenset())

    def cost(self, before: Facts | None, facts: Facts) -> int:
        cycles = facts.cycles()
        if facts.is_floating and self.divider_busy_until > self.time:
            cycles += self.divider_busy_until - self.time
        if facts.name in FP_DIVIDES:
            self.divider_busy_until = self.time + cycles - 1 + FP_DIVIDE
        if before is not None:
            cycles += self.hazards(before, facts)
        return cycles + self.fetch(facts)

    def fetch(self, facts: Facts) -> int:
        """Cycles lost to a run of 32-bit instructions that are not word aligned."""
        self.run = self.run + 1 if facts.misaligned_wide else 0
        return MISALIGNED_RUN_STALL if self.run == MISALIGNED_RUN else 0

    @staticmethod
    def hazards(before: Facts, facts: Facts) -> int:
        cycles = 0
        address_late = bool(facts.address & before.writes)
        if before.name in FP_ARITHMETIC and (facts.reads - facts.late) & before.writes:
            cycles += 1
        if address_late:
            cycles += 1
        if facts.name in SINGLE_LOADS and before.name in SINGLE_LOADS and not address_late:
            cycles -= 1
        if facts.is_load and before.is_store:
            cycles += 1
        if facts.name == "it" and before.size == 2:
            cycles -= 1
        return cycles

    def finish(self) -> int:
        """The total, with the return's refill of the pipeline and what is left of a division."""
        return max(self.time, self.divider_busy_until) + BRANCH_REFILL


def simulate(binary: bytes, inputs: np.ndarray) -> tuple[int, int]:
    """Cycles from entry to return, and how many instructions were executed."""
    machine = Machine(binary)
    simulator = Simulator(Decoder(machine.binary, OBJECT_BASE))

    def on_instruction(uc: unicorn.Uc, address: int, size: int, data: object) -> None:
        simulator.step(address)

    end = OBJECT_BASE + len(machine.binary)
    machine.uc.hook_add(unicorn.UC_HOOK_CODE, on_instruction, begin=OBJECT_BASE, end=end)
    machine.run(inputs)
    return simulator.finish(), simulator.instructions
