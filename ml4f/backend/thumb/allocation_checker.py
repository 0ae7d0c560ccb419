"""Check a register allocation by walking the function and tracking which value every register and frame slot holds.

Independent of the allocator: no live ranges, no webs. A location (register or slot) holds a value from its definition
until something else writes the location. A use is right when the value's register holds that very value on every path.
At a loop's head a location keeps its value only if nothing in the body writes it, which is the fixed point of going
round.
"""

from __future__ import annotations

from ml4f.backend.thumb.function_data import (
    REGISTER_COUNT,
    RESERVED,
    WORD,
    Function,
    Instruction,
    Loop,
    SlotCarried,
    Step,
    register_name,
)
from ml4f.errors import InternalError

Location = tuple[str, int]
"""(register class, register), or ("slot", byte offset)."""

UNKNOWN = -1
"""What a slot holds when the producer did not say which value was stored: any load is taken to be right."""


def check_allocation(function: Function) -> list[str]:
    """Everything that is wrong with the registers and frame slots of `function`, in program order; empty if all is
    right.
    """
    return _Checker(function).check()


def verify_allocation(function: Function) -> None:
    """Raise InternalError with the first few problems, if there are any."""
    problems = check_allocation(function)
    if problems:
        listed = "\n".join(f"  * {problem}" for problem in problems[:10])
        raise InternalError(f"{function.name}: wrong register allocation ({len(problems)} problems):\n{listed}")


