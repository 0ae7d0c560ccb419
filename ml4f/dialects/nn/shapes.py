"""Result shapes of the nn operations, from plain data: shared by the verifier and the importer. ValueError says what is
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]


def window_extent(size: int, kernel: int, stride: int, dilation: int, low: int, high: int) -> int:
    """Output positions of a window along one axis."""
    reach = (kernel - 1) * dilation + 1
    available = size + low + high
    if kernel < 1 or stride < 1 or dilation < 1 or low < 0 or high < 0:
        raise ValueError(f"kernel {kernel}, stride {stride}, dilation {dilation} must be positive, pads not negative")
    if available < reach:
        raise ValueError(f"a window of {reach} does not fit {size} + {low} + {high} elements")
    return (available - reach) // stride + 1


def window_shape(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Shape:
    """Output height and width; pads: top, left, bottom, right."""
    if not len(kernel) == len(strides) == len(dilations) == 2 or len(pads) != 4:
        raise ValueError("needs two of kernel, strides, dilations, and four pads")
    return tuple(window_extent(size[i], kernel[i], strides[i], dilations[i], pads[i], pads[i + 2]) for i in (0, 1))


def conv2d(
    x: Shape, w: Shape, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], groups: int = 1
) -> Shape:
    """x [h, w, c], w [kh, kw, c / groups, f]."""
    if len(x) != 3 or len(w) != 4:
        raise ValueError(f"needs x [h, w, c] and weights [kh, kw, c, f], not {list(x)} and {list(w)}")
    if groups < 1 or w[2] * groups != x[2] or w[3] % groups:
        raise ValueError(f"{x[2]} channels in {groups} groups do not fit weights {list(w)}")
    return (*window_shape(x, w[:2], strides, dilations, pads), w[3])


def conv3d(
    x: Shape, w: Shape, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], groups: int = 1
) -> Shape:
    """x [d, h, w, c], w [kd, kh, kw, c / groups, f]; pads: front, top, left, back, bottom, right."""
    if len(x) != 4 or len(w) != 5 or not len(strides) == len(dilations) == 3 or len(pads) != 6:
        raise ValueError(f"needs x [d, h, w, c] and weights [kd, kh, kw, c, f], not {list(x)} and {list(w)}")
    if groups < 1 or w[3] * groups != x[3] or w[4] % groups:
        raise ValueError(f"{x[3]} channels in {groups} groups do not fit weights {list(w)}")
    extents = [window_extent(x[i], w[i], strides[i], dilations[i], pads[i], pads[i + 3]) for i in range(3)]
    return (*extents, w[4])


def depthwise_conv2d(
    x: Shape, w: Shape, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Shape:
    """x [h, w, c], w [kh, kw, c, m]; output channel c * m + j."""
    if len(x) != 3 or len(w) != 4 or w[2] != x[2]:
        raise ValueError(f"needs x [h, w, c] and weights [kh, kw, c, m], not {list(x)} and {list(w)}")
    return (*window_shape(x, w[:2], strides, dilations, pads), w[2] * w[3])


def pool2d(
    x: Shape, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Shape:
    """x [h, w, c]."""
    if len(x) != 3:
        raise ValueError(f"needs x [h, w, c], not {list(x)}")
    return (*window_shape(x, kernel, strides, dilations, pads), x[2])


def dense(x: Shape, w: Shape) -> Shape:
    """x [..., k], w [k, n]."""
    if not x or len(w) != 2 or x[-1] != w[0]:
        raise ValueError(f"needs x [..., k] and weights [k, n], not {list(x)} and {list(w)}")
    return (*x[:-1], w[1])


def bias(channels: int, shape: Shape) -> None:
    """A bias has one value a channel."""
    if shape != (channels,):
        raise ValueError(f"the bias should have the shape [{channels}], not {list(shape)}")


def broadcast(a: Shape, b: Shape) -> Shape:
    """Numpy's rule."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    out = []
    for m, n in pairs:
        if m != n and 1 not in (m, n):
            raise ValueError(f"shapes {list(a)} and {list(b)} do not broadcast")
        out.append(n if m == 1 else m)
    return tuple(out)


def reshape(x: Shape, target: Shape) -> Shape:
    """The same number of elements."""
    if prod(x) != prod(target):
        raise ValueError(f"{list(x)} has {prod(x)} elements, {list(target)} has {prod(target)}")
    return target


