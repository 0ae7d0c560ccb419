"""Tree ensembles of ai.onnx.ml: random forests and boosted trees.

All trees go down together, one level after the other: an element for each tree holds the number of the node that it
has come to. A level looks up the node's feature, threshold and first child, and the feature's value, and adds 0 or 1
for the child: the children of a node have consecutive numbers, leaves lead to themselves. The code is that of a level,
whatever the size of the trees; the object holds three words a node, and the leaves' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.ir import SSAValue

from ml4f.dialects.nn import ops as nn
from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_classifiers import Second, class_labels, classified, rows_of, transformed
from ml4f.frontend.importer_lookups import looked_up
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_types import EXACT
from ml4f.frontend.importer_values import NotSupported, Tensor

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")
"""Comparisons of the feature with the threshold; true leads to the first child of the model."""
MOST_LEVELS = 64


@dataclass
class Branch:
    """A node of the model: true where the feature compares with the threshold. `tracks`: NaN counts as true."""

    feature: int
    threshold: float
    mode: str
    true: int
    false: int
    tracks: bool


@dataclass
class Ensemble:
    """Nodes by their numbers, those without a branch are leaves; `weights[leaf]` lists (target, weight)."""

    roots: list[int] = field(default_factory=list[int])
    branches: dict[int, Branch] = field(default_factory=dict[int, Branch])
    weights: dict[int, list[tuple[int, float]]] = field(default_factory=dict[int, list[tuple[int, float]]])


@dataclass(frozen=True)
class Tables:
    """The renumbered nodes: at node i the next is `first[i] + (sign[i] * x[feature[i]] > limit[i])`."""

    trees: int
    """Their roots are the first nodes."""
    feature: np.ndarray
    sign: np.ndarray
    limit: np.ndarray
    first: np.ndarray
    levels: int
    origin: np.ndarray
    """The model's number of the node that each is."""
    is_leaf: np.ndarray


def tables_of(ensemble: Ensemble) -> Tables:
    """Numbers the nodes level by level, the children of a node one after the other."""
    order = list(ensemble.roots)
    depth = dict.fromkeys(range(len(order)), 0)
    feature, sign, limit, first = (list[float]() for _ in range(4))
    position = 0
    while position < len(order):
        branch = ensemble.branches.get(order[position])
        if branch is None:
            row = (0, 1.0, np.inf, position)
        else:
            row = (branch.feature, *_comparison(branch), len(order))
            depth.update(dict.fromkeys((len(order), len(order) + 1), depth[position] + 1))
            order += _children(branch)
            if len(order) > 2 * (len(ensemble.branches) + len(ensemble.roots)) + 2:
                raise NotSupported("its nodes are no trees: one of them has two parents")
        for values, value in zip((feature, sign, limit, first), row, strict=True):
            values.append(value)
        position += 1
    levels = max(depth.values())
    if levels > MOST_LEVELS or len(order) > EXACT:
        raise NotSupported(f"{levels} levels and {len(order)} nodes; at most {MOST_LEVELS} levels are supported")
    is_leaf = np.array([number not in ensemble.branches for number in order])
    return Tables(
        len(ensemble.roots),
        np.array(feature, dtype=np.float32),
        np.array(sign, dtype=np.float32),
        np.array(limit, dtype=np.float32),
        np.array(first, dtype=np.float32),
        levels,
        np.array(order),
        is_leaf,
    )


def _above(branch: Branch) -> tuple[bool, np.float32]:
    """Whether the branch is true above a limit, and the limit: the comparison with it is strict either way."""
    threshold, infinity = np.float32(branch.threshold), np.float32(np.inf)
    if branch.mode in ("BRANCH_LEQ", "BRANCH_LT"):
        return False, np.nextafter(threshold, infinity) if branch.mode == "BRANCH_LEQ" else threshold
    return True, np.nextafter(threshold, -infinity) if branch.mode == "BRANCH_GTE" else threshold


