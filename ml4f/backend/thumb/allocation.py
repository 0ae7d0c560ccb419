"""Give every value of a legalised function a physical register.

Interval lists with holes, first fit over webs: a web is a set of values that must share a register (or lie at fixed
distances, for instructions on consecutive registers), its live range the union of its members'. Live ranges are bit
masks over the time line, so that an overlap test is one `&`. Order: given registers, loop-carried webs (largest group
first), groups, the rest by start; a web that finds no register is moved to the front and the file is tried again.

Single-precision registers never spill: a schedule that needs more than 32 is refused. Core registers spill
(`spilling.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ml4f.backend.thumb.function_data import (
    CORE,
    REGISTER_COUNT,
    RESERVED,
    SINGLE,
    Function,
    instructions,
    loops,
)
from ml4f.backend.thumb.liveness import Liveness, analyse_liveness
from ml4f.backend.thumb.spilling import Spiller
from ml4f.backend.thumb.webs import Webs, hard_constraints
from ml4f.errors import InternalError

PROMOTIONS = 200
"""How often a file is tried again with the web that did not fit in front."""
SPILL_ROUNDS = 200


class AllocationError(InternalError):
    """More values of a class are alive at once than there are registers.

    position: the step number where the first value found no register; `live`: how many values of the class are alive
    there.
    """

    def __init__(self, function: str, register_class: str, position: int, live: int):
        self.function = function
        self.register_class = register_class
        self.position = position
        self.live = live
        available = REGISTER_COUNT[register_class] - len(RESERVED[register_class])
        super().__init__(
            f"{function}: no {register_class} register left at step {position}: "
            f"{live} values alive in {available} registers; a smaller tile would help"
        )


@dataclass(slots=True)
class AllocationReport:
    """What the allocator did: registers used a class, coalesced copies are not counted, spilled webs and rounds are."""

    singles: int
    cores: int
    spilled: int


@dataclass(slots=True)
class _Web:
    """One web to be placed: `ranges` are (offset, slots taken); `key` its place in the order."""

    root: int
    ranges: list[tuple[int, int]]
    key: tuple[int, int, int]


def allocate_registers(function: Function) -> AllocationReport:
    """Fill `function.registers`; core registers may spill, which inserts frame loads and stores and shortens loops'
    lists.

    Raises AllocationError when the single-precision registers do not suffice, InternalError when ties are not
    legalised.
    """
    spiller = Spiller(function)
    for spilled in range(SPILL_ROUNDS):
        liveness = analyse_liveness(function)
        _refuse_pressure(function, liveness)
        attempt = _Attempt(function, liveness)
        attempt.place(SINGLE)
        failed = attempt.try_to_place(CORE)
        if failed is None:
            attempt.write_back()
            return AllocationReport(attempt.count(SINGLE), attempt.count(CORE), spilled)
        if not spiller.spill(liveness, attempt.occupancy(failed)):
            raise attempt.error(CORE, failed)
    raise InternalError(f"{function.name}: core registers do not fit after {SPILL_ROUNDS} spills")


def live_counts(function: Function, liveness: Liveness, register_class: str) -> list[int]:
    """How many values of the class are alive in each time slot."""
    change = [0] * (liveness.slots + 2)
    classes, start, end = function.classes, liveness.start, liveness.end
    for value, own in enumerate(classes):
        if own == register_class and end[value]:
            change[start[value]] += 1
            change[end[value]] -= 1
    live = 0
    for slot, step in enumerate(change):
        live += step
        change[slot] = live
    return change


def _refuse_pressure(function: Function, liveness: Liveness) -> None:
    counts = live_counts(function, liveness, SINGLE)
    most = max(counts)
    if most > REGISTER_COUNT[SINGLE]:
        raise AllocationError(function.name, SINGLE, counts.index(most) // 2, most)


class _Attempt:
    """One try at both register files with the function as it stands."""

    def __init__(self, function: Function, liveness: Liveness):
        self.function = function
        self.liveness = liveness
        self.placed: dict[int, int] = {}
        self.webs = self.build(soft=True)

    def build(self, soft: bool) -> Webs:
        """The webs: all hard constraints, then the soft ones that conflict with nothing."""
        webs = Webs(self.function, self.liveness)
        for constraint in hard_constraints(self.function, webs.physical):
            if not webs.join(constraint.first, constraint.second, constraint.distance):
                raise InternalError(
                    f"{self.function.name}: constraint on {constraint.kind} {constraint.index} conflicts; "
                    "run thumb-legalize-ties first"
                )
        if soft:
            start, end = self.liveness.start, self.liveness.end
            for instruction in instructions(self.function.body):
                for use, result in instruction.soft_ties:
                    value, made = instruction.uses[use], instruction.defs[result]
                    if end[value] <= start[made]:
                        webs.join(value, made)
        return webs

    def place(self, register_class: str) -> None:
        """Place one file or raise; the second try is without soft unions, which can make a web too long to fit."""
        failed = self.try_to_place(register_class)
        if failed is None:
            return
        self.webs = self.build(soft=False)
        if self.try_to_place(register_class) is not None:
            raise self.error(register_class, failed)

    def error(self, register_class: str, failed: _Web) -> AllocationError:
        """Where the web that did not fit meets the most other values."""
        counts = live_counts(self.function, self.liveness, register_class)
        mask = self.occupancy(failed)
        slot = max((slot for slot in range(len(counts)) if mask >> slot & 1), key=lambda slot: counts[slot])
        return AllocationError(self.function.name, register_class, slot // 2, counts[slot])

    def occupancy(self, web: _Web) -> int:
        """All slots in which any register of the web is taken."""
        taken = 0
        for _, mask in web.ranges:
            taken |= mask
        return taken

    def try_to_place(self, register_class: str) -> _Web | None:
        """Give every web of the file a base register; the web that does not fit however the order is changed, or
        None.
        """
        failed = None
        for fit in (self.first_fit, self.best_fit):
            order = self.collect(register_class)
            physical = self.webs.physical[register_class]
            given = self.webs.occupied[physical]
            for _ in range(PROMOTIONS):
                taken = [given.get(register, 0) for register in range(REGISTER_COUNT[register_class])]
                failed = fit(order, taken)
                if failed is None:
                    self.placed[physical] = 0
                    return None
                if order[0] is failed:
                    break
                order.remove(failed)
                order.insert(0, failed)
        return failed

    def best_fit(self, order: list[_Web], taken: list[int]) -> _Web | None:
        """Like `first_fit`, but a single register's web goes where the next live range begins soonest behind its end.

        Holes in the ranges of loop-carried webs are then filled by what just fits them.
        """
        placed = self.placed
        for web in order:
            offset, mask = web.ranges[0]
            if len(web.ranges) > 1:
                if self.first_fit([web], taken) is not None:
                    return web
                continue
            end = mask.bit_length()
            best, best_gap = -1, 0
            for register, busy in enumerate(taken):
                if not busy & mask:
                    later = busy >> end
                    gap = (later & -later).bit_length() or self.liveness.slots
                    if best < 0 or gap < best_gap:
                        best, best_gap = register, gap
            if best < 0:
                return web
            taken[best] |= mask
            placed[web.root] = best - offset
        return None

    def first_fit(self, order: list[_Web], taken: list[int]) -> _Web | None:
        """Place the webs in order, each at the lowest base where none of its registers is taken; the first that
        fails.
        """
        placed = self.placed
        for web in order:
            if len(web.ranges) == 1:
                mask = web.ranges[0][1]
                for register, busy in enumerate(taken):
                    if not busy & mask:
                        taken[register] = busy | mask
                        placed[web.root] = register - web.ranges[0][0]
                        break
                else:
                    return web
                continue
            lowest, highest = web.ranges[0][0], web.ranges[-1][0]
            for base in range(-lowest, len(taken) - highest):
                if all(not taken[base + offset] & mask for offset, mask in web.ranges):
                    for offset, mask in web.ranges:
                        taken[base + offset] |= mask
                    placed[web.root] = base
                    break
            else:
                return web
        return None

    def collect(self, register_class: str) -> list[_Web]:
        """The webs of a file, in the order of placing."""
        webs, liveness, classes = self.webs, self.liveness, self.function.classes
        start, end, weights = liveness.start, liveness.end, liveness.weight
        first: dict[int, int] = {}
        weight: dict[int, int] = {}
        for value, own in enumerate(classes):
            if own != register_class or not end[value]:
                continue
            root = webs.find(value)[0]
            begin = start[value]
            if root not in first or begin < first[root]:
                first[root] = begin
            weight[root] = weight.get(root, 0) + weights[value]
        carried = {webs.find(value)[0] for loop in loops(self.function.body) for value in loop.args}
        found: list[_Web] = []
        for root, begin in first.items():
            if webs.is_physical(root):
                continue
            ranges = sorted(webs.occupied[root].items())
            if root in carried:
                key = (0, -len(ranges), -weight[root] if register_class == CORE else begin)
            elif len(ranges) > 1:
                key = (1, -len(ranges), begin)
            else:
                key = (2, 0, -weight[root] if register_class == CORE else begin)
            found.append(_Web(root, ranges, key))
        found.sort(key=lambda web: web.key)
        return found

    def write_back(self) -> None:
        """Store the register of every value that is ever written."""
        find, placed, end = self.webs.find, self.placed, self.liveness.end
        registers: list[int | None] = [None] * len(self.function.classes)
        for value in range(len(registers)):
            if end[value]:
                root, offset = find(value)
                registers[value] = placed[root] + offset
        self.function.registers = registers

    def count(self, register_class: str) -> int:
        """How many registers of the file are used."""
        registers, classes = self.function.registers, self.function.classes
        return len({r for r, own in zip(registers, classes, strict=True) if own == register_class and r is not None})
