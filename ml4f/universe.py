"""What plain xdsl-opt, and our own tools, can load: dialects, passes, targets."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Dialect
from xdsl.universe import Universe
from xdsl.utils.target import Target

from ml4f.passes import PASSES


def _nn() -> Dialect:
    from ml4f.dialects.nn import NN

    return NN


def _loop() -> Dialect:
    from ml4f.dialects.loop import Loop

    return Loop


def _thumb() -> Dialect:
    from ml4f.dialects.thumb import Thumb

    return Thumb


def _assembly_target() -> type[Target]:
    from ml4f.tools.targets import ThumbAssemblyTarget

    return ThumbAssemblyTarget


def _object_target() -> type[Target]:
    from ml4f.tools.targets import ThumbObjectTarget

    return ThumbObjectTarget


DIALECTS: dict[str, Callable[[], Dialect]] = {"nn": _nn, "loop": _loop, "thumb": _thumb}

ML4F_UNIVERSE = Universe(
    all_dialects=dict(DIALECTS),
    all_passes=dict(PASSES),
    all_targets={"thumb-asm": _assembly_target, "thumb-hex": _object_target},
)
"""Found by xdsl-opt through the entry point `xdsl.universe`."""
