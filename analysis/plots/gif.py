"""An animation as a GIF, written by Pillow.

matplotlib's PillowWriter wants a file, gives all frames the same time, and chooses a palette for each, which makes the
file larger and greys the white.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparseflows.plot.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
GREYS = 32


def animate(
    draw: Callable[[Figure], Callable[[int], None]],
    size: tuple[float, float],
    seconds: Sequence[float],
    colours: np.ndarray,
) -> bytes:
    """A GIF that loops for ever; equal arguments give equal bytes.

    Args:
        draw: draws what stands still on an empty figure, and returns what brings the figure to a frame, by its number.
        size: width and height, inches.
        seconds: how long each frame stays.
        colours: (C, 3), from 0 to 1, those that are drawn, with their blends; greys for the text are added.
    """
    from PIL import Image

    greys = np.repeat(np.linspace(1, 0, GREYS)[:, None], 3, axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * np.concatenate([colours, greys])).round().astype(np.uint8).ravel().tolist())
    images = []
    with theme():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        show = draw(figure)
        for number in range(len(seconds)):
            show(number)
            canvas.draw()
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
            images.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
            figure.set_layout_engine("none")  # laid out once, or the axes would tremble
    stream = io.BytesIO()
    times = [round(1000 * one) for one in seconds]
    images[0].save(stream, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    return stream.getvalue()
