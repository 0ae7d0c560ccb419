"""The whole way: from a model file to a verified object, its listing, statistics and C source.

What only some compilations need is imported when they do: importing is a third of the time of a small model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer

from ml4f import evaluation as evaluations
from ml4f import pipelines
from ml4f.backend.c_source import c_header, c_source
from ml4f.backend.loop.search import Goal
from ml4f.backend.thumb.layout import CallSite, Layout
from ml4f.backend.thumb.object_code import ObjectCode, assemble
from ml4f.backend.thumb.timing import DEFAULT_CORE, core_named
from ml4f.errors import UsageError, ValidationError
from ml4f.frontend.importer import import_onnx
from ml4f.garbage import no_garbage_collection
from ml4f.limits import NO_TUNING, Tuning, within_limits
from ml4f.machine import Machine, fits
from ml4f.output import write_all
from ml4f.passes import PASSES
from ml4f.profile import profile, typical_input
from ml4f.report import LayerStats, ModelStats, report

if TYPE_CHECKING:
    from ml4f.differential import DifferentialRun

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to compile. `check_passes`: run the module after every pass; `force`: keep results that fail validation.

    `goal`: cycles or code; `max_flash`, `max_ram`: bytes of the object and of the arena, 0: no limit; `core`: whose
    timing orders the code and whose instructions it may use.
    """

    float16: bool = False
    optimize: bool = True
    validate: bool = True
    test_data: bool = False
    check_passes: bool = False
    force: bool = False
    goal: Goal = "balanced"
    max_flash: int = 0
    max_ram: int = 0
    core: str = DEFAULT_CORE

    def pipeline(self, tuning: Tuning = NO_TUNING) -> tuple[str, ...]:
        """The passes, as in a pipeline's text."""
        passes = pipelines.DEFAULT if self.optimize else pipelines.UNOPTIMIZED
        wanted = {"goal": self.goal, "max_code": tuning.max_code, "max_pixels": tuning.max_pixels}
        given = {k: v for k, v in wanted.items() if v and v != "balanced"}
        passes = pipelines.with_parameters(passes, "loop-choose-schedule", **given)
        planning = "size" if tuning.frugal else self.goal
        if planning != "balanced":
            passes = pipelines.with_parameters(passes, "loop-plan-memory", goal=planning)
        core = core_named(self.core).name
        if core != DEFAULT_CORE:
            for name in pipelines.CORE_DEPENDENT:
                passes = pipelines.with_parameters(passes, name, core=core)
        return pipelines.with_float16(passes) if self.float16 else passes


