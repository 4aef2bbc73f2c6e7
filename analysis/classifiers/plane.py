"""Classifiers of a plane, looked at: class probabilities over it, and the paths of test points to their logits."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from analysis.fields.projection import Array
from analysis.runs.groups import by_cascade, evenly
from analysis.runs.results import Result
from analysis.runs.study import Study, Subject
from analysis.tables.means import label_of
from sparseflows.data.splits import Splits
from sparseflows.errors import RunError
from sparseflows.evaluation.classification import labelled_subset, logits_of
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.experiment.folder.records import DENSE, DONE
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.plot import grids
from sparseflows.plot.windows import square_window

CELLS, STRIPS = 100, 10  # of the map on a side; solved in so many strips, so that one that fails leaves the others
MARGIN = 0.15  # around the rows, as a share of their extent
POINTS, PATHS, PATH_TIMES = 300, 60, 41  # test points shown, those of them whose path is, states of a path


@dataclass(frozen=True)
class Sweep:
    """The stages of one method in one protocol and seed, those that are done, the dense network first."""

    label: str
    subjects: tuple[Subject, ...]


def sweeps(study: Study) -> list[Sweep]:
    """Every method of every protocol, of the first seed that it is done for, in the order of results.csv.

    The dense networks of control and reduced are no methods and left out.
    """
    done = [subject for subject in study.subjects() if subject.record.status == DONE]
    cascades = ((stages[-1].record, stages) for stages in by_cascade(done).values())
    found = [Sweep(label_of(one.method, one.protocol), tuple(own)) for one, own in cascades if one.method != DENSE]
    return found or [Sweep(DENSE, (one,)) for one in done if one.record.series == DENSE][:1]


def chosen(sweep: Sweep, most: int) -> tuple[Subject, ...]:
    """The dense network, and up to `most` − 1 of the stages after it, spread evenly, the last one among them."""
    first, *others = sweep.subjects
    return (first, *(others[place] for place in evenly(len(others), most - 1)))


def plane(network: nn.Module, splits: Splits, solver: Solver, dtype: str, seed: int) -> Result:
    """What is drawn of one network whose rows have two columns; all in standardised coordinates.

    Arrays: `map_extent` (4,) left, right, bottom, top; `probabilities` (cells, cells, classes), the softmax of the
    logits at the cells' centres, rows of the picture rising with the second column, NaN where no solve reached its
    end; `points` (n, 2) test points, their `labels` (n,) and `logits` (n, classes). Of flows: `paths` (K, m, 2), the
    states of the first m of the points from t = 0 to the logits at T, and `paths_clock` (K,), in blocks.

    Values: `correct`, the share of the shown points that are classified right; `cells_left_out`, a share.

    `network` makes logits of (B, 2), or is a flow whose final state they are; `splits` have labels; all is computed in
    `dtype`, float32 or float64; `seed` chooses the points.

    Raises:
        RunError: a solve that starts at the points did not reach its end.
    """
    assert splits.labels_test is not None
    points, labels = labelled_subset(splits.test, splits.labels_test, POINTS, seed, "analysis/classify")
    found, status, _ = logits_of(network, points, solver, dtype)
    if status is not Status.DONE:
        raise RunError(status.value)
    everything = np.concatenate([np.asarray(part) for part in (splits.train, splits.validation, splits.test)])
    grid = grids.make_grid(square_window(everything, MARGIN), CELLS)
    probabilities = probability_map(network, grid, solver, dtype, found.shape[1])
    logits = found.double().cpu().numpy()
    arrays = {
        "map_extent": np.array(grid.extent),
        "probabilities": probabilities.astype(np.float32),  # more than any picture shows, in half the space
        "points": points,
        "labels": labels,
        "logits": logits,
    }
    if isinstance(network, Flow):
        clock = np.linspace(0, len(network.chain()), PATH_TIMES)
        arrays |= {"paths": paths(network, points[:PATHS], clock, solver, dtype), "paths_clock": clock}
    values = {
        "correct": float((logits.argmax(1) == labels).mean()),
        "cells_left_out": float(np.isnan(probabilities).any(-1).mean()),
    }
    return Result(values, arrays)


def probability_map(network: nn.Module, grid: grids.Grid, solver: Solver, dtype: str, classes: int) -> Array:
    """Softmax of the logits at the cells of `grid`: (cells, cells, classes); NaN in a strip whose solve failed."""
    side = len(grid.axis_x)
    strips = []
    for points in np.array_split(grid.points, STRIPS):
        found, status, _ = logits_of(network, points, solver, dtype)
        finished = status is Status.DONE
        strips.append(found.double().softmax(1).cpu().numpy() if finished else np.full((len(points), classes), np.nan))
    return np.concatenate(strips).reshape(side, side, classes)


def paths(flow: Flow, points: Array, clock: Array, solver: Solver, dtype: str) -> Array:
    """States (K, n, 2) of points (n, 2) at the K times of the clock (0 to the number of blocks).

    Raises:
        SolveFailed: a solve did not reach its end.
    """
    precise = as_dtype(flow, getattr(torch, dtype))
    return grids.path(precise, grids.to_first_block(precise, points), clock.tolist(), solver)
