"""The command line `ml4f`: compile, eval, run, self-test. Results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from ml4f import __version__
from ml4f.errors import InternalError, Ml4fError, UsageError

COMMANDS = ("compile", "eval", "run", "self-test")
DEFAULT_MEGAHERTZ = 84.0


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no frequency in MHz")
    return value


def build_parser() -> Parser:
    """All commands and options."""
    parser = Parser("ml4f", description="Compiles small neural networks to Arm Cortex-M machine code.")
    parser.add_argument("--version", action="version", version=f"ml4f {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    _compile_parser(commands.add_parser("compile", help="compile a model (the default: `ml4f MODEL`)"))
    evaluation = commands.add_parser("eval", help="accuracy, size and cycles of a compiled object on labelled samples")
    evaluation.add_argument("object", metavar="OBJECT", help="a .ml4f file")
    evaluation.add_argument("file", metavar="FILE", help='{"x": …, "y": …} as JSON, or .npz')
    evaluation.add_argument("--mhz", type=_positive, default=DEFAULT_MEGAHERTZ, help="clock for times (default 84)")
    evaluation.add_argument("--json", action="store_true", help="print the result as JSON")
    run = commands.add_parser("run", help="run a compiled object on one input and print its output")
    run.add_argument("object", metavar="OBJECT", help="a .ml4f file")
    run.add_argument("input", metavar="INPUT", help="JSON list(s) of numbers, .npy, or .npz with x; - reads JSON from stdin")
    run.add_argument("--hex", action="store_true", help="print the bit patterns of the float32 outputs")
    run.add_argument("--json", action="store_true", help="print a JSON list")
    test = commands.add_parser("self-test", help="compile and validate the sample networks, float32 and float16")
    test.add_argument("--only", metavar="NAME", action="append", help="only this sample (may be repeated)")
    return parser


def _compile_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help=".h5, .keras, .onnx, TF.js model.json or folder")
    parser.add_argument("--output", metavar="DIR", default="built", help="folder for the results (default: built)")
    parser.add_argument("--basename", metavar="NAME", help="name of the results (default: the model's)")
    parser.add_argument("--float16", action="store_true", help="store the weights as float16: half the flash")
    parser.add_argument("--no-validate", action="store_true", help="do not run the code against the reference")
    parser.add_argument("--no-optimize", action="store_true", help="the shortest pipeline that works")
    parser.add_argument("--test-data", action="store_true", help="embed a test input and its output in the object")
    parser.add_argument("--eval", metavar="FILE", help='labelled samples: {"x": …, "y": …} as JSON, or .npz')
    parser.add_argument("--mhz", type=_positive, default=DEFAULT_MEGAHERTZ, help="clock for times (default 84)")
    parser.add_argument("--debug", action="store_true", help="check every pass by running, and show tracebacks")
    parser.add_argument("--force", action="store_true", help="write the results even if validation fails")
    parser.add_argument("--sample-model", metavar="NAME", help="compile a built-in sample instead of a file")
    parser.add_argument("--save-onnx", metavar="FILE", help="keep the ONNX model that the input became")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code: 0 fine, 1 the model's or input's fault, 2 wrong usage, 70 a bug of ours."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "compile")
    debug = "--debug" in words
    try:
        options = build_parser().parse_args(words)
        handlers: dict[str, Callable[[argparse.Namespace], None]] = {
            "compile": compile_command,
            "eval": eval_command,
            "run": run_command,
            "self-test": self_test_command,
        }
        handlers[options.command](options)
    except Ml4fError as error:
        if debug and isinstance(error, InternalError):
            raise
        label = "internal error: " if isinstance(error, InternalError) else ""
        print(f"ml4f: {label}{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ml4f: interrupted", file=sys.stderr)
        return Ml4fError.exit_code
    except MemoryError:
        print("ml4f: not enough memory for this model", file=sys.stderr)
        return Ml4fError.exit_code
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001: the last line of defence: a bug of ours, said in one line
        if debug:
            raise
        print(f"ml4f: internal error: {type(error).__name__}: {error} (please report; --debug shows more)", file=sys.stderr)
        return InternalError.exit_code
    return 0


def _progress(text: str) -> None:
    """One changing line on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)


