"""Front ends: every model format becomes an ONNX model (`load_model`), which `import_onnx` turns into nn IR."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml4f.frontend.model_file import Loaded


def load_model(source: str | Path | bytes | Any, name: str | None = None, shapes: Any = None) -> Loaded:
    """A model from a path (.h5, .keras, .onnx, TF.js, or a folder), the bytes of a file, or an onnx.ModelProto.

    Returns its ONNX form, its name and remarks for the user. Raises Ml4fError (not a model, damaged, hostile) and
    UnsupportedError (lists every layer that is not supported).
    """
    from ml4f.frontend.model_file import load_model as load

    return load(source, name) if shapes is None else load(source, name, shapes)


__all__ = ["load_model"]
