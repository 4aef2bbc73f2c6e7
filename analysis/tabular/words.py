"""What stands below the tabular table: footnotes, and the comparisons of `compare`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.reference import PublishedTables
from analysis.runs.groups import grouped
from analysis.runs.records import NO_REASON
from analysis.tables.means import mean_over_seeds
from analysis.tables.numbers import fixed
from analysis.tabular.baseline_results import RunBaselines, SplitBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE
from analysis.tabular.compare import Comparison, compare, spoken
from analysis.tabular.runs import Choice, Variant
from analysis.tabular.table import TabularTable, primary, selected, words
from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.data.splits import TABLE


def with_words(
    table: TabularTable,
    choices: Sequence[Choice],
    baselines: Mapping[str, RunBaselines],
    published: PublishedTables | None,
) -> tuple[TabularTable, list[Comparison]]:
    """The table with its footnotes and comparisons, and the comparisons as values."""
    mine = grouped(choices, lambda choice: choice.title)
    shown = [(title, mine[title]) for title in table.datasets if title in mine]
    notes = [note for title, several in shown for note in _data_notes(table, title, several, baselines)]
    notes += [note for choice in choices for note in _run_notes(choice)]
    notes += [note for title, several in shown for note in _choice_notes(title, several, baselines)]
    if published:
        notes.append(f"published: {published.source}; {published.note}")
    found = compare(choices, baselines)
    return replace(table, notes=tuple(notes), comparisons=tuple(one.sentence for one in found)), found


def _data_notes(
    table: TabularTable, title: str, several: Sequence[Choice], baselines: Mapping[str, RunBaselines]
) -> list[str]:
    notes = []
    for choice in _first_of_each_run(several):
        shown, info = choice.shown, choice.shown.info
        if info.name == TABLE:
            notes.append(f"{title}: a file of the user's own ({info.path}), run {shown.called}; no published split")
        said = "; ".join(info.notes)
        if info.sample:
            notes.append(f"{title}: run {shown.called} was trained on a sample, not the published split: {said}")
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
            f"{choice.title}: run {shown.called} had {shown.info.n_train:,}{whole} training rows (data.n_train)"
        )
    tested = max((stage.n_test or 0 for stage in shown.stages), default=0)
    rows = split.n_test if split else known.rows[2] if known else None
    if rows is not None and 0 < tested < rows and not (split is None and shown.info.sample):
        notes.append(
            f"{choice.title}: run {shown.called} was scored on {tested:,} of {rows:,} test rows (evaluate.max_rows)"
        )
    return notes


def _run_notes(choice: Choice) -> list[str]:
    shown = choice.shown
    seeds = sorted({seed for point in shown.points for seed in point.members})
    several = any(len(point.members) > 1 for point in shown.points)
    tested = max((stage.n_test or 0 for stage in shown.stages), default=0)
    over = "the seeds" if several else f"the test set ({tested:,} rows)" if tested else "the test set"
    notes = [
        f"{choice.title}: {spoken(shown.objective)}, run {shown.called}, "
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, ± s.e. over {over}"
    ]
    there, wanted = len(shown.stages), shown.info.stages
    if wanted is not None and there < wanted:
        notes.append(f"{choice.title}: run {shown.called} is not finished: {there} of {wanted} stages")
    if len(choice.among) > 1:
        listed = ", ".join(f"{one.called} {_validated(one)}" for one in choice.among)
        notes.append(
            f"{choice.title}: variant chosen on validation rows among {len(choice.among)} runs: {shown.called} is "
            f"shown (mean dense validation NLL: {listed})"
        )
    partial = {len(point.members) for point in shown.points}
    if len(partial) > 1:
        notes.append(
            f"{choice.title}: some stages of run {shown.called} are done for fewer seeds; none of those is chosen"
        )
    return notes + _failures(choice)


def _validated(variant: Variant) -> str:
    dense = variant.dense
    if dense is None or dense.nll_val is None:
        return "none"
    return fixed(mean_over_seeds([stage.nll_val for stage in dense.members.values() if stage.nll_val is not None]))


def _failures(choice: Choice) -> list[str]:
    failed = [stage for stage in choice.shown.stages if not stage.done]
    notes = []
    for reason, stages in grouped(failed, lambda stage: stage.reason or NO_REASON).items():
        names = ", ".join(f"{stage.method}-s{stage.seed}/{stage.stage}" for stage in stages)
        notes.append(f"{choice.title}: failed in run {choice.shown.called}: {names}: {reason}")
    return notes


def _choice_notes(title: str, several: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> list[str]:
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
            f"{title}: no baselines for {'some splits' if found.by_seed else f'run {shown.called}'}: {found.reason}"
        )
    fits = list(found.by_seed.values()) if found else []
    for name in (GAUSSIAN, MIXTURE):
        told: Counter[str] = Counter()
        for split in dict.fromkeys(fits):
            for fit in split.baselines:
                if fit.name == name:
                    part = f", fitted to {fit.n_fit:,} of {split.n_train:,} training rows" * (fit.n_fit < split.n_train)
                    told["; ".join([fit.choice + part, *fit.notes] if fit.choice else fit.notes)] += 1
        splits = told.total()
        for line, times in told.items():
            if line:
                among = f" ({times} of {splits} splits)" if splits > 1 else ""
                notes.append(f"{title}: {name}{among}: {line}")
    if found and found.by_seed and len(several) > 1:
        notes.append(f"{title}: baselines are those of the split of run {shown.called}")
    return notes


def _first_of_each_run(several: Sequence[Choice]) -> list[Choice]:
    return list({choice.shown.run.folder: choice for choice in reversed(several)}.values())[::-1]
