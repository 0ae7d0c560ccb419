"""How calls get their addresses: random needs, executed instruction by instruction."""

from __future__ import annotations

import random

from ml4f.backend.thumb.encoding import Part
from ml4f.backend.thumb.entry import Argument, CallNeeds, argument_moves, initial_moves, kept_registers

OBJECT, ARENA = 0x10000000, 0x20000000
BASES = {"object": OBJECT, "arena": ARENA}


def execute(parts: list[Part], registers: dict[int, int]) -> None:
    for part in parts:
        target, source, *amount = part.values
        assert isinstance(target, int) and isinstance(source, int)
        registers[target] = registers[source] + sum(a for a in amount if isinstance(a, int))


def random_call(rng: random.Random) -> CallNeeds:
    arguments = [
        Argument(i, rng.choice(["object", "arena"]), rng.choice([0, 0, 4, 700, 5000, 70000]))
        for i in range(rng.randrange(1, 6))
    ]
    written = rng.sample(range(13), rng.randrange(12))
    return CallNeeds(tuple(arguments), frozenset(written))


def test_every_call_gets_its_arguments():
    rng = random.Random(1)
    in_frame = 0
    for _ in range(2000):
        calls = [random_call(rng) for _ in range(rng.randrange(1, 4))]
        kept = kept_registers(calls)
        if kept is None:
            in_frame += 1
            continue
        registers = {0: OBJECT, 1: ARENA}
        execute(initial_moves(kept), registers)
        for call in calls:
            execute(argument_moves(call, kept), registers)
            for argument in call.arguments:
                assert registers[argument.register] == BASES[argument.base] + argument.amount
            for register in call.written:
                registers[register] = -1
    assert 0 < in_frame < 1500


def test_only_registers_that_nothing_overwrites_keep_an_address():
    everything = frozenset(range(13))
    one = CallNeeds((Argument(0, "arena", 0),), everything)
    assert kept_registers([one]) == {"object": 0, "arena": 1}
    assert kept_registers([one, one]) is None
    most = CallNeeds((Argument(0, "arena", 0),), everything - {9, 12})
    assert kept_registers([most, one]) == {"object": 12, "arena": 9}, "behind the last call they are not needed"
