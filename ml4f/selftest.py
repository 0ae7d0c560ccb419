"""`ml4f self-test`: compiles and validates every sample network, with float32 and with float16 weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ml4f.compiler import Options, compile_proto
from ml4f.errors import InternalError, Ml4fError, UsageError
from ml4f.report import ModelStats
from ml4f.samples import SAMPLES, sample_model

HEADINGS = ("sample", "weights", "cycles", "code", "arena", "result")
LINE = "{:<18} {:<8} {:>9} {:>7} {:>7}  {}"


@dataclass(frozen=True)
class Outcome:
    """One compilation of a sample: its figures if the code is right, else what went wrong."""

    sample: str
    weights: str
    stats: ModelStats | None
    error: Ml4fError | None = None

    def line(self) -> str:
        """Columns as in HEADINGS."""
        if self.stats is None:
            return LINE.format(self.sample, self.weights, "-", "-", "-", "FAILED")
        stats = self.stats
        return LINE.format(self.sample, self.weights, stats.cycles, stats.code_bytes, stats.arena_bytes, "ok")


def outcomes(names: Sequence[str], progress: Callable[[str], None] = lambda text: None) -> Iterator[Outcome]:
    """Compile and validate samples, one after the other."""
    for name in names:
        for float16 in (False, True):
            weights = "float16" if float16 else "float32"
            try:
                compilation = compile_proto(sample_model(name), name, Options(float16=float16), progress=progress)
            except Ml4fError as error:
                yield Outcome(name, weights, None, error)
            except Exception as error:  # one broken sample must not hide the others
                yield Outcome(name, weights, None, InternalError(f"{name}: {type(error).__name__}: {error}"))
            else:
                yield Outcome(name, weights, compilation.stats)


def self_test(only: Sequence[str] | None = None, progress: Callable[[str], None] = lambda text: None) -> int:
    """Print a line a compilation; returns how many failed. only: names of samples, all by default."""
    unknown = [name for name in only or () if name not in SAMPLES]
    if unknown:
        raise UsageError(f"no sample model '{unknown[0]}'; there are {', '.join(SAMPLES)}")
    print(LINE.format(*HEADINGS))
    failed = total = 0
    for outcome in outcomes(only or list(SAMPLES), progress):
        progress("")
        print(outcome.line(), flush=True)
        total += 1
        if outcome.error is not None:
            failed += 1
            print(f"ml4f: {outcome.error}", file=sys.stderr)
    print(f"{total - failed} of {total} ok")
    return failed
