"""What all pictures of a plane share: their axes, and a colour for every path. matplotlib is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def frame(axes: Axes, extent: Sequence[float] | None = None, equal: bool = True) -> None:
    """A thin box all round, few ticks; from left to right and bottom to top of `extent`, where given.

    `equal` axes have whole numbers for ticks and one scale; others fill their place, each in a unit of its own.
    """
    from matplotlib.ticker import MaxNLocator

    if extent is not None:
        axes.set(xlim=tuple(extent[:2]), ylim=tuple(extent[2:]))
    axes.set_aspect("equal" if equal else "auto")
    axes.spines[:].set_visible(True)
    axes.spines[:].set(linewidth=0.6, color="0.4")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=equal))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=equal))
    axes.tick_params(length=2.5, width=0.6, labelsize=8)


def start_colours(noise: np.ndarray) -> np.ndarray:
    """A colour (n, 4) for points (n, 2) of noise, by their first coordinate from −2 to 2: dark to light."""
    from matplotlib import colormaps

    shares = np.clip((noise[:, 0] + 2) / 4, 0, 1)
    colours: np.ndarray = colormaps["plasma"](0.88 * shares)  # its lightest yellow is lost on white
    return colours
