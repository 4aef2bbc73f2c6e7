"""The results of runs as one tidy table: a pandas DataFrame with a row a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.runs.records import CASCADE, DENSE, DONE, Run, read_run

if TYPE_CHECKING:
    from pandas import DataFrame

GROUP = ["run", "dataset", "objective", "protocol", "method", "stage"]  # what one mean is over the seeds of
NUMBERS = ("prune_ratio", "params", "nll_val", "nll_test", "kl_gap", "accuracy_test", "loss_test", "nfe")


def frame(*runs: Run | Path | str) -> DataFrame:
    """The stages of runs (folders, or runs that have been read): the columns of results.csv, `run` and `name` ahead.

    What does not apply is missing (NaN); `protocol` is never missing; `dense` says which rows are of the dense flow.

    Raises:
        InputError: a folder is no run, or its results.csv is damaged.

    Example:
        ``frame("runs/quick").groupby("method").nll_test.min()``
    """
    import pandas as pd

    read = [run if isinstance(run, Run) else read_run(Path(run)) for run in runs]
    rows = [{"run": run.folder, "name": run.name} | asdict(stage) for run in read for stage in run.stages]
    table = pd.DataFrame(rows)
    table["protocol"] = table["protocol"].fillna(CASCADE)
    return table.assign(dense=(table["method"] == DENSE) & (table["protocol"] == CASCADE))


def means(table: DataFrame, columns: Sequence[str] = NUMBERS) -> DataFrame:
    """Means over the seeds of the stages that are done in a table of `frame`: `<column>`, `<column>_se` and `seeds`.

    The standard error is that of the sample standard deviation over sqrt(n); missing for one seed.
    """
    done = table[table["status"] == DONE]
    groups = done.groupby(GROUP, sort=False)
    found = groups[list(columns)].mean().join(groups[list(columns)].sem().add_suffix("_se"))
    return found.assign(seeds=groups["seed"].nunique()).reset_index()
