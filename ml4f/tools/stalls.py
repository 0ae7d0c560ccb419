"""python -m ml4f.tools.stalls MODEL: every loop of a compiled model, the cycles that an iteration takes and loses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ml4f.compiler import Options, compile_model
from ml4f.stalls import loop_reports, stall_table, summary
from ml4f.tools.driver import run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ml4f.tools.stalls",
        description="Prints every loop of a compiled model: iterations, bytes of code, cycles an iteration, how many "
        "of them are stalls, by kind; stalls on the way into the loop are in the last column, per entry. * marks "
        "innermost loops. A loop's figures are without those of the loops in it.",
    )
    parser.add_argument("model", help="a model file, as for ml4f")
    parser.add_argument("--float16", action="store_true", help="weights as float16")
    parser.add_argument("--innermost", action="store_true", help="only innermost loops")
    options = parser.parse_args(arguments)

    def run() -> None:
        compilation = compile_model(options.model, Options(float16=options.float16, validate=False))
        loops = loop_reports(compilation.code, compilation.name)
        print(stall_table([loop for loop in loops if loop.is_innermost or not options.innermost]))
        print()
        print(summary(loops, compilation.stats.cycles))

    return run_tool("stalls", run)


if __name__ == "__main__":
    sys.exit(main())