class _Checker:
    def __init__(self, function: Function):
        self.function = function
        self.problems: list[str] = []
        self.holds: dict[Location, int] = {}
        self.position = 0
        self.locations: list[Location | None] = [
            None if register is None else (own, register)
            for own, register in zip(function.classes, function.registers, strict=True)
        ]

    def check(self) -> list[str]:
        self.legal_registers()
        for value in self.function.args:
            if self.locations[value] is None:
                self.report(f"argument %{value} has no register")
        for value, register in self.function.fixed.items():
            if self.function.registers[value] != register:
                self.report(f"%{value} must be in {register_name(self.function.classes[value], register)}")
        self.define("arguments", self.function.args)
        self.steps(self.function.body)
        return self.problems

    def report(self, problem: str) -> None:
        self.problems.append(f"step {self.position}: {problem}")

    def name(self, value: int) -> str:
        location = self.locations[value]
        return f"%{value}" if location is None else f"%{value} in {register_name(*location)}"

    def legal_registers(self) -> None:
        for value, location in enumerate(self.locations):
            if location is not None:
                own, register = location
                if not 0 <= register < REGISTER_COUNT[own] or register in RESERVED[own]:
                    self.report(f"%{value}: {own} register {register} cannot be used")

    def read(self, what: str, value: int) -> None:
        """A use of a value: its register must hold it."""
        location = self.locations[value]
        held = self.holds.get(location) if location is not None else None
        if held != value:
            holds = "nothing known" if held is None else f"%{held}"
            self.report(f"{what} reads {self.name(value)}, which holds {holds}")

    def define(self, what: str, values: list[int] | tuple[int, ...]) -> None:
        """Simultaneous definitions: distinct registers, which then hold the values."""
        seen: set[Location] = set()
        for value in values:
            location = self.locations[value]
            if location is None:
                self.report(f"{what} defines %{value}, which has no register")
            elif location in seen:
                self.report(f"{what} defines two values in {register_name(*location)}")
            else:
                seen.add(location)
                self.holds[location] = value

    def steps(self, steps: list[Step]) -> None:
        for step in steps:
            self.position += 1
            if isinstance(step, Loop):
                self.loop(step)
            else:
                self.instruction(step)

    # Instructions

    def instruction(self, step: Instruction) -> None:
        for value in step.uses:
            location = self.locations[value]
            if location is None or self.holds.get(location) != value:
                self.read(step.opcode, value)
        if step.ties or step.groups or step.fixed_uses or step.early_clobber:
            self.constraints(step)
        if step.slot is not None:
            self.frame_slot(step, step.slot)
        if step.clobbers_all:
            self.holds = {location: value for location, value in self.holds.items() if location[0] == "slot"}
        self.define(step.opcode, step.defs)

    def constraints(self, step: Instruction) -> None:
        registers = self.function.registers
        for use, result in step.ties:
            if registers[step.uses[use]] != registers[step.defs[result]]:
                self.report(f"{step.opcode}: {self.name(step.defs[result])} is tied to {self.name(step.uses[use])}")
        for group in step.groups:
            members = (step.defs if group.of_results else step.uses)[group.start : group.start + group.length]
            numbers = [registers[value] for value in members]
            if numbers[0] is None or numbers != list(range(numbers[0], numbers[0] + group.length)):
                self.report(f"{step.opcode}: registers {numbers} are not consecutive")
        for use, register in step.fixed_uses:
            if registers[step.uses[use]] != register:
                self.report(f"{step.opcode}: {self.name(step.uses[use])} must be in register {register}")
        if step.early_clobber:
            self.early_clobber(step)

    def early_clobber(self, step: Instruction) -> None:
        """A result may share a register with no operand but the one it is tied to."""
        tied = {result: use for use, result in step.ties}
        for result, value in enumerate(step.defs):
            for use, operand in enumerate(step.uses):
                if self.locations[operand] == self.locations[value] and tied.get(result) != use:
                    self.report(f"{step.opcode} writes {self.name(value)} before it has read {self.name(operand)}")

    def frame_slot(self, step: Instruction, slot: int) -> None:
        if slot % WORD or not 0 <= slot <= self.function.frame - WORD:
            self.report(f"{step.opcode}: slot {slot} lies outside the frame of {self.function.frame} bytes")
        location = ("slot", slot)
        if step.memory is not None and step.memory.is_store:
            self.holds[location] = UNKNOWN if step.spilled is None else step.uses[0]
        elif location not in self.holds:
            self.report(f"{step.opcode} reads slot {slot}, which holds nothing")
        elif step.spilled is not None and self.holds[location] != step.spilled:
            self.report(f"{step.opcode} reads slot {slot} for %{step.spilled}, it holds %{self.holds[location]}")

    # Loops

    def loop(self, step: Loop) -> None:
        registers = self.function.registers
        self.lengths(step)
        for arg, init in zip(step.args, step.inits, strict=True):
            self.read("loop init", init)
            if registers[arg] != registers[init]:
                self.report(f"loop argument {self.name(arg)} is initialised in {self.name(init)}")
        self.slots_hold(step, 1)
        if step.counter_slot is None:
            self.read("loop count", step.count)
            if registers[step.counter] != registers[step.count]:
                self.report(f"loop counter {self.name(step.counter)} is initialised in {self.name(step.count)}")
        elif self.holds.get(("slot", step.counter_slot)) not in (step.count, UNKNOWN):
            self.report(f"counter slot {step.counter_slot} does not hold the count")
        for location in _written(step.body, self.locations):
            self.holds.pop(location, None)
        self.enter(step)
        self.steps(step.body)
        self.position += 1
        self.leave(step)

    def lengths(self, step: Loop) -> None:
        if not len(step.args) == len(step.inits) == len(step.yields) == len(step.results):
            self.report("a loop's arguments, inits, yields and results differ in number")

    def enter(self, step: Loop) -> None:
        """The locations at the head of the body, whichever way it was reached."""
        carried = [*step.args] if step.counter_slot is not None else [*step.args, step.counter]
        self.define("loop", carried)
        for entry in step.slot_carried:
            self.holds["slot", entry.slot] = entry.arg
        if step.counter_slot is not None:
            self.holds["slot", step.counter_slot] = step.counter

    def leave(self, step: Loop) -> None:
        registers = self.function.registers
        for arg, value in zip(step.args, step.yields, strict=True):
            self.read("loop yield", value)
            if registers[arg] != registers[value]:
                self.report(f"{self.name(value)} is yielded to {self.name(arg)}")
        self.slots_hold(step, 3)
        if step.counter_slot is None:
            self.read("loop end", step.counter)
        else:
            self.counter_in_slot(step)
        for arg, result in zip(step.args, step.results, strict=True):
            if registers[arg] != registers[result]:
                self.report(f"loop result {self.name(result)} is carried in {self.name(arg)}")
        counter = self.locations[step.counter if step.reloaded_counter is None else step.reloaded_counter]
        if counter is not None:
            self.holds.pop(counter, None)
        self.define("loop", step.results)
        for entry in step.slot_carried:
            self.holds["slot", entry.slot] = entry.result

    def slots_hold(self, step: Loop, field: int) -> None:
        """The slots of the carried values that live in the frame hold the inits (1) or the yielded values (3)."""
        for entry in step.slot_carried:
            held = self.holds.get(("slot", entry.slot))
            if held != entry[field]:
                self.report(
                    f"slot {entry.slot} should hold {SlotCarried._fields[field]} %{entry[field]}, holds %{held}"
                )

    def counter_in_slot(self, step: Loop) -> None:
        """The reloaded counter is in its register, the slot unchanged since; the loop's end writes both."""
        assert step.counter_slot is not None
        location = ("slot", step.counter_slot)
        if self.holds.get(location) != step.counter:
            self.report(f"counter slot {step.counter_slot} was written in the loop")
        if step.reloaded_counter is None:
            self.report("a counter in a slot is not reloaded")
        else:
            self.read("loop end", step.reloaded_counter)
        self.holds.pop(location, None)


def _written(steps: list[Step], locations: list[Location | None]) -> set[Location]:
    """Every location that the steps may write, loop counters included."""
    written: set[Location] = set()

    def add(values: list[int] | tuple[int, ...]) -> None:
        written.update(location for value in values if (location := locations[value]) is not None)

    for step in steps:
        if isinstance(step, Loop):
            written |= _written(step.body, locations)
            add(step.args)
            add(step.results)
            if step.counter_slot is None:
                add((step.counter,))
            else:
                written.add(("slot", step.counter_slot))
            continue
        add(step.defs)
        if step.clobbers_all:
            written.update((own, register) for own, count in REGISTER_COUNT.items() for register in range(count))
        if step.slot is not None and step.memory is not None and step.memory.is_store:
            written.add(("slot", step.slot))
    return written
