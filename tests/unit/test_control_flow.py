"""Loop and If whose course is known: recognised recurrent layers, unrolled loops, branches, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from shared_models import shared_models
from xdsl.dialects.builtin import ModuleOp

from ml4f.compiler import Options, compile_proto
from ml4f.errors import UnsupportedError
from ml4f.frontend.importer import import_onnx
from ml4f.reference import Reference

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
STEPS, FEATURES, UNITS = 6, 3, 4


def info(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.6).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], x: list[int], constants: list[onnx.TensorProto], outputs: list[str]
) -> onnx.ModelProto:
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, x)], results, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    made.ir_version = 8
    return made


def assert_right(proto: onnx.ModelProto) -> None:
    """As machine code, on random inputs, compared with the evaluator of the whole model."""
    compiled = compile_proto(proto, "control", Options(validate=False))
    reference = Reference(proto)
    for seed in range(2):
        shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        wanted = reference.run([x])
        found = compiled.predict(x.reshape(compiled.input_shape))
        named = found if isinstance(found, dict) else {proto.graph.output[0].name: found}
        for name, value in named.items():
            np.testing.assert_allclose(value.ravel(), wanted[name].ravel(), rtol=1e-4, atol=1e-5)


def operations(module: ModuleOp) -> list[str]:
    return [op.name for op in module.walk()]


def body(inner: list[onnx.NodeProto], states: list[str], results: list[str], scans: list[str]) -> onnx.GraphProto:
    """A Loop's body that goes on while the counter is below the constant `last`."""
    inputs = [info("i", INT, []), info("go", BOOL, []), *(info(name, FLOAT, None) for name in states)]
    nodes = [*inner, helper.make_node("Less", ["i", "last"], ["goes_on"])]
    outputs = [info("goes_on", BOOL, []), *(info(name, FLOAT, None) for name in (*results, *scans))]
    return helper.make_graph(nodes, "body", inputs, outputs, [])


LOOP_CONSTANTS = [constant("trips", np.int64(STEPS)), constant("true", np.array(True)), constant("last", np.int64(99))]


