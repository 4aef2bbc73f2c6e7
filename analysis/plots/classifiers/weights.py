"""Histograms of weights and of the norms of neurons by sparsity: a few of them side by side, and all as an animation.

Counts are on a logarithmic axis, one outline a layer; a grey one behind them is the dense network, all layers
together. Bins and axes are the same everywhere, so that frames and panels can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.axes import log_axis
from analysis.plots.gif import animate
from analysis.plots.style import render
from analysis.plots.ticks import decades
from analysis.runs.groups import evenly
from sparseflows.plot.style import COLOURS, key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STILLS = 4  # sparsities in the figure: dense, and so many others less one
SECONDS, LAST_SECONDS = 1.0, 2.5
_KINDS = ("weight", "norm")
_BLENDS = 6
_LOWEST = 0.7  # of the counts' axis: a count of 1 stands on it


def weights_figure(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, bytes]:
    """A few sparsities of each sweep side by side, weights above, the norms of neurons below: png, pdf, npz.

    The arrays are those of `analysis.classifiers.weights.histograms`, all stages of a few sweeps.
    """
    sweeps = _sweeps(arrays)
    rows = [[first, *(others[place] for place in evenly(len(others), STILLS - 1))] for first, *others in sweeps]
    kinds = _shown_kinds(arrays)
    across = max(len(row) for row in rows)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows) * len(kinds), across, squeeze=False)
        for number, places in enumerate(rows):
            for line, kind in enumerate(kinds):
                for column, axes in enumerate(grid[number * len(kinds) + line]):
                    if column >= len(places):
                        axes.set_axis_off()
                        continue
                    _panel(axes, arrays, kind, places[column], places[0])
                    axes.tick_params(labelleft=column == 0)
                    if line == 0:
                        axes.set_title(_still_title(arrays, places[column]), fontsize=8.5, linespacing=1.3)
                    if column == 0:
                        what = "weights" if kind == "weight" else "neurons"
                        axes.set_ylabel(f"{arrays['sweep'][places[0]]}\n{what}", fontsize=8.5)
        _legend(figure, arrays)
        figure.suptitle(title, fontsize=10)

    return render(draw, arrays, (max(5.2, 2.2 * across + 0.7), 1.9 * len(rows) * len(kinds) + 0.9))


def weights_animation(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """All sparsities as a GIF, a row of panels a sweep, dense first, for ever; equal arrays give equal bytes.

    A sweep with fewer stages than another rests on its last one.
    """
    sweeps, kinds = _sweeps(arrays), _shown_kinds(arrays)

    def draw(figure: Figure) -> Callable[[int], None]:
        grid = figure.subplots(len(sweeps), len(kinds), squeeze=False)
        drawn = [
            (places, kind, _panel(axes, arrays, kind, places[0], places[0]), axes)
            for places, row in zip(sweeps, grid, strict=True)
            for kind, axes in zip(kinds, row, strict=True)
        ]
        for axes in grid[:, 0]:
            axes.set_ylabel("count", fontsize=8.5)
        _legend(figure, arrays)
        figure.suptitle(title, fontsize=10)

        def show(number: int) -> None:
            for places, kind, outlines, axes in drawn:
                place = places[min(number, len(places) - 1)]
                for outline, counts in zip(outlines, arrays[f"{kind}_counts"][place], strict=True):
                    outline.set_data(np.maximum(counts, _LOWEST))
                axes.set_title(_frame_title(arrays, place, kind), fontsize=9)

        return show

    seconds = [SECONDS] * (max(map(len, sweeps)) - 1) + [LAST_SECONDS]
    return animate(draw, (3.9 * len(kinds) + 0.4, 2.5 * len(sweeps) + 0.9), seconds, _colours())


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], kind: str, place: int, dense: int) -> list[Any]:
    """One histogram, and the dense network's behind it; the layers' outlines."""
    edges, counts = arrays[f"{kind}_edges"], arrays[f"{kind}_counts"]
    axes.stairs(np.maximum(counts[dense].sum(0), _LOWEST), edges, baseline=_LOWEST, color="0.88", fill=True, zorder=1)
    shown = np.maximum(counts[place], _LOWEST)
    outlines = [
        axes.stairs(layer, edges, baseline=_LOWEST, color=_colour(number), linewidth=1.1, zorder=2 + number)
        for number, layer in enumerate(shown)
    ]
    top = 1.6 * max(2, counts.sum(1).max())
    log_axis(axes.yaxis, decades(1, top, (1, 2, 5) if top < 40 else (1,)))
    axes.set_ylim(_LOWEST, top)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("weight" if kind == "weight" else "l1 norm of a neuron", fontsize=8.5)
    axes.tick_params(labelsize=8, length=2.5)
    return outlines


def _sweeps(arrays: Mapping[str, np.ndarray]) -> list[list[int]]:
    """The places of each sweep's stages in the arrays."""
    labels = arrays["sweep"].tolist()
    return [[place for place, one in enumerate(labels) if one == label] for label in dict.fromkeys(labels)]


def _shown_kinds(arrays: Mapping[str, np.ndarray]) -> list[str]:
    # A network of a single layer has no neurons that could go.
    return [kind for kind in _KINDS if arrays[f"{kind}_counts"].shape[1]]


def _still_title(arrays: Mapping[str, np.ndarray], place: int) -> str:
    accuracy = arrays["accuracy"][place]
    return _ratio(arrays, place) + (f", accuracy {100 * accuracy:.1f} %" if np.isfinite(accuracy) else "")


def _frame_title(arrays: Mapping[str, np.ndarray], place: int, kind: str) -> str:
    left = f"{arrays[f'{kind}_counts'][place].sum():,} {'weights' if kind == 'weight' else 'neurons'}"
    if kind == "norm":
        return left
    return f"{arrays['sweep'][place]}, {_ratio(arrays, place)}: {left}"


def _ratio(arrays: Mapping[str, np.ndarray], place: int) -> str:
    return "dense" if arrays["stage"][place] == 0 else f"PR {100 * arrays['prune_ratio'][place]:.3g} %"


def _colour(layer: int) -> str:
    return COLOURS[layer % len(COLOURS)]


def _legend(figure: Figure, arrays: Mapping[str, np.ndarray]) -> None:
    from matplotlib.patches import Patch

    layers = arrays["layers"].tolist()
    handles: list[Any] = [Patch(color="0.88", label="dense network, all layers")]
    handles += [key(name, color=_colour(number)) for number, name in enumerate(layers)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)


def _colours() -> np.ndarray:
    # The layers' colours and their blends with white and with the dense grey.
    from matplotlib.colors import to_rgb

    full = np.array([to_rgb(colour) for colour in COLOURS])
    shares = np.linspace(0, 1, _BLENDS, endpoint=False)
    return np.concatenate([full + (ground - full) * share for ground in (1.0, 0.88) for share in shares])
