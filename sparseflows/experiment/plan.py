"""What a run would do, before PyTorch is loaded: `sparseflows check`, and the first moments of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparseflows.data.splits import Splits, fingerprint, known_sets, make_splits
from sparseflows.data.tabular import load_table
from sparseflows.errors import InputError, lookup
from sparseflows.specs import Spec, TrainSpec


def prepare(spec: Spec) -> tuple[Splits, str | None]:
    """The rows of an experiment, and the digest of the user's own file where there is one.

    Raises:
        InputError: the data are missing or not fit to be trained on.
    """
    data = spec.data
    splits = make_splits(data.name, data.path, data.n_train, data.val_fraction, data.test_fraction, data.seed)
    return splits, None if data.path is None else fingerprint(Path(data.path))


def count_stages(spec: Spec) -> int:
    """Stages of the whole run, dense ones included."""
    return len(spec.seeds) * (1 + len(spec.prune.methods) * len(spec.prune.keep_ratios))


def plan(spec: Spec) -> dict[str, Any]:
    """What a run would do: dense params, stages, steps. None where only the user's file can tell.

    A file that `data.path` names is read; all other sets answer without their data.

    Raises:
        InputError: an unknown set, a file that is not fit or not wanted, or more training rows than there are.
    """
    data = spec.data
    known = lookup("data set", data.name, {one.name: one for one in known_sets()})
    if known.kind != "file" and data.path is not None:
        raise InputError(f"data set '{data.name}' takes no file: remove data.path, or set data.name to 'table'")
    dim, rows = known.dimension, known.rows
    if data.path is not None:
        rows, dim = load_table(data.path).shape
    if known.kind != "toy" and rows is not None:
        rows -= round(rows * data.val_fraction) + round(rows * data.test_fraction)  # as `tabular.split`
        if data.n_train is not None and data.n_train > rows:
            raise InputError(f"data.n_train is {data.n_train}, but '{data.name}' has {rows} rows to train on")
    rows = data.n_train or rows

    def steps(settings: TrainSpec) -> int | None:
        return settings.steps if rows is None else settings.steps_for(rows)[0]

    return {
        "name": spec.name,
        "dataset": spec.data.name,
        "dim": dim,
        "train_rows": rows,
        "params_dense": None if dim is None else spec.flow.dense_params(dim),
        "stages": count_stages(spec),
        "steps_dense": steps(spec.train),
        "steps_retrain": steps(spec.retrain_spec()) if spec.prune.methods else None,
    }


def plan_text(found: dict[str, Any]) -> str:
    """`plan` for a person."""

    def say(value: Any) -> str:
        return "depends on your file (data.path)" if value is None else f"{value:,}"

    lines = [
        f"dense params     {say(found['params_dense'])}",
        f"training rows    {say(found['train_rows'])}, {say(found['dim'])} columns",
        f"stages           {found['stages']:,}",
        f"steps, dense     {say(found['steps_dense'])}",
    ]
    if found["steps_retrain"] is not None:
        lines.append(f"steps, a retrain {say(found['steps_retrain'])}")
    return "\n".join(lines)
