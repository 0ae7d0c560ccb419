"""Random ONNX graphs against onnxruntime: what the importer, a pass or the machine code gets wrong.

Needs `pip install onnxruntime`. A failure is cut down to the fewest nodes that still fail, and printed. Examples:

    python tools/fuzz_onnx.py --count 2000                        imported, executed in numpy before and after nn passes
    python tools/fuzz_onnx.py --count 300 --level loop            executed as loops, too
    python tools/fuzz_onnx.py --count 100 --level code            machine code, default options
    python tools/fuzz_onnx.py --count 100 --level code --options float16
    python tools/fuzz_onnx.py --seed 4711 --count 1 --keep /tmp/kept
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import onnx_draws_layers
from onnx_draws import Draw
from onnx_graphs import Array, Graph, Growing, Rejected, cut

from ml4f.compiler import Options, compile_proto, run_passes
from ml4f.errors import InternalError, Ml4fError, UnsupportedError, ValidationError
from ml4f.frontend import load_model
from ml4f.frontend.importer import Importer
from ml4f.interpreters.execute import run_module
from ml4f.interpreters.nn import run_nn
from ml4f.pipelines import LOOP, LOOP_OPTIMIZE, NN_OPTIMIZE, TO_LOOP

OPTIONS: dict[str, Options] = {
    "default": Options(validate=False),
    "size": Options(validate=False, goal="size"),
    "speed": Options(validate=False, goal="speed"),
    "float16": Options(validate=False, float16=True),
    "no-optimize": Options(validate=False, optimize=False),
    "m7": Options(validate=False, core="cortex-m7"),
    "m33": Options(validate=False, core="cortex-m33"),
    "tight": Options(validate=False),
    "checked": Options(validate=True, check_passes=True),
    "validate": Options(validate=True),
}
"""Settings of the compiler by name; `tight`: with limits of RAM and flash that are just missed without."""
LEVELS = ("nn", "loop", "code")
SECONDS = 120
"""A case that takes longer hangs."""


class Wrong(Exception):
    """A result that differs from the reference."""


def generate(seed: int, nodes: int, float16: bool = False, infinite: bool = False, wide: bool = False) -> Graph:
    """A random graph, the same for a seed; `wide`: of layers with many channels."""
    rng = np.random.default_rng(seed)
    opset = int(rng.integers(7, 26))
    infinite = infinite and bool(rng.random() < 0.5)
    growing = Growing(opset, rng, float16, infinite, wide)
    graph = growing.graph
    draw = Draw(opset, rng, graph.values, infinite)
    draw.wide = wide
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        rank = int(rng.choice([1, 2, 3, 4, 4, 4, 5]))
        shape = [int(n) for n in rng.integers(1, 8 if rank < 4 else 6, rank)]
        if rank > 2 and rng.random() < 0.6:
            shape[0] = 1
        if wide:
            shape = [[1, 24, 12, 12], [1, 32, 40], [4, 120], [1, 300]][int(rng.choice([0, 0, 1, 2, 3]))]
            shape = [int(rng.integers(1, n + 1)) for n in shape]
        while np.prod(shape) > (3000 if wide else 300):
            shape[int(np.argmax(shape))] -= 1
        whole = number > 0 and rng.random() < 0.2
        value = np.asarray(rng.integers(0, 4, shape[:2]), np.int64) if whole else draw.floats(*shape)
        growing.add_input(f"x{number}", value)
    wanted = int(rng.integers(1, nodes + 1))
    for _ in range(wanted * 12):
        if len(graph.steps) >= wanted:
            break
        try:
            step = draw.step()
            step.node.name = f"n{len(graph.steps)}"
            growing.add(step)
        except Rejected:
            continue
    if not graph.steps:
        raise Rejected("nothing fitted")
    read = {name for step in graph.steps for name in step.names_read()}
    leaves = [name for step in graph.steps for name in step.outputs if name not in read]
    others = [name for name in graph.values if name in read and rng.random() < 0.1]
    graph.outputs = list(dict.fromkeys([*leaves[-4:], *others]))[:6]
    return cut(graph, graph.outputs, set())


def results_at(graph: Graph, level: str, options: Options) -> dict[str, list[Array]]:
    """The outputs by the stage that computed them."""
    loaded = load_model(graph.model(), name="fuzzed")
    given = [np.asarray(graph.inputs[entry.name], np.float32) for entry in loaded.proto.graph.input]
    found = {}
    if level == "code":
        compilation = compile_proto(loaded.proto, loaded.name, options)
        if options.max_ram == 1:
            header = compilation.code.header
            options = replace(options, max_ram=header.arena_bytes - 4, max_flash=header.object_bytes - 64)
        found["machine code"] = compilation.machine.run_all(given)
        return found
    importer = Importer(loaded.proto, loaded.name)
    module = importer.run()
    module.verify()
    integers = [entry.name in importer.integers for entry in loaded.proto.graph.output]

    def run(stage: str) -> None:
        flat = run_nn(module, given) if stage in ("import", "nn passes") else run_module(module, given)
        found[stage] = [np.ravel(y).view(np.int32) if i else y for y, i in zip(flat, integers, strict=True)]

    run("import")
    run_passes(module, NN_OPTIMIZE)
    module.verify()
    run("nn passes")
    if level == "loop":
        for stage, passes in (("nests", TO_LOOP), ("fused", LOOP_OPTIMIZE), ("expanded", LOOP)):
            run_passes(module, passes)
            module.verify()
            run(stage)
    return found


def tightened(graph: Graph) -> Options:
    """With less RAM or flash than the default needs."""
    loaded = load_model(graph.model(), name="fuzzed")
    header = compile_proto(loaded.proto, loaded.name, OPTIONS["default"]).code.header
    base = OPTIONS["default"]
    if len(graph.steps) % 2:
        return replace(base, max_ram=max(4, header.arena_bytes - 4))
    return replace(base, max_flash=max(4, header.object_bytes - 16))


def check(graph: Graph, level: str, settings: str) -> None:
    """Raises Wrong, UnsupportedError (or another refusal), or whatever a bug raises."""
    options = tightened(graph) if settings == "tight" else OPTIONS[settings]
    try:
        found = results_at(graph, level, options)
    except ValidationError as error:
        raise Wrong(f"validation: {error}") from None
    for stage, results in found.items():
        for name, result in zip(graph.outputs, results, strict=True):
            expected = graph.values[name].astype(np.float64).ravel()
            own = np.ravel(result).astype(np.float64)
            if own.size != expected.size:
                raise Wrong(f"{stage}: {name} has {own.size} elements, should have {expected.size}")
            known = np.isfinite(graph.spread[name]).ravel() & ~np.isnan(expected)
            with np.errstate(invalid="ignore"):
                near = (own == expected) | (np.abs(own - expected) <= graph.tolerance(name).ravel())
            wrong = np.flatnonzero(known & ~near)
            if wrong.size:
                at = int(wrong[0])
                raise Wrong(
                    f"{stage}: {name}{list(graph.values[name].shape)} differs at {wrong.size} of {own.size}, "
                    f"first at {at}: {own[at]!r}, should be {expected[at]!r}"
                )


def kind_of(error: BaseException) -> str:
    """What failures are told apart by while a graph is cut down."""
    if isinstance(error, Wrong):
        return "wrong: " + str(error).partition(":")[0]
    if isinstance(error, Ml4fError) and not isinstance(error, InternalError):
        return "refused"
    where = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {Path(where[-1].filename).name}:{where[-1].lineno}"


def outcome(graph: Graph, level: str, settings: str) -> BaseException | None:
    """What `check` raises within its time."""
    signal.alarm(SECONDS)
    try:
        check(graph, level, settings)
    except Exception as error:
        return error
    finally:
        signal.alarm(0)
    return None


def without_refused(graph: Graph, message: str) -> Graph | None:
    """Without the nodes that a message refuses, and what depends on them; None if nothing is left."""
    refused = set(re.findall(r"layer '(n\d+)", message))
    if not refused:
        return None
    lost: set[str] = set()
    steps = []
    for step in graph.steps:
        if step.node.name in refused or step.names_read() & lost:
            lost.update(step.outputs)
        else:
            steps.append(step)
    read = {name for step in steps for name in step.names_read()}
    outputs = [name for step in steps for name in step.outputs if name not in read]
    return cut(replace(graph, steps=steps), outputs, set()) if outputs else None


def shrunk(graph: Graph, fails: Callable[[Graph], bool]) -> Graph:
    """The fewest outputs, nodes and inputs that still fail."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(graph):
            if (len(candidate.steps), len(candidate.outputs)) < (len(graph.steps), len(graph.outputs)) and fails(
                candidate
            ):
                graph, smaller = candidate, True
                break
    return graph


