"""Which stage of a run is meant: by its name, or the best. Without PyTorch, so that a wrong name is told at once."""

from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import DamagedStage, RunFolder
from sparseflows.experiment.folder.records import DONE, Record
from sparseflows.experiment.folder.sequences import stages


def find(run: RunFolder, stage: str = "best") -> Record:
    """The record of `<method>-s<seed>/<k>`, or of `best`: the lowest validation NLL (of classifiers: loss).

    Raises:
        InputError: no such stage (the ones there are listed), a failed one, or a damaged one.
    """
    records = run.records()
    done = [record for record in records if record.status == DONE]
    if not records:
        raise InputError(f"{run.path}: no stage is finished yet; run the experiment first")
    if stage == "best":
        if not done:
            raise InputError(f"{run.path}: every stage failed ({records[0].reason}); change the settings and run again")
        _require_all_readable(run)
        record = min(done, key=_validation)
    else:
        named = {f"{r.cascade}/{r.stage}": r for r in records}
        if stage not in named:
            known = ", ".join(named)
            raise InputError(f"{run.path}: no stage '{stage}' (there are: best, {known})")
        record = named[stage]
    if record.status != DONE:
        raise InputError(f"{run.path}: stage {stage} failed ({record.reason}); take another")
    try:
        run.read_stage(record.cascade, record.stage)
    except DamagedStage as damage:
        raise InputError(f"{damage}; `sparseflows run` with the same settings makes it again") from None
    return record


def _require_all_readable(run: RunFolder) -> None:
    """Raise InputError where a stage is damaged: it may be the best."""
    for name in stages(run.spec):
        try:
            run.peek(name.cascade, name.stage)
        except DamagedStage as damage:
            raise InputError(
                f"{damage}, and it may be the best stage; name one with --stage, or let `sparseflows run` with the "
                "same settings make it again"
            ) from None


def _validation(record: Record) -> float:
    value = record.loss_val if record.nll_val is None else record.nll_val
    return float("inf") if value is None else value
