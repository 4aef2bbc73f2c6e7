"""Criteria and protocols compared: a panel a protocol, the quantity above, the paired difference to random below.

The axis is logarithmic in the share of the params that is kept. A criterion has one colour everywhere: kin
share it (magnitude and the l1 norm, sipp and pfp); weights have full markers and solid lines, neurons hollow markers
and dashed lines. The points of one stage stand a little apart, so that their error bars can be read. Control is left
out of the one-shot panel: what was not retrained is held against the dense network as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.compare.types import CONTROL, ONE_SHOT, RANDOM, REDUCED, Comparison
from analysis.plots.style import COLOURS, MARKERS, Arrays, render
from analysis.runs.records import DENSE
from analysis.tables.ticks import count_label
from sparseflows.specs.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RANDOM = "0.55"
_OTHER = COLOURS[4]
_KIN = tuple(dict.fromkeys(method.kin for method in METHODS.values() if method.kin != RANDOM))
_LEAST_KEPT = 1e-4
_FAR = 8.0  # from stage to stage: an axis that has to show so many times the smallest is logarithmic
_OFF_SCALE = 50.0  # times the median: beyond it a value is not drawn
_ROOM = {1: 0.085, 2: 0.11}  # of the axis, for the label of a tick, by panels side by side
_MORE_ROOM = 0.13
_MOST_TICKS = 7


def compare_arrays(comparison: Comparison) -> Arrays:
    """The points of the figure.

    Keys, one entry a stage that has a value: `protocol`, `method`, `stage`, `prune_ratio` (where it is drawn: the
    one reached; of control, the one asked of the pruned stage), `value`, `value_se` (NaN where there is none). Keys,
    one entry a difference to random: `random_protocol`, `random_method`, `random_stage`, `random_prune_ratio`,
    `random_difference` (above 0: better than random), `random_difference_se`, `random_pairs`. Scalars:
    `dataset`, `objective`, `label`, `unit`, `seeds` (how many).
    """
    stages = [one for one in comparison.stages if one.value is not None and one.prune_ratio is not None]
    differences = [one for one in comparison.differences if one.against == RANDOM]
    drawn = [
        1 - one.keep_ratio_target
        if one.protocol == CONTROL and one.keep_ratio_target is not None
        else one.prune_ratio.value
        for one in stages
        if one.prune_ratio is not None
    ]
    arrays = _columns("", stages) | {
        "prune_ratio": np.array(drawn, dtype=np.float64),
        "value": np.array([one.value.value for one in stages if one.value], dtype=np.float64),
        "value_se": np.array([_error(one.value.se) for one in stages if one.value], dtype=np.float64),
    }
    arrays |= _columns("random_", differences) | {
        "random_prune_ratio": np.array([one.prune_ratio for one in differences], dtype=np.float64),
        "random_difference": np.array([one.difference.value for one in differences], dtype=np.float64),
        "random_difference_se": np.array([_error(one.difference.se) for one in differences], dtype=np.float64),
        "random_pairs": np.array([one.pairs for one in differences], dtype=np.int64),
    }
    quantity = comparison.quantity
    scalars = {"label": quantity.label, "unit": quantity.unit, "seeds": len(comparison.seeds)}
    scalars |= {"dataset": comparison.dataset, "objective": comparison.objective}
    return arrays | {name: np.array(value) for name, value in scalars.items()}


def compare_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The figure as files: `png`, `pdf`, and the points as `npz`.

    Raises:
        ValueError: no pruned stage has a value.
    """
    pruned = (arrays["method"] != DENSE) & ~np.isin(arrays["protocol"], (CONTROL, REDUCED))
    protocols = list(dict.fromkeys(arrays["protocol"][pruned].tolist()))
    if not protocols:
        raise ValueError("no pruned stage has a value; there is nothing to draw")
    columns = len(protocols) if len(protocols) <= 4 else 3
    blocks = -(-len(protocols) // columns)
    rows = 2 if arrays["random_difference"].size else 1
    shown, off = _on_scale(arrays)

    def draw(figure: Figure) -> None:
        handles: dict[str, Any] = {}
        for place, protocol in enumerate(protocols):
            block, column = divmod(place, columns)
            for row in range(rows):
                axes = figure.add_subplot(blocks * rows, columns, (block * rows + row) * columns + column + 1)
                (_differences if row else _values)(axes, shown, protocol, handles)
                _ratio_axis(axes, arrays, protocol, _ROOM.get(columns, _MORE_ROOM))
                if row == 0:
                    axes.set_title(protocol, fontsize=10.5, loc="left")
                if row == rows - 1:
                    axes.set_xlabel("prune ratio")
                if column == 0:
                    axes.set_ylabel(_y_label(arrays, row))
        title = f"{arrays['dataset']} ({arrays['objective']}), {_error_bars(arrays)}"
        title += f"; {off} off the scale, see compare.txt" if off else ""
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=max(3, columns + 1), title=title)

    names = len(set(arrays["method"].tolist())) + 2
    legend = 0.35 + 0.19 * -(-names // max(3, columns + 1))
    return render(draw, arrays, ({1: 5.4, 2: 7.6, 3: 10.2, 4: 13.0}[columns], 2.5 * rows * blocks + 0.3 + legend))


def _on_scale(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """The arrays without what would squeeze all else: values far beyond the usual, as where a path runs off."""
    shown, off = dict(arrays), 0
    for name in ("value", "random_difference"):
        values = np.abs(arrays[name])
        if values.size:
            far = values > _OFF_SCALE * np.median(values)
            entries = [
                key for key, array in arrays.items() if array.ndim and key.startswith("random_") == (name != "value")
            ]
            shown |= {key: arrays[key][~far] for key in entries}
            off += int(far.sum())
    return shown, off


def looks(method: str) -> tuple[str, str, str]:
    """Colour, marker and line style of a criterion, the same in every panel and every figure."""
    entry = METHODS.get(method)
    line = "--" if entry is not None and entry.kind == "neurons" else "-"
    if entry is None or entry.kin == RANDOM:
        return *((_OTHER, "*") if entry is None else (_RANDOM, "X")), line
    colours = [colour for colour in COLOURS if colour != _OTHER]
    relatives = list(dict.fromkeys((one.criterion, one.choice) for one in METHODS.values() if one.kin == entry.kin))
    place = relatives.index((entry.criterion, entry.choice))
    return colours[_KIN.index(entry.kin) % len(colours)], MARKERS[place % len(MARKERS)], line


def _columns(prefix: str, items: Sequence[Any]) -> Arrays:
    return {
        f"{prefix}protocol": np.array([one.protocol for one in items], dtype=str),
        f"{prefix}method": np.array([one.method for one in items], dtype=str),
        f"{prefix}stage": np.array([one.stage for one in items], dtype=np.int64),
    }


def _error(se: float | None) -> float:
    return float("nan") if se is None else se


def _values(axes: Axes, arrays: Mapping[str, np.ndarray], protocol: str, handles: dict[str, Any]) -> None:
    here = (arrays["protocol"] == protocol) & (arrays["method"] != DENSE)
    methods = list(dict.fromkeys(arrays["method"][here].tolist()))
    for place, method in enumerate(methods):
        points = here & (arrays["method"] == method)
        handles[f" {method}"] = _line(axes, arrays, points, looks(method), _shift(place, len(methods)))
    if np.isin(arrays["protocol"], (CONTROL, REDUCED)).any():
        for name, style in ((CONTROL, ("black", "_", "--")), (REDUCED, ("0.35", "|", ":"))):
            points = arrays["protocol"] == name
            if points.any() and (name, protocol) != (CONTROL, ONE_SHOT):
                handles[f" {name} (dense)"] = _line(axes, arrays, points, style, 1.0)
    dense = (arrays["method"] == DENSE) & ~np.isin(arrays["protocol"], (CONTROL, REDUCED))
    if dense.any():
        level = float(arrays["value"][dense][0])
        handles[" dense"] = axes.axhline(level, color="black", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    if str(arrays["unit"]) == "nats":
        _far_apart(axes, arrays["stage"][here], arrays["value"][here], arrays["value_se"][here])


def _differences(axes: Axes, arrays: Mapping[str, np.ndarray], protocol: str, handles: dict[str, Any]) -> None:
    here = arrays["random_protocol"] == protocol
    if not here.any():
        axes.text(0.5, 0.5, "no random pruning", transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
        axes.set_axis_off()
        return
    axes.axhline(0.0, color=_RANDOM, linewidth=1.0, zorder=1.5)
    renamed = {
        "prune_ratio": arrays["random_prune_ratio"],
        "value": arrays["random_difference"],
        "value_se": arrays["random_difference_se"],
    }
    methods = list(dict.fromkeys(arrays["random_method"][here].tolist()))
    for place, method in enumerate(methods):
        points = here & (arrays["random_method"] == method)
        _line(axes, renamed, points, looks(method), _shift(place, len(methods)))
    names = ("random_stage", "random_difference", "random_difference_se")
    _far_apart(axes, *(arrays[name][here] for name in names))


def _line(
    axes: Axes, arrays: Mapping[str, np.ndarray], points: np.ndarray, look: tuple[str, str, str], shift: float
) -> Any:
    colour, marker, style = look
    order = np.flatnonzero(points)[np.argsort(arrays["prune_ratio"][points], kind="stable")]
    kept, value, se = _kept(arrays["prune_ratio"][order]) * shift, arrays["value"][order], arrays["value_se"][order]
    known = np.isfinite(se)
    axes.errorbar(
        kept[known], value[known], yerr=se[known], fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5, zorder=2.5
    )
    (line,) = axes.plot(kept, value, color=colour, marker=marker, linestyle=style, linewidth=1.3, zorder=3)
    hollow, stroke = style == "--" and marker not in "_|", marker in "_|"
    line.set(markeredgecolor=colour if hollow or stroke else "white", markeredgewidth=1.2 if hollow or stroke else 0.5)
    if hollow:
        line.set_markerfacecolor("white")
    return line


def _shift(place: int, count: int) -> float:
    return float(1.02 ** (place - (count - 1) / 2))


def _far_apart(axes: Axes, stages: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    """A logarithmic axis where the stages differ too much for a linear one.

    Where something reaches zero or below, it is linear up to half of the smallest stage's values, or up to what the
    errors can tell.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    largest = np.array([np.abs(values[stages == stage]).max() for stage in np.unique(stages)])
    if largest.max() <= _FAR * largest.min():
        return
    low, high = (float(end) for end in axes.dataLim.intervaly)
    linear = max(largest.min() / 2, float(np.nanmedian(errors)) if np.isfinite(errors).any() else 0.0)
    linear = low if low > 0 else max(linear, 1e-3 * largest.max())
    if low > 0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        axes.set_ylim(min(1.3 * low, -0.2 * linear), max(1.3 * high, 0.2 * linear))
    bottom, top = axes.get_ylim()
    ticks = _round_numbers(linear, max(top, -bottom))
    shown = [tick for tick in (*(-tick for tick in ticks), 0.0, *ticks) if bottom <= tick <= top]
    axes.yaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "-" * bool(value < 0) + count_label(abs(value))))
    axes.yaxis.set_minor_locator(NullLocator())


def _round_numbers(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**power for power in powers for m in (1, 2, 5) if low <= m * 10.0**power <= high]
    return ticks if len(ticks) <= _MOST_TICKS else [tick for tick in ticks if round(math.log10(tick), 6).is_integer()]


def _kept(prune_ratio: np.ndarray) -> np.ndarray:
    return np.maximum(1 - prune_ratio, _LEAST_KEPT)


def _ratio_axis(axes: Axes, arrays: Mapping[str, np.ndarray], protocol: str, room: float) -> None:
    """Ticks at the prune ratios themselves, those that would overlap left out; pruned more is further right."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    here = (arrays["protocol"] == protocol) & (arrays["method"] != DENSE)
    kept = _kept(np.unique(np.round(arrays["prune_ratio"][here], 3)))[::-1]
    margin = max(1.12, (kept.max() / kept.min()) ** 0.09)
    low, high = kept.min() / margin, kept.max() * margin
    ticks: list[float] = []
    for tick in kept:  # the most pruned first: that one is named
        if not ticks or np.log(tick / ticks[-1]) >= room * np.log(high / low):
            ticks.append(float(tick))
    axes.set_xscale("log")
    axes.set_xlim(high, low)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * (1 - tick):.3g} %" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="y", color="0.92", linewidth=0.7)
    axes.set_axisbelow(True)


def _y_label(arrays: Mapping[str, np.ndarray], row: int) -> str:
    if row:
        return f"better than random\nby ({arrays['unit']})"
    unit = "%" if str(arrays["unit"]) == "points" else arrays["unit"]
    return f"{arrays['label']} ({unit})"


def _error_bars(arrays: Mapping[str, np.ndarray]) -> str:
    seeds = int(arrays["seeds"])
    return f"± s.e. over {seeds} seeds" if seeds > 1 else "1 seed"