def compile_command(options: argparse.Namespace) -> None:
    """`ml4f compile`."""
    from ml4f.compiler import Options, compile_model
    from ml4f.samples import sample_model

    if (options.model is None) == (options.sample_model is None):
        raise UsageError("give one model file, or --sample-model NAME")
    settings = Options(
        float16=options.float16,
        optimize=not options.no_optimize,
        validate=not options.no_validate,
        test_data=options.test_data,
        check_passes=options.debug,
        force=options.force,
    )
    source = sample_model(options.sample_model) if options.sample_model else options.model
    try:
        compilation = compile_model(
            source, settings, name=options.sample_model or None, basename=options.basename, progress=_progress
        )
    finally:
        _progress("")
    samples = compilation.read_samples(options.eval) if options.eval else None
    evaluation = compilation.evaluate(samples) if samples is not None else None
    files: dict[str, bytes | str] = compilation.files(options.mhz, evaluation)
    compilation.write(options.output, files)
    if options.save_onnx:
        compilation.save_onnx(options.save_onnx)
    for note in compilation.notes:
        print(f"ml4f: note: {note}", file=sys.stderr)
    if options.json:
        result = compilation.stats.as_dict()
        if evaluation is not None:
            result["accuracy"] = evaluation.accuracy
            result["confusion"] = evaluation.confusion.tolist()
        print(json.dumps(result, indent=2))
        return
    if evaluation is not None:
        print(evaluation.text())
    from ml4f.report import summary

    print(summary(compilation.stats, options.mhz))


def _read_object(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Ml4fError(f"{path}: cannot be read: {error.strerror or error}") from None


def eval_command(options: argparse.Namespace) -> None:
    """`ml4f eval OBJECT FILE`."""
    from math import prod

    from ml4f.evaluation import evaluate, read_samples
    from ml4f.machine import Machine
    from ml4f.profile import profile
    from ml4f.report import cycles_line, size_line

    machine = Machine(_read_object(options.object), options.object)
    header = machine.header
    outputs = prod(header.output_shape)
    samples = read_samples(options.file, header.input_shape, outputs)
    evaluation = evaluate(samples, machine.run, outputs)
    cycles = profile(machine, samples.x[0]).total
    if options.json:
        print(
            json.dumps(
                {"accuracy": evaluation.accuracy, "confusion": evaluation.confusion.tolist(), "cycles": cycles}, indent=2
            )
        )
        return
    code = header.weights_offset - header.header_bytes
    test = 4 * (prod(header.input_shape) + outputs) if header.test_input_offset else 0
    print(evaluation.text())
    print(size_line(header.object_bytes - test, code, header.arena_bytes, test))
    print(cycles_line(cycles, options.mhz))


def run_command(options: argparse.Namespace) -> None:
    """`ml4f run OBJECT INPUT`."""
    from ml4f.machine import Machine

    machine = Machine(_read_object(options.object), options.object)
    output = machine.run(read_input(options.input))
    flat = np.ravel(output)
    if options.json:
        print(json.dumps([float(value) if np.isfinite(value) else str(value) for value in flat]))
    elif options.hex:
        print("\n".join(f"{bits:08x}" for bits in flat.view(np.uint32)))
    else:
        print("\n".join(f"{value!r}" if np.isfinite(value) else str(value) for value in map(float, flat)))


def read_input(source: str) -> np.ndarray:
    """One input: JSON numbers (nested as you like), .npy, .npz with `x`, or - for JSON on standard input."""
    try:
        if source == "-":
            return np.asarray(json.load(sys.stdin), dtype=np.float32)
        path = Path(source)
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as data:
                return np.asarray(data["x"], dtype=np.float32)
        loaded = json.loads(path.read_text(encoding="utf-8"))
        return np.asarray(loaded["x"] if isinstance(loaded, dict) else loaded, dtype=np.float32)
    except OSError as error:
        raise Ml4fError(f"{source}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001: whatever a hostile file makes the parsers raise
        raise Ml4fError(f"{source}: not an input: {error}; wanted: JSON numbers, .npy, or .npz with x") from None


def self_test_command(options: argparse.Namespace) -> None:
    """`ml4f self-test`."""
    from ml4f.selftest import self_test

    failed = self_test(options.only, _progress)
    if failed:
        raise Ml4fError(f"self-test: {failed} of the sample compilations failed")


if __name__ == "__main__":
    sys.exit(main())
