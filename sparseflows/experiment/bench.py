"""What the stages of one seed share: the rows, the dense network, and where they are kept."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseflows.data.benchmarks import BENCHMARKS
from sparseflows.data.mapped import Rows
from sparseflows.data.prepared import manifest_digest
from sparseflows.data.splits import Splits, fingerprint, make_splits, prepared_folder, with_labels
from sparseflows.errors import InputError
from sparseflows.evaluation import subset
from sparseflows.experiment.logger_names import open_loggers
from sparseflows.experiment.networks import untrained
from sparseflows.experiment.plan import dense_params
from sparseflows.experiment.progress import Progress
from sparseflows.experiment.protocols import Sequence
from sparseflows.experiment.records import DENSE, Record
from sparseflows.experiment.stage import Bench, StageName, Work, find_stage, make_stage
from sparseflows.experiment.store import RunFolder
from sparseflows.experiment.tracking import Loggers
from sparseflows.pruning.methods import unpruned
from sparseflows.specs import DataSpec, Spec
from sparseflows.training.batches import batches_of

WHITENED_BY = 200_000  # training rows at most


def load_splits(spec: Spec, seed: int, here: Path, data_digest: str | None) -> Splits:
    """The rows that `seed` of an experiment trains on, read once a process.

    Args:
        spec: the experiment.
        seed: one of its seeds.
        here: the folder that a relative path of the settings starts from.
        data_digest: what the files were known by when the run began.

    Raises:
        InputError: the files are not there, or not the ones that the run began with.
    """
    return _load(spec.data.model_copy(update={"seed": spec.data.seed_for(seed)}), here, data_digest)


@functools.lru_cache(maxsize=2)
def _load(data: DataSpec, here: Path, data_digest: str | None) -> Splits:
    path = None if data.path is None else str(here / data.path)
    if data.name in BENCHMARKS:
        folder = here / prepared_folder(data.name, data.path)
        path, found = str(folder), manifest_digest(folder) if folder.exists() else data_digest
    elif path is not None and Path(path).is_file():
        found = fingerprint(Path(path))
    else:
        found = data_digest  # a folder that is missing is told below
    if found != data_digest:
        raise InputError(f"{path}: not the file that this run began with; start the run anew with the same command")
    return make_splits(data.name, path, data.n_train, data.val_fraction, data.test_fraction, data.seed)


def describe(splits: Mapping[int, Splits]) -> dict[str, Any]:
    """What data.json says: the statistics of the rows, and of each seed's where they differ."""
    first = next(iter(splits.values()))
    shared = all(one is first for one in splits.values())
    own = {str(seed): one.standardiser.to_dict() for seed, one in splits.items()}
    return {
        "name": first.name,
        "dim": first.train.shape[1],
        **first.standardiser.to_dict(),
        "warnings": first.warnings,
        "sample": first.sample,
        "notes": first.notes,
    } | ({} if shared else {"seeds": own})


def make_bench(
    spec: Spec, run: RunFolder, splits: Splits, progress: Progress, seed: int, log: Iterable[str] = ()
) -> Bench:
    """What the stages of a seed share, in this process."""
    torch.set_num_threads(spec.threads)
    dtype = getattr(torch, spec.dtype)
    return Bench(
        run,
        spec,
        splits,
        spec.data.seed_for(seed),
        batches_of(_training_rows(spec, splits), dtype, torch.device(run.processes.device(spec.device))),
        whitening_matrix(subset(splits.train, WHITENED_BY, spec.data.seed_for(seed), "whitening")).to(dtype)
        if spec.data.whiten
        else None,
        progress,
        open_loggers(log, run.path, progress.say) if run.processes.rank == 0 else Loggers(),
    )


def _training_rows(spec: Spec, splits: Splits) -> Rows:
    """What batches are drawn from: a classifier's rows carry their label as a last column."""
    return with_labels(splits) if spec.train.objective == "cross_entropy" else splits.train


def make_dense(bench: Bench, seed: int) -> Record:
    """The unpruned network of a seed, trained once and shared by all methods and protocols."""
    name = StageName(DENSE, seed, 0)
    found = find_stage(bench, name)
    if found:
        bench.progress.found(found)
        return found
    return make_stage(
        bench, name, Work(lambda: unpruned(_untrained(bench, seed)), bench.spec.train), _params_dense(bench)
    )


def run_sequence(bench: Bench, protocol: str, method: str, seed: int) -> None:
    """All stages of one protocol, method and seed; those it stands on are there."""
    Sequence(bench, protocol, method, seed, _untrained(bench, seed), _params_dense(bench)).run()


def _untrained(bench: Bench, seed: int) -> nn.Module:
    splits = bench.splits
    return untrained(bench.spec, splits.train.shape[1], splits.classes, seed, bench.whitening).to(bench.rows.dtype)


def _params_dense(bench: Bench) -> int:
    return dense_params(bench.spec, bench.splits.train.shape[1], bench.splits.classes) or 0


def whitening_matrix(rows: np.ndarray) -> Tensor:
    """C^(−1/2) of the rows' covariance C, shrunk as Ledoit and Wolf (2004): (D, D) float64."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(rows)
    values, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy(vectors @ np.diag(values**-0.5) @ vectors.T)


def check_device(device: str) -> None:
    """Raise InputError where the device is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: {device}: PyTorch finds no GPU here; set device: cpu")
