"""What sipp and pfp promised of every layer, beside the error that was observed: read from a run's metrics. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from analysis.tables.rows import to_csv
from analysis.tables.sheet import Sheet


@dataclass(frozen=True)
class LayerBound:
    """One layer of one stage; relative errors as `sparseflows.pruning.scoring.promises.Promise` has them."""

    protocol: str
    method: str
    seed: int
    stage: int
    layer: str
    promised: float
    observed: float
    mean_promised: float
    mean_observed: float
    kept: bool
    fresh_promised: float | None
    fresh_observed: float | None
    fresh_kept: float | None


def bounds_of(lines: Iterable[str]) -> list[LayerBound]:
    """The promises among the lines of metrics.jsonl, in their order."""
    known = [field.name for field in fields(LayerBound)]
    found = []
    for line in lines:
        values = json.loads(line)
        if "promised" in values:
            found.append(LayerBound(**{name: values.get(name) for name in known} | {"protocol": _protocol(values)}))
    return found


def _protocol(values: dict[str, Any]) -> str:
    return str(values.get("protocol", "cascade"))


def sheet(name: str, bounds: Sequence[LayerBound]) -> Sheet:
    """A row a layer: promised and observed, on the sample and on fresh rows."""
    held = sum(one.kept for one in bounds)
    fresh = [one.fresh_kept for one in bounds if one.fresh_kept is not None]
    telling = sum(0 < one.promised < 1 for one in bounds)
    notes = [
        f"on the sample {held} of {len(bounds)} layers kept their promise with every neuron at every input",
        f"in {telling} of them it was between 0 and 1: at 0 nothing was pruned there, from 1 on it says nothing",
    ]
    if fresh:
        enough = sum(share >= 0.95 for share in fresh)
        notes.append(
            f"on fresh rows the promise held at 95 % of the inputs or more in {enough} of {len(fresh)} layers; it "
            "assumes that no share is more than 3 times the sample's largest"
        )
    return Sheet(
        title=f"{name}: relative error of a layer's outputs, promised and observed",
        legend="largest over its neurons (mean over them), relative to the sum of the products' sizes; random choices "
        "promise with probability 95 %; a promise of 1 or more says nothing",
        heading=("stage", "layer", "promised", "observed", "fresh: promised", "observed", "held"),
        body=tuple(_row(one) for one in bounds),
        label="tab:bounds",
        notes=tuple(notes),
    )


def _row(one: LayerBound) -> tuple[str, ...]:
    name = f"{one.method}-s{one.seed}/{one.stage}"
    name = name if one.protocol == "cascade" else f"{one.protocol}.{name}"
    fresh = ("-", "-", "-")
    if one.fresh_promised is not None and one.fresh_observed is not None and one.fresh_kept is not None:
        fresh = (f"{one.fresh_promised:.3g}", f"{one.fresh_observed:.3g}", f"{100 * one.fresh_kept:.1f} %")
    layer = one.layer.removesuffix(".weight").removeprefix("blocks.").replace(".field.layers.", "/")
    return (
        name,
        layer,
        f"{one.promised:.3g} ({one.mean_promised:.3g})",
        f"{one.observed:.3g} ({one.mean_observed:.3g})",
        *fresh,
    )


def rows_csv(bounds: Sequence[LayerBound]) -> str:
    """A row a layer, unrounded; an empty cell where a value is None."""
    return to_csv([field.name for field in fields(LayerBound)], map(asdict, bounds), whole=False)
