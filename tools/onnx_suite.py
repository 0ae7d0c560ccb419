"""Runs onnx's own backend test suite against machine code, and writes docs/onnx-operators.md.

    python tools/onnx_suite.py [--jobs 2] [--only PATTERN] [--level nn] [--write] [--show refused]

Exit code 1 if any case is wrong or ends in an error that is no refusal.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt, Runner

from ml4f.onnx_backend import Ml4fBackend

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
CASE_SECONDS = 400
"""A case that takes longer counts as crashed."""
LEVELS = {
    "code": "compiled to machine code and run in the emulated Cortex-M4",
    "nn": "imported and executed in numpy (`tests/unit/test_onnx_backend.py` runs a sample as machine code)",
}
"""What a case goes through."""
CANCELLING = ("DFT", "STFT")
"""Operators whose results are sums that nearly cancel, of which the suite expects float32's rounding errors."""
CANCELLED = 1e-6
"""What elements of theirs may differ by, of the largest one."""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "onnx-operators.md"


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    `result`: passed, constants (passed with parameters made constants), refused, wrong, crashed.
    """

    kind: str
    name: str
    operators: tuple[str, ...]
    floats: bool
    result: str
    message: str
    seconds: float


def read_value(data: bytes, entry: onnx.ValueInfoProto) -> object:
    """A tensor of a test's data set; what is no tensor stays a protobuf message, which the backend refuses."""
    if entry.type.HasField("tensor_type"):
        return numpy_helper.to_array(onnx.TensorProto.FromString(data))
    return data


def data_sets(case: object) -> Iterator[tuple[list[object], list[object]]]:
    """Inputs and expected outputs."""
    if case.data_sets is not None:  # pyright: ignore[reportAttributeAccessIssue]
        for inputs, outputs in case.data_sets:  # pyright: ignore[reportAttributeAccessIssue]
            yield [_array(x) for x in inputs], [_array(y) for y in outputs]
        return
    folder = Path(case.model_dir)  # pyright: ignore[reportAttributeAccessIssue]
    model = onnx.load(folder / "model.onnx")
    for data in sorted(folder.glob("test_data_set_*")):
        sides = []
        for what, entries in (("input", model.graph.input), ("output", model.graph.output)):
            files = [data / f"{what}_{i}.pb" for i in range(len(entries))]
            sides.append([read_value(f.read_bytes(), e) for f, e in zip(files, entries, strict=True) if f.exists()])
        yield sides[0], sides[1]


def _array(value: object) -> object:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run_case(kind: str, case: object, level: str = "code") -> Outcome:
    """Run one case of the suite, as machine code or at the nn level."""
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")  # pyright: ignore
    operators = tuple(sorted({node.op_type for node in model.graph.node}))
    tensors = [*model.graph.input, *model.graph.output]
    floats = any(entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for entry in tensors)
    start = time.perf_counter()
    result, message = "passed", ""
    try:
        prepared = Ml4fBackend.prepare(model, level=level)
        for inputs, expected in data_sets(case):
            outputs = prepared.run(inputs)
            atol = case.atol  # pyright: ignore[reportAttributeAccessIssue]
            if any(name in CANCELLING for name in operators):
                atol = max(atol, CANCELLED * max(float(np.max(np.abs(y))) for y in expected))  # pyright: ignore
            Runner.assert_similar_outputs(expected, outputs, case.rtol, atol)  # pyright: ignore
        if prepared.constants:
            result = "constants"
    except BackendIsNotSupposedToImplementIt as refusal:
        result, message = "refused", str(refusal)
    except AssertionError as error:
        result, message = "wrong", " ".join(str(error).split())[:500]
    except Exception as error:  # whatever goes wrong is what this tool looks for
        result, message = "crashed", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Outcome(kind, case.name, operators, floats, result, message, seconds)  # pyright: ignore


def run_share(pattern: str, level: str, share: int, jobs: int) -> list[Outcome]:
    """Every `jobs`-th case from number `share`; those that are bad are printed at once."""
    signal.signal(signal.SIGALRM, _out_of_time)
    outcomes = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = [
            (kind, case) for kind in KINDS for case in load_model_tests(kind=kind) if re.search(pattern, case.name)
        ]
        for kind, case in cases[share::jobs]:
            signal.alarm(CASE_SECONDS)
            outcome = run_case(kind, case, level)
            signal.alarm(0)
            outcomes.append(outcome)
            if outcome.result in ("wrong", "crashed"):
                print(
                    f"{outcome.result}: {outcome.name} ({', '.join(outcome.operators)}): {outcome.message}", flush=True
                )
    return outcomes


