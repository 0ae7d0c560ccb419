"""From allocated functions to bytes: branches of every reach, far data, big constants, every byte decoded again."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from gnu_assembler import assembled_bytes
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.parser import Parser

from ml4f.backend.thumb import control_forms as control
from ml4f.backend.thumb.decoder import decode_all
from ml4f.backend.thumb.encoding import addition_steps, constant_steps
from ml4f.backend.thumb.layout import Label, Line
from ml4f.backend.thumb.object_code import ObjectCode, assemble
from ml4f.dialects.thumb import Thumb
from ml4f.dialects.thumb.core_ops import AddImmOp, MovImmOp
from ml4f.dialects.thumb.structure import DataOp, make_data
from ml4f.errors import InternalError
from ml4f.machine import Machine
from ml4f.stalls import loop_reports

HEADER = (
    "builtin.module attributes {input_shapes = [[1 : i64]], output_shapes = [[1 : i64]], "
    "arena_bytes = 8 : i64, input_offsets = [0 : i64], output_offsets = [4 : i64]} {\n"
)


def parsed(text: str) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Thumb):
        context.load_dialect(dialect)
    module = Parser(context, HEADER + text + "}\n").parse_module()
    module.verify()
    return module


def called(kernel: str, callers: int = 1, data: str = "") -> str:
    """A program that calls @k(input, output); with several callers the kernel is a function of its own."""
    calls = ""
    for i in range(callers):
        calls += f"%x{i} = thumb.arena_address {{offset = 0}} : !thumb.r<r0>\n"
        calls += f"%y{i} = thumb.arena_address {{offset = 4}} : !thumb.r<r1>\n"
        calls += f"thumb.call @k(%x{i}, %y{i})\n"
    return f"thumb.func @main() attributes {{entry}} {{\n{calls}thumb.return\n}}\n{data}{kernel}"


def loop_of(instructions: int, narrow: int, trips: int) -> str:
    """A kernel that adds 1 to the input `instructions` times a trip; `narrow` 16-bit instructions stand in the way."""
    body = "".join(f"%s{i + 1} = thumb.vadd %s{i}, %one : !thumb.s<s0>\n" for i in range(instructions))
    body += "".join(f"%n{i} = thumb.mov_imm {{immediate = {i}}} : !thumb.r<r3>\n" for i in range(narrow))
    return f"""thumb.func @k(%x : !thumb.r<r0>, %y : !thumb.r<r1>) {{
  %first = thumb.vldr %x {{offset = 0, space = "arena"}} : !thumb.s<s0>
  %one = thumb.vmov_imm {{value = 1.0 : f32}} : !thumb.s<s1>
  %count = thumb.mov_imm {{immediate = {trips}}} : !thumb.r<r2>
  %end = thumb.loop %count carry (%s0 = %first : !thumb.s<s0>) -> !thumb.s<s0> {{
    {body}thumb.yield %s{instructions}
  }}
  thumb.vstr %end, %y {{offset = 0, space = "arena"}}
  thumb.return
}}
"""


def branch_of(code: ObjectCode) -> Line:
    return next(line for line in code.layout.lines() if line.form is control.BRANCH_IF)


@pytest.mark.parametrize("callers", [1, 2])
def test_branches_get_longer_where_they_must(callers: int, tmp_path: Path):
    """Around the 16-bit branch's reach of 252 bytes backward from its own address."""
    sizes = set()
    for instructions in range(60, 66):
        for narrow in range(3):
            code = assemble(parsed(called(loop_of(instructions, narrow, 5), callers)))
            branch = branch_of(code)
            target = next(item for item in code.layout.items if isinstance(item, Label) and item.is_loop)
            assert branch.row is not None
            distance = branch.address - target.address
            assert branch.row.size == (2 if distance <= 252 else 4), f"{distance} bytes back"
            sizes.add(branch.row.size)
            result = Machine(code.binary).run(np.array([0.5], np.float32))
            assert result[0] == 0.5 + 5 * instructions
    assert sizes == {2, 4}
    assert assembled_bytes(code.assembly("branches"), tmp_path) == code.binary


def test_a_branch_out_of_every_reach_is_refused():
    with pytest.raises(InternalError, match="cannot encode"):
        control.BRANCH_IF.select((1, -(1 << 20) - 2))


@pytest.mark.parametrize("padding", [0, 4, 4000, 4096, 70_000, 1_000_004, 16_777_300])
def test_data_far_behind_the_code_is_found(padding: int, tmp_path: Path):
    text = """thumb.func @main() attributes {entry} {
  %x = thumb.arena_address {offset = 4} : !thumb.r<r0>
  %w = thumb.data_address {symbol = @wanted} : !thumb.r<r1>
  thumb.call @k(%x, %w)
  thumb.return
}
thumb.data @wanted = dense<[0, 0, 32, 65]> : tensor<4xi8>
thumb.func @k(%y : !thumb.r<r0>, %w : !thumb.r<r1>) {
  %v = thumb.vldr %w {offset = 0, space = "const"} : !thumb.s<s0>
  thumb.vstr %v, %y {offset = 0, space = "arena"}
  thumb.return
}
"""
    module = parsed(text)
    wanted = next(op for op in module.body.block.ops if isinstance(op, DataOp))
    module.body.block.insert_op_before(make_data("zeros", bytes(padding), 4), wanted)
    code = assemble(module)
    assert Machine(code.binary).run(np.zeros(1, np.float32))[0] == 10.0
    if padding < 100_000:
        assert assembled_bytes(code.assembly("far data"), tmp_path) == code.binary


