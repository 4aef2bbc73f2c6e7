"""Which runs a tabular table shows: one for each data set and objective, chosen on validation rows."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, Run, Stage, read_run
from analysis.tabular.front import Point, points_of
from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.data.splits import TABLE
from sparseflows.errors import InputError
from sparseflows.experiment.folder.sequences import stages
from sparseflows.specs import Spec
from sparseflows.specs.yaml import parse_yaml

_TITLE_WIDTH = 32  # of a column, that is named after a file of the user's


@dataclass(frozen=True)
class DataInfo:
    """What a run says of its rows: spec.yaml's settings, and data.json's own words on a sample."""

    name: str
    path: str | None = None
    n_train: int | None = None
    sample: bool = False
    notes: tuple[str, ...] = ()
    stages: int | None = None  # that the whole run has, where its settings say so

    @property
    def is_published(self) -> bool:
        """Whether these are the rows that the published numbers are about, every training row of them."""
        known = BENCHMARKS.get(self.name)
        if known is None or self.sample:
            return False
        return self.n_train is None or self.n_train >= known.rows[0]


@dataclass(frozen=True)
class Variant:
    """The stages of one run that are about one data set and one objective."""

    run: Run
    info: DataInfo
    objective: str
    stages: tuple[Stage, ...]
    points: tuple[Point, ...]

    @property
    def called(self) -> str:
        """The run's folder: names of runs need not differ."""
        return Path(self.run.folder).resolve().name

    @property
    def tested(self) -> int:
        """Test rows that its stages were scored on; 0 where none was."""
        return max((stage.n_test or 0 for stage in self.stages), default=0)

    @property
    def dense(self) -> Point | None:
        """The dense flow; None where no seed has one."""
        return next((point for point in self.points if point.method == DENSE), None)

    @property
    def validated(self) -> float:
        """Mean validation NLL of the dense flow (nats), infinite where there is none: what variants are chosen by."""
        dense = self.dense
        return math.inf if dense is None or dense.nll_val is None else dense.nll_val


@dataclass(frozen=True)
class Choice:
    """The variant that is shown for one data set and objective, and those it was chosen from (itself included)."""

    title: str
    shown: Variant
    among: tuple[Variant, ...]


def read_variants(folder: Path) -> list[Variant]:
    """What a run folder holds, one for each data set and objective.

    Raises:
        InputError: not a run folder, or one that cannot be read.
    """
    run, info = read_run(folder), _info(folder)
    return [
        Variant(run, info, objective, tuple(stages), tuple(points_of(stages)))
        for (_, objective), stages in grouped(run.stages, lambda stage: (stage.dataset, stage.objective)).items()
    ]


def choose(variants: Sequence[Variant]) -> list[Choice]:
    """One variant for each data set and objective, the one whose dense flow has the lowest mean validation NLL.

    Runs on one file of the user's are on one data set. The five published sets come first, in the published
    order, the others as given.
    """
    titles = _titles(variants)
    groups = grouped(variants, lambda variant: (titles[_key(variant)], variant.objective))
    order = list(dict.fromkeys([*(one.title for one in BENCHMARKS.values()), *(title for title, _ in groups)]))
    found = [
        Choice(title, min(several, key=lambda variant: variant.validated), tuple(several))
        for (title, _), several in groups.items()
    ]
    return sorted(found, key=lambda one: order.index(one.title))


def _key(variant: Variant) -> tuple[str, str | None]:
    return variant.info.name, variant.info.path if variant.info.name == TABLE else None


def _titles(variants: Sequence[Variant]) -> dict[tuple[str, str | None], str]:
    titles: dict[tuple[str, str | None], str] = {}
    for name, path in dict.fromkeys(map(_key, variants)):
        title = BENCHMARKS[name].title if name in BENCHMARKS else Path(path).stem if path else name
        title = title if len(title) <= _TITLE_WIDTH else f"{title[: _TITLE_WIDTH - 3]}..."
        while title in titles.values():
            title += "'"
        titles[name, path] = title
    return titles


def _info(folder: Path) -> DataInfo:
    path = folder / "spec.yaml"
    spec = parse_yaml(path.read_text(encoding="utf-8"), str(path))  # read_run has read it
    settings = spec.get("data")
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise InputError(f"{path}: names no data set (data.name); it should be as the run wrote it")
    file, n_train, said = settings.get("path"), settings.get("n_train"), _said(folder / "data.json")
    notes = said.get("notes")
    return DataInfo(
        name=settings["name"],
        path=None if file is None else str(file),
        n_train=n_train if isinstance(n_train, int) else None,
        sample=bool(said.get("sample", False)),
        notes=tuple(str(note) for note in notes) if isinstance(notes, list) else (),
        stages=_count_stages(spec),
    )


def _count_stages(spec: dict[str, Any]) -> int | None:
    try:
        return len(stages(Spec.model_validate(spec)))
    except ValueError:  # settings of another version: how many are to come is not known
        return None


def _said(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path}: damaged; run the experiment again") from None
