"""What the stages of one seed share: the rows, the dense network, and where they are kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from sparseflows.data.splits import Splits
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import subset
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import DENSE, Record
from sparseflows.experiment.monitoring.logger_names import open_loggers
from sparseflows.experiment.monitoring.loggers import Loggers
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.networks import untrained
from sparseflows.experiment.plan import dense_params
from sparseflows.experiment.rows import training_rows
from sparseflows.experiment.stages.protocols import Sequence
from sparseflows.experiment.stages.stage import Bench, StageName, Work, find_stage, make_stage
from sparseflows.pruning.methods import unpruned
from sparseflows.specs import Spec
from sparseflows.training.batches import batches_of

WHITENED_BY = 200_000  # training rows at most


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
        batches_of(training_rows(spec, splits), dtype, torch.device(run.processes.device(spec.device))),
        whitening_matrix(subset(splits.train, WHITENED_BY, spec.data.seed_for(seed), "whitening")).to(dtype)
        if spec.data.whiten
        else None,
        progress,
        open_loggers(log, run.path, progress.say) if run.processes.rank == 0 else Loggers(),
    )


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
