"""Which activations never decrease: checked on their definitions, and where a wrong answer would give wrong results."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml4f.backend.loop.elementary import ACTIVATIONS, NEVER_DECREASING, SLOPES, monotone
from ml4f.compiler import Options, compile_proto
from ml4f.reference import Reference

PARAMETERS = {"clip": [(-1.0, 2.0)]}
POINTS = np.linspace(-20, 20, 4001)
FALLING = [
    ("Selu", {"alpha": 1.6, "gamma": -1.0}),
    ("Selu", {"alpha": -1.6, "gamma": 1.0}),
    ("HardSigmoid", {"alpha": -0.2, "beta": 0.5}),
    ("LeakyRelu", {"alpha": -0.3}),
    ("Elu", {"alpha": -1.0}),
]


def signs(name: str) -> list[tuple[float, ...]]:
    """Parameters with every combination of signs in the slopes; a hard sigmoid has an offset too."""
    grid = np.array(np.meshgrid(*[[-0.7, 0.7]] * SLOPES[name])).T.reshape(-1, SLOPES[name])
    return [tuple(row) + ((0.4,) if name == "hard_sigmoid" else ()) for row in grid.tolist()]


@pytest.mark.parametrize("name", sorted(NEVER_DECREASING | set(SLOPES)))
def test_monotone_functions_never_decrease(name: str):
    for parameters in signs(name) if name in SLOPES else PARAMETERS.get(name, [()]):
        steps = np.diff(ACTIVATIONS[name].reference(POINTS, *parameters).astype(np.float64))
        assert monotone(name, parameters) <= bool((steps >= -1e-7).all()), parameters


def test_functions_in_their_usual_forms_are_known():
    for name in SLOPES:
        assert monotone(name, (0.5,) * SLOPES[name])
    assert all(monotone(name, ()) for name in NEVER_DECREASING)
    assert not any(monotone(name, ()) for name in ("neg", "abs", "silu", "gelu", "square"))


@pytest.mark.parametrize(("operator", "attributes"), FALLING)
def test_falling_activation_stays_in_front_of_a_maximum(operator: str, attributes: dict[str, float]):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node(operator, ["a"], ["b"], **attributes),
        helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 6, 6))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(rng.standard_normal((3, 2, 1, 1)).astype(np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32) * 3
    expected = np.ravel(Reference(model).run([x])["y"])
    result = np.ravel(compile_proto(model, "falling", Options(validate=False)).predict(x))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
