"""One stage: train a flow, evaluate it, and come through divergence, interruption and damage."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from sparseflows.evaluation.classification import Classified, evaluate_classifier
from sparseflows.evaluation.likelihood import Evaluation, evaluate
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
        context.progress.found(record)
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
            world = context.processes.world
            context.progress.say(f"  {name.label}: {throughput:,.0f} training rows/s, {world} processes")
        if work.gradually is not None and outcome.status is Status.DONE:
            pruned = work.gradually.finish(pruned)
        reason, numbers = None, {}
        if outcome.status is not Status.DONE:
            reason = f"training stopped at step {outcome.steps}: {outcome.status.value}"
        elif isinstance(found := _evaluate(context, pruned.flow), Status):
            reason = f"{'trained, but its' if work.settings else 'its'} likelihood cannot be computed: {found.value}"
        else:
            numbers = asdict(found)
        if reason is None or attempt + 1 == len(LR_SCALES) or work.settings is None:
            break
        attempt += 1
        # A whole training that cannot be evaluated has no good checkpoint to go on from.
        saved = checkpoints.load_newest() if attempt == 1 and outcome.status is not Status.DONE else None
        context.progress.say(
            f"  {name.label}: {reason}; again from {'step ' + str(saved['step']) if saved else 'the start'} "
            f"at {LR_SCALES[attempt]:g} of the learning rate"
        )
    record = finish(
        context,
        name,
        reason,
        pruned,
        _metrics(context, outcome, attempt, pruned, throughput),
        prune_ratio=1 - pruned.params / context.params_dense,
        params=pruned.params,
        train_steps=outcome.steps,
        train_seconds=round(outcome.seconds, 3),
        steps_total=work.steps_before + outcome.steps,
        **numbers,
    )
    checkpoints.clear()
    return record


def finish(
    context: SeedContext,
    name: StageName,
    reason: str | None,
    pruned: Pruned[nn.Module] | None = None,
    metrics: Sequence[dict[str, Any]] = (),
    **numbers: Any,
) -> Record:
    """Write a stage and tell: done, or failed (and without tensors) where there is a reason. Gives its record."""
    record = Record(
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
    tensors, network = {}, None
    if record.done and pruned is not None:
        network = pruned.flow
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
        masks = {key: mask.cpu().contiguous() for key, mask in pruned.dense_masks.items()}
        tensors = {MODEL: save_tensors(state), MASKS: save_tensors(masks)}
    context.run.write_stage(record, tensors, list(metrics))
    context.loggers.end(record, network)
    context.progress.done(record)
    return record


def _evaluate(context: SeedContext, network: nn.Module) -> Evaluation | Classified | Status:
    splits, settings, seed = context.splits, context.spec.evaluate, context.data_seed
    if context.spec.train.objective == "cross_entropy":
        return context.processes.first(lambda: evaluate_classifier(network, splits, settings, seed))
    assert isinstance(network, Flow)
    return evaluate(network, splits, settings, seed, context.processes)


def _start(
    context: SeedContext, name: StageName, steps: int, attempt: int = 0, saved: dict[str, Any] | None = None
) -> StageStart:
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

    def story() -> tuple[StageStart, list[dict[str, Any]], nn.Module | None]:
        lines = [line for line in context.run.metrics(name.cascade, name.stage) if "step" in line]
        network = read_pruned(context, name).flow.eval() if record.done else None
        return _start(context, name, record.train_steps or 0), lines, network

    context.loggers.catch_up(record, story)


def _train(
    context: SeedContext,
    name: StageName,
    pruned: Pruned[nn.Module],
    work: Work,
    saved: dict[str, Any] | None,
    attempt: int,
    checkpoints: Checkpoints,
) -> Outcome:
    pruned.flow.to(device=context.rows.device, dtype=context.rows.dtype)
    if work.settings is None:
        return Outcome(Status.DONE, 0, 0.0)
    hooks = Hooks(
        after_step=work.gradually.begin(pruned, saved) if work.gradually else held(pruned.flow, pruned.masks),
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


def held(network: nn.Module, masks: Masks | None) -> Callable[[nn.Module], None] | None:
    """What keeps the masks of a network while it trains, to be called after every step; None where it has none."""
    if masks is None:
        return None
    device = next(network.parameters()).device
    on_device = Masks({name: mask.to(device) for name, mask in masks.items()})
    on_device.hold_(network)
    return on_device.keeper(network)


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
    summary: dict[str, Any] = {"attempts": attempt + 1, "best_val": outcome.best_val}
    if throughput is not None:
        summary |= {"rows_per_second": round(throughput, 1), "processes": context.processes.world}
    trained = outcome.steps > 0 and outcome.status is Status.DONE
    if context.spec.train.objective == "nll" and trained and isinstance(pruned.flow, Flow):
        summary["solver_discrepancy"] = solver_discrepancy(context, pruned.flow)
    return [*outcome.history, summary, *map(asdict, pruned.promises)]
