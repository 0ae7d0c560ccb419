"""Functions of keras.ops and TensorFlow in functional models, against TensorFlow where that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install -e '.[tensorflow]')")
pytest.importorskip("tf_keras", reason="tf_keras, Keras 2, is not installed (pip install -e '.[tensorflow]')")
from keras_comparison import TOLERANCE, differences

from ml4f.errors import UnsupportedError
from ml4f.frontend import load_model


def elementwise(keras: Any) -> Any:
    ops, x, y = keras.ops, keras.Input((5, 6)), keras.Input((5, 6))
    positive = ops.abs(y) + 0.5
    outputs = [
        *(ops.log1p(positive), ops.expm1(x), ops.log2(positive), ops.log10(positive), ops.exp2(x), ops.round(x, 1)),
        *(ops.trunc(x * 3), ops.deg2rad(x), ops.rad2deg(x), ops.erfc(x), ops.celu(x, 0.7), ops.glu(x)),
        *(ops.threshold(x, 0.2, -1.0), ops.hard_shrink(x, 0.3), ops.soft_shrink(x, 0.2), ops.tanh_shrink(x)),
        *(ops.sparse_plus(x), ops.sparse_sigmoid(x), ops.squareplus(x, 2), ops.log_softmax(x, axis=1)),
        *(ops.floor_divide(x, 0.4), ops.mod(x, 0.4), ops.mod(x, positive), ops.logaddexp(x, y), ops.hypot(x, y)),
        *(ops.divide_no_nan(x, ops.relu(y)), 2.0**x, 1 / positive, x * np.arange(6.0), ops.subtract(np.arange(6.0), x)),
    ]
    return keras.Model([x, y], outputs)


def reductions(keras: Any) -> Any:
    ops, x = keras.ops, keras.Input((5, 6))
    outputs = [
        *(ops.var(x, axis=1), ops.std(x, axis=-1, keepdims=True), ops.prod(x, axis=2), ops.logsumexp(x, axis=1)),
        *(ops.norm(x, axis=-1), ops.norm(x, ord=1, axis=1), ops.normalize(x, axis=1), ops.cumsum(x, axis=1)),
        *(ops.argmax(x, axis=-1), ops.argmin(x, axis=1), ops.amax(x, axis=1), ops.sum(x, axis=(1, 2))),
        *(ops.max(x, axis=1, initial=1.5), ops.min(x, axis=1, initial=-1.0), ops.count_nonzero(ops.relu(x), axis=1)),
    ]
    return keras.Model(x, outputs)


def moves(keras: Any) -> Any:
    ops, x, y = keras.ops, keras.Input((5, 6)), keras.Input((5, 6))
    outputs = [
        *(ops.stack([x, y], axis=1), ops.stack([x, y], axis=-1), ops.unstack(x, axis=1)[2], ops.tile(x, (1, 2, 1))),
        *(ops.repeat(x, 2, axis=1), ops.pad(x, ((0, 0), (1, 2), (0, 1))), ops.flip(x, axis=1), ops.roll(x, 2, axis=1)),
        *(
            ops.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0),
            ops.pad(x, ((0, 0), (1, 2), (3, 0)), mode="reflect"),
        ),
        *(ops.swapaxes(x, 1, 2), ops.moveaxis(ops.expand_dims(x, 1), 1, -1), ops.take(x, [0, -1, 2], axis=1)),
        *(ops.broadcast_to(ops.expand_dims(x, 1), (1, 3, 5, 6)), ops.take(x, 3, axis=2), ops.one_hot(x > 0, 3)),
        *(ops.einsum("abc,adc->abd", x, y), ops.slice(x, (0, 1, 2), (1, 3, 4))),
        ops.concatenate([x, ops.ones((1, 2, 6))], axis=1),
    ]
    return keras.Model([x, y], outputs)


def logic(keras: Any) -> Any:
    """Booleans as outputs, in sums, and as what chooses."""
    ops, x, y = keras.ops, keras.Input((5, 6)), keras.Input((5, 6))
    above, below = x > 0.2, y < 0.1
    outputs = [
        *(ops.logical_and(above, below), ops.logical_or(above, below), ops.logical_xor(above, below)),
        *(
            ops.logical_not(above),
            ops.any(above, axis=1),
            ops.all(ops.logical_or(above, below), axis=-1, keepdims=True),
        ),
        *(ops.cast(above, "float32") * y, ops.where(ops.logical_and(above, below), x, ops.zeros_like(x))),
        *(ops.ones_like(x) + y, ops.full_like(x, 3.0) * y, ops.cast(x * 3, "int32"), ops.isfinite(x), ops.isnan(x)),
    ]
    return keras.Model([x, y], outputs)


def functions(keras: Any) -> Any:
    """Of TensorFlow, in Keras 2."""
    import tensorflow as tf

    x, y = keras.Input((5, 6)), keras.Input((5, 6))
    outputs = [
        *(tf.stack([x, y], axis=1), tf.tile(x, (1, 2, 1)), tf.math.reduce_std(x, axis=1), tf.math.log1p(tf.abs(x))),
        *(
            tf.math.reduce_variance(x, axis=-1),
            tf.math.reduce_prod(x, axis=1, keepdims=True),
            tf.math.cumsum(x, axis=1),
        ),
        *(x // 0.4, x % 0.4, tf.math.reduce_logsumexp(x, axis=2), tf.nn.log_softmax(x), tf.cast(x > y, tf.float32)),
        *(tf.where(tf.logical_and(x > 0, y <= 0.1), x, y), tf.zeros_like(x) + y),
    ]
    return keras.Model([x, y], outputs)


CASES = [
    *((build, kind) for build in (elementwise, reductions, moves, logic) for kind in ("h5", "keras")),
    (functions, "keras2.h5"),
]


@pytest.mark.parametrize(("build", "kind"), CASES)
def test_operations(build: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    assert max(differences(build, kind, tmp_path)) <= TOLERANCE


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda ops, x: ops.mean(x), "the batch too"),
        (lambda ops, x: ops.flip(x), "axes besides the batch"),
        (lambda ops, x: ops.repeat(x, 2, axis=0), "one axis besides the batch"),
        (lambda ops, x: ops.median(x, axis=1), "no Median"),
        (lambda ops, x: ops.norm(x, ord=3, axis=1), "of order 3"),
    ],
)
def test_what_is_not_supported_is_refused(function: Callable[[Any, Any], Any], reason: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((4, 5))
    keras.Model(x, function(keras.ops, x)).save(tmp_path / "refused.keras")
    with pytest.raises(UnsupportedError, match=reason):
        load_model(tmp_path / "refused.keras")
