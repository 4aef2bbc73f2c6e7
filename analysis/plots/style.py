"""The look of all figures, and how one becomes files. Matplotlib is imported here late, so that `--help` stays quick.

Every figure is drawn from a dict of arrays, and those arrays are what is saved beside it. seaborn was
left out: it would supply a palette and a style, for a second of import time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, np.ndarray]

SIZE_INCHES = (6.4, 4.0)
DPI = 200

# Okabe & Ito (2008), "Color Universal Design": told apart under every common colour blindness. Their
# yellow is left out (too faint on white), black is kept for the dense flow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Mapping[Any, Any] = {
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fancybox": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "text.parse_math": False,  # a name may hold a dollar sign
}


def render(
    draw: Callable[[Figure], None], arrays: Mapping[str, np.ndarray], size: tuple[float, float] = SIZE_INCHES
) -> dict[str, bytes]:
    """A figure as files: `png` (200 dots an inch), `pdf`, and its arrays as `npz`. Equal arrays give equal bytes.

    Args:
        draw: draws on an empty figure, with constrained layout.
        arrays: the numbers that are drawn.
        size: width and height, inches.
    """
    with matplotlib_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        draw(figure)
        files = {}
        for kind in ("png", "pdf"):
            stream = io.BytesIO()
            # Without a date the same points give the same bytes.
            figure.savefig(stream, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
            files[kind] = stream.getvalue()
    return files | {"npz": npz(arrays)}


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return stream.getvalue()


@contextlib.contextmanager
def matplotlib_style() -> Iterator[None]:
    """Matplotlib with this package's style: no pyplot, nothing global left behind, nothing printed.

    The user's matplotlibrc is not applied: figures are the same everywhere. On its first use matplotlib
    reports its font cache, and a missing home folder; neither is the reader's concern.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            warnings.filterwarnings("ignore", message="Glyph")  # a name outside the font: drawn as boxes
            yield
    finally:
        logger.setLevel(level)
