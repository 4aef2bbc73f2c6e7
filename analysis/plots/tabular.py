"""Test NLL against params, a panel for each tabular set, the published models beside ours.

The NLL axis spans what competes: a model far worse than the others would flatten all differences, so it
stands at the upper edge as an arrow with its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.style import COLOURS, Arrays, render
from analysis.runs.records import DENSE
from analysis.tables.ticks import count_label, count_ticks
from analysis.tabular.table import OBJECTIVES, OURS, OURS_SPARSE, PUBLISHED, PUBLISHED_SPARSE, TabularTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPREAD = 6.0  # the axis ends so many times the distance from best to median above the best
_PUBLISHED_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
_GREY = "0.45"
_METHODS = {"unstructured": (COLOURS[0], "o"), "structured": (COLOURS[1], "s")}
_LINES = ("-", "--", ":")


def tabular_arrays(table: TabularTable) -> Arrays:
    """The points of the figure, one entry a point.

    Keys: `dataset`, `series` (as the legend calls it), `kind` (`published`, `published sparse`, `baseline`,
    `dense` or `pruned`), `method`, `objective`, `params` (NaN where not known), `nll` and `nll_se` (nats; NaN
    where there is no s.e.), `shown` (True where the table has the point). `datasets`: the panels, in order;
    `apart`: those of them where ours may not be held against the published.
    """
    points: list[tuple[str, str, str, str, str, float, float, float, bool]] = []
    nan = float("nan")
    for line in table.lines:
        for title, cell in line.cells.items():
            if line.group in PUBLISHED:
                kind, series = "published", line.model.split(" (")[0].replace("FFJORD", "FFJORD (published)")
                if line.group == PUBLISHED_SPARSE:
                    kind, series = "published sparse", "Sparse Flow (published)"
            elif line.group == OURS and line.model not in OBJECTIVES.values() and "Gaussian" in line.model:
                kind, series = "baseline", line.model
            else:
                continue
            params = nan if cell.params is None else cell.params
            se = nan if cell.nats.se is None else cell.nats.se
            points.append((title, series, kind, "", "", params, cell.nats.value, se, True))
    selected = {
        (title, cell.params, cell.nats.value)
        for line in table.lines
        if line.group == OURS_SPARSE
        for title, cell in line.cells.items()
    }
    for curve in table.curves:
        kind = "dense" if curve.points[0].method == DENSE else "pruned"
        dense = OBJECTIVES.get(curve.objective, f"{curve.objective} (ours)")
        for point in curve.points:
            series = dense if kind == "dense" else f"{dense.removesuffix(' (ours)')}, {curve.label} (ours)"
            se = nan if point.nll_test.se is None else point.nll_test.se
            shown = kind == "dense" or (curve.dataset, point.params, point.nll_test.value) in selected
            head = (curve.dataset, series, kind, point.method, curve.objective)
            points.append((*head, point.params, point.nll_test.value, se, shown))
    names = ("dataset", "series", "kind", "method", "objective", "params", "nll", "nll_se", "shown")
    columns = list(zip(*points, strict=True)) or [()] * len(names)
    kinds: tuple[Any, ...] = (*(str,) * 5, *(np.float64,) * 3, np.bool_)
    arrays = {name: np.array(column, dtype=kind) for name, column, kind in zip(names, columns, kinds, strict=True)}
    known = [title for title in table.datasets if title in set(arrays["dataset"].tolist())]
    return arrays | {"datasets": np.array(known, dtype=str), "apart": np.array(table.apart, dtype=str)}


def tabular_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The figure as files: `png`, `pdf`, and the points as `npz`.

    Raises:
        ValueError: there is no point to draw.
    """
    titles = arrays["datasets"].tolist()
    if not titles:
        raise ValueError("no model has a test NLL; there is nothing to draw")
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)

    def draw(figure: Figure) -> None:
        handles: dict[str, Any] = {}
        for place, title in enumerate(titles):
            axes = figure.add_subplot(rows, columns, place + 1)
            _panel(axes, arrays, title, handles, room=0.1 if columns == 1 else 0.17)
            if place % columns == 0:
                axes.set_ylabel("test NLL (nats)")
        _legend(figure, handles, columns)

    legend = -(-len(set(arrays["series"].tolist())) // (columns + 1)) * 0.2
    return render(draw, arrays, ({1: 6.4, 2: 8.4, 3: 11.0}[columns], 3.1 * rows + 0.5 + legend))


def y_limits(arrays: Mapping[str, np.ndarray], title: str) -> tuple[float, float]:
    """The NLL axis of a panel: all but what is far worse than the others; our dense flows and chosen stages always."""
    here = (arrays["dataset"] == title) & np.isfinite(arrays["nll"])
    competing = here & arrays["shown"]
    values = arrays["nll"][competing if competing.any() else here]
    best = arrays["nll"][here].min()
    error = np.nanmax(arrays["nll_se"][here], initial=0.0)
    high = best + _SPREAD * max(float(np.median(values)) - best, 0.5 * error, 0.01)
    own = here & np.isin(arrays["kind"], ("dense", "pruned")) & arrays["shown"]
    bars = arrays["nll"] + np.nan_to_num(arrays["nll_se"])
    low = (arrays["nll"] - np.nan_to_num(arrays["nll_se"]))[here].min()
    top = bars[own | (here & (arrays["nll"] <= high))].max()
    margin = 0.07 * max(top - low, 0.01)
    return low - margin, top + margin


def _thin(ticks: list[float], span: float, room: float) -> list[float]:
    kept: list[float] = []
    for tick in ticks:
        if not kept or np.log(tick / kept[-1]) >= room * np.log(span):
            kept.append(tick)
    return kept


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], title: str, handles: dict[str, Any], room: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    here = arrays["dataset"] == title
    low, high = y_limits(arrays, title)
    params = arrays["params"][here & np.isfinite(arrays["params"]) & (arrays["kind"] != "baseline")]
    left, right = (params.min(), params.max()) if params.size else (1.0, 10.0)
    margin = max(1.25, (right / left) ** 0.06)
    axes.set_xscale("log")
    axes.set_xlim(left / margin, right * margin)
    axes.set_ylim(low, high)
    clipped: list[tuple[str, float, float, str]] = []
    for series in _in_order(arrays, here):
        _series(axes, arrays, here & (arrays["series"] == series), series, handles, clipped)
    _arrows(axes, clipped)
    ticks = _thin(count_ticks(left / margin, right * margin), right / left * margin**2, room)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: count_label(count)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("params")
    apart = title in arrays["apart"].tolist()
    axes.set_title(
        f"{title} (ours: not the published split)" if apart else title,
        fontsize=10.5,
        loc="left",
        pad=18 if clipped else 6,
    )
    axes.grid(axis="y", color="0.93", linewidth=0.7)
    axes.set_axisbelow(True)


