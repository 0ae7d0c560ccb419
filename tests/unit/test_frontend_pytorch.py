"""Modules and .pt2 files of PyTorch, where that is installed."""

from __future__ import annotations

import io
import zipfile
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