def described(outcome: Outcome) -> str:
    """One case on a line or a few."""
    return f"{outcome.result}: {outcome.name} ({', '.join(outcome.operators)}): {outcome.message}"


def _out_of_time(number: int, frame: object) -> None:
    raise TimeoutError(f"no result after {CASE_SECONDS} s")


def page(outcomes: list[Outcome], level: str) -> str:
    """The text of docs/onnx-operators.md."""
    rows = []
    by_operator: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind == "node":
            name = outcome.operators[0] if len(outcome.operators) == 1 else "several operators"
            by_operator.setdefault(name, []).append(outcome)
        else:
            by_operator.setdefault(f"(suite {outcome.kind})", []).append(outcome)
    for operator in sorted(by_operator):
        found = by_operator[operator]
        counts = [sum(o.result == result for o in found) for result in ("passed", "constants", "refused")]
        reason = next((reason_of(o.message) for o in found if o.result == "refused" and o.floats), "")
        reason = reason or next((reason_of(o.message) for o in found if o.result == "refused"), "")
        rows.append(f"| {operator} | {' | '.join(map(str, counts))} | {reason} |")
    totals = {result: sum(o.result == result for o in outcomes) for result in ("passed", "constants", "refused")}
    float_cases = [o for o in outcomes if o.floats]
    good = sum(o.result in ("passed", "constants") for o in float_cases)
    intro = [
        f"Generated by `tools/onnx_suite.py --write` with onnx {onnx.__version__}: every case of onnx's backend test",
        f"suite (node, simple, pytorch-converted, pytorch-operator) passes, {LEVELS[level]},",
        "or is refused with a reason. None is wrong.",
        "",
        f"{len(outcomes)} cases: {totals['passed'] + totals['constants']} pass, {totals['refused']} are refused.",
        f"Of the {len(float_cases)} cases with float32 tensors {good} pass.",
        "",
        "*Passed*: every float input of the case is an input of the object. *With constants*: the operator's",
        "parameters (all inputs but the first) were constants, as they are in a trained model. The reason is that of",
        "the first refused case.",
        f"Elements of {' and '.join(CANCELLING)} may differ by {CANCELLED:g} of the largest, as float32 rounds there.",
        "",
        "| operator | passed | with constants | refused | why |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join(["# ONNX operators", "", *intro, *rows]) + "\n"


def reason_of(message: str) -> str:
    """The last line of a refusal, without what differs from case to case."""
    line = message.strip().splitlines()[-1]
    line = re.sub(r"^\s*\* layer '[^']*' \([^)]*\), input (constant|[\[\], 0-9]*): ", "", line)
    return line.strip().replace("|", "\\|")[:160]


def main() -> int:
    """Run, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="run cases whose name this pattern finds")
    parser.add_argument("--show", default="", help="also list cases with this result")
    parser.add_argument("--level", choices=list(LEVELS), default="code", help="nn: numpy instead of machine code")
    parser.add_argument("--write", action="store_true", help="write docs/onnx-operators.md")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:
        shares = [pool.submit(run_share, options.only, options.level, i, options.jobs) for i in range(options.jobs)]
        outcomes = sorted((o for share in shares for o in share.result()), key=lambda o: (o.kind, o.name))
    for outcome in outcomes:
        if outcome.result == options.show:
            print(described(outcome))
    slowest = sorted(outcomes, key=lambda o: -o.seconds)[:3]
    print("slowest:", ", ".join(f"{o.name} {o.seconds:.1f} s" for o in slowest), file=sys.stderr)
    counts = {r: sum(o.result == r for o in outcomes) for r in ("passed", "constants", "refused", "wrong", "crashed")}
    print(f"{len(outcomes)} cases: {counts}; {sum(o.seconds for o in outcomes):.0f} s", file=sys.stderr)
    if options.write:
        PAGE.write_text(page(outcomes, options.level), encoding="utf-8")
    return 1 if counts["wrong"] or counts["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