@dataclass
class Compilation:
    """A compiled model."""

    name: str
    basename: str
    proto: onnx.ModelProto
    options: Options
    code: ObjectCode
    nn_module: ModuleOp
    notes: tuple[str, ...] = ()
    machine: Machine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        macs = sum(_integer(site.attributes.get("macs")) for site in self.code.layout.calls)
        self.machine = Machine(self.code.binary, self.name, macs)

    @property
    def binary(self) -> bytes:
        """The object's bytes: the contents of the .ml4f file."""
        return self.code.binary

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first input, without the batch."""
        return self.code.header.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the first output, without the batch."""
        return self.code.header.output_shape

    @property
    def outputs(self) -> int:
        """The number of values of the first output."""
        return prod(self.output_shape)

    def predict(self, x: Any) -> Any:
        """The network's output, computed by the machine code in an emulator.

        x: one input of the model's shape, or a batch [n, …] of them; the result has the same batching.
        Models with several inputs take a list of arrays or a mapping from names, without a batch; models with several
        outputs return a mapping from names.
        """
        header = self.code.header
        if len(header.outputs) > 1:
            return dict(zip([tensor.name for tensor in header.outputs], self.machine.run_all(x), strict=True))
        if len(header.inputs) > 1 or isinstance(x, Mapping):
            return self.machine.run(x)
        x = np.asarray(x, dtype=np.float32)
        shape = self.input_shape
        is_batch = x.ndim in (2, len(shape) + 1) and fits(x.shape[1:], shape)
        if x.shape == shape or not is_batch:
            return self.machine.run(x)
        return np.array([self.machine.run(row) for row in x], np.float32).reshape(len(x), *self.output_shape)

    def ir(self, stage: str = "thumb") -> str:
        """The IR after a stage (`nn`, `loop`, `thumb`) or after any pass of the pipeline, as text; `import`: before
        all.
        """
        passes = self.options.pipeline()
        last = pipelines.STAGES.get(stage, stage)
        names = [spec.split("{")[0] for spec in passes]
        if stage != "import" and last not in names:
            raise UsageError(f"no such stage: {stage}; there are import, {', '.join([*pipelines.STAGES, *names])}")
        end = 0 if stage == "import" else len(names) - names[::-1].index(last)
        module = import_onnx(self.proto, self.name)
        run_passes(module, passes[:end])
        output = StringIO()
        Printer(stream=output).print_op(module)
        return output.getvalue() + "\n"

    def assembly(self) -> str:
        """The listing, GNU as source for exactly the object's bytes."""
        return self.code.assembly(f"{self.name}, compiled by ml4f")

    def read_samples(self, path: str | Path) -> evaluations.Samples:
        """Labelled samples for `evaluate`."""
        return evaluations.SampleFile.read(path).samples_for(self.code.header)

    def evaluate(self, samples: evaluations.Samples) -> evaluations.Evaluation:
        """Accuracy on labelled samples, computed by the machine code."""
        return evaluations.evaluate(samples, self.machine.run, self.outputs)

    def files(
        self, megahertz: float = 84.0, evaluation: evaluations.Evaluation | None = None
    ) -> dict[str, bytes | str]:
        """The contents of every output file, by name."""
        import json

        text = report(self.stats, megahertz)
        if evaluation is not None:
            text += "\n" + evaluation.text() + "\n"
        layers = [dict(zip(_LAYER_KEYS, _layer_values(layer), strict=True)) for layer in self.stats.layers]
        return {
            f"{self.basename}.ml4f": self.binary,
            f"{self.basename}.asm": self.assembly(),
            f"{self.basename}.c": c_source(self.binary, self.basename, text),
            f"{self.basename}.h": c_header(self.binary, self.basename, text),
            f"{self.basename}.txt": text,
            f"{self.basename}_layerStats.json": json.dumps(layers, indent=2) + "\n",
        }

    def save(self, directory: str | Path) -> list[Path]:
        """Write `.ml4f`, `.asm`, `.c`, `.h`, `.txt` and `_layerStats.json` into a folder, all or none; returns their
        paths.
        """
        return write_all(directory, self.files())

    def save_onnx(self, path: str | Path) -> None:
        """Write the ONNX model that the input became."""
        path = Path(path)
        write_all(path.parent, {path.name: self.proto.SerializeToString()})

    @cached_property
    def stats(self) -> ModelStats:
        """Sizes in bytes, modelled cycles, and the same for each layer."""
        layout, header = self.code.layout, self.code.header
        measured = profile(self.machine, typical_input(self.machine), layout.calls)
        layers = list(_layers(layout, measured.calls))
        return ModelStats(
            self.name,
            "cortex-m4",
            "float16" if self.options.float16 else "float32",
            header.object_bytes,
            self.code.code_bytes,
            self.code.weight_bytes,
            header.arena_bytes,
            header.object_bytes - header.test_input_offset if header.test_input_offset else 0,
            measured.total,
            sum(layer.macs for layer in layers),
            header.input_shape,
            header.output_shape,
            tuple(layers),
            self.code.arena_bound,
            self.notes,
        )


_LAYER_KEYS = (
    "name",
    "opType",
    "inputShape",
    "outputShape",
    "cycles",
    "codeBytes",
    "weightBytes",
    "arenaBytes",
    "macs",
)


