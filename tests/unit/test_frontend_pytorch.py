"""Modules and .pt2 files of PyTorch, where that is installed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml4f
from ml4f.errors import Ml4fError
from ml4f.frontend import load_model
from ml4f.frontend.free_shapes import FreeShapes
from ml4f.frontend.importer import import_onnx
from ml4f.frontend.pytorch_guards import check_archive, is_harmless
from ml4f.interpreters.nn import run_nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install -e '.[pytorch]')")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install -e '.[pytorch]')")


class Network(torch.nn.Module):
    """A residual block, pooling and a classifier; and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)
        self.second = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = torch.nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: Any) -> Any:
        y = torch.nn.functional.silu(self.norm(self.first(x)))
        z = torch.nn.functional.max_pool2d(y + self.second(y), 2)
        return torch.softmax(self.head(z.flatten(1)), 1), y.mean((2, 3))


class Recurrent(torch.nn.Module):
    """A bidirectional GRU and a dense layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(4, 5, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(10, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.gru(x)[0][:, -1])


@pytest.mark.parametrize(("kind", "shape"), [(Network, (1, 3, 8, 8)), (Recurrent, (1, 7, 4))])
def test_modules_and_programs(kind: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = kind().eval()
    x = torch.randn(shape)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "network.pt2")
    with torch.no_grad():
        found = module(x)
    expected = [y.numpy().ravel() for y in (found if isinstance(found, tuple) else (found,))]
    for loaded in (load_model(tmp_path / "network.pt2"), load_model(module, shapes=FreeShapes({}, {"": shape}))):
        assert "compared with PyTorch" in loaded.notes[0]
        results = run_nn(import_onnx(loaded.proto, "network"), [x.numpy()[0]])
        for result, wanted in zip(results, expected, strict=True):
            assert np.allclose(result.ravel(), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_a_program_with_indices(kind: Any, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3))
    indices = torch.tensor([[8, 0, 3]], dtype=kind)
    torch.export.save(torch.export.export(module, (indices,)), tmp_path / "indices.pt2")
    made = ml4f.compile(tmp_path / "indices.pt2").predict(indices.numpy())
    np.testing.assert_allclose(np.ravel(made), module(indices).detach().numpy().ravel(), rtol=1e-5, atol=1e-6)


class Masked(torch.nn.Module):
    """The mean of the first n rows: of none of them, as n may be 0 when outputs are compared, 0 / 0."""

    def forward(self, x: Any, n: Any) -> Any:
        mask = (torch.arange(5)[None] < n[:, None]).float()
        return (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def test_what_is_not_a_number_for_both_is_no_error(tmp_path: Path) -> None:
    inputs = torch.randn(1, 5, 3), torch.tensor([2], dtype=torch.int32)
    torch.export.save(torch.export.export(Masked(), inputs), tmp_path / "masked.pt2")
    assert "compared with PyTorch" in load_model(tmp_path / "masked.pt2").notes[0]


def test_a_module_needs_a_shape() -> None:
    with pytest.raises(Ml4fError, match="give input_shapes"):
        load_model(Network())


def test_a_module_is_left_as_it_was() -> None:
    module = Network().train()
    load_model(module, shapes=FreeShapes({}, {"": (1, 3, 8, 8)}))
    assert module.training


def test_a_program_runs_no_code_from_its_file(tmp_path: Path) -> None:
    """Where torch would unpickle anything: the sample inputs of a .pt2 that create a file when they are loaded."""
    x = torch.zeros(1, 3, 8, 8)
    torch.export.save(torch.export.export(Network().eval(), (x,)), tmp_path / "network.pt2")
    proof = tmp_path / "proof"
    bomb = io.BytesIO()
    torch.save(Bomb(str(proof)), bomb)
    with zipfile.ZipFile(tmp_path / "network.pt2") as old, zipfile.ZipFile(tmp_path / "hostile.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, bomb.getvalue() if name.endswith("sample_inputs/model.pt") else old.read(name))
    with suppress(Ml4fError):
        load_model(tmp_path / "hostile.pt2")
    assert not proof.exists()


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The program with its description changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                description = json.loads(data)
                change(description)
                data = json.dumps(description).encode()
            new.writestr(name, data)


def every(value: Any, key: str) -> Iterator[dict[str, Any]]:
    """The objects with that key, inside of JSON."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from every(inner, key)
    if isinstance(value, dict) and key in value:
        yield value


def test_expressions_and_guards_of_a_program_are_not_run(tmp_path: Path) -> None:
    """Where torch evaluates texts of the file as Python: expressions of shapes, and guards."""
    proof, source = tmp_path / "proof", tmp_path / "doubled.pt2"
    free = ({0: torch.export.Dim("n", min=2, max=9)},)
    torch.export.save(torch.export.export(Doubled(), (torch.zeros(3, 4),), dynamic_shapes=free), source)
    load_model(source)
    line = f"open({str(proof)!r}, 'w').write('')"

    def expressions(description: dict[str, Any]) -> None:
        for found in every(description, "expr_str"):
            found["expr_str"] = line

    def guards(description: dict[str, Any]) -> None:
        description["guards_code"] = [f"{line} == 0"]

    rewritten(source, tmp_path / "expressions.pt2", expressions)
    with pytest.raises(Ml4fError, match=r"the expression of a shape 'open.*refused"):
        load_model(tmp_path / "expressions.pt2")
    rewritten(source, tmp_path / "guards.pt2", guards)
    load_model(tmp_path / "guards.pt2")
    assert not proof.exists()


class Doubled(torch.nn.Module):
    """Its output has twice as many rows."""

    def forward(self, x: Any) -> Any:
        return torch.cat([x, x]).relu() * x.shape[0]


@pytest.mark.parametrize(
    ("expression", "harmless"),
    [
        ("2*s77 + 1", True),
        ("Mul(Integer(2), Symbol('s0', positive=True, integer=True))", True),
        ("TruncToInt(Mul(Float('1.5', precision=53), ToFloat(Symbol('s53', integer=True))))", True),
        ("Max(1, s0**2)", True),
        ("__import__('os')", False),
        ("s0.__class__", False),
        ("Symbol('s0').subs", False),
        ("Mul(Integer(2), Pow(Max(Integer(1), Symbol('s0')), Integer(2)))", True),
        ("9**9**9", False),
        ("Pow(9, Pow(9, 9))", False),
        ("(lambda: 1)()", False),
        ("1" * 10_000 + "x", False),
    ],
)
def test_harmless_expressions(expression: str, harmless: bool) -> None:
    assert is_harmless(expression) == harmless


def test_archives_that_are_too_large_or_ambiguous_are_refused(tmp_path: Path) -> None:
    for name, entries, problem in (("twice", ["a", "A"], "twice"), ("bomb", ["a"], "more than the limit")):
        with zipfile.ZipFile(tmp_path / f"{name}.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in entries:
                archive.writestr(entry, "x")
        archive_path = tmp_path / f"{name}.pt2"
        if name == "bomb":  # what the directory says of the entry's size
            data = archive_path.read_bytes()
            where = data.index(b"PK\x01\x02") + 24
            archive_path.write_bytes(data[:where] + (1 << 30).to_bytes(4, "little") + data[where + 4 :])
        with pytest.raises(Ml4fError, match=problem):
            check_archive(archive_path, name)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    torch.save(Network(), tmp_path / "network.pt")
    with pytest.raises(Ml4fError, match="export the model to ONNX"):
        load_model(tmp_path / "network.pt")
