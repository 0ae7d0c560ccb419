"""Handlers of Loop and If whose course is known: bodies are imported in place, a Loop's once for every iteration.

A Loop that is a recurrent layer, as TensorFlow's exporter writes those of Keras, becomes one again (`importer_loops`).
In others counters are constants, so that conditions and indices are folded; iterations have equal nests, which become
one kernel called many times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from ml4f.frontend.importer import Importer, Node, NotSupported
from ml4f.frontend.importer_loops import LoopParts, recurrent_layer

MAX_ITERATIONS = 1024
"""More of them would take minutes to compile."""


def loop(importer: Importer, node: Node) -> None:
    """Loop with a number of iterations that does not depend on the model's input."""
    trips, condition, *carried = [*node.proto.input, "", ""][: max(len(node.proto.input), 2)]
    body = node.attributes["body"]
    limit = _number(importer, trips, "the number of iterations") if trips else None
    goes_on = bool(_number(importer, condition, "the condition")) if condition else True
    if limit is not None and goes_on and recurrent_layer(importer, LoopParts(node, body, carried, limit)):
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
        cond, *made = _inline(importer, node, body, scope, given)
        goes_on = bool(_number(importer, cond, "the condition"))
        carried = made[:states]
        for row, name in zip(rows, made[states:], strict=True):
            row.append(name)
        iteration += 1
    names = [*carried, *(_stack(importer, node, row, k) for k, row in enumerate(rows))]
    for output, name in zip(node.proto.output, names, strict=False):
        importer.alias(output, name)


def if_(importer: Importer, node: Node) -> None:
    """If with a condition that does not depend on the model's input."""
    chosen = "then_branch" if _number(importer, node.proto.input[0], "the condition") else "else_branch"
    made = _inline(importer, node, node.attributes[chosen], f"{node.layer}#{chosen}/", {})
    for output, name in zip(node.proto.output, made, strict=True):
        importer.alias(output, name)


def _number(importer: Importer, name: str, what: str) -> int:
    """A scalar that is known; an iteration's condition, if the Loop is to be unrolled."""
    value = importer.const(name)
    if value is None or value.size != 1:
        raise NotSupported(f"{what} depends on the model's input; only what is known when compiling can be followed")
    return int(value.item())


def _inline(importer: Importer, node: Node, body: onnx.GraphProto, scope: str, given: Mapping[str, str]) -> list[str]:
    """Imports a subgraph; `given`: for its inputs the names of what they are. Returns the names of its outputs."""
    names = dict(given)
    for initializer in body.initializer:
        names[initializer.name] = scope + initializer.name
        importer.add_constant(scope + initializer.name, initializer)
    for inner in body.node:
        names.update({output: scope + output for output in inner.output if output})
    known = len(importer.problems)
    for index, inner in enumerate(body.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, names)
        copy.name = node.layer
        importer.read.update(copy.input)
        importer.visit_within(Node(copy, index, node.opset))
        if len(importer.problems) > known:
            inside = importer.problems.pop()
            del importer.problems[known:]
            raise NotSupported(f"inside of it, {inside}")
    made = [names.get(entry.name, entry.name) for entry in body.output]
    importer.read.update(made)
    return made


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


def _stack(importer: Importer, node: Node, rows: list[str], index: int) -> str:
    """The name of the rows one behind the other, each with a new first axis."""
    if not rows:
        raise NotSupported("it has no iteration, so that the shape of its output is unknown")
    stacked = f"{node.layer}#rows{index}"
    parts = []
    for number, row in enumerate(rows):
        shape, part = f"{stacked}/shape{number}", f"{stacked}/row{number}"
        importer.constants[shape] = np.array([1, *importer.shape(row)], dtype=np.int64)
        importer.visit_within(Node(onnx.helper.make_node("Reshape", [row, shape], [part], node.layer), 0, node.opset))
        parts.append(part)
    importer.visit_within(Node(onnx.helper.make_node("Concat", parts, [stacked], node.layer, axis=0), 0, node.opset))
    return stacked


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"If": if_, "Loop": loop}