def _layer_values(layer: LayerStats) -> tuple[object, ...]:
    return (
        layer.name,
        layer.operator,
        list(layer.input_shape),
        list(layer.output_shape),
        layer.cycles,
        layer.code_bytes,
        layer.weight_bytes,
        layer.arena_bytes,
        layer.macs,
    )


def _layers(layout: Layout, cycles: tuple[int, ...]) -> Iterator[LayerStats]:
    """Statistics by model layer: the kernels of one nn operation together."""
    seen: set[str] = set()
    pending: list[tuple[CallSite, int]] = []
    for site, count in zip(layout.calls, cycles, strict=True):
        pending.append((site, count))
        if "shape" in site.attributes:
            yield _layer(layout, pending, seen)
            pending = []
    if pending:
        yield _layer(layout, pending, seen)


def _layer(layout: Layout, sites: list[tuple[CallSite, int]], seen: set[str]) -> LayerStats:
    code = weights = macs = 0
    for site, _ in sites:
        code += site.end - site.start
        function = layout.functions.get(site.callee)
        if function is not None and site.callee not in seen:
            code += function[1] - function[0]
        seen.add(site.callee)
        macs += _integer(site.attributes.get("macs"))
        constants = site.attributes.get("constants")
        if isinstance(constants, ArrayAttr):
            for symbol in constants:
                if isinstance(symbol, StringAttr) and symbol.data not in seen:
                    seen.add(symbol.data)
                    weights += layout.data_sizes.get(symbol.data, 0)
    last = sites[-1][0].attributes
    names = [name.data for name in last.get("layers", ()) if isinstance(name, StringAttr)]  # pyright: ignore
    operator = last.get("op")
    shape = _shape(last.get("shape"))
    input_shape = _shape(sites[0][0].attributes.get("input_shape"))
    return LayerStats(
        "+".join(dict.fromkeys(names)) or sites[-1][0].callee,
        operator.data if isinstance(operator, StringAttr) else "kernel",
        input_shape,
        shape,
        sum(count for _, count in sites),
        code,
        weights,
        max(_integer(site.attributes.get("arena_bytes")) for site, _ in sites),
        macs,
    )


def _integer(attribute: object) -> int:
    return attribute.value.data if isinstance(attribute, IntegerAttr) else 0


def _shape(attribute: object) -> tuple[int, ...]:
    return tuple(_integer(n) for n in attribute) if isinstance(attribute, ArrayAttr) else ()


def run_passes(
    module: ModuleOp,
    names: tuple[str, ...],
    callback: Callable[[ModulePass | None, ModuleOp, ModulePass | None], None] | None = None,
) -> None:
    """Apply passes, given as in a pipeline's text."""
    if names:
        PassPipeline.parse_spec(PASSES, ",".join(names), callback).apply(Context(), module)


def _differential_run() -> DifferentialRun:
    from ml4f.differential import DifferentialRun

    return DifferentialRun()


