"""Random kernels through every pass: the result after each pass, and that of the machine code, against the nest in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from nests import LOOP_PASSES, apply, compile_module, kernel_module, random_kernel

from ml4f.interpreters.loop import run_loop
from ml4f.machine import Machine


@pytest.mark.parametrize("seed", range(60))
def test_every_pass_keeps_the_result(seed: int):
    rng = np.random.default_rng(seed)
    nest, constants, sizes = random_kernel(rng)
    module = kernel_module(nest, constants, sizes)
    module.verify()
    x = rng.standard_normal(sizes["x"]).astype(np.float32)
    reference = run_loop(module, [x])[0]
    result = reference
    for name in LOOP_PASSES:
        apply(module, name)
        module.verify()
        result = run_loop(module, [x])[0]
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5, err_msg=f"after {name}")
    code = compile_module(module)
    module.verify()
    machine = Machine(code.binary)
    np.testing.assert_array_equal(machine.run(x), result, err_msg="the machine code must equal the loop level bit for bit")
