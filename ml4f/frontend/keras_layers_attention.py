"""Keras's attention layers as MatMul, Softmax and Gemm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np

from ml4f.frontend.keras_activations import HIDDEN, hidden
from ml4f.frontend.keras_builder import LayerContext, Refused, Value
from ml4f.frontend.keras_graph import Layer
from ml4f.frontend.keras_masks import both
from ml4f.frontend.keras_weights import StoredTensor, WeightStore

UNPROJECTED = ("Attention", "AdditiveAttention")
PARTS = ("query", "value", "key")
"""The order of the inputs, where they have no names."""


@dataclass(frozen=True, eq=False)
class _Gathered:
    """The weights of a layer that is made of other ones, in their order."""

    store: WeightStore
    parts: Sequence[str]

    @property
    def by_place(self) -> bool:
        return self.store.by_place

    def tensors(self, layer: Layer) -> list[StoredTensor]:
        if not self.by_place:
            return self.store.tensors(layer)
        found: list[StoredTensor] = []
        for part in self.parts:  # MultiHeadAttention has query_dense, GroupQueryAttention _query_dense
            places = [replace(layer, stored=f"{layer.stored}/{name}") for name in (part, f"_{part}")]
            found += self.store.tensors(places[0]) or self.store.tensors(places[1])
        return found


@dataclass(frozen=True)
class _Heads:
    """Query heads, heads of key and value, which several query heads may share, and elements of a head."""

    query: int
    shared: int
    key_size: int
    value_size: int


def multi_head_attention(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """Every head has a key and a value of its own."""
    heads, size = c.whole("num_heads"), c.whole("key_dim")
    return _projected(c, inputs, _Heads(heads, heads, size, c.whole("value_dim", size)))


def group_query_attention(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """Groups of query heads share a key and a value."""
    size, heads, shared = c.whole("head_dim"), c.whole("num_query_heads"), c.whole("num_key_value_heads")
    if heads % shared:
        raise Refused(f"{heads} query heads for {shared} heads of key and value")
    return _projected(c, inputs, _Heads(heads, shared, size, size))


def _projected(c: LayerContext, inputs: Sequence[Value], heads: _Heads) -> list[Value]:
    """Projections of [1, steps, features] to heads, attention, and the projection of all heads together."""
    if c.get("use_gate", False) or c.get("sliding_window") is not None:
        raise Refused("its use_gate or sliding_window is set, which is not supported")
    query, value, key = _inputs(c, inputs)
    whole, rank = query.shape, query.rank
    axes = c.get("attention_axes")
    axes = [axes] if isinstance(axes, int) else axes
    if axes is not None and sorted(a % rank for a in axes) != list(range(1, rank - 1)):
        raise Refused(f"its attention_axes are {str(axes)[:80]}; all axes between batch and features are supported")
    query, value, key = (_rows(c, x) for x in (query, value, key))
    output = c.get("output_shape")
    output = [output] if isinstance(output, int) else list(output or [whole[-1]])
    sizes = [
        (query, heads.query, heads.key_size),
        (key, heads.shared, heads.key_size),
        (value, heads.shared, heads.value_size),
    ]
    biased = bool(c.get("use_bias", True))
    expected: list[tuple[str, Sequence[int]]] = []
    for name, (x, count, size) in zip(("query", "key", "value"), sizes, strict=True):
        expected += [(f"{name} kernel", (x.shape[-1], count, size))]
        expected += [(f"{name} bias", (count, size))] if biased else []
    expected += [("output kernel", (heads.query, heads.value_size, *output))]
    expected += [("output bias", tuple(output))] if biased else []
    parts = ("query_dense", "key_dense", "value_dense", "output_dense")
    weights = replace(c, store=_Gathered(c.store, parts)).weights(expected)
    step = 2 if biased else 1
    q, k, v = (
        _project(c, x, weights[i * step : (i + 1) * step], count, size) for i, (x, count, size) in enumerate(sizes)
    )
    steps, others = query.shape[1], key.shape[1]
    groups = heads.query // heads.shared
    q = c.reshape(q, (1, heads.shared, groups * steps, heads.key_size))
    q = c.binary("Mul", q, 1.0 / sqrt(heads.key_size))
    scores = c.emit("MatMul", [q, c.transpose(k, (0, 1, 3, 2))], (1, heads.shared, groups * steps, others))
    scores = c.reshape(scores, (1, heads.query, steps, others))
    shares = _shares(c, scores, _attention_mask(c, inputs, scores))
    mixed = c.emit(
        "MatMul",
        [c.reshape(shares, (1, heads.shared, groups * steps, others)), v],
        (1, heads.shared, groups * steps, heads.value_size),
    )
    mixed = c.transpose(c.reshape(mixed, (1, heads.query, steps, heads.value_size)), (0, 2, 1, 3))
    rows = c.reshape(mixed, (steps, heads.query * heads.value_size))
    kernel, *bias = weights[3 * step :]
    kernel = kernel.reshape(heads.query * heads.value_size, prod(output))
    made = c.emit("Gemm", [rows, kernel, *(b.reshape(-1) for b in bias)], (steps, prod(output)))
    result = c.reshape(made, (*whole[:-1], *output))
    return [result, shares] if c.layer.keywords.get("return_attention_scores") is True else [result]


def _inputs(c: LayerContext, inputs: Sequence[Value]) -> tuple[Value, Value, Value]:
    """Query, value and key, which is the value if it is not given."""
    known: dict[str, Value] = {}
    for name, value in zip(_places(c, inputs), inputs, strict=True):
        if name not in PARTS or name in known:
            raise Refused(f"it is called with '{name}'; a query, a value and a key are supported")
        known[name] = value
    if not {"query", "value"} <= known.keys():
        raise Refused("it needs a query and a value")
    found = known["query"], known["value"], known.get("key", known["value"])
    if any(x.rank < 3 for x in found) or _rows_of(found[1]) != _rows_of(found[2]):
        raise Refused(
            f"query, value and key are {[list(x.shape) for x in found]}; steps and features are needed, "
            "and as many values as keys"
        )
    return found


def _places(c: LayerContext, inputs: Sequence[Value]) -> list[str]:
    """What each input is: query, value or key."""
    found = []
    for position in range(len(inputs)):
        name = c.names[position] if position < len(c.names) else ""
        found.append(name if name not in ("", "inputs") else dict(enumerate(PARTS)).get(position, str(position)))
    return found


def _rows_of(x: Value) -> int:
    return prod(x.shape[1:-1])


def _rows(c: LayerContext, x: Value) -> Value:
    """[1, steps, features]: all axes between batch and features are steps."""
    return c.reshape(x, (1, _rows_of(x), x.shape[-1]))


def _project(c: LayerContext, x: Value, weights: Sequence[np.ndarray], heads: int, size: int) -> Value:
    """[1, heads, steps, size]."""
    steps, features = x.shape[1:]
    kernel, *bias = weights
    rows = c.reshape(x, (steps, features))
    made = c.emit(
        "Gemm", [rows, kernel.reshape(features, heads * size), *(b.reshape(-1) for b in bias)], (steps, heads * size)
    )
    return c.transpose(c.reshape(made, (1, steps, heads, size)), (0, 2, 1, 3))


def _shares(c: LayerContext, scores: Value, mask: Value | None) -> Value:
    """Softmax over the last axis of [..., steps, others]; with a causal mask a step sees those up to its own."""
    steps, others = scores.shape[-2:]
    causal = c.layer.keywords.get("use_causal_mask") is True or c.get("causal", False)
    seen = (np.arange(others) <= np.arange(steps)[:, None]).astype(np.float32)
    if mask is not None:
        mask = c.binary("Mul", mask, seen) if causal else mask
        scores = hidden(c, scores, mask)
    elif causal:
        scores = c.binary("Add", scores, np.where(seen > 0, np.float32(0), np.float32(-HIDDEN)))
    shares = c.emit("Softmax", [scores], scores.shape, axis=scores.rank - 1)
    return c.binary("Mul", shares, mask) if mask is not None and _gives_nothing(c) else shares


def _gives_nothing(c: LayerContext) -> bool:
    """Whether a step that sees none gets zeros: where Keras 3 has its Softmax, not TensorFlow's, in projected heads."""
    scores = c.layer.keywords.get("return_attention_scores") is True
    return c.layer.keras >= 3 and c.layer.kind not in UNPROJECTED and (scores or bool(c.get("dropout", 0)))


