"""`sparseflows run --log tensorboard`: a run as TensorBoard shows it, in the run folder's `tensorboard/`.

`<cascade>/<k>/` is a stage: loss, rate, NFE and validation value against its steps; its results beside its settings
(the HParams page); the field of a flow in two dimensions. `<cascade>/` has the results of its stages against the
stage and against the params. `run/` has the NLL-vs-params table and figure of all stages so far, and the settings.
All are made anew from what the run folder holds, so nothing in them is ever there twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.runs.records import Run, Stage
from analysis.tables.means import CLASSIFIES, tabulate
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import DENSE, Record
from sparseflows.experiment.monitoring.loggers import StageStart, Values
from sparseflows.files import FileLock
from sparseflows.specs.yaml import dump_spec

if TYPE_CHECKING:
    from torch import nn

    from analysis.tensorboard.events import EventFile

FOLDER, OF_RUN = "tensorboard", "run"
JUDGED = ("nll_test", "nll_val", "kl_gap", "accuracy_test", "loss_test", "loss_val")
COUNTED = ("params", "prune_ratio", "nfe")
SHOWN_ROWS = 5000  # validation rows that a figure's window is taken from


class TensorBoard:
    """A logger of the run folder `run`; see `sparseflows.experiment.monitoring.loggers`."""

    def __init__(self, run: Path) -> None:
        self._run, self._folder = run, run / FOLDER
        self._file: EventFile | None = None
        self._stage: StageStart | None = None

    def begin(self, stage: StageStart) -> None:
        """Start the stage's curves, with what its checkpoint knows of them."""
        self._close()
        self._stage, self._file = stage, self._open(f"{stage.cascade}/{stage.stage}")
        for line in stage.history:
            self._points(line)
        self._file.flush()

    def step(self, values: Values) -> None:
        """One point more of each curve."""
        assert self._file is not None
        self._points(values)
        self._file.flush()

    def end(self, record: Record, network: nn.Module | None) -> None:
        """The stage's results and picture; then the cascade's curves and the run's table, made anew."""
        folder = RunFolder.open(self._run)
        file = self._file or self._open(f"{record.cascade}/{record.stage}")
        for name in (*JUDGED, *COUNTED):
            file.scalar(f"result/{name}", getattr(record, name), record.train_steps or 0)
        own = {name: getattr(record, name) for name in ("protocol", "method", "seed", "stage")}
        known = {f"result/{name}": 0.0 for name in (*JUDGED, *COUNTED) if getattr(record, name) is not None}
        file.hparams(flat(folder.spec.model_dump()) | own, known)
        if not record.done:
            file.text("status", f"failed: {record.reason}")
        self._picture(file, record, network)
        self._file = file
        self._close()

        with FileLock(self._folder / ".lock") as lock:
            # Workers of one run share these folders: the last one to write has to be the last one to have read.
            lock.take(wait=True)
            records = folder.records()
            self._curves(record, records)
            self._table(folder, records)

    def _open(self, name: str) -> EventFile:
        from analysis.tensorboard.events import EventFile  # late, because --log tensorboard is looked up early

        return EventFile(self._folder / name)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _points(self, line: Values) -> None:
        assert self._file is not None
        for name, value in line.items():
            if name != "step":
                tag = "validation/val" if name == "val" else f"train/{name}"
                self._file.scalar(tag, value, int(line["step"]))

    def _picture(self, file: EventFile, record: Record, network: nn.Module | None) -> None:
        from sparseflows.flow.model import Flow

        rows = self._stage.validation if self._stage is not None else None
        if rows is None or rows.shape[1] != 2 or not isinstance(network, Flow) or record.objective == CLASSIFIES:
            return  # a classifier's field leads to no noise
        from analysis.fields.arrays import preview_arrays
        from analysis.plots.fields.streams import preview_figure
        from sparseflows.evaluation.likelihood import subset

        ratio = f"PR {100 * (record.prune_ratio or 0.0):.1f} %, {record.params:,} params"
        arrays = preview_arrays(network, subset(rows, SHOWN_ROWS, 0, "glance"))
        file.png("field", preview_figure(arrays, f"{record.cascade}/{record.stage}, {ratio}"), record.stage)

    def _curves(self, record: Record, records: Sequence[Record]) -> None:
        """Of the cascade that `record` is of: its stages after the dense one that they all come from."""
        series = (record.series, DENSE)
        chosen = [one for one in records if one.done and one.seed == record.seed and one.series in series]
        with self._open(record.cascade) as file:
            for one in sorted(chosen, key=lambda one: one.stage):
                for name in (*JUDGED, *COUNTED):
                    file.scalar(f"stages/{name}", getattr(one, name), one.stage)
            for one in sorted(chosen, key=lambda one: one.params or 0):
                for name in JUDGED:
                    file.scalar(f"against_params/{name}", getattr(one, name), one.params or 0)

    def _table(self, folder: RunFolder, records: Sequence[Record]) -> None:
        from analysis.cli.table import figures, table_files

        if not records:  # the one there was is damaged
            return
        spec = folder.spec
        run = Run(str(self._run), spec.name, tuple(spec.seeds), tuple(_row(record) for record in records))
        rows = [row for table in tabulate(run) for row in table.rows]
        drawable = any(row.nll_test is not None or row.accuracy is not None for row in rows)
        with self._open(OF_RUN) as file:
            file.text("table", str(table_files([run], {})["table.md"]), len(records))
            file.text("settings", "".join(f"    {line}\n" for line in dump_spec(spec).splitlines()))
            for name, content in figures([run], {}, curves=False).items() if drawable else ():
                if isinstance(content, bytes) and name.endswith(".png"):
                    file.png(name.removesuffix(".png"), content, len(records))


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, bool | int | float | str]:
    """Settings by their dotted path, as `--set` takes them; lists as text, and those that are None left out."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        elif isinstance(value, (bool, int, float, str)):
            found[before + name] = value
        elif value is not None:
            found[before + name] = str(value)
    return found


def _row(record: Record) -> Stage:
    # As read from results.csv: NaN is an empty cell there.
    missing: dict[str, Any] = {name: None for name, value in vars(record).items() if value != value}
    return replace(record, **missing)
