"""What all pictures of a plane share: equal axes, names of the columns, the heading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparseflows.plot.view import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANE = ("z₁", "z₂")  # two columns without names


class Panel(NamedTuple):
    """One stage in a figure of several: the lines above its panel, and its arrays."""

    title: str
    arrays: Mapping[str, np.ndarray]


def heading(figure: Figure, title: str, note: str = "") -> None:
    """What stage it is, and below it in grey what is shown; with room around everything."""
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.07, h_pad=0.07)
    if note:
        figure.suptitle(f"{title}\n{note}", fontsize=10, linespacing=1.5)
    else:
        figure.suptitle(title, fontsize=10)


def label_axes(axes: Axes, labels: tuple[str, str], left: bool, bottom: bool) -> None:
    """`labels` of the two columns, on the outer panels."""
    first, second = labels
    if left:
        axes.set_ylabel(f"{second} (standardised)", fontsize=8.5)
    if bottom:
        axes.set_xlabel(f"{first} (standardised)", fontsize=8.5)
    axes.tick_params(labelleft=left, labelbottom=bottom)


def labels_of(arrays: Mapping[str, np.ndarray], number: int) -> tuple[str, str]:
    """What the columns of the `number`-th pair are called: by their names, else by their places."""
    if "names" in arrays:
        first, second = arrays["names"][number].tolist()
        return short(first), short(second)
    pair = pair_of(arrays, number)
    return (f"column {pair[0]}", f"column {pair[1]}") if pair else PLANE


def chosen(arrays: Mapping[str, np.ndarray], shown: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays, each of its own shape, that a figure shows, and the names (P, 2) of columns where there are any."""
    return {name: arrays[name] for name in (*shown, "names") if name in arrays}


def pair_of(arrays: Mapping[str, np.ndarray], number: int) -> tuple[int, int] | None:
    """Columns of the `number`-th pair, from 1; None where the data have two."""
    if arrays["field_extent"].ndim == 1:
        return None
    first, second = arrays["columns"][number].tolist()
    return first, second
