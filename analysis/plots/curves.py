"""Curves over the prune ratio: test NLL and KL gap, and the curvature of the loss.

Every network is a faint dot, the line goes through the means over the seeds, and the band is their standard error;
where there is one seed, the band is the error of the test set, or the spread over the subsets of a Hessian.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.axes import draw_level, kept, ratio_axis
from analysis.plots.looks import DENSE_LOOK, Look, looks
from analysis.plots.style import Arrays, columns, render
from analysis.runs.analyses import Key, Values, number
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, FAILED, Run
from analysis.tables.curvature import measured
from analysis.tables.means import average

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NLL_PANELS = {"nll": "test NLL (nats)", "kl_gap": "KL gap (nats)"}
HESSIAN_PANELS = {
    "lambda_max": "largest eigenvalue",
    "trace": "trace",
    "effective_rank": "effective rank, trace / λ_max",
    "kappa_80": "condition number κ₈₀",
}


def nll_vs_pr_arrays(run: Run) -> Arrays:
    """One entry a network that is done, in the order of results.csv; see `_arrays` for the keys."""
    points = {
        stage.key: {
            "prune_ratio": stage.prune_ratio,
            "nll": stage.nll_test,
            "nll_se": stage.nll_test_se,
            "kl_gap": stage.kl_gap,
            "kl_gap_se": stage.kl_gap_se,
        }
        for stage in run.stages
        if stage.done
    }
    return _arrays(points, tuple(NLL_PANELS), run.stages[0].dataset)


def hessian_vs_pr_arrays(run: Run, stages: Mapping[Key, Values]) -> Arrays:
    """One entry a network that has a Hessian, in the order of hessian.json; see `_arrays` for the keys."""
    points = {key: dict(values) for key, values in stages.items() if values.get("status") != FAILED}
    return _arrays(points, tuple(HESSIAN_PANELS), run.stages[0].dataset)


def _arrays(points: Mapping[Key, Mapping[str, object]], names: Sequence[str], dataset: str) -> Arrays:
    """The networks and their means.

    Keys, one entry a network: `method`, `seed`, `stage`, `prune_ratio` (fraction), and each of `names` with its
    `<name>_se`, NaN where there is none. Keys, one entry a stage of a method: `mean_method`, `mean_stage`,
    `mean_prune_ratio`, `mean_<name>`, `mean_<name>_se`. Scalars: `dataset`, `seeds` (how many).
    """
    stages = grouped(points, lambda key: (key[0], key[2]))
    groups = {stage: [points[key] for key in keys] for stage, keys in stages.items()}
    over_seeds = any(len(group) > 1 for group in groups.values())
    arrays = columns({str: ("method",), int: ("seed", "stage")}, points)
    arrays["prune_ratio"] = _column(points.values(), "prune_ratio")
    arrays |= columns({str: ("mean_method",), int: ("mean_stage",)}, groups)
    arrays["mean_prune_ratio"] = np.array([np.mean(_column(group, "prune_ratio")) for group in groups.values()])
    arrays |= {"dataset": np.array(dataset), "seeds": np.array(len({seed for _, seed, _ in points}))}
    for name in names:
        own = [measured(values, name) for values in points.values()]
        arrays |= columns({float: (name, f"{name}_se")}, [(one.value, one.se) if one else (None, None) for one in own])
        means = [average((measured(values, name) for values in group), over_seeds) for group in groups.values()]
        pairs = [(mean.value, mean.se) if mean else (None, None) for mean in means]
        arrays |= columns({float: (f"mean_{name}", f"mean_{name}_se")}, pairs)
    return arrays


def _column(points: Iterable[Mapping[str, object]], name: str) -> np.ndarray:
    return np.array([number(values, name) for values in points], dtype=np.float64)


def vs_pr_figure(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """What has a number of the panels that the arrays are of, against the prune ratio: `png`, `pdf`, `npz`.

    Raises:
        ValueError: there is nothing to draw.
    """
    of_nll = "nll" in arrays
    panels = NLL_PANELS if of_nll else HESSIAN_PANELS
    one_seed = "± s.e. of the test set" if of_nll else "± spread over the subsets"
    shown = [name for name in panels if np.isfinite(arrays[f"mean_{name}"]).any()]
    if not shown:
        raise ValueError("no stage has a number; there is nothing to draw")
    across = min(2, len(shown))
    rows = -(-len(shown) // across)
    methods = [method for method in dict.fromkeys(arrays["mean_method"].tolist()) if method != DENSE]
    styles = looks({method: method for method in methods})
    seeds = int(arrays["seeds"])
    errors = f"mean ± s.e. over {seeds} seeds" if seeds > 1 else f"1 seed, {one_seed}"

    def draw(figure: Figure) -> None:
        for place, name in enumerate(shown):
            axes = figure.add_subplot(rows, across, place + 1)
            _panel(axes, arrays, name, styles)
            axes.set_ylabel(panels[name])
        drawn = styles | ({DENSE: DENSE_LOOK} if DENSE in arrays["mean_method"] else {})
        handles = [look.handle(method) for method, look in drawn.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, title=f"{arrays['dataset']}, {errors}")

    return render(draw, arrays, (6.4 if across == 1 else 9.0, 4.3 if rows == 1 else 3.3 * rows), chart=True)


def _panel(axes: Axes, arrays: Mapping[str, np.ndarray], name: str, styles: Mapping[str, Look]) -> None:
    import seaborn

    for method, look in styles.items():
        here = (arrays["mean_method"] == method) & np.isfinite(arrays[f"mean_{name}"])
        mean, se = arrays[f"mean_{name}"][here], np.nan_to_num(arrays[f"mean_{name}_se"][here])
        x = kept(arrays["mean_prune_ratio"][here])
        axes.fill_between(x, mean - se, mean + se, color=look.colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(x, mean, zorder=3, **look.style)
    if int(arrays["seeds"]) > 1:
        dots = np.isin(arrays["method"], list(styles)) & np.isfinite(arrays[name]) & np.isfinite(arrays["prune_ratio"])
        methods = arrays["method"][dots]
        seaborn.scatterplot(
            x=kept(arrays["prune_ratio"][dots]), y=arrays[name][dots], hue=methods, style=methods,
            palette={method: look.colour for method, look in styles.items()}, s=14, alpha=0.35, linewidth=0,
            markers={method: look.marker for method, look in styles.items()}, legend=False, zorder=2.5, ax=axes,
        )  # fmt: skip
    dense = arrays["mean_method"] == DENSE
    if np.isfinite(arrays[f"mean_{name}"][dense]).any():
        draw_level(axes, *(float(arrays[key][dense][0]) for key in (f"mean_{name}", f"mean_{name}_se")))
    ratio_axis(axes, np.append(arrays["prune_ratio"], 0.0))
