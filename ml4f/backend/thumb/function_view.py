"""Between `thumb.func` operations and the plain data of `function_data.py`.

`view` makes plain data from a function; `write_back` makes the operations' order, operands, registers and frame those
of the plain data. Operations that exist are kept and moved; copies, frame accesses and repeated constants become new
ones.
"""

from __future__ import annotations

from xdsl.dialects.builtin import DenseArrayBase, i64
from xdsl.ir import Block, Operation, Region, SSAValue

from ml4f.backend.thumb import function_data as plain
from ml4f.backend.thumb.allocation_checker import UNKNOWN
from ml4f.backend.thumb.function_data import CORE, SINGLE, Function, Group, Instruction, Loop, Step
from ml4f.dialects.thumb import build
from ml4f.dialects.thumb.base import ThumbOp
from ml4f.dialects.thumb.memory_ops import FrameLoadOp, FrameStoreOp
from ml4f.dialects.thumb.registers import CoreRegisterType, R, S, int_attr, number, r, s
from ml4f.dialects.thumb.structure import CallOp, FuncOp, LoopOp, ReturnOp, YieldOp, make_yield
from ml4f.errors import InternalError

HALFWORD = 2


class View:
    """A function as plain data, and which SSA value each plain value is."""

    def __init__(self, func: FuncOp):
        self.func = func
        self.data = Function(func.sym_name.data)
        self.data.frame = func.frame.value.data if func.frame is not None else 0
        self.values: list[SSAValue | None] = []
        """By plain value; None for loop counters and values that have no operation yet."""
        self.ids: dict[SSAValue, int] = {}
        self._groups: dict[type[ThumbOp], bool] = {}
        for arg in func.body.block.args:
            self.data.args.append(self.value(arg))
        for arg in self.data.args:
            register = number(self.ssa(arg))
            if register is not None:
                self.data.fixed[arg] = register
        self.data.body = self.steps(func.body.block)
        if func.entry is not None:
            self._fix_entry()

    def _fix_entry(self) -> None:
        """In the entry function every address is pinned to its argument register from the start."""
        for value, ssa in enumerate(self.values):
            if ssa is not None and (register := number(ssa)) is not None:
                self.data.fixed[value] = register

    def ssa(self, value: int) -> SSAValue:
        """The SSA value of a plain value."""
        found = self.values[value]
        if found is None:
            raise InternalError(f"{self.data.name}: value {value} has no operation")
        return found

    def value(self, ssa: SSAValue) -> int:
        """The plain value of an SSA value, new if it has none yet."""
        known = self.ids.get(ssa)
        if known is None:
            known = self.data.new_value(CORE if type(ssa.type) is CoreRegisterType else SINGLE)
            self.values.append(ssa)
            self.ids[ssa] = known
        return known

    def anonymous(self, register_class: str) -> int:
        """A plain value without SSA value."""
        value = self.data.new_value(register_class)
        self.values.append(None)
        return value

    def steps(self, block: Block) -> list[Step]:
        steps: list[Step] = []
        for op in block.ops:
            if isinstance(op, ThumbOp):
                steps.append(self.instruction(op))
            elif isinstance(op, LoopOp):
                steps.append(self.loop(op))
            elif isinstance(op, CallOp):
                steps.append(self.call(op))
            elif not isinstance(op, YieldOp | ReturnOp):
                raise InternalError(f"{self.data.name}: {op.name} is no instruction")
        return steps

    def instruction(self, op: ThumbOp) -> Instruction:
        operands, results = op._operands, op.results
        uses = tuple(self.value(value) for value in operands)
        defs = tuple(self.value(value) for value in results)
        memory = op.memory()
        access = None
        if memory is not None:
            base = None if memory.base is None else self.ids[memory.base]
            access = plain.MemoryAccess(memory.kind == "write", memory.space, base, memory.offset, memory.size)
        groups = op.groups()
        step = Instruction(
            op.name,
            op.TIMING,
            uses,
            defs,
            op.ties(),
            op.soft_ties(),
            tuple(self.group(op, group) for group in groups if len(group) > 1) if groups else (),
            (),
            access,
            op.size_bound() // HALFWORD,
            op.EARLY_CLOBBER,
            False,
            op.REMATERIALISABLE,
        )
        step.origin = op
        if isinstance(op, FrameLoadOp | FrameStoreOp):
            step.slot = op.slot.value.data
        return step

    def group(self, op: ThumbOp, group: tuple[SSAValue, ...]) -> Group:
        """The place of consecutive values among the operands or results."""
        for of_results, values in ((True, op.results), (False, op._operands)):
            for start in range(len(values) - len(group) + 1):
                if tuple(values[start : start + len(group)]) == group:
                    return Group(of_results, start, len(group))
        raise InternalError(f"{op.name}: a group is no run of operands or results")

    def call(self, op: CallOp) -> Instruction:
        uses = tuple(self.value(value) for value in op.operands)
        fixed = tuple((index, index) for index in range(len(uses)))
        return Instruction("thumb.call", "call", uses, fixed_uses=fixed, clobbers_all=True, origin=op)

    def loop(self, op: LoopOp) -> Loop:
        count = self.value(op.count)
        step = Loop(count, self.anonymous(CORE), origin=op)
        step.inits = [self.value(value) for value in op.inits]
        step.args = [self.value(value) for value in op.body.block.args]
        step.body = self.steps(op.body.block)
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        step.yields = [self.value(value) for value in last.values]
        step.results = [self.value(value) for value in op.results]
        if op.counter_slot is not None:
            assert last.counter is not None
            step.counter_slot = op.counter_slot.value.data
            step.reloaded_counter = self.value(last.counter)
        if op.slots is not None:
            known = dict.fromkeys(op.slots.get_values(), UNKNOWN)  # pyright: ignore[reportAttributeAccessIssue]
            step.slot_carried = [plain.SlotCarried(int(slot), *(UNKNOWN,) * 4) for slot in known]
        return step

    def registers(self) -> None:
        """Fill the plain data's registers from the operations' types."""
        data = self.data
        data.registers = [None if ssa is None else number(ssa) for ssa in self.values]
        data.registers += [None] * (len(data.classes) - len(data.registers))
        for loop in plain.loops(data.body):
            data.registers[loop.counter] = None if loop.counter_slot is not None else data.registers[loop.count]


