"""Classifiers of a plane by prune ratio, a row of panels a method: decision boundaries, and paths to the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.plots.fields.plane import PLANE, Panel, label_axes
from analysis.plots.style import Arrays, render
from sparseflows.plot.axes import frame
from sparseflows.plot.paths import draw_paths
from sparseflows.plot.style import COLOURS, key
from sparseflows.plot.windows import centres, square_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 1.85
_STRENGTH = 0.75  # of a class's colour where its probability is 1
_UNKNOWN = 0.8  # grey of the cells that could not be solved


class Row(NamedTuple):
    """One method: its name, and its panels, dense first, with the arrays of `analysis.classifiers.plane.plane`."""

    label: str
    panels: Sequence[Panel]


def boundary_figure(rows: Sequence[Row], title: str) -> dict[str, bytes]:
    """Class probabilities, the decision boundary and test points, the wrong ones framed: png, pdf, npz.

    A cell has the colour of its likeliest class, the paler the less likely that is: white where two are even.
    """

    def draw(figure: Figure) -> None:
        for axes, panel in _grid(figure, rows, ("z₁", "z₂")):
            _draw_map(axes, panel.arrays)
        classes = rows[0].panels[0].arrays["probabilities"].shape[-1]
        figure.legend(handles=_classes(classes, points=True), loc="outside lower center", ncols=classes + 2)
        figure.suptitle(f"{title}\nclass probabilities by prune ratio; black: the decision boundary", fontsize=10)

    return render(draw, _saved(rows, ("map_extent", "probabilities", "points", "labels", "logits")), _size(rows))


def trajectories_figure(rows: Sequence[Row], title: str) -> dict[str, bytes]:
    """Paths of test points from where they are to their logits, in the state plane, by class: png, pdf, npz."""
    reached = np.concatenate([panel.arrays["paths"].reshape(-1, 2) for row in rows for panel in row.panels])
    extent = square_window(reached, 0.06)

    def draw(figure: Figure) -> None:
        for axes, panel in _grid(figure, rows, ("z₁, logit 0", "z₂, logit 1")):
            _draw_paths(axes, panel.arrays, extent)
        figure.legend(handles=_classes(2, points=False), loc="outside lower center", ncols=5)
        said = "paths of test points to their logits, coloured by class; dashed: logit 0 = logit 1"
        figure.suptitle(f"{title}\n{said}", fontsize=10)

    saved = _saved(rows, ("paths", "paths_clock", "labels", "logits"))
    return render(draw, saved | {"paths_extent": np.array(extent)}, _size(rows))


def map_colours(probabilities: np.ndarray) -> np.ndarray:
    """Colours (…, 3) of class probabilities (…, classes): white where all are even, full where one is 1."""
    classes = probabilities.shape[-1]
    unknown = np.isnan(probabilities).any(-1)
    known = np.where(unknown[..., None], 1 / classes, probabilities)
    share = (known.max(-1) - 1 / classes) / (1 - 1 / classes)
    full = np.array([_rgb(number) for number in range(classes)])[known.argmax(-1)]
    colours = 1 + (_STRENGTH * share)[..., None] * (full - 1)
    colours[unknown] = _UNKNOWN
    return np.asarray(colours)


def _rgb(number: int) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(COLOURS[number % len(COLOURS)])


def _grid(figure: Figure, rows: Sequence[Row], names: tuple[str, str]) -> list[tuple[Axes, Panel]]:
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.06)
    across = max(len(row.panels) for row in rows)
    grid = figure.subplots(len(rows), across, squeeze=False)
    drawn = []
    for number, row in enumerate(rows):
        for place, axes in enumerate(grid[number]):
            if place >= len(row.panels):
                axes.set_axis_off()
                continue
            axes.set_title(row.panels[place].title, fontsize=8, linespacing=1.3)
            frame(axes)
            label_axes(axes, PLANE, place == 0, number == len(rows) - 1)
            if place == 0:
                axes.set_ylabel(f"{row.label}\n{names[1]}", fontsize=8.5, linespacing=1.5)
            if number == len(rows) - 1:
                axes.set_xlabel(names[0], fontsize=8.5)
            drawn.append((axes, row.panels[place]))
    return drawn


def _size(rows: Sequence[Row]) -> tuple[float, float]:
    across = max(len(row.panels) for row in rows)
    return max(5.2, INCHES * across + 0.6), (INCHES + 0.35) * len(rows) + 1.2


def _draw_map(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    extent, probabilities = tuple(arrays["map_extent"].tolist()), arrays["probabilities"]
    axes.imshow(map_colours(probabilities), extent=extent, origin="lower", interpolation="nearest", zorder=0)
    side = probabilities.shape[0]
    axis_x, axis_y = (centres(low, high, side) for low, high in (extent[:2], extent[2:]))
    for ahead in _ahead(probabilities):
        if np.nanmin(ahead) < 0 < np.nanmax(ahead):
            axes.contour(axis_x, axis_y, ahead, levels=[0.0], colors="black", linewidths=0.9, zorder=2)
    points, labels = arrays["points"], arrays["labels"]
    wrong = arrays["logits"].argmax(1) != labels
    colours = np.array([_rgb(label) for label in labels])
    for those, edge, width, size, depth in ((~wrong, "white", 0.3, 7, 3), (wrong, "black", 0.9, 13, 4)):
        look: Any = {"c": colours[those], "s": size, "edgecolors": edge, "linewidths": width, "zorder": depth}
        axes.scatter(points[those, 0], points[those, 1], **look)
    axes.set(xlim=extent[:2], ylim=extent[2:])


def _ahead(probabilities: np.ndarray) -> list[np.ndarray]:
    """For each class (of two: for one) by how much it is likelier than all others: 0 along its boundary."""
    classes = probabilities.shape[-1]
    return [
        probabilities[..., number] - np.delete(probabilities, number, axis=-1).max(-1)
        for number in (range(classes) if classes > 2 else (1,))
    ]


def _draw_paths(axes: Axes, arrays: Mapping[str, np.ndarray], extent: tuple[float, float, float, float]) -> None:
    paths = arrays["paths"]
    colours = np.array([_rgb(label) for label in arrays["labels"][: paths.shape[1]]])
    left, right, bottom, top = extent
    ends = np.array([min(left, bottom), max(right, top)])
    for number, edge in ((1, max(right, top)), (0, min(left, bottom))):
        axes.fill_between(ends, ends, edge, color=_rgb(number), alpha=0.08, linewidth=0, zorder=0)
    axes.plot(ends, ends, color="0.25", linewidth=0.8, linestyle="--", zorder=1)
    draw_paths(axes, paths, colours, extent, size=6)


def _classes(classes: int, points: bool) -> list[Any]:
    look: Any = {"linestyle": "none", "marker": "o", "markersize": 5}
    full: Any = {"markeredgecolor": "white", "markeredgewidth": 0.3, **look}
    handles = [key(f"class {number}", color=_rgb(number), **full) for number in range(classes)]
    grey: Any = {"markeredgewidth": 1.0, **look}
    if points:
        return [*handles, key("classified wrong", color="0.75", markeredgecolor="black", **grey)]
    hollow = key("test point, z(0)", markerfacecolor="white", markeredgecolor="0.3", **grey)
    return [*handles, hollow, key("its logits, z(T)", color="0.3", markeredgecolor="white", **grey)]


def _saved(rows: Sequence[Row], names: Sequence[str]) -> Arrays:
    panels = [(row.label, panel) for row in rows for panel in row.panels]
    titles = {
        "row": np.array([label for label, _ in panels]),
        "stage": np.array([panel.title.replace("\n", ", ") for _, panel in panels]),
    }
    return titles | {name: np.stack([panel.arrays[name] for _, panel in panels]) for name in names}
