#!/usr/bin/env python3
"""Measures cycles, sizes and compile times of all models and keeps the tables under docs/ up to date.

    python tools/bench.py                          measure everything, write the tables
    python tools/bench.py --models samples/oneD    measure some (shell patterns), keep the rest of the tables
    python tools/bench.py --check                  write nothing; exit 1 if a figure is worse than in the table

Every model is compiled in a process of its own, so that processor time and peak memory are those of one compilation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from multiprocessing import get_context

import bench_tables as tables
from bench_models import CORE, VARIANTS, Effort, Figures, Model, Variant, measure_process, models

from ml4f.errors import Ml4fError

Measured = dict[tables.Key, tuple[Figures, Effort]]


def run(jobs: Sequence[tuple[Model, Variant]], workers: int) -> Measured:
    """Measure; what cannot be compiled is named on standard error and left out."""
    measured: Measured = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        futures: dict[Future[tuple[Figures, Effort]], str] = {
            pool.submit(measure_process, model, variant): f"{model.key} ({variant.weights}, {variant.optimize})"
            for model, variant in jobs
        }
        for done, future in enumerate(as_completed(futures), 1):
            try:
                found, effort = future.result()
            except Ml4fError as error:
                _say(f"[{done}/{len(jobs)}] {futures[future]}: {error}")
                continue
            measured[found.key] = found, effort
            _say(f"[{done}/{len(jobs)}] {futures[future]}: {found.cycles:,} cycles, {effort.seconds:.1f} s")
    return measured


def changes(measured: Measured) -> Iterator[tables.Change]:
    """What differs from the checked-in table."""
    table = tables.read_figures()
    for key, (found, _) in measured.items():
        if key in table:
            yield from tables.compare(table[key], found)


def update(measured: Measured, order: Sequence[tables.Key], is_everything: bool) -> None:
    """Write the tables with what was measured; rows of other models stay, but for those that are there no more."""
    figures, efforts = tables.read_figures(), tables.read_efforts()
    if is_everything:
        present = {key[0].split("/")[0] for key in order}
        figures = {key: row for key, row in figures.items() if key[0].split("/")[0] not in present}
    figures |= {key: found for key, (found, _) in measured.items()}
    efforts |= {key: effort for key, (_, effort) in measured.items()}
    variants = [(variant.weights, variant.optimize) for variant in VARIANTS]
    groups = list(dict.fromkeys(key[0].split("/")[0] for key in [*order, *figures]))
    place = {key: index for index, key in enumerate(dict.fromkeys([*order, *figures]))}
    keys = sorted(figures, key=lambda k: (variants.index(k[2:]), groups.index(k[0].split("/")[0]), place[k]))
    tables.write_figures({key: figures[key] for key in keys})
    tables.write_efforts({key: efforts[key] for key in keys if key in efforts})
    tables.PAGE.write_text(tables.page({key: figures[key] for key in keys}, efforts))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--models", nargs="+", metavar="PATTERN", help="group/name, shell patterns allowed; default: all that are there"
    )
    parser.add_argument("--weights", choices=["float32", "float16"], help="only these; default: both")
    parser.add_argument("--optimize", choices=["balanced", "size"], help="only these; default: both")
    parser.add_argument("--check", action="store_true", help="compare with the tables instead of writing them")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many compilations at a time; default 2")
    parser.add_argument("--list", action="store_true", help="print the models' names and stop")
    options = parser.parse_args()
    available = models()
    if options.list:
        print("\n".join(model.key for model in available))
        return 0
    chosen = [m for m in available if not options.models or any(fnmatch(m.key, p) for p in options.models)]
    if not chosen:
        parser.error(f"no model is named {', '.join(options.models)}; see --list")
    variants = [v for v in VARIANTS if options.weights in (None, v.weights) and options.optimize in (None, v.optimize)]
    measured = run([(model, variant) for model in chosen for variant in variants], options.jobs)
    found = list(changes(measured))
    for change in found:
        print(change)
    if options.check:
        return 1 if any(change.is_worse for change in found) else 0
    order = [(model.key, CORE, variant.weights, variant.optimize) for model in available for variant in VARIANTS]
    update(measured, order, is_everything=chosen == available and variants == list(VARIANTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
