"""Prices a schedule by expanding it into counts instead of operations.

The estimate is the Cortex-M4F's issue cycles of the expanded body, with the scheduler's result taken for granted: one
unbroken chain of loads in front of each chunk, no stalls where there is something to interleave. Against simulated
cycles see tests/unit/test_pricing.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import frexp, isfinite, prod
from typing import Any

from ml4f.backend.loop.addressing import MAX_POINTERS, MOST_CORE_VALUES, moves_between
from ml4f.backend.loop.borders import bounds_of, with_bounds
from ml4f.backend.loop.builder import Address, Interleaved, ScheduleError, Terms
from ml4f.backend.loop.elementary import ACTIVATIONS, float_bits, prelu
from ml4f.backend.loop.elementary_power import power
from ml4f.backend.loop.elementwise import needs_no_temporaries
from ml4f.backend.loop.expand import expand
from ml4f.backend.loop.nest import Nest, Schedule
from ml4f.backend.thumb.encoding import constant_steps

S_REGISTERS = 32
R_REGISTERS = 13
"""Core registers that tile values may use besides the loop's counter (r0-r12, lr)."""

LATE_VALUE = 1
"""A multiple store waits for a value that the operation before it computed."""
BEHIND_STORE = 1
"""The wait of a load behind a multiple store, or the addition that moves the pointer in its place."""
LOOP_CYCLES = 4
"""SUBS and a taken BNE."""
SELECT_CYCLES = 4
SELECT_BYTES = 15
"""VCMP, VMRS, IT and VMOV; a no-op in front of every other IT keeps 32-bit instructions on words, for no cycles."""
SPILLED_COUNTER_CYCLES = 3
"""LDR and STR of a loop counter that has no register: 2 + 1."""
SPILLED_COUNTER_BYTES = 6
POINTER_REACH = 1020
POINTER_SPAN = 2 * POINTER_REACH
"""Bytes that VLDR reaches to either side of a pointer, and in all."""
BROKEN_CHAIN = 1
"""A pointer that is moved to load from far away ends a chain of loads, and the next one begins."""
COPY_BYTES = 2.4
"""A load or store of a kernel that only copies."""
CORE_BYTES = 3
"""Instructions on core registers have 2 bytes with low registers and small numbers, else 4."""
NEAR = 128
"""Bytes around a pointer that the 16-bit forms of LDR and STR reach."""
ARGUMENT_CYCLES = 2.5
ARGUMENT_BYTES = 5
"""What a kernel's call spends on each pointer: LDR of the arena's or object's address, mostly in pairs, and ADD."""


@dataclass(frozen=True)
class Price:
    """Estimated cycles of the kernel, peak live values by register file, and bytes of code."""

    cycles: float
    live_s: int
    live_r: int
    code_bytes: int
    most_s: int = S_REGISTERS - 1
    """Values that may be alive at once: one less than there are registers, but where nothing needs a temporary one."""

    @property
    def feasible(self) -> bool:
        return self.live_s <= self.most_s and self.live_r <= R_REGISTERS


class Number(int):
    """A value of the estimator; a plain int is an immediate operand."""


_NUMBERS: list[Number] = []
"""The first numbers, which every estimator uses again."""


def _number(value: int) -> Number:
    while value >= len(_NUMBERS):
        _NUMBERS.append(Number(len(_NUMBERS)))
    return _NUMBERS[value]


Group = tuple[int, tuple[int, ...]]
"""Accesses that share a pointer: the operand, and the strides of the enclosing loops."""


@dataclass
class _Loop:
    """What is known about an open loop: cycles of one round, and which bytes each pointer group spans."""

    count: float
    first: int = 0
    """The first value that is made inside."""
    cycles: float = 0.0
    outer_uses: set[Number] = field(default_factory=set)
    spans: dict[Group, list[int]] = field(default_factory=dict)
    visits: dict[Group, list[int]] = field(default_factory=dict)
    """The offsets of a group's accesses in the body itself, in order; those of multiple loads and stores left out."""
    still: set[Group] = field(default_factory=set)
    """Groups with other accesses than multiple loads, which leave the pointer where the next round begins."""
    rounds: list[float] = field(default_factory=list)
    """Of every loop inside: how often its body runs in one round."""
    ties: list[tuple[Number, int]] = field(default_factory=list)
    """(value, clock): a selection overwrites one of its operands, of which a copy is made if it is used again."""
    variable: int = -1
    standing: set[int] = field(default_factory=set)
    """Where multiple loads of a kernel that works in place leave pointers, which the stores need."""
    stores: dict[tuple[int, Any], list[tuple[int, int, int]]] = field(default_factory=dict)
    """Multiple stores by operand and strides: bytes of each, and the cycles and code that moving its pointer takes."""


