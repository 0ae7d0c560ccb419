"""From allocated thumb functions to machine code: order, prologues, calls, branches, alignment.

There is no control flow graph: all branches go backward to loop heads, so addresses are final in one pass over the
code. Only the distance to the data behind the code depends on the whole; the pass is repeated until that is stable.

A function with one caller stands inline at its call. Loop heads that are 32-bit instructions are aligned to a word by
widening an instruction before them, and an instruction before a run of misaligned 32-bit ones in a loop is widened too,
be it predicated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Attribute, Block, SSAValue

from ml4f.backend.thumb import control_forms as control
from ml4f.backend.thumb.encoding import Form, Part, Row, Values, word_bytes
from ml4f.backend.thumb.entry import Argument, CallNeeds, argument_moves, initial_moves, kept_registers
from ml4f.backend.thumb.operand_kinds import CONDITIONS, LR, PC
from ml4f.dialects.thumb.base import ThumbOp
from ml4f.dialects.thumb.memory_ops import STORE_FRAME, ArenaAddressOp, DataAddressOp
from ml4f.dialects.thumb.registers import CoreRegisterType, number
from ml4f.dialects.thumb.structure import CallOp, DataOp, FuncOp, LoopOp, ReturnOp, YieldOp
from ml4f.errors import InternalError

WORD = 4
NOT_EQUAL = CONDITIONS.index("ne")
CALLEE_SAVED_CORE = range(4, 12)
FIRST_CALLEE_SAVED_SINGLE = 16
PIPELINE = 4
"""A branch displacement counts from the branch's address plus 4."""
MISALIGNED_RUN = 3
"""So many 32-bit instructions in a row that are not word aligned cost 2 cycles (design of the cycle model)."""
MAX_ROUNDS = 30
ENTRY_SYMBOL = "ml4f_entry"


def assembler_symbol(label: str) -> str:
    """A label's name in the listing: what GNU as takes for a symbol, never for a register or a number."""
    if label.startswith(".L") or label == ENTRY_SYMBOL:
        return label
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"_x{ord(c):x}_" for c in label)
    return f"kernel_{plain}"


@dataclass(slots=True)
class Line:
    """One machine instruction with its place. `target` is a label; `minimum` forces the 32-bit encoding if 4."""

    form: Form
    values: Values
    condition: str = ""
    target: str = ""
    depth: int = 0
    minimum: int = 2
    address: int = 0
    row: Row | None = None
    word: int = 0

    def text(self) -> str:
        """GNU as syntax."""
        assert self.row is not None
        return self.row.text(self.values, self.condition, assembler_symbol(self.target) if self.target else None)


@dataclass(slots=True)
class Label:
    """A branch target or a function's name."""

    name: str
    is_loop: bool = False
    is_function: bool = False
    address: int = 0


@dataclass(slots=True)
class Comment:
    """A line of explanation for the listing."""

    text: str


Item = Line | Label | Comment


@dataclass(slots=True)
class CallSite:
    """A call in the entry function: its attributes (layers, source, …), the kernel, and its code, [start, end)."""

    callee: str
    attributes: dict[str, Attribute]
    start: int = 0
    end: int = 0