def _comparison(branch: Branch) -> tuple[float, float]:
    """(sign, limit): a NaN is not above the limit, so it goes to the first child, true or false as the node says."""
    above, limit = _above(branch)
    if branch.tracks:  # ask for the opposite, whose limit is the neighbouring number
        return (
            (-1.0, -float(np.nextafter(limit, np.float32(np.inf))))
            if above
            else (1.0, float(np.nextafter(limit, np.float32(-np.inf))))
        )
    return (1.0, float(limit)) if above else (-1.0, -float(limit))


def _children(branch: Branch) -> list[int]:
    return [branch.true, branch.false] if branch.tracks else [branch.false, branch.true]


def descended(steps: Steps, tables: Tables, x: str) -> SSAValue:
    """[n * trees]: the number of the leaf that each row of x comes to in each tree."""
    importer, (rows, features) = steps.importer, rows_of(steps.importer, x)
    if tables.feature.max(initial=0) >= features:
        raise NotSupported(f"it reads feature {int(tables.feature.max())} of {features}")
    trees = tables.trees
    count, table = rows * trees, importer.in_order(importer.tensor(x)).value
    numbers = np.tile(np.arange(trees), rows)
    rows_begin = np.repeat(np.arange(rows) * features, trees).astype(np.float32)
    signs = np.unique(tables.sign[~tables.is_leaf])

    def at(values: np.ndarray, place: str) -> str:
        """The values of the nodes that have been come to."""
        known = importer.const(place)
        if known is not None:
            return steps.constant(values[known.astype(np.int64)])
        index = importer.in_order(importer.tensor(place)).value
        found = looked_up(importer, importer.constant(values), (values.size, 1), index, count)
        return steps.value(Tensor(importer.reshaped(found, (count,)), (count,), (0,)))

    place = steps.constant(numbers)
    for _ in range(tables.levels):
        feature = at(tables.feature, place)
        if rows > 1:
            feature = steps.binary(nn.AddOp, feature, steps.constant(rows_begin))
        index = importer.in_order(importer.tensor(feature)).value
        found = looked_up(importer, table, (rows * features, 1), index, count)
        value = steps.value(Tensor(importer.reshaped(found, (count,)), (count,), (0,)))
        limit = at(tables.limit, place) if signs[-1] > 0 else value
        if signs.size > 1:
            value = steps.binary(nn.MulOp, value, at(tables.sign, place))
        elif signs[0] < 0:
            value = at(-tables.limit, place)
        right = steps.activation("step", steps.binary(nn.SubOp, value, limit))
        place = steps.binary(nn.AddOp, at(tables.first, place), right)
    return importer.in_order(importer.tensor(place)).value


def summed(
    importer: Importer, node: Node, ensemble: Ensemble, targets: int, base: Sequence[float], aggregate: str
) -> str:
    """[n, targets]: what the leaves that a row comes to say together, plus the base values."""
    kinds = {"SUM": "sum", "AVERAGE": "mean", "MIN": "min", "MAX": "max"}
    if aggregate not in kinds:
        raise NotSupported(f"aggregate_function {aggregate}; SUM, AVERAGE, MIN and MAX are supported")
    if len(base) not in (0, 1, targets):
        raise NotSupported(f"{len(base)} base values for {targets} targets")
    tables, x = tables_of(ensemble), node.proto.input[0]
    rows, trees = rows_of(importer, x)[0], tables.trees
    values = np.zeros((len(tables.origin), targets))
    for number, leaf in enumerate(tables.origin):
        for target, weight in ensemble.weights.get(int(leaf), ()):
            if not 0 <= target < targets:
                raise NotSupported(f"target {target} of {targets}")
            values[number, target] += weight
        known = {target for target, _ in ensemble.weights.get(int(leaf), ())}
        if aggregate in ("MIN", "MAX") and tables.is_leaf[number] and known != set(range(targets)):
            raise NotSupported(f"{aggregate} of leaves that do not speak of every target")
    steps = Steps(importer, node, f"{next(filter(None, node.proto.output))}/ensemble")
    leaf, is_leaf = descended(steps, tables, x), tables.is_leaf
    if targets > 2:  # one word a node and a row a leaf are less than a row a node
        numbers = (np.cumsum(is_leaf) - 1).clip(0).astype(np.float32)
        leaf = looked_up(importer, importer.constant(numbers), (numbers.size, 1), leaf, rows * trees)
        values = values[is_leaf]
    table = importer.constant(values.astype(np.float32))
    found = looked_up(importer, table, (len(values), targets), leaf, rows * trees)
    chosen = steps.value(Tensor(importer.reshaped(found, (rows, trees, targets)), (rows, trees, targets), (0, 1, 2)))
    total = steps.shaped(steps.reduce(kinds[aggregate], chosen, [1]), (rows, targets))
    return steps.binary(nn.AddOp, total, steps.constant(np.array(base))) if np.any(base) else total


