"""The NLL-vs-params table in the published layout: a row a model, a pair (nats, params) for each data set.

Pure: the chosen runs, their baselines and the published rows in, one table out. Pruned stages are chosen on
validation rows (`front`); the test NLL is what stands in the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.reference import PublishedTables
from analysis.runs.groups import grouped
from analysis.tables.means import average
from analysis.tables.numbers import Mean, percent
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE, Baseline
from analysis.tabular.front import Point, pareto_front, pruned_of, thinned
from analysis.tabular.runs import Choice

PUBLISHED_BASELINES, PUBLISHED_FFJORD = "Baselines (published)", "FFJORD (published)"
PUBLISHED_SPARSE, OURS, OURS_SPARSE = "Sparse Flow (published)", "Dense and baselines (ours)", "Sparse Flow (ours)"
GROUPS = (PUBLISHED_BASELINES, PUBLISHED_FFJORD, PUBLISHED_SPARSE, OURS, OURS_SPARSE)
SPARSE = (PUBLISHED_SPARSE, OURS_SPARSE)
PUBLISHED = (PUBLISHED_BASELINES, PUBLISHED_FFJORD, PUBLISHED_SPARSE)
OBJECTIVES = {"nll": "FFJORD (ours)", "flow_matching": "flow matching (ours)"}
DECIMALS = 2  # of the nats that are printed, and so of what is equal


@dataclass(frozen=True)
class Cell:
    """One number of one model on one data set: test NLL in nats, params (None where not known).

    `chosen` says which stage or which mixture it is; empty where there was nothing to choose.
    """

    nats: Mean
    params: float | None
    bold: bool = False
    chosen: str = ""


@dataclass(frozen=True)
class Line:
    """One model: `cells` by the title of the data set, absent where it has no number."""

    model: str
    group: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Curve:
    """All stages of one method of a shown run, for the figure; the dense flow is a curve of one point."""

    dataset: str
    objective: str
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class TabularTable:
    """The table. `comparable` are the data sets whose own numbers may be held against the published ones, `apart`
    those of the published sets where they may not.

    `notes` are its footnotes, `comparisons` the sentences below it (both by `words`).
    """

    datasets: tuple[str, ...]
    lines: tuple[Line, ...]
    comparable: tuple[str, ...]
    apart: tuple[str, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()
    comparisons: tuple[str, ...] = ()


def tabular_table(
    choices: Sequence[Choice], baselines: Mapping[str, RunBaselines], published: PublishedTables | None
) -> TabularTable:
    """The table of the chosen runs, with the published rows where they are asked for; without words.

    `baselines` are known by the run folder; runs may be missing.
    """
    mine = grouped(choices, lambda choice: choice.title)
    theirs = list(published.datasets) if published else []
    datasets = (*theirs, *(title for title in mine if title not in theirs))
    comparable = tuple(title for title in mine if all(one.shown.info.is_published for one in mine[title]))
    apart = tuple(title for title in mine if title in theirs and title not in comparable)
    lines = [*_published(published), *_dense_and_baselines(mine, baselines), *_sparse(mine)]
    return TabularTable(datasets, _bold(lines, datasets, apart), comparable, apart, tuple(_curves(choices)))


def candidates(choices: Sequence[Choice]) -> list[tuple[Choice, Point]]:
    """The pruned stages that the rows of one data set are chosen from, of all its objectives."""
    return [(choice, point) for choice in choices for point in pruned_of(choice.shown.points)]


def selected(choices: Sequence[Choice]) -> list[tuple[Choice, Point]]:
    """At most four of `candidates`, along the front of params and validation NLL, params falling."""
    owners = {id(point): choice for choice, point in candidates(choices)}
    front = pareto_front(point for _, point in candidates(choices))
    return [(owners[id(point)], point) for point in thinned(front)]


def primary(choices: Sequence[Choice]) -> Choice:
    """The objective of a data set whose split the printed baselines are of: the best validated one."""
    return min(choices, key=lambda choice: choice.shown.validated)


def pooled_baseline(found: RunBaselines | None, name: str) -> tuple[Baseline, Mean] | None:
    """A baseline of a run: one of its fits, and its test NLL with the error over the seeds' splits or the test set."""
    fits = [one for split in (found.by_seed.values() if found else ()) for one in split.baselines if one.name == name]
    shown = fits if found and found.own_splits else fits[:1]
    mean = average((Mean(fit.nll_test, fit.nll_test_se) for fit in shown), over_seeds=False)
    return (fits[0], mean) if mean else None


