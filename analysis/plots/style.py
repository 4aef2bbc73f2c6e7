"""How a figure becomes files. Every figure is drawn from a dict of arrays, saved beside it.

seaborn gives the theme (`sparseflows.plot.style`), scatters and histograms. Lines and their errors are matplotlib's:
the errors are those of the tables, and seaborn only draws the ones that it has worked out itself. Both are imported
late, for `--help`'s sake.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseflows.plot.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, np.ndarray]

SIZE_INCHES = (6.4, 4.0)
DPI = 200


def render(
    draw: Callable[[Figure], None],
    arrays: Mapping[str, np.ndarray],
    size: tuple[float, float] = SIZE_INCHES,
    chart: bool = False,
) -> dict[str, bytes]:
    """A figure as files: `png` (200 dots an inch), `pdf`, and its arrays as `npz`. Equal arrays give equal bytes.

    `draw` draws on an empty figure with constrained layout, `size` inches wide and high; a `chart` has axes to read
    values from, with a grid.
    """
    with theme(chart):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        draw(figure)
        files = {}
        for kind in ("png", "pdf"):
            stream = io.BytesIO()
            # Without a date the same points give the same bytes.
            figure.savefig(stream, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
            files[kind] = stream.getvalue()
            figure.set_layout_engine("none")  # laid out once: both files show the same, and the second is quicker
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return files | {"npz": stream.getvalue()}


def columns(kinds: Mapping[type, Sequence[str]], rows: Iterable[Sequence[Any]]) -> Arrays:
    """Rows as arrays (rows,), one a column, named in their order by what they hold; None among floats becomes NaN."""
    names = [(name, kind) for kind, several in kinds.items() for name in several]
    cells = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: np.array(column, dtype=kind) for (name, kind), column in zip(names, cells, strict=True)}
