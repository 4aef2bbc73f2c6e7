"""The vector field of `analysis.fields.arrays`: stream lines, or arrows of its projection, on a colour map."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.fields.projection import centres
from analysis.plots.fields.plane import frame, heading, label_axes, pair_of
from analysis.plots.style import render, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
PANEL_INCHES = 2.2
PREVIEW_DPI, ARROWS = 110, 16  # a side: arrows on a coarse grid show what stream lines do, in a tenth of the time
NO_MEAN = "0.93"  # colour of a cell with too few rows


def field_figure(arrays: Mapping[str, np.ndarray], title: str, colour: Colour) -> dict[str, bytes]:
    """The field of one stage at its times, a block a row (a pair and block, for more than two columns): png, pdf, npz.

    `colour` says what the colour shows, on one scale for all panels.
    """
    used = ("block", "time", "end_time", "columns", "field_extent", "velocity", "divergence")

    def draw(figure: Figure) -> None:
        draw_moments(figure, arrays, colour)
        heading(figure, title, _convention(arrays))

    return render(draw, {name: arrays[name] for name in used}, size_of(arrays))


def preview_figure(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """A PNG of `analysis.fields.arrays.preview_arrays`: arrows, a block a row; the colour is the divergence."""
    with theme():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_of(arrays), dpi=PREVIEW_DPI, layout="constrained")
        draw_moments(figure, arrays, "divergence", _coarse)
        heading(figure, title, "the field f(t, z), from data to noise; sampling follows it backwards")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def size_of(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Width and height (inches) of a figure with all moments."""
    lines = _lines(arrays)
    return PANEL_INCHES * len(lines[0][1]) + 1.3, (PANEL_INCHES + 0.3) * len(lines) + 0.85


def field_of(arrays: Mapping[str, np.ndarray], number: int, moment: int) -> tuple[np.ndarray, np.ndarray]:
    """Velocity (cells, cells, 2) and divergence (cells, cells) in the `number`-th pair of columns at a moment."""
    place = moment if pair_of(arrays, number) is None else (number, moment)
    return arrays["velocity"][place], arrays["divergence"][place]


def when(arrays: Mapping[str, np.ndarray], moment: int) -> str:
    """What stands above a moment's panel: block (of several), t, and which end of the flow it is."""
    block, time, blocks = int(arrays["block"][moment]), float(arrays["time"][moment]), int(arrays["block"].max())
    ends = {(blocks, float(arrays["end_time"][-1])): " (noise)", (1, 0.0): " (data)"}
    return f"{f'block {block}, ' if blocks > 1 else ''}t = {time:.3g}{ends.get((block, time), '')}"


def draw_field(
    axes: Axes,
    velocity: np.ndarray,
    divergence: np.ndarray,
    extent: Sequence[float],
    colour: Colour,
    limits: tuple[float, float],
    density: float = 0.9,
) -> Any:
    """One panel; stream lines where the grid is whole, arrows where cells are missing. Returns the image.

    `velocity` (cells, cells, 2) is NaN where unknown; `extent` is left, right, bottom, top; `limits` are the ends of
    the scale of the colour, `density` is that of the stream lines.
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
    frame(axes, extent)
    return image


def draw_moments(
    figure: Figure, arrays: Mapping[str, np.ndarray], colour: Colour, draw: Callable[..., Any] = draw_field
) -> None:
    """Every moment on one colour scale; `draw` makes a panel, as `draw_field` does."""
    lines, several_blocks = _lines(arrays), arrays["block"].max() > 1
    limits = colour_limits([scale_values(arrays, colour)], colour)
    grid = figure.subplots(len(lines), len(lines[0][1]), sharex="row", sharey="row", squeeze=False)
    image = None
    for row, (number, moments) in enumerate(lines):
        pair, extent = pair_of(arrays, number), np.atleast_2d(arrays["field_extent"])[number].tolist()
        for column, (axes, moment) in enumerate(zip(grid[row], moments, strict=True)):
            image = draw(axes, *field_of(arrays, number, moment), extent, colour, limits)
            if row == 0 or several_blocks:
                axes.set_title(when(arrays, moment), fontsize=9.5)
            label_axes(axes, pair, column == 0, row == len(lines) - 1 or pair is not None)
    colour_bar(figure, image, grid, colour, len(lines))


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


def scale_values(arrays: Mapping[str, np.ndarray], colour: Colour, moment: int | slice = slice(None)) -> np.ndarray:
    """The numbers (N,) that set the colour scale of some moments: those at the samples then, or the cells with rows.

    Not those of a whole grid: its corners, where no path goes, may be thousands of times as strong.
    """
    if f"sample_{colour}" in arrays:
        return np.ravel(arrays[f"sample_{colour}"][moment])
    if colour == "divergence":
        return np.ravel(arrays["divergence"][:, moment])
    return np.ravel(np.linalg.norm(arrays["velocity"][:, moment], axis=-1))


def colour_bar(figure: Figure, image: Any, axes: Any, colour: Colour, rows: int = 1) -> None:
    """The scale of the field's colours, beside `axes`."""
    extend = "both" if colour == "divergence" else "max"
    shrink, aspect = (0.95, 16) if rows == 1 else (0.6, 30)
    bar = figure.colorbar(image, ax=axes, shrink=shrink, aspect=aspect, pad=0.012, extend=extend)
    bar.set_label(LABELS[colour], fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.6)


def _coarse(axes: Axes, velocity: np.ndarray, divergence: np.ndarray, *rest: Any) -> Any:
    image = draw_field(axes, _means(velocity), _means(divergence), *rest)
    image.set(data=divergence, interpolation="bilinear")  # few arrows, fine colours
    return image


def _means(values: np.ndarray) -> np.ndarray:
    # Over squares of cells, so that the arrows stand at their centres.
    side = len(values) // ARROWS
    means: np.ndarray = values.reshape(ARROWS, side, ARROWS, side, *values.shape[2:]).mean((1, 3))
    return means


def _lines(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, list[int]]]:
    # The rows of panels: a pair of columns, and the moments of one block.
    blocks = [np.flatnonzero(arrays["block"] == block).tolist() for block in np.unique(arrays["block"])]
    return [(number, line) for number in range(len(np.atleast_2d(arrays["field_extent"]))) for line in blocks]


def _convention(arrays: Mapping[str, np.ndarray]) -> str:
    lines = "f points from data to noise; sampling follows it backwards"
    if arrays["field_extent"].ndim == 1:
        return f"stream lines of the field f(t, z); {lines}"
    return (
        "a projection: mean of f's components i, j over the rows in each cell (grey: fewer than 3 rows), "
        f"colours: over all columns\n{lines}"
    )


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
    lengths = np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1)
    runs = zip(starts, [*starts[1:], len(pieces)], strict=True)
    shortest = SHORTEST * (extent[1] - extent[0])
    chosen = pieces[[_middle(a, b, lengths) for a, b in runs if lengths[a:b].sum() > shortest]]
    direction = chosen[:, 1] - chosen[:, 0]
    norm = np.linalg.norm(direction, axis=1, keepdims=True)
    direction = direction / np.where(norm > 0, norm, 1) * (extent[1] - extent[0]) / 1000
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