def _in_order(arrays: Mapping[str, np.ndarray], here: np.ndarray) -> list[str]:
    kinds = ("published", "published sparse", "baseline", "dense", "pruned")
    pairs = dict.fromkeys(zip(arrays["kind"][here].tolist(), arrays["series"][here].tolist(), strict=True))
    return [series for _, series in sorted(pairs, key=lambda pair: kinds.index(pair[0]))]


def _series(
    axes: Axes,
    arrays: Mapping[str, np.ndarray],
    points: np.ndarray,
    series: str,
    handles: dict[str, Any],
    clipped: list[tuple[str, float, float, str]],
) -> None:
    kind = arrays["kind"][points][0]
    look = _look(arrays, points, series, kind)
    params, nll, se = (arrays[name][points] for name in ("params", "nll", "nll_se"))
    order = np.argsort(params)
    params, nll, se = params[order], nll[order], se[order]
    _, top = axes.get_ylim()
    if kind == "baseline" or (kind != "pruned" and nll.size == 1):
        clipped += [
            (series.removesuffix(" (ours)"), x, y, look["color"]) for x, y in zip(params, nll, strict=True) if y > top
        ]
    from matplotlib.lines import Line2D

    name = series
    if kind == "baseline":
        axes.axhline(nll[0], **look, zorder=1.5)
    elif kind == "published" and not np.isfinite(arrays["params"][arrays["series"] == series]).any():
        name = f"{series} (params not given: right edge)"
        axes.plot([1.0], [nll[0]], transform=axes.get_yaxis_transform(), clip_on=False, zorder=3, **look)
    else:
        if kind == "pruned":
            _towards_dense(axes, arrays, points, look)
        shifted = params * _shift(axes, arrays, points) if kind == "pruned" else params
        known = np.isfinite(se)
        bars = {"fmt": "none", "ecolor": look["color"], "elinewidth": 1.0, "capsize": 2.5, "zorder": 2.5}
        axes.errorbar(shifted[known], nll[known], yerr=se[known], **bars)
        depth = {"published": 3, "published sparse": 3, "pruned": 4, "dense": 5}[kind]
        axes.plot(shifted, nll, zorder=depth, **look)
        if kind in ("pruned", "published sparse"):
            clipped += [("", x, y, look["color"]) for x, y in zip(shifted, nll, strict=True) if y > top]
    handles.setdefault(name, Line2D([], [], **look))


