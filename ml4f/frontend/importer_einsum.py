"""The handler of Einsum: of two operands a product of matrices, of one a diagonal, a transposition, a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from string import ascii_letters

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_contractions import product
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import sliced
from ml4f.frontend.importer_steps import reduced, squeezed
from ml4f.frontend.importer_values import NotSupported, Tensor


def einsum(importer: Importer, node: Node) -> None:
    """Sums of products over the axes that the equation does not keep, of two operands after the other."""
    equation = str(node.get("equation")).replace(" ", "")
    operands = [importer.tensor(name) for name in node.proto.input]
    letters, result = terms_of(equation, [len(x.shape) for x in operands])
    for index, term in enumerate(letters):
        operands[index], letters[index] = _diagonal(importer, operands[index], term)
    for index, term in enumerate(letters):
        others = result + "".join(other for i, other in enumerate(letters) if i != index)
        operands[index], letters[index] = _summed(importer, operands[index], term, others)
    made, order = operands[0], letters[0]
    for index in range(1, len(operands)):
        later = result + "".join(letters[index + 1 :])
        made, order = _product(importer, (made, operands[index]), (order, letters[index]), later)
    if sorted(order) != sorted(result):
        raise NotSupported(f"the equation {equation}")
    importer.result(node.proto.output[0], _permuted(made, [order.index(letter) for letter in result]))


def terms_of(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand's axes and of the result's, dots written out as letters."""
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    spare = [letter for letter in ascii_letters if letter not in equation]
    hidden = [rank - len(term.replace("...", "")) for rank, term in zip(ranks, letters, strict=True)]
    dots = "".join(spare[: max((n for n, term in zip(hidden, letters, strict=True) if "..." in term), default=0)])
    if not arrow:
        counted = terms.replace("...", "")
        result = "..." + "".join(sorted(a for a in set(counted) - {","} if counted.count(a) == 1))
    written = [
        term.replace("...", dots[len(dots) - n :]) if n > 0 else term.replace("...", "")
        for term, n in zip(letters, hidden, strict=True)
    ]
    result = result.replace("...", dots)
    if any(len(term) != rank for term, rank in zip(written, ranks, strict=True)) or "." in "".join((*written, result)):
        raise NotSupported(f"the equation {equation} for operands of {list(ranks)} axes")
    if len(set(result)) != len(result):
        raise NotSupported(f"the equation {equation}, whose result has a letter twice")
    return written, result


def _diagonal(importer: Importer, x: Tensor, term: str) -> tuple[Tensor, str]:
    """Each letter once: of two axes with the same letter only the elements whose numbers there are equal."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            pair = [axis for axis, other in enumerate(term) if other == letter][:2]
            rest = [axis for axis in range(len(term)) if axis not in pair]
            extents = [x.shape[axis] for axis in rest]
            count = x.shape[pair[0]]
            if x.shape[pair[1]] != count:
                raise NotSupported(f"a diagonal of {list(x.shape)}")
            front = importer.arranged(x, (*pair, *rest)).value
            square = Tensor(front, (count * count, prod(extents)), (0, 1))
            found = sliced(importer, square, (0, 0), (count + 1, 1), (count, prod(extents)))
            x = Tensor(found.value, (count, *extents), tuple(range(len(extents) + 1)))
            term = letter + "".join(term[axis] for axis in rest)
    return x, term


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
