"""Test NLL against params, a panel for each tabular set, the published models beside ours.

The NLL axis spans what competes: a model far worse than the others would flatten all differences, so it
stands at the upper edge as an arrow with its value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.axes import draw_means, params_axis
from analysis.plots.looks import Look, looks
from analysis.plots.style import Arrays, columns, render
from analysis.runs.records import DENSE
from analysis.tabular.table import OBJECTIVES, OURS, OURS_SPARSE, PUBLISHED, PUBLISHED_SPARSE, TabularTable
from sparseflows.plot.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPREAD = 6.0  # the axis ends so many times the distance from best to median above the best
_PUBLISHED_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
_GREY = "0.45"
_ORDER = ("published", "published sparse", "baseline", "dense", "pruned")
_LINES = ("-", "--", ":")


def tabular_arrays(table: TabularTable) -> Arrays:
    """The points of the figure, one entry a point.

    Keys: `dataset`, `series` (as the legend calls it), `kind` (`published`, `published sparse`, `baseline`,
    `dense` or `pruned`), `method`, `objective`, `params` (NaN where not known), `nll` and `nll_se` (nats; NaN
    where there is no s.e.), `shown` (True where the table has the point). `datasets`: the panels, in order;
    `apart`: those of them where ours may not be held against the published.
    """
    points: list[tuple[object, ...]] = []
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
            points.append((title, series, kind, "", "", cell.params, cell.nats.value, cell.nats.se, True))
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
            shown = kind == "dense" or (curve.dataset, point.params, point.nll_test.value) in selected
            head = (curve.dataset, series, kind, point.method, curve.objective)
            points.append((*head, point.params, point.nll_test.value, point.nll_test.se, shown))
    texts = ("dataset", "series", "kind", "method", "objective")
    arrays = columns({str: texts, float: ("params", "nll", "nll_se"), bool: ("shown",)}, points)
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
    across = min(3, len(titles))
    rows = -(-len(titles) // across)

    styles = _styles(arrays)

    def draw(figure: Figure) -> None:
        used: dict[str, Look] = {}
        for place, title in enumerate(titles):
            axes = figure.add_subplot(rows, across, place + 1)
            used |= _panel(axes, arrays, title, styles, room=0.1 if across == 1 else 0.17)
            if place % across == 0:
                axes.set_ylabel("test NLL (nats)")
        handles = [look.handle(name) for name, look in used.items()]
        bare: Any = {"frameon": False, "handlelength": 2.4, "columnspacing": 1.4}
        figure.legend(handles=handles, loc="outside lower center", ncols=across + 1, **bare)

    legend = -(-len(styles) // (across + 1)) * 0.2
    return render(draw, arrays, ({1: 6.4, 2: 8.4, 3: 11.0}[across], 3.1 * rows + 0.5 + legend), chart=True)


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


def _panel(
    axes: Axes, arrays: Mapping[str, np.ndarray], title: str, styles: Mapping[str, Look], room: float
) -> dict[str, Look]:
    """One data set; the looks of what it shows, by their names in the legend."""
    from matplotlib.ticker import MaxNLocator

    here = arrays["dataset"] == title
    low, high = y_limits(arrays, title)
    params = arrays["params"][here & np.isfinite(arrays["params"]) & (arrays["kind"] != "baseline")]
    left, right = (float(params.min()), float(params.max())) if params.size else (1.0, 10.0)
    params_axis(axes, left, right, max(1.25, (right / left) ** 0.06), room)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    clipped: list[tuple[str, float, float, str]] = []
    used = {}
    for series in (one for one in styles if (here & (arrays["series"] == one)).any()):
        name = _series(axes, arrays, here & (arrays["series"] == series), series, styles[series], clipped)
        used[name] = styles[series]
    _arrows(axes, clipped)
    apart = title in arrays["apart"].tolist()
    axes.set_title(f"{title} (ours: not the published split)" if apart else title, pad=18 if clipped else 6)
    return used


def _series(
    axes: Axes,
    arrays: Mapping[str, np.ndarray],
    points: np.ndarray,
    series: str,
    look: Look,
    clipped: list[tuple[str, float, float, str]],
) -> str:
    kind = arrays["kind"][points][0]
    params, nll, se = (arrays[name][points] for name in ("params", "nll", "nll_se"))
    x = params * _shift(axes, arrays, points) if kind == "pruned" else params
    name = series
    if kind == "baseline":
        axes.axhline(nll[0], color=look.colour, linestyle=look.line, linewidth=1.4, zorder=1.5)
    elif kind == "published" and not np.isfinite(arrays["params"][arrays["series"] == series]).any():
        name = f"{series} (params not given: right edge)"
        axes.plot([1.0], [nll[0]], transform=axes.get_yaxis_transform(), clip_on=False, zorder=3, **look.style)
    else:
        if kind == "pruned":
            _towards_dense(axes, arrays, points, look)
        draw_means(axes, x, nll, se, look, {"published": 3, "published sparse": 3, "pruned": 4, "dense": 5}[kind])
    # A line of several points is known by its colour; a single point beyond the axis is named.
    named = kind == "baseline" or (kind != "pruned" and nll.size == 1)
    if named or kind in ("pruned", "published sparse"):
        said = series.removesuffix(" (ours)") if named else ""
        top = axes.get_ylim()[1]
        clipped += [(said, a, b, look.colour) for a, b in zip(x, nll, strict=True) if b > top]
    return name


def _shift(axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray) -> float:
    # Methods pruned to one ratio have nearly the same params: a hair apart, their error bars can be told apart.
    left, right = axes.get_xlim()
    here = arrays["dataset"] == arrays["dataset"][points][0]
    lines = list(dict.fromkeys(arrays["series"][here & (arrays["kind"] == "pruned")].tolist()))
    place = lines.index(arrays["series"][points][0]) - (len(lines) - 1) / 2
    return float((right / left) ** (0.008 * place))


def _towards_dense(axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray, look: Look) -> None:
    # A cascade begins at the dense flow.
    same = (arrays["dataset"] == arrays["dataset"][points][0]) & (arrays["objective"] == arrays["objective"][points][0])
    dense = same & (arrays["kind"] == "dense")
    if dense.any():
        ends = [np.flatnonzero(dense)[0], np.argmax(np.where(points, arrays["params"], -np.inf))]
        axes.plot(arrays["params"][ends], arrays["nll"][ends], color=look.colour, linestyle=look.line, zorder=2)


def _styles(arrays: Mapping[str, np.ndarray]) -> dict[str, Look]:
    """The look of every series, in the order of the legend: published, baselines, dense, pruned."""
    methods = arrays["method"][arrays["kind"] == "pruned"].tolist()
    pruned = looks({method: method for method in methods})
    objectives = sorted(set(arrays["objective"].tolist()) - {""})
    markers = itertools.cycle(_PUBLISHED_MARKERS)
    found: dict[str, Look] = {}
    rows = zip(*(arrays[name].tolist() for name in ("kind", "series", "method", "objective")), strict=True)
    for kind, series, method, objective in sorted(rows, key=lambda row: _ORDER.index(row[0])):
        place = objectives.index(objective) if objective else 0
        if series in found:
            continue
        if kind == "published":
            found[series] = Look(_GREY, next(markers), "none", hollow=True)
        elif kind == "published sparse":
            found[series] = Look(_GREY, "o", size=4.0)
        elif kind == "baseline":
            found[series] = Look(COLOURS[2], "", "-." if "mixture" in series else ":")
        elif kind == "dense":
            found[series] = Look(("black", COLOURS[3])[place % 2], ("*", "p")[place % 2], "none", size=10)
        else:
            found[series] = pruned[method]._replace(line=_LINES[place % len(_LINES)])
    return found


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
