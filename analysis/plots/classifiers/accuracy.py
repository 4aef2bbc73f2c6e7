"""Classifiers: test accuracy and loss against the prune ratio, a curve a protocol and method.

A method has one colour and marker, a protocol one kind of line.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.axes import draw_level, draw_means, kept, ratio_axis, spread_axis
from analysis.plots.looks import DENSE_LOOK, Look, looks
from analysis.plots.style import Arrays, columns, render
from analysis.runs.records import CASCADE, DENSE
from analysis.tables.means import OVER_SEEDS, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"accuracy": ("test accuracy (%)", 100.0), "loss": ("test loss (nats)", 1.0)}
_LINES = ("-", "--", ":", "-.")
_COLUMNS = 3  # of the legend


def classify_arrays(table: Table) -> Arrays:
    """The points of the figure, one entry a stage with an accuracy, in the order of the table.

    Keys: `label` (its curve), `method`, `protocol`, `stage`, `prune_ratio`, `accuracy`, `accuracy_se` (fractions),
    `loss`, `loss_se` (nats); NaN where there is none. Scalars: `dataset`, `se_over` (seeds, or test set), `seeds`.
    """
    numbers = ("prune_ratio", "accuracy", "accuracy_se", "loss", "loss_se")
    rows = []
    for row in table.rows:
        if row.accuracy is not None and row.prune_ratio is not None:
            loss = (row.loss.value, row.loss.se) if row.loss else (None, None)
            head = (row.label, row.method, row.protocol or CASCADE, row.stage, row.prune_ratio)
            rows.append((*head, row.accuracy.value, row.accuracy.se, *loss))
    scalars = {"dataset": table.dataset, "se_over": table.se_over, "seeds": table.seeds}
    points = columns({str: ("label", "method", "protocol"), int: ("stage",), float: numbers}, rows)
    return points | {name: np.array(value) for name, value in scalars.items()}


def classify_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Accuracy and loss side by side: `png`, `pdf`, and the points as `npz`.

    Raises:
        ValueError: no stage has an accuracy.
    """
    if arrays["accuracy"].size == 0:
        raise ValueError("no stage has a test accuracy; there is nothing to draw")
    styles = _styles(arrays)
    over_seeds = str(arrays["se_over"]) == OVER_SEEDS
    errors = f"mean ± s.e. over {arrays['seeds']} seeds" if over_seeds else "1 seed, accuracy ± s.e. of the test rows"

    def draw(figure: Figure) -> None:
        for place, name in enumerate(PANELS):
            _panel(figure.add_subplot(1, len(PANELS), place + 1), arrays, name, styles)
        handles = [look.handle(label) for label, look in styles.items()]
        above: Any = {"loc": "outside upper center", "ncols": _COLUMNS, "handlelength": 3.0}
        figure.legend(handles=handles, title=f"{arrays['dataset']}, {errors}", **above)

    return render(draw, arrays, (9.0, 3.9 + 0.2 * -(-len(styles) // _COLUMNS)), chart=True)


def _styles(arrays: Mapping[str, np.ndarray]) -> dict[str, Look]:
    labels, methods, protocols = (arrays[name].tolist() for name in ("label", "method", "protocol"))
    lines = dict.fromkeys(protocol for label, protocol in zip(labels, protocols, strict=True) if label != DENSE)
    kinds = dict(zip(lines, itertools.cycle(_LINES), strict=False))
    by_method = looks({method: method for method in methods if method != DENSE})
    by_method[DENSE] = Look("0.35", "_")  # of control and reduced
    return {
        label: DENSE_LOOK if label == DENSE else by_method[method]._replace(line=kinds[protocol])
        for label, method, protocol in zip(labels, methods, protocols, strict=True)
    }


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], name: str, styles: Mapping[str, Look]) -> None:
    quantity, scale = PANELS[name]
    for label, look in styles.items():
        points = arrays["label"] == label
        means, errors = (scale * arrays[key][points] for key in (name, f"{name}_se"))
        if label == DENSE:
            draw_level(axes, float(means[0]), float(errors[0]))
        else:
            draw_means(axes, kept(arrays["prune_ratio"][points]), means, errors, look)
    if name == "loss":
        known = np.isfinite(arrays[name])
        spread_axis(axes, *(arrays[key][known] for key in ("stage", name, f"{name}_se")))
    axes.set_ylabel(quantity)
    ratio_axis(axes, np.append(arrays["prune_ratio"], 0.0))
