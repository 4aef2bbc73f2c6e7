"""Curves over the prune ratio: test NLL and KL gap, and the curvature of the loss.

The axis is logarithmic in the share of the params that is kept, so that 90, 95 and 98 % stand apart. Every
network is a faint dot, the line goes through the means over the seeds, and the band is their standard error;
where there is one seed, the band is the error of the test set or of the estimator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.curvature.table import average
from analysis.plots.style import COLOURS, MARKERS, Arrays, render
from analysis.runs.analyses import Key, Values, number
from analysis.runs.records import DENSE, FAILED, Run
from analysis.tables.numbers import Mean
from analysis.tables.ticks import count_label, count_ticks, ratio_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NLL_PANELS = {"nll": "test NLL (nats)", "kl_gap": "KL gap (nats)"}
HESSIAN_PANELS = {
    "lambda_max": "largest eigenvalue",
    "trace": "trace",
    "kappa_lanczos": "κ (Lanczos, 100 steps)",
    "clearly_negative_share": "λ below −0.001 max |λ| (%)",
}
_ERRORS = {
    "nll": "nll_se",
    "kl_gap": "kl_gap_se",
    "trace": "trace_se",
    "kappa_lanczos": "kappa_lanczos_se",
    "clearly_negative_share": "clearly_negative_share_se",
}
_LOG = ("kappa_lanczos",)
_LEAST_KEPT = 1e-4


def nll_vs_pr_arrays(run: Run) -> Arrays:
    """One entry a network that is done, in the order of results.csv; see `_arrays` for the keys."""
    points = {
        (stage.series, stage.seed, stage.stage): {
            "prune_ratio": stage.prune_ratio,
            "nll": stage.nll_test,
            "nll_se": stage.nll_test_se,
            "kl_gap": stage.kl_gap,
            "kl_gap_se": stage.kl_gap_se,
        }
        for stage in run.stages
        if stage.done
    }
    return _arrays(points, tuple(NLL_PANELS), run.stages[0].dataset)


def hessian_vs_pr_arrays(run: Run, stages: Mapping[Key, Values]) -> Arrays:
    """One entry a network that has a Hessian, in the order of hessian.json; see `_arrays` for the keys."""
    points = {key: dict(values) for key, values in stages.items() if values.get("status") != FAILED}
    return _arrays(points, tuple(HESSIAN_PANELS), run.stages[0].dataset)


def nll_vs_pr_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Test NLL, and the KL gap where it is known, against the prune ratio: `png`, `pdf`, `npz`.

    Raises:
        ValueError: there is nothing to draw.
    """
    return _figure(arrays, NLL_PANELS, "the test set")


