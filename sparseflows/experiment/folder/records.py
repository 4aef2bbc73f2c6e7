"""One row of results.csv: what is known of one stage. The one schema by which it is written, and read again."""

from __future__ import annotations

import csv
import functools
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from sparseflows.errors import InputError

DONE: Final = "done"
FAILED: Final = "failed"
DENSE, CASCADE = "dense", "cascade"
AS_WRITTEN = "it should be as the run wrote it"
LATER = ("loss_val", "steps_total", "rows_unsolved", "rows_infinite")  # columns that older runs lack

Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0)]
Params = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Record:
    """The columns of results.csv, in order. None where one does not apply.

    NLLs and KL gaps are in nats and standardised coordinates; `prune_ratio` = 1 − params / params_dense is
    the one reached; `nfe` is of one solve of log p; `train_seconds` is summed over resumptions; `loss` is a
    classifier's mean cross-entropy in nats; `steps_total` counts all training behind the stage's weights.
    `rows_unsolved` and `rows_infinite` count test rows without a finite log p, which `nll_test` leaves out.

    The bounds are those that a file is held to when it is read; making a record checks nothing.
    """

    dataset: Text
    objective: Text
    protocol: str | None
    method: Text
    seed: Whole
    stage: Whole
    status: Literal["done", "failed"]
    reason: str | None = None
    keep_ratio_target: Share | None = None
    prune_ratio: Share | None = None
    params: Params | None = None
    params_dense: Params | None = None
    nll_val: Finite | None = None
    nll_test: Finite | None = None
    nll_test_se: AtLeast0 | None = None
    n_test: Whole | None = None
    nll_train: Finite | None = None
    kl_gap: Finite | None = None
    kl_gap_se: AtLeast0 | None = None
    accuracy_test: Share | None = None
    loss_test: Finite | None = None
    nfe: Whole | AtLeast0 | None = None
    train_steps: Whole | None = None
    train_seconds: AtLeast0 | None = None
    loss_val: Finite | None = None
    steps_total: Whole | None = None
    rows_unsolved: Whole | None = None
    rows_infinite: Whole | None = None

    @property
    def cascade(self) -> str:
        """Name of its folder below `cascades/`."""
        return cascade_name(self.method, self.seed, self.protocol)

    @property
    def series(self) -> str:
        """What its stages have in common over the seeds: the method; of another protocol `<protocol>.<method>`."""
        return series_name(self.method, self.protocol)

    @property
    def key(self) -> tuple[str, int, int]:
        """What a stage is known by within its run: series, seed, stage."""
        return self.series, self.seed, self.stage

    @property
    def done(self) -> bool:
        """Whether the stage finished and its numbers count."""
        return self.status == DONE

    @property
    def rows_left_out(self) -> int:
        """Test rows without a finite log p; `nll_test` is over the others."""
        return (self.rows_unsolved or 0) + (self.rows_infinite or 0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """From a stage's record.json; keys that are not columns are left out."""
        known: dict[str, Any] = {f.name: values.get(f.name) for f in fields(cls)}
        return cls(**known)


def cascade_name(method: str, seed: int, protocol: str | None = CASCADE) -> str:
    """`<method>-s<seed>`; of another protocol than the cascade, `<protocol>.<method>-s<seed>`."""
    return f"{series_name(method, protocol)}-s{seed}"


def place_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What every line of metrics.jsonl says of its stage; `stage` has more keys than these."""
    names = ("method", "seed", "stage") if stage["protocol"] == CASCADE else ("protocol", "method", "seed", "stage")
    return {name: stage[name] for name in names}


def series_name(method: str, protocol: str | None) -> str:
    """`<method>`; of another protocol than the cascade, `<protocol>.<method>`."""
    return method if protocol in (None, CASCADE) else f"{protocol}.{method}"


def to_csv(records: Iterable[Record]) -> str:
    """results.csv: full precision, an empty cell where a value is None or NaN."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(f.name for f in fields(Record))
    for record in records:
        writer.writerow("" if _missing(value) else value for value in asdict(record).values())
    return buffer.getvalue()


def read_csv(path: Path) -> list[Record]:
    """The records of a results.csv. Columns that are not known are ignored: a later version may add some.

    Raises:
        InputError: whatever is not as a run writes it, with its line and column.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    records: list[Record] = []
    first_line: dict[tuple[object, ...], int] = {}
    try:
        if reader.fieldnames is not None:
            missing = [f.name for f in fields(Record) if f.name not in (*reader.fieldnames, *LATER)]
            if missing:
                columns = f"column{'s' * (len(missing) > 1)} {', '.join(missing)}"
                raise InputError(f"{path}, line 1: lacks the {columns}; {AS_WRITTEN}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            record = _record(where, row)
            key = (record.dataset, record.objective, record.protocol, record.method, record.seed, record.stage)
            if key in first_line:
                raise InputError(
                    f"{where}: repeats line {first_line[key]} ({record.method}, seed {record.seed}, "
                    f"stage {record.stage}); there should be one row a stage"
                )
            first_line[key] = reader.line_num
            records.append(record)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}); {AS_WRITTEN}") from error
    if not records:
        raise InputError(f"{path}: empty, no stage has finished yet; wait for the run, or start it again")
    return records


def read_text(path: Path) -> str:
    """A file that a run wrote.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); {AS_WRITTEN}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it should be readable") from error


def _record(where: str, row: Mapping[Any, Any]) -> Record:
    if None in row or None in row.values():
        count = "more" if None in row else "fewer"
        raise InputError(f"{where}: has {count} cells than the header has columns; {AS_WRITTEN}")
    cells = {f.name: " ".join(row.get(f.name, "").split()) or None for f in fields(Record)}
    try:
        record = _schema().validate_python(cells)
        empty = [name for name in ("params", "prune_ratio") if record.done and cells[name] is None]
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): problem for problem in error.errors()}
        name = "status" if "status" in wrong else next(iter(wrong))
        if cells[name] is not None:
            raise InputError(f"{where}: {name} is '{cells[name]}'; it should be {_wanted(name)}") from None
        empty = [name]
    if empty:
        raise InputError(f"{where}: {empty[0]} is empty; this row needs one")
    return record


@functools.cache
def _schema() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def _wanted(name: str) -> str:
    """What a cell of a column should be."""
    column = _schema().json_schema()["properties"][name]
    kind = next(one for one in reversed(column.get("anyOf", [column])) if one.get("type") != "null")
    if "enum" in kind:
        return " or ".join(f"'{one}'" for one in kind["enum"])
    noun = "a whole number" if kind["type"] == "integer" else "a finite number"
    bounds = [
        f"{words} {kind[key]:g}" for key, words in (("minimum", "at least"), ("maximum", "at most")) if key in kind
    ]
    return ", ".join([noun, " and ".join(bounds)] if bounds else [noun])


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
