"""What stands below the tabular table: footnotes, and the comparisons of `compare`. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    notes = []
    for title, several in shown:
        notes += [f"{title}: {note}" for note in _data_notes(several, baselines)]
        if title in table.apart:
            apart = "our numbers cannot be held against the published ones; the lowest of each is marked apart"
            notes.append(f"{title}†: {apart}")
    notes += [f"{choice.title}: {note}" for choice in choices for note in _run_notes(choice.shown, choice.among)]
    notes += [f"{title}: {note}" for title, several in shown for note in _choice_notes(several, baselines)]
    if published:
        notes.append(f"published: {published.source}; {published.note}")
    found = compare(choices, baselines)
    return replace(table, notes=tuple(notes), comparisons=tuple(one.sentence for one in found)), found


def _data_notes(several: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> Iterator[str]:
    of_each_run = {choice.shown.run.folder: choice.shown for choice in reversed(several)}
    for shown in reversed(of_each_run.values()):
        info, said = shown.info, "; ".join(shown.info.notes)
        if info.name == TABLE:
            yield f"a file of the user's own ({info.path}), run {shown.called}; no published split"
        if info.sample:
            yield f"run {shown.called} was trained on a sample, not the published split: {said}"
        elif said:
            yield said
        yield from _sizes(shown, baselines.get(shown.run.folder))


def _sizes(shown: Variant, baselines: RunBaselines | None) -> Iterator[str]:
    info, known = shown.info, BENCHMARKS.get(shown.info.name)
    split: SplitBaselines | None = next(iter(baselines.by_seed.values()), None) if baselines else None
    if info.n_train is not None and not any(f"{info.n_train:,}" in note for note in info.notes):
        whole = f" of {known.rows[0]:,}" if known else ""
        yield f"run {shown.called} had {info.n_train:,}{whole} training rows (data.n_train)"
    rows = split.n_test if split else known.rows[2] if known else None
    if rows is not None and 0 < shown.tested < rows and not (split is None and info.sample):
        yield f"run {shown.called} was scored on {shown.tested:,} of {rows:,} test rows (evaluate.max_rows)"


def _run_notes(shown: Variant, among: Sequence[Variant]) -> Iterator[str]:
    seeds = len({seed for point in shown.points for seed in point.members})
    done_for = {len(point.members) for point in shown.points}
    over = f"the test set ({shown.tested:,} rows)" if shown.tested else "the test set"
    over = "the seeds" if max(done_for, default=0) > 1 else over
    yield f"{spoken(shown.objective)}, run {shown.called}, {seeds} seed{'s' * (seeds != 1)}, ± s.e. over {over}"
    there, wanted = len(shown.stages), shown.info.stages
    if wanted is not None and there < wanted:
        yield f"run {shown.called} is not finished: {there} of {wanted} stages"
    if len(among) > 1:
        listed = ", ".join(f"{one.called} {_validated(one)}" for one in among)
        yield (
            f"variant chosen on validation rows among {len(among)} runs: {shown.called} is shown (mean dense "
            f"validation NLL: {listed})"
        )
    if len(done_for) > 1:
        yield f"some stages of run {shown.called} are done for fewer seeds; none of those is chosen"
    failed = [stage for stage in shown.stages if not stage.done]
    for reason, stages in grouped(failed, lambda stage: stage.reason or NO_REASON).items():
        names = ", ".join(f"{stage.method}-s{stage.seed}/{stage.stage}" for stage in stages)
        yield f"failed in run {shown.called}: {names}: {reason}"


def _validated(variant: Variant) -> str:
    dense = variant.dense
    if dense is None or dense.nll_val is None:
        return "none"
    return fixed(mean_over_seeds([stage.nll_val for stage in dense.members.values() if stage.nll_val is not None]))


def _choice_notes(several: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> Iterator[str]:
    chosen = [f"{n} = {words(*one, len(several) > 1)}" for n, one in enumerate(selected(several), start=1)]
    if chosen:
        yield f"Sparse Flow, ours, on the front of params and validation NLL: {'; '.join(chosen)}"
    else:
        yield "no pruned stage has a validation NLL, so there is no Sparse Flow of ours"
    shown = primary(several).shown
    found = baselines.get(shown.run.folder)
    if found is None:
        return
    if found.reason:
        yield f"no baselines for {'some splits' if found.by_seed else f'run {shown.called}'}: {found.reason}"
    for name in (GAUSSIAN, MIXTURE):
        told: Counter[str] = Counter()
        for split in dict.fromkeys(found.by_seed.values()):
            for fit in split.baselines:
                if fit.name == name:
                    part = f", fitted to {fit.n_fit:,} of {split.n_train:,} training rows" * (fit.n_fit < split.n_train)
                    told["; ".join([fit.choice + part, *fit.notes] if fit.choice else fit.notes)] += 1
        splits = told.total()
        for line, times in told.items():
            if line:
                among = f" ({times} of {splits} splits)" if splits > 1 else ""
                yield f"{name}{among}: {line}"
    if found.by_seed and len(several) > 1:
        yield f"baselines are those of the split of run {shown.called}"
