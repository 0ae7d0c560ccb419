"""Validation finds code that is wrong, names the layer, and can be seen to fail for every kind of fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import ml4f.compiler
from ml4f.backend.thumb.object_code import ObjectCode, assemble
from ml4f.compiler import Options, compile_proto
from ml4f.errors import ValidationError
from ml4f.rounding import rounding
from ml4f.samples import sample_model
from ml4f.validation import network_noise, runs_for, seeded_inputs

Damage = Callable[[bytearray, ObjectCode], None]

BX_LR = b"\x70\x47"
BRANCH_TO_ITSELF = b"\xfe\xe7"
UNDEFINED = b"\xff\xde"
VADD_F32 = 0xEE30_0A00
VADD_MASK = 0xFFB0_0F50
VSUB_BIT = 0x40


@pytest.fixture
def compile_damaged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Compiles a sample, with bytes of the object changed before it is validated."""

    def run(name: str, damage: Damage, **options: bool) -> None:
        def damaged(*arguments: object) -> ObjectCode:
            code = assemble(*arguments)  # pyright: ignore[reportArgumentType]
            data = bytearray(code.binary)
            damage(data, code)
            assert bytes(data) != code.binary
            return ObjectCode(code.layout, code.header, bytes(data), code.test_data)

        monkeypatch.setattr(ml4f.compiler, "assemble", damaged)
        compile_proto(sample_model(name), name, Options(**options))

    return run


def call_of(code: ObjectCode, layer: str) -> tuple[int, int]:
    """The offsets in the object of the call (or the inlined kernel) of a layer, and the end."""
    for site in code.layout.calls:
        if layer in str(site.attributes.get("layers")):
            function = code.layout.functions.get(site.callee)
            return function if function is not None else (site.start, site.end)
    raise AssertionError(layer)


def negate_an_addition(layer: str) -> Damage:
    """Turn the first addition of a layer into a subtraction."""

    def damage(data: bytearray, code: ObjectCode) -> None:
        start, end = call_of(code, layer)
        for at in range(start, end - 2, 2):
            word = int.from_bytes(data[at : at + 2], "little") << 16 | int.from_bytes(data[at + 2 : at + 4], "little")
            if word & VADD_MASK == VADD_F32:
                data[at + 2 : at + 4] = (word & 0xFFFF | VSUB_BIT).to_bytes(2, "little")
                return
        raise AssertionError("no addition")

    return damage


def overwrite(layer: str, instruction: bytes) -> Damage:
    """Put an instruction at the beginning of a layer's code."""

    def damage(data: bytearray, code: ObjectCode) -> None:
        start, _ = call_of(code, layer)
        data[start : start + len(instruction)] = instruction

    return damage


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize(
    ("sample", "layer"), [("oneD2", "conv1d_1"), ("dspDense", "dense_2"), ("batch1", "batch_normalization_1")]
)
def test_a_wrong_instruction_is_found_in_its_layer(
    sample: str, layer: str, float16: bool, compile_damaged: Callable[..., None]
) -> None:
    with pytest.raises(ValidationError, match=rf"^{sample}: layer \S*{layer}.*the reference says"):
        compile_damaged(sample, negate_an_addition(layer), float16=float16)


def test_a_wrong_weight_is_found(compile_damaged: Callable[..., None]) -> None:
    """Weights and biases of the layer, one at a time."""
    for index in range(0, 31 * 5, 14):

        def damage(data: bytearray, code: ObjectCode, index: int = index) -> None:
            at = code.header.weights_offset + 4 * index
            value = np.frombuffer(data[at : at + 4], "<f4")[0]
            data[at : at + 4] = np.float32(value + 0.05).tobytes()

        with pytest.raises(ValidationError, match=r"^dense: layer dense_1"):
            compile_damaged("dense", damage)


def test_code_that_faults_is_blamed_on_its_layer(compile_damaged: Callable[..., None]) -> None:
    with pytest.raises(ValidationError, match=r"layer dense_2.*faults"):
        compile_damaged("dspDense", overwrite("dense_2", UNDEFINED))


def test_endless_loops_end(compile_damaged: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml4f.machine.TIME_LIMIT", 200_000)
    with pytest.raises(ValidationError, match=r"layer dense_2.*runs on and on"):
        compile_damaged("dspDense", overwrite("dense_2", BRANCH_TO_ITSELF))


def test_an_arena_that_is_stated_too_small_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ml4f.machine import Machine

    original = Machine.check_guards

    def narrower(self: Machine) -> None:
        object.__setattr__(self.header, "arena_bytes", self.header.arena_bytes - 4)
        try:
            original(self)
        finally:
            object.__setattr__(self.header, "arena_bytes", self.header.arena_bytes + 4)

    monkeypatch.setattr(Machine, "check_guards", narrower)
    with pytest.raises(ValidationError, match="writes outside its arena"):
        compile_proto(sample_model("batch1"), "batch1")


def test_a_wrong_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations lost: every layer is as its nn operation says, but the network is not the model."""
    from ml4f.passes import nn_fuse_activation

    original = nn_fuse_activation.NnFuseActivationPass.apply

    def wrong(self: object, context: object, module: object) -> None:
        original(self, context, module)  # pyright: ignore[reportArgumentType]
        for op in module.walk():  # pyright: ignore[reportAttributeAccessIssue]
            if op.name == "nn.dense":
                op.act = None

    monkeypatch.setattr(nn_fuse_activation.NnFuseActivationPass, "apply", wrong)
    for float16 in (False, True):
        with pytest.raises(ValidationError, match=r"createAI: .*the reference says"):
            compile_proto(sample_model("createAI"), "createAI", Options(float16=float16))


def test_inputs_come_in_pairs() -> None:
    pairs = list(seeded_inputs(5, 4))
    np.testing.assert_array_equal(pairs[0], -pairs[1])
    np.testing.assert_array_equal(pairs[2], -pairs[3])
    assert not np.array_equal(pairs[0], pairs[2])
    assert runs_for(10**9) == 2 and runs_for(0) >= 4


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx's own evaluator is the reference then, with its batch normalisation put right."""
    monkeypatch.setattr("ml4f.reference._onnxruntime_session", lambda proto: None)
    for name in ("batch1", "singleDimBatchNorm", "noDsp", "avgPool"):
        compile_proto(sample_model(name), name)


def test_global_maximum_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx's evaluator takes the maximum along wrong axes, unless the input has two besides batch and channels."""
    monkeypatch.setattr("ml4f.reference._onnxruntime_session", lambda proto: None)
    shape = [1, 3, 5]
    node = onnx.helper.make_node("GlobalMaxPool", ["x"], ["y"])
    entries = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "x"]
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 1])
    graph = onnx.helper.make_graph([node], "maximum", entries, [result])
    compile_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), "maximum")


