"""Compiles trained neural networks to Arm Thumb-2 machine code.

    import ml4f
    model = ml4f.compile("my-model.h5")
    print(model.stats.cycles, model.predict(x))
    model.save("built")

See docs/library.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml4f.compiler import Compilation

__version__ = "0.1.0"


def compile(
    source: str | Path | bytes | Any,
    *,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    input_values: Mapping[str, Any] | None = None,
    **options: Any,
) -> Compilation:
    """Compile a model: a path (.h5, .keras, .onnx, .tflite, TF.js, …), the bytes of a file, an onnx.ModelProto, a
    torch.nn.Module.

    dims, input_shapes: what the model leaves free, by the dimension's or the input's name (or one shape alone).
    input_values: inputs that shall be constants, by name: a number, or as many as the input has elements.
    options: the fields of `ml4f.compiler.Options` (float16, optimize, validate, test_data, …). Returns a `Compilation`
    with `.predict(x)`, `.binary`, `.stats`, `.ir(stage)`, `.assembly()`, `.evaluate(samples)`, `.save(directory)`.
    Raises `ml4f.errors.Ml4fError` (bad or unsupported model) or its subclasses; a bug of ours is an InternalError.
    """
    from ml4f.compiler import Options, compile_model
    from ml4f.errors import UsageError

    try:
        settings = Options(**options)
    except TypeError as error:
        raise UsageError(f"ml4f.compile: {error}") from None
    return compile_model(source, settings, name=name, dims=dims, input_shapes=input_shapes, input_values=input_values)


__all__ = ["__version__", "compile"]
