"""A compiled object: layout, header and bytes of a module of allocated thumb functions."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp, StringAttr

from ml4f.backend.thumb.assembly import assembly_text
from ml4f.backend.thumb.image import (
    FLOAT32,
    OBJECT_ALIGNMENT,
    TYPE_NAMES,
    Header,
    TensorInfo,
    header_bytes,
    pack_header,
)
from ml4f.backend.thumb.layout import Layout, lay_out
from ml4f.errors import InternalError


@dataclass(frozen=True)
class ObjectCode:
    """What the back end makes of a module; `arena_bound`: what no memory plan can go below, 0: not known."""

    layout: Layout
    header: Header
    binary: bytes
    arena_bound: int
    test_data: bytes = b""

    def assembly(self, title: str) -> str:
        """The listing (see `assembly.py`)."""
        return assembly_text(self.layout, self.header, title, self.test_data)

    @property
    def code_bytes(self) -> int:
        """Bytes of code, without header and weights."""
        return self.header.weights_offset - self.header.header_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and tables."""
        return len(self.layout.data)


def _number(module: ModuleOp, name: str) -> int:
    attribute = module.attributes.get(name)
    if not isinstance(attribute, IntegerAttr):
        raise InternalError(f"the module lacks the attribute {name}; it comes from convert-loop-to-thumb")
    return attribute.value.data


def _tensors(module: ModuleOp, which: str) -> tuple[TensorInfo, ...]:
    """The inputs or outputs: shapes and offsets; names and types where the module says them."""
    shapes, offsets = module.attributes.get(f"{which}_shapes"), module.attributes.get(f"{which}_offsets")
    if not isinstance(shapes, ArrayAttr) or not isinstance(offsets, ArrayAttr) or len(shapes) != len(offsets):
        raise InternalError(f"the module needs {which}_shapes and as many {which}_offsets")
    names = _strings(module, f"{which}_names", len(shapes), "")
    types = {name: number for number, name in TYPE_NAMES.items()}
    kinds = [types[kind] for kind in _strings(module, f"{which}_types", len(shapes), TYPE_NAMES[FLOAT32])]
    tensors = []
    for shape, offset, name, kind in zip(shapes, offsets, names, kinds, strict=True):
        assert isinstance(shape, ArrayAttr) and isinstance(offset, IntegerAttr)
        tensors.append(TensorInfo(tuple(n.value.data for n in shape), offset.value.data, kind, name))
    return tuple(tensors)


def _strings(module: ModuleOp, name: str, count: int, default: str) -> list[str]:
    attribute = module.attributes.get(name)
    if not isinstance(attribute, ArrayAttr):
        return [default] * count
    return [entry.data for entry in attribute if isinstance(entry, StringAttr)]


def assemble(module: ModuleOp, test_data: tuple[bytes, bytes] | None = None) -> ObjectCode:
    """The object of a module; `test_data`: the bytes of all inputs, and of all expected outputs."""
    tensors = _tensors(module, "input"), _tensors(module, "output")
    layout = lay_out(module, header_bytes(*tensors))
    body = layout.code + layout.data
    test_input = test_output = 0
    extra = b""
    if test_data is not None:
        start = len(body) + layout.header_bytes
        start += -start % 4
        extra = test_data[0] + test_data[1]
        test_input, test_output = start, start + len(test_data[0])
        body += bytes(-len(body) % 4)
    size = layout.header_bytes + len(body) + len(extra)
    total = -(-size // OBJECT_ALIGNMENT) * OBJECT_ALIGNMENT
    header = Header(
        layout.header_bytes,
        total,
        layout.data_start,
        test_input,
        test_output,
        _number(module, "arena_bytes"),
        *tensors,
    )
    binary = pack_header(header) + body + extra + bytes(total - size)
    bound = _number(module, "arena_bound") if "arena_bound" in module.attributes else 0
    return ObjectCode(layout, header, binary, bound, extra)
