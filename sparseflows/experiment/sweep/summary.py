"""The table that a sweep ends with, and what `sparseflows check` says of one."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sparseflows.experiment.folder.records import DENSE, Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.meter import duration
from sparseflows.experiment.plan import plan
from sparseflows.experiment.sweep.points import Sweep
from sparseflows.experiment.sweep.run import SweepResults, count_sweep_stages

LISTED = 20  # failures
SHOWN = 100  # points


def sweep_text(sweep: Sweep, results: SweepResults, folder: Path) -> str:
    """One line a point: the dense network, the best pruned one, and what failed."""
    names = [path.name for path in results.places]
    wide = max([20, *map(len, names)])
    classifies = any(record.accuracy_test is not None for found in results.records for record in found)
    judged = "accuracy" if classifies else "NLL"
    head = f"{'point':<{wide}} {'params':>9} {'dense ' + judged:>14} {'best pruned':>12} {'at PR':>7} {'stages':>9}"
    lines = [head, "-" * len(head)]
    for name, point, found in [*zip(names, sweep.points, results.records, strict=True)][:SHOWN]:
        done = [record for record in found if record.done]
        dense = [record for record in done if record.method == DENSE and record.stage == 0]
        best = min((record for record in done if record.stage > 0), key=_judged, default=None)
        params = f"{dense[0].params:,}" if dense else ""
        pruned = ("", "") if best is None else (_mean([best]), f"{100 * (best.prune_ratio or 0):.1f} %")
        there = f"{len(done)}/{len(stages(point.spec))}"
        lines.append(f"{name:<{wide}} {params:>9} {_mean(dense):>14} {pruned[0]:>12} {pruned[1]:>7} {there:>9}")
    lines += _more(len(names))
    unit = "share of the test rows" if classifies else "NLL in nats, standardised coordinates"
    lines.append(f"{unit}; dense: mean over the seeds, pruned: the best stage; every stage in {folder / 'results.csv'}")
    lines.append(f"{duration(results.work)} of work in {duration(results.wall)}")
    if results.failed:
        lines += [
            f"{len(results.failed)} failed:",
            *(f"  {name}: {reason}" for name, reason in results.failed[:LISTED]),
        ]
    if len(results.failed) > LISTED:
        lines.append(f"  … and {len(results.failed) - LISTED} more")
    return "\n".join(lines)


def sweep_plan(sweep: Sweep) -> dict[str, Any]:
    """What a sweep would do: `plan` of every point, and the sums."""
    points = []
    for one in sweep.points:
        with one.named():
            points.append({"point": one.label, "changes": one.changes} | plan(one.spec))
    cascades = sum(len(p.spec.seeds) * max(1, len(p.spec.prune.sequences())) for p in sweep.points)
    return {
        "name": sweep.name,
        "keys": list(sweep.keys),
        "points": points,
        "cascades": cascades,
        "stages": count_sweep_stages(sweep),
    }


def sweep_plan_text(found: dict[str, Any]) -> str:
    """`sweep_plan` for a person."""
    wide = max([20, *(len(point["point"]) for point in found["points"])])
    head = f"{'point':<{wide}} {'dense params':>12} {'stages':>7} {'steps':>8} {'retrain':>8}"
    lines = [head, "-" * len(head)]
    for point in found["points"][:SHOWN]:
        numbers = (point["params_dense"], point["stages"], point["steps_dense"], point["steps_retrain"])
        params, stages, steps, retrain = ("–" if value is None else f"{value:,}" for value in numbers)
        lines.append(f"{point['point']:<{wide}} {params:>12} {stages:>7} {steps:>8} {retrain:>8}")
    lines += _more(len(found["points"]))
    lines.append(
        f"{len(found['points']):,} points, {found['cascades']:,} cascades, {found['stages']:,} stages; every setting "
        "of a point is in its run folder's spec.yaml"
    )
    return "\n".join(lines)


def _more(points: int) -> list[str]:
    return [f"… and {points - SHOWN:,} points more"] if points > SHOWN else []


def _judged(record: Record) -> float:
    if record.accuracy_test is not None:
        return -record.accuracy_test
    return float("inf") if record.nll_test is None else record.nll_test


def _mean(records: Sequence[Record]) -> str:
    shares = [record.accuracy_test for record in records if record.accuracy_test is not None]
    if shares:
        return f"{100 * fmean(shares):.2f} %"
    values = [record.nll_test for record in records if record.nll_test is not None]
    return f"{fmean(values):.3f}" if values else "failed"
