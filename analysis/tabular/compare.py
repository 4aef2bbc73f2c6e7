"""Flows against their baselines and pruned stages against their dense flow, paired over the seeds. Pure."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.runs.records import Stage
from analysis.tables.means import mean_over_seeds
from analysis.tables.numbers import LEAST_PAIRS, Mean, fixed
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE
from analysis.tabular.front import best_validated, pruned_of
from analysis.tabular.runs import Choice
from analysis.tabular.table import words


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
    of_baselines = [one for choice in choices for one in _against_baselines(choice, baselines)]
    return of_baselines + [one for choice in choices if (one := _against_dense(choice)) is not None]


def _against_baselines(choice: Choice, baselines: Mapping[str, RunBaselines]) -> Iterator[Comparison]:
    dense, known = choice.shown.dense, baselines.get(choice.shown.run.folder)
    if dense is None or known is None:
        return
    for name in (GAUSSIAN, MIXTURE):
        pairs = [
            (Mean(fit.nll_test, fit.nll_test_se), _nll(stage))
            for seed, stage in dense.members.items()
            for fit in (known.by_seed[seed].baselines if seed in known.by_seed else ())
            if fit.name == name
        ]
        if not pairs:
            continue
        difference = _difference(pairs)
        theirs, ours = (fixed(statistics.fmean(one.value for one in side)) for side in zip(*pairs, strict=True))
        other = f"the {name} ({theirs}, same rows)"
        verdict = f"is within 2 s.e. of {other} ({fixed(difference, sign=True)} nats)"
        if difference.beyond_error:
            beats = "beats" if difference.value > 0 else "loses to"
            verdict = f"{beats} {other} by {fixed(abs(difference))} nats"
        over = _paired(len(pairs), ", each with its own split" if known.own_splits else ", one split")
        said = f"{spoken(choice.shown.objective)} ({ours}) {verdict} ({over})"
        yield _comparison(choice, name, difference, len(pairs), said)


def _against_dense(choice: Choice) -> Comparison | None:
    dense, best = choice.shown.dense, best_validated(pruned_of(choice.shown.points))
    shared = [seed for seed in best.members if seed in dense.members] if dense and best else []
    if dense is None or best is None or not shared:
        return None
    # Their difference is that of the pruned stage less the dense flow: below 0 pruning helped.
    difference = _difference([(_nll(best.members[seed]), _nll(dense.members[seed])) for seed in shared])
    verdict = "no difference beyond 2 s.e."
    if difference.se is None:
        verdict = "no error is known, so no verdict"
    elif 1 < len(shared) < LEAST_PAIRS:
        verdict = f"too few seeds for a verdict ({LEAST_PAIRS} at least)"
    elif difference.beyond_error:
        verdict = "pruning helped, trained longer than dense" if difference.value < 0 else "pruning did not help"
    wide = "" if len(shared) > 1 else "; both are judged on the same rows, so this error is too wide"
    said = (
        f"{spoken(choice.shown.objective)}, best pruned stage (chosen on validation: {words(choice, best, False)}) "
        f"against dense: {fixed(difference, sign=True)} nats ({_paired(len(shared))}{wide}): {verdict}"
    )
    return _comparison(choice, "dense", difference, len(shared), said)


def spoken(objective: str) -> str:
    """What a sentence calls the flows of an objective."""
    return {"flow_matching": "flow matching", "nll": "FFJORD"}.get(objective, objective)


def _comparison(choice: Choice, against: str, difference: Mean, pairs: int, said: str) -> Comparison:
    shown, over = choice.shown, pairs if pairs > 1 else 0
    head = (choice.title, shown.objective, shown.run.folder, against)
    return Comparison(*head, difference, over, f"{choice.title}: {said}")


def _difference(pairs: Sequence[tuple[Mean, Mean]]) -> Mean:
    differences = [ours - theirs for ours, theirs in pairs]
    return differences[0] if len(pairs) == 1 else mean_over_seeds([one.value for one in differences])


def _nll(stage: Stage) -> Mean:
    assert stage.nll_test is not None  # points have one
    return Mean(stage.nll_test, stage.nll_test_se)


def _paired(pairs: int, splits: str = "") -> str:
    return "1 seed: ± s.e. over the test set, unpaired" if pairs == 1 else f"paired over {pairs} seeds{splits}"
