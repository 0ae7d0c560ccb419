"""The schedule search: fronts of candidates, and the choice for all nests of a program together."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from nests import random_kernel

from ml4f.backend.loop import kernels
from ml4f.backend.loop.candidates import candidates
from ml4f.backend.loop.folding import folded_schedules
from ml4f.backend.loop.nest import Nest, Step
from ml4f.backend.loop.pricing import price
from ml4f.backend.loop.schedules import mac_schedule, split_taps
from ml4f.backend.loop.search import CYCLES_OF_FASTEST, FIXED_BYTES, FLASH_PAGE, Goal, choose, convex, halved_bytes
from ml4f.backend.loop.tiles import plane_tiles

RELU = [Step("activation", None, "relu")]


def convolution(rows: int, filters: int = 16) -> Nest:
    """A one-dimensional convolution with a window of 2 over 16 channels."""
    shape, kernel, out = [rows + 1, 1, 16], [2, 1, 16, filters], [rows, 1, filters]
    return kernels.conv2d(shape, kernel, out, [1, 1], [1, 1], [0] * 4, 1, True, RELU)


@pytest.mark.parametrize("seed", range(12))
def test_a_front_trades_cycles_for_code(seed: int):
    nest, _, _ = random_kernel(np.random.default_rng(seed))
    front = candidates(nest)
    cycles, code = [c.cycles for c in front], [c.code_bytes for c in front]
    assert cycles == sorted(cycles) and code == sorted(code, reverse=True) and len(set(code)) == len(code)
    hull = convex(front)
    assert hull[0] == front[0] and hull[-1] == front[-1] and set(hull) <= set(front)
    rates = [(a.code_bytes - b.code_bytes) / (b.cycles - a.cycles) for a, b in itertools.pairwise(hull)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    "nest", [convolution(22), convolution(21), convolution(47, 13), kernels.dense(1, 128, 40, True)]
)
def test_derived_prices_are_those_of_an_expansion(nest: Nest):
    for candidate in candidates(nest):
        exact = price(candidate.nest, candidate.schedule)
        assert exact is not None and exact.feasible
        assert candidate.cycles == pytest.approx(exact.cycles, rel=0.015)
        assert candidate.code_bytes == pytest.approx(exact.code_bytes, rel=0.04)


def test_goals_take_the_cycles_they_may_and_no_more():
    nests = [convolution(22), convolution(21), kernels.dense(1, 336, 4, True)]
    goals: list[Goal] = ["speed", "balanced", "size"]
    chosen = {goal: choose(nests, goal) for goal in goals}
    for goal, choice in chosen.items():
        assert choice.totals.cycles <= CYCLES_OF_FASTEST[goal] * choice.fastest.cycles
    sizes = [chosen[goal].totals.code_bytes for goal in goals]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


def test_code_within_a_limit_is_as_fast_as_single_exchanges_make_it():
    nests = [convolution(22), convolution(21), kernels.dense(1, 336, 4, True)]
    cycles = []
    for limit in (900, 1200, 1800, 2500):
        choice = choose(nests, max_code=limit)
        totals = choice.totals
        assert totals.code_bytes <= limit
        cycles.append(totals.cycles)
        for nest, now in choice.candidates.items():
            faster = [c for c in candidates(nest) if c.cycles < now.cycles]
            assert all(totals.code_bytes + c.code_bytes - now.code_bytes > limit for c in faster)
    assert cycles == sorted(cycles, reverse=True) and len(set(cycles)) == len(cycles)
    smallest = choose(nests, max_code=1).totals
    assert smallest.code_bytes == FIXED_BYTES + sum(candidates(n)[-1].code_bytes for n in nests)


def test_equal_nests_are_one_kernel():
    """What counts is code a program: a nest used four times is worth more code than one used once."""
    often, once = convolution(22), convolution(21)
    choice = choose([often] * 50 + [once])
    assert choice.candidates[often].code_bytes > choice.candidates[once].code_bytes
    alone, twice = choose([often]), choose([often, often])
    assert twice.totals.code_bytes == alone.totals.code_bytes
    assert twice.totals.cycles == 2 * alone.totals.cycles


def test_taps_are_split_from_channels():
    nest = convolution(22)
    assert nest.reduction == (("c", 32),)
    split = split_taps(nest)
    assert split is not None and sorted(n for _, n in split.reduction) == [2, 16]
    assert {o.role: o.map.constant for o in split.operands} == {o.role: o.map.constant for o in nest.operands}
    assert split_taps(kernels.dense(5, 32, 8, True)) is None


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (7, 1), (5, 2)])
def test_pixels_of_padded_one_dimensional_layers_share_weights(window: int, stride: int):
    """The borders have code of their own: a table of them, as for rows, would leave no dim for a tile of pixels."""
    rows, pad = 64 // stride, (window - stride) // 2
    pads = [pad, 0, window - stride - pad, 0]
    nest = kernels.conv2d([64, 1, 12], [window, 1, 12, 16], [rows, 1, 16], [stride, 1], [1, 1], pads, 1, True, RELU)
    choice = choose([nest])
    assert choice.totals.cycles < 2.75 * rows * window * 12 * 16
    assert choice.totals.code_bytes < 5000


def test_padded_columns_have_small_code_where_that_is_wanted():
    """Left and right share a loop over taps, instead of code of their own each."""
    nest = kernels.conv2d([49, 40, 1], [10, 8, 1, 8], [25, 20, 8], [2, 2], [1, 1], [4, 3, 5, 3], 1, True, RELU)
    small, fast = choose([nest], "size").totals, choose([nest], "speed").totals
    assert small.code_bytes < 1100 and small.cycles < 1.35 * fast.cycles


def test_folding_is_for_the_narrowest_outputs():
    """A whole row of more than three pixels is a tile; code for each column would be large and slow to price."""
    width = {n: kernels.conv2d([9, n, 2], [3, 3, 2, 4], [9, n, 4], [1, 1], [1, 1], [1] * 4, 1, True) for n in (3, 4)}
    assert list(folded_schedules(width[3])) and not list(folded_schedules(width[4]))


def test_float16_spends_part_of_what_its_weights_save():
    whole, half = (
        [replace(n, operands=tuple(replace(o, element=e) if o.role == "w" else o for o in n.operands)) for n in nests]
        for nests in ([convolution(22), convolution(21), kernels.dense(1, 336, 4, True)],)
        for e in ("f32", "f16")
    )
    totals = choose(whole).totals, choose(half).totals
    assert totals[1].cycles < 1.05 * totals[0].cycles
    assert totals[1].code_bytes < totals[0].code_bytes + sum(halved_bytes(n) for n in half)
    assert not any(halved_bytes(n) for n in whole)


def halved(nest: Nest) -> Nest:
    """The nest with float16 weights."""
    return replace(nest, operands=tuple(replace(o, element="f16") if o.role == "w" else o for o in nest.operands))


def square(size: int, window: int, channels: int, filters: int, stride: int = 1, pad: int = 0) -> Nest:
    """A two-dimensional convolution of a square image."""
    out = (size + 2 * pad - window) // stride + 1
    shapes = [size, size, channels], [window, window, channels, filters], [out, out, filters]
    return kernels.conv2d(*shapes, [stride] * 2, [1, 1], [pad] * 4, 1, True, RELU)


def line(size: int, window: int, channels: int, filters: int, stride: int = 1) -> Nest:
    """A one-dimensional convolution without padding."""
    out = (size - window) // stride + 1
    shapes = [size, 1, channels], [window, 1, channels, filters], [out, 1, filters]
    return kernels.conv2d(*shapes, [stride, 1], [1, 1], [0] * 4, 1, True, RELU)


def depthwise(size: int, channels: int, stride: int = 1) -> Nest:
    out = (size - 1) // stride + 1
    shapes = [size, size, channels], [3, 3, channels, 1], [out, out, channels]
    return kernels.depthwise_conv2d(*shapes, [stride] * 2, [1, 1], [1] * 4, True, RELU)


@pytest.mark.parametrize(
    "nest",
    [
        square(4, 3, 3, 8, pad=1),
        square(5, 3, 16, 16),
        square(11, 5, 16, 16, 3),
        square(5, 1, 3, 8),
        line(10, 5, 3, 8),
        line(16, 3, 32, 64, 2),
        depthwise(4, 8),
        depthwise(7, 16, 2),
    ],
    ids=["3x3 same 4x4", "3x3 valid 5x5", "5x5 s3", "1x1 5x5", "1d k5", "1d k3 s2", "dw 4x4", "dw s2 7x7"],
)
def test_float16_costs_little_on_small_images(nest: Nest):
    """Conversions are shared by all pixels of several rows, and by tiles of an odd number of filters, too."""
    whole, half = choose([nest]), choose([halved(nest)])
    assert all(c.nest.by_role["w"].element == "f16" for c in half.candidates.values())
    assert half.totals.cycles < 1.05 * whole.totals.cycles


def test_float16_of_four_pixels_costs_the_conversions():
    """Each weight is loaded once; half a cycle more for it is all, though that is a twentieth here."""
    nest = square(4, 3, 16, 16)
    whole, half = candidates(nest, 0, False)[0], candidates(halved(nest), 0, False)[0]
    assert half.cycles - whole.cycles < 0.51 * 9 * 16 * 16


def test_float16_comes_near_float32_where_that_takes_code():
    """A dense layer costs a sixth more; what the others can make up for is worth some code."""
    nests = [line(10, 5, 8, 8), kernels.dense(1, 48, 5, True)]
    whole, half = choose(nests).totals, choose([halved(n) for n in nests]).totals
    assert half.cycles < 1.05 * whole.cycles and half.code_bytes < whole.code_bytes + FLASH_PAGE / 2


def test_tiles_of_several_rows_are_for_narrow_rows():
    nest = square(4, 3, 8, 16)
    tiles = list(plane_tiles(nest))
    assert tiles and all(dict(t)["oy"] == dict(t)["ox"] == 2 for t in tiles)
    assert all(dict(t)["oy"] * dict(t)["ox"] * dict(t)["f"] < 31 for t in plane_tiles(square(6, 3, 8, 16)))
    assert not list(plane_tiles(square(8, 3, 8, 16))) and not list(plane_tiles(line(10, 5, 3, 8)))
    taps = split_taps(nest)
    assert taps is not None
    row = price(taps, mac_schedule(taps, {"ox": 2, "f": 8}, 9))
    assert row is not None and candidates(nest, 0, False)[0].cycles < 0.95 * row.cycles