def transpose(x: Shape, permutation: Sequence[int]) -> Shape:
    """A permutation of all axes."""
    if sorted(permutation) != list(range(len(x))):
        raise ValueError(f"{list(permutation)} is no permutation of the axes of {list(x)}")
    return tuple(x[axis] for axis in permutation)


def pad(x: Shape, low: Sequence[int], high: Sequence[int]) -> Shape:
    """Not negative, one of each an axis."""
    if not len(low) == len(high) == len(x) or min((*low, *high), default=0) < 0:
        raise ValueError(
            f"needs {len(x)} low and high paddings that are not negative, not {list(low)} and {list(high)}"
        )
    return tuple(a + n + b for a, n, b in zip(low, x, high, strict=True))


def crop(x: Shape, start: Sequence[int], strides: Sequence[int], sizes: Sequence[int]) -> Shape:
    """`sizes` elements an axis from `start`, every `strides`-th (negative: backwards, 0: one again and again)."""
    if not len(start) == len(strides) == len(sizes) == len(x):
        raise ValueError(f"needs {len(x)} starts, strides and sizes")
    for n, first, step, size in zip(x, start, strides, sizes, strict=True):
        last = first + (size - 1) * step
        if size < 1 or not (0 <= first < n and 0 <= last < n):
            raise ValueError(f"elements {first} to {last} do not lie in {n}")
    return tuple(sizes)


def concat(shapes: Sequence[Shape], axis: int) -> Shape:
    """Equal but for one axis."""
    first = shapes[0]
    if not 0 <= axis < len(first):
        raise ValueError(f"axis {axis} of {list(first)}")
    for shape in shapes:
        if len(shape) != len(first) or any(
            m != n for i, (m, n) in enumerate(zip(shape, first, strict=True)) if i != axis
        ):
            raise ValueError(f"{list(shape)} and {list(first)} differ in more than axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def reduce(x: Shape, axes: Sequence[int]) -> Shape:
    """Without the axes."""
    if len(set(axes)) != len(axes) or any(not 0 <= axis < len(x) for axis in axes):
        raise ValueError(f"axes {list(axes)} of {list(x)}")
    return tuple(n for axis, n in enumerate(x) if axis not in axes)


def recurrent(gates: int, x: Shape, w: Shape, r: Shape, bias_: Shape, state: Shape) -> tuple[int, int]:
    """Steps and units of x [steps, inputs], w [inputs, gates * units], r [units, gates * units]."""
    if len(x) != 2 or len(w) != 2 or len(r) != 2 or x[1] != w[0] or r[1] != gates * r[0] or w[1] != r[1]:
        raise ValueError(
            f"needs x [steps, inputs], w [inputs, {gates} * units] and r [units, {gates} * units], "
            f"not {list(x)}, {list(w)} and {list(r)}"
        )
    bias(r[1], bias_)
    bias(r[0], state)
    return x[0], r[0]


def lookup(table: Shape, index: Shape) -> Shape:
    """table [rows, width], index [n]: n rows."""
    if len(table) != 2 or len(index) != 1:
        raise ValueError(f"needs a table [rows, width] and indices [n], not {list(table)} and {list(index)}")
    return (index[0], table[1])


def matmul(a: Shape, b: Shape) -> Shape:
    """a [..., m, k], b [..., k, n]; the other axes broadcast."""
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ValueError(f"needs [..., m, k] and [..., k, n], not {list(a)} and {list(b)}")
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def conv_transpose2d(
    x: Shape,
    w: Shape,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    output_pads: Sequence[int],
    groups: int = 1,
) -> Shape:
    """x [h, w, c], w [kh, kw, c, f / groups]; pads: top, left, bottom, right; output_pads: more rows, more columns."""
    if len(x) != 3 or len(w) != 4 or w[2] != x[2] or groups < 1 or x[2] % groups:
        raise ValueError(f"needs x [h, w, c] and weights [kh, kw, c, f / groups], not {list(x)} and {list(w)}")
    if not len(strides) == len(dilations) == len(output_pads) == 2 or len(pads) != 4 or min((*strides, *dilations)) < 1:
        raise ValueError("needs two positive strides and dilations, two output pads and four pads")
    extents = [
        (x[i] - 1) * strides[i] + (w[i] - 1) * dilations[i] + 1 + output_pads[i] - pads[i] - pads[i + 2] for i in (0, 1)
    ]
    if min(extents) < 1:
        raise ValueError(f"the output would be empty, {extents}")
    return (*extents, w[3] * groups)
