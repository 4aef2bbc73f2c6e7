"""Classifiers: test accuracy and loss against the prune ratio, a curve a protocol and method.

The axis is logarithmic in the share of the params that is kept. A method has one colour and marker, a protocol one
kind of line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.style import COLOURS, MARKERS, Arrays, render
from analysis.runs.records import DENSE
from analysis.tables.means import CASCADE, OVER_SEEDS, Table
from analysis.tables.ticks import count_label, count_ticks, ratio_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"accuracy": ("test accuracy (%)", 100.0), "loss": ("test loss (nats)", 1.0)}
_LINES = ("-", "--", ":", "-.")
_LEAST_KEPT = 1e-4
_RATIOS = (0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
_FAR = 20.0  # losses that differ by more are drawn on a logarithmic axis


def classify_arrays(table: Table) -> Arrays:
    """The points of the figure, one entry a stage with an accuracy, in the order of the table.

    Keys: `label` (its curve), `method`, `protocol`, `stage`, `prune_ratio`, `accuracy`, `accuracy_se` (fractions),
    `loss`, `loss_se` (nats); NaN where there is none. Scalars: `dataset`, `se_over` (seeds, or test set), `seeds`.
    """
    rows = [row for row in table.rows if row.accuracy is not None and row.prune_ratio is not None]
    arrays = {
        "label": np.array([row.label for row in rows], dtype=str),
        "method": np.array([row.method for row in rows], dtype=str),
        "protocol": np.array([row.protocol or CASCADE for row in rows], dtype=str),
        "stage": np.array([row.stage for row in rows], dtype=np.int64),
        "prune_ratio": np.array([row.prune_ratio for row in rows], dtype=np.float64),
    }
    for name in PANELS:
        means = [getattr(row, name) for row in rows]
        arrays[name] = np.array([mean.value if mean else np.nan for mean in means], dtype=np.float64)
        errors = [None if mean is None else mean.se for mean in means]
        arrays[f"{name}_se"] = np.array([np.nan if se is None else se for se in errors], dtype=np.float64)
    scalars = {"dataset": table.dataset, "se_over": table.se_over, "seeds": table.seeds}
    return arrays | {name: np.array(value) for name, value in scalars.items()}


def classify_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Accuracy and loss side by side: `png`, `pdf`, and the points as `npz`.

    Raises:
        ValueError: no stage has an accuracy.
    """
    if arrays["accuracy"].size == 0:
        raise ValueError("no stage has a test accuracy; there is nothing to draw")
    columns = 3

    def draw(figure: Figure) -> None:
        for place, name in enumerate(PANELS):
            _panel(figure.add_subplot(1, len(PANELS), place + 1), arrays, name)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        title = f"{arrays['dataset']}, {_error_bars(arrays)}"
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title, handlelength=3.0)

    names = len(set(arrays["label"].tolist()))
    return render(draw, arrays, (9.0, 3.9 + 0.2 * -(-names // columns)))


def _error_bars(arrays: Mapping[str, np.ndarray]) -> str:
    if str(arrays["se_over"]) == OVER_SEEDS:
        return f"mean ± s.e. over {arrays['seeds']} seeds"
    return "1 seed, accuracy ± s.e. of the test rows"


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], name: str) -> None:
    quantity, scale = PANELS[name]
    pruned = arrays["label"] != DENSE
    protocols, methods = (list(dict.fromkeys(arrays[one][pruned].tolist())) for one in ("protocol", "method"))
    methods = [method for method in methods if method != DENSE]
    for label in dict.fromkeys(arrays["label"].tolist()):
        points = arrays["label"] == label
        if label == DENSE:
            _dense(axes, scale * arrays[name][points], scale * arrays[f"{name}_se"][points])
            continue
        method, protocol = arrays["method"][points][0], arrays["protocol"][points][0]
        look: Any = {"linestyle": _LINES[protocols.index(protocol) % len(_LINES)]}
        if method == DENSE:  # of control and reduced
            look |= {"color": "0.35", "marker": "_"}
        else:
            place = methods.index(method)
            look |= {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        _curve(axes, arrays, points, name, scale, look)
    if name == "loss":
        _far_apart(axes, arrays[name])
    axes.set_ylabel(quantity)
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    _ratio_axis(axes, arrays["prune_ratio"])


def _curve(
    axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray, name: str, scale: float, look: Mapping[str, Any]
) -> None:
    kept, mean = _kept(arrays["prune_ratio"][points]), scale * arrays[name][points]
    se = scale * arrays[f"{name}_se"][points]
    known = np.isfinite(se)
    bars: Any = {"fmt": "none", "ecolor": look["color"], "elinewidth": 1.1, "capsize": 2.5, "zorder": 2.5}
    axes.errorbar(kept[known], mean[known], yerr=se[known], **bars)
    (line,) = axes.plot(kept, mean, linewidth=1.3, label=f" {arrays['label'][points][0]}", zorder=3, **look)
    if look["marker"] != "_":
        line.set(markeredgecolor="white", markeredgewidth=0.6)


def _dense(axes: Axes, means: np.ndarray, errors: np.ndarray) -> None:
    mean, se = float(means[0]), float(errors[0])
    axes.axhline(mean, color="black", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1.5)
    if np.isfinite(se):
        axes.axhspan(mean - se, mean + se, color="black", alpha=0.08, linewidth=0, zorder=1)
    axes.plot([1.0], [mean], color="black", marker="*", markersize=11, linestyle=":", linewidth=0.9, label=" dense")


def _far_apart(axes: Axes, losses: np.ndarray) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = np.nanmin(losses), np.nanmax(losses)
    if not 0 < _FAR * low < high:
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.4, high * 1.4)
    axes.yaxis.set_major_locator(FixedLocator(count_ticks(low / 1.4, high * 1.4)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def _kept(prune_ratio: np.ndarray) -> np.ndarray:
    return np.maximum(1 - prune_ratio, _LEAST_KEPT)


def _ratio_axis(axes: Axes, prune_ratio: np.ndarray) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    least = min(float(_kept(prune_ratio).min()), 0.5)
    margin = max(1.06, least**-0.05)
    low, high = least / margin, margin
    ticks = [ratio for ratio in _RATIOS if low <= 1 - ratio <= high]
    if len(ticks) < 4:
        ticks = ratio_ticks(1.0, low, high)
    axes.set_xscale("log")
    axes.set_xlim(high, low)  # reversed: pruned more, further right
    axes.xaxis.set_major_locator(FixedLocator([1 - ratio for ratio in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * ratio:g} %" for ratio in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("prune ratio (axis: log of the share kept)")
