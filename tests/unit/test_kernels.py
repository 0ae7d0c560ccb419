"""Random kernels through every pass: each pass's result, and that of the machine code, against the nest in numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from nests import LOOP_PASSES, apply, compile_module, kernel_module, random_elementwise, random_kernel, random_pooled
from xdsl.dialects.builtin import ModuleOp

from ml4f import pipelines
from ml4f.backend.loop import kernels
from ml4f.backend.loop.candidates import candidates
from ml4f.backend.loop.channelwise import channelwise_schedules
from ml4f.backend.loop.elementary import ACTIVATIONS
from ml4f.backend.loop.folding import folded_schedules
from ml4f.backend.loop.fusion import fuse_pool
from ml4f.backend.loop.nest import Combine, Step
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.schedules import FEW_VALUES, mac_schedule
from ml4f.backend.loop.tiles import plane_tiles
from ml4f.backend.thumb.object_code import assemble
from ml4f.compiler import run_passes
from ml4f.dialects.loop.attributes import ScheduleAttr
from ml4f.dialects.loop.structure import NestOp
from ml4f.interpreters.execute import input_sizes
from ml4f.interpreters.loop import run_loop
from ml4f.machine import Machine
from ml4f.profile import profile


def check(module: ModuleOp, passes: tuple[str, ...], rng: np.random.Generator, size: int) -> None:
    """Every pass keeps the result; the machine code has the loop level's bits."""
    module.verify()
    x = rng.standard_normal(size).astype(np.float32)
    reference = run_loop(module, [x])[0]
    result = reference
    for name in passes:
        apply(module, name)
        module.verify()
        result = run_loop(module, [x])[0]
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5, err_msg=f"after {name}")
    code = compile_module(module)
    module.verify()
    machine = Machine(code.binary)
    np.testing.assert_array_equal(
        machine.run(x), result, err_msg="the machine code must equal the loop level bit for bit"
    )


@pytest.mark.parametrize("seed", range(60))
def test_every_pass_keeps_the_result(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    check(kernel_module(nest, constants, sizes), LOOP_PASSES, rng, sizes["x"])


@pytest.mark.parametrize("seed", range(60))
def test_pools_are_fused_and_keep_the_result(seed: int):
    rng = np.random.default_rng(seed)
    module, apart = random_pooled(rng)
    size = input_sizes(module)[0]
    check(module, ("loop-fuse-pool", *LOOP_PASSES), rng, size)
    calls = [op for op in module.walk() if op.name == "thumb.call"]
    assert len(calls) == 1 or not apart


@pytest.mark.parametrize("seed", range(40))
def test_elementwise_kernels_are_fused_and_keep_the_result(seed: int):
    rng = np.random.default_rng(seed)
    module = random_elementwise(rng)
    before = sum(op.name == "loop.call" for op in module.walk())
    check(module, ("loop-fuse-elementwise", "loop-fuse-pool", *LOOP_PASSES), rng, input_sizes(module)[0])
    assert sum(op.name == "thumb.call" for op in module.walk()) == before - 1


@pytest.mark.parametrize("combine", ["add", "square", "max", "min", "mul"])
@pytest.mark.parametrize(("shape", "axes"), [([5, 12], [1]), ([7, 3, 4], [0, 2]), ([4, 6, 5], [1])])
def test_reductions(combine: Combine, shape: list[int], axes: list[int]):
    nest = kernels.reduce_axes(combine, shape, axes, [Step("mul", parameters=(0.5,))])
    out = math.prod(n for i, n in enumerate(shape) if i not in axes)
    size = math.prod(shape)
    check(kernel_module(nest, {}, {"x": size, "out": out}), LOOP_PASSES, np.random.default_rng(0), size)


COSTLY = sorted(name for name, info in ACTIVATIONS.items() if info.live > FEW_VALUES and name != "exp_nonpositive")


@pytest.mark.parametrize("name", COSTLY)
def test_costly_functions_find_registers_without_search_and_scheduler(name: str):
    parameters = {"elu": (1.0,), "celu": (1.5,), "selu": (1.7, 1.1)}.get(name, ())
    nest = kernels.elementwise([9], [1], epilogue=[Step("activation", None, name, parameters)])
    module = kernel_module(nest, {}, {"x": 9, "out": 9})
    run_passes(module, pipelines.UNOPTIMIZED[1:])
    x = np.linspace(1.1, 2.0, 9).astype(np.float32) if name == "acosh" else np.linspace(-0.9, 0.9, 9).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = ACTIVATIONS[name].reference(x.astype(np.float64), *parameters)
    result = Machine(assemble(module).binary).run(x)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-30)


