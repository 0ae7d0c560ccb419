"""Makes a dense layer part of the nest that computes its input: each result is multiplied into all outputs at once.

The dense layer's input is then never stored. The outputs are accumulated in memory; what they start with is the bias.
"""

from __future__ import annotations

from dataclasses import replace

from ml4f.backend.loop.fusion import apart
from ml4f.backend.loop.nest import Linear, Nest, Operand, Step
from ml4f.backend.loop.shapes import simplify

ROLE = "dense"


def fuse_dense(producer: Nest, dense: Nest) -> Nest | None:
    """The nest with the producer's operands but `out`, then the dense layer's weights and `out`; None: impossible.

    `dense` multiplies one row, all of what the producer computes, by weights that lie row by row. Rows of float16
    weights must be whole words.
    """
    if dense.combine != "mac" or not dense.has("w") or dense.guards or dense.window_dims or producer.sink is not None:
        return None
    maps = {o.role: o.map for o in dense.operands}
    element = dense.by_role["w"].element
    if len(dense.parallel) != 1 or len(dense.reduction) != 1:
        return None
    (unit, units), (channel, channels) = dense.parallel[0], dense.reduction[0]
    expected = (Linear.of(**{channel: 1}), Linear.of(**{unit: 1}))
    if (maps["x"], maps["out"]) != expected or maps["w"].coefficient(unit) != 1 or maps["w"].constant or units < 2:
        return None
    if element == "f16" and units % 2:
        return None
    out = producer.by_role["out"].map
    inside = Nest(tuple((d, n) for d, n in producer.parallel if out.mentions(d)), (), "copy", producer.operands, ())
    if producer.pool_guards or out.constant or inside.terms() != channels or not apart(inside, out):
        return None
    row = maps["w"].coefficient(channel)
    weights = Linear(tuple((d, row * c) for d, c in out.terms))
    step = Step("dense", ROLE, "", (float(units),))
    operands = (
        *(o for o in producer.operands if o.role != "out"),
        Operand(ROLE, weights, element),
        Operand("out", Linear(())),
    )
    if any(o.role == ROLE for o in producer.operands):
        return None
    return simplify(replace(producer, operands=operands, epilogue=(*producer.epilogue, step)))
