"""Thumb functions as plain data for the back end's tests: typical kernels, random programs, and a tiny interpreter.

The interpreter runs a function on its values or on its allocated registers. Values are integers; arithmetic is a hash,
so that two runs agree only if every operation read the same operands; addresses are real, so that aliasing is.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from ml4f.backend.thumb.function_data import (
    COPY,
    CORE,
    FRAME_LOAD,
    FRAME_STORE,
    SINGLE,
    Function,
    Group,
    Instruction,
    Loop,
    MemoryAccess,
    Step,
)

MASK = (1 << 32) - 1
STEP_LIMIT = 10_000
"""Instructions after which the loops of a wrongly allocated program are left."""


class Build:
    """Appends instructions to a function; every method returns the new value or values."""

    def __init__(self, name: str, pointers: int):
        self.function = Function(name)
        self.body: list[Step] = self.function.body
        self.args = [self.function.new_value(CORE) for _ in range(pointers)]
        self.function.args = list(self.args)
        self.function.fixed = {value: index for index, value in enumerate(self.args)}

    def core(self) -> int:
        return self.function.new_value(CORE)

    def single(self) -> int:
        return self.function.new_value(SINGLE)

    def add(self, instruction: Instruction) -> Instruction:
        self.body.append(instruction)
        return instruction

    def mov_imm(self, value: int) -> int:
        made = self.core()
        self.add(Instruction("mov_imm", "alu", (), (made,), rematerialisable=True, origin=value))
        return made

    def add_imm(self, value: int, immediate: int) -> int:
        made = self.core()
        self.add(Instruction("add_imm", "alu", (value,), (made,), soft_ties=((0, 0),), origin=immediate))
        return made

    def alu(self, *values: int, tied: bool = False) -> int:
        made = self.core()
        ties = ((0, 0),) if tied else ()
        self.add(Instruction("alu", "alu", values, (made,), ties=ties))
        return made

    def vldr(self, base: int, offset: int, space: str = "const") -> int:
        made = self.single()
        self.add(Instruction("vldr", "load", (base,), (made,), memory=MemoryAccess(False, space, base, offset, 4)))
        return made

    def ldr(self, base: int, offset: int, space: str = "arena") -> int:
        made = self.core()
        self.add(Instruction("ldr", "load", (base,), (made,), memory=MemoryAccess(False, space, base, offset, 4)))
        return made

    def store(self, value: int, base: int, offset: int) -> None:
        name = "vstr" if self.function.classes[value] == SINGLE else "str"
        access = MemoryAccess(True, "arena", base, offset, 4)
        self.add(Instruction(name, "vstore" if name == "vstr" else "store", (value, base), (), memory=access))

    def vldm(self, base: int, count: int, space: str = "const") -> tuple[int, list[int]]:
        bumped, made = self.core(), [self.single() for _ in range(count)]
        self.add(
            Instruction(
                "vldm",
                "multiple_load",
                (base,),
                (bumped, *made),
                ties=((0, 0),),
                groups=(Group(True, 1, count),),
                memory=MemoryAccess(False, space, base, 0, 4 * count),
            )
        )
        return bumped, made

    def vstm(self, base: int, values: list[int]) -> int:
        bumped = self.core()
        self.add(
            Instruction(
                "vstm",
                "multiple_store",
                (base, *values),
                (bumped,),
                ties=((0, 0),),
                groups=(Group(False, 1, len(values)),),
                memory=MemoryAccess(True, "arena", base, 0, 4 * len(values)),
            )
        )
        return bumped

    def vmul(self, first: int, second: int) -> int:
        made = self.single()
        self.add(Instruction("vmul", "fp", (first, second), (made,)))
        return made

    def vadd(self, accumulator: int, term: int) -> int:
        made = self.single()
        self.add(Instruction("vadd", "fp", (accumulator, term), (made,), soft_ties=((0, 0),)))
        return made

    def vmov_pair(self, first: int, second: int) -> tuple[int, int]:
        made = self.core(), self.core()
        self.add(Instruction("vmov_pair", "vmov2", (first, second), made, groups=(Group(False, 0, 2),)))
        return made

    def select(self, first: int, second: int) -> int:
        """A bundle with a scratch result; its result is tied to the first operand, the scratch is written early."""
        made, scratch = self.core(), self.core()
        self.add(
            Instruction(
                "select", "select", (first, second), (made, scratch), ties=((0, 0),), early_clobber=True, halfwords=3
            )
        )
        return made

    def call(self, *values: int) -> None:
        fixed = tuple((index, index) for index in range(len(values)))
        self.add(Instruction("call", "call", values, (), fixed_uses=fixed, clobbers_all=True))

    def loop(self, count: int, inits: list[int], body: Callable[[list[int]], list[int]]) -> list[int]:
        function = self.function
        args = [function.new_value(function.classes[value]) for value in inits]
        step = Loop(count, self.core(), list(inits), args)
        outer, self.body = self.body, step.body
        step.yields = list(body(list(args)))
        self.body = outer
        step.results = [function.new_value(function.classes[value]) for value in inits]
        self.body.append(step)
        return list(step.results)


# Kernels


def convolution(pixels: int, filters: int, unroll: int, trip_count: int = 3, pixel_stride: int = 256) -> Function:
    """A pointwise convolution's tile: bias, a reduction loop of `unroll` k-steps, ReLU-less stores."""
    build = Build(f"conv{pixels}x{filters}u{unroll}", 3)
    x, w, y = build.args
    bias = [build.vldr(w, 4 * f) for f in range(filters)]
    w = build.add_imm(w, 4 * filters)
    inits = [bias[f] for _ in range(pixels) for f in range(filters)]
    count = build.mov_imm(trip_count)

    def body(carried: list[int]) -> list[int]:
        x, w, *accumulators = carried
        for k in range(unroll):
            inputs = [build.vldr(x, pixel_stride * (p - pixels // 2) + 4 * k, "arena") for p in range(pixels)]
            weights = [build.vldr(w, 4 * (k * filters + f)) for f in range(filters)]
            for p in range(pixels):
                for f in range(filters):
                    product = build.vmul(inputs[p], weights[f])
                    accumulators[p * filters + f] = build.vadd(accumulators[p * filters + f], product)
        return [build.add_imm(x, 4 * unroll), build.add_imm(w, 4 * unroll * filters), *accumulators]

    _, _, *results = build.loop(count, [x, w, *inits], body)
    for p in range(pixels):
        for f in range(filters):
            build.store(results[p * filters + f], y, pixel_stride * (p - pixels // 2) + 4 * f)
    return build.function


def dense(outputs: int = 16, inputs: int = 4, chunk: int = 12, unroll: int = 2, trip_count: int = 3) -> Function:
    """`outputs` accumulators, `inputs` inputs a step, weights by VLDM of `chunk`, products in place of the weights."""
    build = Build(f"dense{outputs}", 3)
    x, w, y = build.args
    w, bias = build.vldm(w, outputs)
    count = build.mov_imm(trip_count)

    def body(carried: list[int]) -> list[int]:
        x, w, *accumulators = carried
        for _ in range(unroll):
            x, values = build.vldm(x, inputs, "arena")
            pairs = [(i, o) for i in range(inputs) for o in range(outputs)]
            while pairs:
                now, pairs = pairs[:chunk], pairs[chunk:]
                w, weights = build.vldm(w, len(now))
                for (i, o), weight in zip(now, weights, strict=True):
                    accumulators[o] = build.vadd(accumulators[o], build.vmul(weight, values[i]))
        return [x, w, *accumulators]

    _, _, *results = build.loop(count, [x, w, *bias], body)
    build.vstm(y, results)
    return build.function


def depthwise(columns: int = 5, rows: int = 2, trip_count: int = 3) -> Function:
    """3x3 depthwise: nine weights and a bias stay, two partial rows of accumulators roll through the loop."""
    build = Build(f"depthwise{columns}r{rows}", 3)
    x, w, y = build.args
    weights = [build.vldr(w, 4 * i) for i in range(9)]
    bias = build.vldr(w, 36)
    count = build.mov_imm(trip_count)
    zero = build.vldr(w, 40)

    def row(x: int, ky: int, partial: list[int], inputs: list[int]) -> list[int]:
        for c in range(columns):
            for kx in range(3):
                if 0 <= c + kx - 1 < columns:
                    partial[c] = build.vadd(partial[c], build.vmul(inputs[c + kx - 1], weights[3 * ky + kx]))
        return partial

    def body(carried: list[int]) -> list[int]:
        x, y, *partial = carried
        older, newer = partial[:columns], partial[columns:]
        for r in range(rows):
            inputs = [build.vldr(x, 4 * (r * columns + c), "arena") for c in range(columns)]
            done = row(x, 2, older, inputs)
            for c in range(columns):
                build.store(done[c], y, 4 * (r * columns + c))
            middle = row(x, 1, newer, inputs)
            fresh = []
            for c in range(columns):
                fresh.append(build.vadd(bias, build.vmul(inputs[c], weights[1])))
            for c in range(columns):
                for kx in (0, 2):
                    if 0 <= c + kx - 1 < columns:
                        fresh[c] = build.vadd(fresh[c], build.vmul(inputs[c + kx - 1], weights[kx]))
            older, newer = middle, fresh
        return [build.add_imm(x, 4 * rows * columns), build.add_imm(y, 4 * rows * columns), *older, *newer]

    build.loop(count, [x, y, *([zero] * columns), *([bias] * columns)], body)
    return build.function


def window(pixels: int = 9, filters: int = 2, taps: int = 4, channels: int = 3, trip_count: int = 3) -> Function:
    """A contiguous window over a narrow input: taps shared by neighbours, reduction unrolled, filters looped."""
    build = Build(f"window{pixels}x{filters}", 3)
    x, w, y = build.args
    count = build.mov_imm(trip_count)

    def body(carried: list[int]) -> list[int]:
        w, y = carried
        accumulators: dict[tuple[int, int], int] = {}
        bias = [build.vldr(w, 4 * f) for f in range(filters)]
        position = 4 * filters
        for c in range(channels):
            loaded: dict[int, int] = {}
            for tap in range(taps):
                for p in range(pixels):
                    if p + tap not in loaded:
                        loaded[p + tap] = build.vldr(x, 4 * ((p + tap) * channels + c), "arena")
                weights = []
                for _ in range(filters):
                    weights.append(build.vldr(w, position))
                    position += 4
                for f in range(filters):
                    for p in range(pixels):
                        product = build.vmul(loaded[p + tap], weights[f])
                        accumulators[p, f] = build.vadd(accumulators.get((p, f), bias[f]), product)
        for (p, f), value in accumulators.items():
            build.store(value, y, 4 * (p * 16 + f))
        return [build.add_imm(w, position), build.add_imm(y, 4 * filters)]

    build.loop(count, [w, y], body)
    return build.function


# Random programs


class RandomProgram:
    """A random structured function; its floats fit the registers, core registers may have to spill."""

    def __init__(self, seed: int, size: int = 40, core_pool: int = 8, calls: bool = False):
        self.random = random.Random(seed)
        self.build = Build(f"random{seed}", self.random.randrange(1, 5))
        self.core_pool = core_pool
        self.calls = calls
        self.core = list(self.build.args)
        self.single = [self.build.vldr(self.core[0], 4 * i) for i in range(3)]
        self.steps(size, 0)
        for index, value in enumerate(self.single):
            self.build.store(value, self.pick(self.core), 4096 + 4 * index)
        for index, value in enumerate(self.core):
            self.build.store(value, self.pick(self.core), 8192 + 4 * index)

    @property
    def function(self) -> Function:
        return self.build.function

    def pick(self, pool: list[int]) -> int:
        return pool[-1] if self.random.random() < 0.3 else self.random.choice(pool)

    def steps(self, size: int, depth: int) -> None:
        while size > 0:
            if depth < 3 and size > 6 and self.random.random() < 0.12:
                inner = self.random.randrange(2, size)
                self.loop(inner, depth)
                size -= inner
            else:
                self.instruction()
                size -= 1
            self.trim(self.core, self.core_pool)
            self.trim(self.single, 9)

    def trim(self, pool: list[int], size: int) -> None:
        while len(pool) > size:
            pool.pop(self.random.randrange(len(pool)))

    def instruction(self) -> None:
        build, pick, core, single = self.build, self.pick, self.core, self.single
        kind = self.random.randrange(15 if self.calls else 14)
        offset = 4 * self.random.randrange(4)
        if kind <= 1:
            single.append(build.vldr(pick(core), offset, self.random.choice(["const", "arena"])))
        elif kind <= 3:
            single.append(build.vadd(pick(single), pick(single)))
        elif kind == 4:
            single.append(build.vmul(pick(single), pick(single)))
        elif kind == 5:
            build.store(pick(single), pick(core), offset)
        elif kind == 6:
            core.append(build.mov_imm(self.random.randrange(1, 100)))
        elif kind == 7:
            core.append(build.add_imm(pick(core), offset))
        elif kind == 8:
            core.append(build.alu(pick(core), pick(core), tied=self.random.random() < 0.5))
        elif kind == 9:
            core.append(build.select(pick(core), pick(core)))
        elif kind == 10:
            bumped, values = build.vldm(pick(core), self.random.randrange(1, 4), self.random.choice(["const", "arena"]))
            core.append(bumped)
            single.extend(values)
        elif kind == 11:
            core.append(build.vstm(pick(core), [pick(single) for _ in range(self.random.randrange(1, 4))]))
        elif kind == 12:
            core.extend(build.vmov_pair(pick(single), pick(single)))
        elif kind == 13:
            core.append(build.ldr(pick(core), offset))
        else:
            self.single.clear()
            build.call(*(pick(core) for _ in range(self.random.randrange(3))))
            single.append(build.vldr(pick(core), offset))

    def loop(self, size: int, depth: int) -> None:
        build = self.build
        inits = [self.pick(self.core) for _ in range(self.random.randrange(3))]
        inits += [self.pick(self.single) for _ in range(self.random.randrange(4))]
        count = build.mov_imm(self.random.randrange(1, 4))
        if self.random.random() < 0.3:
            self.core.append(count)
        outer = list(self.core), list(self.single)

        def body(args: list[int]) -> list[int]:
            classes = build.function.classes
            self.core.extend(value for value in args if classes[value] == CORE)
            self.single.extend(value for value in args if classes[value] == SINGLE)
            calls, self.calls = self.calls, False
            self.steps(size, depth + 1)
            self.calls = calls
            return [self.pick(self.core if classes[value] == CORE else self.single) for value in args]

        results = build.loop(count, inits, body)
        self.core, self.single = outer
        for value in results:
            (self.core if build.function.classes[value] == CORE else self.single).append(value)


# Interpreter


class Machine:
    """Runs a function; `physical` reads and writes allocated registers, otherwise values."""

    def __init__(self, function: Function, physical: bool):
        self.function = function
        self.physical = physical
        self.cells: dict[object, int] = {}
        self.memory: dict[tuple[str, int], int] = {}
        self.frame: dict[int, int] = {}
        self.calls: list[tuple[int, ...]] = []
        self.budget = STEP_LIMIT

    def cell(self, value: int) -> object:
        if not self.physical:
            return value
        return self.function.classes[value], self.function.registers[value]

    def get(self, value: int) -> int:
        return self.cells.get(self.cell(value), 0xDEAD)

    def put(self, value: int, content: int) -> None:
        self.cells[self.cell(value)] = content & MASK

    def run(self) -> tuple[object, object]:
        """What can be observed: the final memory and the calls made (a wrong program may be cut short)."""
        for index, value in enumerate(self.function.args):
            self.put(value, 0x10000 * (index + 1))
        self.steps(self.function.body)
        return self.memory, self.calls

    def steps(self, steps: list[Step]) -> None:
        for step in steps:
            if self.budget < 0:
                return
            if isinstance(step, Loop):
                self.loop(step)
            else:
                self.instruction(step)

    def loop(self, step: Loop) -> None:
        inits = [self.get(value) for value in step.inits]
        remaining = self.get(step.count)
        if self.physical:
            while True:
                self.steps(step.body)
                if step.counter_slot is not None:
                    assert step.reloaded_counter is not None
                    remaining = self.get(step.reloaded_counter) - 1
                    self.put(step.reloaded_counter, remaining)
                    self.frame[step.counter_slot] = remaining
                else:
                    remaining = self.get(step.counter) - 1
                    self.put(step.counter, remaining)
                if remaining & MASK == 0 or self.budget < 0:
                    return
        for value, content in zip(step.args, inits, strict=True):
            self.put(value, content)
        for _ in range(remaining):
            if self.budget < 0:
                return
            self.steps(step.body)
            yielded = [self.get(value) for value in step.yields]
            for value, content in zip(step.args, yielded, strict=True):
                self.put(value, content)
        for value, arg in zip(step.results, step.args, strict=True):
            self.put(value, self.get(arg))

    def instruction(self, step: Instruction) -> None:
        self.budget -= 1
        if self.physical and step.early_clobber:
            tied = {result for _, result in step.ties}
            for index, value in enumerate(step.defs):
                if index not in tied:
                    self.put(value, 0xBAD)
        operands = [self.get(value) for value in step.uses]
        results = self.compute(step, operands)
        if step.clobbers_all and self.physical:
            self.cells.clear()
        for value, content in zip(step.defs, results, strict=True):
            self.put(value, content)

    def compute(self, step: Instruction, operands: list[int]) -> list[int]:
        opcode, memory = step.opcode, step.memory
        if opcode == COPY:
            return operands
        if opcode == "mov_imm":
            assert isinstance(step.origin, int)
            return [step.origin]
        if opcode == "add_imm":
            assert isinstance(step.origin, int)
            return [operands[0] + step.origin]
        if opcode == FRAME_LOAD:
            return [self.frame.get(step.slot or 0, 0xDEAD)]
        if opcode == FRAME_STORE:
            self.frame[step.slot or 0] = operands[0]
            return []
        if opcode == "call":
            self.calls.append(tuple(operands))
            return []
        if memory is not None:
            return self.access(step, memory, operands)
        return [mix(opcode, index, *operands) for index in range(len(step.defs))]

    def access(self, step: Instruction, memory: MemoryAccess, operands: list[int]) -> list[int]:
        words = memory.size // 4
        base = operands[1] if step.opcode in ("vstr", "str") else operands[0]
        cells = [(memory.space, (base + memory.offset + 4 * word) & MASK) for word in range(words)]
        bumped = [base + memory.size] if step.ties else []
        if memory.is_store:
            values = operands[:1] if step.opcode in ("vstr", "str") else operands[1:]
            self.memory.update(zip(cells, values, strict=True))
            return bumped
        return bumped + [self.memory.get(cell, mix(*cell)) for cell in cells]


def mix(*what: object) -> int:
    """A number that depends on all of its arguments, the same in every process."""
    return zlib.crc32(repr(what).encode())


def run_values(function: Function) -> tuple[object, object]:
    """Run a function on its values."""
    return Machine(function, physical=False).run()


def run_registers(function: Function) -> tuple[object, object]:
    """Run an allocated function on its registers."""
    return Machine(function, physical=True).run()
