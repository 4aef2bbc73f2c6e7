"""published.yaml, typed. Each part carries the line that says where its numbers come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class CurvatureRow:
    """One row of the published Hessian table; NLL in nats, the others in an unknown scale: use ratios."""

    prune_ratio: float
    nll: float
    lambda_max: float
    trace: float
    kappa: float


@dataclass(frozen=True)
class PublishedCurvature:
    """The published Hessian table, unpruned flow first; `dataset` and `method` say what it is about."""

    source: str
    note: str
    dataset: str
    method: str
    rows: tuple[CurvatureRow, ...]

    @property
    def dense(self) -> CurvatureRow:
        """The row of the unpruned flow."""
        return self.rows[0]

    def nearest(self, prune_ratio: float) -> CurvatureRow:
        """The row whose prune ratio is nearest; of two equally near, the less pruned."""
        return min(self.rows, key=lambda row: abs(row.prune_ratio - prune_ratio))

    def ratios(self, row: CurvatureRow) -> dict[str, float]:
        """lambda_max, trace and kappa as ratios to the published unpruned row; `nll` as the difference (nats)."""
        ratios = {name: getattr(row, name) / getattr(self.dense, name) for name in ("lambda_max", "trace", "kappa")}
        return {"nll": row.nll - self.dense.nll} | ratios


@dataclass(frozen=True)
class PublishedTables:
    """The published NLLs of the tabular sets: model → data set → (nats, params or None)."""

    source: str
    note: str
    datasets: tuple[str, ...]
    rows: Mapping[str, Mapping[str, tuple[float, int | None]]]


@dataclass(frozen=True)
class MeasuredFlow:
    """What one network of the authors' code was measured to give: nats, and percent of good samples."""

    network: str
    params_counted: int
    nll_train: float
    nll_test: float
    within_2_std_percent: float
    within_3_std_percent: float
    within_5_std_percent: float
    nfe: int


@dataclass(frozen=True)
class MeasuredCurvature:
    """The Hessian of one network of the authors' code, by their script."""

    network: str
    lambda_max: float
    sum_of_positive_ritz_values: float
    hutchinson_trace: float
    hutchinson_se: float
    cpu_seconds: float


@dataclass(frozen=True)
class MeasuredCode:
    """The authors' public code, run again: training figures, flows, Hessians (unpruned first)."""

    source: str
    dataset: str
    train: Mapping[str, float]
    flows: tuple[MeasuredFlow, ...]
    hessians: tuple[MeasuredCurvature, ...]
    hessian_note: str


@dataclass(frozen=True)
class Reference:
    """Everything in published.yaml."""

    hessian: PublishedCurvature
    tabular: PublishedTables
    measured: MeasuredCode


@cache
def load_reference() -> Reference:
    """The published numbers.

    Raises:
        TypeError: a row of published.yaml has a column that its type here lacks, or lacks one.
        ValueError: a row is shorter or longer than its columns.
    """
    import yaml

    document = yaml.safe_load(files("analysis.reference").joinpath("published.yaml").read_text(encoding="utf-8"))
    hessian, tabular, measured = document["hessian"], document["tabular"], document["measured_reference_code"]
    return Reference(
        hessian=PublishedCurvature(
            **{name: hessian[name] for name in ("source", "note", "dataset", "method")},
            rows=tuple(CurvatureRow(**row) for row in _rows(hessian)),
        ),
        tabular=PublishedTables(
            **{name: tabular[name] for name in ("source", "note")},
            datasets=tuple(tabular["datasets"]),
            rows={
                model: {name: (nll, params) for name, (nll, params) in zip(tabular["datasets"], cells, strict=True)}
                for model, cells in tabular["rows"].items()
            },
        ),
        measured=MeasuredCode(
            **{name: measured[name] for name in ("source", "dataset", "train")},
            flows=tuple(MeasuredFlow(**row) for row in _rows(measured)),
            hessians=tuple(MeasuredCurvature(**row) for row in _rows(measured["hessian"])),
            hessian_note=measured["hessian"]["note"],
        ),
    )


def _rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
