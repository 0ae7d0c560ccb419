"""Handlers of DFT and STFT: products with constant matrices of cosines and sines.

That is the definition and no fast transform: n * n multiplications, and as many constants.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_contractions import dense
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_steps import Steps
from ml4f.frontend.importer_values import NotSupported, Tensor

MAX_MATRIX = 1 << 18
"""Elements of a transform's matrix: 1 MiB, as much as the flash of the larger devices."""


def dft(importer: Importer, node: Node) -> None:
    """DFT along a constant axis, forwards or backwards, one-sided or not."""
    source, output = node.proto.input[0], node.proto.output[0]
    shape = importer.shape(source)
    rank, names = len(shape), [*node.proto.input, "", ""]
    axis = int(node.get("axis", 1)) if importer.opset < 20 else _whole(importer, names[2], -2, "the axis")
    axis %= rank
    inverse, onesided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    if rank < 2 or axis == rank - 1 or shape[-1] not in (1, 2):
        raise NotSupported(f"axis {axis} of {list(shape)}, whose last extent should be 1 (real) or 2 (complex)")
    known = shape[axis]
    length = _whole(importer, names[1], 2 * (known - 1) if inverse and onesided else known, "the length")
    if onesided and not inverse and shape[-1] == 2:
        raise NotSupported("one-sided with a complex input")
    matrix = _matrix(known, shape[-1], length, inverse, onesided)
    steps = Steps(importer, node)
    x = importer.arranged(importer.tensor(source), (*(a for a in range(rank - 1) if a != axis), axis, rank - 1))
    others = [shape[a] for a in range(rank - 1) if a != axis]
    lines = steps.value(Tensor(x.value, (prod(others), known * shape[-1]), (0, 1)))
    product = steps.fresh()
    dense(importer, node, lines, matrix, None, product)
    parts = 1 if inverse and onesided else 2
    made = importer.in_order(importer.tensor(product))
    extents = list(shape)
    extents[axis], extents[-1] = matrix.shape[1] // parts, parts
    order = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    importer.result(output, Tensor(made.value, tuple(extents), order))


def _whole(importer: Importer, name: str, default: int, what: str) -> int:
    """A constant whole number that may be left out."""
    if not name:
        return default
    value = importer.const(name)
    if value is None:
        raise NotSupported(f"{what} must be a constant")
    return int(np.ravel(value)[0])


def _matrix(known: int, parts: int, length: int, inverse: bool, onesided: bool) -> np.ndarray:
    """[known * parts, results * parts of each]: what a transform makes of each unit of the input."""
    bins = length if inverse or not onesided else length // 2 + 1
    if length < 1 or known * parts * bins * 2 > MAX_MATRIX:
        raise NotSupported(
            f"a transform of {length} elements needs a matrix of more than {MAX_MATRIX} elements; "
            "compute it in the program"
        )
    units = np.eye(known, dtype=np.complex128)
    units = units if parts == 1 else np.stack([units, 1j * units], axis=1).reshape(-1, known)
    if inverse and onesided:
        return np.fft.irfft(units, n=length, axis=-1).astype(np.float32)
    made = np.fft.ifft(units, n=length, axis=-1) if inverse else np.fft.fft(units, n=length, axis=-1)[:, :bins]
    return np.stack([made.real, made.imag], axis=-1).reshape(len(units), -1).astype(np.float32)


def stft(importer: Importer, node: Node) -> None:
    """STFT with constant step, window and length: a convolution whose filters are windowed waves."""
    names = [*node.proto.input, "", ""]
    shape = importer.shape(names[0])
    window = importer.const(names[2]) if names[2] else None
    if names[2] and window is None:
        raise NotSupported("the window must be a constant")
    step = _whole(importer, names[1], 0, "the step")
    length = _whole(importer, names[3], len(window) if window is not None else 0, "the length")
    onesided = bool(node.get("onesided", 1))
    parts = 1 if len(shape) == 2 else shape[-1]
    if step < 1 or length < 1 or parts not in (1, 2) or (parts == 2 and onesided):
        raise NotSupported(f"a step of {step}, a length of {length}, a signal {list(shape)}")
    if window is not None and window.shape != (length,):
        raise NotSupported(f"a window {list(window.shape)} for frames of {length}")
    matrix = _matrix(length, parts, length, False, onesided)
    weighted = matrix.reshape(length, parts, -1) * (1.0 if window is None else window.reshape(-1, 1, 1))
    steps = Steps(importer, node)
    signal = steps.shaped(names[0], (*shape[:2], parts))
    filters = steps.constant(weighted.transpose(2, 1, 0))
    waves = steps.operator("Conv", steps.operator("Transpose", signal, perm=[0, 2, 1]), filters, strides=[step])
    frames = importer.shape(waves)[-1]
    lines = steps.operator("Transpose", waves, perm=[0, 2, 1])
    importer.result(
        node.proto.output[0],
        importer.tensor(steps.shaped(lines, (shape[0], frames, weighted.shape[-1] // 2, 2))),
    )


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {"DFT": dft, "STFT": stft}
"""ONNX operator → the function that emits it."""
