"""The command line `ml4f`: compile, eval, run, self-test. Results on standard output, everything else on standard
error.

Imports what a command needs only when it runs, so that help and mistakes are told at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ml4f import __version__
from ml4f.errors import InternalError, Ml4fError, UsageError
from ml4f.garbage import no_collection_at_exit, no_garbage_collection

if TYPE_CHECKING:
    import numpy as np

    from ml4f.evaluation import Evaluation
    from ml4f.machine import Machine

COMMANDS = ("compile", "eval", "run", "self-test")
DEFAULT_MEGAHERTZ = 84.0
HELP_WIDTH = 100
LONGEST_LINE = 1000
"""Characters of a message."""

DESCRIPTION = """\
Compiles trained neural networks to machine code for Arm Cortex-M4F, M7 and M33 microcontrollers.

  ml4f model.h5                          compile; the results are in built/
  ml4f model.h5 --eval test.json         the same, and the accuracy of the machine code
  ml4f compile --help                    all options of the compiler
  ml4f eval built/model.ml4f test.json   accuracy of an object that is compiled already
  ml4f run built/model.ml4f input.json   its output for one input
  ml4f self-test                         compile and validate the built-in sample networks
"""
EXIT_CODES = "exit codes: 0 fine, 1 the model or the input is at fault, 2 wrong usage, 70 a bug of ml4f"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions; wide enough for one line an option."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=HELP_WIDTH)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, formatter_class=Formatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}")


def _megahertz(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no clock frequency in MHz")
    return value


def build_parser() -> Parser:
    """All commands and options."""
    parser = Parser("ml4f", description=DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"ml4f {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _compile_parser(
        commands.add_parser("compile", help="compile a model; `ml4f MODEL` is short for it", epilog=EXIT_CODES)
    )
    evaluation = commands.add_parser("eval", help="accuracy, size and cycles of a compiled object on labelled samples")
    evaluation.add_argument("object", metavar="OBJECT", help="a .ml4f file")
    evaluation.add_argument("file", metavar="FILE", help='labelled samples: {"x": ..., "y": ...} as JSON, or .npz')
    _clock(evaluation)
    evaluation.add_argument("--json", action="store_true", help="print the result as JSON")
    run = commands.add_parser("run", help="the output of a compiled object for one input")
    run.add_argument("object", metavar="OBJECT", help="a .ml4f file")
    run.add_argument("input", metavar="INPUT", help="JSON numbers (- for standard input), .npy, or .npz with x")
    run.add_argument("--hex", action="store_true", help="print the bit patterns of the float32 outputs")
    run.add_argument("--json", action="store_true", help="print a JSON list")
    test = commands.add_parser("self-test", help="compile and validate the built-in samples, float32 and float16")
    test.add_argument("--only", metavar="NAME", action="append", help="only this sample (may be repeated)")
    for command in (evaluation, run, test):
        command.add_argument("--debug", action="store_true", help="show where in ml4f a bug is")
    return parser


def _bytes(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text} is no number of bytes")
    return int(text)


def _clock(parser: argparse.ArgumentParser) -> None:
    default = DEFAULT_MEGAHERTZ
    parser.add_argument(
        "--mhz",
        metavar="N",
        type=_megahertz,
        default=default,
        help=f"clock that times are given for (default {default:g})",
    )


def _compile_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=".h5, .keras, .onnx, .tflite, TF.js, SavedModel or .pt2"
    )
    parser.add_argument("--output", metavar="DIR", default="built", help="folder for the results (default: built)")
    parser.add_argument("--basename", metavar="NAME", help="name of the results (default: the model's)")
    parser.add_argument(
        "--input-shape",
        metavar="[NAME=]N,N,…",
        action="append",
        default=[],
        help="shape of an input that the model leaves free (may be repeated)",
    )
    parser.add_argument(
        "--dim", metavar="NAME=N", action="append", default=[], help="value of a dimension that the model leaves free"
    )
    parser.add_argument(
        "--input-value",
        metavar="NAME=V,V,…",
        action="append",
        default=[],
        help="make a constant of an input that never changes, such as a sampling rate",
    )
    parser.add_argument("--float16", action="store_true", help="store the weights as float16: half the flash")
    parser.add_argument("--eval", metavar="FILE", help='labelled samples: {"x": ..., "y": ...} as JSON, or .npz')
    _clock(parser)
    parser.add_argument(
        "--no-validate", action="store_true", help="do not compare the code with the model, layer by layer"
    )
    parser.add_argument("--force", action="store_true", help="write the results even if validation fails")
    parser.add_argument(
        "--optimize",
        choices=("speed", "balanced", "size"),
        default="balanced",
        help="fastest code, the smallest that is nearly as fast (default), or small code at the cost of cycles",
    )
    parser.add_argument(
        "--max-flash",
        metavar="BYTES",
        type=_bytes,
        default=0,
        help="limit of the object's size: trades cycles for code",
    )
    parser.add_argument(
        "--max-ram", metavar="BYTES", type=_bytes, default=0, help="limit of the arena's size: trades cycles for RAM"
    )
    parser.add_argument(
        "--core",
        metavar="CORE",
        default="cortex-m4",
        help="cortex-m4 (default; runs on all), cortex-m7 or cortex-m33: whose timing and instructions to use",
    )
    parser.add_argument("--no-optimize", action="store_true", help="the shortest pipeline that works")
    parser.add_argument("--test-data", action="store_true", help="put a test input and its output into the object")
    parser.add_argument("--sample-model", metavar="NAME", help="compile a built-in sample instead of a file")
    parser.add_argument("--save-onnx", metavar="FILE", help="keep the ONNX model that the input became")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--debug", action="store_true", help="check every pass by running, and show where a bug is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code: 0 fine, 1 the model's or input's fault, 2 wrong usage, 70 a bug of ours.

    Without `arguments` those of the process, which has nothing else to do then.
    """
    if arguments is None:
        no_collection_at_exit()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        build_parser().print_help(sys.stderr)
        return UsageError.exit_code
    if words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "compile")
    try:
        options = build_parser().parse_args(words)
        HANDLERS[options.command](options)
        sys.stdout.flush()
    except Exception as error:  # the last line of defence: a bug of ours, said in one line
        if "--debug" in words and _exit_code(error) == InternalError.exit_code:
            raise
        return _report(error)
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        return Ml4fError.exit_code
    return 0