def recurrent_loop(activation: str, scan: bool) -> onnx.ModelProto:
    """A simple RNN as a Loop over the rows of x [STEPS, 1, FEATURES]."""
    inner = [
        helper.make_node("Gather", ["x", "i"], ["row"], axis=0),
        helper.make_node("Gemm", ["row", "W", "b"], ["seen"]),
        helper.make_node("MatMul", ["h", "R"], ["kept"]),
        helper.make_node("Add", ["seen", "kept"], ["sum"]),
        helper.make_node(activation, ["sum"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["h_row"]),
    ]
    scans = ["h_row"] if scan else []
    loop = helper.make_node("Loop", ["trips", "true", "h0"], ["last_h", *(["all_h"] if scan else [])], "steps")
    loop.attribute.append(helper.make_attribute("body", body(inner, ["h"], ["h_next"], scans)))
    constants = [
        *LOOP_CONSTANTS,
        constant("W", weights(FEATURES, UNITS)),
        constant("R", weights(UNITS, UNITS, seed=1)),
        constant("b", weights(UNITS, seed=2)),
        constant("h0", np.zeros((1, UNITS), np.float32)),
    ]
    return model([loop], [STEPS, 1, FEATURES], constants, ["all_h" if scan else "last_h"])


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("activation", ["Tanh", "Relu", "Sigmoid"])
def test_a_recurrent_loop_becomes_a_recurrent_operation(activation: str, scan: bool):
    proto = recurrent_loop(activation, scan)
    assert "nn.rnn" in operations(import_onnx(proto, "control"))
    assert_right(proto)


@pytest.mark.parametrize(("name", "operation"), [("vowels_gru", "nn.gru"), ("vowels_lstm", "nn.lstm")])
def test_recurrent_layers_as_keras_exports_them(name: str, operation: str):
    models = shared_models()
    if models is None:
        pytest.skip("no shared models beside the checkout, and ML4F_SHARED is not set")
    proto = onnx.load(models / "trained" / f"{name}.onnx")
    assert operation in operations(import_onnx(proto, name))
    data = np.load(models / "trained" / f"{name}.golden.npz")
    compiled = compile_proto(proto, name, Options(validate=False))
    np.testing.assert_allclose(compiled.predict(data["x"][0]).ravel(), data["y"][0].ravel(), atol=1e-5)


def test_a_loop_that_only_looks_recurrent_is_unrolled():
    proto = recurrent_loop("Tanh", scan=True)
    inner = proto.graph.node[0].attribute[0].g
    inner.node[4].op_type = "Erf"  # no activation of a recurrent operator
    assert "nn.rnn" not in operations(import_onnx(proto, "control"))
    assert_right(proto)


def test_a_limit_that_random_sequences_do_not_reach_is_kept():
    proto = recurrent_loop("Relu", scan=False)
    inner = proto.graph.node[0].attribute[0].g
    inner.node[4].output[0] = "unlimited"
    inner.node.insert(5, helper.make_node("Min", ["unlimited", "most"], ["h_next"]))
    proto.graph.initializer.append(constant("most", np.float32(1e6)))
    assert "nn.rnn" not in operations(import_onnx(proto, "control"))
    compiled = compile_proto(proto, "control", Options(validate=False))
    x = np.full((STEPS, 1, FEATURES), 3e6, np.float32)
    wanted = Reference(proto).run([x])["last_h"]
    assert wanted.max() == np.float32(1e6)
    np.testing.assert_allclose(compiled.predict(x.reshape(compiled.input_shape)).ravel(), wanted.ravel(), rtol=1e-5)


def test_a_counter_that_is_read_is_counted():
    proto = recurrent_loop("Tanh", scan=False)
    loop, inner = proto.graph.node[0], proto.graph.node[0].attribute[0].g
    inner.node.append(helper.make_node("Add", ["n", "one"], ["n_next"]))
    inner.input.append(info("n", INT, []))
    inner.output.append(info("n_next", INT, []))
    loop.input.append("zero")
    loop.output.append("count")
    proto.graph.initializer.extend([constant("one", np.int64(1)), constant("zero", np.int64(0))])
    proto.graph.node.append(helper.make_node("Cast", ["count"], ["number"], to=FLOAT))
    proto.graph.node.append(helper.make_node("Add", ["last_h", "number"], ["sum"]))
    proto.graph.output[0].name = "sum"
    assert_right(proto)


def power_loop() -> onnx.ModelProto:
    """y = tanh(W y), five times, with all of them as a further output; stops by its condition."""
    inner = [helper.make_node("MatMul", ["y", "W"], ["z"]), helper.make_node("Tanh", ["z"], ["y_next"])]
    inner.append(helper.make_node("Mul", ["y_next", "two"], ["twice"]))
    loop = helper.make_node("Loop", ["", "true", "x"], ["y_last", "all"], "powers")
    loop.attribute.append(helper.make_attribute("body", body(inner, ["y"], ["y_next"], ["twice"])))
    constants = [*LOOP_CONSTANTS[1:2], constant("last", np.int64(4)), constant("W", weights(UNITS, UNITS))]
    constants.append(constant("two", np.float32(2)))
    flat = helper.make_node("Add", ["all", "y_last"], ["sum"])
    return model([loop, flat], [1, UNITS], constants, ["sum"])


def test_a_loop_is_unrolled_and_its_kernels_are_shared():
    proto = power_loop()
    assert_right(proto)
    compiled = compile_proto(proto, "control", Options(validate=False))
    assert compiled.ir("loop").count("loop.kernel @") < 2 * 5, "five iterations share their kernels"


def test_unrolled_loops_pass_validation():
    compile_proto(power_loop(), "control")


def test_a_scan_backwards_and_along_other_axes():
    """The running maximum of a row's elements from the end, and of another row's from the beginning."""
    inner = [
        helper.make_node("Max", ["state", "a"], ["next"]),
        helper.make_node("Add", ["next", "b"], ["row"]),
    ]
    entries = {"state": [4], "a": [4], "b": [4]}
    graph = helper.make_graph(
        inner,
        "body",
        [info(name, FLOAT, shape) for name, shape in entries.items()],
        [info("next", FLOAT, [4]), info("row", FLOAT, [4])],
    )
    options = {"scan_input_axes": [1, -1], "scan_input_directions": [1, 0], "scan_output_axes": [1]}
    scan = helper.make_node("Scan", ["first", "x", "turned"], ["last", "rows"], "s", body=graph, num_scan_inputs=2)
    scan.attribute.extend(helper.make_attribute(name, value) for name, value in options.items())
    scan.attribute.append(helper.make_attribute("scan_output_directions", [1]))
    turned = helper.make_node("Mul", ["x", "two"], ["scaled"])
    moved = helper.make_node("Transpose", ["scaled"], ["transposed"], perm=[1, 0])
    back = helper.make_node("Transpose", ["transposed"], ["turned"], perm=[1, 0])
    constants = [constant("first", np.zeros(4, np.float32)), constant("two", np.float32(2))]
    assert_right(model([turned, moved, back, scan], [4, 5], constants, ["last", "rows"]))


def branches(condition: bool, seen: bool) -> onnx.ModelProto:
    """If, on a constant or on something computed."""
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["a"])], "then", [], [info("a", FLOAT, None)])
    other = helper.make_graph([helper.make_node("Mul", ["x", "k"], ["b"])], "else", [], [info("b", FLOAT, None)])
    other.initializer.append(constant("k", weights(UNITS)))
    node = helper.make_node(
        "If", ["computed" if seen else "known"], ["y"], "choice", then_branch=then, else_branch=other
    )
    constants = [constant("known", np.array(condition)), constant("zero", np.float32(0))]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Less", ["s", "zero"], ["computed"]),
    ]
    return model([*(nodes if seen else []), node], [1, UNITS], constants, ["y"])


