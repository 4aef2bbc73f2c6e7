"""What `analysis classify` computes and how it is written: small networks, runs made by hand."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from analysis.classifiers.plane import Sweep, chosen, plane, probability_map
from analysis.classifiers.weights import left_of
from analysis.cli.classify import _pages
from analysis.plots.classifiers.accuracy import classify_arrays, classify_figure
from analysis.plots.classifiers.plane import map_colours
from analysis.plots.nll import vs_params_arrays, vs_params_figure
from analysis.runs.records import read_run
from analysis.tables.markup import latex as to_latex
from analysis.tables.markup import markdown as to_markdown
from analysis.tables.means import label_of, tabulate
from analysis.tables.nll import rows_csv, sheet
from analysis.tables.numbers import share
from analysis.tables.text import text as to_text
from sparseflows.data.splits import make_splits
from sparseflows.errors import RunError
from sparseflows.flow.solvers.ode import Solver
from sparseflows.networks.build import conv_network
from sparseflows.plot import grids
from sparseflows.plot.style import COLOURS
from sparseflows.pruning.graph.masks import Masks
from sparseflows.rng import torch_generator

SOLVER = Solver("dopri5", 1e-5, 1e-5)


class Linear(nn.Module):
    """Logits W x of three classes; −∞ where x is beyond an edge."""

    def __init__(self, edge=math.inf):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -0.8]], dtype=torch.float64))
        self.edge = edge

    def forward(self, points):
        return (points @ self.weight.T).where(points[:, 1:] <= self.edge, -math.inf)


def rows_of_classifiers(row_of, shares, **changes):
    """A row for each (method, protocol, seed, stage, params, accuracy, loss)."""
    empty = {"objective": "cross_entropy", "nll_test": "", "nll_test_se": "", "kl_gap": "", "kl_gap_se": ""}
    return [
        row_of(method, seed, stage, params, 0.0)
        | empty
        | {"protocol": protocol, "accuracy_test": accuracy, "loss_test": loss, "n_test": 101}
        | changes
        for method, protocol, seed, stage, params, accuracy, loss in shares
    ]


SHARES = (
    ("dense", "cascade", 0, 0, 1000, 0.90, 0.30),
    ("magnitude", "cascade", 0, 1, 500, 0.95, 0.20),
    ("magnitude", "one_shot", 0, 1, 500, 0.95, 0.25),
    ("dense", "control", 0, 1, 1000, 0.93, 0.28),
)


@pytest.fixture
def table(make_run, row_of):
    (one,) = tabulate(read_run(make_run(rows_of_classifiers(row_of, SHARES))))
    return one


def test_labels():
    assert [label_of("snip", protocol) for protocol in (None, "cascade", "scratch")] == ["snip", "snip", "scratch snip"]


def test_rows_of_one_seed(table):
    assert [row.label for row in table.rows] == ["dense", "magnitude", "one_shot magnitude", "control dense"]
    assert [row.is_dense for row in table.rows] == [True, False, False, False]
    assert table.classifies
    assert table.se_over == "test set"
    assert table.rows[0].accuracy.se == pytest.approx(0.03)  # sqrt(0.9 * 0.1 / 100)
    assert (table.rows[0].loss.value, table.rows[0].loss.se) == (0.30, None)
    assert [row.best for row in table.rows] == [False, True, False, False]  # of two equal ones the lower loss


def test_accuracy_table_as_text_and_csv(table):
    text = to_text(sheet(table))
    assert "* highest accuracy" in text
    (line,) = [line for line in text.splitlines() if line.startswith("dense")]
    assert line.split() == ["dense", "0", "0.0", "%", "1,000", "90.00", "±", "3.00", "0.300", "50", "done"]
    assert "NLL" not in text + to_markdown(sheet(table)) + to_latex(sheet(table))
    assert "| **95.00 ± 2.18** |" in to_markdown(sheet(table))
    rows = list(csv.DictReader(io.StringIO(rows_csv([table]))))
    assert [float(row["accuracy_test"]) for row in rows] == [0.90, 0.95, 0.95, 0.93]
    assert [row["loss_test_se"] for row in rows] == [""] * 4
    assert [row["protocol"] for row in rows] == ["cascade", "cascade", "one_shot", "control"]


def test_certainty_is_not_claimed_where_the_error_is_small():
    from analysis.tables.numbers import Mean

    shown = [share(mean) for mean in (None, Mean(0.5, None), Mean(0.99, 1e-5), Mean(1.0, 0.0))]
    assert shown == ["-", "50.00", "99.00 ± <0.01", "100.00 ± 0.00"]


def test_failed_stages_have_no_accuracy(make_run, row_of, failed_of):
    rows = rows_of_classifiers(row_of, SHARES[:1])
    rows.append(failed_of("magnitude", 0, 1, "loss is not finite", objective="cross_entropy"))
    (one,) = tabulate(read_run(make_run(rows)))
    assert one.rows[1].accuracy is None
    assert "failed: magnitude, stage 1, seed 0: loss is not finite" in to_text(sheet(one))
    assert classify_arrays(one)["label"].tolist() == ["dense"]
    assert classify_figure(classify_arrays(one))["png"].startswith(b"\x89PNG")


def test_figures_have_a_curve_a_protocol_and_method(table):
    arrays = classify_arrays(table)
    assert arrays["label"].tolist() == ["dense", "magnitude", "one_shot magnitude", "control dense"]
    assert arrays["accuracy"].tolist() == [0.90, 0.95, 0.95, 0.93]
    assert np.isnan(arrays["loss_se"]).all()
    files = classify_figure(arrays)
    with np.load(io.BytesIO(files["npz"])) as saved:
        assert set(saved) == set(arrays)
    params = vs_params_arrays([table])
    assert params["params"].tolist() == [1000, 500, 500, 1000]
    assert params["protocol"].tolist() == ["cascade", "cascade", "one_shot", "control"]
    assert vs_params_figure(params)["pdf"].startswith(b"%PDF")


def test_nothing_to_draw(make_run, failed_of):
    (one,) = tabulate(read_run(make_run([failed_of("dense", 0, 0, "NaN", objective="cross_entropy")])))
    for arrays, figure in (
        (classify_arrays(one), classify_figure),
        (vs_params_arrays([one]), vs_params_figure),
    ):
        with pytest.raises(ValueError, match="test accuracy"):
            figure(arrays)


def test_nll_of_several_protocols_is_kept_apart(make_run, rows_of):
    extra = [row | {"protocol": "control", "method": "dense"} for row in rows_of() if row["method"] == "structured"]
    extra += [row | {"protocol": "one_shot"} for row in rows_of() if row["method"] == "structured"]
    arrays = vs_params_arrays(tabulate(read_run(make_run([*rows_of(), *extra]))))
    points = dict.fromkeys(arrays["label"].tolist())
    assert list(points) == ["dense", "unstructured", "structured", "control dense", "one_shot structured"]
    assert (arrays["label"] == "control dense").sum() == 2
    assert set(arrays["protocol"][arrays["label"] == "control dense"].tolist()) == {"control"}


def test_probabilities_of_a_linear_network_in_closed_form():
    splits = make_splits("moons", n_train=40)
    network = Linear()
    result = plane(network, splits, SOLVER, "float64", seed=0)
    assert "paths" not in result.arrays
    grid = grids.make_grid(tuple(result.arrays["map_extent"].tolist()), 100)
    weight = network.weight.detach().numpy()
    for row, column in ((0, 0), (99, 1), (40, 70)):
        powers = np.exp(weight @ (grid.axis_x[column], grid.axis_y[row]))
        # the file's single precision
        np.testing.assert_allclose(result.arrays["probabilities"][row, column], powers / powers.sum(), rtol=3e-7)
    correct = [
        int(np.argmax(weight @ point)) == label for point, label in zip(splits.test, splits.labels_test, strict=True)
    ]
    assert result.values == {"correct": pytest.approx(np.mean(correct)), "cells_left_out": 0.0}


def test_strips_that_cannot_be_solved_are_left_out():
    grid = grids.make_grid((-1.0, 1.0, -1.0, 1.0), 20)
    found = probability_map(Linear(edge=0.55), grid, SOLVER, "float64", 3)
    # ten strips of two rows: the centres of rows 0 to 15 are at −0.95 … 0.55, those of the last two strips above
    assert np.isfinite(found[:16]).all()
    assert np.isnan(found[16:]).all()
    np.testing.assert_allclose(found[:16].sum(-1), 1, atol=1e-14)
    with pytest.raises(RunError, match="infinite or NaN"):
        plane(Linear(edge=-9.0), make_splits("moons", n_train=40), SOLVER, "float64", seed=0)


def test_colours_of_probabilities():
    nan = float("nan")
    colours = map_colours(np.array([[1, 0, 0], [0, 1, 0], [1 / 3] * 3, [nan] * 3]))
    full = [[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in COLOURS[:2]]
    for number in range(2):
        np.testing.assert_allclose(colours[number], 1 - 0.75 * (1 - np.array(full[number])), atol=1e-12)
    np.testing.assert_allclose(colours[2], 1, atol=1e-12)
    np.testing.assert_allclose(colours[3], 0.8)


def test_what_is_left_of_a_masked_network_by_loops():
    network = conv_network(36, [3, 2], [4], 2).double()
    generator = torch_generator(0, "test")
    masks = {name: torch.rand(p.shape, generator=generator) < 0.4 for name, p in network.named_parameters()}
    masks["conv1.weight"][1] = False  # a channel without incoming weights
    Masks(masks).apply_(network)
    left = left_of(network, masks)
    tensors = dict(network.named_parameters())
    names = ["conv1.weight", "conv2.weight", "linear1.weight", "linear2.weight"]
    for name, found in zip(names, left.weights, strict=True):
        flat, mask = tensors[name].flatten().tolist(), masks[name].flatten().tolist()
        assert found.tolist() == [value for value, kept in zip(flat, mask, strict=True) if kept]
    for name, found in zip(names[:3], left.norms, strict=True):
        units = zip(tensors[name].flatten(1).tolist(), masks[name].flatten(1).tolist(), strict=True)
        wanted = [sum(abs(value) for value in unit) for unit, mask in units if any(mask)]
        np.testing.assert_allclose(found.tolist(), wanted, rtol=1e-14)
    assert len(left.norms[0]) == 2


def test_of_a_shrunk_network_everything_is_left():
    network = conv_network(16, [2], [3], 2)
    wider = Masks.full(conv_network(16, [4], [5], 2))
    left = left_of(network, wider)
    assert [len(one) for one in left.weights] == [2 * 9, 3 * 2 * 4, 2 * 3]
    assert [len(one) for one in left.norms] == [2, 3]


def test_stages_are_spread_evenly_and_figures_hold_four_methods():
    numbers = lambda count, most: list(chosen(Sweep("magnitude", tuple(range(count))), most))  # noqa: E731
    assert numbers(10, 6) == [0, 1, 3, 5, 7, 9]
    assert numbers(3, 6) == [0, 1, 2]
    assert numbers(1, 6) == [0]
    assert _pages(list(range(9))) == [("", [0, 1, 2, 3]), ("-2", [4, 5, 6, 7]), ("-3", [8])]
