"""A run folder opened for analysis: its stages, their flows, the rows they were trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sparseflows.errors import InputError, suggest
from sparseflows.experiment.folder.folder import MASKS, MODEL, RunFolder
from sparseflows.experiment.folder.records import DENSE, DONE, Record
from sparseflows.files import sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparseflows.data.splits import Splits
    from sparseflows.flow.model import Flow

MOST_ROWS = 200_000  # of a part that does not fit in memory


@dataclass(frozen=True)
class Subject:
    """One stage of one run, as an analysis sees it."""

    folder: RunFolder
    record: Record

    @property
    def name(self) -> str:
        """`<method>-s<seed>/<k>`, as `--stage` takes it."""
        return f"{self.record.cascade}/{self.record.stage}"

    @property
    def label(self) -> str:
        """What to call it in a figure: the method and the prune ratio."""
        ratio = self.record.prune_ratio or 0.0
        return "dense" if self.record.series == DENSE else f"{self.record.series}, PR {100 * ratio:.0f} %"

    def flow(self) -> Flow:
        """The flow, in the precision it was trained in; its default solver is the one of reported numbers."""
        from sparseflows.experiment.loading import load

        return load(self.folder.path, self.name)

    def kept(self, flow: Flow) -> dict[str, Tensor]:
        """`survivors` of the stage's own masks."""
        from sparseflows.experiment.loading import load_masks

        return survivors(flow, load_masks(self.folder.path, self.name))

    def digest(self) -> str:
        """What the stage's weights and masks are known by: changes with a single bit of them."""
        path = self.folder.stage(self.record.cascade, self.record.stage)
        return sha256(path / MODEL)[:32] + sha256(path / MASKS)[:32]


class Study:
    """A run folder with its stages and its data."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.records = folder.records()

    @classmethod
    def open(cls, path: Path) -> Study:
        """The run folder at `path`.

        Raises:
            InputError: not a run folder, or none of its stages is finished yet.
        """
        study = cls(RunFolder.open(path))
        if not study.records:
            raise InputError(f"{path}: no stage is finished yet; wait for the run, or start it again")
        return study

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def splits(self) -> Splits:
        """The rows of the first seed; all seeds share them unless `data.split_by_seed` is set."""
        return self.splits_of(self.folder.spec.seeds[0])

    def splits_of(self, seed: int) -> Splits:
        """The rows that `seed` of the run was trained and tested on, made again from the settings.

        Parts that are too large for the memory are seeded choices of 200,000 rows.

        Raises:
            InputError: the file of the run's data has gone or changed.
        """
        return self._splits[seed]

    @cached_property
    def _splits(self) -> dict[int, Splits]:
        from sparseflows.experiment.rows import prepare, read_otherwise

        splits, fingerprint = prepare(self.folder.spec)
        if not self.folder.began_with(fingerprint):
            data = self.folder.spec.data
            place = data.path or f"data/{data.name}"
            otherwise = read_otherwise(self.folder.data_digest(), fingerprint)
            if otherwise:
                raise InputError(f"{place}: {otherwise}; run {self.folder.spec.name} again")
            raise InputError(f"{place}: not the rows that {self.path} was trained on; put the file back")
        return {seed: _in_memory(one) for seed, one in splits.items()}

    def subjects(self, patterns: Sequence[str] = ()) -> list[Subject]:
        """The stages that `patterns` name, all of them by default, failed ones too, in the order of results.csv.

        A pattern is `best` (the lowest validation NLL) or `<method>-s<seed>/<k>`, with a shell's wildcards: `*-s1/*`.

        Raises:
            InputError: a pattern that fits no stage (the ones there are get listed), or that names a failed one.
        """
        subjects = [Subject(self.folder, record) for record in self.records]
        if not patterns:
            return subjects
        chosen = {subject.name for pattern in patterns for subject in self._matching(subjects, pattern)}
        return [subject for subject in subjects if subject.name in chosen]

    def _matching(self, subjects: list[Subject], pattern: str) -> list[Subject]:
        if pattern == "best":
            from sparseflows.experiment.folder.choosing import find

            return [Subject(self.folder, find(self.folder))]
        found = [subject for subject in subjects if fnmatchcase(subject.name, pattern)]
        names = [subject.name for subject in subjects]
        if not found:
            raise InputError(
                f"{self.path}: no stage '{pattern}'{suggest(pattern, names)} (there are: best, {', '.join(names)})"
            )
        failed = [subject for subject in found if subject.record.status != DONE]
        if failed and len(found) == 1:
            raise InputError(f"{self.path}: stage {failed[0].name} failed ({failed[0].record.reason}); take another")
        return found


def survivors(network: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameter name → bool tensor of that parameter's shape in `network`: True where the entry survives.

    A masked network has the masks' shapes; one that was shrunk holds surviving parameters only.
    """
    import torch

    return {
        name: masks[name]
        if name in masks and masks[name].shape == parameter.shape
        else torch.ones_like(parameter, dtype=torch.bool)
        for name, parameter in network.named_parameters()
    }


def _in_memory(splits: Splits) -> Splits:
    from sparseflows.data.tables.mapped import MappedRows
    from sparseflows.evaluation.likelihood import subset

    train, validation, test = (
        subset(rows, MOST_ROWS if isinstance(rows, MappedRows) else None, 0, f"analysis/{part}")
        for part, rows in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    )
    return replace(splits, train=train, validation=validation, test=test)
