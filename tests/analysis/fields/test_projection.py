"""Pairs of columns: which, and means over their cells."""

import numpy as np
import pytest
import torch
from support.truths import FULL, normal

from analysis.fields.projection import cell_means, check_columns, choose_pairs, pair_name, parse_columns
from sparseflows.errors import InputError
from sparseflows.plot.grids import make_grid

DOUBLE = {"dtype": torch.float64}


@pytest.mark.parametrize(
    ("text", "pairs"), [("1-2", [(0, 1)]), ("3-1,2-5", [(2, 0), (1, 4)]), (" 10 - 2 ", [(9, 1)]), ("01-2", [(0, 1)])]
)
def test_pairs_are_counted_from_one(text, pairs):
    assert parse_columns(text) == pairs
    assert pair_name(pairs[0]).split("-")[0] == str(pairs[0][0] + 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-",
        "1-2,",
        "1-1",
        "0-1",
        "-1-2",
        "1-2-3",
        "a-b",
        "1-2,2-1",
        "1.5-2",
        "²-1",
        "1-2;3-4",
        "9" * 12 + "-1",
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="--columns") as refusal:
        parse_columns(text)
    assert "\n" not in str(refusal.value)


def test_too_many_pairs_are_refused():
    with pytest.raises(InputError, match="at most 6"):
        parse_columns(",".join(f"1-{k}" for k in range(2, 9)))


def test_pairs_have_to_be_there():
    check_columns([(0, 4)], 5, "run")
    with pytest.raises(InputError, match="1-6, but the data have 5 columns"):
        check_columns([(0, 5)], 5, "run")
    with pytest.raises(InputError, match="leave --columns out"):
        check_columns([(0, 1)], 2, "run")


def test_the_most_correlated_columns_are_chosen_each_once():
    x = normal(2000, 7, **DOUBLE).numpy()
    x[:, 4] = x[:, 1] + 0.1 * x[:, 4]
    x[:, 6] = -x[:, 1] + 0.3 * x[:, 6]  # next, but column 2 is taken
    x[:, 3] = -x[:, 0] + 0.5 * x[:, 3]
    assert choose_pairs(x)[:2] == [(1, 4), (0, 3)]
    assert len(choose_pairs(x)) == 3
    assert choose_pairs(x[:, :3], 3) == choose_pairs(x[:, :3], 1)


def test_cell_means_are_those_of_a_naive_loop():
    points, values = normal(500, 2, seed=1, **DOUBLE).numpy(), normal(500, 3, seed=2, **DOUBLE).numpy()
    points[0], points[1] = (-2.0, -2.0), (2.0, 0.0)  # on the lower edge: inside; on the upper: outside
    means, counts = cell_means(points, values, (-2.0, 2.0, -2.0, 2.0), 5, at_least=3)
    for row in range(5):
        for column in range(5):
            own = [
                value
                for (x, y), value in zip(points, values, strict=True)
                if -2 + 0.8 * column <= x < -2 + 0.8 * (column + 1) and -2 + 0.8 * row <= y < -2 + 0.8 * (row + 1)
            ]
            assert counts[row, column] == len(own)
            if len(own) < 3:
                assert np.isnan(means[row, column]).all()
            else:
                assert np.allclose(means[row, column], np.mean(own, axis=0), rtol=1e-12, atol=1e-12)


def test_the_projection_of_a_linear_field_is_its_conditional_mean():
    # f = Az over independent columns: the mean of its components i, j given z_i, z_j is A's own 2 x 2 part.
    z = normal(200_000, 3, **DOUBLE).numpy()
    a = np.array(FULL)
    means, counts = cell_means(z[:, [0, 2]], (z @ a.T)[:, [0, 2]], (-1.0, 1.0, -1.0, 1.0), 4)
    centres = make_grid((-1.0, 1.0, -1.0, 1.0), 4).points.reshape(4, 4, 2)
    expected = centres @ a[np.ix_([0, 2], [0, 2])].T
    # Some 5,000 rows a cell: the column that is averaged away leaves 0.8/√5000 = 0.011, a cell's own slope 0.003.
    assert counts.min() > 3000
    assert np.abs(means - expected).max() < 0.06
