"""What a run would do, before PyTorch is loaded: `sparseflows check`, and the first moments of `run`."""

import contextlib
import functools
import os
from pathlib import Path
from typing import Any

from sparseflows.data.benchmarks.prepared import read_manifest
from sparseflows.data.images.idx import training_shape
from sparseflows.data.splits import known_sets, prepared_folder
from sparseflows.errors import InputError, lookup
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.splitting import splits_of
from sparseflows.specs import DataSpec, Spec, TrainSpec
from sparseflows.specs.methods import METHODS


def plan(spec: Spec) -> dict[str, Any]:
    """What a run would do: dense params, stages, steps. None where only the user's files can tell.

    A file that `data.path` names is read; all other sets answer without their data, benchmark sets with the
    published number of rows where they have not been prepared.

    Raises:
        InputError: an unknown set, a file that is not fit or not wanted, or more training rows than there are.
    """
    data = spec.data
    known = lookup("data set", data.name, {one.name: one for one in known_sets()})
    if known.kind not in ("file", "folder", "prepared") and data.path is not None:
        raise InputError(f"data set '{data.name}' takes no file: remove data.path, or set data.name to 'table'")
    dim, rows, classes = known.dimension, known.rows, known.classes
    notes: tuple[str, ...] = ()
    if known.kind == "prepared":
        folder = prepared_folder(data.name, data.path)
        if folder.exists():
            manifest = read_manifest(folder, data.name)
            dim, rows = len(manifest.columns), manifest.rows["train"]
    elif known.kind == "folder" and data.path is not None:
        rows, height, width, classes = training_shape(Path(data.path))
        dim, rows = height * width, rows - round(rows * data.val_fraction)
    elif data.path is not None:
        rows, dim, notes = _table(data.model_dump_json(), data.seed_for(spec.seeds[0]), _stamp(data.path))
    if known.kind == "bundled" and rows is not None:
        rows -= round(rows * data.val_fraction) + round(rows * data.test_fraction)  # as `tabular.split`
    if known.kind != "toy" and rows is not None and data.n_train is not None and data.n_train > rows:
        raise InputError(f"data.n_train is {data.n_train}, but '{data.name}' has {rows} rows to train on")
    rows = data.n_train or rows
    check_keep_ratios(spec, dim, classes)

    def steps(settings: TrainSpec) -> int | None:
        return settings.steps if rows is None else settings.steps_for(rows)[0]

    return {
        "name": spec.name,
        "dataset": spec.data.name,
        "dim": dim,
        "train_rows": rows,
        "params_dense": dense_params(spec, dim, classes),
        "stages": len(stages(spec)),
        "steps_dense": steps(spec.train),
        "steps_retrain": steps(spec.retrain_spec()) if spec.prune.methods else None,
        "notes": [*notes, *_device_notes(spec.device)],
    }


def _device_notes(device: str) -> list[str]:
    """What `run` would refuse on this machine; PyTorch is asked only where a GPU is wanted."""
    if not device.startswith("cuda"):
        return []
    import torch

    here = torch.cuda.is_available()
    return [] if here else [f"device: {device}: PyTorch finds no GPU on this machine; run it where there is one"]


def _stamp(path: str) -> tuple[int, int]:
    """What changes with a file; nothing where there is none, which is for whoever reads it to say."""
    with contextlib.suppress(OSError, ValueError):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    return 0, 0


@functools.lru_cache(maxsize=1)
def _table(document: str, seed: int, stamp: tuple[int, int]) -> tuple[int, int, tuple[str, ...]]:
    """Training rows and columns of the user's table, and what is to be known about it; points of a sweep share it."""
    data = DataSpec.model_validate_json(document)
    splits = splits_of(data, data.path, seed)
    return *splits.train.shape, (*splits.warnings, *splits.notes)


def check_keep_ratios(spec: Spec, dim: int | None, classes: int | None) -> None:
    """Raise InputError where a keep ratio would leave a layer of the dense flow or network empty."""
    dense = dense_params(spec, dim, classes)
    if dim is None or dense is None or not spec.prune.keep_ratios:
        return
    ratio = spec.prune.keep_ratios[-1]
    neurons = any(METHODS[method].kind == "neurons" for method in spec.prune.methods)
    least = dense_params(narrower(spec, 0), dim, classes) or 0 if neurons else _one_path(spec, dim, classes)
    if round(ratio * dense) < least:
        left = "one neuron a layer" if neurons else "one path of weights"
        raise InputError(
            f"prune.keep_ratios: {ratio:g} of {dense:,} params would empty a layer: {left} takes {least:,}; "
            f"keep {least / dense:.3g} at least"
        )


def narrower(spec: Spec, factor: float) -> Spec:
    """`spec` with every hidden layer of its flow or network narrower by `factor`; widths below 1 are 1."""
    keys = {"hidden"} if spec.network is None else {"hidden", "channels"}
    name, section = ("flow", spec.flow) if spec.network is None else ("network", spec.network)
    widths = {key: [max(1, round(factor * width)) for width in getattr(section, key)] for key in keys}
    return spec.model_copy(update={name: section.model_copy(update=widths)})


def _one_path(spec: Spec, dim: int, classes: int | None) -> int:
    """Params of one weight a layer, the biases and time gates of its neurons, and those of every output."""
    if spec.network is not None:
        hidden = len(spec.network.hidden) + len(spec.network.channels)
        return hidden * (2 + 2 * int(spec.network.batch_norm)) + 1 + (classes or 0)
    inner = len(spec.flow.hidden)
    own = {"none": 1, "concat": 1, "concat_squash": 4}[spec.flow.time]
    block = inner * (1 + own) + int(spec.flow.time == "concat") + 1 + own * dim + int(spec.flow.train_end_time)
    return spec.flow.blocks * block


def dense_params(spec: Spec, dim: int | None, classes: int | None) -> int | None:
    """Trainable scalars of the dense flow or network for rows of `dim` columns; None where that is not known.

    Raises:
        InputError: the data cannot be classified, or not by this network or flow: images that are not square, or too
            small for so many convolutions.
    """
    if spec.train.objective == "cross_entropy":
        if dim is not None and (classes or 0) < 2:
            has = "no labels" if classes is None else "one class only"
            raise InputError(
                f"train.objective: cross_entropy needs labels of two or more classes, but '{spec.data.name}' has {has}"
            )
        if dim is None or classes is None:
            return None
        if spec.network is not None:
            try:
                return spec.network.dense_params(dim, classes)
            except ValueError as error:
                raise InputError(str(error)) from None
        if classes > dim:
            raise InputError(
                f"train.objective: cross_entropy reads the logits from a flow's {dim} columns, too few for {classes} "
                "classes; give a network instead"
            )
    return None if dim is None else spec.flow.dense_params(dim)


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
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join(lines)