# Attributes


def _numbers(node: Node, name: str) -> list[float]:
    """A list of numbers, or the tensor of float64 that may stand for it."""
    tensor = node.get(f"{name}_as_tensor")
    if tensor is not None:
        from onnx import numpy_helper

        return [float(v) for v in np.ravel(numpy_helper.to_array(tensor)).astype(np.float32)]
    return [float(v) for v in node.get(name, [])]


def _texts(node: Node, name: str) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in node.get(name, [])]


def parallel_lists(node: Node, kind: str) -> Ensemble:
    """The ensemble of TreeEnsembleRegressor and TreeEnsembleClassifier; `kind`: target or class."""
    trees, ids = node.ints("nodes_treeids"), node.ints("nodes_nodeids")
    number = {place: i for i, place in enumerate(zip(trees, ids, strict=True))}
    features, modes = node.ints("nodes_featureids"), _texts(node, "nodes_modes")
    true, false = node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids")
    tracks, thresholds = node.ints("nodes_missing_value_tracks_true") or (0,) * len(ids), _numbers(node, "nodes_values")
    node.get("nodes_hitrates")  # how often nodes were visited in training
    node.get("nodes_hitrates_as_tensor")
    ensemble, children = Ensemble(), set[int]()
    for i, mode in enumerate(modes):
        if mode == "LEAF":
            continue
        if mode not in MODES:
            raise NotSupported(f"the comparison {mode}; {', '.join(MODES)} are supported")
        pair = number[trees[i], true[i]], number[trees[i], false[i]]
        children.update(pair)
        ensemble.branches[i] = Branch(features[i], thresholds[i], mode, *pair, bool(tracks[i]))
    ensemble.roots = [i for i in range(len(ids)) if i not in children]
    if len(ensemble.roots) != len(set(trees)):
        raise NotSupported(f"{len(ensemble.roots)} roots of {len(set(trees))} trees")
    places = zip(node.ints(f"{kind}_treeids"), node.ints(f"{kind}_nodeids"), strict=True)
    for place, target, weight in zip(places, node.ints(f"{kind}_ids"), _numbers(node, f"{kind}_weights"), strict=True):
        ensemble.weights.setdefault(number[place], []).append((target, weight))
    return ensemble


def regressor(importer: Importer, node: Node) -> None:
    """TreeEnsembleRegressor."""
    targets, ensemble = int(node.get("n_targets", 1)), parallel_lists(node, "target")
    aggregate = node.get("aggregate_function", "SUM")
    total = summed(importer, node, ensemble, targets, _numbers(node, "base_values"), aggregate)
    _finished(importer, node, total, node.get("post_transform", "NONE"), targets)


def _finished(importer: Importer, node: Node, total: str, kind: str, targets: int) -> None:
    if kind not in ("NONE", "") and targets == 1:
        raise NotSupported(f"post_transform {kind} of one target, on which runtimes do not agree; use NONE")
    transformed(Steps(importer, node), total, kind, node.proto.output[0])


