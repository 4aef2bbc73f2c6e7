"""One stage: train a flow, evaluate it, and come through divergence, interruption and damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from sparseflows.evaluation.classification import evaluate_classifier
from sparseflows.evaluation.likelihood import evaluate
from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.folder.folder import MASKS, MODEL, DamagedStage
from sparseflows.experiment.folder.records import DENSE, DONE, FAILED, Record
from sparseflows.experiment.folder.sequences import StageName
from sparseflows.experiment.monitoring.loggers import StageStart
from sparseflows.experiment.networks import from_tensors
from sparseflows.experiment.stages.context import SeedContext
from sparseflows.experiment.stages.gradual import Gradual
from sparseflows.experiment.stages.selection import solver_discrepancy, validation_loss
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.methods import METHODS, Pruned
from sparseflows.specs import TrainSpec
from sparseflows.training.loop import LR_SCALES, Hooks, Outcome, train
from sparseflows.training.objectives import build_objective


def find_stage(context: SeedContext, name: StageName) -> Record | None:
    """The record of a stage that is there whole; a damaged one is named and set aside, to be made again."""
    try:
        record = context.run.read_stage(name.cascade, name.stage)
    except DamagedStage as damage:
        aside = context.run.set_aside(damage.folder)
        context.progress.say(f"{damage}; set aside as {aside.name}, this stage is made again")
        return None
    if record:
        _checkpoints(context, name).clear()  # whoever wrote the stage may have been killed before doing so
        _catch_up(context, name, record)
    return record


def _checkpoints(context: SeedContext, name: StageName) -> Checkpoints:
    run = context.run
    folder = run.cascade(name.cascade) / "checkpoints"
    return Checkpoints(folder, name.stage, run.set_aside, context.progress.say, context.processes, context.rows.device)


def read_pruned(context: SeedContext, name: StageName) -> Pruned[nn.Module]:
    """The network of a whole stage, as `prune` takes it."""
    folder = context.run.stage(name.cascade, name.stage)
    network = from_tensors(context.spec, load_tensors((folder / MODEL).read_bytes()), context.splits.train.shape[1])
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


def make_stage(context: SeedContext, name: StageName, work: Work) -> Record:
    """Do `work`, evaluate what comes out, and put the stage in its place.

    A training that diverges (non-finite loss, solver out of steps), or whose network cannot be evaluated, is
    tried again: from its last good checkpoint at 0.3 of the rate, then from the start at 0.1. If that
    fails too, the stage is recorded as failed, with the reason.
    """
    context.progress.begin(name.label)
    checkpoints = _checkpoints(context, name)
    saved = checkpoints.load_newest()
    attempt = saved["attempt"] if saved else 0
    while True:
        pruned = context.processes.first(work.start)
        steps = work.settings.steps_for(len(context.rows))[0] if work.settings else 0
        context.loggers.begin(_start(context, name, steps, attempt, saved))
        outcome = _train(context, name, pruned, work, saved, attempt, checkpoints)
        throughput = _throughput(context, outcome, work.settings)
        if throughput is not None:
            among = f"{context.processes.world} processes"
            context.progress.say(f"  {name.label}: {throughput:,.0f} training rows/s, {among}")
        if work.gradually is not None and outcome.status is Status.DONE:
            pruned = work.gradually.finish(pruned)
        stopped = f"training stopped at step {outcome.steps}: {outcome.status.value}"
        reason = None if outcome.status is Status.DONE else stopped
        numbers: dict[str, Any] = {}
        if reason is None:
            found = _evaluate(context, pruned.flow)
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
        context.progress.say(
            f"  {name.label}: {reason}; again from {'step ' + str(saved['step']) if saved else 'the start'} "
            f"at {LR_SCALES[attempt]:g} of the learning rate"
        )
    record = record_of(
        context,
        name,
        reason,
        prune_ratio=1 - pruned.params / context.params_dense,
        params=pruned.params,
        train_steps=outcome.steps,
        train_seconds=round(outcome.seconds, 3),
        steps_total=work.steps_before + outcome.steps,
        **numbers,
    )
    finish(context, record, pruned, _metrics(context, outcome, attempt, pruned, throughput))
    checkpoints.clear()
    return record


def record_of(context: SeedContext, name: StageName, reason: str | None, **numbers: Any) -> Record:
    """A stage's row of results.csv, with what is known of it: done, or failed where there is a reason."""
    return Record(
        dataset=context.splits.name,
        objective=context.spec.train.objective,
        protocol=name.protocol,
        method=name.method,
        seed=name.seed,
        stage=name.stage,
        status=DONE if reason is None else FAILED,
        reason=reason,
        keep_ratio_target=name.keep_ratio,
        params_dense=context.params_dense,
        **numbers,
    )


