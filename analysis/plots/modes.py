"""Mode quality against prune ratio: shares of good samples and modes captured, or density and coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.axes import draw_means, kept, ratio_axis
from analysis.plots.looks import DENSE_LOOK, looks
from analysis.plots.style import Arrays, render
from analysis.runs.groups import grouped
from sparseflows.experiment.folder.records import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SIZE_INCHES = (6.4, 7.2)

# Key in the stages' JSON, those of true rows and of a perfect sampler; label of the axis, factor from the JSON to it.
_SHARES = (
    ("good_within_2", "data_within_2", "perfect_within_2", "within 2 sd of a mode (%)", 100.0),
    ("good_within_3", "data_within_3", "perfect_within_3", "within 3 sd of a mode (%)", 100.0),
    ("modes_captured", "data_modes_captured", "modes_total", "modes captured", 1.0),
)
_CLOSENESS = (
    ("density", "density_data", "", "density", 1.0),
    ("coverage", "coverage_data", "", "coverage (%)", 100.0),
    ("sliced_wasserstein", "sliced_wasserstein_data", "", "sliced Wasserstein\ndistance (sd)", 1.0),
)


def mode_quality_arrays(stages: Sequence[Mapping[str, Any]], dataset: str) -> Arrays:
    """The points of the figure, of the JSON objects of the stages that are done: each averaged over the seeds.

    Keys, one entry a point: `method`, `stage`, `prune_ratio` (mean, fraction), `seeds`, and for each of `quantities`
    its mean and `<quantity>_se` (over the seeds; over the samples where there is one; NaN where there is none).
    Scalars: `<quantity>_data` and `_data_se` (true rows), `<quantity>_perfect` (NaN where not known), `dataset`,
    `se_over`. All as in the JSON: shares are fractions.
    """
    panels = _CLOSENESS if stages[0]["modes_total"] is None else _SHARES
    groups = grouped(stages, lambda stage: (stage["method"], stage["stage"]))
    seeds = [len(group) for group in groups.values()]
    arrays = {
        "method": np.array([method for method, _ in groups]),
        "stage": np.array([stage for _, stage in groups]),
        "prune_ratio": np.array([np.mean([one["prune_ratio"] for one in group]) for group in groups.values()]),
        "seeds": np.array(seeds),
        "quantities": np.array([name for name, *_ in panels]),
        "dataset": np.array(dataset),
        "se_over": np.array("the samples" if max(seeds) == 1 else f"{max(seeds)} seeds"),
    }
    for name, data, perfect, *_ in panels:
        means, errors = zip(*(_mean(group, name) for group in groups.values()), strict=True)
        arrays[name], arrays[f"{name}_se"] = np.array(means), np.array(errors)
        for suffix, key in (("data", data), ("data_se", f"{data}_se"), ("perfect", perfect)):
            arrays[f"{name}_{suffix}"] = np.array(stages[0].get(key), dtype=float)  # None is NaN
    return arrays


def mode_quality_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Three panels above one another, as files: `png` (1280 x 1440 pixels), `pdf`, and the points as `npz`."""
    shares = "modes_captured" in arrays
    panels = _SHARES if shares else _CLOSENESS
    methods = list(dict.fromkeys(arrays["method"].tolist()))
    styles = looks({method: method for method in methods if method != DENSE})
    if DENSE in methods:
        styles |= {DENSE: DENSE_LOOK._replace(line="")}

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        column = figure.subplots(len(panels), 1, sharex=True)
        for axes, (name, _, _, label, factor) in zip(column, panels, strict=True):
            handles = _references_drawn(axes, arrays, name, factor, "test rows" if shares else "true rows")
            for method, look in styles.items():
                points = arrays["method"] == method
                values, errors = (factor * arrays[key][points] for key in (name, f"{name}_se"))
                draw_means(axes, kept(arrays["prune_ratio"][points]), values, errors, look)
                handles.append(look.handle(method))
            axes.set_ylabel(label)
        if shares:
            total = float(arrays["modes_captured_perfect"])
            column[-1].set_ylim(-0.04 * total, 1.08 * total)
            column[-1].yaxis.set_major_locator(MaxNLocator(integer=True))
        ratio_axis(column[-1], arrays["prune_ratio"])
        ncols = len(handles) if len(handles) < 5 else -(-len(handles) // 2)
        title = f"{arrays['dataset']}, ± s.e. over {arrays['se_over']}"
        figure.legend(handles=handles, title=title, loc="outside upper center", ncols=ncols)

    return render(draw, arrays, SIZE_INCHES, chart=True)


def _mean(group: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    values = np.array([one[name] for one in group], dtype=float)
    if len(values) > 1:
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    return float(values[0]), float(group[0].get(f"{name}_se", math.nan))


def _references_drawn(
    axes: Axes, arrays: Mapping[str, np.ndarray], name: str, factor: float, rows: str
) -> list[Line2D]:
    # The true rows have no prune ratio: a line across, as wide as their error.
    data, error, perfect = (factor * float(arrays[f"{name}_{key}"]) for key in ("data", "data_se", "perfect"))
    if math.isfinite(error):
        axes.axhspan(data - error, data + error, color="0.88", linewidth=0, zorder=0.5)
    lines = [axes.axhline(data, color="0.55", linewidth=1.0, zorder=1, label=f"{rows}, ± s.e.")]
    if math.isfinite(perfect):
        style: Any = {"color": "0.2", "linewidth": 1.0, "linestyle": ":", "zorder": 1.2}
        lines.append(axes.axhline(perfect, label="perfect sampler", **style))
    return lines