def _smaller(graph: Graph) -> list[Graph]:
    candidates = []
    if len(graph.outputs) > 1:
        candidates += [cut(graph, [name], set()) for name in graph.outputs]
        candidates += [cut(graph, [n for n in graph.outputs if n != name], set()) for name in graph.outputs]
    tensors = [name for step in graph.steps for name in step.outputs]
    for name in tensors:
        if graph.values[name].dtype.kind == "f":
            candidates.append(cut(graph, [name], set()))
    for name in reversed(tensors):
        if graph.values[name].dtype.kind == "f" and name not in graph.outputs:
            candidates.append(cut(graph, graph.outputs, {name}))
    return candidates


def run(seed: int, options: argparse.Namespace, counts: Counter[str]) -> bool:
    """One case; whether it is fine or refused."""
    try:
        graph = generate(seed, options.nodes, options.options == "float16", options.infinite, options.wide)
    except Rejected:
        counts["none"] += 1
        return True
    error = outcome(graph, options.level, options.options)
    for _ in range(8):
        if not isinstance(error, UnsupportedError):
            break
        for line in str(error).splitlines():
            if "layer '" in line:
                counts["node refused"] += 1
                if options.refusals:
                    print(f"seed {seed}, opset {graph.opset}: {line.strip()}")
        rest = without_refused(graph, str(error))
        if rest is None:
            break
        graph = rest
        error = outcome(graph, options.level, options.options)
    kind = "fine" if error is None else kind_of(error)
    counts[kind] += 1
    if kind == "refused":
        if options.refusals or not isinstance(error, UnsupportedError):
            print(f"seed {seed}: {error}", flush=True)
        return True
    if kind == "fine":
        return True

    def fails(candidate: Graph) -> bool:
        raised = outcome(candidate, options.level, options.options)
        return raised is not None and kind_of(raised) == kind

    small = shrunk(graph, fails)
    raised = outcome(small, options.level, options.options)
    print(f"\nseed {seed}, opset {graph.opset}: {kind}: {raised}", flush=True)
    print(small.described(), flush=True)
    if not isinstance(raised, Wrong) and raised is not None and options.traceback:
        traceback.print_exception(raised)
    if options.keep:
        folder = Path(options.keep)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.onnx").write_bytes(small.model().SerializeToString())
        np.savez(folder / f"{seed}.npz", allow_pickle=False, **small.inputs)
    return False


def _out_of_time(number: int, frame: object) -> None:
    raise TimeoutError(f"no result after {SECONDS} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a case failed."""
    assert onnx_draws_layers.DRAWS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--count", type=int, default=100, help="how many cases")
    parser.add_argument("--nodes", type=int, default=14, help="of a graph, at most")
    parser.add_argument("--level", choices=LEVELS, default="nn", help="how far a graph is lowered and executed")
    parser.add_argument("--options", choices=sorted(OPTIONS), default="default", help="of the compiler")
    parser.add_argument("--infinite", action="store_true", help="with infinite, huge and tiny numbers")
    parser.add_argument("--wide", action="store_true", help="mostly layers, with many channels")
    parser.add_argument("--refusals", action="store_true", help="print what is refused, too")
    parser.add_argument("--traceback", action="store_true", help="of crashes")
    parser.add_argument("--keep", metavar="DIR", help="write failures there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, _out_of_time)
    counts: Counter[str] = Counter()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        bad = sum(not run(seed, options, counts) for seed in range(options.seed, options.seed + options.count))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