def _exit_code(error: Exception) -> int:
    if isinstance(error, Ml4fError):
        return error.exit_code
    return Ml4fError.exit_code if isinstance(error, MemoryError | OSError) else InternalError.exit_code


def _report(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    code = _exit_code(error)
    if isinstance(error, BrokenPipeError):  # nobody reads on, as in `ml4f run … | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, Ml4fError):
        _say(f"internal error: {error}" if code == InternalError.exit_code else str(error))
    elif isinstance(error, MemoryError):
        _say("not enough memory for this model")
    elif isinstance(error, OSError):
        _say(f"{error.filename or 'standard output'}: {error.strerror or error}")
    else:
        _say(f"internal error: {type(error).__name__}: {error} (please report it; --debug shows more)")
    return code


def _say(text: str) -> None:
    lines = f"ml4f: {text}".splitlines()  # names in files that nobody vouches for may be of any length
    print("\n".join(_shortened(line) for line in lines), file=sys.stderr)


def _shortened(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def _progress(text: str) -> None:
    """One changing line on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@no_garbage_collection()
def compile_command(options: argparse.Namespace) -> None:
    """`ml4f compile`."""
    if (options.model is None) == (options.sample_model is None):
        raise UsageError("give one model file, or --sample-model NAME; ml4f --help tells more")
    if options.no_optimize and (options.optimize, options.max_flash, options.max_ram) != ("balanced", 0, 0):
        raise UsageError(
            "--no-optimize takes one fixed schedule: it goes without --optimize, --max-flash and --max-ram"
        )
    from ml4f.compiler import Options, compile_model
    from ml4f.frontend.bound_inputs import parse_input_values
    from ml4f.frontend.free_shapes import FreeShapes
    from ml4f.output import check_directory, write_all
    from ml4f.report import summary

    settings = Options(
        float16=options.float16,
        optimize=not options.no_optimize,
        validate=not options.no_validate,
        test_data=options.test_data,
        check_passes=options.debug,
        force=options.force,
        goal=options.optimize,
        max_flash=options.max_flash,
        max_ram=options.max_ram,
        core=options.core,
    )
    free = FreeShapes.parse(options.dim, options.input_shape)
    check_directory(options.output)
    sample_file = None
    if options.eval:
        from ml4f.evaluation import SampleFile

        sample_file = SampleFile.read(options.eval)
    source = options.model
    if options.sample_model:
        from ml4f.samples import sample_model

        source = sample_model(options.sample_model)
    try:
        compilation = compile_model(
            source,
            settings,
            name=options.sample_model,
            basename=options.basename,
            dims=free.dims,
            input_shapes=free.inputs,
            input_values=parse_input_values(options.input_value),
            progress=_progress,
        )
        evaluation = None
        if sample_file is not None:
            _progress(f"{compilation.name}: evaluating")
            evaluation = compilation.evaluate(sample_file.samples_for(compilation.code.header))
    finally:
        _progress("")
    elsewhere = {Path(options.save_onnx): compilation.proto.SerializeToString()} if options.save_onnx else {}
    write_all(options.output, compilation.files(options.mhz, evaluation), elsewhere)
    for note in compilation.notes:
        _say(f"note: {note}")
    if options.json:
        _print_json({**compilation.stats.as_dict(), **_as_dict(evaluation)})
        return
    if evaluation is not None:
        print(evaluation.text())
    print(summary(compilation.stats, options.mhz))


def _as_dict(evaluation: Evaluation | None) -> dict[str, Any]:
    return {} if evaluation is None else evaluation.as_dict()


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _load(path: str) -> Machine:
    """The object of a file, in an emulated microcontroller."""
    from ml4f.machine import Machine

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Ml4fError(f"{path}: cannot be read: {error.strerror or error}") from None
    return Machine(data, path)


def _run(machine: Machine, inputs: Any) -> list[np.ndarray]:
    """The outputs for one run. What goes wrong in a file that somebody gave us is the file's fault."""
    try:
        return machine.run_all(inputs)
    except InternalError as error:
        raise Ml4fError(f"{error}; the object is damaged, or not of this compiler") from None


def eval_command(options: argparse.Namespace) -> None:
    """`ml4f eval OBJECT FILE`."""
    from ml4f.evaluation import SampleFile, evaluate
    from ml4f.profile import profile, typical_input
    from ml4f.report import cycles_line, size_line

    machine = _load(options.object)
    header = machine.header
    samples = SampleFile.read(options.file).samples_for(header)
    evaluation = evaluate(samples, lambda x: _run(machine, x)[0], header.outputs[0].elements)
    cycles = profile(machine, typical_input(machine)).total
    code = header.weights_offset - header.header_bytes
    test = header.object_bytes - header.test_input_offset if header.test_input_offset else 0
    if options.json:
        sizes = {
            "total_bytes": header.object_bytes,
            "code_bytes": code,
            "arena_bytes": header.arena_bytes,
            "test_bytes": test,
            "cycles": cycles,
        }
        _print_json({**sizes, **evaluation.as_dict()})
        return
    print(evaluation.text())
    print(size_line(header.object_bytes - test, code, header.arena_bytes, test))
    print(cycles_line(cycles, options.mhz))


def run_command(options: argparse.Namespace) -> None:
    """`ml4f run OBJECT INPUT`."""
    import numpy as np

    machine = _load(options.object)
    header = machine.header
    outputs = [np.ravel(y) for y in _run(machine, read_input(options.input, [t.name for t in header.inputs]))]
    names = [tensor.name for tensor in header.outputs] if len(outputs) > 1 else []
    if options.json:
        lists = [[value.item() if np.isfinite(value) else str(value) for value in output] for output in outputs]
        print(json.dumps(dict(zip(names, lists, strict=True)) if names else lists[0]))
        return
    for index, output in enumerate(outputs):
        if names:
            print(f"{names[index]}:")
        if options.hex:
            print("\n".join(f"{bits:08x}" for bits in output.view(np.uint32)))
        else:
            print("\n".join(str(value) for value in output))


def read_input(source: str, names: Sequence[str] = ()) -> Any:
    """One run's input: JSON numbers (nested as you like), .npy, .npz with `x`, or - for JSON on standard input.

    names: of several inputs; the file then has an entry for each, and the result is a mapping.
    """
    import numpy as np

    try:
        path = Path(source)
        if source == "-":
            loaded: Any = json.load(sys.stdin)
        elif path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        is_named = isinstance(loaded, dict) or path.suffix == ".npz"
        if is_named and len(names) > 1:
            return {name: np.asarray(loaded[name], dtype=np.float32) for name in names}
        return np.asarray(loaded["x"] if is_named else loaded, dtype=np.float32)
    except OSError as error:
        raise Ml4fError(f"{source}: cannot be read: {error.strerror or error}") from None
    except (Exception, RecursionError) as error:  # whatever a hostile file makes the parsers raise
        raise Ml4fError(f"{source}: not an input: {error}; wanted: JSON numbers, .npy, or .npz with x") from None


def self_test_command(options: argparse.Namespace) -> None:
    """`ml4f self-test`."""
    from ml4f.selftest import self_test

    failed = self_test(options.only, _progress)
    if failed:
        raise InternalError(f"self-test: {failed} of the sample compilations failed")


HANDLERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compile": compile_command,
    "eval": eval_command,
    "run": run_command,
    "self-test": self_test_command,
}

if __name__ == "__main__":
    sys.exit(main())
