"""Test NLL against params; of classifiers, test accuracy against params."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.style import COLOURS, MARKERS, SIZE_INCHES, Arrays, render
from analysis.runs.records import DENSE
from analysis.tables.means import CASCADE, OVER_SEEDS, OVER_TEST_SET, Row, Table
from analysis.tables.numbers import Mean
from analysis.tables.ticks import count_label, count_ticks, ratio_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_DENSE_MARKERS = ("*", "p", "h", "8")
_INSIDE, _COLUMNS = 9, 3  # lines of a legend within the axes; columns of a longer one, below them


def nll_vs_params_arrays(tables: Sequence[Table]) -> Arrays:
    """The points of the figure, one entry a stage that has a test NLL, in the order of the tables.

    Keys, each of one entry a point: `label` (the line it belongs to), `run`, `method`, `protocol` (cascade where none
    is recorded), `stage`, `params`, `params_dense`, `prune_ratio` (fractions), `nll` and `nll_se` (nats; NaN where
    there is no s.e.), `kl_gap` (nats; NaN where the true density is not known). Scalars: `dataset`, `se_over`, and
    `entropy` of the true density (nats), only where it is known. Arrays are empty where no stage has a test NLL.

    Raises:
        ValueError: the tables are not of one data set.
    """
    arrays, rows = _points(tables, "nll", lambda row: row.nll_test)
    arrays["kl_gap"] = np.array([row.kl_gap.value if row.kl_gap else float("nan") for row in rows])
    entropies = [table.entropy for table in tables if table.entropy is not None]
    return arrays | ({"entropy": np.array(np.mean(entropies))} if entropies else {})


def accuracy_vs_params_arrays(tables: Sequence[Table]) -> Arrays:
    """The points of classifiers: `accuracy` and `accuracy_se` (fractions) in place of `nll`, `kl_gap` and `entropy`.

    Raises:
        ValueError: the tables are not of one data set.
    """
    return _points(tables, "accuracy", lambda row: row.accuracy)[0]


def nll_vs_params_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Test NLL against params, as files: `png` (1280 x 800 pixels), `pdf`, and the points as `npz`.

    Raises:
        ValueError: there is no point to draw.
    """
    if arrays["nll"].size == 0:
        raise ValueError("no stage has a test NLL; there is nothing to draw")

    def draw(figure: Figure) -> None:
        _draw(figure.add_subplot(), arrays, arrays["nll"], arrays["nll_se"], "test NLL (nats)")

    return render(draw, arrays, _size(arrays))


def accuracy_vs_params_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Test accuracy against params, as files; see `nll_vs_params_figure`.

    Raises:
        ValueError: there is no point to draw.
    """
    if arrays["accuracy"].size == 0:
        raise ValueError("no stage has a test accuracy; there is nothing to draw")
    percent, percent_se = 100 * arrays["accuracy"], 100 * arrays["accuracy_se"]

    def draw(figure: Figure) -> None:
        _draw(figure.add_subplot(), arrays, percent, percent_se, "test accuracy (%)")

    return render(draw, arrays, _size(arrays))


def _size(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Of the figure: higher where a long legend stands below it."""
    lines = len(set(arrays["label"].tolist())) + 1
    width, height = SIZE_INCHES
    return width, height + (0.0 if lines <= _INSIDE else 0.3 * math.ceil(lines / _COLUMNS) + 0.4)


def _points(tables: Sequence[Table], name: str, of: Callable[[Row], Mean | None]) -> tuple[Arrays, list[Row]]:
    if len({table.dataset for table in tables}) != 1:
        raise ValueError("one figure is about one data set; give the tables of one")
    points = [
        (table, row, value, f"{row.label} ({suffix})" if suffix else row.label)
        for table, suffix in zip(tables, _suffixes(tables), strict=True)
        for row in table.rows
        if (value := of(row)) is not None
    ]
    nan = float("nan")
    arrays = {
        "label": np.array([label for *_, label in points], dtype=str),
        "run": np.array([table.run for table, *_ in points], dtype=str),
        "method": np.array([row.method for _, row, _, _ in points], dtype=str),
        "protocol": np.array([row.protocol or CASCADE for _, row, _, _ in points], dtype=str),
        "stage": np.array([row.stage for _, row, _, _ in points], dtype=np.int64),
        "params": np.array([row.params for _, row, _, _ in points], dtype=np.float64),
        "params_dense": np.array([row.params_dense for _, row, _, _ in points], dtype=np.float64),
        "prune_ratio": np.array([row.prune_ratio for _, row, _, _ in points], dtype=np.float64),
        name: np.array([value.value for _, _, value, _ in points], dtype=np.float64),
        f"{name}_se": np.array([nan if value.se is None else value.se for _, _, value, _ in points]),
        "dataset": np.array(tables[0].dataset),
        "se_over": np.array(_se_over(tables)),
    }
    return arrays, [row for _, row, _, _ in points]


