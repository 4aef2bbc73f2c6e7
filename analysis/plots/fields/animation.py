"""Samples on their way from noise to data, as a GIF."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.fields.plane import frame, label_axes, pair_of, start_colours
from analysis.plots.style import matplotlib_style

if TYPE_CHECKING:
    from PIL.Image import Image

INCHES, DPI = 4.2, 110
SECONDS, FIRST_SECONDS, LAST_SECONDS = 0.08, 0.6, 2.0
SHADES, GREYS = 24, 24


def animation(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """The samples' frames as a GIF that loops for ever and rests on its last frame; equal arrays give equal bytes.

    Pillow writes it, without matplotlib's PillowWriter: that one wants a file, gives all frames the same
    time, and chooses a palette for each, which makes it larger.
    """
    from PIL.Image import Dither

    images = _draw(arrays, title)
    palette = _palette()
    small = [image.quantize(palette=palette, dither=Dither.NONE) for image in images]
    durations = [FIRST_SECONDS, *[SECONDS] * (len(small) - 2), LAST_SECONDS]
    stream = io.BytesIO()
    small[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=small[1:],
        duration=[round(1000 * seconds) for seconds in durations],
        loop=0,
    )
    return stream.getvalue()


def _palette() -> Image:
    # The colours that are drawn, and their blends with white at edges; Pillow's own choice would grey the white.
    from PIL import Image

    ramp = 255 * start_colours(np.column_stack([np.linspace(-2, 2, SHADES), np.zeros(SHADES)]))[:, :3]
    colours = [ramp + (255 - ramp) * share for share in (0, 1 / 3, 2 / 3)]
    colours.append(np.repeat(np.linspace(0, 255, GREYS)[::-1, None], 3, axis=1))
    image = Image.new("P", (1, 1))
    image.putpalette(np.concatenate(colours).round().astype(np.uint8).ravel().tolist())
    return image


def _draw(arrays: Mapping[str, np.ndarray], title: str) -> list[Image]:
    from PIL import Image

    frames, clock = arrays["frames"], arrays["frames_clock"]
    extent = np.atleast_2d(arrays["field_extent"])[0]
    blocks = int(arrays["block"].max())
    with matplotlib_style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(INCHES, INCHES * 1.09), dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        rows, start = arrays["rows"][0], frames[0]
        axes.scatter(rows[:, 0], rows[:, 1], s=3, c="0.82", linewidths=0, zorder=1)
        points = axes.scatter(start[:, 0], start[:, 1], s=5, c=start_colours(start), linewidths=0, zorder=2)
        axes.set_xlim(extent[0], extent[1])
        axes.set_ylim(extent[2], extent[3])
        frame(axes)
        label_axes(axes, pair_of(arrays, 0), True, True)
        axes.set_title(title, fontsize=9.5)
        said = axes.text(0.03, 0.965, "", transform=axes.transAxes, va="top", fontsize=11, zorder=3)
        axes.text(0.97, 0.03, "grey: data", transform=axes.transAxes, ha="right", fontsize=8.5, color="0.5")
        images = []
        for state, time in zip(frames, clock, strict=True):
            points.set_offsets(state)
            said.set_text(_time(arrays, float(time), blocks))
            canvas.draw()
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
            figure.set_layout_engine("none")  # laid out once, or the axes would tremble
    return images


def _time(arrays: Mapping[str, np.ndarray], clock: float, blocks: int) -> str:
    block = min(int(clock), blocks - 1)
    end_time = float(arrays["end_time"][arrays["block"] == block + 1][0])
    named = f"block {block + 1}, " if blocks > 1 else ""
    where = ", noise" if clock == blocks else ", data" if clock == 0 else ""
    return f"{named}t = {(clock - block) * end_time:.2f}{where}"
