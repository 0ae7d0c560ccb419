"""The documentation works: quoted outputs are what the tools print, and the page about operators adds one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n# file: (\S+), ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

USE = """
import numpy as np
from onnx import TensorProto, helper

import ml4f
from ml4f.errors import UnsupportedError

def model(shape, block, mode="DCR"):
    n, c, h, w = shape
    nodes = [helper.make_node("DepthToSpace", ["x"], ["d"], "spread", blocksize=block, mode=mode)]
    nodes.append(helper.make_node("Relu", ["d"], ["y"], "relu"))
    ends = [("x", shape), ("y", [n, c // block**2, h * block, w * block])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, extents) for name, extents in ends]
    graph = helper.make_graph(nodes, "spread", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

for shape, block in (([1, 8, 3, 5], 2), ([1, 9, 1, 4], 3)):
    compiled = ml4f.compile(model(shape, block))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 20
    n, c, h, w = shape
    y = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(compiled.predict(x).shape)
    np.testing.assert_array_equal(compiled.predict(x), np.maximum(y, 0))
    assert "nn.depth_to_space" in compiled.ir("nn") and "nn.activation" not in compiled.ir("nn")
for arguments, reason in ((([1, 8, 3, 5], 2, "CRD"), "only the mode DCR"), (([1, 6, 3, 5], 2), "blocks of 2 x 2")):
    try:
        ml4f.compile(model(*arguments))
    except UnsupportedError as error:
        assert reason in str(error) and "'spread'" in str(error), error
    else:
        raise AssertionError("compiled what it should refuse")
"""


@pytest.mark.parametrize("page", ["tracing.md"])
def test_quoted_outputs_are_true(page: str):
    command = [sys.executable, str(ROOT / "tools" / "quote_outputs.py"), "--check", str(ROOT / "docs" / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run tools/quote_outputs.py docs/{page}\n{done.stdout}{done.stderr}"


def test_quoting_finds_what_is_not_true(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```console\n$ echo one; \\\n  echo two\none\n$ echo three\nthree\n```\n\nend\n")
    command = [sys.executable, str(ROOT / "tools" / "quote_outputs.py"), str(page)]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert page.read_text() == (
        "# Page\n\n```console\n$ echo one; \\\n  echo two\none\ntwo\n$ echo three\nthree\n```\n\nend\n"
    )
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 0


def put(text: str, where: str, block: str) -> str:
    """A file with a block of the page put where the page says."""
    if where == "at the end":
        return f"{text}\n\n{block}"
    kind, name = where.split()
    definition = re.search(rf"^{name}\b[^=\n]*= [\[{{]\n", text, re.MULTILINE)
    assert definition is not None, f"there is no {name}"
    place = definition.start() if kind == "before" else definition.end()
    return text[:place] + block + ("\n\n" if kind == "before" else "") + text[place:]


def test_the_operator_of_the_page_can_be_added(tmp_path: Path):
    shutil.copytree(ROOT / "ml4f", tmp_path / "ml4f", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall((ROOT / "docs" / "adding-an-operator.md").read_text())
    assert len(blocks) == 9
    shuffles = tmp_path / "ml4f" / "frontend" / "importer_shuffles.py"
    present = '    "DepthToSpace": depth_to_space,\n'
    assert present in shuffles.read_text()
    shuffles.write_text(shuffles.read_text().replace(present, ""))
    for name, where, block in blocks:
        path = tmp_path / name
        path.write_text(put(path.read_text(), where, block))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pages_name_files_that_exist():
    missing = []
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"`((?:ml4f|tests|tools|docs|examples)/[\w./*-]+)`", page.read_text()):
            if not list(ROOT.glob(name.rstrip("/"))):
                missing.append(f"{page.name}: {name}")
    assert not missing
