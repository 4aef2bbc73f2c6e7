"""The experiment: a dense flow a seed, then (prune a bit more, retrain) for every method."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from sparseflows.data.splits import Splits
from sparseflows.errors import InputError, RunError
from sparseflows.evaluation import subset
from sparseflows.experiment.progress import Progress
from sparseflows.experiment.records import DENSE, DONE, FAILED, Record
from sparseflows.experiment.stage import Bench, StageName, find_stage, finish, make_stage, read_pruned
from sparseflows.experiment.store import RunFolder
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.pruning.methods import Pruned, prune, unpruned
from sparseflows.specs import Spec
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
    cascades = [(method, seed) for seed in spec.seeds for method in spec.prune.methods]
    try:
        if jobs == 1:
            for seed in spec.seeds:
                bench = make_bench(spec, run, splits[seed], progress, seed)
                make_dense(bench, seed)
                for method in spec.prune.methods:
                    run_cascade(bench, method, seed)
        else:
            # joblib's processes: Ctrl-C ends them all. Memory they share is copied when written to (mode c),
            # because PyTorch warns of arrays that cannot be.
            side_by_side = Parallel(n_jobs=jobs, mmap_mode="c")
            me = os.getpid()
            side_by_side(delayed(_dense_task)(me, spec, run, splits[seed], seed) for seed in spec.seeds)
            side_by_side(delayed(_cascade_task)(me, spec, run, splits[seed], method, seed) for method, seed in cascades)
    except BrokenProcessPool:
        raise RunError(
            f"{run.path}: a worker process was killed (out of memory? try a smaller --jobs); "
            "the same command goes on from the last checkpoint"
        ) from None
    finally:
        progress.close()
    run.write_results()
    return run.records()


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
        batches_of(splits.train, dtype, torch.device(spec.device)),
        whitening_matrix(subset(splits.train, WHITENED_BY, spec.data.seed_for(seed), "whitening")).to(dtype)
        if spec.data.whiten
        else None,
        progress,
    )


def _dense_task(parent: int, spec: Spec, run: RunFolder, splits: Splits, seed: int) -> None:
    with run.share_lock():
        _end_with(parent)
        make_dense(make_bench(spec, run, splits, Progress(bars=False), seed), seed)


def _cascade_task(parent: int, spec: Spec, run: RunFolder, splits: Splits, method: str, seed: int) -> None:
    with run.share_lock():
        _end_with(parent)
        run_cascade(make_bench(spec, run, splits, Progress(bars=False), seed), method, seed)


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
    """The unpruned flow of a seed, trained once and shared by all methods."""
    name = StageName(DENSE, seed, 0)
    found = find_stage(bench, name)
    if found:
        bench.progress.found(found)
        return found
    start: Callable[[], Pruned] = lambda: unpruned(_untrained(bench, seed))  # noqa: E731
    return make_stage(bench, name, start, bench.spec.train, _params_dense(bench))


def run_cascade(bench: Bench, method: str, seed: int) -> None:
    """All stages of one method and seed, each from the last good stage before it."""
    dense_name = StageName(DENSE, seed, 0)
    dense_record = bench.run.read_stage(dense_name.cascade, 0)
    last_good = dense_name if dense_record and dense_record.status == DONE else None
    total = _params_dense(bench)
    untrained = _untrained(bench, seed)
    for stage, ratio in enumerate(bench.spec.prune.keep_ratios, 1):
        name = StageName(method, seed, stage, ratio)
        record = find_stage(bench, name)
        if record:
            bench.progress.found(record)
        elif last_good is None:
            record = _fail_without_dense(bench, name, total)
        else:
            start = _pruned_from(bench, last_good, name, untrained, round(ratio * total))
            record = make_stage(bench, name, start, bench.spec.retrain_spec(), total)
        if record.status == DONE:
            last_good = name


def _pruned_from(bench: Bench, before: StageName, name: StageName, dense: Flow, target: int) -> Callable[[], Pruned]:
    def start() -> Pruned:
        return prune(name.method, read_pruned(bench, before), dense, target, bench.spec.prune.allocation)

    return start


def _fail_without_dense(bench: Bench, name: StageName, total: int) -> Record:
    record = Record(
        dataset=bench.splits.name,
        objective=bench.spec.train.objective,
        protocol="cascade",
        method=name.method,
        seed=name.seed,
        stage=name.stage,
        status=FAILED,
        reason="the dense flow of this seed failed",
        keep_ratio_target=name.keep_ratio,
        params_dense=total,
    )
    finish(bench, record, None, [])
    return record


def _untrained(bench: Bench, seed: int) -> Flow:
    return build_flow(bench.spec, bench.rows.dim, seed=seed, whitening=bench.whitening).to(bench.rows.dtype)


def _params_dense(bench: Bench) -> int:
    return bench.spec.flow.dense_params(bench.rows.dim)


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