def compile_proto(
    proto: onnx.ModelProto,
    name: str,
    options: Options | None = None,
    *,
    basename: str | None = None,
    notes: tuple[str, ...] = (),
    progress: Progress = lambda text: None,
) -> Compilation:
    """Compile an ONNX model. Raises Ml4fError with a message for the user; nothing is written."""
    options = options or Options()
    with no_garbage_collection():
        progress(f"{name}: importing")
        module = import_onnx(proto, name)
        passes = options.pipeline()
        split = next(i for i, spec in enumerate(passes) if spec == pipelines.TO_LOOP[0])
        differential = _differential_run() if options.check_passes else None
        run_passes(module, passes[:split], differential)
        module.verify()
        nn_module = module.clone()
        notes = (*notes, *integer_notes(proto), *nn_notes(nn_module))

        def callback(previous: ModulePass | None, current: ModuleOp, following: ModulePass | None) -> None:
            if following is not None:
                progress(f"{name}: {following.name}")
            if differential is not None:
                current.verify()
                if previous is not None:
                    differential(previous, current, following)
                    if following is not None and following.name == pipelines.THUMB[0]:
                        from ml4f.interpreters.plan_checker import check_plan

                        check_plan(current)

        def build(tuning: Tuning) -> ObjectCode:
            lowered = nn_module.clone()
            run_passes(lowered, options.pipeline(tuning)[split:], callback)
            data = _test_data(assemble(lowered).binary, name) if options.test_data else None
            return assemble(lowered, data)

        code, traded = within_limits(name, options.max_flash, options.max_ram, build, options.float16)
        notes = (*notes, *traded)
        compilation = Compilation(name, basename or file_name(name), proto, options, code, nn_module, notes)
        if options.validate:
            from ml4f.validation import validate

            try:
                validate(compilation, progress)
            except ValidationError as error:
                if not options.force:
                    raise
                compilation.notes = (*notes, f"validation failed, results kept because of --force: {error}")
        progress(f"{name}: counting cycles")
        _ = compilation.stats
    return compilation


def integer_notes(proto: onnx.ModelProto) -> list[str]:
    """What a user should know of inputs that are not of floats."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    kinds = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return [
        f"the input '{entry.name}' holds integers; the code takes them as float32 numbers"
        for entry in proto.graph.input
        if entry.name not in constants and entry.type.tensor_type.elem_type in kinds
    ]


def nn_notes(module: ModuleOp) -> tuple[str, ...]:
    """What a user should know of what the nn passes did."""
    function = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    removed, bound = function.attributes.get("removed_channels"), function.attributes.get("exact_up_to")
    if not isinstance(removed, IntegerAttr) or not isinstance(bound, FloatAttr):
        return ()
    total = removed.value.data + _integer(function.attributes.get("computed_channels"))
    return (
        f"{removed.value.data} of {total} channels are constant or unread and not computed; "
        f"exact for inputs up to {bound.value.data:g} in magnitude",
    )


def _test_data(binary: bytes, name: str) -> tuple[bytes, bytes]:
    machine = Machine(binary, name)
    x = typical_input(machine)
    return x.astype("<f4").tobytes(), b"".join(y.tobytes() for y in machine.run_all(x))


def file_name(name: str) -> str:
    """A model's name as a file name: letters, digits, - and _."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
    return cleaned.strip("_") or "model"


def compile_model(
    source: str | Path | bytes | onnx.ModelProto,
    options: Options | None = None,
    *,
    name: str | None = None,
    basename: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    input_values: Mapping[str, Any] | None = None,
    progress: Progress = lambda text: None,
) -> Compilation:
    """Compile a model file (path), the bytes of one, an ONNX model, or a torch.nn.Module. Raises Ml4fError.

    `dims`, `input_shapes`: what the model leaves free, by the dimension's and by the input's name (or one shape alone).
    `input_values`: inputs that shall be constants, by name: a number, or as many as the input has elements.
    """
    if basename is not None and not (re.fullmatch(r"[A-Za-z0-9._-]+", basename) and basename.strip("._-")):
        raise UsageError(f"{basename!r} is no file name; use letters, digits, - and _")
    from ml4f.frontend import load_model
    from ml4f.frontend.bound_inputs import bind_inputs
    from ml4f.frontend.free_shapes import FreeShapes

    shapes = input_shapes if isinstance(input_shapes, Mapping) else {"": input_shapes} if input_shapes else {}
    free = FreeShapes(dict(dims or {}), {key: tuple(int(n) for n in shape) for key, shape in shapes.items()})
    loaded = load_model(source, name, free)
    bind_inputs(loaded.proto, input_values or {}, loaded.name)
    return compile_proto(
        loaded.proto, loaded.name, options, basename=basename, notes=tuple(loaded.notes), progress=progress
    )