def _draw(axes: Axes, arrays: Mapping[str, np.ndarray], values: np.ndarray, errors: np.ndarray, quantity: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    labels = list(dict.fromkeys(arrays["label"].tolist()))
    dense = (arrays["method"] == DENSE) & (arrays["protocol"] == CASCADE)
    is_dense = {label: bool(dense[arrays["label"] == label][0]) for label in labels}
    lines = [label for label in labels if not is_dense[label]]
    handles = []
    for number, label in enumerate(sorted(labels, key=lambda label: not is_dense[label])):
        points = arrays["label"] == label
        shown = arrays["params"][points], values[points], errors[points]
        if is_dense[label]:
            handles.append(_dense(axes, *shown, number, label))
        else:
            handles.append(_curve(axes, *shown, lines.index(label), label))
    if "entropy" in arrays:
        line = axes.axhline(float(arrays["entropy"]), color="0.35", linewidth=1.0, linestyle=":", zorder=1)
        line.set_label("entropy of the true density")
        handles.append(line)

    least, most = arrays["params"].min(), arrays["params"].max()
    margin = max(1.06, (most / least) ** 0.04)
    low, high = least / margin, most * margin
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(count_ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: count_label(count)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("params")
    axes.set_ylabel(quantity)
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    _prune_ratio_axis(axes, arrays, low, high)
    title = f"{arrays['dataset']}, ± s.e. over {arrays['se_over']}"
    if len(handles) <= _INSIDE:
        axes.legend(handles=handles, title=title, alignment="left", loc="best")
    elif axes.figure is not None:
        below: dict[str, Any] = {"loc": "outside lower left", "ncols": _COLUMNS, "fontsize": "small"}
        axes.figure.legend(handles=handles, title=title, alignment="left", **below)


def _curve(axes: Axes, params: np.ndarray, values: np.ndarray, se: np.ndarray, number: int, label: str) -> Line2D:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    _error_bars(axes, params, values, se, colour)
    (line,) = axes.plot(params, values, color=colour, marker=marker, label=_shown(label), zorder=3)
    line.set(markeredgecolor="white", markeredgewidth=0.6)
    return line


def _dense(axes: Axes, params: np.ndarray, values: np.ndarray, se: np.ndarray, number: int, label: str) -> Line2D:
    colour = str(0.3 * (number % 3))
    _error_bars(axes, params, values, se, colour)
    for height in values:
        axes.axhline(height, color=colour, linewidth=0.9, linestyle="--", zorder=1.5)
    marker = _DENSE_MARKERS[number % len(_DENSE_MARKERS)]
    axes.plot(params, values, color=colour, marker=marker, markersize=10, linestyle="none", zorder=4)
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=9, linestyle="--", linewidth=0.9, label=_shown(label))


def _error_bars(axes: Axes, params: np.ndarray, values: np.ndarray, se: np.ndarray, colour: str) -> None:
    known = np.isfinite(se)
    bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 1.2, "capsize": 3, "zorder": 2.5}
    axes.errorbar(params[known], values[known], yerr=se[known], **bars)


def _prune_ratio_axis(axes: Axes, arrays: Mapping[str, np.ndarray], low: float, high: float) -> None:
    # A second scale for the same axis: only where every point is pruned from the same number of params.
    dense = np.unique(arrays["params_dense"])
    if dense.size != 1 or not np.isfinite(dense[0]) or np.unique(arrays["params"]).size < 2:
        return
    ticks = ratio_ticks(dense[0], low, high)
    if len(ticks) < 2:
        return
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(low, high)
    top.xaxis.set_major_locator(FixedLocator([dense[0] * (1 - ratio) for ratio in ticks]))
    top.xaxis.set_major_formatter(FixedFormatter([f"{100 * ratio:g} %" for ratio in ticks]))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("prune ratio")
    top.spines["top"].set_visible(True)


def _suffixes(tables: Sequence[Table]) -> list[str]:
    # What tells the runs apart, shortest first: nothing, the objective, the name, the folder.
    if len(tables) == 1:
        return [""]
    for suffixes in ([table.objective for table in tables], [table.name for table in tables]):
        if len(set(suffixes)) == len(tables):
            return suffixes
    return [f"{table.run}, {table.objective}" for table in tables]


def _se_over(tables: Sequence[Table]) -> str:
    if {table.se_over for table in tables} == {OVER_TEST_SET}:
        return "the test set"
    seeds = sorted({table.seeds for table in tables if table.se_over == OVER_SEEDS})
    over = f"{' or '.join(str(count) for count in seeds)} seeds"
    return over if all(table.se_over == OVER_SEEDS for table in tables) else f"{over}, or the test set"


def _shown(label: str) -> str:
    # Matplotlib leaves labels with a leading underscore out of the legend.
    return f" {label}" if label.startswith("_") else label