def _attention_mask(c: LayerContext, inputs: Sequence[Value], scores: Value) -> Value | None:
    """[1, heads or 1, steps or 1, others]: what all masks of the inputs, and the call's own, let a step see."""
    steps, others = scores.shape[-2:]
    found: list[Value | np.ndarray] = []
    own = c.attention_mask
    if own is not None:
        axes = len(own.shape)
        if axes not in (3, 4) or own.shape[0] != 1:
            raise Refused(f"its attention_mask {list(own.shape)}; [batch, steps, others] is supported")
        shape = own.shape if axes == 4 else (1, 1, *own.shape[1:])
        found.append(c.reshape(own, shape) if isinstance(own, Value) else own.reshape(shape))
    places = _places(c, inputs)
    for name, mask in zip((places[i] for i in range(len(inputs))), c.masks, strict=True):
        if mask is None:
            continue
        count = steps if name == "query" else others
        if mask.shape != (1, count):
            raise Refused(f"a mask {list(mask.shape)} for {count} steps of its {name}")
        found.append(c.reshape(mask, (1, 1, count, 1) if name == "query" else (1, 1, 1, count)))
    if not found:
        return None
    made = both(c, found)
    return made if isinstance(made, Value) else c.emit("Identity", [made], made.shape)


def attention(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """Without projections: scores are products of query and key, or of their sum's tanh ("concat")."""
    query, value, key = _inputs(c, inputs)
    mode = c.get("score_mode", "dot")
    names = ["scale"] if c.get("use_scale", False) else []
    names += ["concat_score_weight"] if mode == "concat" else []
    found = dict(zip(names, c.weights([(name, ()) for name in names]), strict=True)) if names else {}
    if mode == "dot":
        scores = c.emit("MatMul", [query, c.transpose(key, (0, 2, 1))], (1, query.shape[1], key.shape[1]))
        scores = c.binary("Mul", scores, found["scale"]) if "scale" in found else scores
    elif mode == "concat":
        both = _sums(c, query, key)
        both = c.binary("Mul", both, found["scale"]) if "scale" in found else both
        scores = c.binary("Mul", _sum_of_tanh(c, both, None), found["concat_score_weight"])
    else:
        raise Refused(f"its score_mode is {str(mode)[:80]}; dot and concat are supported")
    return _attended(c, scores, value)


def additive_attention(c: LayerContext, inputs: Sequence[Value]) -> list[Value]:
    """Bahdanau's: the scores are sums of scale * tanh(query + key)."""
    query, value, key = _inputs(c, inputs)
    scale = c.weights([("scale", (query.shape[-1],))])[0] if c.get("use_scale", True) else None
    return _attended(c, _sum_of_tanh(c, _sums(c, query, key), scale), value)


def _sums(c: LayerContext, query: Value, key: Value) -> Value:
    """[1, steps, others, features]."""
    q = c.reshape(query, (1, query.shape[1], 1, query.shape[2]))
    return c.binary("Add", q, c.reshape(key, (1, 1, *key.shape[1:])))


def _sum_of_tanh(c: LayerContext, x: Value, scale: np.ndarray | None) -> Value:
    y = c.pointwise("Tanh", x)
    y = c.binary("Mul", y, scale) if scale is not None else y
    return c.emit("ReduceSum", [y, np.array([x.rank - 1], dtype=np.int64)], x.shape[:-1], keepdims=0)


def _attended(c: LayerContext, scores: Value, value: Value) -> list[Value]:
    """Keras subtracts 1e9 from scores that are hidden; what the query's mask hides is zero."""
    query_mask, value_mask, *_ = (*c.masks, None, None)
    steps, others = scores.shape[-2:]
    for mask, count in ((query_mask, steps), (value_mask, others)):
        if mask is not None and mask.shape != (1, count):
            raise Refused(f"a mask {list(mask.shape)} for {count} steps")
    shares = _shares(c, scores, None if value_mask is None else c.reshape(value_mask, (1, 1, others)))
    made = c.emit("MatMul", [shares, value], (1, steps, value.shape[2]))
    if query_mask is not None:
        made = c.binary("Mul", made, c.reshape(query_mask, (1, steps, 1)))
    return [made, shares] if c.layer.keywords.get("return_attention_scores") is True else [made]


LAYERS: dict[str, Callable[[LayerContext, Sequence[Value]], list[Value]]] = {
    "MultiHeadAttention": multi_head_attention,
    "GroupQueryAttention": group_query_attention,
    "GroupedQueryAttention": group_query_attention,
    "Attention": attention,
    "AdditiveAttention": additive_attention,
}
"""Keras class → translation."""
