"""loop-lower-addresses: indexed loops become repeats with loop-carried pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, UnitAttr
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from ml4f.backend.loop.addressing import MOST_CORE_VALUES, Item, PointerPlan, plan_pointers
from ml4f.dialects.loop.attributes import PointerType
from ml4f.dialects.loop.structure import BufferOp, CallOp, ForOp, KernelOp, ProgramOp, YieldOp, make_repeat
from ml4f.dialects.loop.values import (
    INDEX,
    AccessOp,
    AdvanceOp,
    LoadByteOp,
    LoadMultipleOp,
    LoadOp,
    ScaleOp,
    StoreMultipleOp,
    StoreOp,
    f32,
)

VLDR_REACH = (-1020, 1020)
"""Offsets of VLDR and VSTR (Armv7-M ARM, A7.7.236)."""
LDR_REACH = (-252, 4092)
"""Word-aligned offsets of LDR and STR (A7.7.43), and LDRB."""

Signature = tuple[tuple[int, int], ...]
"""((loop depth, stride), …) of an access, strides that are not zero only."""
Group = tuple[int, Signature]
"""(number of the pointer argument, signature)."""


@dataclass(slots=True)
class _Access:
    op: AccessOp
    buffer: int
    signature: Signature
    offset: int


@dataclass(slots=True)
class _Plan:
    """The groups of one block, each with its items; `entries` are the nested loops' groups derived from each group."""

    groups: dict[Group, list[Item]] = field(default_factory=dict)
    numbers: dict[tuple[Operation, Group], int] = field(default_factory=dict)
    plans: dict[Group, PointerPlan] = field(default_factory=dict)
    inner: dict[Operation, _Plan] = field(default_factory=dict)
    waiting: list[LoadMultipleOp] = field(default_factory=list)
    """Multiple loads whose pointers move on with the next multiple store."""


def _reach(op: AccessOp) -> tuple[int, int]:
    if isinstance(op, LoadMultipleOp | StoreMultipleOp):
        return 0, 0
    if isinstance(op, LoadByteOp):
        return LDR_REACH
    value = op.result if isinstance(op, LoadOp) else op.value if isinstance(op, StoreOp) else None
    return VLDR_REACH if value is None or value.type == f32 else LDR_REACH


def _restrict(signature: Signature, depth: int) -> Signature:
    return tuple(t for t in signature if t[0] < depth)


