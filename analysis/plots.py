"""Figures: the only file that imports matplotlib, and late, so that `--help` stays quick.

Every figure is drawn from a dict of arrays, and those arrays are what is saved beside it. seaborn was
left out: it would supply a palette and a style, for a second of import time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.records import DENSE
from analysis.tables import OVER_SEEDS, OVER_TEST_SET, Table
from analysis.ticks import count_label, count_ticks, ratio_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Arrays = dict[str, np.ndarray]

SIZE_INCHES = (6.4, 4.0)
DPI = 200

# Okabe & Ito (2008), "Color Universal Design": told apart under every common colour blindness. Their
# yellow is left out (too faint on white), black is kept for the dense flow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DENSE_MARKERS = ("*", "p", "h", "8")
_STYLE: Mapping[Any, Any] = {
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fancybox": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "text.parse_math": False,  # a name may hold a dollar sign
}


def nll_vs_params_arrays(tables: Sequence[Table]) -> Arrays:
    """The points of the figure, one entry a stage that has a test NLL, in the order of the tables.

    Keys, each of one entry a point: `label` (the line it belongs to), `run`, `method`, `stage`, `params`,
    `params_dense`, `prune_ratio` (fractions), `nll` and `nll_se` (nats; NaN where there is no s.e.),
    `kl_gap` (nats; NaN where the true density is not known). Scalars: `dataset`, `se_over`, and `entropy`
    of the true density (nats), only where it is known. Arrays are empty where no stage has a test NLL.

    Raises:
        ValueError: the tables are not of one data set.
    """
    if len({table.dataset for table in tables}) != 1:
        raise ValueError("one figure is about one data set; give the tables of one")
    points = [
        (table, row, row.nll_test, f"{row.label} ({suffix})" if suffix else row.label)
        for table, suffix in zip(tables, _suffixes(tables), strict=True)
        for row in table.rows
        if row.nll_test is not None
    ]
    nan = float("nan")
    arrays = {
        "label": np.array([label for *_, label in points], dtype=str),
        "run": np.array([table.run for table, *_ in points], dtype=str),
        "method": np.array([row.method for _, row, _, _ in points], dtype=str),
        "stage": np.array([row.stage for _, row, _, _ in points], dtype=np.int64),
        "params": np.array([row.params for _, row, _, _ in points], dtype=np.float64),
        "params_dense": np.array([row.params_dense for _, row, _, _ in points], dtype=np.float64),
        "prune_ratio": np.array([row.prune_ratio for _, row, _, _ in points], dtype=np.float64),
        "nll": np.array([nll.value for _, _, nll, _ in points], dtype=np.float64),
        "nll_se": np.array([nan if nll.se is None else nll.se for _, _, nll, _ in points]),
        "kl_gap": np.array([row.kl_gap.value if row.kl_gap else nan for _, row, _, _ in points]),
        "dataset": np.array(tables[0].dataset),
        "se_over": np.array(_se_over(tables)),
    }
    entropies = [table.entropy for table in tables if table.entropy is not None]
    return arrays | ({"entropy": np.array(np.mean(entropies))} if entropies else {})


def nll_vs_params_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Test NLL against params, as files: `png` (1280 x 800 pixels), `pdf`, and the points as `npz`.

    Raises:
        ValueError: there is no point to draw.
    """
    if arrays["nll"].size == 0:
        raise ValueError("no stage has a test NLL; there is nothing to draw")
    with _matplotlib():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
        _draw(figure.add_subplot(), arrays)
        files = {}
        for kind in ("png", "pdf"):
            stream = io.BytesIO()
            # Without a date the same points give the same bytes.
            figure.savefig(stream, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
            files[kind] = stream.getvalue()
    stream = io.BytesIO()
    np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return files | {"npz": stream.getvalue()}


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Matplotlib with this file's style: no pyplot, nothing global left behind, nothing printed.

    The user's matplotlibrc is not applied: figures are the same everywhere. On its first use matplotlib
    reports its font cache, and a missing home folder; neither is the reader's concern.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            warnings.filterwarnings("ignore", message="Glyph")  # a name outside the font: drawn as boxes
            yield
    finally:
        logger.setLevel(level)


def _draw(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    labels = list(dict.fromkeys(arrays["label"].tolist()))
    is_dense = {label: arrays["method"][arrays["label"] == label][0] == DENSE for label in labels}
    lines = [label for label in labels if not is_dense[label]]
    handles = []
    for number, label in enumerate(sorted(labels, key=lambda label: not is_dense[label])):
        points = arrays["label"] == label
        if is_dense[label]:
            handles.append(_dense(axes, arrays, points, number, label))
        else:
            handles.append(_curve(axes, arrays, points, lines.index(label), label))
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
    axes.set_ylabel("test NLL (nats)")
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)
    _prune_ratio_axis(axes, arrays, low, high)
    title = f"{arrays['dataset']}, ± s.e. over {arrays['se_over']}"
    axes.legend(handles=handles, title=title, alignment="left", loc="best")


def _curve(axes: Axes, arrays: Mapping[str, np.ndarray], points: Any, number: int, label: str) -> Line2D:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    params, nll = arrays["params"][points], arrays["nll"][points]
    _error_bars(axes, arrays, points, colour)
    (line,) = axes.plot(params, nll, color=colour, marker=marker, label=_shown(label), zorder=3)
    line.set(markeredgecolor="white", markeredgewidth=0.6)
    return line


def _dense(axes: Axes, arrays: Mapping[str, np.ndarray], points: Any, number: int, label: str) -> Line2D:
    params, nll = arrays["params"][points], arrays["nll"][points]
    colour = str(0.3 * (number % 3))
    _error_bars(axes, arrays, points, colour)
    for height in nll:
        axes.axhline(height, color=colour, linewidth=0.9, linestyle="--", zorder=1.5)
    marker = _DENSE_MARKERS[number % len(_DENSE_MARKERS)]
    axes.plot(params, nll, color=colour, marker=marker, markersize=10, linestyle="none", zorder=4)
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=9, linestyle="--", linewidth=0.9, label=_shown(label))


def _error_bars(axes: Axes, arrays: Mapping[str, np.ndarray], points: Any, colour: str) -> None:
    known = points & np.isfinite(arrays["nll_se"])
    params, nll, se = arrays["params"][known], arrays["nll"][known], arrays["nll_se"][known]
    axes.errorbar(params, nll, yerr=se, fmt="none", ecolor=colour, elinewidth=1.2, capsize=3, zorder=2.5)


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