def _shift(axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray) -> float:
    # Methods pruned to one ratio have nearly the same params: a hair apart, their error bars can be told apart.
    left, right = axes.get_xlim()
    here = arrays["dataset"] == arrays["dataset"][points][0]
    lines = list(dict.fromkeys(arrays["series"][here & (arrays["kind"] == "pruned")].tolist()))
    place = lines.index(arrays["series"][points][0]) - (len(lines) - 1) / 2
    return float((right / left) ** (0.008 * place))


def _towards_dense(axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray, look: Mapping[str, Any]) -> None:
    # A cascade begins at the dense flow.
    same = (arrays["dataset"] == arrays["dataset"][points][0]) & (arrays["objective"] == arrays["objective"][points][0])
    dense = same & (arrays["kind"] == "dense")
    if dense.any():
        first = np.argmax(np.where(points, arrays["params"], -np.inf))
        ends = [np.flatnonzero(dense)[0], first]
        axes.plot(
            arrays["params"][ends], arrays["nll"][ends], color=look["color"], linestyle=look["linestyle"], zorder=2
        )


def _look(arrays: Mapping[str, np.ndarray], points: np.ndarray, series: str, kind: str) -> dict[str, Any]:
    objectives = sorted(set(arrays["objective"].tolist()) - {""})
    place = objectives.index(arrays["objective"][points][0]) if kind in ("dense", "pruned") else 0
    if kind == "published":
        names = list(dict.fromkeys(arrays["series"][arrays["kind"] == "published"].tolist()))
        marker = _PUBLISHED_MARKERS[names.index(series) % len(_PUBLISHED_MARKERS)]
        return {"color": _GREY, "marker": marker, "markerfacecolor": "white", "linestyle": "none", "markersize": 5.5}
    if kind == "published sparse":
        return {"color": _GREY, "marker": "o", "linestyle": "-", "linewidth": 1.1, "markersize": 4.0}
    if kind == "baseline":
        return {"color": COLOURS[2], "linestyle": "-." if "mixture" in series else ":", "linewidth": 1.4}
    if kind == "dense":
        colour = ("black", COLOURS[3])[place % 2]
        return {"color": colour, "marker": ("*", "p")[place % 2], "markersize": 10, "linestyle": "none"}
    colour, marker = _METHODS.get(arrays["method"][points][0], (COLOURS[4], "D"))
    return {
        "color": colour,
        "marker": marker,
        "linestyle": _LINES[place % len(_LINES)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def _arrows(axes: Axes, clipped: list[tuple[str, float, float, str]]) -> None:
    """What is above the axis: an arrow at the upper edge, and its value over the panel."""
    left, right = axes.get_xlim()
    transform = axes.get_xaxis_transform()
    for _, x, _, colour in clipped:
        if left <= x <= right:  # a baseline may have fewer params than the axis begins with
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (x, 1.0), (x, 0.92), xycoords=transform, textcoords=transform, arrowprops=arrow)
    said = [f"↑ {name} {y:.2f}" if abs(y) < 1e4 else f"↑ {name} {y:.0e}" for name, _, y, _ in clipped if name]
    if said:
        axes.text(0.0, 1.01, "  ".join(said), transform=axes.transAxes, va="bottom", fontsize=7.5, color="0.3")


def _legend(figure: Figure, handles: Mapping[str, Any], columns: int) -> None:
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns + 1,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.4,
    )