def test_any_constant_is_built_and_any_offset_is_added():
    rng = random.Random(0)
    amounts = [0, 1, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, (1 << 28) - 4]
    amounts += [rng.getrandbits(rng.randrange(1, 29)) for _ in range(3000)]
    for amount in amounts:
        steps = addition_steps(amount)
        assert sum(steps) == amount and len(steps) <= 3
        assert all(AddImmOp.FORM.accepts((0, 0, step)) for step in steps), amount
    for value in [*amounts, *(0xFFFFFFFF ^ amount for amount in amounts)]:
        (first, low), *rest = constant_steps(value)
        if rest:
            assert (first, rest[0][0]) == ("movw", "movt") and rest[0][1] << 16 | low == value
        else:
            assert low == value and MovImmOp.FORM.accepts((0, value)), value


def test_every_instruction_lies_where_the_layout_says():
    """Decoding the bytes gives the layout's instructions back; heads of loops that are wide stand on a word."""
    for instructions, narrow in ((3, 1), (64, 1), (70, 2)):
        code = assemble(parsed(called(loop_of(instructions, narrow, 3), 2)))
        layout = code.layout
        lines = list(layout.lines())
        decoded = decode_all(code.binary[layout.header_bytes : layout.data_start], layout.header_bytes)
        assert [(d.address, d.row.size) for d in decoded] == [
            (line.address, line.row.size) for line in lines if line.row
        ]
        assert [d.row.encode(d.values) for d in decoded] == [line.word for line in lines]
        for label, following in zip(layout.items, layout.items[1:], strict=False):
            if isinstance(label, Label) and isinstance(following, Line) and following.row and following.row.size == 4:
                assert label.address % 4 == 0, f"{label.name} is not aligned"


def loop_of_maxima(maxima: int, wide: int, behind: int, floats: bool) -> str:
    """A loop around another one, behind which `maxima` times the larger of two numbers is chosen.

    That is done in core registers by 6 bytes of code, of `floats` by 14.
    """
    inner = "".join(f"%s{i + 1} = thumb.vadd %s{i}, %one : !thumb.s<s0>\n" for i in range(wide))
    larger = '%u{} = thumb.vselect %u{}, %one, %u{}, %one {{predicate = "lt"}} : !thumb.s<s0>\n'
    body = "".join(
        larger.format(i + 1, i, i)
        if floats
        else f"""%a{i} = thumb.vmov_r_s %u{i} : !thumb.r<r3>
    %b{i} = thumb.vmov_r_s %one : !thumb.r<r4>
    %m{i} = thumb.select %a{i}, %b{i}, %a{i}, %b{i} {{predicate = "lt"}} : !thumb.r<r3>
    %u{i + 1} = thumb.vmov_s_r %m{i} : !thumb.s<s0>
    """
        for i in range(maxima)
    )
    body += "".join(f"%v{i + 1} = thumb.vadd %v{i}, %one : !thumb.s<s0>\n" for i in range(behind))
    return f"""thumb.func @k(%x : !thumb.r<r0>, %y : !thumb.r<r1>) {{
  %first = thumb.vldr %x {{offset = 0, space = "arena"}} : !thumb.s<s0>
  %one = thumb.vmov_imm {{value = 1.0 : f32}} : !thumb.s<s1>
  %count = thumb.mov_imm {{immediate = 3}} : !thumb.r<r2>
  %end = thumb.loop %count carry (%o = %first : !thumb.s<s0>) -> !thumb.s<s0> {{
    %trips = thumb.mov_imm {{immediate = 2}} : !thumb.r<r5>
    %u0 = thumb.loop %trips carry (%s0 = %o : !thumb.s<s0>) -> !thumb.s<s0> {{
      {inner}thumb.yield %s{wide}
    }}
    {body.replace("%v0", f"%u{maxima}")}thumb.yield %v{behind}
  }}
  thumb.vstr %end, %y {{offset = 0, space = "arena"}}
  thumb.return
}}
"""


@pytest.mark.parametrize("maxima", [1, 2, 3])
@pytest.mark.parametrize("wide", [3, 64])
@pytest.mark.parametrize("floats", [False, True])
def test_runs_of_wide_instructions_in_loops_lie_on_words(maxima: int, wide: int, floats: bool, tmp_path: Path):
    """The predicated move, the branch or the decrement in front of a run is widened, or IT is moved by a no-op."""
    code = assemble(parsed(called(loop_of_maxima(maxima, wide, 5, floats))))
    assert all(loop.steady_stalls["alignment"] == 0 for loop in loop_reports(code))
    assert Machine(code.binary).run(np.array([-9.5], np.float32))[0] == max(-9.5 + 2 * wide, 1) + 2 * 2 * wide + 15
    assert assembled_bytes(code.assembly("maxima"), tmp_path) == code.binary


def test_what_cannot_be_laid_out_is_said():
    with pytest.raises(InternalError, match="allocate registers first"):
        assemble(parsed(called(loop_of(3, 0, 2)).replace("!thumb.s<s1>", "!thumb.s")))
    with pytest.raises(InternalError, match="one entry function"):
        assemble(parsed(loop_of(3, 0, 2)))
    with pytest.raises(InternalError, match="a name that the layout uses"):
        assemble(parsed(called(loop_of(3, 0, 2)).replace("@k(", "@ml4f_entry(")))
