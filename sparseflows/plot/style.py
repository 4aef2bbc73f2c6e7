"""The look of the package's own figures: colours, markers, the theme. matplotlib and seaborn are imported late."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

# Okabe & Ito (2008), "Color Universal Design": told apart under every common colour blindness. Their
# yellow is left out (too faint on white), black is kept for the dense flow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TICKS: Mapping[str, Any] = {"color": "black", "labelsize": 10, "major.size": 3.5, "major.width": 0.8}
STYLE: Mapping[str, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "black",
    "axes.labelcolor": "black",
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "axes.grid.axis": "y",
    "grid.color": "0.92",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fancybox": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "text.color": "black",
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in _TICKS.items()},
    "xtick.bottom": True,
    "ytick.left": True,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "text.parse_math": False,  # a name may hold a dollar sign
}


def key(label: str, **look: Any) -> Any:
    """An entry of a legend: a line or a marker that is not in the figure."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


@contextlib.contextmanager
def theme(chart: bool = False) -> Iterator[None]:
    """seaborn's theme with this package's style: nothing global left behind, nothing printed.

    The user's matplotlibrc is not applied: figures are the same everywhere. On its first use matplotlib
    reports its font cache, and a missing home folder; neither is the reader's concern.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib
        import seaborn

        with matplotlib.rc_context(), warnings.catch_warnings():
            matplotlib.rcdefaults()
            style = {**STYLE, "axes.titlelocation": "left" if chart else "center"}
            seaborn.set_theme("paper", "whitegrid" if chart else "ticks", list(COLOURS), rc=style)
            warnings.filterwarnings("ignore", message="Glyph")  # a name outside the font: drawn as boxes
            yield
    finally:
        logger.setLevel(level)
