"""Test NLL against params; of classifiers, test accuracy against params."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.axes import draw_means, log_axis, params_axis
from analysis.plots.looks import Look, looks
from analysis.plots.style import SIZE_INCHES, Arrays, columns, render
from analysis.plots.ticks import ratio_ticks
from analysis.runs.records import CASCADE, DENSE
from analysis.tables.means import OVER_SEEDS, OVER_TEST_SET, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DENSE_MARKERS = ("*", "p", "h", "8")
_INSIDE = 9  # lines of a legend within the axes
_QUANTITIES = {"nll": ("test NLL", 1.0, "nats"), "accuracy": ("test accuracy", 100.0, "%")}


def vs_params_arrays(tables: Sequence[Table]) -> Arrays:
    """The points of the figure, one entry a stage that has a test NLL (accuracy), in the order of the tables.

    Keys, each of one entry a point: `label` (the line it belongs to), `run`, `method`, `protocol` (cascade where none
    is recorded), `stage`, `params`, `params_dense`, `prune_ratio` (fractions), `nll` and `nll_se` (nats; NaN where
    there is no s.e.), `kl_gap` (nats; NaN where the true density is not known). Scalars: `dataset`, `se_over`, and
    `entropy` of the true density (nats), only where it is known. Arrays are empty where no stage has a test NLL.
    Of classifiers: `accuracy` and `accuracy_se` (fractions) in place of `nll`, `kl_gap` and `entropy`.

    Raises:
        ValueError: the tables are not of one data set.
    """
    if len({table.dataset for table in tables}) != 1:
        raise ValueError("one figure is about one data set; give the tables of one")
    classifies = tables[0].classifies
    name = "accuracy" if classifies else "nll"
    rows, cells = [], []
    for table, suffix in zip(tables, _suffixes(tables), strict=True):
        for row in table.rows:
            if (value := row.accuracy if classifies else row.nll_test) is not None:
                rows.append(row)
                label = f"{row.label} ({suffix})" if suffix else row.label
                texts = (label, table.run, row.method, row.protocol or CASCADE)
                ratios = (row.params, row.params_dense, row.prune_ratio)
                cells.append((*texts, row.stage, *ratios, value.value, value.se))
    numbers = ("params", "params_dense", "prune_ratio", name, f"{name}_se")
    arrays = columns({str: ("label", "run", "method", "protocol"), int: ("stage",), float: numbers}, cells)
    arrays |= {"dataset": np.array(tables[0].dataset), "se_over": np.array(_se_over(tables))}
    if classifies:
        return arrays
    arrays["kl_gap"] = np.array([row.kl_gap.value if row.kl_gap else np.nan for row in rows])
    entropies = [table.entropy for table in tables if table.entropy is not None]
    return arrays | ({"entropy": np.array(np.mean(entropies))} if entropies else {})


def vs_params_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Test NLL (accuracy) against params, as files: `png` (1280 x 800 pixels), `pdf`, and the points as `npz`.

    Raises:
        ValueError: there is no point to draw.
    """
    name = "accuracy" if "accuracy" in arrays else "nll"
    quantity, scale, unit = _QUANTITIES[name]
    if arrays[name].size == 0:
        raise ValueError(f"no stage has a {quantity}; there is nothing to draw")
    dense, pruned = _styles(arrays)
    styles = dense | pruned
    lines = len(styles) + ("entropy" in arrays)
    width, height = SIZE_INCHES
    # A long legend stands below the axes, in as many columns as its longest line leaves room for.
    across = min(3, max(1, 98 // (8 + max(len(label) for label in styles))))
    height += 0.0 if lines <= _INSIDE else 0.2 * math.ceil((lines + 1) / across) + 0.3

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        handles = []
        for label, look in styles.items():
            points = arrays["label"] == label
            params, values, errors = (arrays[key][points] for key in ("params", name, f"{name}_se"))
            draw_means(axes, params, scale * values, scale * errors, look)
            if label in dense:
                for value in scale * values:
                    axes.axhline(value, color=look.colour, linewidth=0.9, linestyle="--", zorder=1.5)
            handles.append(look.handle(label))
        if "entropy" in arrays:
            style: Any = {"color": "0.35", "linewidth": 1.0, "linestyle": ":", "zorder": 1}
            handles.append(axes.axhline(float(arrays["entropy"]), label="entropy of the true density", **style))
        least, most = arrays["params"].min(), arrays["params"].max()
        low, high = params_axis(axes, least, most, max(1.06, (most / least) ** 0.04))
        axes.set_ylabel(f"{quantity} ({unit})")
        _prune_ratio_axis(axes, arrays, low, high)
        title = f"{arrays['dataset']}, ± s.e. over {arrays['se_over']}"
        if lines <= _INSIDE:
            axes.legend(handles=handles, title=title, alignment="left", loc="best")
        else:
            below: Any = {"loc": "outside lower left", "ncols": across, "fontsize": "small"}
            figure.legend(handles=handles, title=title, alignment="left", **below)

    return render(draw, arrays, (width, height), chart=True)


def _styles(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Look], dict[str, Look]]:
    # The dense flows, each with a marker and a grey of its own; and the others.
    methods = dict(zip(arrays["label"].tolist(), arrays["method"].tolist(), strict=True))
    dense = arrays["label"][(arrays["method"] == DENSE) & (arrays["protocol"] == CASCADE)].tolist()
    found = {
        label: Look(str(0.3 * (place % 3)), _DENSE_MARKERS[place % len(_DENSE_MARKERS)], "--", size=10)
        for place, label in enumerate(dict.fromkeys(dense))
    }
    return found, looks({label: method for label, method in methods.items() if label not in found})


def _prune_ratio_axis(axes: Axes, arrays: Mapping[str, np.ndarray], low: float, high: float) -> None:
    # A second scale for the same axis: only where every point is pruned from the same number of params.
    dense, *others = np.unique(arrays["params_dense"]).tolist()
    if others or not math.isfinite(dense) or np.unique(arrays["params"]).size < 2:
        return
    ticks = [dense * (1 - ratio) for ratio in ratio_ticks(dense, low, high)]
    if len(ticks) < 2:
        return
    top = axes.twiny()
    top.grid(visible=False)
    log_axis(top.xaxis, ticks, lambda params: f"{100 * (1 - params / dense):.4g} %")
    top.set(xlim=(low, high), xlabel="prune ratio")
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
