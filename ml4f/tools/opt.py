"""ml4f-opt: reads IR, applies passes, prints IR. xDSL's flags, and differential execution between passes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from inspect import signature
from typing import IO

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer
from xdsl.utils.arg_spec import parse_spec
from xdsl.xdsl_opt_main import xDSLOptMain

from ml4f.cost import CostReport
from ml4f.differential import DifferentialRun
from ml4f.errors import Ml4fError, UsageError
from ml4f.interpreters.execute import level_of
from ml4f.passes import PASSES
from ml4f.pipelines import PIPELINES
from ml4f.tools.driver import SPECIFICATION_ERRORS, run_tool, verify
from ml4f.universe import ML4F_UNIVERSE


class Ml4fOpt(xDSLOptMain):
    """The tool: our passes, dialects and targets beside xDSL's own."""

    def register_all_dialects(self) -> None:
        super().register_all_dialects()
        for name, factory in ML4F_UNIVERSE.all_dialects.items():
            if name not in self.ctx.registered_dialect_names:
                self.ctx.register_dialect(name, factory)

    def register_all_passes(self) -> None:
        super().register_all_passes()
        for name, factory in PASSES.items():
            self.available_passes.setdefault(name, factory)

    def register_all_targets(self) -> None:
        super().register_all_targets()
        for name, factory in ML4F_UNIVERSE.all_targets.items():
            self.available_targets.setdefault(name, factory)

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        arg_parser.add_argument(
            "--pipeline",
            choices=sorted(PIPELINES),
            help="a named sequence of passes, instead of -p",
        )
        arg_parser.add_argument(
            "--run-between-passes",
            action="store_true",
            help="execute the module before the first and after every pass; name the first that changes the result",
        )
        arg_parser.add_argument(
            "--cost",
            action="store_true",
            help="print on standard error what each pass buys: cycles, code and arena bytes of the module behind it, "
            "finished by the mandatory passes",
        )
        arg_parser.add_argument("--seed", type=int, default=0, help="of the inputs of --run-between-passes and --cost")
        arg_parser.add_argument(
            "--print-ir-after-all", action="store_true", help="print the IR after every pass on standard error"
        )

    def setup_pipeline(self) -> None:
        if self.args.pipeline and self.args.passes:
            raise UsageError("give -p or --pipeline, not both")
        passes = ",".join(PIPELINES[self.args.pipeline]) if self.args.pipeline else self.args.passes
        between = _BetweenPasses(self.args)
        try:
            self.pipeline = PassPipeline.parse_spec(self.available_passes, passes, between)
        except SPECIFICATION_ERRORS as error:
            raise UsageError(f"-p {passes}: {error}") from None
        if self.args.cost:
            if not self.pipeline.passes:
                raise UsageError("--cost tells what passes buy; give some with -p or --pipeline")
            between.cost = CostReport([each.name for each in self.pipeline.passes], between.say, self.args.seed)

    def check_target(self) -> None:
        """Raises ValueError if the target does not take the options given, before any work is done."""
        spec = parse_spec(self.args.target)
        target = self.available_targets[spec.name]
        if not signature(target).parameters:
            target().from_spec(spec)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    def prepare_input(self) -> tuple[list[tuple[IO[bytes], int]], str]:
        if self.args.input_file == "-":
            self.args.input_file = None
        try:
            return super().prepare_input()
        except ValueError as error:
            raise UsageError(f"{self.args.input_file}: {error}; -f mlir reads it as IR") from None


class _BetweenPasses:
    """The pipeline's callback: verifies, prints, times, executes."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.differential = DifferentialRun(options.seed) if options.run_between_passes else None
        self.cost: CostReport | None = None
        self.started = time.perf_counter()

    @staticmethod
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    def __call__(self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
        options = self.options
        if options.time_passes and previous is not None:
            print(f"{time.perf_counter() - self.started:8.3f} s  {previous.name}", file=sys.stderr)
        if options.print_ir_after_all and previous is not None:
            print(f"// IR after {previous.name}", file=sys.stderr)
            Printer(stream=sys.stderr).print_op(module)
            print(file=sys.stderr)
        if not options.disable_verify:
            if options.verify_diagnostics:
                module.verify()
            else:
                verify(module, "the input" if previous is None else f"after {previous.name}")
        if options.print_between_passes and previous is not None and following is not None:
            print(f"IR after {previous.name}:")
            Printer(stream=sys.stdout).print_op(module)
            print("\n\n\n")
        if self.differential is not None:
            self.differential(previous, module, following)
        if following is not None and following.name in PASSES:
            check_level(following.name, module)
        if self.cost is not None:
            self.cost(previous, module, following)
        self.started = time.perf_counter()


def check_level(name: str, module: ModuleOp) -> None:
    """Raises Ml4fError if one of our passes would meet IR of another level than its own."""
    needed = name.removeprefix("convert-").split("-")[0]
    there = level_of(module)
    if there is not None and there != needed:
        raise Ml4fError(f"{name} works on the {needed} level, the module is at the {there} level")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""

    def run() -> None:
        try:
            tool = Ml4fOpt("ml4f's optimizer driver", arguments)
            tool.check_target()
        except SPECIFICATION_ERRORS as error:
            raise UsageError(f"-t: {error}") from None
        tool.run()

    return run_tool("ml4f-opt", run)


if __name__ == "__main__":
    sys.exit(main())