class _Lowering:
    """`same`: arguments with the address of an earlier one, whose pointers serve them where both are walked alike."""

    def __init__(self, kernel: KernelOp, same: Mapping[int, int]):
        self.kernel = kernel
        self.same = same
        self.arguments = {arg: i for i, arg in enumerate(kernel.body.block.args)}
        self.depth_of: dict[SSAValue, int] = {}
        self.nested: dict[Operation, list[_Access]] = {}
        self.values: dict[SSAValue, SSAValue] = {}

    def run(self) -> None:
        old = self.kernel.body.block
        accesses = self._collect(old, 0)
        self._merge(accesses)
        plan = self._plan(old, 0)
        new = Block(arg_types=[a.type for a in old.args])
        for before, after in zip(old.args, new.args, strict=True):
            after.name_hint = before.name_hint
        pointers: dict[Group, list[tuple[SSAValue, int]]] = {}
        for group, pointer_plan in plan.plans.items():
            pointer_plan.settle(0, None)
            pointers[group] = [(new.args[group[0]], 0)] * pointer_plan.pointers
        self._lower(old, new, 0, plan, pointers)
        region = self.kernel.body
        region.detach_block(old)
        old.erase(safe_erase=False)
        region.add_block(new)

    # -- analysis

    def _collect(self, block: Block, depth: int) -> list[_Access]:
        """All accesses in a block and its loops, in program order."""
        out: list[_Access] = []
        for op in block.ops:
            if isinstance(op, ForOp):
                self.depth_of[op.induction_variable] = depth
                self.nested[op] = self._collect(op.body.block, depth + 1)
                out += self.nested[op]
            elif isinstance(op, AccessOp):
                access = self._access(op)
                self.nested[op] = [access]
                out.append(access)
        return out

    def _access(self, op: AccessOp) -> _Access:
        strides = op.strides.get_values() if op.strides is not None else ()  # pyright: ignore[reportAttributeAccessIssue]
        terms = sorted((self.depth_of[i], int(s)) for i, s in zip(op.indices, strides, strict=True) if s)
        return _Access(op, self.arguments[op.pointer], tuple(terms), op.offset.value.data)  # pyright: ignore[reportArgumentType]

    def _merge(self, accesses: Sequence[_Access]) -> None:
        """Gives accesses of an argument in place of another one the pointers of that, as long as strides are equal.

        Multiple loads and stores without gaps move two pointers for nothing, and none waits for the other.
        """
        signatures: dict[int, set[Signature]] = {}
        stored: dict[tuple[int, Signature, Block | None], int] = {}
        for access in accesses:
            signatures.setdefault(access.buffer, set()).add(access.signature)
            if isinstance(access.op, StoreMultipleOp):
                place = access.buffer, access.signature, access.op.parent
                stored[place] = stored.get(place, 0) + 4 * len(access.op.values)
        gaps = {b for (b, signature, _), size in stored.items() if signature and size != signature[-1][1]}
        multiple = {buffer for buffer, _, _ in stored}
        merged = {a: b for a, b in self.same.items() if a in signatures and signatures[a] == signatures.get(b)}
        for access in accesses:
            if access.buffer in gaps or access.buffer not in multiple:
                access.buffer = merged.get(access.buffer, access.buffer)

    def _loop_groups(self, loop: ForOp, depth: int) -> list[Group]:
        """The groups of a loop at `depth`, in the order of their first use."""
        return list(dict.fromkeys((a.buffer, _restrict(a.signature, depth + 1)) for a in self.nested[loop]))

    def _plan(self, block: Block, depth: int) -> _Plan:
        plan = _Plan()
        stored = self._stored_multiple(block)
        through: set[Group] = set()
        """Groups that loops in the block use."""

        def add(op: Operation, key: Group, group: Group, item: Item) -> None:
            items = plan.groups.setdefault(group, [])
            plan.numbers[op, key] = len(items)
            items.append(item)

        for op in block.ops:
            if isinstance(op, ForOp):
                inner = plan.inner[op] = self._plan(op.body.block, depth + 1)
                continuing: set[Group] = set()
                inner_groups = self._loop_groups(op, depth)
                ordered = sorted(inner_groups, key=lambda g: self._outer(g, depth) in continuing)
                for group in reversed(ordered):
                    outer = self._outer(group, depth)
                    first = inner.plans[group].first(0)
                    through.add(outer)
                    is_first = next(g for g in inner_groups if self._outer(g, depth) == outer) == group
                    if is_first:
                        add(op, group, outer, Item(first.low, first.high, self._travel(op, group, depth)))
                    else:
                        add(op, group, outer, Item(-(1 << 30), 1 << 30))
            elif isinstance(op, AccessOp):
                access = self.nested[op][0]
                low, high = _reach(op)
                group = (access.buffer, access.signature)
                after = 4 * len(op.values) if isinstance(op, LoadMultipleOp | StoreMultipleOp) else 0
                if isinstance(op, LoadMultipleOp) and access.offset in stored.get(group, ()):
                    after = 0
                add(op, group, group, Item(access.offset - high, access.offset - low, after))
        for group, items in plan.groups.items():
            plan.plans[group] = plan_pointers(items)
        taken = sum(p.pointers for p in plan.plans.values()) + depth + len(self.arguments) - len(plan.plans)
        for group, items in plan.groups.items() if depth else ():
            before = plan.plans[group].pointers
            most = before + max(MOST_CORE_VALUES - taken, 0)
            in_place = group in stored and group not in through and any(not item.after for item in items)
            plan.plans[group] = plan_pointers(items, self._stride(group, depth - 1), most, in_place)
            taken += plan.plans[group].pointers - before
        return plan

    def _stored_multiple(self, block: Block) -> dict[Group, set[int]]:
        """Where multiple stores of a block begin, by group."""
        stored: dict[Group, set[int]] = {}
        for op in block.ops:
            if isinstance(op, StoreMultipleOp):
                access = self.nested[op][0]
                stored.setdefault((access.buffer, access.signature), set()).add(access.offset)
        return stored

    @staticmethod
    def _outer(group: Group, depth: int) -> Group:
        return group[0], _restrict(group[1], depth)

    @staticmethod
    def _stride(group: Group, depth: int) -> int:
        return dict(group[1]).get(depth, 0)

    def _travel(self, loop: ForOp, group: Group, depth: int) -> int:
        """How far a loop carries a pointer; 0 where the pointer from before the loop is used again behind it."""
        if loop.count is None or loop.lower is not None:
            return 0
        return loop.count.value.data * self._stride(group, depth)

    # -- rewriting

    def _lower(
        self,
        old: Block,
        new: Block,
        depth: int,
        plan: _Plan,
        pointers: dict[Group, list[tuple[SSAValue, int]]],
    ) -> None:
        """Moves a block's operations to `new`; `pointers` (value, position) is kept up to date."""
        for op in list(old.ops):
            if isinstance(op, YieldOp):
                continue
            if isinstance(op, ForOp):
                self._lower_loop(op, new, depth, plan, pointers)
            elif isinstance(op, AccessOp):
                self._lower_access(op, new, plan, pointers)
            else:
                op.detach()
                op.operands = [self.values.get(o, o) for o in op.operands]
                new.add_op(op)

    def _pointer(
        self,
        op: Operation,
        key: Group,
        group: Group,
        new: Block,
        plan: _Plan,
        pointers: dict[Group, list[tuple[SSAValue, int]]],
    ) -> tuple[int, SSAValue, int]:
        """The pointer that serves an item, moved there if a segment begins."""
        number = plan.numbers[op, key]
        pointer_plan = plan.plans[group]
        index, drift = pointer_plan.served[number]
        segment = pointer_plan.segments[index]
        value, position = pointers[group][segment.pointer]
        wanted = segment.start + drift
        if position != wanted:
            value = _advance(new, value, wanted - position)
            pointers[group][segment.pointer] = (value, wanted)
        return segment.pointer, value, wanted

    def _lower_access(
        self, op: AccessOp, new: Block, plan: _Plan, pointers: dict[Group, list[tuple[SSAValue, int]]]
    ) -> None:
        access = self.nested[op][0]
        group = (access.buffer, access.signature)
        if isinstance(op, StoreMultipleOp):
            for load in plan.waiting:
                loaded = self.nested[load][0]
                self._move_on(load, (loaded.buffer, loaded.signature), new, plan, pointers)
            plan.waiting.clear()
        pointer, value, position = self._pointer(op, group, group, new, plan, pointers)
        properties = {k: p for k, p in op.properties.items() if k != "strides"}
        properties["offset"] = IntegerAttr(access.offset - position, 64)
        argument = self.arguments[op.pointer]  # pyright: ignore[reportArgumentType]
        if argument != access.buffer:
            properties["argument"] = IntegerAttr(argument, 64)
        advances = plan.groups[group][plan.numbers[op, group]].after > 0
        if isinstance(op, LoadMultipleOp) and advances:
            properties["advance"] = UnitAttr()
            lowered = LoadMultipleOp.create(
                operands=[value], properties=properties, result_types=[*(r.type for r in op.results), PointerType()]
            )
            pointers[group][pointer] = (lowered.results[-1], position + 4 * len(op.results))
        elif isinstance(op, StoreMultipleOp):
            stored = [self.values.get(v, v) for v in op.values]
            properties.pop("operandSegmentSizes")
            lowered = StoreMultipleOp.build(
                operands=[stored, value, []], properties=properties, result_types=[PointerType()]
            )
            pointers[group][pointer] = (lowered.results[0], position + 4 * len(stored))
        else:
            operands = [value] if not isinstance(op, StoreOp) else [self.values.get(op.value, op.value), value]
            lowered = type(op).create(
                operands=operands, properties=properties, result_types=[r.type for r in op.results]
            )
        new.add_op(lowered)
        for before, after in zip(op.results, lowered.results, strict=False):
            self.values[before] = after
        if isinstance(op, LoadMultipleOp) and advances:
            plan.waiting.append(op)
        elif isinstance(op, StoreMultipleOp):
            self._move_on(op, group, new, plan, pointers)

    @staticmethod
    def _move_on(
        op: AccessOp, group: Group, new: Block, plan: _Plan, pointers: dict[Group, list[tuple[SSAValue, int]]]
    ) -> None:
        """Moves a pointer to its next place before it is needed: right in front of the access it would be waited for.

        A multiple store waits for its last value, and a load directly behind it waits too: there a move costs nothing.
        """
        pointer_plan = plan.plans[group]
        index, _ = pointer_plan.served[plan.numbers[op, group]]
        number = pointer_plan.segments[index].pointer
        last = max(i for i, (segment, _) in enumerate(pointer_plan.served) if segment == index)
        following = next((s for s in pointer_plan.segments[index + 1 :] if s.pointer == number), None)
        if last != plan.numbers[op, group] or (following is None and not pointer_plan.round):
            return
        wanted = pointer_plan.first(number).start + pointer_plan.round if following is None else following.start
        value, position = pointers[group][number]
        pointers[group][number] = (_advance(new, value, wanted - position), wanted)

    def _lower_loop(
        self,
        loop: ForOp,
        new: Block,
        depth: int,
        plan: _Plan,
        pointers: dict[Group, list[tuple[SSAValue, int]]],
    ) -> None:
        inner_plan = plan.inner[loop]
        groups = self._loop_groups(loop, depth)
        order = sorted(groups, key=lambda g: plan.numbers[loop, g])
        entries: dict[Group, list[tuple[SSAValue, int]]] = {}
        source: dict[Group, int] = {}
        for group in order:
            outer = self._outer(group, depth)
            pointer, value, position = self._pointer(loop, group, outer, new, plan, pointers)
            source[group] = pointer
            pointer_plan = inner_plan.plans[group]
            pointer_plan.settle(position, self._stride(group, depth))
            lower = self._lower_bound(loop, group, depth, new)
            entry: list[tuple[SSAValue, int]] = []
            for p in range(pointer_plan.pointers):
                start = pointer_plan.first(p).start
                entry.append((_advance(new, value, start - position, lower), start))
            entries[group] = entry
        pointer_inits = [v for g in groups for v, _ in entries[g]]
        inits = [self.values.get(v, v) for v in loop.inits]
        body = Block(arg_types=[PointerType()] * len(pointer_inits) + [v.type for v in inits])
        arguments = iter(body.args)
        inside = {g: [(next(arguments), position) for _, position in entries[g]] for g in groups}
        for before, after in zip(loop.body.block.args[1:], arguments, strict=True):
            self.values[before] = after
        self._lower(loop.body.block, body, depth + 1, inner_plan, inside)  # pyright: ignore[reportArgumentType]
        yields: list[SSAValue] = []
        for group in groups:
            stride = self._stride(group, depth)
            for (value, position), (_, start) in zip(inside[group], entries[group], strict=True):
                yields.append(_advance(body, value, start + stride - position))
        last = loop.body.block.last_op
        carried = [self.values.get(v, v) for v in last.operands] if isinstance(last, YieldOp) else []
        kept = [i for i, v in enumerate(yields) if v is not body.args[i]]
        for i in range(len(pointer_inits)):
            if i not in kept:
                body.args[i].replace_all_uses_with(pointer_inits[i])
        for i in reversed([i for i in range(len(pointer_inits)) if i not in kept]):
            body.erase_arg(body.args[i])
        body.add_op(YieldOp.create(operands=[*(yields[i] for i in kept), *carried]))
        trip_count = loop.trip_count
        repeat = make_repeat(
            loop.count.value.data if loop.count is not None else None,
            None if trip_count is None else self.values.get(trip_count, trip_count),
            [*(pointer_inits[i] for i in kept), *inits],
            Region(body),
            loop.label.data if loop.label is not None else None,
        )
        new.add_op(repeat)
        for before, after in zip(loop.results, repeat.results[len(kept) :], strict=True):
            self.values[before] = after
        self._leave(loop, groups, depth, entries, kept, repeat.results, source, pointers)

    def _lower_bound(self, loop: ForOp, group: Group, depth: int, new: Block) -> SSAValue | None:
        """Bytes from the induction variable's origin to its lower bound."""
        stride = self._stride(group, depth)
        if loop.lower is None or not stride:
            return None
        scale = ScaleOp.create(
            operands=[self.values.get(loop.lower, loop.lower)],
            properties={"factor": IntegerAttr(stride, 64)},
            result_types=[INDEX],
        )
        new.add_op(scale)
        return scale.result

    def _leave(
        self,
        loop: ForOp,
        groups: Sequence[Group],
        depth: int,
        entries: dict[Group, list[tuple[SSAValue, int]]],
        kept: Sequence[int],
        results: Sequence[SSAValue],
        source: dict[Group, int],
        pointers: dict[Group, list[tuple[SSAValue, int]]],
    ) -> None:
        """Behind the loop: the outer pointer goes on where the loop left it, if that is known."""
        if loop.count is None or loop.lower is not None:
            return
        seen: set[Group] = set()
        index = 0
        for group in groups:
            outer = self._outer(group, depth)
            here = index
            index += len(entries[group])
            if outer in seen:
                continue
            seen.add(outer)
            value, start = entries[group][0]
            if here in kept:
                value = results[list(kept).index(here)]
                start += loop.count.value.data * self._stride(group, depth)
            pointers[outer][source[group]] = (value, start)