def test_parameters_of_channels_stay_in_registers_while_rows_go_by():
    """213 rows of 15 channels, scaled and shifted: 4 cycles an element are the floor (load, multiply, add, store)."""
    rng = np.random.default_rng(0)
    steps = [Step("mul", "scale"), Step("add", "offset")]
    nest = kernels.elementwise([213, 15], [15, 1], [("scale", [0, 1]), ("offset", [0, 1])], steps)
    constants = {role: rng.standard_normal(15) for role in ("scale", "offset")}
    module = kernel_module(nest, constants, {"x": 3195, "out": 3195})
    apply(module, *LOOP_PASSES)
    names = [op.name for op in module.walk()]
    assert "loop.store_multiple" in names
    code = compile_module(module)
    x = rng.standard_normal(3195).astype(np.float32)
    assert profile(Machine(code.binary), x, code.layout.calls).total < 4.8 * 3195


@pytest.mark.parametrize(
    ("activation", "parameters", "cycles"),
    [("relu6", (), 6.2), ("clip", (-1.0, 1.0), 7.3), ("hard_sigmoid", (0.2, 0.5), 11), ("leaky_relu", (0.1,), 8)],
)
def test_limits_compare_bit_patterns(activation: str, parameters: tuple[float, ...], cycles: float):
    """Load, one or two cycles for each limit, store: 13 to 17 cycles an element where floats are compared."""
    rng = np.random.default_rng(0)
    nest = kernels.elementwise([503], [1], epilogue=[Step("activation", None, activation, parameters)])
    check(kernel_module(nest, {}, {"x": 503, "out": 503}), LOOP_PASSES, rng, 503)
    module = kernel_module(nest, {}, {"x": 503, "out": 503})
    apply(module, *LOOP_PASSES)
    code = compile_module(module)
    x = 8 * rng.standard_normal(503).astype(np.float32)
    machine = Machine(code.binary)
    expected = ACTIVATIONS[activation].reference(x.astype(np.float64), *parameters)
    np.testing.assert_allclose(machine.run(x), expected, rtol=1e-6, atol=1e-7)
    assert profile(machine, x, code.layout.calls).total < cycles * 503


def test_sums_are_streamed():
    rng = np.random.default_rng(0)
    nest = kernels.elementwise([1000], [1], [("other", [1])], [Step("add", "other")])
    other = rng.standard_normal(1000).astype(np.float32)
    module = kernel_module(nest, {"other": other}, {"x": 1000, "out": 1000})
    check(module, LOOP_PASSES, rng, 1000)


