"""Criteria and protocols compared: a panel a protocol, the quantity above, the paired difference to random below.

A criterion has one look everywhere, see `looks`. The points of one stage stand a little apart, so that their error
bars can be read. Control is left out of the one-shot panel: what was not retrained is held against the dense network as
it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.compare.types import RANDOM, Comparison
from analysis.plots.axes import draw_means, kept, ratio_axis, spread_axis
from analysis.plots.looks import Look, look
from analysis.plots.style import Arrays, columns, render
from analysis.runs.records import DENSE
from sparseflows.specs.choices import CONTROL, ONE_SHOT, REDUCED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DENSE_LOOKS = {CONTROL: Look("black", "_", "--"), REDUCED: Look("0.35", "|", ":")}
_DENSE_LINE = Look("black", "", (0, (1, 2)))
_OFF_SCALE = 50.0  # times the median: beyond it a value is not drawn
_ROOM = {1: 0.085, 2: 0.11}  # of the axis, for the label of a tick, by panels side by side
_MORE_ROOM = 0.13


def compare_arrays(comparison: Comparison) -> Arrays:
    """The points of the figure.

    Keys, one entry a stage that has a value: `protocol`, `method`, `stage`, `prune_ratio` (where it is drawn: the
    one reached; of control, the one asked of the pruned stage), `value`, `value_se` (NaN where there is none). Keys,
    one entry a difference to random: `random_protocol`, `random_method`, `random_stage`, `random_prune_ratio`,
    `random_difference` (above 0: better than random), `random_difference_se`, `random_pairs`. Scalars:
    `dataset`, `objective`, `label`, `unit`, `seeds` (how many).
    """
    stages = []
    for one in comparison.stages:
        if one.value is not None and one.prune_ratio is not None:
            asked = one.keep_ratio_target if one.protocol == CONTROL else None
            ratio = one.prune_ratio.value if asked is None else 1 - asked
            stages.append((one.protocol, one.method, one.stage, ratio, one.value.value, one.value.se))
    differences = [
        (one.protocol, one.method, one.stage, one.prune_ratio, one.difference.value, one.difference.se, one.pairs)
        for one in comparison.differences
        if one.against == RANDOM
    ]
    names = {str: ("protocol", "method"), int: ("stage",)}
    of_random = {kind: tuple(f"random_{name}" for name in several) for kind, several in names.items()}
    numbers = ("random_prune_ratio", "random_difference", "random_difference_se", "random_pairs")
    arrays = columns(names | {float: ("prune_ratio", "value", "value_se")}, stages)
    arrays |= columns(of_random | {float: numbers}, differences)
    arrays["random_pairs"] = arrays["random_pairs"].astype(int)
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
    across = len(protocols) if len(protocols) <= 4 else 3
    blocks = -(-len(protocols) // across)
    rows = 2 if arrays["random_difference"].size else 1
    shown, off = _on_scale(arrays)
    seeds = int(arrays["seeds"])
    title = f"{arrays['dataset']} ({arrays['objective']}), {f'± s.e. over {seeds} seeds' if seeds > 1 else '1 seed'}"
    title += f"; {off} off the scale, see compare.txt" if off else ""

    def draw(figure: Figure) -> None:
        used: dict[str, Look] = {}
        for place, protocol in enumerate(protocols):
            block, column = divmod(place, across)
            for row in range(rows):
                axes = figure.add_subplot(blocks * rows, across, (block * rows + row) * across + column + 1)
                here = (arrays["protocol"] == protocol) & (arrays["method"] != DENSE)
                used |= (_differences if row else _values)(axes, shown, protocol)
                ratio_axis(axes, arrays["prune_ratio"][here], _ROOM.get(across, _MORE_ROOM))
                axes.tick_params(axis="x", labelsize=9)
                axes.set_xlabel("prune ratio" if row == rows - 1 else "")
                if row == 0:
                    axes.set_title(protocol)
                if column == 0:
                    axes.set_ylabel(_y_label(arrays, row))
        handles = [one.handle(name) for name, one in used.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=max(3, across + 1), title=title)

    names = len(set(arrays["method"].tolist())) + 2
    legend = 0.35 + 0.19 * -(-names // max(3, across + 1))
    size = ({1: 5.4, 2: 7.6, 3: 10.2, 4: 13.0}[across], 2.5 * rows * blocks + 0.3 + legend)
    return render(draw, arrays, size, chart=True)


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


def _values(axes: Axes, arrays: Mapping[str, np.ndarray], protocol: str) -> dict[str, Look]:
    """The upper panel of one protocol; the looks of its lines, by their names in the legend."""
    names = ("prune_ratio", "value", "value_se")
    of_dense = np.isin(arrays["protocol"], (CONTROL, REDUCED))
    here = (arrays["protocol"] == protocol) & (arrays["method"] != DENSE)
    used = _lines(axes, arrays, here, ("method", *names))
    for name, style in _DENSE_LOOKS.items():
        points = arrays["protocol"] == name
        if points.any() and (name, protocol) != (CONTROL, ONE_SHOT):
            x, values, errors = (arrays[key][points] for key in names)
            draw_means(axes, kept(x), values, errors, style)
            used[f"{name} (dense)"] = style
    dense = (arrays["method"] == DENSE) & ~of_dense
    if dense.any():
        level = float(arrays["value"][dense][0])
        axes.axhline(level, color="black", linewidth=0.8, linestyle=_DENSE_LINE.line, zorder=1.5)
        used[DENSE] = _DENSE_LINE
    if str(arrays["unit"]) == "nats":
        spread_axis(axes, arrays["stage"][here], arrays["value"][here], arrays["value_se"][here])
    return used


def _differences(axes: Axes, arrays: Mapping[str, np.ndarray], protocol: str) -> dict[str, Look]:
    """The lower panel of one protocol; likewise."""
    here = arrays["random_protocol"] == protocol
    if not here.any():
        axes.text(0.5, 0.5, "no random pruning", transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
        axes.set_axis_off()
        return {}
    axes.axhline(0.0, color=look("random_weights").colour, linewidth=1.0, zorder=1.5)
    names = ("random_difference", "random_difference_se")
    used = _lines(axes, arrays, here, ("random_method", "random_prune_ratio", *names))
    spread_axis(axes, *(arrays[name][here] for name in ("random_stage", *names)))
    return used


def _lines(axes: Axes, arrays: Mapping[str, np.ndarray], here: np.ndarray, names: tuple[str, ...]) -> dict[str, Look]:
    methods, ratios, values, errors = (arrays[name][here] for name in names)
    found = list(dict.fromkeys(methods.tolist()))
    for place, method in enumerate(found):
        points = methods == method
        apart = 1.02 ** (place - (len(found) - 1) / 2)
        draw_means(axes, kept(ratios[points]) * apart, values[points], errors[points], look(method))
    return {method: look(method) for method in found}


def _y_label(arrays: Mapping[str, np.ndarray], row: int) -> str:
    if row:
        return f"better than random\nby ({arrays['unit']})"
    unit = "%" if str(arrays["unit"]) == "points" else arrays["unit"]
    return f"{arrays['label']} ({unit})"
