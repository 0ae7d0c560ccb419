"""The models that the benchmarks compile, and the compilation of one of them with everything that is measured."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml4f.backend.loop.search import Goal
from ml4f.compiler import Compilation, Options, compile_model, compile_proto
from ml4f.samples import SAMPLES, sample_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "models"
SHARED_GROUPS = ("ml4f", "mlperf_tiny", "trained")
"""Folders of the shared collection of models that are measured where the collection exists."""
SHARED_FILES = {
    "ml4f": ("gestures.tfjsmodel.json", "accel.json", "button.json", "microbit_acc_gestures.json"),
    "mlperf_tiny": ("ad01.onnx", "kws.onnx", "resnet8.onnx", "sww.onnx", "vww96.onnx"),
}
"""What to compile of folders that hold a model in many forms; of the other folders one file a model, by SUFFIXES."""
SUFFIXES = (".onnx", ".keras", ".h5", ".tfjs", ".json")
"""Formats, the preferred first."""
MEGABYTE = 1024
"""In units of ru_maxrss."""


@dataclass(frozen=True)
class Model:
    """A model to measure: `group/name`, and the file it is in; None for a sample, which is generated."""

    group: str
    name: str
    path: Path | None = None

    @property
    def key(self) -> str:
        return f"{self.group}/{self.name}"

    def compile(self, options: Options) -> Compilation:
        """Compile it; raises Ml4fError."""
        if self.path is None:
            return compile_proto(sample_model(self.name), self.name, options)
        return compile_model(self.path, options)


@dataclass(frozen=True)
class Variant:
    """How a model is compiled: the type of its weights, and what is optimized for (`ml4f --optimize`)."""

    weights: str = "float32"
    optimize: Goal = "balanced"

    def options(self) -> Options:
        return Options(float16=self.weights == "float16", goal=self.optimize, validate=False)


VARIANTS = (Variant(), Variant("float16"), Variant(optimize="size"))
CORE = "cortex-m4"


@dataclass(frozen=True)
class Figures:
    """What a compilation of a model was measured to need. Cycles are modelled ones of the whole run."""

    model: str
    core: str
    weights: str
    optimize: str
    macs: int
    cycles: int
    code_bytes: int
    weight_bytes: int
    arena_bytes: int
    arena_bound: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.model, self.core, self.weights, self.optimize


@dataclass(frozen=True)
class Effort:
    """What the compiler needed: processor time of the whole process in user mode, and its largest memory."""

    seconds: float
    megabytes: int


def shared_collection() -> Path | None:
    """The folder of the shared models: $ML4F_SHARED, or `../shared` beside the checkout."""
    root = Path(os.environ.get("ML4F_SHARED") or ROOT.parent / "shared")
    return next((folder for folder in (root / "models", root) if (folder / "trained").is_dir()), None)


def models() -> list[Model]:
    """All models that are there: samples, examples, and those of the shared collection."""
    found = [Model("samples", name) for name in SAMPLES]
    found += [Model("examples", name, path) for name, path in _one_file_a_model(EXAMPLES)]
    shared = shared_collection()
    for group in SHARED_GROUPS if shared is not None else ():
        assert shared is not None
        folder = shared / group
        files = SHARED_FILES.get(group)
        if files is None:
            found += [Model(group, name, path) for name, path in _one_file_a_model(folder)]
        else:
            found += [Model(group, file.split(".")[0], folder / file) for file in files]
    return found


def _one_file_a_model(folder: Path) -> Iterator[tuple[str, Path]]:
    """The models of a folder, by name; data sets (`.test.json`) and figures are none."""
    best: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        is_model = path.suffix in SUFFIXES and not path.name.endswith(".test.json") and path.name != "metrics.json"
        if is_model and (path.stem not in best or _rank(path) < _rank(best[path.stem])):
            best[path.stem] = path
    yield from best.items()


def _rank(path: Path) -> int:
    return SUFFIXES.index(path.suffix)


def figures(model: Model, variant: Variant, compilation: Compilation) -> Figures:
    """The figures of a compilation."""
    stats = compilation.stats
    return Figures(
        model.key,
        CORE,
        variant.weights,
        variant.optimize,
        stats.macs,
        stats.cycles,
        stats.code_bytes,
        stats.weight_bytes,
        stats.arena_bytes,
        stats.arena_bound,
    )


def measure(model: Model, variant: Variant) -> Figures:
    """Compile a model and tell its figures."""
    return figures(model, variant, model.compile(variant.options()))


def measure_process(model: Model, variant: Variant) -> tuple[Figures, Effort]:
    """The same, and what the whole process needed: call it in a process that does nothing else."""
    found = measure(model, variant)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return found, Effort(round(usage.ru_utime, 1), round(usage.ru_maxrss / MEGABYTE))
