"""A compiled object: layout, header and bytes of a module of allocated thumb functions."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp

from ml4f.backend.thumb.assembly import assembly_text
from ml4f.backend.thumb.image import OBJECT_ALIGNMENT, Header, header_bytes, pack_header
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


def _shape(module: ModuleOp, name: str) -> tuple[int, ...]:
    shapes = module.attributes.get(name)
    if not isinstance(shapes, ArrayAttr) or len(shapes) != 1:
        raise InternalError(f"the module needs one shape in {name}")
    shape = shapes.data[0]
    assert isinstance(shape, ArrayAttr)
    return tuple(n.value.data for n in shape)


def assemble(module: ModuleOp, test_data: tuple[bytes, bytes] | None = None) -> ObjectCode:
    """The object of a module; `test_data`: input and expected output, as float32 bytes."""
    shapes = _shape(module, "input_shapes"), _shape(module, "output_shapes")
    layout = lay_out(module, header_bytes(*shapes))
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
        _number(module, "input_offset"),
        _number(module, "output_offset"),
        *shapes,
    )
    binary = pack_header(header) + body + extra + bytes(total - size)
    bound = _number(module, "arena_bound") if "arena_bound" in module.attributes else 0
    return ObjectCode(layout, header, binary, bound, extra)
