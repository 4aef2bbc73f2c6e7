"""The experiment: a dense network a seed, then what every protocol makes of it with every method."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from sparseflows.data.mapped import Rows
from sparseflows.data.splits import Splits, with_labels
from sparseflows.errors import InputError, RunError
from sparseflows.evaluation import subset
from sparseflows.experiment.networks import untrained
from sparseflows.experiment.plan import dense_params
from sparseflows.experiment.progress import Progress
from sparseflows.experiment.protocols import Sequence
from sparseflows.experiment.records import DENSE, Record
from sparseflows.experiment.stage import Bench, StageName, Work, find_stage, make_stage
from sparseflows.experiment.store import RunFolder
from sparseflows.flow.compiled.build import why_not
from sparseflows.pruning.methods import unpruned
from sparseflows.specs import OF_DENSE, REWIND, SCRATCH, Spec
from sparseflows.training.batches import batches_of

WHITENED_BY = 200_000  # training rows at most


def run_experiment(
    spec: Spec, run: RunFolder, splits: Mapping[int, Splits], progress: Progress, jobs: int = 1
) -> list[Record]:
    """Make every stage that is not there yet; gives the records of all. The caller holds the folder's lock.

    A stage that fails is recorded with its reason, and its cascade goes on from the stage before it. The
    numbers do not depend on `jobs`: every process computes with `spec.threads` threads.

    Args:
        spec: the experiment.
        run: its folder.
        splits: seed → its rows.
        progress: who is told.
        jobs: cascades to work on side by side, each in a process of its own.
    """
    check_device(spec.device)
    run.write_data(describe(splits))
    run.write_results()
    _mention_engine(spec, progress)
    try:
        if jobs == 1:
            for seed in spec.seeds:
                bench = make_bench(spec, run, splits[seed], progress, seed)
                make_dense(bench, seed)
                for _, sequences in tasks(spec.model_copy(update={"seeds": [seed]})):
                    for protocol, method in sequences:
                        run_sequence(bench, protocol, method, seed)
        else:
            # joblib's processes: Ctrl-C ends them all. Memory they share is copied when written to (mode c),
            # because PyTorch warns of arrays that cannot be.
            side_by_side = Parallel(n_jobs=jobs, mmap_mode="c")
            me = os.getpid()
            side_by_side(delayed(_dense_task)(me, spec, run, splits[seed], seed) for seed in spec.seeds)
            side_by_side(
                delayed(_sequences_task)(me, spec, run, splits[seed], seed, which) for seed, which in tasks(spec)
            )
    except BrokenProcessPool:
        raise RunError(
            f"{run.path}: a worker process was killed (out of memory? try a smaller --jobs); "
            "the same command goes on from the last checkpoint"
        ) from None
    finally:
        progress.close()
    run.write_results()
    return run.records()


def _mention_engine(spec: Spec, progress: Progress) -> None:
    """Compile the engine before the workers would, or say that there is none."""
    missing = why_not(getattr(torch, spec.dtype)) if spec.network is None and spec.device == "cpu" else None
    if missing is not None:
        progress.say(f"{missing}: small flows take the plain path, which is slower; the numbers agree to the tolerance")


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


def make_bench(spec: Spec, run: RunFolder, splits: Splits, progress: Progress, seed: int) -> Bench:
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
    )


def _training_rows(spec: Spec, splits: Splits) -> Rows:
    """What batches are drawn from: a classifier's rows carry their label as a last column."""
    return with_labels(splits) if spec.train.objective == "cross_entropy" else splits.train


def _dense_task(parent: int, spec: Spec, run: RunFolder, splits: Splits, seed: int) -> None:
    with run.share_lock():
        _end_with(parent)
        make_dense(make_bench(spec, run, splits, Progress(bars=False), seed), seed)


def _sequences_task(
    parent: int, spec: Spec, run: RunFolder, splits: Splits, seed: int, sequences: list[tuple[str, str]]
) -> None:
    with run.share_lock():
        _end_with(parent)
        bench = make_bench(spec, run, splits, Progress(bars=False), seed)
        for protocol, method in sequences:
            run_sequence(bench, protocol, method, seed)


@functools.cache  # one thread a process
def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: a killed `run` must not leave trainings behind."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=look, daemon=True).start()


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


def tasks(spec: Spec) -> list[tuple[int, list[tuple[str, str]]]]:
    """(seed, sequences to be made one after the other): those that stand on one another are together."""
    together: dict[str, list[tuple[str, str]]] = {}
    for protocol, method in spec.prune.sequences():
        key = f"{protocol}/{method}" if protocol in OF_DENSE else method
        together.setdefault(key, []).append((protocol, method))
    for sequences in together.values():
        sequences.sort(key=lambda one: one[0] in (SCRATCH, REWIND))
    return [(seed, sequences) for seed in spec.seeds for sequences in together.values()]


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
