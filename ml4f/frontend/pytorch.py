"""PyTorch programs (.pt2) and modules as ONNX models, through PyTorch's own exporter, and compared with its outputs.

Needs torch and onnxscript (extra `ml4f[pytorch]`). A file of torch.export holds a graph and weights, and no code;
pickles (.pt, .pth) are not read, as loading one runs code from it.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ml4f.errors import Ml4fError, UnsupportedError
from ml4f.frontend.comparison import largest_error
from ml4f.frontend.free_shapes import FreeShapes
from ml4f.frontend.pytorch_guards import check_archive, check_program, without_code

OPSET = 18
"""The first that the exporter writes without converting down."""
TOLERANCE = 1e-4
"""Of the largest output."""
RUNS = 3
"""Random inputs that are compared."""


def is_module(source: Any) -> bool:
    """Whether a Python object is a torch.nn.Module or an exported program; torch is not imported for that."""
    return any(kind.__module__.startswith("torch.") for kind in type(source).__mro__) and hasattr(source, "state_dict")


def is_program(data: bytes) -> bool:
    """Whether a zip archive is what torch.export.save writes, by the names in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(
        name.endswith(("serialized_exported_program.json", "archive_format", "models/model.json")) for name in names
    )


def read_program(path: Path, subject: str) -> tuple[onnx.ModelProto, list[str]]:
    """A .pt2 file, as torch.export.save writes it."""
    with _torch(subject) as torch:
        check_archive(path, subject)
        refused: list[str] = []
        try:
            with without_code(torch) as refused:
                program = torch.export.load(str(path))
        except Exception as error:  # torch raises whatever it likes on broken files
            if refused:
                raise Ml4fError(f"{subject}: the expression of a shape '{refused[0][:60]}' is none; refused") from None
            raise Ml4fError(
                f"{subject}: cannot be read as a program of torch.export ({_line(error)}); save it again with "
                "torch.export.save, or export the model to ONNX"
            ) from None
        check_program(torch, program, subject)
        return _converted(torch, program, subject)


def read_module(module: Any, shapes: FreeShapes, subject: str) -> tuple[onnx.ModelProto, list[str]]:
    """A torch.nn.Module, in evaluation mode, for inputs of the given shapes (in order); or an exported program."""
    with _torch(subject) as torch:
        if not isinstance(module, torch.nn.Module):
            return _converted(torch, module, subject)
        if not shapes.inputs:
            raise Ml4fError(f"{subject}: a PyTorch module does not say what its inputs are; give input_shapes")
        examples = tuple(torch.zeros(shape) for shape in shapes.inputs.values())
        training = module.training
        try:
            program = torch.export.export(module.eval(), examples)
        except Exception as error:  # torch raises whatever it likes
            raise UnsupportedError(subject, [f"torch.export cannot follow the module ({_line(error)})"]) from None
        finally:
            module.train(training)
        return _converted(torch, program, subject)


@contextmanager
def _torch(subject: str) -> Iterator[Any]:
    """The module, quiet; an error with a way out where it is missing."""
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise Ml4fError(
            f"{subject}: PyTorch programs need torch and onnxscript: pip install 'ml4f[pytorch]'; or export the model "
            f"with torch.onnx.export(…, dynamo=True) where they are installed ({error})"
        ) from None
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield torch
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _converted(torch: Any, program: Any, subject: str) -> tuple[onnx.ModelProto, list[str]]:
    """By torch.onnx.export, then compared."""
    try:
        with redirect_stdout(io.StringIO()):
            made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
        proto = made.model_proto
    except Exception as error:  # torch raises whatever it likes
        raise UnsupportedError(subject, [f"torch.onnx.export cannot convert it ({_line(error)})"]) from None
    inputs = _inputs(torch, program, subject)
    _compare(torch, proto, program, inputs, subject)
    return proto, ["converted by torch.onnx.export, and compared with PyTorch's outputs"]


@dataclass(frozen=True)
class _Input:
    shape: tuple[int, ...]
    kind: str
    """float32, int32 or int64 as of the indices of an embedding, or bool as of masks."""

    def example(self, rng: np.random.Generator) -> np.ndarray:
        """Random numbers; whole ones are 0 or 1, which every table has."""
        if self.kind == "float32":
            return rng.standard_normal(self.shape).astype(np.float32)
        return rng.integers(0, 2, self.shape).astype(self.kind)


def _inputs(torch: Any, program: Any, subject: str) -> list[_Input]:
    """The program's inputs."""
    names = set(program.graph_signature.user_inputs)
    inputs: list[_Input] = []
    kinds = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int64", torch.bool: "bool"}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or value.dtype not in kinds:
                raise Ml4fError(
                    f"{subject}: input '{node.name}' is no tensor of float32, int32, int64 or bool; export the model "
                    "with such inputs"
                )
            shape = tuple(n if isinstance(n, int) else _likely(n) for n in value.shape)
            inputs.append(_Input(shape, kinds[value.dtype]))
    return inputs


def _likely(extent: Any) -> int:
    """A free extent: that of the example with which the program was made, or 1."""
    hint = getattr(extent.node, "hint", None)
    return hint if isinstance(hint, int) and hint > 0 else 1


def _compare(torch: Any, proto: onnx.ModelProto, program: Any, inputs: Sequence[_Input], subject: str) -> None:
    """Raises Ml4fError if the converted model computes something else than PyTorch."""
    from ml4f.reference import Reference

    reference, module = Reference(proto), program.module()
    names = [entry.name for entry in proto.graph.output]
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        values = [entry.example(rng) for entry in inputs]
        try:
            with torch.no_grad():
                given = module(*(torch.from_numpy(v) for v in values))
            flat = torch.utils._pytree.tree_leaves(given)
            found = reference.run(values)
        except Exception as error:  # torch and onnxruntime raise whatever they like
            shapes = ", ".join(str(list(v.shape)) for v in values)
            raise Ml4fError(
                f"{subject}: PyTorch or the model that torch.onnx.export makes of it cannot compute with inputs "
                f"{shapes} ({_line(error)}); export the program with fixed input shapes"
            ) from None
        for name, y in zip(names, flat, strict=True):
            error = largest_error(found[name], y.detach().numpy())
            if not error <= TOLERANCE:
                raise Ml4fError(
                    f"{subject}: torch.onnx.export converts it wrongly: its output '{name}' is off by {error:.1e} of "
                    "the largest element; try another release of PyTorch"
                )


def _line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # torch colours its messages
    return f"{type(error).__name__}: {' '.join(text.split())[:160]}"