@dataclass(slots=True)
class Layout:
    """Everything about the code and data of an object; addresses count from the object's start."""

    header_bytes: int
    items: list[Item]
    code: bytes
    data_start: int
    data: bytes
    data_offsets: dict[str, int]
    data_sizes: dict[str, int]
    calls: list[CallSite]
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of the functions that are not inline, [start, end)."""

    def lines(self) -> Iterator[Line]:
        return (item for item in self.items if isinstance(item, Line))


class _Frame:
    """Where things lie relative to sp (see `Placement`)."""

    def __init__(self, object_offset: int, data_offsets: dict[str, int]):
        self.object_offset = object_offset
        self.data_offsets = data_offsets

    def frame_offset(self, slot: str | int) -> int:
        if slot == "object":
            return self.object_offset
        if slot == "arena":
            return self.object_offset + WORD
        assert isinstance(slot, int)
        return slot

    def data_offset(self, symbol: str) -> int:
        return self.data_offsets[symbol]


def written_registers(func: FuncOp) -> tuple[set[int], set[int]]:
    """The core and single-precision registers that a function may change."""
    cores: set[int] = set()
    singles: set[int] = set()

    def add(block: Block) -> None:
        for op in block.ops:
            for result in op.results:
                register = number(result)
                if register is None:
                    raise InternalError(f"@{func.sym_name.data}: {op.name} has no register; allocate registers first")
                (cores if type(result.type) is CoreRegisterType else singles).add(register)
            if isinstance(op, LoopOp):
                count = number(op.count)
                assert count is not None
                cores.add(count)
                for arg in op.body.block.args:
                    register = number(arg)
                    if register is not None:
                        (cores if type(arg.type) is CoreRegisterType else singles).add(register)
                add(op.body.block)

    add(func.body.block)
    return cores, singles


class _Emitter:
    """Builds the list of items for one assumption about where the data begins."""

    def __init__(self, module: ModuleOp, header_bytes: int):
        ops = list(module.body.block.ops)
        self.functions = {op.sym_name.data: op for op in ops if isinstance(op, FuncOp)}
        self.data = sorted((op for op in ops if isinstance(op, DataOp)), key=lambda op: len(op.contents()))
        """The smallest first: an address near the object's start is a short instruction."""
        for name in self.functions:
            if name.startswith(".L") or name == ENTRY_SYMBOL:
                raise InternalError(f"@{name} has a name that the layout uses for labels")
        entries = [op for op in self.functions.values() if op.entry is not None]
        if len(entries) != 1:
            raise InternalError(f"an object needs one entry function, not {len(entries)}")
        self.entry = entries[0]
        self.header_bytes = header_bytes
        callers: dict[str, int] = {}
        for op in self.entry.body.block.ops:
            if isinstance(op, CallOp):
                name = op.callee.root_reference.data
                callers[name] = callers.get(name, 0) + 1
        self.inline = {name for name, count in callers.items() if count == 1}
        self.written = {name: written_registers(func) for name, func in self.functions.items()}
        self.relative_data: dict[str, int] = {}
        end = 0
        for op in self.data:
            end = -(-end // WORD) * WORD
            self.relative_data[op.sym_name.data] = end
            end += len(op.contents())
        self.items: list[Item] = []
        self.calls: list[CallSite] = []
        self.boundaries: list[tuple[int, int]] = []
        self.loop_number = 0

    def emit(self, data_start: int) -> None:
        self.items, self.calls, self.boundaries = [], [], []
        self.loop_number = 0
        offsets = {symbol: data_start + offset for symbol, offset in self.relative_data.items()}
        self.entry_function(offsets)
        for name, func in self.functions.items():
            if func is not self.entry and name not in self.inline:
                self.function(name, func, offsets)

    # Functions

    def saved(self, kept: Iterable[int]) -> tuple[int, int]:
        """The mask of core registers to save, and how many S registers from s16 up; `kept`: written by the entry."""
        cores, singles = set[int](kept), set[int]()
        for written_cores, written_singles in self.written.values():
            cores |= written_cores
            singles |= written_singles
        calls = any(name not in self.inline for name in self.functions if name != self.entry.sym_name.data)
        mask = sum(1 << register for register in CALLEE_SAVED_CORE if register in cores)
        if calls or LR in cores:
            mask |= 1 << LR
        last = max(singles, default=-1)
        return mask, max(0, last - FIRST_CALLEE_SAVED_SINGLE + 1)

    def entry_function(self, offsets: dict[str, int]) -> None:
        needs = self.call_needs(offsets)
        kept = kept_registers(list(needs.values()))
        mask, singles = self.saved(kept.values() if kept is not None else ())
        mask |= 0 if kept is not None else 0b11
        inlined = [self.functions[name] for name in self.inline]
        spill = max([f.frame.value.data for f in (self.entry, *inlined) if f.frame is not None], default=0)
        self.items.append(Label(ENTRY_SYMBOL, is_function=True))
        if mask:
            self.line(control.PUSH, (mask,))
        if singles:
            self.line(control.VPUSH, ((FIRST_CALLEE_SAVED_SINGLE, singles),))
        if spill:
            self.line(control.SUB_SP, (spill,))
        placement = _Frame(spill + WORD * singles, offsets)
        if kept is not None:
            self.parts(initial_moves(kept))
        pending = len(self.items)
        for op in self.entry.body.block.ops:
            if isinstance(op, CallOp):
                if kept is not None:
                    self.parts(argument_moves(needs[op], kept))
                self.call(op, pending, placement)
                pending = len(self.items)
            elif isinstance(op, ThumbOp):
                if kept is None or not isinstance(op, ArenaAddressOp | DataAddressOp):
                    self.operation(op, 0, placement)
            elif not isinstance(op, ReturnOp):
                raise InternalError(f"{op.name} cannot stand in the entry function")
        self.comment("return")
        if spill:
            self.line(control.ADD_SP, (spill,))
        if singles:
            self.line(control.VPOP, ((FIRST_CALLEE_SAVED_SINGLE, singles),))
        if mask >> LR & 1:
            self.line(control.POP, (mask & ~(1 << LR) | 1 << PC,))
        else:
            if mask:
                self.line(control.POP, (mask,))
            self.line(control.RETURN, ())

    def call_needs(self, offsets: dict[str, int]) -> dict[CallOp, CallNeeds]:
        """What each call of the entry function wants in which register, and what it may change."""
        needs: dict[CallOp, CallNeeds] = {}
        for op in self.entry.body.block.ops:
            if isinstance(op, CallOp):
                arguments = tuple(_argument(value, offsets) for value in op.arguments)
                written = self.written[op.callee.root_reference.data][0]
                needs[op] = CallNeeds(arguments, frozenset(written))
        return needs

    def call(self, op: CallOp, start: int, placement: _Frame) -> None:
        """A call: its comment goes in front of the address computations, which start at item `start`."""
        name = op.callee.root_reference.data
        self.items.insert(start, Comment(describe_call(op)))
        self.calls.append(CallSite(name, dict(op.attributes)))
        if name in self.inline:
            self.body(self.functions[name].body.block, 0, placement, name)
        else:
            self.line(control.CALL, (0,), target=name)
        self.boundaries.append((start, len(self.items)))

    def function(self, name: str, func: FuncOp, offsets: dict[str, int]) -> None:
        uses_lr = LR in self.written[name][0]
        frame = func.frame.value.data if func.frame is not None else 0
        self.items.append(Label(name, is_function=True))
        if uses_lr:
            self.line(control.PUSH, (1 << LR | 1 << 4,))
        if frame:
            self.line(control.SUB_SP, (frame,))
        self.body(func.body.block, 0, _Frame(0, offsets), name)
        if frame:
            self.line(control.ADD_SP, (frame,))
        if uses_lr:
            self.line(control.POP, (1 << PC | 1 << 4,))
        else:
            self.line(control.RETURN, ())

    def body(self, block: Block, depth: int, placement: _Frame, name: str) -> None:
        for op in block.ops:
            if isinstance(op, LoopOp):
                self.loop(op, depth + 1, placement, name)
            elif isinstance(op, ThumbOp):
                self.operation(op, depth, placement)
            elif not isinstance(op, YieldOp | ReturnOp):
                raise InternalError(f"{op.name} cannot stand in @{name}")

    def loop(self, op: LoopOp, depth: int, placement: _Frame, name: str) -> None:
        self.loop_number += 1
        label = f".L{self.loop_number}"
        if op.label is not None:
            self.comment(f"loop over {op.label.data}")
        self.items.append(Label(label, is_loop=True))
        self.body(op.body.block, depth, placement, name)
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        counter = number(op.count if last.counter is None else last.counter)
        assert counter is not None
        self.line(control.SUBS, (counter, counter, 1), depth=depth)
        if op.counter_slot is not None:
            slot = placement.frame_offset(op.counter_slot.value.data)
            self.line(STORE_FRAME, (counter, slot), depth=depth)
        self.line(control.BRANCH_IF, (NOT_EQUAL, 0), target=label, depth=depth)

    def operation(self, op: ThumbOp, depth: int, placement: _Frame) -> None:
        self.parts(op.parts(placement), depth)

    def parts(self, parts: Iterable[Part], depth: int = 0) -> None:
        for part in parts:
            self.items.append(Line(part.form, part.values, part.condition, depth=depth))

    def line(self, form: Form, values: Values, target: str = "", depth: int = 0) -> None:
        self.items.append(Line(form, values, target=target, depth=depth))

    def comment(self, text: str) -> None:
        self.items.append(Comment(text))


def _argument(value: SSAValue, offsets: dict[str, int]) -> Argument:
    register = number(value)
    op = value.owner
    assert register is not None
    if isinstance(op, ArenaAddressOp):
        return Argument(register, "arena", op.offset.value.data)
    assert isinstance(op, DataAddressOp)
    return Argument(register, "object", offsets[op.symbol.root_reference.data])


def describe_call(op: CallOp) -> str:
    """`conv2d "layer" (@kernel) → [shape]`."""
    layers = op.attributes.get("layers")
    names = ", ".join(a.data for a in layers) if layers is not None else ""  # pyright: ignore[reportGeneralTypeIssues]
    kind = op.attributes.get("op")
    text = f"{kind.data if isinstance(kind, StringAttr) else 'kernel'}"
    if names:
        text += f" {names}"
    shape = op.attributes.get("shape")
    if shape is not None:
        text += " -> [" + ", ".join(str(n.value.data) for n in shape) + "]"  # pyright: ignore[reportGeneralTypeIssues]
    where = op.attributes.get("where")
    if isinstance(where, StringAttr):
        text += f"; {where.data}"
    return text


class _Placer:
    """Chooses encodings and addresses in one pass."""

    def __init__(self, items: list[Item], start: int):
        self.items = items
        self.address = start
        self.labels: dict[str, int] = {}
        self.calls: list[Line] = []

    def run(self) -> int:
        """Place everything; returns the end address."""
        for position, item in enumerate(self.items):
            if isinstance(item, Line):
                if item.depth and item.form.timing == "it" and self.is_paired(position):
                    self.insert_nop(position)  # the IT comes next
                    continue
                self.place(item)
                if item.depth and item.row is not None and item.row.size == 2 and not item.address & 2:
                    self.keep_run_aligned(position, item)
            elif isinstance(item, Label):
                if item.is_function or self.wide_follows(position):
                    self.align(position, item.is_function)
                item.address = self.address
                self.labels[item.name] = self.address
        for line in self.calls:
            self.branch(line)
        return self.address

    def place(self, line: Line) -> None:
        line.address = self.address
        if line.target:
            if line.target in self.labels:
                self.branch(line)
            else:
                self.calls.append(line)
                line.row = line.form.rows[-1]
        else:
            line.row, line.word = line.form.select(line.values, line.minimum)
        assert line.row is not None
        self.address += line.row.size

    def branch(self, line: Line) -> None:
        displacement = self.labels[line.target] - line.address - PIPELINE
        values = (*line.values[:-1], displacement)
        line.row, line.word = line.form.select(values, line.minimum)
        line.values = values

    def size(self, line: Line, address: int) -> int:
        """Bytes of a line that is to be placed at an address; a call's, which go forward, count as wide."""
        if not line.target:
            return line.form.select(line.values, line.minimum)[0].size
        if line.target not in self.labels:
            return WORD
        displacement = self.labels[line.target] - address - PIPELINE
        return line.form.select((*line.values[:-1], displacement), line.minimum)[0].size

    def wide_follows(self, position: int) -> bool:
        """Whether the instruction behind a label is a 32-bit one."""
        for item in self.items[position + 1 :]:
            if isinstance(item, Line):
                return self.size(item, self.address) == 4
        return False

    def align(self, position: int, is_function: bool) -> None:
        """Get to a word boundary: widen the nearest narrow instruction in front, or insert a no-op (between
        functions).
        """
        if not self.address & 2:
            return
        if not is_function:
            moved: list[Line] = []
            for item in reversed(self.items[:position]):
                if isinstance(item, Label):
                    break
                if isinstance(item, Line):
                    if item.target:
                        break
                    moved.append(item)
                    if can_widen(item):
                        self.widen(moved)
                        return
        self.insert_nop(position)

    def insert_nop(self, position: int) -> None:
        nop = Line(control.NOP, (), address=self.address)
        nop.row, nop.word = control.NOP.select(())
        self.items.insert(position, nop)
        self.address += 2

    def is_paired(self, position: int) -> bool:
        """Whether a no-op pays in front of an IT: IT is free behind 16 bits, and what follows gets to its words."""
        before = next(item for item in reversed(self.items[:position]) if not isinstance(item, Comment))
        if self.address & 2 or not isinstance(before, Line) or before.row is None or before.row.size == 2:
            return False
        return self.wide_run(position + 1, self.address + 2) >= MISALIGNED_RUN

    def widen(self, lines: list[Line]) -> None:
        """Widen the last of `lines`, which are in reverse order, and move the others behind it by a halfword."""
        wide = lines[-1]
        wide.minimum = 4
        wide.row, wide.word = wide.form.select(wide.values, 4)
        for line in lines[:-1]:
            line.address += 2
        self.address += 2

    def keep_run_aligned(self, position: int, line: Line) -> None:
        """Widen a narrow instruction of a loop body if a run of 32-bit ones behind it would be misaligned."""
        if line.target and line.depth == 1:
            return  # what is behind it is not in a loop
        if can_widen(line) and self.wide_run(position + 1, self.address) >= MISALIGNED_RUN:
            self.widen([line])

    def wide_run(self, position: int, address: int) -> int:
        """How many 32-bit instructions in a row begin at an item that is to be placed at an address; 3 are enough."""
        run = 0
        for item in self.items[position:]:
            if isinstance(item, Label) or run == MISALIGNED_RUN:
                break
            if isinstance(item, Line):
                if self.size(item, address + WORD * run) == 2:
                    break
                run += 1
        return run


def can_widen(line: Line) -> bool:
    """Whether a placed 16-bit instruction has a 32-bit encoding that does the same."""
    if line.row is None or line.row.size == 4:
        return False
    if line.form in (control.SUBS, control.BRANCH_IF):
        return True
    return any(row.size == 4 and row.encode(line.values) is not None for row in line.form.rows)


def lay_out(module: ModuleOp, header_bytes: int) -> Layout:
    """Machine code of a module of allocated functions; the object's header of `header_bytes` comes first.

    The assumed start of the data only grows from round to round, so this ends; what is left is filled with no-ops.
    """
    emitter = _Emitter(module, header_bytes)
    data_start = header_bytes
    for _ in range(MAX_ROUNDS):
        emitter.emit(data_start)
        items = emitter.items
        sites = [(items[first], items[last - 1]) for first, last in emitter.boundaries]
        end = _Placer(items, header_bytes).run()
        if end <= data_start:
            for address in range(end, data_start, 2):
                nop = Line(control.NOP, (), address=address)
                nop.row, nop.word = control.NOP.select(())
                items.append(nop)
            return _finish(emitter, items, sites, data_start)
        data_start = -(-end // WORD) * WORD
    raise InternalError("the code's layout does not settle")


def _finish(emitter: _Emitter, items: list[Item], sites: list[tuple[Item, Item]], end: int) -> Layout:
    code = bytearray()
    for item in items:
        if isinstance(item, Line):
            assert item.row is not None
            if emitter.header_bytes + len(code) != item.address:
                raise InternalError(f"{item.text()} lies at {item.address}, not {emitter.header_bytes + len(code)}")
            code += word_bytes(item.word, item.row.size)
    positions = {id(item): index for index, item in enumerate(items)}
    for site, (first, last) in zip(emitter.calls, sites, strict=True):
        begin, finish = positions[id(first)], positions[id(last)]
        lines = [item for item in items[begin : finish + 1] if isinstance(item, Line)]
        if lines:
            final = lines[-1]
            assert final.row is not None
            site.start, site.end = lines[0].address, final.address + final.row.size
    data = bytearray()
    for op in emitter.data:
        data += bytes(emitter.relative_data[op.sym_name.data] - len(data)) + op.contents()
    functions: dict[str, tuple[int, int]] = {}
    starts = [(item.address, item.name) for item in items if isinstance(item, Label) and item.is_function]
    for (start, name), (stop, _) in zip(starts, [*starts[1:], (end, "")], strict=True):
        functions[name] = (start, stop)
    offsets = {symbol: end + offset for symbol, offset in emitter.relative_data.items()}
    sizes = {op.sym_name.data: len(op.contents()) for op in emitter.data}
    return Layout(emitter.header_bytes, items, bytes(code), end, bytes(data), offsets, sizes, emitter.calls, functions)
