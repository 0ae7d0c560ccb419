"""ml4f-translate: between IR and what is not IR. Model files to nn IR, IR to assembly or object, object to assembly."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp, UnknownLoc
from xdsl.dialects.func import Func
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.passes import PassPipeline
from xdsl.printer import Printer

from ml4f.errors import Ml4fError, UsageError
from ml4f.output import write_all
from ml4f.passes import PASSES
from ml4f.pipelines import DEFAULT, LOOP, LOOP_OPTIMIZE, MINIMAL_THUMB, THUMB
from ml4f.tools.driver import run_tool, verify
from ml4f.universe import ML4F_UNIVERSE

Contents = bytes | str


class NamedLocationPrinter(Printer):
    """Prints the locations that name layers, and leaves out unknown ones."""

    def print_op(self, op: Operation) -> None:
        before = self.print_debuginfo
        self.print_debuginfo = not isinstance(op.location, UnknownLoc)
        super().print_op(op)
        self.print_debuginfo = before


def module_text(module: ModuleOp) -> str:
    """A module with its layers' names as locations."""
    output = StringIO()
    NamedLocationPrinter(stream=output).print_op(module)
    return output.getvalue() + "\n"


def import_onnx_file(options: argparse.Namespace) -> Contents:
    """An ONNX file → nn IR."""
    from ml4f.frontend.importer import import_onnx
    from ml4f.frontend.model_file import model_name
    from ml4f.frontend.onnx_file import parse_onnx, prepare_onnx

    name = "model" if options.input == "-" else model_name(Path(options.input))
    folder = None if options.input == "-" else Path(options.input).parent
    proto, notes = prepare_onnx(parse_onnx(read(options.input), options.input), name, folder)
    note(notes)
    return module_text(import_onnx(proto, name))


def import_model_file(options: argparse.Namespace) -> Contents:
    """A model file of any format that `ml4f compile` reads → nn IR."""
    from ml4f.frontend import load_model
    from ml4f.frontend.importer import import_onnx

    loaded = load_model(read(options.input) if options.input == "-" else options.input)
    note(loaded.notes)
    return module_text(import_onnx(loaded.proto, loaded.name))


def ir_to_assembly(options: argparse.Namespace) -> Contents:
    """IR at any level → GNU as source of the object."""
    from ml4f.tools.targets import assembled

    return assembled(lowered_input(options)).assembly(f"{options.input}, translated by ml4f")


def ir_to_object(options: argparse.Namespace) -> Contents:
    """IR at any level → the object's bytes, the contents of a .ml4f file."""
    from ml4f.tools.targets import assembled

    return assembled(lowered_input(options)).binary


def object_to_assembly(options: argparse.Namespace) -> Contents:
    """An object → GNU as source that assembles to the same bytes."""
    from ml4f.backend.thumb.disassembly import disassembly_text

    return disassembly_text(read(options.input), options.input)


TRANSLATIONS: dict[str, tuple[Callable[[argparse.Namespace], Contents], str]] = {
    "--import-onnx": (import_onnx_file, "an ONNX file to nn IR"),
    "--import-model": (import_model_file, "a model file of any format that ml4f compile reads to nn IR"),
    "--mlir-to-asm": (ir_to_assembly, "IR to GNU as source; passes that are still missing are applied"),
    "--mlir-to-object": (ir_to_object, "IR to an object (.ml4f); passes that are still missing are applied"),
    "--object-to-asm": (object_to_assembly, "an object (.ml4f) to GNU as source"),
}


def remaining_passes(module: ModuleOp) -> tuple[str, ...]:
    """What takes a module from where it is to allocated instructions: the optimizing passes from nn and from nests."""
    from ml4f.dialects.loop.structure import BufferOp, ForOp, NestOp
    from ml4f.interpreters.execute import level, unallocated

    where = level(module)
    if where == "nn":
        return DEFAULT
    if where == "thumb":
        return () if unallocated(module) is None else MINIMAL_THUMB[1:]
    nests = [op for op in module.walk() if isinstance(op, NestOp)]
    if nests:
        scheduled = any(nest.schedule is not None for nest in nests)
        return (*(() if scheduled else LOOP_OPTIMIZE), *LOOP, *THUMB)
    unplanned = any(isinstance(op, BufferOp) and op.offset is None for op in module.body.block.ops)
    plan = ("loop-plan-memory",) if unplanned else ()
    indexed = any(isinstance(op, ForOp) for op in module.walk())
    addresses = ("loop-lower-addresses",) if indexed else ()
    return (*plan, *addresses, *THUMB)


def lowered_input(options: argparse.Namespace) -> ModuleOp:
    """The input file's module, lowered as far as it is not yet."""
    context = Context()
    for name, factory in ML4F_UNIVERSE.all_dialects.items():
        context.register_dialect(name, factory)
    context.load_dialect(Builtin)
    context.load_dialect(Func)
    try:
        text = read(options.input).decode()
    except UnicodeDecodeError:
        raise Ml4fError(f"{options.input}: this is no text, so no IR; for an object use --object-to-asm") from None
    module = Parser(context, text, options.input).parse_module()
    verify(module, options.input)
    PassPipeline.parse_spec(PASSES, ",".join(remaining_passes(module))).apply(context, module)
    return module


def read(path: str) -> bytes:
    """A file's bytes; - is standard input."""
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Ml4fError(f"{path}: cannot be read: {error.strerror or error}") from None


def write(path: str, contents: Contents) -> None:
    """Write a file whole or not at all; - is standard output, which must not be a terminal for bytes."""
    data = contents.encode() if isinstance(contents, str) else contents
    if path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif Path(path).exists() and not Path(path).is_file():
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise Ml4fError(f"{path}: cannot be written: {error.strerror or error}") from None
    else:
        write_all(Path(path).parent, {Path(path).name: data})


def note(notes: Sequence[str]) -> None:
    """The importer's remarks, on standard error."""
    for line in notes:
        print(f"ml4f-translate: note: {line}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("ml4f-translate", description=__doc__)
    parser.add_argument("input", nargs="?", default="-", help="input file, - for standard input (the default)")
    parser.add_argument("-o", dest="output", metavar="FILE", default="-", help="output file, - for standard output")
    actions = parser.add_mutually_exclusive_group(required=True)
    for option, (translation, description) in TRANSLATIONS.items():
        actions.add_argument(option, dest="translation", action="store_const", const=translation, help=description)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = build_parser().parse_args(arguments)

    def run() -> None:
        if options.translation is ir_to_object and options.output == "-" and sys.stdout.isatty():
            raise UsageError("an object is binary and would garble the terminal; give -o FILE")
        write(options.output, options.translation(options))

    return run_tool("ml4f-translate", run)


if __name__ == "__main__":
    sys.exit(main())
