"""Flows back from a run folder: `sparseflows.load`."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load as load_tensors

from sparseflows.errors import InputError
from sparseflows.evaluation import reporting_solver
from sparseflows.experiment.records import DONE, Record
from sparseflows.experiment.store import MASKS, MODEL, DamagedStage, RunFolder
from sparseflows.flow.build import flow_from_tensors
from sparseflows.flow.model import Flow
from sparseflows.pruning.masks import Masks


def find(run: RunFolder, stage: str = "best") -> Record:
    """The record of `<method>-s<seed>/<k>`, or of `best`: the lowest validation NLL.

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
        record = min(done, key=lambda r: r.nll_val if r.nll_val is not None else float("inf"))
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


def load(run: str | Path, stage: str = "best") -> Flow:
    """The flow of one stage of a run folder.

    Its coordinates are the standardised ones; `flow.standardiser` (shift, scale, log_scale) leads there
    from the data's own. Its default solver is the one of reported numbers.

    Args:
        run: the folder that `sparseflows run` wrote.
        stage: `<method>-s<seed>/<k>`, for example `dense-s0/0`; or `best`, the lowest validation NLL.

    Raises:
        InputError: not a run folder, no such stage, or a stage that failed.
    """
    folder = RunFolder.open(Path(run))
    record = find(folder, stage)
    path = folder.stage(record.cascade, record.stage)
    flow = flow_from_tensors(folder.spec.flow, load_tensors((path / MODEL).read_bytes()))
    flow.solver = reporting_solver(folder.spec.evaluate)
    flow.standardiser = folder.standardiser(record.seed)
    flow.eval()
    return flow


def load_masks(run: str | Path, stage: str = "best") -> Masks:
    """What a stage kept of the dense flow, in the dense flow's shapes; raises as `load`."""
    folder = RunFolder.open(Path(run))
    record = find(folder, stage)
    return Masks.load(folder.stage(record.cascade, record.stage) / MASKS)
