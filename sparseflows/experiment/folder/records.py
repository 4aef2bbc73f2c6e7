"""One row of results.csv: what is known of one stage."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

DONE, FAILED = "done", "failed"
DENSE, CASCADE = "dense", "cascade"


@dataclass(frozen=True)
class Record:
    """The columns of results.csv, in order. None where one does not apply.

    NLLs and KL gaps are in nats and standardised coordinates; `prune_ratio` = 1 − params / params_dense is
    the one reached; `nfe` is of one solve of log p; `train_seconds` is summed over resumptions; `loss` is a
    classifier's mean cross-entropy in nats; `steps_total` counts all training behind the stage's weights.
    """

    dataset: str
    objective: str
    protocol: str
    method: str
    seed: int
    stage: int
    status: str
    reason: str | None = None
    keep_ratio_target: float | None = None
    prune_ratio: float | None = None
    params: int | None = None
    params_dense: int | None = None
    nll_val: float | None = None
    nll_test: float | None = None
    nll_test_se: float | None = None
    n_test: int | None = None
    nll_train: float | None = None
    kl_gap: float | None = None
    kl_gap_se: float | None = None
    accuracy_test: float | None = None
    loss_test: float | None = None
    nfe: int | None = None
    train_steps: int | None = None
    train_seconds: float | None = None
    loss_val: float | None = None
    steps_total: int | None = None

    @property
    def cascade(self) -> str:
        """Name of its folder below `cascades/`."""
        return cascade_name(self.method, self.seed, self.protocol)

    @property
    def series(self) -> str:
        """What its stages have in common over the seeds: the method; of another protocol `<protocol>.<method>`."""
        return series_name(self.method, self.protocol)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """From a stage's record.json; keys that are not columns are left out."""
        known = {f.name: values.get(f.name) for f in fields(cls)}
        return cls(**known)  # type: ignore[arg-type]


def cascade_name(method: str, seed: int, protocol: str = CASCADE) -> str:
    """`<method>-s<seed>`; of another protocol than the cascade, `<protocol>.<method>-s<seed>`."""
    return f"{series_name(method, protocol)}-s{seed}"


def series_name(method: str, protocol: str | None) -> str:
    """`<method>`; of another protocol than the cascade, `<protocol>.<method>`."""
    return method if protocol in (None, CASCADE) else f"{protocol}.{method}"


def to_csv(records: Iterable[Record]) -> str:
    """results.csv: full precision, an empty cell where a value is None or NaN."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([f.name for f in fields(Record)])
    for record in records:
        writer.writerow(["" if _missing(value) else value for value in asdict(record).values()])
    return buffer.getvalue()


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
