"""A vector field on the plane: stream lines, or arrows where cells are missing, on a colour map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparseflows.plot.axes import frame
from sparseflows.plot.windows import centres

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


Colour = Literal["divergence", "speed"]
LABELS: Mapping[str, str] = {
    "divergence": "divergence ∇·f\n(nats per unit of t)",
    "speed": "speed |f|\n(standardised units\nper unit of t)",
}
# Both are told apart under every common colour blindness; the first is white at 0.
MAPS: Mapping[str, str] = {"divergence": "RdBu_r", "speed": "cividis"}
LINES: Mapping[str, str] = {"divergence": "0.15", "speed": "white"}
ROBUST = 0.98  # of the values' magnitudes: the quantile that the scale is made from,
HEADROOM = 1.5  # times this, for the panels show what lies around the values as well
SMALLEST = 1e-5
STREAM_CELLS = 48  # stream lines are integrated on a grid this wide
SHORTEST = 0.06  # of the window: a stream line below it gets no arrowhead
NO_MEAN = "0.93"  # colour of a cell with too few rows


def draw_field(
    axes: Axes,
    velocity: np.ndarray,
    divergence: np.ndarray,
    extent: Sequence[float],
    colour: Colour,
    limits: tuple[float, float],
    density: float = 0.9,
    equal: bool = True,
) -> Any:
    """One panel; stream lines where the grid is whole, arrows where cells are missing. Returns the image.

    `velocity` (cells, cells, 2) is NaN where unknown; `extent` is left, right, bottom, top; `limits` are the ends of
    the scale of the colour, `density` is that of the stream lines; `equal` axes have one scale.
    """
    from matplotlib import colormaps

    values = divergence if colour == "divergence" else np.linalg.norm(velocity, axis=-1)
    projected = bool(np.isnan(values).any()) or len(values) < STREAM_CELLS
    palette = colormaps[MAPS[colour]].with_extremes(bad=NO_MEAN)
    image = axes.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        extent=(extent[0], extent[1], extent[2], extent[3]),
        cmap=palette,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest" if projected else "bilinear",
        rasterized=True,
    )
    (_arrows if projected else _stream_lines)(axes, velocity, extent, colour, density)
    frame(axes, extent, equal)
    return image


def colour_limits(groups: Sequence[np.ndarray], colour: Colour) -> tuple[float, float]:
    """One scale for the values (N,) of all panels: about 0 for the divergence, from 0 for the speed.

    Its end is half as much again as the 98 % quantile of a group's magnitudes, and of several groups the
    median's: a single stage that went wild does not take the colour from the others.
    """
    magnitudes = [np.abs(group[np.isfinite(group)]) for group in groups]
    tops = [float(np.quantile(one, ROBUST)) for one in magnitudes if one.size]
    top = HEADROOM * float(np.median(tops)) if tops else 0.0
    # A field that does not vary (a rotation has no divergence) would show its rounding.
    top = top if top > SMALLEST else 1.0
    return (-top, top) if colour == "divergence" else (0.0, top)


def colour_bar(figure: Figure | SubFigure, image: Any, axes: Any, colour: Colour, rows: int = 1) -> Any:
    """The scale of the field's colours, beside `axes`."""
    extend = "both" if colour == "divergence" else "max"
    shrink, aspect = (0.95, 16) if rows == 1 else (0.6, 30)
    bar = figure.colorbar(image, ax=axes, shrink=shrink, aspect=aspect, pad=0.012, extend=extend)
    bar.set_label(LABELS[colour], fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.6)
    return bar


def _stream_lines(axes: Axes, velocity: np.ndarray, extent: Sequence[float], colour: Colour, density: float) -> None:
    step = max(1, len(velocity) // STREAM_CELLS)
    x, y = (centres(low, high, len(velocity))[step // 2 :: step] for low, high in (extent[:2], extent[2:]))
    thin = velocity[step // 2 :: step, step // 2 :: step].astype(np.float64)
    # From cell to cell the steps are equal but for rounding, which streamplot would not forgive.
    x, y = np.linspace(x[0], x[-1], len(x)), np.linspace(y[0], y[-1], len(y))
    stream = axes.streamplot(x, y, thin[..., 0], thin[..., 1], density=density, color=LINES[colour], linewidth=0.55)
    # streamplot's own arrowheads are patches, which take three quarters of the time to lay out and to draw.
    for patch in list(axes.patches):
        patch.remove()
    stream.lines.set_alpha(0.85)
    stream.lines.set_in_layout(False)
    _heads(axes, stream.lines.get_segments(), extent, colour)


def _heads(axes: Axes, segments: Sequence[np.ndarray], extent: Sequence[float], colour: Colour) -> None:
    # One arrowhead in the middle of every stream line; a line is a run of segments that go on from each other.
    pieces = np.array([piece[[0, -1]] for piece in segments if len(piece) > 1]).reshape(-1, 2, 2)
    if not len(pieces):
        return
    starts = np.flatnonzero(np.append(True, np.any(pieces[1:, 0] != pieces[:-1, 1], axis=1))).tolist()
    size = np.array([extent[1] - extent[0], extent[3] - extent[2]])  # lengths and directions are those of the window
    lengths = np.linalg.norm((pieces[:, 1] - pieces[:, 0]) / size, axis=1)
    runs = zip(starts, [*starts[1:], len(pieces)], strict=True)
    chosen = pieces[[_middle(a, b, lengths) for a, b in runs if lengths[a:b].sum() > SHORTEST]]
    direction = (chosen[:, 1] - chosen[:, 0]) / size
    norm = np.linalg.norm(direction, axis=1, keepdims=True)
    direction = direction / np.where(norm > 0, norm, 1) * size / 1000
    head: Any = {"width": 0.0035, "headwidth": 7, "headlength": 8, "headaxislength": 7}
    dots: Any = {"scale": 1, "minshaft": 0.01, "minlength": 0, "pivot": "mid", "zorder": 2.5}
    heads = _quiver(axes, chosen.mean(1).T, direction.T, colour, **dots, **head)
    heads.set_in_layout(False)


def _quiver(axes: Axes, points: np.ndarray, vectors: np.ndarray, colour: Colour, **look: Any) -> Any:
    return axes.quiver(*points, *vectors, color=LINES[colour], angles="xy", scale_units="xy", **look)


def _middle(first: int, last: int, lengths: np.ndarray) -> int:
    run = np.cumsum(lengths[first:last])
    return first + int(np.searchsorted(run, run[-1] / 2))


def _arrows(axes: Axes, velocity: np.ndarray, extent: Sequence[float], colour: Colour, density: float) -> None:
    x, y = (centres(low, high, len(velocity)) for low, high in (extent[:2], extent[2:]))
    known = np.isfinite(velocity[..., 0])
    row, column = np.nonzero(known)
    if not known.any():
        return
    speed = np.linalg.norm(velocity[known], axis=-1)
    # The longest arrows, a few outliers apart, are as long as two cells are wide.
    scale = float(np.quantile(speed, 0.95)) / (2 * (extent[1] - extent[0]) / len(velocity)) or 1.0
    head = {"width": 0.009, "headwidth": 3.6, "headlength": 4, "headaxislength": 3.6}
    _quiver(axes, np.stack([x[column], y[row]]), velocity[known].T, colour, scale=scale, **head)
