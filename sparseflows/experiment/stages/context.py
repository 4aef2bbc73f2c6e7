"""What the stages of one seed share: the rows, the dense network, and where they are kept."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparseflows.data.splits import Splits
from sparseflows.data.whitening import whitening_matrix
from sparseflows.distributed.processes import Processes
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import subset
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.monitoring.logger_names import open_loggers
from sparseflows.experiment.monitoring.loggers import Loggers
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.networks import untrained
from sparseflows.experiment.plan import dense_params
from sparseflows.experiment.rows import training_rows
from sparseflows.specs import Spec
from sparseflows.training.batches import Batches, batches_of

WHITENED_BY = 200_000  # training rows at most


@dataclass(frozen=True)
class SeedContext:
    """All that the stages of one seed share.

    Attributes:
        run: the run folder.
        spec: the experiment.
        splits: the rows, standardised.
        seed: of the dense network, and of all that is made of it.
        rows: the training rows, N of (D,) or, for classifiers, (D + 1,) with the label last.
        whitening: (D, D), the first map of all its flows; None where there is none.
        progress: who is told.
        loggers: who else.
    """

    run: RunFolder
    spec: Spec
    splits: Splits
    seed: int
    rows: Batches
    whitening: Tensor | None
    progress: Progress
    loggers: Loggers = field(default_factory=Loggers)

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return self.run.processes

    @property
    def data_seed(self) -> int:
        """The seed of the splits, and of the rows that are evaluated."""
        return self.spec.data.seed_for(self.seed)

    @functools.cached_property
    def params_dense(self) -> int:
        """Params of the dense network."""
        return dense_params(self.spec, self.splits.train.shape[1], self.splits.classes) or 0

    def untrained(self, seed: int, spec: Spec | None = None) -> nn.Module:
        """The dense network of the experiment (or of `spec`), its weights drawn from `seed`."""
        splits = self.splits
        network = untrained(spec or self.spec, splits.train.shape[1], splits.classes, seed, self.whitening)
        return network.to(self.rows.dtype)


def make_context(
    spec: Spec, run: RunFolder, splits: Splits, progress: Progress, seed: int, log: Iterable[str] = ()
) -> SeedContext:
    """What the stages of a seed share, in this process."""
    torch.set_num_threads(spec.threads)
    dtype = getattr(torch, spec.dtype)
    whitening = None
    if spec.data.whiten:
        sample = subset(splits.train, WHITENED_BY, spec.data.seed_for(seed), "whitening")
        whitening = whitening_matrix(sample).to(dtype)
    return SeedContext(
        run,
        spec,
        splits,
        seed,
        batches_of(training_rows(spec, splits), dtype, torch.device(run.processes.device(spec.device))),
        whitening,
        progress,
        open_loggers(log, run.path, progress.say) if run.processes.rank == 0 else Loggers(),
    )


def check_device(device: str) -> None:
    """Raise InputError where the device is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: {device}: PyTorch finds no GPU here; set device: cpu")
