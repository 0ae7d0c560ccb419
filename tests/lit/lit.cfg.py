"""lit's configuration: what the RUN lines may call, and the environment that they get.

Everything runs with the Python that runs lit, from the checkout that holds this file: neither an activated virtual
environment nor an installed `ml4f` is needed, and another checkout's `ml4f` on the path does no harm.
"""

# ruff: noqa: F821 (lit defines config)

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import lit.formats

root = Path(__file__).resolve().parents[2]

config.name = "ml4f"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).resolve().parent)
for variable in ("HOME", "ML4F_SHARED"):
    if variable in os.environ:
        config.environment[variable] = os.environ[variable]


def substitute(tool: str, module: str) -> None:
    """Let RUN lines call a Python module by its tool's name, where that is a word of its own.

    The path is part of the command: lit's own `cat` and `diff` change the environment of what comes behind them.
    """
    command = f'env PYTHONPATH="{root}" "{sys.executable}" -m {module}'
    config.substitutions.append((rf"(?<![\w/.%-]){tool}(?![\w/.-])", command))


substitute("ml4f-opt", "ml4f.tools.opt")
substitute("ml4f-translate", "ml4f.tools.translate")
substitute("xdsl-opt", "xdsl.tools.xdsl_opt")
substitute("filecheck", "filecheck")

if any(point.name == "ml4f" for point in entry_points(group="xdsl.universe")):
    config.available_features.add("entry-point")  # ml4f is installed: plain xdsl-opt finds it