def _advance(block: Block, pointer: SSAValue, offset: int, amount: SSAValue | None = None) -> SSAValue:
    if not offset and amount is None:
        return pointer
    op = AdvanceOp.create(
        operands=[pointer] if amount is None else [pointer, amount],
        properties={"offset": IntegerAttr(offset, 64)},
        result_types=[PointerType()],
    )
    block.add_op(op)
    return op.result


def same_addresses(module: ModuleOp) -> dict[str, dict[int, int]]:
    """By kernel: arguments that have the address of an earlier one in every call, as {argument: the earlier one}."""
    ops = list(module.body.block.ops)
    places = {
        op.sym_name.data: op.offset.value.data for op in ops if isinstance(op, BufferOp) and op.offset is not None
    }
    calls: dict[str, list[list[int | None]]] = {}
    for program in (op for op in ops if isinstance(op, ProgramOp)):
        for call in program.body.block.ops:
            if isinstance(call, CallOp):
                addresses = [places.get(a.root_reference.data) for a in call.arguments]
                calls.setdefault(call.callee.root_reference.data, []).append(addresses)
    same: dict[str, dict[int, int]] = {}
    for name, rows in calls.items():
        columns = list(zip(*rows, strict=True))
        first = {column: columns.index(column) for column in columns if None not in column}
        same[name] = {i: first[column] for i, column in enumerate(columns) if first.get(column, i) < i}
    return same


class LoopLowerAddressesPass(ModulePass):
    """Replaces induction variables by loop-carried pointers with constant offsets.

    One pointer serves all accesses of a buffer with the same strides, as far as its window reaches; see
    `ml4f.backend.loop.addressing`. A kernel that works in place has one for its input and its output together.

        loop.for %i times 4 { %v = loop.load %x[%i] {strides = array<i64: 8>, offset = 4 : i64, …} }
    becomes
        loop.repeat times 4 carry (%p = %x) { %v = loop.load %p[] {offset = 4, …}; %q = loop.advance %p {offset = 8} … }
    """

    name = "loop-lower-addresses"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        same = same_addresses(op)
        for kernel in op.body.block.ops:
            if isinstance(kernel, KernelOp):
                _Lowering(kernel, same.get(kernel.sym_name.data, {})).run()
