"""The exact definitions of the activation functions, in float64.

Every function takes a float64 array and the function's parameters, which are rounded to float32 like the compiled
code's, and is right for infinities (the limit, where there is one) and NaN. The error of the float64 arithmetic is
below a millionth of a float32's last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

Function = Callable[..., np.ndarray]
LARGEST_ANGLE = 2.0**20
"""The circular functions are NaN from here on (see `elementary_trigonometric`)."""


def _definition(function: Function) -> Function:
    """Converts the arguments, and silences the warnings of numpy."""

    @wraps(function)
    def wrapped(x: Any, *parameters: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            singles = [float(np.float32(p)) for p in parameters]
            return np.asarray(function(np.asarray(x, dtype=np.float64), *singles))

    return wrapped


@_definition
def linear(x: np.ndarray) -> np.ndarray:
    return x


@_definition
def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0, 0.0, x)


@_definition
def clip(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


@_definition
def relu6(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, 0.0), 6.0)


@_definition
def leaky_relu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x < 0, alpha * x, x)


@_definition
def thresholded_relu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x <= alpha, 0.0, x)


@_definition
def keras_relu(x: np.ndarray, max_value: float, negative_slope: float, threshold: float) -> np.ndarray:
    below = negative_slope * (x - threshold) if negative_slope else np.zeros_like(x)
    return np.where(x >= max_value, max_value, np.where(x < threshold, below, x))


@_definition
def hard_sigmoid(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return np.minimum(np.maximum(alpha * x + beta, 0.0), 1.0)


@_definition
def hard_swish(x: np.ndarray) -> np.ndarray:
    return np.where(x <= -3, 0.0, np.where(x >= 3, x, x * (x + 3) / 6))


@_definition
def softsign(x: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x)))


@_definition
def sqrt(x: np.ndarray) -> np.ndarray:
    return np.sqrt(x)


@_definition
def reciprocal(x: np.ndarray) -> np.ndarray:
    return 1 / x


@_definition
def absolute(x: np.ndarray) -> np.ndarray:
    return np.abs(x)


@_definition
def negative(x: np.ndarray) -> np.ndarray:
    return -x


@_definition
def square(x: np.ndarray) -> np.ndarray:
    return x * x


@_definition
def floor(x: np.ndarray) -> np.ndarray:
    return np.floor(x)


@_definition
def ceil(x: np.ndarray) -> np.ndarray:
    return np.ceil(x)


@_definition
def round_half_even(x: np.ndarray) -> np.ndarray:
    return np.rint(x)


@_definition
def sign(x: np.ndarray) -> np.ndarray:
    return np.sign(x)


@_definition
def to_int32(x: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(x), -(2.0**31), 2.0**31 - 1).astype(np.int32).view(np.float32)


@_definition
def step(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, 1.0, 0.0)


@_definition
def exp(x: np.ndarray) -> np.ndarray:
    return np.exp(x)


@_definition
def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(x))


@_definition
def selu(x: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    return np.where(x > 0, gamma * x, gamma * alpha * np.expm1(x))


@_definition
def celu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


@_definition
def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@_definition
def tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x)


@_definition
def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gated(x: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """`x * gate` of a gate that falls faster than x grows."""
    return np.where(gate == 0, 0.0, x * gate)


@_definition
def silu(x: np.ndarray) -> np.ndarray:
    return _gated(x, 1 / (1 + np.exp(-x)))


_error_function = np.vectorize(math.erf, otypes=[float])
_complementary_error_function = np.vectorize(math.erfc, otypes=[float])


@_definition
def erf(x: np.ndarray) -> np.ndarray:
    return _error_function(x)


@_definition
def gelu(x: np.ndarray) -> np.ndarray:
    return _gated(x, _complementary_error_function(-x / math.sqrt(2)) / 2)


@_definition
def gelu_tanh(x: np.ndarray) -> np.ndarray:
    # (1 + tanh(u)) / 2 is the logistic function of 2u.
    return _gated(x, 1 / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))))


@_definition
def mish(x: np.ndarray) -> np.ndarray:
    softplus_x = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return _gated(x, np.tanh(softplus_x))


@_definition
def log(x: np.ndarray) -> np.ndarray:
    return np.log(x)


def _of_angles(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < LARGEST_ANGLE, values, math.nan)


@_definition
def sin(x: np.ndarray) -> np.ndarray:
    return _of_angles(x, np.sin(x))


@_definition
def cos(x: np.ndarray) -> np.ndarray:
    return _of_angles(x, np.cos(x))


@_definition
def tan(x: np.ndarray) -> np.ndarray:
    return _of_angles(x, np.tan(x))


@_definition
def asin(x: np.ndarray) -> np.ndarray:
    return np.arcsin(x)


@_definition
def acos(x: np.ndarray) -> np.ndarray:
    return np.arccos(x)


@_definition
def atan(x: np.ndarray) -> np.ndarray:
    return np.arctan(x)


@_definition
def sinh(x: np.ndarray) -> np.ndarray:
    return np.sinh(x)


@_definition
def cosh(x: np.ndarray) -> np.ndarray:
    return np.cosh(x)


@_definition
def asinh(x: np.ndarray) -> np.ndarray:
    return np.arcsinh(x)


@_definition
def acosh(x: np.ndarray) -> np.ndarray:
    return np.arccosh(x)


@_definition
def atanh(x: np.ndarray) -> np.ndarray:
    return np.arctanh(x)


@_definition
def is_nan(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), 1.0, 0.0)
