"""Handlers of Loop, Scan and If whose course is known: bodies are imported in place, a Loop's once for every iteration.

A Loop that is a recurrent layer, as TensorFlow's exporter writes those of Keras, becomes one again (`importer_loops`).
In others counters are constants, so that conditions and indices are folded; iterations have equal nests, which become
one kernel called many times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_loops import LoopParts, recurrent_layer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_reading import names_read
from ml4f.frontend.importer_values import NotSupported

MAX_ITERATIONS = 1024
"""More of them would take minutes to compile."""


def loop(importer: Importer, node: Node) -> None:
    """Loop with a number of iterations that does not depend on the model's input."""
    trips, condition, *carried = [*node.proto.input, "", ""][: max(len(node.proto.input), 2)]
    body = node.attributes["body"]
    limit = _number(importer, trips, "the number of iterations") if trips else None
    goes_on = bool(_number(importer, condition, "the condition")) if condition else True
    may_be_layer = limit is not None and goes_on and not any(name in importer.sequences for name in carried)
    if may_be_layer and recurrent_layer(importer, LoopParts(node, body, carried, limit or 0)):
        return
    states = len(carried)
    rows: list[list[str]] = [[] for _ in body.output[1 + states :]]
    iteration = 0
    while goes_on and (limit is None or iteration < limit):
        if iteration == MAX_ITERATIONS:
            raise NotSupported(f"more than {MAX_ITERATIONS} iterations")
        scope = f"{node.layer}#{iteration}/"
        counter, flag = scope + "iteration", scope + "condition"
        importer.constants[counter] = np.array(iteration, dtype=np.int64)
        importer.constants[flag] = np.array(True)
        given = dict(zip([entry.name for entry in body.input], [counter, flag, *carried], strict=True))
        cond, *made = inline(importer, node, body, scope, given)
        goes_on = bool(_number(importer, cond, "the condition"))
        carried = made[:states]
        for row, name in zip(rows, made[states:], strict=True):
            row.append(name)
        iteration += 1
    names = [*carried, *(_stack(importer, node, row, k) for k, row in enumerate(rows))]
    for output, name in zip(node.proto.output, names, strict=False):
        importer.alias(output, name)


def scan(importer: Importer, node: Node) -> None:
    """Scan: a Loop whose iterations read slices of some inputs, and may go backwards."""
    if importer.opset < 9:
        raise NotSupported("Scan with a batch; export the model with opset 9 or newer")
    body = node.attributes["body"]
    count = int(node.get("num_scan_inputs"))
    names = list(node.proto.input)
    carried, sequences = names[: len(names) - count], names[len(names) - count :]
    rows_made = len(body.output) - len(carried)
    axes, backwards = _scan_options(node, "input", count)
    shapes = [importer.shape(name) for name in sequences]
    trips = shapes[0][axes[0] % len(shapes[0])]
    if trips > MAX_ITERATIONS:
        raise NotSupported(f"{trips} iterations; at most {MAX_ITERATIONS} are supported")
    rows: list[list[str]] = [[] for _ in range(rows_made)]
    for iteration in range(trips):
        scope = f"{node.layer}#{iteration}/"
        parts = []
        for number, name in enumerate(sequences):
            index, part = f"{scope}index{number}", f"{scope}part{number}"
            importer.constants[index] = np.array(trips - 1 - iteration if backwards[number] else iteration)
            proto = onnx.helper.make_node("Gather", [name, index], [part], node.layer, axis=axes[number])
            importer.visit_within(Node(proto, 0, node.opset))
            parts.append(part)
        given = dict(zip([entry.name for entry in body.input], [*carried, *parts], strict=True))
        made = inline(importer, node, body, scope, given)
        carried = made[: len(carried)]
        for row, name in zip(rows, made[len(carried) :], strict=True):
            row.append(name)
    axes, backwards = _scan_options(node, "output", rows_made)
    results = list(carried)
    for number, row in enumerate(rows):
        results.append(_stack(importer, node, row[::-1] if backwards[number] else row, number, axes[number]))
    for output, name in zip(node.proto.output, results, strict=False):
        importer.alias(output, name)


def _scan_options(node: Node, side: str, count: int) -> tuple[list[int], list[bool]]:
    """The axis of each scanned input or output, and whether it goes backwards."""
    axes = list(node.ints(f"scan_{side}_axes", (0,) * count))
    return axes, [bool(n) for n in node.ints(f"scan_{side}_directions", (0,) * count)]