def classifier(importer: Importer, node: Node) -> None:
    """TreeEnsembleClassifier. Weights of one class alone are scores of the second of two."""
    labels = class_labels(node, "classlabels_int64s")
    ensemble, kind = parallel_lists(node, "class"), node.get("post_transform", "NONE")
    base, ids = _numbers(node, "base_values"), sorted(set(node.ints("class_ids")))
    weights = [weight for leaf in ensemble.weights.values() for _, weight in leaf]
    if labels.size == 2 and ids == [0]:
        if len(base) > 1:
            raise NotSupported("two base values for the weights of one class, on which runtimes do not agree; use one")
        ensemble.weights = {leaf: [(0, weight) for _, weight in found] for leaf, found in ensemble.weights.items()}
        score = summed(importer, node, ensemble, 1, base, "SUM")
        positive = min(weights) >= 0
        classified(importer, node, score, labels, kind, Second(0.5 if positive else 0.0, positive))
        return
    if labels.size == 2 and importer.is_read(node.proto.output[0]):
        raise NotSupported(
            "the label of two classes with weights for both, on which runtimes do not agree; leave that output out, "
            "the larger score says it"
        )
    if min(weights, default=0.0) < 0 and not _complete(ensemble, labels.size):
        raise NotSupported("some leaves say nothing of a class while others are negative: runtimes differ on these")
    if len(base) not in (0, labels.size):
        raise NotSupported(f"{len(base)} base values for {labels.size} classes")
    classified(importer, node, summed(importer, node, ensemble, labels.size, base, "SUM"), labels, kind)


def _complete(ensemble: Ensemble, classes: int) -> bool:
    """Whether every row has a weight for every class: some tree has one in all leaves."""
    known = set[int]()
    for root in ensemble.roots:
        leaves, open_ = list[int](), [root]
        while open_:
            number = open_.pop()
            branch = ensemble.branches.get(number)
            if branch is None:
                leaves.append(number)
            else:
                open_ += [branch.true, branch.false]
        sets = [{target for target, _ in ensemble.weights.get(leaf, ())} for leaf in leaves]
        known |= set.intersection(*sets)
    return known >= set(range(classes))


def tree_ensemble(importer: Importer, node: Node) -> None:
    """TreeEnsemble, whose nodes and leaves are lists of their own."""
    from onnx import numpy_helper

    names = ("nodes_splits", "leaf_weights")
    splits, weights = (np.ravel(numpy_helper.to_array(node.get(name))).astype(np.float32) for name in names)
    if node.get("nodes_modes") is None or node.get("membership_values") is not None:
        raise NotSupported("the comparison BRANCH_MEMBER; export the model with numerical splits only")
    modes = np.ravel(numpy_helper.to_array(node.get("nodes_modes")))
    features, targets = node.ints("nodes_featureids"), int(node.get("n_targets", 1))
    tracks = node.ints("nodes_missing_value_tracks_true") or (0,) * len(features)
    node.get("nodes_hitrates")
    ends = [(node.ints(f"nodes_{side}nodeids"), node.ints(f"nodes_{side}leafs")) for side in ("true", "false")]
    ensemble, count = Ensemble(), len(features)
    for i in range(count):
        if int(modes[i]) >= len(MODES):
            raise NotSupported(f"the comparison {int(modes[i])}; {', '.join(MODES)} are supported")
        true, false = (ids[i] + count * bool(leaf[i]) for ids, leaf in ends)
        ensemble.branches[i] = Branch(features[i], float(splits[i]), MODES[int(modes[i])], true, false, bool(tracks[i]))
    # a tree that is a single leaf has a node whose children are both that leaf
    ensemble.roots = list(node.ints("tree_roots"))
    for number, (target, weight) in enumerate(zip(node.ints("leaf_targetids"), weights, strict=True)):
        ensemble.weights[count + number] = [(target, float(weight))]
    kinds, functions = ("AVERAGE", "SUM", "MIN", "MAX"), ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
    total = summed(importer, node, ensemble, targets, (), kinds[int(node.get("aggregate_function", 1))])
    _finished(importer, node, total, functions[int(node.get("post_transform", 0))], targets)