@pytest.mark.parametrize("condition", [False, True])
def test_the_branch_of_a_constant_condition_is_taken(condition: bool):
    assert_right(branches(condition, seen=False))


def test_both_branches_of_a_computed_condition_are_there():
    assert_right(branches(True, seen=True))


def test_what_only_a_branch_in_a_branch_reads_is_computed():
    """As in silero's voice activity detectors: the last hidden state of an LSTM is read by an If inside of the If."""
    features, units = 3, 2
    inner = helper.make_graph(
        [helper.make_node("Squeeze", ["last", "axes"], ["out"])], "inner", [], [info("out", FLOAT, None)]
    )
    kept = helper.make_graph([helper.make_node("Identity", ["last"], ["out"])], "kept", [], [info("out", FLOAT, None)])
    outer = helper.make_graph(
        [
            helper.make_node("LSTM", ["x", "w", "r"], ["", "last", ""], hidden_size=units),
            helper.make_node("If", ["yes"], ["result"], then_branch=inner, else_branch=kept),
        ],
        "outer",
        [],
        [info("result", FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["result"])], "other", [], [info("result", FLOAT, None)]
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=outer, else_branch=other)
    constants = [
        constant("w", weights(1, 4 * units, features)),
        constant("r", weights(1, 4 * units, units, seed=1)),
        constant("axes", np.array([0])),
        constant("yes", np.array(True)),
    ]
    assert_right(model([node], [STEPS, 1, features], constants, ["y"]))


def test_an_operator_inside_is_named():
    proto = power_loop()
    proto.graph.node[0].attribute[0].g.node[1].op_type = "Unique"
    with pytest.raises(UnsupportedError, match=r"layer 'powers' \(Loop\).*inside of it.*no ONNX operator Unique"):
        import_onnx(proto, "control")


def test_a_loop_without_end_is_refused():
    proto = power_loop()
    for index, entry in enumerate(proto.graph.initializer):
        if entry.name == "last":
            proto.graph.initializer[index].CopyFrom(constant("last", np.int64(10**9)))
    with pytest.raises(UnsupportedError, match="more than 1024 iterations"):
        import_onnx(proto, "control")
