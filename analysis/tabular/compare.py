"""Flows against their baselines and pruned stages against their dense flow, paired over the seeds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.runs.records import Stage
from analysis.tables.means import mean_over_seeds
from analysis.tables.numbers import Mean, fixed
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE
from analysis.tabular.front import best_validated, pruned_of
from analysis.tabular.runs import Choice
from analysis.tabular.table import words

SPOKEN = {"flow_matching": "flow matching", "nll": "FFJORD"}
LEAST_SEEDS = 3  # a standard error over two seeds says little


@dataclass(frozen=True)
class Comparison:
    """One flow against another model on the same test rows, as a sentence.

    `difference` is the other's NLL less the flow's (nats): above 0 the flow is better. For pruning it is the
    pruned stage's less the dense flow's: below 0 pruning helped. `paired_over` counts seeds, 0 where the
    error is that of a test set and unpaired.
    """

    dataset: str
    objective: str
    run: str
    against: str
    difference: Mean
    paired_over: int
    sentence: str


def compare(choices: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> list[Comparison]:
    """Dense flow against the baselines, then the best validated pruned stage against the dense flow, a run each."""
    found = []
    for choice in choices:
        found += _against_baselines(choice, baselines.get(choice.shown.run.folder))
    return found + [one for choice in choices if (one := _against_dense(choice)) is not None]


def _against_baselines(choice: Choice, baselines: RunBaselines | None) -> list[Comparison]:
    dense = choice.shown.dense
    if dense is None or baselines is None:
        return []
    found = []
    for name in (GAUSSIAN, MIXTURE):
        pairs = {
            seed: (fit, stage)
            for seed, stage in dense.members.items()
            for fit in (baselines.by_seed[seed].baselines if seed in baselines.by_seed else ())
            if fit.name == name
        }
        if not pairs:
            continue
        difference = _difference([(Mean(fit.nll_test, fit.nll_test_se), _nll(stage)) for fit, stage in pairs.values()])
        ours = fixed(_mean(_nll(stage) for _, stage in pairs.values()))
        theirs = fixed(_mean(Mean(fit.nll_test) for fit, _ in pairs.values()))
        flow = f"{SPOKEN.get(choice.shown.objective, choice.shown.objective)} ({ours})"
        other = f"the {name} ({theirs}, same rows)"
        by = f"{fixed(Mean(abs(difference.value), difference.se))} nats"
        sure = _beyond(difference)
        verdict = (
            f"{'beats' if difference.value > 0 else 'loses to'} {other} by {by}"
            if sure
            else f"is within 2 s.e. of {other} ({fixed(difference, sign=True)} nats)"
        )
        over = _paired(len(pairs), ", each with its own split" if baselines.own_splits else ", one split")
        sentence = f"{choice.title}: {flow} {verdict} ({over})"
        found.append(_comparison(choice, name, difference, len(pairs), sentence))
    return found


def _against_dense(choice: Choice) -> Comparison | None:
    dense, best = choice.shown.dense, best_validated(pruned_of(choice.shown.points))
    shared = [seed for seed in best.seeds if seed in dense.members] if dense and best else []
    if dense is None or best is None or not shared:
        return None
    # Their difference is that of the pruned stage less the dense flow: below 0 pruning helped.
    difference = _difference([(_nll(best.members[seed]), _nll(dense.members[seed])) for seed in shared])
    verdict = "no difference beyond 2 s.e."
    if difference.se is None:
        verdict = "no error is known, so no verdict"
    elif 1 < len(shared) < LEAST_SEEDS:
        verdict = f"too few seeds for a verdict ({LEAST_SEEDS} at least)"
    elif _beyond(difference):
        verdict = "pruning helped, trained longer than dense" if difference.value < 0 else "pruning did not help"
    flow = SPOKEN.get(choice.shown.objective, choice.shown.objective)
    wide = "" if len(shared) > 1 else "; both are judged on the same rows, so this error is too wide"
    shift = f"{fixed(difference, sign=True)} nats"
    sentence = (
        f"{choice.title}: {flow}, best pruned stage (chosen on validation: {words(choice, best, False)}) against "
        f"dense: {shift} ({_paired(len(shared))}{wide}): {verdict}"
    )
    return _comparison(choice, "dense", difference, len(shared), sentence)


def _comparison(choice: Choice, against: str, difference: Mean, pairs: int, sentence: str) -> Comparison:
    shown = choice.shown
    over = pairs if pairs > 1 else 0
    return Comparison(choice.title, shown.objective, shown.run.folder, against, difference, over, sentence)


def _difference(pairs: Sequence[tuple[Mean, Mean]]) -> Mean:
    differences = [a.value - b.value for a, b in pairs]
    if len(pairs) > 1:
        return mean_over_seeds(differences)
    (a, b), se = pairs[0], None
    if a.se is not None and b.se is not None:
        se = (a.se**2 + b.se**2) ** 0.5
    return Mean(differences[0], se)


def _nll(stage: Stage) -> Mean:
    assert stage.nll_test is not None  # points have one
    return Mean(stage.nll_test, stage.nll_test_se)


def _mean(values: Iterable[Mean]) -> float:
    return statistics.fmean(one.value for one in values)


def _beyond(difference: Mean) -> bool:
    return difference.se is not None and abs(difference.value) > 2 * difference.se


def _paired(pairs: int, splits: str = "") -> str:
    if pairs == 1:
        return "1 seed: ± s.e. over the test set, unpaired"
    return f"paired over {pairs} seeds{splits}"
