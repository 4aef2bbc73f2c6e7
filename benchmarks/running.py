"""Works one after another: a failing one is reported, the rest goes on; a bar with the time left on standard error."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.context import Context, Settings, Skipped
from benchmarks.measure import Measurement
from benchmarks.report import Outcome, document, text
from benchmarks.works.table import Work
from sparseflows.errors import SparseFlowsError
from sparseflows.files import write_whole

Function = Callable[[Context], list[Measurement]]


def run_works(works: Mapping[str, Work], settings: Settings, json_file: Path | None = None) -> int:
    """Measure, print the table, write the JSON (after every work); 0, or 1 where a work failed."""
    torch.set_num_threads(settings.threads)
    context, outcomes = Context(settings), []
    expected = {name: work.quick if settings.quick else work.full for name, work in works.items()}
    # The bar counts expected seconds, so that the time it says is left takes into account what is still to come.
    layout = "{desc}: {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left"
    with tqdm(total=sum(expected.values()), bar_format=layout, disable=None) as bar:
        for name, work in works.items():
            bar.set_description(name)
            before = bar.n
            context.tell = _teller(bar, before, expected[name])
            outcome = run_work(name, work, context)
            outcomes.append(outcome)
            context.tell(1.0)
            reason = f": {outcome.reason}" if outcome.reason else ""
            bar.write(f"{name} {outcome.status} ({outcome.seconds:.0f} s){reason}", file=sys.stderr)
            if json_file is not None:
                found = document(outcomes, settings, context.notes)
                write_whole(json_file, json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    print(text(outcomes, settings, context.notes))
    return 1 if any(one.status == "failed" for one in outcomes) else 0


def run_work(name: str, work: Function, context: Context) -> Outcome:
    """One work; whatever goes wrong in it becomes its outcome."""
    started = time.perf_counter()
    try:
        found = work(context)
    except Skipped as reason:
        return Outcome(name, "skipped", time.perf_counter() - started, reason=str(reason))
    except Exception as error:
        if not isinstance(error, SparseFlowsError | RuntimeError):
            traceback.print_exc()  # a slip in the benchmark itself: say where
        return Outcome(name, "failed", time.perf_counter() - started, reason=_one_line(error))
    return Outcome(name, "done", time.perf_counter() - started, found)


def _teller(bar: tqdm, before: float, expected: float) -> Callable[[float], None]:
    def tell(share: float) -> None:
        bar.update(max(0.0, before + share * expected - bar.n))

    return tell


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
