"""Keeps the outputs quoted in a page of documentation true: runs its commands and compares, or rewrites the page.

    tools/quote_outputs.py docs/tracing.md            rewrite the outputs
    tools/quote_outputs.py --check docs/tracing.md    exit 1 if one differs

In a block of the language `console` every line that begins with `$ ` is a command (continued behind a `\\`), and what
follows is its standard output. A block that begins with `# file: NAME` is written to that file. All run one after the
other in an empty folder, with this checkout's tools.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = {
    "ml4f": "ml4f.cli",
    "ml4f-opt": "ml4f.tools.opt",
    "ml4f-translate": "ml4f.tools.translate",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_MARK = "# file: "


class Session:
    """A folder, and an environment in which the tools are those of this checkout."""

    def __init__(self, folder: Path):
        self.folder = folder / "work"
        self.folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        for tool, module in {**TOOLS, "python3": ""}.items():
            arguments = f"-m {module}" if module else ""
            program = programs / tool
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            program.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run(self, command: str) -> str:
        """The command's standard output; an error ends everything."""
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{command}\nended with {done.returncode}: {done.stderr}")
        return done.stdout

    def block(self, language: str, text: str) -> str:
        """The block's text with true outputs."""
        if text.startswith(FILE_MARK):
            name, _, contents = text.removeprefix(FILE_MARK).partition("\n")
            (self.folder / name).write_text(contents)
        if language != "console":
            return text
        lines, made = text.splitlines(), []
        position = 0
        while position < len(lines):
            command = [lines[position]]
            position += 1
            if not command[0].startswith("$ "):
                continue
            while command[-1].endswith("\\"):
                command.append(lines[position])
                position += 1
            output = self.run("\n".join(command).removeprefix("$ "))
            made += [*command, *output.rstrip("\n").splitlines()]
        return "\n".join(made) + "\n"


def true_page(page: str) -> str:
    """The page with the outputs that its commands have now."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder))
        return FENCE.sub(lambda m: f"```{m[1]}\n{session.block(m[1], m[2])}```", page)


def main() -> int:
    """Check or rewrite the pages given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is not true")
    parser.add_argument("pages", nargs="+", type=Path)
    options = parser.parse_args()
    stale = 0
    for path in options.pages:
        page = path.read_text(encoding="utf-8")
        made = true_page(page)
        if made == page:
            continue
        stale += 1
        if options.check:
            sys.stdout.writelines(
                difflib.unified_diff(page.splitlines(True), made.splitlines(True), str(path), "what the commands print")
            )
        else:
            path.write_text(made, encoding="utf-8")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
