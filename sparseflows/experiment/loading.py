"""Flows back from a run folder: `sparseflows.load`."""

from pathlib import Path

from safetensors.torch import load as load_tensors
from torch import nn

from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import reporting_solver
from sparseflows.experiment.folder.choosing import find
from sparseflows.experiment.folder.folder import MASKS, MODEL, RunFolder
from sparseflows.experiment.networks import from_tensors
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.masks import Masks


def load(run: str | Path, stage: str = "best") -> Flow:
    """The flow of one stage of a run folder.

    Its coordinates are the standardised ones; `flow.standardiser` (shift, scale, log_scale) leads there
    from the data's own. Its default solver is the one of reported numbers.

    Args:
        run: the folder that `sparseflows run` wrote.
        stage: `<method>-s<seed>/<k>`, for example `dense-s0/0` (other protocols than the cascade:
            `<protocol>.<method>-s<seed>/<k>`); or `best`, the lowest validation NLL.

    Raises:
        InputError: not a run folder, no such stage, a stage that failed, or a network that is no flow.
    """
    network = load_network(run, stage)
    if not isinstance(network, Flow):
        raise InputError(f"{run}: a classifier without an ODE; sparseflows.load_network gives it")
    if RunFolder.open(Path(run)).spec.train.objective == "cross_entropy":
        raise InputError(f"{run}: a neural ODE that classifies has no density; sparseflows.load_network gives it")
    return network


def load_network(run: str | Path, stage: str = "best") -> nn.Module:
    """The network of one stage of a run folder: a flow as `load` gives it, or a classifier (B, D) → logits.

    A flow that was trained to classify has its logits in `flow.to_noise(points)`. Raises as `load`.
    """
    folder = RunFolder.open(Path(run))
    record = find(folder, stage)
    path = folder.stage(record.cascade, record.stage)
    standardiser = folder.standardiser(record.seed)
    network = from_tensors(folder.spec, load_tensors((path / MODEL).read_bytes()), len(standardiser.shift))
    if isinstance(network, Flow):
        network.solver = reporting_solver(folder.spec.evaluate)
        network.standardiser = standardiser
        names = folder.read_data().get("columns")
        network.columns = None if names is None else tuple(names)
    return network.eval()


def load_masks(run: str | Path, stage: str = "best") -> Masks:
    """What a stage kept of the dense flow, in the dense flow's shapes; raises as `load`."""
    folder = RunFolder.open(Path(run))
    record = find(folder, stage)
    return Masks.load(folder.stage(record.cascade, record.stage) / MASKS)
