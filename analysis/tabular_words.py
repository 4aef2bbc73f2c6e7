"""What stands below the tabular table: footnotes, and comparisons paired over the seeds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.baseline_results import RunBaselines, SplitBaselines
from analysis.baselines import GAUSSIAN, MIXTURE
from analysis.records import Stage
from analysis.reference import PublishedTables
from analysis.tables import Mean, mean_over_seeds
from analysis.tabular import TabularTable, primary, selected, words
from analysis.tabular_front import best_validated, pruned_of
from analysis.tabular_runs import Choice, Variant
from sparseflows.data.benchmarks import BENCHMARKS
from sparseflows.data.splits import TABLE

_SPOKEN = {"flow_matching": "flow matching", "nll": "FFJORD"}


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


def with_words(
    table: TabularTable,
    choices: Sequence[Choice],
    baselines: Mapping[str, RunBaselines],
    published: PublishedTables | None,
) -> tuple[TabularTable, list[Comparison]]:
    """The table with its footnotes and comparisons, and the comparisons as values."""
    mine = {title: [choice for choice in choices if choice.title == title] for title in table.datasets}
    notes = []
    for title, several in mine.items():
        if several:
            notes += _data_notes(table, title, several, baselines)
    for choice in choices:
        notes += _run_notes(choice)
    for title, several in mine.items():
        notes += _choice_notes(title, several, baselines)
    if published:
        notes.append(f"published: {published.source}; {published.note}")
    found = compare(choices, baselines)
    return replace(table, notes=tuple(notes), comparisons=tuple(one.sentence for one in found)), found


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
        flow, other = _SPOKEN.get(choice.shown.objective, choice.shown.objective), f"the {name}"
        by = f"{_nats(abs(difference.value), difference.se)} nats"
        sure = _beyond(difference)
        verdict = (
            f"{'beats' if difference.value > 0 else 'loses to'} {other} by {by}"
            if sure
            else f"is no further than 2 s.e. from {other} ({_nats(difference.value, difference.se, sign=True)} nats)"
        )
        over = _paired(len(pairs), baselines.own_splits)
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
    elif _beyond(difference):
        verdict = "pruning helped" if difference.value < 0 else "pruning did not help"
    flow = _SPOKEN.get(choice.shown.objective, choice.shown.objective)
    wide = "" if len(shared) > 1 else "; both are judged on the same rows, so this error is too wide"
    shift = f"{_nats(difference.value, difference.se, sign=True)} nats"
    sentence = (
        f"{choice.title}: {flow}, best pruned stage (chosen on validation: {words(choice, best, False)}) against "
        f"dense: {shift} ({_paired(len(shared), False)}{wide}): {verdict}"
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


def _beyond(difference: Mean) -> bool:
    return difference.se is not None and abs(difference.value) > 2 * difference.se


def _paired(pairs: int, own_splits: bool) -> str:
    if pairs == 1:
        return "1 seed: ± s.e. over the test set, unpaired"
    return f"paired over {pairs} seeds{', each with its own split' if own_splits else ''}"


def _nats(value: float, se: float | None, sign: bool = False) -> str:
    shown = f"{value:+.2f}" if sign else f"{value:.2f}"
    return shown if se is None else f"{shown} ± {'<0.01' if 0 < se < 0.005 else f'{se:.2f}'}"


def _data_notes(
    table: TabularTable, title: str, several: Sequence[Choice], baselines: Mapping[str, RunBaselines]
) -> list[str]:
    notes = []
    for choice in _first_of_each_run(several):
        shown, info = choice.shown, choice.shown.info
        if info.name == TABLE:
            notes.append(f"{title}: a file of the user's own ({info.path}), run {shown.run.name}; no published split")
        said = "; ".join(info.notes)
        if info.sample:
            notes.append(f"{title}: run {shown.run.name} was trained on a sample, not the published split: {said}")
        elif said:
            notes.append(f"{title}: {said}")
        notes += _sizes(choice, baselines.get(shown.run.folder))
    if title in table.apart:
        notes.append(f"{title}†: our numbers cannot be held against the published ones; best of each is marked apart")
    return notes


def _sizes(choice: Choice, baselines: RunBaselines | None) -> list[str]:
    shown, known, notes = choice.shown, BENCHMARKS.get(choice.shown.info.name), []
    split: SplitBaselines | None = next(iter(baselines.by_seed.values()), None) if baselines else None
    if shown.info.n_train is not None and not any(f"{shown.info.n_train:,}" in note for note in shown.info.notes):
        whole = f" of {known.rows[0]:,}" if known else ""
        notes.append(
            f"{choice.title}: run {shown.run.name} had {shown.info.n_train:,}{whole} training rows (data.n_train)"
        )
    tested = max((stage.n_test or 0 for stage in shown.stages), default=0)
    rows = split.n_test if split else known.rows[2] if known else None
    if rows is not None and 0 < tested < rows and not (split is None and shown.info.sample):
        notes.append(
            f"{choice.title}: run {shown.run.name} was scored on {tested:,} of {rows:,} test rows (evaluate.max_rows)"
        )
    return notes


def _run_notes(choice: Choice) -> list[str]:
    shown = choice.shown
    seeds = sorted({seed for point in shown.points for seed in point.members})
    several = any(len(point.members) > 1 for point in shown.points)
    tested = max((stage.n_test or 0 for stage in shown.stages), default=0)
    over = "the seeds" if several else f"the test set ({tested:,} rows)" if tested else "the test set"
    notes = [
        f"{choice.title}: {_SPOKEN.get(shown.objective, shown.objective)}, run {shown.run.name}, "
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, ± s.e. over {over}"
    ]
    if len(choice.among) > 1:
        listed = ", ".join(f"{one.run.name} {_validated(one)}" for one in choice.among)
        notes.append(
            f"{choice.title}: variant chosen on validation rows among {len(choice.among)} runs: {shown.run.name} is "
            f"shown (mean dense validation NLL: {listed})"
        )
    partial = {len(point.members) for point in shown.points}
    if len(partial) > 1:
        notes.append(
            f"{choice.title}: some stages of run {shown.run.name} are done for fewer seeds; none of those is chosen"
        )
    return notes + _failures(choice)


def _validated(variant: Variant) -> str:
    dense = variant.dense
    if dense is None or dense.nll_val is None:
        return "none"
    values = [stage.nll_val for stage in dense.members.values() if stage.nll_val is not None]
    mean = mean_over_seeds(values)
    return _nats(mean.value, mean.se)


def _failures(choice: Choice) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for stage in choice.shown.stages:
        if not stage.done:
            reason = stage.reason or "no reason was recorded"
            by_reason.setdefault(reason, []).append(f"{stage.method}-s{stage.seed}/{stage.stage}")
    return [
        f"{choice.title}: failed in run {choice.shown.run.name}: {', '.join(names)}: {reason}"
        for reason, names in by_reason.items()
    ]


def _choice_notes(title: str, several: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> list[str]:
    if not several:
        return []
    notes = []
    chosen = [f"{n} = {words(*one, len(several) > 1)}" for n, one in enumerate(selected(several), start=1)]
    if chosen:
        notes.append(f"{title}: Sparse Flow, ours, on the front of params and validation NLL: {'; '.join(chosen)}")
    else:
        notes.append(f"{title}: no pruned stage has a validation NLL, so there is no Sparse Flow of ours")
    shown = primary(several).shown
    found = baselines.get(shown.run.folder)
    if found and found.reason:
        notes.append(
            f"{title}: no baselines for {'some splits' if found.by_seed else f'run {shown.run.name}'}: {found.reason}"
        )
    fits = list(found.by_seed.values()) if found else []
    for name in (GAUSSIAN, MIXTURE):
        told: dict[str, int] = {}
        for split in dict.fromkeys(fits):
            for fit in split.baselines:
                if fit.name == name:
                    part = f", fitted to {fit.n_fit:,} of {split.n_train:,} training rows" * (fit.n_fit < split.n_train)
                    line = "; ".join([fit.choice + part, *fit.notes] if fit.choice else fit.notes)
                    told[line] = told.get(line, 0) + 1
        splits = sum(told.values())
        for line, times in told.items():
            if line:
                among = f" ({times} of {splits} splits)" if splits > 1 else ""
                notes.append(f"{title}: {name}{among}: {line}")
    if found and found.by_seed and len(several) > 1:
        notes.append(f"{title}: baselines are those of the split of run {shown.run.name}")
    return notes


def _first_of_each_run(several: Sequence[Choice]) -> list[Choice]:
    return list({choice.shown.run.folder: choice for choice in reversed(several)}.values())[::-1]