class Estimator:
    """A `Builder` that counts. The file of a value: "s", "r", "i" (induction variables and bounds) or "none"."""

    def __init__(
        self,
        counts: Mapping[str, float] | None = None,
        sequential: bool = False,
        in_place: tuple[int, int] | None = None,
        copies: bool = False,
    ):
        self._only_copies = copies
        """Nothing but loads and stores of core registers: most of them are low, and pointers are moved to stay near."""
        self._counts = counts or {}
        """How often loops over a dim run, on average, where that is not known before."""
        self._in_place = in_place
        """(output, input) operands that are expected at the same address: the pointers of one serve both."""
        self._sequential = sequential
        """Nothing stands between dependent instructions: who reads the result of the one before has to wait.

        Otherwise it is so only in a chain of more than two: products and sums of a tile find others to stand between.
        """
        self._result = -1
        self._dependent = 0
        self._copied = False
        """The operation before stored a loaded value as it is: with nothing to stand between, a load has to wait."""
        self._loaded = set[int]()
        """Values in core registers that were loaded."""
        self._defined: list[int] = []
        self._files: list[str] = []
        self._last: list[int] = []
        """By value the clock of its definition, its file, and the clock of its last use."""
        self._clock = 0
        self._level = 0
        self._inside = 0
        """The first value of the innermost loop: those before it come from outside."""
        self._strides: dict[Terms, tuple[int, ...]] = {}
        self._loops: list[_Loop] = [_Loop(1)]
        self._loop = self._loops[0]
        self._in_chain = False
        self._stored = False
        """The operation before was a multiple store: the next one has to wait for its moved pointer."""
        self._multiple_end: dict[tuple[int, Any], int] = {}
        self._core_need = 0
        self.code = 0.0

    # -- bookkeeping

    def _define(self, file: str) -> Number:
        self._defined.append(self._clock)
        self._files.append(file)
        self._last.append(self._clock)
        return _number(len(self._last) - 1)

    def _use(self, value: int) -> None:
        if value < self._inside:
            self._use_inside(value)
        self._last[value] = self._clock

    def _use_inside(self, value: int) -> None:
        """Notes with the outermost loop around a use and not its definition that it has the value all along."""
        outermost = next(loop for loop in self._loops if loop.first > value)
        outermost.outer_uses.add(_number(value))

    def _op(self, cycles: float, code: float, file: str, *operands: Any) -> Number:
        self._clock += 1
        waits = False
        for operand in operands:
            if type(operand) is Number:
                self._use(operand)
                if operand == self._result:
                    waits = True
        cycles += self._wait(waits)
        self._result = -1
        self._stored = self._copied = False
        self._loop.cycles += cycles
        self.code += code
        self._in_chain = False
        return self._define(file)

    def _wait(self, dependent: bool) -> int:
        """The stall of an instruction that reads, or does not read, the result of the one before it."""
        self._dependent = self._dependent + 1 if dependent else 0
        return 1 if self._dependent > (0 if self._sequential else 1) else 0

    def _float(self, cycles: float, *operands: int) -> Number:
        """A float operation of one instruction."""
        made = self._op(cycles, 4, "s", *operands)
        self._result = made
        return made

    # -- memory

    def _touch(self, address: Address, size: int = 4, multiple: bool = False) -> Group:
        """Notes an access; a jump between multiple loads of one pointer costs an addition."""
        operand, offset, terms = address
        if self._in_place is not None and operand == self._in_place[0]:
            operand = self._in_place[1]
        strides = self._strides.get(terms)
        if strides is None:
            strides = self._strides[terms] = tuple([stride for _, stride in terms])
        key = (operand, strides)
        loop = self._loop
        if not multiple:
            loop.still.add(key)
            loop.visits.setdefault(key, []).append(offset)
        span = loop.spans.get(key)
        if span is None:
            loop.spans[key] = [offset, offset + size]
        elif offset < span[0]:
            span[0] = offset
        elif offset + size > span[1]:
            span[1] = offset + size
        return key

    def load(self, address: Address, kind: str) -> Number:
        """As `_op` without operands, written out."""
        key = self._touch(address)
        self._clock += 1
        self._loop.cycles += 1 if self._in_chain else 3 if self._copied else 2
        self._in_chain, self._stored, self._copied, self._dependent, self._result = True, False, False, 0, -1
        if kind == "f32":
            self.code += 4
            return self._define("s")
        self.code += self._core_bytes(address, key)
        made = self._define("r")
        self._loaded.add(made)
        return made

    def load_byte(self, address: Address) -> Number:
        self._touch(address)
        return self._op(2, 4, "i")

    def load_multiple(self, address: Address, count: int) -> Sequence[Number]:
        self._touch(address, 4 * count, True)
        place = (address.operand, address.terms)
        moved = self._multiple_end.get(place, address.offset) != address.offset
        if self._in_place is not None and address.operand == self._in_place[1]:
            moved = False  # where the pointer stands that the result will be stored with
            self._loop.standing.add(address.offset)
        self._multiple_end[place] = address.offset + 4 * count
        first = self._op(1 + count + (1 if moved else 0), 4 + CORE_BYTES if moved else 4, "s")
        return [first, *(self._define("s") for _ in range(count - 1))]

    def store(self, address: Address, value: Number) -> None:
        key = self._touch(address)
        single = self._files[value] == "s"
        self._op(2 if single else 1, 4 if single else self._core_bytes(address, key), "none", value)
        self._copied = value in self._loaded

    def _core_bytes(self, address: Address, key: Group) -> float:
        """Bytes of a load or store of a core register, of which those far from the first access are wide."""
        if self._only_copies:
            return COPY_BYTES
        return CORE_BYTES if address.offset - self._loop.spans[key][0] < NEAR else 4

    def store_multiple(self, address: Address, values: Sequence[Number]) -> None:
        self._touch(address, 4 * len(values), True)
        place = (address.operand, address.terms)
        moved = self._multiple_end.get(place, address.offset) != address.offset
        self._multiple_end[place] = address.offset + 4 * len(values)
        late = LATE_VALUE if self._result in values and not self._sequential else 0
        waits = moved and self._stored and self._in_place is None
        step = BEHIND_STORE + waits, CORE_BYTES if moved else 0
        self._op(1 + len(values) + late + step[0], 4 + step[1], "none", *values)
        self._loop.stores.setdefault(place, []).append((4 * len(values), *step))
        self._stored = True

    # -- loops

    def begin_loop(
        self, count: int | None, trip_count: Any, lower: Any, inits: Sequence[int], label: str
    ) -> tuple[int, Sequence[int]]:
        loop = self._loop
        copies = len(inits) - len(set(inits))
        loop.cycles += 1 + copies
        self.code += CORE_BYTES + 4 * copies
        if lower is not None:
            loop.cycles += 4
            self.code += 16
        self._clock += 1
        for value in (*inits, trip_count, lower):
            if type(value) is Number:
                self._use(value)
        self._loop = _Loop(float(count) if count is not None else self._counts[label], len(self._last))
        self._loops.append(self._loop)
        self._inside = self._loop.first
        self._level += 1
        self._clock += 1
        variable = self._loop.variable = self._define("i")
        self._in_chain = self._copied = False
        self._multiple_end = {}
        return variable, [self._define(self._files[v]) for v in inits]

    def end_loop(self, yields: Sequence[int]) -> Sequence[int]:
        self._clock += 1
        for value in yields:
            self._use(value)
        copies = self._copies(self._loop)
        loop = self._loops.pop()
        far = [
            moves_between(offsets, POINTER_REACH)
            for key, offsets in loop.visits.items()
            if loop.spans[key][1] - loop.spans[key][0] > MAX_POINTERS * POINTER_SPAN
        ]
        loop.cycles += copies + sum(moves * BROKEN_CHAIN + added for moves, added in far)
        self.code += 4 * (copies + sum(added for _, added in far))
        self._loop = outer = self._loops[-1]
        self._inside = outer.first
        self._level -= 1
        pointers = sum(min(-(-(high - low) // POINTER_SPAN), MAX_POINTERS) for low, high in loop.spans.values())
        own = self._own_pointers(loop, pointers)
        self._core_need = max(self._core_need, pointers + own + len(self._loops))
        bumps = pointers - sum(key not in loop.still for key in loop.spans)
        self.code += CORE_BYTES * bumps + 6
        if loop.stores and self._in_place is not None:
            # The pointers of the stores are moved behind each of them.
            bumps -= sum(operand == self._in_place[1] for operand, _ in loop.still)
        outer.cycles += loop.count * (loop.cycles + LOOP_CYCLES + bumps) - 2
        outer.rounds += [loop.count, *(loop.count * rounds for rounds in loop.rounds)]
        for (operand, strides), (low, high) in loop.spans.items():
            key = (operand, strides[: self._level] if len(strides) > self._level else strides)
            span = outer.spans.setdefault(key, [low, high])
            span[0], span[1] = min(span[0], low), max(span[1], high)
            outer.still.add(key)
        for value in loop.outer_uses:
            self._use(value)
        self._clock += 1
        self._in_chain = self._copied = False
        self._multiple_end = {}
        return [self._define(self._files[v]) for v in yields]

    def _own_pointers(self, loop: _Loop, pointers: int) -> int:
        """How many pointers more the loop has because each multiple store of some has its own, which need no moving."""
        more = 0
        if self._in_place is not None:
            stores = sum(map(len, loop.stores.values()))
            return min(max(len(loop.standing), 2), stores) - 1 if stores else 0
        for (_, terms), stores in loop.stores.items():
            stride = next((s for v, s in reversed(terms) if v == loop.variable), 0)
            extra = len(stores) - 1
            if not extra or any(size != stride for size, _, _ in stores):
                continue
            if pointers + more + extra + len(self._loops) > MOST_CORE_VALUES:
                continue
            more += extra
            loop.cycles -= sum(cycles for _, cycles, _ in stores)
            self.code -= sum(code for _, _, code in stores)
            self._loop.cycles += extra
            self.code += 4 * extra
        return more

    # -- arithmetic

    def constant(self, x: float) -> int:
        instructions = 1 if _short_float(x) else 1 + len(constant_steps(float_bits(x)))
        return self._op(instructions, 4 * instructions, "s")

    def int_constant(self, x: int) -> int:
        instructions = len(constant_steps(x))
        return self._op(instructions, 4 * instructions, "r")

    def fadd(self, a: Number, b: Number) -> Number:
        """As `_float` with two operands: most of what is priced, so written out."""
        clock = self._clock = self._clock + 1
        inside, last, result = self._inside, self._last, self._result
        if a < inside:
            self._use_inside(a)
        if b < inside:
            self._use_inside(b)
        last[a] = last[b] = clock
        loop = self._loop
        if a == result or b == result:
            loop.cycles += 1 + self._wait(True)
        else:
            self._dependent = 0
            loop.cycles += 1
        self.code += 4
        self._in_chain = self._stored = False
        self._defined.append(clock)
        self._files.append("s")
        made = self._result = len(last)
        last.append(clock)
        return _NUMBERS[made] if made < len(_NUMBERS) else _number(made)

    fsub = fmul = fadd

    def fdiv(self, a: int, b: int) -> int:
        return self._float(14, a, b)

    def fmax(self, a: Number, b: int) -> int:
        return self._select(a, a, b)

    fmin = fmax

    def fneg(self, a: int) -> int:
        return self._float(1, a)

    fabs = fneg

    def half_low(self, a: int) -> Number:
        made = self._float(1, a)
        self._result = -1  # products of other weights stand in between
        return made

    half_high = half_low

    def fsqrt(self, a: int) -> int:
        return self._float(14, a)

    def fma(self, a: int, b: int, c: int) -> int:
        return self._float(3, a, b, c)

    def to_int(self, a: int) -> int:
        return self._op(2, 8, "r", a)

    to_int_nearest = to_int

    def to_float(self, i: int) -> int:
        return self._op(2, 8, "s", i)

    def bits(self, a: int) -> int:
        return self._op(1, 4, "r", a)

    def from_bits(self, i: int) -> int:
        return self._op(1, 4, "s", i)

    def bits_pair(self, a: int, b: int) -> tuple[int, int]:
        first = self._op(2, 4, "r", a, b)
        return first, self._define("r")

    def relu_bits(self, a: int) -> int:
        return self._op(1, 4, "r", a)

    def imax(self, a: int, b: int) -> int:
        return self._op(2, 6, "r", a, b)

    def iadd(self, a: int, b: Any) -> int:
        return self._op(1, CORE_BYTES, "r", a, b)

    isub = imul = iand = ior = ixor = ibic = iadd

    def ishl(self, a: int, b: int) -> int:
        return self._op(1, CORE_BYTES, "r", a)

    ilshr = iashr = ishl

    def fselect(self, predicate: str, a: int, b: int, t: int, f: Number) -> int:
        return self._select(f, a, b, t, f)

    def _select(self, overwritten: Number, *operands: int) -> Number:
        result = self._op(SELECT_CYCLES, SELECT_BYTES, "s", *operands)
        self._loop.ties.append((overwritten, self._clock))
        return result

    def _copies(self, loop: _Loop) -> int:
        """How many operands of selections in a loop's body are needed afterwards, or in the next round."""
        return sum(self._last[v] > clock or v < loop.first for v, clock in loop.ties)

    def iselect(self, predicate: str, a: int, b: Any, t: int, f: int) -> int:
        moved = self._op(2, 6, "r", t, f)
        return self._op(1, 4, "s", self.isel(predicate, a, b, moved, moved))

    def isel(self, predicate: str, a: int, b: Any, t: int, f: int) -> int:
        number = type(b) is not Number
        return self._op(3 if number else 2, 10 if number else 6, "r", a, b, t, f)

    # -- the result

    def peaks(self) -> dict[str, int]:
        """The largest number of values of each register file that are alive at once."""
        changes = {file: [0] * (self._clock + 2) for file in ("s", "r")}
        for defined, file, last in zip(self._defined, self._files, self._last, strict=True):
            if last > defined and file in changes:
                change = changes[file]
                change[defined] += 1
                change[last] -= 1
        return {file: max(accumulate(change)) for file, change in changes.items()}

    def finish(self, operands: int, most_s: int) -> Price:
        """The price, with what does not show in operations: the call's arguments, counters that found no register."""
        outer = self._loops[0]
        copies = self._copies(outer)
        outer.cycles += ARGUMENT_CYCLES * operands + copies
        self.code += ARGUMENT_BYTES * operands + 4 * copies
        peaks = self.peaks()
        missing = self._core_need + peaks["r"] - R_REGISTERS - 1
        for rounds in sorted(outer.rounds)[: max(missing, 0)]:
            outer.cycles += SPILLED_COUNTER_CYCLES * rounds
            self.code += SPILLED_COUNTER_BYTES
        return Price(outer.cycles, peaks["s"], peaks["r"], round(self.code), most_s)


def _short_float(x: float) -> bool:
    """Whether VMOV has an immediate for it: +-(16..31)/16 * 2^(-3..4)."""
    mantissa, exponent = frexp(x)
    return x != 0 and isfinite(x) and (32 * mantissa).is_integer() and -3 <= exponent - 1 <= 4


class _ConstantRecorder(Estimator):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[float, None] = {}
        self.integers: dict[int, None] = {}

    def constant(self, x: float) -> int:
        self.seen[x] = None
        return super().constant(x)

    def int_constant(self, x: int) -> int:
        self.integers[x] = None
        return super().int_constant(x)


def constants_of(nest: Nest) -> tuple[list[float], list[int]]:
    """The float and integer constants that the epilogue uses, in order of first use."""
    recorder = _ConstantRecorder()
    lanes: Any = Interleaved(recorder, 1, None)  # pyright: ignore[reportArgumentType]
    for step in nest.epilogue:
        if step.kind == "activation" and step.name not in ("linear", "relu"):
            value: Any = (recorder.load(Address(0, 0, ()), "f32"),)
            ACTIVATIONS[step.name].emit(lanes, value, *step.parameters)
        elif step.kind == "pow":
            base, exponent = ((recorder.load(Address(0, i, ()), "f32"),) for i in (0, 1))
            power(lanes, base, exponent)
        elif step.kind == "where":
            recorder.constant(0.0)
        elif step.role is None and step.parameters:
            recorder.constant(step.parameters[0])
        elif step.kind == "prelu":
            prelu(lanes, (recorder.load(Address(0, 0, ()), "f32"),), (recorder.load(Address(0, 1, ()), "f32"),))
    return list(recorder.seen), list(recorder.integers)


def _in_place(nest: Nest, schedule: Schedule) -> tuple[int, int] | None:
    """The output and the input of a nest that is expected to work in place, and to have pointers for both together.

    Not where multiple stores have no gaps between them.
    """
    if not nest.element_by_element:
        return None
    looped = [d for d, segments in schedule.loops if max(count for _, count in segments) > 1]
    if looped and "out" in schedule.multiple:
        tile = prod(segments[0][0] for _, segments in schedule.loops)
        if tile == nest.by_role["out"].map.coefficient(looped[-1]) * schedule.segments[looped[-1]][0][0]:
            return None
    return nest.index_of("out"), nest.index_of("x")


@lru_cache(maxsize=1024)
def price(nest: Nest, schedule: Schedule) -> Price | None:
    """The price of a schedule; None where it cannot execute the nest."""
    bounds = bounds_of(nest, schedule)
    counts = {dim: sum(count for _, count in entries) / len(entries) for dim, entries in bounds.items()}
    copies = nest.combine == "copy" and not nest.epilogue
    estimator = Estimator(counts, nest.combine != "mac", _in_place(nest, schedule), copies)
    nest = with_bounds(nest, schedule)
    try:
        expand(nest, schedule, estimator)  # pyright: ignore[reportArgumentType]
    except ScheduleError:
        return None
    most_s = S_REGISTERS - (0 if needs_no_temporaries(nest) else 1)
    return estimator.finish(len(nest.operands) - (1 if nest.has("bias") and nest.has("w") else 0), most_s)
