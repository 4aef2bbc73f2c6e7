"""The tabular table written down: a sheet in the published layout, and its numbers as CSV and JSON.

Nats are rounded to 0.01 and params to three digits in the sheet; CSV and JSON keep every digit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis.compare.controls import again
from analysis.runs.groups import grouped
from analysis.tables.numbers import NOTHING, exact, fixed
from analysis.tables.rows import to_csv
from analysis.tables.sheet import Sheet
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.compare import Comparison
from analysis.tabular.table import DECIMALS, GROUPS, PUBLISHED, Cell, TabularTable

TEXT_WIDTH = 160
_COLUMNS = ("dataset", "model", "group", "nats", "se", "params", "bold", "comparable", "note")


def params_label(count: float | None) -> str:
    """Params to three digits: `389`, `43.3K`, `6.70M`; `-` where not known."""
    if count is None:
        return NOTHING
    for power, unit in ((9, "G"), (6, "M"), (3, "K")):
        scaled = count / 10**power
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{count:.0f}"


def sheet(table: TabularTable) -> Sheet:
    """A row a model in the groups of the published table, a pair (nats, params) a data set, sentences below."""
    lines = [line for group in GROUPS for line in table.lines if line.group == group]
    first = {line.group: number for number, line in reversed(list(enumerate(lines)))}
    return Sheet(
        title="NLL and params on tabular data",
        legend="Test NLL (nats) in standardised coordinates, lower is better, and number of params",
        heading=("model", *("nats", "params") * len(table.datasets)),
        body=tuple(
            (line.model, *(cell for title in table.datasets for cell in _pair(line.cells.get(title)))) for line in lines
        ),
        label="nll-params-tabular",
        notes=(*table.comparisons, *table.notes),
        marks=frozenset(
            (number, 1 + 2 * place)
            for number, line in enumerate(lines)
            for place, title in enumerate(table.datasets)
            if title in line.cells and line.cells[title].bold
        ),
        marked_is="lowest NLL of a data set, among the baselines and among the Sparse Flows",
        spans=tuple((f"{title}†" if title in table.apart else title, 2) for title in table.datasets),
        groups={number: group for group, number in first.items()},
    )


def remedies(comparisons: Sequence[Comparison]) -> str:
    """The commands that would make testable what is not, one a run and never broken; empty where there is none."""
    known = [one for one in comparisons if one.remedy is not None]
    # What adds a control adds the seeds too, so the longest command of a run is the one that does it all.
    commands = [
        max((one.remedy or "" for one in several), key=len) for several in grouped(known, lambda one: one.run).values()
    ]
    return again(commands)


def rows_csv(table: TabularTable) -> str:
    """A row a number: tidy, unrounded, empty where it does not apply."""
    rows = _rows(table)
    for row in rows:
        row |= {"bold": int(row["bold"]), "comparable": int(row["comparable"]), "params": exact(row["params"])}
    return to_csv(rows, _COLUMNS, whole=False)


def to_json(
    table: TabularTable,
    comparisons: Sequence[Comparison],
    baselines: Mapping[str, RunBaselines],
    runs: Sequence[str],
) -> str:
    """One document: `run`, `datasets`, `rows` (as in the CSV), `comparisons`, `baselines` (of each seed), `notes`."""
    found = {
        "run": list(runs),
        "datasets": list(table.datasets),
        "rows": _rows(table),
        "comparisons": [_comparison(one) for one in comparisons],
        "baselines": [
            {"run": run, "seed": seed, **asdict(split)}
            for run, fits in baselines.items()
            for seed, split in fits.by_seed.items()
        ],
        "notes": list(table.notes),
    }
    return json.dumps(found, indent=2, allow_nan=False)


def _rows(table: TabularTable) -> list[dict[str, Any]]:
    return [
        {
            "dataset": title,
            "model": line.model,
            "group": line.group,
            "nats": cell.nats.value,
            "se": cell.nats.se,
            "params": cell.params,
            "bold": cell.bold,
            "comparable": line.group in PUBLISHED or title in table.comparable,
            "note": cell.chosen,
        }
        for title in table.datasets
        for line in table.lines
        if (cell := line.cells.get(title)) is not None
    ]


def _comparison(one: Comparison) -> dict[str, Any]:
    values = {name: value for name, value in vars(one).items() if name != "difference"}
    return values | {"difference": one.difference.value, "se": one.difference.se}


def _pair(cell: Cell | None) -> tuple[str, str]:
    return (NOTHING, NOTHING) if cell is None else (fixed(cell.nats, DECIMALS), params_label(cell.params))
