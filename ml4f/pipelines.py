"""The pipelines: named tuples of passes that read as documentation. Stages are where IR can be looked at."""

from __future__ import annotations

NN_OPTIMIZE = (
    "nn-recognize-activations",
    "nn-canonicalize",
    "nn-fold-batch-norm",
    "nn-fuse-activation",
    "nn-canonicalize",
    "nn-reduce-strength",
    "nn-remove-dead-channels",
    "nn-remove-dead-code",
)
"""Fewer and larger tensor operations."""

TO_LOOP = ("convert-nn-to-loop",)

LOOP_OPTIMIZE = ("loop-fuse-elementwise", "loop-forward-copies", "loop-fuse-pool", "loop-fuse-dense")
"""Fewer kernels, and nothing stored that only the next one reads."""

LOOP = (
    "loop-choose-schedule",
    "loop-plan-memory",
    "loop-pack-weights",
    "loop-share-kernels",
    "loop-expand",
    "loop-lower-addresses",
    "loop-share-kernels",
)
"""From algorithms to pointers. Equal nests are shared before they are expanded, and equal code behind that."""

THUMB = (
    "convert-loop-to-thumb",
    "thumb-schedule",
    "thumb-legalize-ties",
    "thumb-allocate-registers",
    "thumb-combine-moves",
    "thumb-verify-allocation",
)
"""From pointers to instructions in registers."""

CORE_DEPENDENT = ("thumb-schedule",)
"""Passes with a parameter `core`."""

MINIMAL_THUMB = tuple(p for p in THUMB if p not in ("thumb-schedule", "thumb-combine-moves"))

DEFAULT = (*NN_OPTIMIZE, *TO_LOOP, *LOOP_OPTIMIZE, *LOOP, *THUMB)
UNOPTIMIZED = (
    *TO_LOOP,
    "loop-choose-schedule{search=false}",
    "loop-plan-memory{exchange=false}",
    *LOOP[2:-1],
    *MINIMAL_THUMB,
)
"""The shortest pipeline that works."""


def with_float16(passes: tuple[str, ...]) -> tuple[str, ...]:
    """The same pipeline with weights rounded to float16 at the end of the nn level."""
    split = passes.index(TO_LOOP[0])
    return (*passes[:split], "nn-round-weights", *passes[split:])


def with_parameters(passes: tuple[str, ...], name: str, **parameters: str | int) -> tuple[str, ...]:
    """The same pipeline with these parameters for the pass `name`, which has none yet."""
    if not parameters:
        return passes
    text = " ".join(f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in parameters.items())
    return tuple(f"{name}{{{text}}}" if spec == name else spec for spec in passes)


STAGES = {"nn": NN_OPTIMIZE[-1], "loop": LOOP[-1], "thumb": THUMB[-1]}
"""The pass behind which a level is in its final form."""

PIPELINES = {
    "nn": NN_OPTIMIZE,
    "loop": (*TO_LOOP, *LOOP_OPTIMIZE, *LOOP),
    "thumb": THUMB,
    "default": DEFAULT,
    "unoptimized": UNOPTIMIZED,
}
"""For the tools' --pipeline."""