def several_inputs(kind: str) -> onnx.ModelProto:
    """A layer of several calls whose input buffers are told apart by more than the order of its operands."""
    h = onnx.helper
    wrapped = h.make_node("Pad", ["x", "amounts"], ["y"], mode="wrap", name="wrapped")
    halves = h.make_node("Split", ["x"], ["a", "b", "c"], axis=2)
    joined = h.make_node("Concat", ["r", "b", "s", "x"], ["y"], axis=2)
    apart = [halves, h.make_node("Exp", ["c"], ["r"]), h.make_node("Neg", ["a"], ["s"]), joined]
    nodes, columns = ([wrapped], 12) if kind == "wrapped" else (apart, 18)
    infos = [h.make_tensor_value_info(name, 1, [1, 2, n]) for name, n in (("x", 9), ("y", columns))]
    amounts = onnx.numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 2]), "amounts")
    graph = h.make_graph(nodes, kind, infos[:1], infos[1:], [amounts] if kind == "wrapped" else [])
    if kind != "wrapped":
        halves.attribute.append(h.make_attribute("num_outputs", 3))
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("kind", ["wrapped", "parts"])
def test_layers_with_forwarded_and_stored_inputs(kind: str) -> None:
    """A slice that is read through what it is a slice of, beside one that is stored, is no fault of the code."""
    compile_proto(several_inputs(kind), kind, Options())


def cancelling() -> onnx.ModelProto:
    """A sum of large products that is next to nothing for the first input that is tried."""
    x = next(seeded_inputs(40, 2))
    rng = np.random.default_rng(1)
    weights = rng.uniform(50, 100, 40).astype(np.float32)
    bias = np.float32(-(x.astype(np.float64) @ weights) + 1e-6)
    info = [onnx.helper.make_tensor_value_info(name, 1, [1, n]) for name, n in (("x", 40), ("y", 1))]
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in (("w", weights[:, None]), ("b", np.array([bias])))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g", info[:1], info[1:], constants
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_what_rounding_leaves_of_a_sum_that_cancels_is_no_error() -> None:
    compile_proto(cancelling(), "cancelling", Options())


def test_rounding_is_the_last_bit_of_what_is_summed() -> None:
    weights = np.array([1000.0, -1000.0, 1.0])
    noise = rounding(lambda inputs: np.array([inputs[0] @ weights]), [np.array([1.0, 1.0, 0.5], np.float32)])
    assert 1e-4 < noise[0] < 1e-2


def test_what_is_looked_up_is_rounded_and_where_is_not() -> None:
    table = np.random.default_rng(2).standard_normal((7, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Gather", ["t", "i"], ["rows"]),
        onnx.helper.make_node("ReduceSum", ["rows"], ["y"], keepdims=0),
    ]
    info = [
        onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [1, 4]),
        onnx.helper.make_tensor_value_info("y", 1, []),
    ]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:], [onnx.numpy_helper.from_array(table, "t")])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    noise = network_noise(compile_proto(proto, "sum", Options()), np.array([6, 0, 3, 1], np.float32), None)
    assert 1e-7 < noise[0] < 1e-4


@pytest.mark.parametrize("activation", ["Sigmoid", "Gelu"])
def test_a_reference_that_is_rough_near_0_is_no_error(activation: str) -> None:
    """A detector that is sure: onnxruntime's sigmoid of -9 is off by a thousandth of itself."""
    weights = np.random.default_rng(3).standard_normal((6, 2)).astype(np.float32) / 8
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        onnx.helper.make_node(activation, ["z"], ["y"]),
    ]
    info = [onnx.helper.make_tensor_value_info(name, 1, [1, size]) for name, size in (("x", 6), ("y", 2))]
    constants = {"w": weights, "b": np.array([-9.0, -9.2] if activation == "Sigmoid" else [-5.5, -5.6], np.float32)}
    held = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:], held)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    x = np.ones((1, 6), np.float32)
    exact = 1 / (1 + np.exp(9.0 - x.astype(np.float64) @ weights[:, 0]))
    found = np.ravel(compile_proto(proto, "detector", Options()).predict(x))
    if activation == "Sigmoid":
        np.testing.assert_allclose(found[0], exact.item(), rtol=1e-5)
