"""What ml4f-opt and ml4f-translate share: readable verifier errors, and which exit code an exception means."""

from __future__ import annotations

import sys
from collections.abc import Callable

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
    VerifyException,
)

from ml4f.dialects.nn import layer_names
from ml4f.errors import InternalError, Ml4fError


def verify(module: ModuleOp, where: str) -> None:
    """Verify a module. The error names the innermost operation that is wrong and where it stands, not the whole module.

    where: what the module is, for the message: "after nn-canonicalize".
    """
    try:
        module.verify()
    except VerifyException as error:
        raise Ml4fError(f"{where}: {_place(_first_invalid(module))}{error}") from None


def _first_invalid(module: ModuleOp) -> Operation | None:
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException:
            return op
    return None


def _place(op: Operation | None) -> str:
    """`thumb.vadd in @kernel (layer conv1): `."""
    if op is None:
        return ""
    text = op.name
    parent: Operation | None = op
    while parent is not None:
        symbol = parent.properties.get("sym_name")
        if symbol is not None:
            text += f" in @{symbol.data}"  # pyright: ignore[reportAttributeAccessIssue]
            break
        parent = parent.parent_op()
    layers = layer_names(op)
    if layers:
        text += f" (layer {', '.join(layers)})"
    return text + ": "


def run_tool(tool: str, run: Callable[[], None]) -> int:
    """Run a tool's work and turn exceptions into a message on standard error and an exit code.

    0 fine, 1 the input's fault, 2 wrong usage, 70 a bug of ours.
    """
    try:
        run()
    except Ml4fError as error:
        label = "internal error: " if isinstance(error, InternalError) else ""
        return _fail(f"{tool}: {label}{error}", error.exit_code)
    except (ParseError, DiagnosticException, UnregisteredConstructException) as error:
        return _fail(f"{tool}: {error}", Ml4fError.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _fail(f"{tool}: {error.filename}: {error.strerror or error}", Ml4fError.exit_code)
    except KeyboardInterrupt:
        return _fail(f"{tool}: interrupted", Ml4fError.exit_code)
    except Exception as error:
        return _fail(f"{tool}: internal error: {type(error).__name__}: {error}", InternalError.exit_code)
    return 0


def _fail(message: str, exit_code: int) -> int:
    print(message.rstrip(), file=sys.stderr)
    return exit_code


SPECIFICATION_ERRORS = (ArgSpecParseError, ValueError)
"""What xDSL raises for a pipeline or target that it cannot read."""
