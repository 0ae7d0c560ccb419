"""The search's estimates against simulated cycles and encoded bytes, layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from shared_models import shared_models

from ml4f.backend.loop.pricing import Price, price
from ml4f.backend.thumb.object_code import assemble
from ml4f.compiler import Options, run_passes
from ml4f.dialects.loop.structure import CallOp, KernelOp, NestOp, ProgramOp
from ml4f.frontend.importer import import_onnx
from ml4f.machine import Machine
from ml4f.profile import profile, typical_input

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARED = [f"samples/{n}" for n in ("tfjsGest", "oneD", "noDsp", "microSpeech", "depth1", "dspDense", "avgPool")]
SHARED += [f"mlperf_tiny/{n}" for n in ("kws", "ad01", "sww", "resnet8")]

CYCLES = 0.02
MINOR, MINOR_CYCLES = 0.05, 0.1
"""A layer with less than 5 % of a model's cycles may be off by more, since its stalls depend on the scheduler."""
SMALL_CYCLES = 45
"""What a kernel of a few hundred cycles may be off: an address, a divider that the kernel before left busy."""
CODE = 0.08
SMALL_CODE = 28


def priced_layers(path: Path, float16: bool = False) -> list[tuple[str, Price, int, int]]:
    """(kernel, estimate, simulated cycles, bytes of code) of every call of a model compiled by default."""
    passes = Options(float16=float16).pipeline()
    module = import_onnx(onnx.load(path), path.stem)
    split = passes.index("loop-plan-memory") + 1
    run_passes(module, passes[:split])
    prices: dict[str, Price] = {}
    order: list[str] = []
    for op in module.body.block.ops:
        if isinstance(op, KernelOp):
            nest = op.body.block.first_op
            assert isinstance(nest, NestOp) and nest.schedule is not None
            found = price(nest.nest.data, nest.schedule.data)
            assert found is not None and found.feasible
            prices[op.sym_name.data] = found
        elif isinstance(op, ProgramOp):
            order = [c.callee.root_reference.data for c in op.body.block.ops if isinstance(c, CallOp)]
    run_passes(module, passes[split:])
    code = assemble(module)
    machine = Machine(code.binary, path.stem)
    measured = profile(machine, typical_input(machine), code.layout.calls)
    layers = []
    for name, site, cycles in zip(order, code.layout.calls, measured.calls, strict=True):
        start, end = code.layout.functions.get(site.callee, (0, 0))
        layers.append((name, prices[name], cycles, site.end - site.start + end - start))
    return layers


def check(path: Path, float16: bool = False) -> None:
    layers = priced_layers(path, float16)
    total = sum(cycles for _, _, cycles, _ in layers)
    assert total and sum(e.cycles for _, e, _, _ in layers) == pytest.approx(total, rel=CYCLES, abs=SMALL_CYCLES)
    off = []
    for name, estimate, cycles, code in layers:
        allowed = CYCLES if cycles > MINOR * total else MINOR_CYCLES
        if abs(estimate.cycles - cycles) > max(allowed * cycles, SMALL_CYCLES):
            off.append(f"{name}: {estimate.cycles:.0f} cycles estimated, {cycles} simulated")
        if abs(estimate.code_bytes - code) > max(CODE * code, SMALL_CODE):
            off.append(f"{name}: {estimate.code_bytes} bytes of code estimated, {code} encoded")
    assert not off, "\n".join(off)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/*.onnx")), ids=lambda path: path.stem)
def test_estimates_of_examples(path: Path):
    check(path)


@pytest.mark.parametrize("name", SHARED)
def test_estimates_of_shared_models(name: str):
    models = shared_models()
    if models is None:
        pytest.skip("the shared models are not there (ML4F_SHARED)")
    check(models / f"{name}.onnx")


@pytest.mark.parametrize("name", ["samples/oneD", "trained/digits_conv2d", "trained/digits_dw2d"])
def test_estimates_with_float16_weights(name: str):
    models = shared_models()
    if models is None:
        pytest.skip("the shared models are not there (ML4F_SHARED)")
    check(models / f"{name}.onnx", float16=True)


def test_estimates_of_copies(tmp_path: Path):
    """Shuffled channels, and pixels that are repeated: loads and stores with nothing to stand between."""
    vector = onnx.helper.make_tensor_value_info
    numbers = {"split": [1, 2, 8, 9, 9], "joined": [1, 16, 9, 9], "scales": [1, 1, 2, 2]}
    constants = [
        onnx.numpy_helper.from_array(np.array(v, np.float32 if name == "scales" else np.int64), name)
        for name, v in numbers.items()
    ]
    nodes = [
        onnx.helper.make_node("Reshape", ["x", "split"], ["a"]),
        onnx.helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        onnx.helper.make_node("Reshape", ["b", "joined"], ["c"]),
        onnx.helper.make_node("Sqrt", ["c"], ["d"]),
        onnx.helper.make_node(
            "Resize", ["d", "", "scales"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        ),
    ]
    ends = [
        vector(name, onnx.TensorProto.FLOAT, shape) for name, shape in (("x", [1, 16, 9, 9]), ("y", [1, 16, 18, 18]))
    ]
    graph = onnx.helper.make_graph(nodes, "copies", ends[:1], ends[1:], constants)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "copies.onnx")
    check(tmp_path / "copies.onnx")


def test_estimates_of_rows_out_of_reach(tmp_path: Path):
    """Six rows of 1,920 bytes, three apart, are more than four pointers reach without being moved."""
    vector, float_ = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(5).normal(0, 0.3, (96, 1, 3, 3)).astype(np.float32)
    conv = {"kernel_shape": [3, 3], "strides": [3, 3], "group": 96}
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["t", "w"], ["c"], **conv),
        onnx.helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    ends = [vector("x", float_, [1, 20, 5, 96]), vector("y", float_, [1, 6, 1, 96])]
    graph = onnx.helper.make_graph(nodes, "far", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "far.onnx")
    check(tmp_path / "far.onnx")