def hessian_vs_pr_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Largest eigenvalue, trace, κ by Lanczos and share of negative curvature against the prune ratio.

    Raises:
        ValueError: there is nothing to draw.
    """
    return _figure(arrays, HESSIAN_PANELS, "the estimator")


def _arrays(points: Mapping[Key, Mapping[str, object]], names: Sequence[str], dataset: str) -> Arrays:
    """The networks and their means.

    Keys, one entry a network: `method`, `seed`, `stage`, `prune_ratio` (fraction), and each of `names` with its
    `<name>_se`, NaN where there is none. Keys, one entry a stage of a method: `mean_method`, `mean_stage`,
    `mean_prune_ratio`, `mean_<name>`, `mean_<name>_se`. Scalars: `dataset`, `seeds` (how many).
    """
    groups: dict[tuple[str, int], list[Key]] = {}
    for key in points:
        groups.setdefault((key[0], key[2]), []).append(key)
    over_seeds = any(len(keys) > 1 for keys in groups.values())
    arrays = {
        "method": np.array([key[0] for key in points], dtype=str),
        "seed": np.array([key[1] for key in points], dtype=np.int64),
        "stage": np.array([key[2] for key in points], dtype=np.int64),
        "prune_ratio": _column(points.values(), "prune_ratio"),
        "mean_method": np.array([method for method, _ in groups], dtype=str),
        "mean_stage": np.array([stage for _, stage in groups], dtype=np.int64),
        "mean_prune_ratio": np.array(
            [np.mean(_column([points[key] for key in keys], "prune_ratio")) for keys in groups.values()]
        ),
        "dataset": np.array(dataset),
        "seeds": np.array(len({key[1] for key in points})),
    }
    for name in names:
        error = _ERRORS.get(name, "")
        arrays[name] = _column(points.values(), name)
        arrays[f"{name}_se"] = _column(points.values(), error)
        means = [
            average((_mean(points[key], name, error) for key in keys), over_seeds) or Mean(np.nan, None)
            for keys in groups.values()
        ]
        arrays[f"mean_{name}"] = np.array([mean.value for mean in means], dtype=np.float64)
        arrays[f"mean_{name}_se"] = np.array([np.nan if mean.se is None else mean.se for mean in means])
    return arrays


def _mean(values: Mapping[str, object], name: str, error: str) -> Mean | None:
    value = number(values, name)
    return None if value is None else Mean(value, number(values, error))


def _column(points: object, name: str) -> np.ndarray:
    values = [number(values, name) for values in points]  # type: ignore[attr-defined]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _figure(arrays: Mapping[str, np.ndarray], panels: Mapping[str, str], one_seed: str) -> dict[str, bytes]:
    shown = [name for name in panels if np.isfinite(arrays[f"mean_{name}"]).any()]
    if not shown:
        raise ValueError("no stage has a number; there is nothing to draw")
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)

    def draw(figure: Figure) -> None:
        for place, name in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            _panel(axes, arrays, name, panels[name])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        title = f"{arrays['dataset']}, {_error_bars(arrays, one_seed)}"
        figure.legend(handles, labels, loc="outside upper center", ncols=3, title=title)

    width = 6.4 if columns == 1 else 9.0
    return render(draw, arrays, (width, 4.3 if rows == 1 else 3.3 * rows))


def _error_bars(arrays: Mapping[str, np.ndarray], one_seed: str) -> str:
    seeds = int(arrays["seeds"])
    return f"mean ± s.e. over {seeds} seeds" if seeds > 1 else f"1 seed, ± s.e. of {one_seed}"


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], name: str, label: str) -> None:
    scale = 100.0 if name == "clearly_negative_share" else 1.0
    methods = list(dict.fromkeys(arrays["mean_method"].tolist()))
    for place, method in enumerate([method for method in methods if method != DENSE]):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        _line(axes, arrays, name, method, colour, marker, scale)
    if DENSE in methods:
        _dense(axes, arrays, name, scale)
    if name in _LOG:
        _log_axis(axes)
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    _ratio_axis(axes, arrays["prune_ratio"])


def _line(
    axes: Axes, arrays: Mapping[str, np.ndarray], name: str, method: str, colour: str, marker: str, scale: float
) -> None:
    dots = arrays["method"] == method
    if int(arrays["seeds"]) > 1:
        axes.plot(
            *(_kept(arrays["prune_ratio"][dots]), scale * arrays[name][dots]),
            color=colour, marker=marker, markersize=3.5, linestyle="none", alpha=0.35, markeredgewidth=0, zorder=2.5,
        )  # fmt: skip
    means = (arrays["mean_method"] == method) & np.isfinite(arrays[f"mean_{name}"])
    kept, mean = _kept(arrays["mean_prune_ratio"][means]), scale * arrays[f"mean_{name}"][means]
    se = np.nan_to_num(scale * arrays[f"mean_{name}_se"][means])
    low = mean - se
    if name in _LOG:
        low = np.where(low > 0, low, mean / 10)  # an error as large as the mean has no lower end on a log axis
    axes.fill_between(kept, low, mean + se, color=colour, alpha=0.18, linewidth=0, zorder=2)
    (line,) = axes.plot(kept, mean, color=colour, marker=marker, label=f" {method}", zorder=3)
    line.set(markeredgecolor="white", markeredgewidth=0.6)


def _dense(axes: Axes, arrays: Mapping[str, np.ndarray], name: str, scale: float) -> None:
    place = np.flatnonzero(arrays["mean_method"] == DENSE)[0]
    mean, se = scale * arrays[f"mean_{name}"][place], scale * arrays[f"mean_{name}_se"][place]
    if not np.isfinite(mean):
        return
    axes.axhline(mean, color="black", linewidth=0.9, linestyle="--", zorder=1.5)
    if np.isfinite(se):
        axes.axhspan(mean - se, mean + se, color="black", alpha=0.08, linewidth=0, zorder=1)
    axes.plot([1.0], [mean], color="black", marker="*", markersize=11, linestyle="--", linewidth=0.9, label=" dense")


def _log_axis(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(count_ticks(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def _kept(prune_ratio: np.ndarray) -> np.ndarray:
    return np.maximum(1 - prune_ratio, _LEAST_KEPT)


def _ratio_axis(axes: Axes, prune_ratio: np.ndarray) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    least = float(np.nanmin(_kept(prune_ratio))) if np.isfinite(prune_ratio).any() else 0.5
    margin = max(1.06, least**-0.05)
    low, high = least / margin, margin
    ticks = ratio_ticks(1.0, low, high)
    axes.set_xscale("log")
    axes.set_xlim(high, low)  # reversed: pruned more, further right
    axes.xaxis.set_major_locator(FixedLocator([1 - ratio for ratio in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * ratio:g} %" for ratio in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("prune ratio (axis: log of the share kept)")
