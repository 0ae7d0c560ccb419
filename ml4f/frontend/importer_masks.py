"""Handlers of ONNX comparisons, logic and Where. A boolean tensor is a mask: 0.0 for false, 1.0 for true."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper
from xdsl.ir import BlockArgument

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_arithmetic import combine, emit_activation
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import identity
from ml4f.frontend.importer_types import BOOLEAN, FLOAT_TYPES, INTEGER_TYPES
from ml4f.frontend.importer_values import NotSupported


def _step(importer: Importer, node: Node, name: str, larger: str, smaller: str) -> None:
    """`name`: 1 where larger > smaller."""
    difference = f"{name}/difference"
    combine(importer, node, nn.SubOp, larger, smaller, difference)
    emit_activation(importer, node, "step", (), difference, name)


def _inverted(importer: Importer, node: Node, name: str, output: str) -> None:
    """`output`: 1 - the mask `name`."""
    one = f"{output}/one"
    importer.constants[one] = np.asarray(1, dtype=np.float32)
    combine(importer, node, nn.SubOp, one, name, output)


def compare(swapped: bool, inverted: bool) -> Callable[[Importer, Node], None]:
    """Greater, Less, and their negations LessOrEqual, GreaterOrEqual."""

    def handle(importer: Importer, node: Node) -> None:
        a, b = node.proto.input
        output = node.proto.output[0]
        target = f"{output}/inverse" if inverted else output
        _step(importer, node, target, *((b, a) if swapped else (a, b)))
        if inverted:
            _inverted(importer, node, target, output)

    return handle


def equal(importer: Importer, node: Node) -> None:
    """1 where the difference is 0."""
    output = node.proto.output[0]
    combine(importer, node, nn.SubOp, node.proto.input[0], node.proto.input[1], f"{output}/difference")
    emit_activation(importer, node, "abs", (), f"{output}/difference", f"{output}/distance")
    emit_activation(importer, node, "step", (), f"{output}/distance", f"{output}/inverse")
    _inverted(importer, node, f"{output}/inverse", output)


def logical_not(importer: Importer, node: Node) -> None:
    """1 - x."""
    _inverted(importer, node, node.proto.input[0], node.proto.output[0])


def where(importer: Importer, node: Node) -> None:
    """`a` where the mask is set, plus `b` where it is not; neither is spoilt by an infinity in the other."""
    mask, *branches = node.proto.input
    output = node.proto.output[0]
    condition = importer.const(mask)
    if condition is not None:
        importer.constants[f"{output}/mask"] = np.asarray(condition).astype(np.float32)
        importer.constants[f"{output}/inverse"] = np.asarray(np.logical_not(condition)).astype(np.float32)
        mask = f"{output}/mask"
    else:
        _inverted(importer, node, mask, f"{output}/inverse")
    parts = []
    for index, (branch, selector) in enumerate(zip(branches, (mask, f"{output}/inverse"), strict=True)):
        constant, selected = importer.const(branch), importer.const(selector)
        if any(known is not None and not np.any(known) for known in (constant, selected)):
            continue
        part = f"{output}/part{index}"
        if constant is not None and selected is not None:
            importer.constants[part] = np.where(selected, constant, 0).astype(np.float32)
        elif (
            selected is not None
            and selected.all()
            and np.broadcast_shapes(selected.shape, importer.shape(branch)) == importer.shape(branch)
        ):
            part = branch
        else:
            combine(importer, node, nn.WhereOp, branch, selector, part)
        parts.append(part)
    if len(parts) == 2:
        combine(importer, node, nn.AddOp, parts[0], parts[1], output)
        return
    if not parts:
        raise NotSupported("both branches are zero")
    shapes = [importer.shape(name) for name in node.proto.input]
    if importer.shape(parts[0]) != np.broadcast_shapes(*shapes):
        raise NotSupported(f"the shapes {[list(s) for s in shapes]} of a selection with zeros")
    importer.result(output, importer.tensor(parts[0]))


def cast(importer: Importer, node: Node) -> None:
    """Between float types, and of masks to numbers."""
    source, output, target = node.proto.input[0], node.proto.output[0], node.get("to")
    if (source in importer.integers or source in importer.masks) and target in INTEGER_TYPES:
        identity(importer, node)
        importer.integers.add(output)
    elif source in importer.masks or target in FLOAT_TYPES:
        identity(importer, node)
    elif target == BOOLEAN:
        emit_activation(importer, node, "abs", (), source, f"{output}/size")
        emit_activation(importer, node, "step", (), f"{output}/size", output)
    elif target in INTEGER_TYPES:
        _truncated(importer, node, source, output)
        importer.integers.add(output)
    else:
        raise NotSupported("only casts to float types, to bool, int32 and int64 are supported")


def _truncated(importer: Importer, node: Node, source: str, output: str) -> None:
    """The whole part: of a mask it is the mask itself."""
    tensor = importer.tensor(source)
    argument = tensor.value.owner.operands[0] if isinstance(tensor.value.owner, nn.ReshapeOp) else tensor.value
    if isinstance(argument, BlockArgument):
        importer.whole.add(argument.index)
    zero = f"{output}/zero"
    importer.constants[zero] = np.asarray(0, dtype=np.float32)
    for rounding, op in (("floor", nn.MaxOp), ("ceil", nn.MinOp)):
        emit_activation(importer, node, rounding, (), source, f"{output}/{rounding}")
        combine(importer, node, op, f"{output}/{rounding}", zero, f"{output}/{rounding}/half")
    combine(importer, node, nn.AddOp, f"{output}/floor/half", f"{output}/ceil/half", output)


def is_nan(importer: Importer, node: Node) -> None:
    """1 where x is no number."""
    emit_activation(importer, node, "is_nan")


def is_infinite(importer: Importer, node: Node) -> None:
    """1 where x is larger than every number, with either sign or with one of them."""
    source, output = node.proto.input[0], node.proto.output[0]
    negative, positive = bool(node.get("detect_negative", 1)), bool(node.get("detect_positive", 1))
    size, largest = f"{output}/size", f"{output}/largest"
    importer.constants[largest] = np.asarray(np.finfo(np.float32).max if negative or positive else np.inf)
    one_sign = "linear" if positive else "neg"
    emit_activation(importer, node, "abs" if negative == positive else one_sign, (), source, size)
    _step(importer, node, output, size, largest)


def exclusive_or(importer: Importer, node: Node) -> None:
    """Whether two masks differ."""
    (a, b), output = node.proto.input, node.proto.output[0]
    combine(importer, node, nn.SubOp, a, b, f"{output}/difference")
    emit_activation(importer, node, "abs", (), f"{output}/difference", output)


def ones_and_zeros(importer: Importer, name: str) -> None:
    """A boolean input, of which every number but 0 is true, as a mask: the code's caller may have written any."""
    importer.node = Node(helper.make_node("Cast", [name], [name], name, to=BOOLEAN), 0, importer.opset)
    size = f"{name}/size"
    emit_activation(importer, importer.node, "abs", (), name, size)
    emit_activation(importer, importer.node, "step", (), size, name)
    importer.masks.add(name)


def masking(handle: Callable[[Importer, Node], None]) -> Callable[[Importer, Node], None]:
    """A handler whose result is boolean."""

    def handle_mask(importer: Importer, node: Node) -> None:
        handle(importer, node)
        importer.masks.add(node.proto.output[0])

    return handle_mask


def logical(op: type[nn.BinaryOp]) -> Callable[[Importer, Node], None]:
    """And is a product of masks, Or their maximum."""
    return masking(lambda importer, node: combine(importer, node, op, *node.proto.input))


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "And": logical(nn.MulOp),
    "Cast": cast,
    "Equal": masking(equal),
    "Greater": masking(compare(swapped=False, inverted=False)),
    "GreaterOrEqual": masking(compare(swapped=True, inverted=True)),
    "IsInf": masking(is_infinite),
    "IsNaN": masking(is_nan),
    "Less": masking(compare(swapped=True, inverted=False)),
    "LessOrEqual": masking(compare(swapped=False, inverted=True)),
    "Not": masking(logical_not),
    "Or": logical(nn.MaxOp),
    "Where": where,
    "Xor": masking(exclusive_or),
}
"""ONNX operator → the function that emits it."""
