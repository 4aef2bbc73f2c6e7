"""One stage: train a flow, evaluate it, and come through divergence, interruption and damage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.data.splits import Splits
from sparseflows.distributed.processes import Processes
from sparseflows.evaluation.classification import evaluate_classifier, labelled_subset, logits_of
from sparseflows.evaluation.likelihood import Array, evaluate, likelihood, reporting_solver, subset
from sparseflows.experiment.folder.checkpoints import Checkpoints, SharedCheckpoints
from sparseflows.experiment.folder.folder import MASKS, MODEL, DamagedStage, RunFolder
from sparseflows.experiment.folder.records import CASCADE, DENSE, DONE, FAILED, Record, cascade_name
from sparseflows.experiment.monitoring.loggers import Loggers, StageStart
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.networks import from_tensors
from sparseflows.experiment.stages.gradual import Gradual
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.methods import METHODS, Pruned
from sparseflows.rng import torch_generator
from sparseflows.specs import Spec, TrainSpec
from sparseflows.training.batches import Batches
from sparseflows.training.loop import Hooks, Outcome, train
from sparseflows.training.objectives import build_objective, held_steps, training_solver

LR_SCALES = (
    1.0,
    0.3,
    0.1,
)  # of the attempts: at first, again from the last good checkpoint, again from the start
SELECTION_TOLERANCE = 1e-4  # of the validation NLL that picks weights within a training


@dataclass(frozen=True)
class Bench:
    """All that the stages of one seed share."""

    run: RunFolder
    spec: Spec
    splits: Splits
    data_seed: int  # of the splits, and of the rows that are evaluated
    rows: Batches  # standardised training rows
    whitening: Tensor | None  # (D, D), of all its flows
    progress: Progress
    loggers: Loggers = field(default_factory=Loggers)

    @property
    def processes(self) -> Processes:
        """That train together."""
        return self.run.processes


@dataclass(frozen=True)
class StageName:
    """A place in a cascade, or in the sequence of another protocol."""

    method: str
    seed: int
    stage: int
    keep_ratio: float | None = None
    protocol: str = CASCADE

    @property
    def cascade(self) -> str:
        """Folder name of its sequence."""
        return cascade_name(self.method, self.seed, self.protocol)

    @property
    def purpose(self) -> str:
        """What the draws of its training are for."""
        own = f"{self.method}/{self.stage}"
        return own if self.protocol == CASCADE else f"{self.protocol}/{own}"

    @property
    def label(self) -> str:
        """As `--stage` takes it."""
        return f"{self.cascade}/{self.stage}"


def find_stage(bench: Bench, name: StageName) -> Record | None:
    """The record of a stage that is there whole; a damaged one is named and set aside, to be made again."""
    try:
        record = bench.run.read_stage(name.cascade, name.stage)
    except DamagedStage as damage:
        aside = bench.run.set_aside(damage.folder)
        bench.progress.say(f"{damage}; set aside as {aside.name}, this stage is made again")
        return None
    if record:
        _checkpoints(bench, name).clear()  # whoever wrote the stage may have been killed before doing so
        _catch_up(bench, name, record)
    return record


def _checkpoints(bench: Bench, name: StageName) -> Checkpoints:
    folder = bench.run.cascade(name.cascade) / "checkpoints"
    own = Checkpoints(folder, name.stage, bench.run.set_aside, bench.progress.say)
    return SharedCheckpoints(own, bench.processes, bench.rows.device) if bench.processes.several else own


def read_pruned(bench: Bench, name: StageName) -> Pruned[nn.Module]:
    """The network of a whole stage, as `prune` takes it."""
    folder = bench.run.stage(name.cascade, name.stage)
    network = from_tensors(bench.spec, load_tensors((folder / MODEL).read_bytes()), bench.splits.train.shape[1])
    dense_masks = Masks(load_tensors((folder / MASKS).read_bytes()))
    masked = name.method != DENSE and METHODS[name.method].kind == "weights"
    return Pruned(network, dense_masks if masked else None, dense_masks)


@dataclass(frozen=True)
class Work:
    """What is to be done at a stage.

    Attributes:
        start: the network to begin with, made anew at every attempt.
        settings: of its training; None where it is not trained.
        steps_before: training steps behind the weights that `start` gives.
        gradually: takes more of it away while it trains (see `gradual`).
    """

    start: Callable[[], Pruned[nn.Module]]
    settings: TrainSpec | None
    steps_before: int = 0
    gradually: Gradual | None = None


def make_stage(bench: Bench, name: StageName, work: Work, params_dense: int) -> Record:
    """Do `work`, evaluate what comes out, and put the stage in its place.

    A training that diverges (non-finite loss, solver out of steps), or whose network cannot be evaluated, is
    tried again: from its last good checkpoint at 0.3 of the rate, then from the start at 0.1. If that
    fails too, the stage is recorded as failed, with the reason.
    """
    bench.progress.begin(name.label)
    checkpoints = _checkpoints(bench, name)
    saved = checkpoints.load_newest()
    attempt = saved["attempt"] if saved else 0
    while True:
        pruned = bench.processes.first(work.start)
        steps = work.settings.steps_for(len(bench.rows))[0] if work.settings else 0
        bench.loggers.begin(_start(bench, name, steps, attempt, saved))
        outcome = _train(bench, name, pruned, work, saved, attempt, checkpoints)
        _say_throughput(bench, name, outcome, work.settings)
        if work.gradually is not None and outcome.status is Status.DONE:
            pruned = work.gradually.finish(pruned)
        reason = (
            None
            if outcome.status is Status.DONE
            else f"training stopped at step {outcome.steps}: {outcome.status.value}"
        )
        numbers: dict[str, Any] = {}
        if reason is None:
            found = _evaluate(bench, pruned.flow)
            if isinstance(found, Status):
                trained = "trained, but its" if work.settings else "its"
                reason = f"{trained} likelihood cannot be computed: {found.value}"
            else:
                numbers = found
        if reason is None or attempt + 1 == len(LR_SCALES) or work.settings is None:
            break
        attempt += 1
        # A whole training that cannot be evaluated has no good checkpoint to go on from.
        saved = checkpoints.load_newest() if attempt == 1 and outcome.status is not Status.DONE else None
        bench.progress.say(
            f"  {name.label}: {reason}; again from {'step ' + str(saved['step']) if saved else 'the start'} "
            f"at {LR_SCALES[attempt]:g} of the learning rate"
        )
    record = Record(
        dataset=bench.splits.name,
        objective=bench.spec.train.objective,
        protocol=name.protocol,
        method=name.method,
        seed=name.seed,
        stage=name.stage,
        status=DONE if reason is None else FAILED,
        reason=reason,
        keep_ratio_target=name.keep_ratio,
        prune_ratio=1 - pruned.params / params_dense,
        params=pruned.params,
        params_dense=params_dense,
        train_steps=outcome.steps,
        train_seconds=round(outcome.seconds, 3),
        steps_total=work.steps_before + outcome.steps,
        **numbers,
    )
    finish(bench, record, pruned, _metrics(bench, outcome, attempt, pruned, work.settings))
    checkpoints.clear()
    return record


def _evaluate(bench: Bench, network: nn.Module) -> dict[str, Any] | Status:
    if bench.spec.train.objective == "cross_entropy":
        classified = bench.processes.first(
            lambda: evaluate_classifier(network, bench.splits, bench.spec.evaluate, bench.data_seed)
        )
        return classified if isinstance(classified, Status) else asdict(classified)
    assert isinstance(network, Flow)
    found = evaluate(network, bench.splits, bench.spec.evaluate, bench.data_seed, bench.processes)
    return found if isinstance(found, Status) else asdict(found)


def finish(bench: Bench, record: Record, pruned: Pruned[nn.Module] | None, metrics: list[dict[str, Any]]) -> None:
    """Write the stage (a failed one without tensors) and tell."""
    tensors = {}
    if record.status == DONE and pruned is not None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in pruned.flow.state_dict().items()}
        masks = {name: mask.cpu().contiguous() for name, mask in pruned.dense_masks.items()}
        tensors = {MODEL: save_tensors(state), MASKS: save_tensors(masks)}
    bench.run.write_stage(record, tensors, metrics)
    bench.loggers.end(record, pruned.flow if tensors and pruned is not None else None)
    bench.progress.done(record)


def _start(
    bench: Bench, name: StageName, steps: int, attempt: int = 0, saved: dict[str, Any] | None = None
) -> StageStart:
    """What loggers are told of a stage that begins, or goes on from `saved`."""
    return StageStart(
        run=bench.run.path,
        protocol=name.protocol,
        method=name.method,
        seed=name.seed,
        stage=name.stage,
        keep_ratio=name.keep_ratio,
        attempt=attempt,
        step=saved["step"] if saved else 0,
        steps=steps,
        history=tuple(dict(line) for line in saved["history"]) if saved else (),
        validation=bench.splits.validation,
    )


def _catch_up(bench: Bench, name: StageName, record: Record) -> None:
    """Loggers that have not heard of a whole stage are told of it as if it had just been made."""

    def network() -> nn.Module | None:
        return read_pruned(bench, name).flow.eval() if record.status == DONE else None

    bench.loggers.catch_up(
        record,
        stage=lambda: _start(bench, name, record.train_steps or 0),
        lines=lambda: (line for line in bench.run.metrics(name.cascade, name.stage) if "step" in line),
        network=network,
    )


def _train(
    bench: Bench,
    name: StageName,
    pruned: Pruned[nn.Module],
    work: Work,
    saved: dict[str, Any] | None,
    attempt: int,
    checkpoints: Checkpoints,
) -> Outcome:
    device = bench.rows.device
    pruned.flow.to(device=device, dtype=bench.rows.dtype)
    if work.settings is None:
        return Outcome(Status.DONE, 0, 0.0)
    masks = pruned.masks
    after_step = None
    if work.gradually is not None:
        after_step = work.gradually.begin(pruned, saved)
    elif masks is not None:
        on_device = Masks({key: mask.to(device) for key, mask in masks.items()})
        on_device.hold_(pruned.flow)
        after_step = on_device.keeper(pruned.flow)
    hooks = Hooks(
        after_step=after_step,
        validate=lambda flow: validation_loss(bench, flow),
        save=lambda checkpoint: checkpoints.save(checkpoint, attempt),
        progress=bench.progress.step,
        record=bench.loggers.step,
    )
    pruned.flow.train()
    outcome = train(
        pruned.flow,
        build_objective(bench.spec, work.settings, bench.processes),
        bench.rows,
        work.settings,
        seed=name.seed,
        purpose=name.purpose,
        hooks=hooks,
        resume=saved,
        lr_scale=LR_SCALES[attempt],
    )
    pruned.flow.eval()
    return outcome


def selection_rows(bench: Bench) -> Array:
    """The seeded validation rows that weights are chosen by: at most `train.selection_rows`."""
    return subset(bench.splits.validation, bench.spec.train.selection_rows, bench.data_seed, "selection")


def validation_loss(bench: Bench, network: nn.Module) -> float:
    """What weights are chosen by, on the seeded rows: a flow's exact NLL at tolerance 1e-4, a classifier's loss.

    NaN where the solve fails.
    """
    solver = replace(reporting_solver(bench.spec.evaluate), norm="batch").at(SELECTION_TOLERANCE)
    if bench.spec.train.objective == "cross_entropy":
        return bench.processes.first(lambda: _validation_cross_entropy(bench, network, solver))
    assert isinstance(network, Flow)
    found = likelihood(network, selection_rows(bench), solver, bench.spec.dtype, processes=bench.processes)
    return found.nll if found.status is Status.DONE else math.nan


def _validation_cross_entropy(bench: Bench, network: nn.Module, solver: Solver) -> float:
    splits, most = bench.splits, bench.spec.train.selection_rows
    labels = np.asarray(splits.labels_validation)
    rows, labels = labelled_subset(splits.validation, labels, most, bench.data_seed, "selection")
    found, status, _ = logits_of(network, rows, solver, bench.spec.dtype)
    wanted = torch.as_tensor(labels, device=found.device)
    return float(F.cross_entropy(found, wanted)) if status is Status.DONE else math.nan


def rows_per_second(bench: Bench, outcome: Outcome, settings: TrainSpec) -> float:
    """Training rows that all processes together got through in a second of the training, its selections included."""
    epochs, steps = divmod(outcome.steps, settings.steps_for(len(bench.rows))[1])
    return (epochs * len(bench.rows) + steps * settings.batch) / outcome.seconds


def _say_throughput(bench: Bench, name: StageName, outcome: Outcome, settings: TrainSpec | None) -> None:
    if bench.processes.several and settings is not None and outcome.steps > 0:
        rate = rows_per_second(bench, outcome, settings)
        bench.progress.say(f"  {name.label}: {rate:,.0f} training rows/s, {bench.processes.world} processes")


def _metrics(
    bench: Bench, outcome: Outcome, attempt: int, pruned: Pruned[nn.Module], settings: TrainSpec | None
) -> list[dict[str, Any]]:
    network, promises = pruned.flow, pruned.promises
    summary: dict[str, Any] = {"attempts": attempt + 1, "best_val": outcome.best_val}
    if bench.processes.several and settings is not None and outcome.steps > 0:  # timings are no one process's numbers
        summary["rows_per_second"] = round(rows_per_second(bench, outcome, settings), 1)
        summary["processes"] = bench.processes.world
    trained = outcome.steps > 0 and outcome.status is Status.DONE
    if bench.spec.train.objective == "nll" and trained and isinstance(network, Flow):
        summary["solver_discrepancy"] = solver_discrepancy(bench, network)
    return [*outcome.history, summary, *(asdict(promise) for promise in promises)]


def solver_discrepancy(bench: Bench, flow: Flow) -> float | None:
    """Training solver's NLL less the exact one, nats, on the same validation rows: a fixed grid can be cheated.

    None where one of the solves fails.
    """
    rows = selection_rows(bench)
    trained = _trained_nll(bench, flow, rows)
    settings = bench.spec.evaluate
    exact = likelihood(flow, rows, reporting_solver(settings), settings.dtype, processes=bench.processes)
    if trained is None or exact.status is not Status.DONE:
        return None
    difference = trained - exact.nll
    if abs(difference) > 0.05:
        bench.progress.say(
            f"  the training solver's own NLL is {difference:+.3f} nats off the exact one; "
            "the reported numbers are exact, but train with an adaptive solver or more steps"
        )
    return difference


@torch.no_grad()
def _trained_nll(bench: Bench, flow: Flow, rows: Array) -> float | None:
    """The NLL as the training solves it at its end: on held steps where it holds them, else by its solver."""
    solve = bench.spec.solve
    if solve.hold_grid is None:
        solver = replace(training_solver(solve), gradient="backprop")
        found = likelihood(flow, rows, solver, bench.spec.dtype, processes=bench.processes)
        return found.nll if found.status is Status.DONE else None
    objective = held_steps(solve)
    points = torch.as_tensor(rows, dtype=bench.rows.dtype, device=bench.rows.device)
    generator = torch_generator(bench.data_seed, "discrepancy", str(bench.rows.device))
    loss = objective(flow, points, generator)
    return loss.value.item() if loss.status is Status.DONE else None
