"""The compiler's count of cycles against a second, independent one: rule by rule on blocks, and on whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cycle_simulator import BRANCH_REFILL, Decoder, Simulator, simulate
from nests import LOOP_PASSES, apply, compile_module, kernel_module, random_kernel

import ml4f
from ml4f.backend.thumb.cycles import CycleCounter
from ml4f.backend.thumb.decoder import decode_all
from ml4f.errors import InternalError
from ml4f.machine import Machine
from ml4f.profile import M4_RULES, profile

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"

RULES = [
    ("alu", "add r0, r1, r2; mul r0, r0, r3; eor.w r4, r5, r6", "01eb020000fb03f085ea0604", 3),
    ("three cycles a multiply-accumulate", "vfma.f32 s0, s1, s2; vmla.f32 s3, s4, s5", "a0ee810a42ee221a", 6),
    ("result used at once", "vmul.f32 s0, s1, s2; vadd.f32 s3, s3, s0", "20ee810a71ee801a", 3),
    (
        "result used one later",
        "vmul.f32 s0, s1, s2; vmul.f32 s4, s1, s2; vadd.f32 s3, s3, s0",
        "20ee810a20ee812a71ee801a",
        3,
    ),
    (
        "result as the addend of a multiply-accumulate",
        "vadd.f32 s0, s1, s2; vmla.f32 s0, s4, s5",
        "30ee810a02ee220a",
        4,
    ),
    (
        "result as the factor of a multiply-accumulate",
        "vadd.f32 s4, s1, s2; vmla.f32 s0, s4, s5",
        "30ee812a02ee220a",
        5,
    ),
    ("result stored at once", "vadd.f32 s0, s1, s2; vstr s0, [r0]", "30ee810a80ed000a", 4),
    ("absolute value used at once", "vabs.f32 s0, s1; vadd.f32 s2, s0, s3", "b0eee00a30ee211a", 3),
    ("moved value used at once", "vmov.f32 s0, s1; vadd.f32 s2, s0, s3", "b0ee600a30ee211a", 2),
    ("chain of loads", "ldr r0, [r1]; vldr s0, [r1, #4]; ldr r2, [r1, #8]", "086891ed010a8a68", 4),
    ("load whose address was loaded", "ldr r0, [r1]; ldr r2, [r0]", "08680268", 5),
    ("load whose address was written back", "ldr r0, [r1], #4; ldr r2, [r1]", "51f8040b0a68", 5),
    ("address computed directly before", "add r0, r0, #4; ldr r1, [r0]; nop; str r1, [r0]", "00f10400016800bf0160", 6),
    ("address of a store computed directly before", "add r0, r0, #4; str r1, [r0]", "00f104000160", 3),
    ("load behind a store", "str r0, [r1]; ldr r2, [r1, #4]", "08604a68", 4),
    ("loads of several behind a store", "vstr s0, [r1]; vldmia r2!, {s0-s3}", "81ed000ab2ec040a", 8),
    ("stores", "str r0, [r1]; str r0, [r1, #4]; vstr s0, [r1, #8]", "0860486081ed020a", 4),
    ("load of several", "vldmia r0!, {s0-s6}; vldr s8, [r0]", "b0ec070a90ed004a", 11),
    ("two registers", "vmov r0, r1, s0, s1; vmov s0, s1, r0, r1", "51ec100a41ec100a", 4),
    (
        "division and integers",
        "vdiv.f32 s0, s1, s2; add r0, r0, r1; add r0, r0, r1; vadd.f32 s3, s3, s4",
        "80ee810a0844084471ee821a",
        15,
    ),
    ("division and its store", "vdiv.f32 s0, s1, s2; vstr s0, [r0]", "80ee810a80ed000a", 17),
    ("division and a load", "vdiv.f32 s0, s1, s2; vldr s3, [r0]", "80ee810ad0ed001a", 16),
    ("integer division", "sdiv r0, r1, r2; udiv r3, r4, r5", "91fbf2f0b4fbf5f3", 14),
    ("IT behind 16 bits", "cmp r0, r1; it lt; movlt r2, r3", "8842b8bf1a46", 2),
    ("IT behind 32 bits", "cmp.w r8, r9; it lt; movlt r2, r3", "b8eb090fb8bf1a46", 3),
    (
        "wide instructions off their words",
        "nop; add.w r8, r9, r10; add.w r8, r9, r10; add.w r8, r9, r10; add.w r8, r9, r10",
        "00bf09eb0a0809eb0a0809eb0a0809eb0a08",
        7,
    ),
    (
        "two wide instructions off their words",
        "nop; add.w r8, r9, r10; add.w r8, r9, r10; nop; add.w r8, r9, r10",
        "00bf09eb0a0809eb0a0800bf09eb0a08",
        5,
    ),
    ("stack", "push {r0, r1, r4, lr}; vpush {s16-s19}; ldr r0, [sp]", "13b52ded048a0098", 15),
]
"""What it shows, GNU as source, the bytes that GNU as makes of it, and the cycles by the table, added up by hand."""

TOLERANCE = 0.01
FEW_CYCLES = 12
"""Kernels of a few hundred cycles: what is left of a division may be counted at the end of a block or not."""


def simulated_block(code: bytes) -> int:
    simulator = Simulator(Decoder(code, 0))
    address = 0
    while address < len(code):
        simulator.step(address)
        address = simulator.before_end
    return simulator.finish() - BRANCH_REFILL


@pytest.mark.parametrize(("text", "code", "cycles"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rule(text: str, code: str, cycles: int):
    assert simulated_block(bytes.fromhex(code)) == cycles, f"the simulator on: {text}"
    try:
        decode_all(bytes.fromhex(code), 0)
    except InternalError:
        return  # an instruction that the compiler never makes: its counter has nothing to say
    counter = CycleCounter(bytes.fromhex(code), M4_RULES)
    assert counter.block(-1, -1, 0, len(bytes.fromhex(code))) == cycles, f"the compiler's counter on: {text}"


def assert_agree(binary: bytes, seed: int = 0) -> None:
    machine = Machine(binary)
    x = np.random.default_rng(seed).standard_normal(machine.header.input_shape).astype(np.float32)
    counted = profile(machine, x).total
    simulated, _ = simulate(binary, x)
    assert abs(counted - simulated) <= max(FEW_CYCLES, TOLERANCE * simulated), f"{counted}, simulated {simulated}"


@pytest.mark.parametrize("seed", range(12))
def test_random_kernels(seed: int):
    rng = np.random.default_rng(seed)
    module = kernel_module(*random_kernel(rng))
    apply(module, *LOOP_PASSES)
    assert_agree(compile_module(module).binary)


@pytest.mark.parametrize("name", ["cancer_mlp.onnx", "digits_conv2d.keras", "iris_mlp.tfjs"])
@pytest.mark.parametrize("float16", [False, True])
def test_models(name: str, float16: bool):
    assert_agree(ml4f.compile(EXAMPLES / name, validate=False, float16=float16).binary)