def words(choice: Choice, point: Point, several: bool) -> str:
    """Which stage it is: `unstructured stage 3, PR 49 %`, with its objective where there are several."""
    objective = f"{choice.shown.objective}, " if several else ""
    return f"{objective}{point.label} stage {point.stage}, PR {percent(point.prune_ratio, 0)}"


def _published(published: PublishedTables | None) -> list[Line]:
    lines = []
    for model, cells in (published.rows if published else {}).items():
        group, label = PUBLISHED_BASELINES, model
        if model.startswith("FFJORD"):
            group = PUBLISHED_FFJORD
        elif model.startswith("Sparse Flow"):
            group, label = PUBLISHED_SPARSE, f"{model} (published)"
        known = {name: Cell(Mean(nll, None), params) for name, (nll, params) in cells.items()}
        lines.append(Line(label, group, known))
    return sorted(lines, key=lambda line: GROUPS.index(line.group))


def _dense_and_baselines(mine: Mapping[str, Sequence[Choice]], baselines: Mapping[str, RunBaselines]) -> list[Line]:
    rows: dict[str, dict[str, Cell]] = {f"{name} (ours)": {} for name in (GAUSSIAN, MIXTURE)}
    rows |= {label: {} for label in OBJECTIVES.values()}
    for title, choices in mine.items():
        for name in (GAUSSIAN, MIXTURE):
            pooled = pooled_baseline(baselines.get(primary(choices).shown.run.folder), name)
            if pooled:
                fit, mean = pooled
                rows[f"{name} (ours)"][title] = Cell(mean, fit.params, chosen=fit.choice)
        for choice in choices:
            dense = choice.shown.dense
            if dense is not None:
                label = OBJECTIVES.get(choice.shown.objective, f"{choice.shown.objective} (ours)")
                rows.setdefault(label, {})[title] = Cell(dense.nll_test, dense.params)
    return [Line(label, OURS, cells) for label, cells in rows.items() if cells]


def _sparse(mine: Mapping[str, Sequence[Choice]]) -> list[Line]:
    rows: dict[str, dict[str, Cell]] = {}
    for title, choices in mine.items():
        for number, (choice, point) in enumerate(selected(choices), start=1):
            cell = Cell(point.nll_test, point.params, chosen=words(choice, point, len(choices) > 1))
            rows.setdefault(f"Sparse Flow, ours, {number}", {})[title] = cell
    return [Line(label, OURS_SPARSE, cells) for label, cells in sorted(rows.items())]


def _curves(choices: Sequence[Choice]) -> Iterator[Curve]:
    for choice in choices:
        for label, points in grouped(choice.shown.points, lambda point: point.label).items():
            rising = tuple(sorted(points, key=lambda point: point.params))
            yield Curve(choice.title, choice.shown.objective, label, rising)


def _bold(lines: Sequence[Line], datasets: Sequence[str], apart: Sequence[str]) -> tuple[Line, ...]:
    """Mark the lowest printed NLL of each data set, among the baselines and among the Sparse Flows.

    Where ours are apart, the published compete among themselves and ours do.
    """
    marked = {line.model: dict(line.cells) for line in lines}
    for title in datasets:
        leagues: dict[tuple[bool, bool], list[Line]] = {}
        for line in lines:
            if title in line.cells:
                league = (line.group in SPARSE, title in apart and line.group in PUBLISHED)
                leagues.setdefault(league, []).append(line)
        for members in leagues.values():
            printed = [round(line.cells[title].nats.value, DECIMALS) for line in members]
            for line, nats in zip(members, printed, strict=True):
                marked[line.model][title] = replace(line.cells[title], bold=nats == min(printed))
    return tuple(replace(line, cells=marked[line.model]) for line in lines)