def _evaluate(context: SeedContext, network: nn.Module) -> dict[str, Any] | Status:
    if context.spec.train.objective == "cross_entropy":
        classified = context.processes.first(
            lambda: evaluate_classifier(network, context.splits, context.spec.evaluate, context.data_seed)
        )
        return classified if isinstance(classified, Status) else asdict(classified)
    assert isinstance(network, Flow)
    found = evaluate(network, context.splits, context.spec.evaluate, context.data_seed, context.processes)
    return found if isinstance(found, Status) else asdict(found)


def finish(
    context: SeedContext, record: Record, pruned: Pruned[nn.Module] | None, metrics: list[dict[str, Any]]
) -> None:
    """Write the stage (a failed one without tensors) and tell."""
    tensors = {}
    if record.status == DONE and pruned is not None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in pruned.flow.state_dict().items()}
        masks = {name: mask.cpu().contiguous() for name, mask in pruned.dense_masks.items()}
        tensors = {MODEL: save_tensors(state), MASKS: save_tensors(masks)}
    context.run.write_stage(record, tensors, metrics)
    context.loggers.end(record, pruned.flow if tensors and pruned is not None else None)
    context.progress.done(record)


def _start(
    context: SeedContext, name: StageName, steps: int, attempt: int = 0, saved: dict[str, Any] | None = None
) -> StageStart:
    """What loggers are told of a stage that begins, or goes on from `saved`."""
    return StageStart(
        **vars(name),
        run=context.run.path,
        attempt=attempt,
        step=saved["step"] if saved else 0,
        steps=steps,
        history=tuple(dict(line) for line in saved["history"]) if saved else (),
        validation=context.splits.validation,
    )


def _catch_up(context: SeedContext, name: StageName, record: Record) -> None:
    """Loggers that have not heard of a whole stage are told of it as if it had just been made."""

    def network() -> nn.Module | None:
        return read_pruned(context, name).flow.eval() if record.status == DONE else None

    context.loggers.catch_up(
        record,
        stage=lambda: _start(context, name, record.train_steps or 0),
        lines=lambda: (line for line in context.run.metrics(name.cascade, name.stage) if "step" in line),
        network=network,
    )


def _train(
    context: SeedContext,
    name: StageName,
    pruned: Pruned[nn.Module],
    work: Work,
    saved: dict[str, Any] | None,
    attempt: int,
    checkpoints: Checkpoints,
) -> Outcome:
    device = context.rows.device
    pruned.flow.to(device=device, dtype=context.rows.dtype)
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
        validate=lambda flow: validation_loss(context, flow),
        save=lambda checkpoint: checkpoints.save(checkpoint, attempt),
        progress=context.progress.step,
        record=context.loggers.step,
    )
    pruned.flow.train()
    outcome = train(
        pruned.flow,
        build_objective(context.spec, work.settings, context.processes),
        context.rows,
        work.settings,
        seed=name.seed,
        purpose=name.purpose,
        hooks=hooks,
        resume=saved,
        lr_scale=LR_SCALES[attempt],
    )
    pruned.flow.eval()
    return outcome


def _throughput(context: SeedContext, outcome: Outcome, settings: TrainSpec | None) -> float | None:
    """Training rows that all processes together got through in a second of the training, its selections included.

    None of one process, whose numbers hold no timings, and where nothing was trained.
    """
    if not context.processes.several or settings is None or outcome.steps == 0:
        return None
    epochs, steps = divmod(outcome.steps, settings.steps_for(len(context.rows))[1])
    return (epochs * len(context.rows) + steps * settings.batch) / outcome.seconds


def _metrics(
    context: SeedContext, outcome: Outcome, attempt: int, pruned: Pruned[nn.Module], throughput: float | None
) -> list[dict[str, Any]]:
    network, promises = pruned.flow, pruned.promises
    summary: dict[str, Any] = {"attempts": attempt + 1, "best_val": outcome.best_val}
    if throughput is not None:
        summary |= {"rows_per_second": round(throughput, 1), "processes": context.processes.world}
    trained = outcome.steps > 0 and outcome.status is Status.DONE
    if context.spec.train.objective == "nll" and trained and isinstance(network, Flow):
        summary["solver_discrepancy"] = solver_discrepancy(context, network)
    return [*outcome.history, summary, *(asdict(promise) for promise in promises)]
