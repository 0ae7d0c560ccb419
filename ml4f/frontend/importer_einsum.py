"""The handler of Einsum: of two operands a product of matrices, of one a transposition and a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_contractions import product
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import reduced, squeezed
from ml4f.frontend.importer_values import NotSupported, Tensor


def einsum(importer: Importer, node: Node) -> None:
    """Sums of products over the axes that the equation does not keep; each letter once in an operand."""
    equation = str(node.get("equation")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if not arrow:
        result = "".join(sorted(a for a in set(terms) - {","} if terms.count(a) == 1))
    if "." in equation or len(letters) > 2 or any(len(set(term)) != len(term) for term in letters):
        raise NotSupported(f"the equation {equation}: one or two operands with different letters are supported")
    operands = [importer.tensor(name) for name in node.proto.input]
    if len(operands) != len(letters) or any(len(x.shape) != len(t) for x, t in zip(operands, letters, strict=True)):
        raise NotSupported(f"the equation {equation} for {[list(x.shape) for x in operands]}")
    for index, term in enumerate(letters):
        others = result + "".join(other for i, other in enumerate(letters) if i != index)
        operands[index], letters[index] = _summed(importer, operands[index], term, others)
    if len(operands) == 1:
        made, order = operands[0], letters[0]
    else:
        made, order = _product(importer, operands, letters, result)
    if sorted(order) != sorted(result):
        raise NotSupported(f"the equation {equation}")
    importer.result(node.proto.output[0], _permuted(made, [order.index(letter) for letter in result]))


def _summed(importer: Importer, x: Tensor, term: str, kept: str) -> tuple[Tensor, str]:
    """Without the axes that nothing else has."""
    axes = [axis for axis, letter in enumerate(term) if letter not in kept]
    if not axes:
        return x, term
    return squeezed(reduced(importer, x, axes, "sum"), axes), "".join(a for a in term if a in kept)


def _permuted(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Axis i of the result is axis axes[i]: free."""
    position = {axis: i for i, axis in enumerate(axes)}
    return Tensor(x.value, tuple(x.shape[axis] for axis in axes), tuple(position[axis] for axis in x.order))


def _product(importer: Importer, operands: Sequence[Tensor], letters: Sequence[str], result: str) -> tuple[Tensor, str]:
    left, right = letters
    batch = [a for a in left if a in right and a in result]
    summed = [a for a in left if a in right and a not in result]
    rows, columns = ([a for a in term if a not in other] for term, other in ((left, right), (right, left)))
    extents = {a: n for x, term in zip(operands, letters, strict=True) for a, n in zip(term, x.shape, strict=True)}
    matrices = []
    for x, term, parts in zip(operands, letters, ((batch, rows, summed), (batch, summed, columns)), strict=True):
        if any(x.shape[term.index(a)] != extents[a] for a in term):
            raise NotSupported(f"extents that differ, {[list(x.shape) for x in operands]}")
        ordered = importer.in_order(_permuted(x, [term.index(a) for part in parts for a in part]))
        shape = tuple(prod(extents[a] for a in part) for part in parts)
        matrices.append(Tensor(ordered.value, shape, (0, 1, 2)))
    made = importer.in_order(product(importer, *matrices))
    order = [*batch, *rows, *columns]
    return Tensor(made.value, tuple(extents[a] for a in order), tuple(range(len(order)))), "".join(order)


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"Einsum": einsum}
"""ONNX operator → the function that emits it."""