class _Writer:
    """Rebuilds the operations of a function from its plain data."""

    def __init__(self, view: View):
        self.view = view
        self.data = view.data
        self.values: list[SSAValue | None] = list(view.values)
        self.values += [None] * (len(self.data.classes) - len(self.values))

    def run(self) -> None:
        func = self.view.func
        block = func.body.block
        last = block.last_op
        self.block(block, self.data.body, last if last is not None else build.return_())
        func.properties.pop("frame", None)
        if self.data.frame:
            func.properties["frame"] = int_attr(self.data.frame)
        if self.data.registers:
            self.assign()

    def ssa(self, value: int) -> SSAValue:
        found = self.values[value]
        if found is None:
            raise InternalError(f"{self.data.name}: value {value} is used before it is made")
        return found

    def block(self, block: Block, steps: list[Step], last: Operation) -> None:
        """Put the operations of the steps into the block, in order, then its terminator."""
        for op in list(block.ops):
            op.detach()
        for step in steps:
            block.add_op(self.loop(step) if isinstance(step, Loop) else self.instruction(step))
        block.add_op(last)

    def instruction(self, step: Instruction) -> Operation:
        if step.origin is not None and not step.is_clone:
            op = step.origin
            assert isinstance(op, Operation)
            operands = tuple(self.ssa(value) for value in step.uses)
            if operands != op._operands:
                op.operands = operands
            return op
        op = self.made(step)
        for value, result in zip(step.defs, op.results, strict=True):
            self.values[value] = result
        return op

    def made(self, step: Instruction) -> Operation:
        if step.is_clone:
            assert isinstance(step.origin, Operation)
            op = step.origin.clone()
            for result in op.results:
                result._type = R if type(result.type) is CoreRegisterType else S
            return op
        uses = [self.ssa(value) for value in step.uses]
        if step.opcode == plain.COPY:
            return (build.mov if self.data.classes[step.uses[0]] == CORE else build.vmov)(uses[0])
        assert step.slot is not None
        if step.opcode == plain.FRAME_LOAD:
            return build.frame_load(step.slot)
        return build.frame_store(uses[0], step.slot)

    def loop(self, step: Loop) -> Operation:
        op = step.origin
        assert isinstance(op, LoopOp)
        body = op.body.block
        if len(body.args) != len(step.args):
            return self.shortened(step, op)
        operands = (self.ssa(step.count), *(self.ssa(value) for value in step.inits))
        if operands != op._operands:
            op.operands = operands
        self.block(body, step.body, YieldOp.create(properties={}))
        self.finish(body, step)
        self.slots(op, step)
        return op

    def finish(self, body: Block, step: Loop) -> None:
        """Replace the placeholder terminator by one with the yielded values."""
        last = body.last_op
        assert last is not None
        last.detach()
        counter = None if step.reloaded_counter is None else self.ssa(step.reloaded_counter)
        body.add_op(make_yield([self.ssa(value) for value in step.yields], counter))

    def slots(self, op: LoopOp, step: Loop) -> None:
        if step.counter_slot is not None:
            op.properties["counter_slot"] = int_attr(step.counter_slot)
        if step.slot_carried:
            slots = sorted({entry.slot for entry in step.slot_carried})
            op.properties["slots"] = DenseArrayBase.from_list(i64, slots)

    def shortened(self, step: Loop, old: LoopOp) -> Operation:
        """A loop some of whose carried values have moved to the frame."""
        body = Block(arg_types=[R if self.data.classes[value] == CORE else S for value in step.args])
        for value, arg in zip(step.args, body.args, strict=True):
            self.values[value] = arg
        inits = [self.ssa(value) for value in step.inits]
        for moved in list(old.body.block.ops):
            moved.detach()
        self.block(body, step.body, YieldOp.create(properties={}))
        self.finish(body, step)
        label = old.label.data if old.label is not None else None
        op = build.loop(self.ssa(step.count), inits, Region(body), label)
        assert isinstance(op, LoopOp)
        for value, result in zip(step.results, op.results, strict=True):
            self.values[value] = result
        self.slots(op, step)
        return op

    def assign(self) -> None:
        """Give every SSA value the type of its register."""
        for value, (ssa, register) in enumerate(zip(self.values, self.data.registers, strict=True)):
            if ssa is not None and register is not None:
                ssa._type = r(register) if self.data.classes[value] == CORE else s(register)


def write_back(view: View) -> None:
    """Make the function's operations those of the view's plain data."""
    _Writer(view).run()
