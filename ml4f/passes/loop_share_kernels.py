"""loop-share-kernels: kernels with the same code become one that is called several times, and equal data one."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, SymbolRefAttr
from xdsl.passes import ModulePass

from ml4f.dialects.loop.structure import CallOp, DataOp, KernelOp, ProgramOp


def fingerprint(kernel: KernelOp) -> tuple[object, ...]:
    """Equal for kernels with the same code: op names, properties and value numbers, not names or locations."""
    numbers: dict[object, int] = {}
    out: list[object] = [kernel.spaces]
    for arg in kernel.body.block.args:
        numbers[arg] = len(numbers)
    for op in kernel.walk():
        if op is kernel:
            continue
        out.append(op.name)
        out += [numbers.get(o, -1) for o in op.operands]
        out += sorted(op.properties.items(), key=lambda item: item[0])
        for region in op.regions:
            for block in region.blocks:
                for arg in block.args:
                    numbers[arg] = len(numbers)
                    out.append(arg.type)
        for result in op.results:
            numbers[result] = len(numbers)
            out.append(result.type)
    return tuple(out)


class LoopShareKernelsPass(ModulePass):
    """Keeps the first of each set of kernels that differ only in name; calls of the others go to it. Likewise data.

        loop.kernel @a(%x : arena) { … }   loop.kernel @b(%x : arena) { … the same … }
    becomes
        loop.kernel @a(%x : arena) { … }
    """

    name = "loop-share-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        kept: dict[tuple[object, ...], str] = {}
        renamed: dict[str, str] = {}
        for kernel in [k for k in op.body.block.ops if isinstance(k, KernelOp)]:
            key = fingerprint(kernel)
            if key in kept:
                renamed[kernel.sym_name.data] = kept[key]
                kernel.detach()
                kernel.erase(safe_erase=False)
            else:
                kept[key] = kernel.sym_name.data
        stored: dict[object, str] = {}
        for data in [d for d in op.body.block.ops if isinstance(d, DataOp)]:
            kept_name = stored.setdefault(data.value, data.sym_name.data)
            if kept_name != data.sym_name.data:
                renamed[data.sym_name.data] = kept_name
                data.detach()
                data.erase(safe_erase=False)
        for program in [p for p in op.body.block.ops if isinstance(p, ProgramOp)]:
            for call in program.body.block.ops:
                if isinstance(call, CallOp):
                    call.properties["callee"] = SymbolRefAttr(_kept(renamed, call.callee))
                    arguments = [SymbolRefAttr(_kept(renamed, argument)) for argument in call.arguments]
                    call.properties["arguments"] = ArrayAttr(arguments)


def _kept(renamed: dict[str, str], symbol: SymbolRefAttr) -> str:
    name = symbol.root_reference.data
    return renamed.get(name, name)