def if_(importer: Importer, node: Node) -> None:
    """If: the branch that is known when compiling, or both, of whose results the condition chooses."""
    if importer.const(node.proto.input[0]) is None:
        _choose(importer, node)
        return
    chosen = "then_branch" if _number(importer, node.proto.input[0], "the condition") else "else_branch"
    made = inline(importer, node, node.attributes[chosen], f"{node.layer}#{chosen}/", {})
    for output, name in zip(node.proto.output, made, strict=True):
        importer.alias(output, name)


def _choose(importer: Importer, node: Node) -> None:
    """Both branches, whose results must have the same shapes; computing has no side effects."""
    mask = node.proto.input[0]
    results = [
        inline(importer, node, node.attributes[branch], f"{node.layer}#{branch}/", {})
        for branch in ("then_branch", "else_branch")
    ]
    for output, then, otherwise in zip(node.proto.output, *results, strict=True):
        if any(name in importer.sequences for name in (then, otherwise)):
            raise NotSupported("a condition that depends on the model's input chooses a sequence")
        shapes = [importer.shape(name) for name in (then, otherwise)]
        if shapes[0] != shapes[1]:
            extents = f"{list(shapes[0])} or {list(shapes[1])}"
            raise NotSupported(f"its condition depends on the model's input, and the result is {extents} by it")
        proto = onnx.helper.make_node("Where", [mask, then, otherwise], [output], node.layer)
        importer.visit_within(Node(proto, 0, node.opset))


def _number(importer: Importer, name: str, what: str) -> int:
    """A scalar that is known; an iteration's condition, if the Loop is to be unrolled."""
    value = importer.const(name)
    if value is None or value.size != 1:
        raise NotSupported(f"{what} depends on the model's input; only what is known when compiling can be followed")
    return int(value.item())


def inline(importer: Importer, node: Node, body: onnx.GraphProto, scope: str, given: Mapping[str, str]) -> list[str]:
    """Imports a subgraph; `given`: for its inputs the names of what they are. Returns the names of its outputs."""
    names = dict(given)
    for initializer in body.initializer:
        names[initializer.name] = scope + initializer.name
        importer.add_constant(scope + initializer.name, initializer)
    for inner in body.node:
        names.update({output: scope + output for output in inner.output if output})
    scoped = onnx.GraphProto(node=body.node, output=body.output)
    for inner in scoped.node:
        _rename(inner, names)
        inner.name = node.layer
    for entry in scoped.output:
        entry.name = names.get(entry.name, entry.name)
    importer.read |= names_read(scoped)  # before any node is visited: what nobody reads is not computed
    known = len(importer.problems)
    for index, inner in enumerate(scoped.node):
        importer.visit_within(Node(inner, index, node.opset))
        if len(importer.problems) > known:
            inside = importer.problems.pop()
            del importer.problems[known:]
            raise NotSupported(f"inside of it, {inside}")
    return [entry.name for entry in scoped.output]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """In place, in subgraphs too, where names of the scopes around must not be defined anew."""
    for field in (node.input, node.output):
        field[:] = [names.get(name, name) for name in field]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, names)
            for entry in attribute.g.output:
                entry.name = names.get(entry.name, entry.name)


def _stack(importer: Importer, node: Node, rows: list[str], index: int, axis: int = 0) -> str:
    """The name of the rows one behind the other, each with a new axis."""
    if not rows:
        raise NotSupported("it has no iteration, so that the shape of its output is unknown")
    stacked = f"{node.layer}#rows{index}"
    parts = []
    for number, row in enumerate(rows):
        shape, part = f"{stacked}/shape{number}", f"{stacked}/row{number}"
        extents = list(importer.shape(row))
        extents.insert(axis % (len(extents) + 1), 1)
        importer.constants[shape] = np.array(extents, dtype=np.int64)
        importer.visit_within(Node(onnx.helper.make_node("Reshape", [row, shape], [part], node.layer), 0, node.opset))
        parts.append(part)
    importer.visit_within(Node(onnx.helper.make_node("Concat", parts, [stacked], node.layer, axis=axis), 0, node.opset))
    return stacked


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"If": if_, "Loop": loop, "Scan": scan}
