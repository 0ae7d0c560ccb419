"""Indices that an exporter computes only to wrap negative ones: `plain_indices`.

    Less(i, 0), Add(i, rows), Where(...), Gather(table, ...)    becomes    Gather(table, i)

Keras's Embedding does so in TensorFlow's exports; ONNX's Gather wraps by itself. Whether a chain of elementwise
operators does nothing else is found by evaluating it on every index that the table has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

# fmt: off
ELEMENTWISE = frozenset({
    "Add", "Cast", "Constant", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min",
    "Mul", "Not", "Sub", "Where",
})
# fmt: on
MAX_CHAIN = 24
"""Nodes; what wraps an index has about ten."""
MAX_ROWS = 1 << 16
"""Of a table whose indices are tried."""


def plain_indices(graph: onnx.GraphProto, opset: int) -> onnx.GraphProto:
    """The graph, or a copy of it in which Gather reads the model's input where its computed indices only wrap it."""
    finder = _Finder(graph, opset)
    found = {i: root for i, node in enumerate(graph.node) if node.op_type == "Gather" and (root := finder.root(node))}
    if not found:
        return graph
    nodes: list[onnx.NodeProto] = []
    for i, node in enumerate(graph.node):
        root = found.get(i)
        if root is None:
            nodes.append(node)
            continue
        if finder.inputs[root].type.tensor_type.elem_type not in (TensorProto.INT32, TensorProto.INT64):
            whole = f"{node.output[0]}/index"
            nodes.append(helper.make_node("Cast", [root], [whole], to=TensorProto.INT64))
            root = whole
        nodes.append(helper.make_node("Gather", [node.input[0], root], list(node.output), name=node.name))
        nodes[-1].attribute.extend(node.attribute)
        nodes[-1].metadata_props.extend(node.metadata_props)
    made = onnx.GraphProto()
    made.CopyFrom(graph)
    del made.node[:]
    made.node.extend(_needed(nodes, [entry.name for entry in graph.output]))
    return made


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Without nodes that compute nothing that is read, be it by inner graphs."""
    read = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if read & set(node.output):
            read |= _reads(node)
            kept.append(node)
    return kept[::-1]


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names that a node and its inner graphs read, those of the inner graphs' own tensors among them."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names |= {entry.name for entry in graph.output}
            names = names.union(*(_reads(inner) for inner in graph.node))
    return names


class _Finder:
    def __init__(self, graph: onnx.GraphProto, opset: int):
        self.opset = opset
        self.makers = {name: node for node in graph.node for name in node.output}
        self.order = {name: i for i, node in enumerate(graph.node) for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {entry.name: entry for entry in graph.input if entry.name not in self.constants}

    def root(self, gather: onnx.NodeProto) -> str:
        """The input that the indices of a Gather are, up to wrapping; "" if they are anything else."""
        table = self.constants.get(gather.input[0])
        axis = next((a.i for a in gather.attribute if a.name == "axis"), 0)
        if table is None or not -len(table.dims) <= axis < len(table.dims):
            return ""
        rows = table.dims[axis]
        chain = self.chain(gather.input[1])
        if chain is None or rows > MAX_ROWS:
            return ""
        nodes, constants, root = chain
        if all(node.op_type in ("Cast", "Identity") for node in nodes):
            return ""  # nothing is computed
        return root if self.only_wraps(nodes, constants, root, gather.input[1], rows) else ""

    def chain(self, name: str) -> tuple[list[onnx.NodeProto], list[TensorProto], str] | None:
        """The elementwise nodes behind a tensor, their constants, which are single numbers, and their one input."""
        nodes: dict[int, onnx.NodeProto] = {}
        constants: dict[str, TensorProto] = {}
        roots: set[str] = set()
        pending = [name]
        while pending:
            current = pending.pop()
            if current in self.inputs:
                roots.add(current)
            elif current in self.constants:
                if any(n != 1 for n in self.constants[current].dims):
                    return None
                constants[current] = self.constants[current]
            elif current in self.makers and self.order[current] not in nodes:
                node = self.makers[current]
                if node.op_type not in ELEMENTWISE or node.domain not in ("", "ai.onnx") or len(nodes) >= MAX_CHAIN:
                    return None
                nodes[self.order[current]] = node
                pending += node.input
            elif current not in self.makers:
                return None
        if len(roots) != 1 or not nodes:
            return None
        return [nodes[i] for i in sorted(nodes)], list(constants.values()), roots.pop()

    def only_wraps(
        self, nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto], root: str, result: str, rows: int
    ) -> bool:
        from onnx.reference import ReferenceEvaluator

        kind = self.inputs[root].type.tensor_type.elem_type
        graph = helper.make_graph(
            list(nodes),
            "indices",
            [helper.make_tensor_value_info(root, kind, [2 * rows])],
            [helper.make_tensor_value_info(result, TensorProto.UNDEFINED, None)],
            list(constants),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        index = np.arange(-rows, rows)
        try:
            values = ReferenceEvaluator(model).run(None, {root: index.astype(helper.tensor_dtype_to_np_dtype(kind))})
        except Exception:  # it raises whatever it likes; the nodes then stay as they are
            return False
        found = np.asarray(next(iter(values)))
        return bool(
            found.shape == index.shape and np.all((found - index) % rows == 0) and np.all(np.abs(found + 0.5) < rows)
        )