def test_convolutions_of_volumes():
    """Random ones with every kind of schedule, whose guards mention up to three parallel dims."""
    folded = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        size, kernel = [int(n) for n in rng.integers(2, 6, 3)], [int(n) for n in rng.integers(1, 4, 3)]
        strides, dilations = [int(n) for n in rng.integers(1, 3, 3)], [1, 1, int(rng.integers(1, 3))]
        pads = [int(rng.integers(0, k)) for k in kernel * 2]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        out = [(size[i] + pads[i] + pads[i + 3] - reach[i]) // strides[i] + 1 for i in range(3)]
        if min(out) < 1:
            continue
        shapes = [*size, 2], [*kernel, 2, 4], [*out, 4]
        nest = kernels.conv3d(*shapes, strides, dilations, pads, 1, False)
        constants = {"w": rng.standard_normal(8 * math.prod(kernel))}
        found = [candidate.schedule for candidate in candidates(nest)]
        narrow = [s for s in folded_schedules(nest) if (p := price(nest, s)) is not None and p.feasible]
        for schedule in [*found[seed % len(found) :][:1], *narrow[len(narrow) // 2 :][:1]]:
            module = kernel_module(nest, constants, {"x": 2 * math.prod(size), "out": 4 * math.prod(out)})
            next(op for op in module.walk() if isinstance(op, NestOp)).properties["schedule"] = ScheduleAttr(schedule)
            check(module, LOOP_PASSES, rng, 2 * math.prod(size))
        folded += bool(narrow)
    assert folded > 2


@pytest.mark.parametrize(
    ("size", "kernel", "channels", "stride", "pad", "relu"),
    [(15, 15, 37, 1, 0, False), (6, 3, 16, 3, 0, True), (4, 3, 12, 2, 1, True), (2, 2, 9, 1, 0, False)],
)
def test_tiles_of_channels(size: int, kernel: int, channels: int, stride: int, pad: int, relu: bool):
    """Every such schedule of depthwise layers with few pixels: remainders, paddings, multiple loads and single ones."""
    out = (size + pad - kernel) // stride + 1
    steps = [Step("activation", None, "relu")] if relu else []
    shapes = [size, 1, channels], [kernel, 1, channels, 1], [out, 1, channels]
    nest = kernels.depthwise_conv2d(*shapes, [stride, 1], [1, 1], [0, 0, pad, 0], True, steps)
    rng = np.random.default_rng(size)
    constants = {"w": rng.standard_normal(kernel * channels), "bias": rng.standard_normal(channels)}
    x = rng.standard_normal(size * channels).astype(np.float32)
    module = kernel_module(nest, constants, {"x": x.size, "out": out * channels})
    reference = run_loop(module, [x])[0]
    schedules = list(dict.fromkeys(channelwise_schedules(nest)))
    assert len(schedules) >= 6
    for schedule in schedules[::2]:
        scheduled = module.clone()
        next(op for op in scheduled.walk() if isinstance(op, NestOp)).properties["schedule"] = ScheduleAttr(schedule)
        apply(scheduled, *LOOP_PASSES)
        result = Machine(compile_module(scheduled).binary).run(x)
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5, err_msg=str(schedule))


def test_narrow_outputs_are_folded():
    """Every folded schedule of random narrow convolutions that fits the registers, forwards and backwards."""
    tried = skewed = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        h, w, c, f, kh, kw, slide = (int(rng.integers(1, n)) for n in (12, 5, 4, 9, 5, 6, 3))
        pads = [int(rng.integers(0, n)) for n in (kh, kw, kh, kw)]
        out = [h + pads[0] + pads[2] - kh + 1, (w + pads[1] + pads[3] - kw) // slide + 1, f]
        if min(out) < 1:
            continue
        bias = seed % 2 == 0
        nest = kernels.conv2d([h, w, c], [kh, kw, c, f], out, [1, slide], [1, 1], pads, 1, bias)
        constants = {"w": rng.standard_normal(kh * kw * c * f)} | ({"bias": rng.standard_normal(f)} if bias else {})
        sizes = {"x": h * w * c, "out": out[0] * out[1] * f}
        schedules = list(folded_schedules(nest))
        if not schedules:
            continue
        for schedule in (schedules[int(i)] for i in rng.integers(0, len(schedules), 2)):
            if seed % 3 == 0:
                schedule = replace(schedule, reverse=tuple(d for d, _ in schedule.loops if d in ("oy", "ox")))
            result = price(nest, schedule)
            if result is None or not result.feasible:
                continue
            module = kernel_module(nest, constants, sizes)
            next(op for op in module.walk() if isinstance(op, NestOp)).properties["schedule"] = ScheduleAttr(schedule)
            check(module, LOOP_PASSES, rng, sizes["x"])
            tried += 1
            skewed += schedule.skew is not None
    assert tried > 30 and skewed >= 10


def test_a_pool_larger_than_its_input_is_fused():
    """A window of two over one column, behind a convolution: the second column does not exist, nor do its weights."""
    producer = kernels.depthwise_conv2d((1, 3, 5), (1, 3, 5, 2), (1, 1, 10), (1, 1), (1, 1), (0, 0, 0, 0), True)
    pool = kernels.pool2d("add", (1, 1, 10), (1, 2), (1, 1, 10), (1, 2), (1, 1), (0, 0, 0, 1))
    assert pool.terms() == 10 and not pool.guards
    fused = fuse_pool(producer, pool)
    assert fused is not None and not fused.pool_guards and not fused.window_dims


def test_tiles_of_several_rows():
    """Random small images, with padding and strides: every pass keeps the result of a tile of whole rows."""
    tried = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        size, kernel = [int(n) for n in rng.integers(3, 9, 2)], [int(n) for n in rng.integers(1, 4, 2)]
        channels, filters, stride = int(rng.integers(1, 4)), int(rng.integers(2, 8)), int(rng.integers(1, 3))
        pads = [int(rng.integers(0, k)) for k in kernel * 2]
        out = [(size[i] + pads[i] + pads[i + 2] - kernel[i]) // stride + 1 for i in range(2)]
        shapes = [*size, channels], [*kernel, channels, filters], [*out, filters]
        nest = kernels.conv2d(*shapes, [stride] * 2, [1, 1], pads, 1, False) if min(out) > 0 else None
        for tiles in [] if nest is None else list(plane_tiles(nest))[seed % 3 :][:1]:
            schedule = mac_schedule(nest, dict(tiles), 9 * int(rng.integers(1, 3)), use_trim=False)
            cost = price(nest, schedule)
            if cost is None or not cost.feasible:
                continue
            module = kernel_module(
                nest,
                {"w": rng.standard_normal(math.prod(kernel) * channels * filters)},
                {"x": math.prod(size) * channels, "out": math.prod(out) * filters},
            )
            next(op for op in module.walk() if isinstance(op, NestOp)).properties["schedule"] = ScheduleAttr(schedule)
            check(module, LOOP_PASSES, rng, math.prod(size) * channels)
            tried += 1
    assert tried > 5
