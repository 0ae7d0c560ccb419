"""ml4f-opt: reads IR, applies passes, prints IR. xDSL's flags, and differential execution between passes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer
from xdsl.universe import Universe
from xdsl.utils.exceptions import DiagnosticException, ParseError, VerifyException
from xdsl.xdsl_opt_main import xDSLOptMain

from ml4f.differential import DifferentialRun
from ml4f.errors import InternalError, Ml4fError, UsageError
from ml4f.passes import PASSES
from ml4f.pipelines import PIPELINES
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
            help="execute the module before the first and after every pass; name the first pass that changes the result",
        )
        arg_parser.add_argument("--seed", type=int, default=0, help="of the inputs of --run-between-passes")
        arg_parser.add_argument(
            "--print-ir-after-all", action="store_true", help="print the IR after every pass on standard error"
        )

    def setup_pipeline(self) -> None:
        if self.args.pipeline:
            if self.args.passes:
                raise UsageError("give -p or --pipeline, not both")
            self.args.passes = ",".join(PIPELINES[self.args.pipeline])
        differential = DifferentialRun(self.args.seed) if self.args.run_between_passes else None
        started = [time.perf_counter()]

        def callback(previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
            if self.args.time_passes and previous is not None:
                print(f"{time.perf_counter() - started[0]:8.3f} s  {previous.name}", file=sys.stderr)
            if not self.args.disable_verify:
                module.verify()
            if previous is not None and self.args.print_ir_after_all:
                print(f"// IR after {previous.name}", file=sys.stderr)
                Printer(stream=sys.stderr).print_op(module)
                print(file=sys.stderr)
            if previous and following and self.args.print_between_passes:
                print(f"IR after {previous.name}:")
                Printer(stream=sys.stdout).print_op(module)
                print("\n\n\n")
            if differential is not None:
                differential(previous, module, following)
            started[0] = time.perf_counter()

        self.pipeline = PassPipeline.parse_spec(self.available_passes, self.args.passes, callback)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    try:
        Universe.get_multiverse()
        Ml4fOpt("ml4f's optimizer driver", arguments).run()
    except Ml4fError as error:
        print(f"ml4f-opt: {error}", file=sys.stderr)
        return error.exit_code
    except (ParseError, VerifyException, DiagnosticException) as error:
        print(f"ml4f-opt: {error}", file=sys.stderr)
        return Ml4fError.exit_code
    except (ValueError, OSError) as error:
        print(f"ml4f-opt: {error}", file=sys.stderr)
        return UsageError.exit_code
    except Exception as error:  # noqa: BLE001: the last line of defence, a bug of ours
        print(f"ml4f-opt: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        return InternalError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
