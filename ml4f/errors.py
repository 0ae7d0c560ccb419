"""Errors that a user sees: every one carries the exit code that the command line ends with.

Nothing in here knows about compilation; every part of the compiler raises these, and only the command line
turns them into text and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class Ml4fError(Exception):
    """The model or the input is at fault. The message names the file, the layer, the shapes and a way out."""

    exit_code: ClassVar[int] = 1


class UsageError(Ml4fError):
    """The command line, or the arguments of an API call, are wrong."""

    exit_code: ClassVar[int] = 2


class InternalError(Ml4fError):
    """The compiler is at fault: a bug of ours, to be reported."""

    exit_code: ClassVar[int] = 70


class UnsupportedError(Ml4fError):
    """The model uses something the compiler does not support; lists every such layer, not only the first.

    `problems` holds one line a layer: its name, its operator, its shapes and what would help.
    """

    def __init__(self, subject: str, problems: Sequence[str]):
        self.problems = tuple(problems)
        lines = "\n".join(f"  * {problem}" for problem in self.problems)
        super().__init__(f"{subject}: not supported:\n{lines}")


class ValidationError(Ml4fError):
    """The machine code's result differs from the reference; nothing may be written."""
