"""What is found about rows before a training, by column and with its remedy; and what is left in peace."""

import numpy as np
import pytest

from sparseflows.data.findings.finding import ESTIMATOR, findings
from sparseflows.data.toy.toy import TOYS
from sparseflows.rng import numpy_generator

N = 2000


def rng():
    return np.random.default_rng(0)


def gaussian(columns=3, rows=N):
    return rng().normal(size=(rows, columns))


def one(rows, names=None, **options):
    found = findings(rows, names, **options)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


@pytest.mark.parametrize("rows", [30, 200, N, 20_000])
def test_ordinary_columns_are_left_in_peace(rows):
    g = rng()
    shapes = [
        g.normal(size=rows),
        g.exponential(size=rows),
        g.standard_t(4, size=rows),
        g.uniform(size=rows),
        g.gamma(2, size=rows),
    ]
    correlated = shapes[0] + 0.1 * g.normal(size=rows)
    assert findings(np.stack([*shapes, correlated], axis=1), None) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e155, 1e200, 1e300, 1e-200, 1e-310])
@pytest.mark.parametrize("rows", [40, N])
def test_extreme_numbers_are_looked_at_without_a_word_of_numpy(size, rows, capfd):
    column, cell = gaussian(rows=rows), gaussian(rows=rows)
    column[:, 1] *= size
    cell[3, 0] *= size
    for table in (column, cell):
        findings(table, None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", TOYS)
def test_toy_sets_are_left_in_peace(name):
    assert findings(TOYS[name].sample(3000, numpy_generator(0, "test"))[0], None) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda x: x[:, 1], ["column 'd' is a copy of column 'b'"]),
        (lambda x: 2.54 * x[:, 1] + 3, ["column 'd' rises or falls exactly with column 'b'"]),
        (lambda x: -np.exp(x[:, 0]), ["column 'd' rises or falls exactly with column 'a'"]),
        # Equal but for the rows that were corrected.
        (lambda x: np.where(rng().random(N) < 0.2, x[:, 2], x[:, 1]), ["'d' equals, in ", "of the rows, column 'b'"]),
        (lambda x: x[:, 0] + x[:, 1], ["'d' is linear in others (1 × column 'a', 1 × column 'b')"]),
        (lambda x: 2 * x[:, 0] - x[:, 2] + 1e-3 * x[::-1, 1], ["linear in others (2 × column 'a', -1 × column 'c')"]),
        (lambda x: 100 - x.sum(axis=1), ["'d' and column 'a', column 'b', column 'c' add up to the same in every row"]),
    ],
)  # fmt: skip
def test_columns_that_others_determine(last, words):
    x = gaussian()
    found = one(np.c_[x, last(x)], list("abcd"))
    assert all(word in found for word in words), found
    assert "data.drop: [d]" in found


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda x: x[:, 0] ** 2, "'d' is a function of column 'a'"),
        (lambda x: np.sin(3 * x[:, 1]), "'d' is a function of column 'b'"),
        (lambda x: x[:, 0] ** 2 + 1e-3 * x[::-1, 1], "'d' is a function of column 'a'"),
        (lambda x: 3 * x[:, 0] * x[:, 2], "'d' is a product of powers of others (column 'a'^1, column 'c'^1)"),
        (lambda x: x[:, 1] / x[:, 0] ** 2, "'d' is a product of powers of others (column 'a'^-2, column 'b'^1)"),
        (
            lambda x: np.linalg.norm(x, axis=1),
            "square of column 'd' is linear in those of others (1 × column 'a'², 1 × column 'b'², 1 × column 'c'²)",
        ),
    ],
)
def test_columns_that_are_other_functions_of_others(last, words):
    x = gaussian()
    found = findings(np.c_[x, last(x)], list("abcd"))
    assert words in found[0], found
    assert "data.drop: [d]" in found[0]


def test_points_on_a_circle():
    turn = rng().uniform(0, 6, N)
    assert "the square of column 'y' is linear" in one(np.c_[np.cos(turn), np.sin(turn)], ["x", "y"])
    beside = 1 + 0.05 * rng().normal(size=N)
    assert findings(beside[:, None] * np.c_[np.cos(turn), np.sin(turn)], ["x", "y"]) == []


@pytest.mark.parametrize("rows", [60, 200, N])
def test_rows_far_out_and_clusters_far_apart_make_no_dependence(rows):
    x = gaussian(4, rows)
    found = findings(x / rng().normal(size=(rows, 1)), None)  # one factor for all columns: a few rows outshine the rest
    assert not any("joint density" in line for line in found), found
    apart = x + rng().normal(scale=25, size=(3, 4))[rng().integers(0, 3, rows)]
    assert not any("joint density" in line for line in findings(apart, None))


def test_shares_of_a_whole_written_in_percent():
    shares = np.round(100 * rng().dirichlet([2, 3, 4], size=N), 2)
    assert any("add up to the same" in found for found in findings(shares, None))


def test_counters():
    x = gaussian(1)[:, 0]
    for column, word in ((np.arange(N), "rises by 1 from row to row"), (0.25 * np.arange(N)[::-1] + 7, "0.25"),
                         (rng().permutation(N) + 5, "holds every step of 1 exactly once")):  # fmt: skip
        found = one(np.c_[column, x], ["id", "x"])
        assert found.startswith("column 'id': ")
        assert word in found
        assert "data.drop: [id]" in found


@pytest.mark.parametrize(
    ("column", "remedy"),
    [
        (lambda g: np.exp(3 * g.normal(size=N)), "{pay: log}"),
        (lambda g: np.exp(3 * g.normal(size=N)) - 0.5, "{pay: power}"),
        (lambda g: g.standard_cauchy(N), "{pay: rank}"),
        (lambda g: np.r_[g.normal(size=N - 5), 1e4, 2e4, -3e4, 1e5, 5e5], "{pay: rank}"),
    ],
)
def test_heavy_tails(column, remedy):
    column = column(np.random.default_rng(1))
    found = one(np.c_[column, gaussian(1)], ["pay", "x"])
    assert "column 'pay': heavy tails" in found
    assert f"data.transform: {remedy}" in found
    assert findings(np.c_[column, gaussian(1)], ["pay", "x"], transformed=[0]) == []


@pytest.mark.parametrize(
    ("ends", "said"),
    [((0, 2 * np.pi), "[0.0, 6.283185307179586]"), ((-np.pi, np.pi), "[-3.14"), ((0, 360), "[0.0, 360.0]"),
     ((-180, 180), "[-180.0, 180.0]"), ((0, 24), "[0.0, 24.0]"), ((0, 365), "[0.0, 365.25]"),
     ((0, 1440), "[0.0, 1440.0]")],
)  # fmt: skip
def test_angles(ends, said):
    column = rng().uniform(*ends, N)
    found = one(np.c_[gaussian(1), column], ["x", "angle"])
    assert "column 'angle': looks like" in found
    assert f"data.transform: {{angle: {{circular: {said}" in found
    middle = sum(ends) / 2 + (ends[1] - ends[0]) * np.clip(0.12 * gaussian(1)[:, 0], -0.49, 0.49)
    assert findings(middle[:, None], None) == []  # nothing at the ends


def test_rows_that_are_there_more_than_once():
    x = gaussian()
    assert "2,000 of 4,000 rows are copies of others" in one(np.r_[x, x])
    assert "data.copies: drop" in one(np.r_[x, x])
    assert "100 of 2,100 rows are copies" in one(np.r_[x, x[:100]])
    assert "1,800 of 2,000 rows are copies" in one(np.tile(x[:200], (10, 1)))  # not: few values in every column
    assert findings(np.r_[x, x[:2]], None) == []
    for size in (1e-7, 1e-4, 1e-3):
        assert "% of the rows nearly repeat another" in one(np.r_[x, x + size * x[::-1]])
    assert "100% of the rows" in one(np.r_[x, np.round(x, 3)])
    assert "10% of the rows" in one(np.r_[x, x[:100] + 1e-4])
    assert findings(np.r_[x, x + 0.1 * x[::-1]], None) == []
    assert "repeat another in all columns but one" in one(np.r_[x, np.c_[x[:, :2], rng().normal(size=N)]])
    assert "drop all but the first" in one(np.r_[x, x], remedies=ESTIMATOR)


def test_whole_numbers_are_named_once():
    found = findings(rng().integers(0, 5, size=(N, 3)).astype(float), None)
    assert [line.partition(":")[0] for line in found] == ["column 1", "column 2", "column 3"]


@pytest.mark.parametrize("mark", [-999, -99.0, 9999, 1e20])
def test_marks_of_missing_values(mark):
    x = gaussian(2)
    x[[3, 5, 8], 0] = mark
    found = one(x, ["a", "b"])
    assert found.startswith(f"column 'a': {mark:g} in 3 of 2,000 rows, far from all others")
    assert "data.missing: drop" in found
    x[:, 0] = np.where(np.arange(N) % 30 == 0, mark, x[:, 0])
    assert "70 of" in one(x, ["a", "b"])  # not: dequantise it
    assert findings(999 - 100 * rng().random((N, 1)) * (np.arange(N) > 0)[:, None], None) == []  # 999, but near others


def test_rows_of_marks_alone_are_counted_though_they_are_copies():
    x = gaussian(2)
    x[:8] = -999
    assert all("-999 in 8 of 2,000 rows" in line for line in findings(x, None)[:2])


def test_rows_in_the_order_of_time():
    def follows(share, rows=N):
        steps, found = gaussian(2, rows), np.zeros((rows, 2))
        for k in range(1, rows):
            found[k] = share * found[k - 1] + steps[k]
        return found

    for rows in (follows(0.5), follows(0.9), np.round(follows(0.95)), np.cumsum(gaussian(2), axis=0)):
        assert any("rows resemble the one before" in line for line in findings(rows, ["a", "b"]))
    assert "(column 'a' by 0.7" in one(np.c_[follows(0.9)[:, 0], gaussian(1)], ["a", "b"])
    x = gaussian()
    for rows in (x, np.r_[x, x + 5], x + np.arange(N)[:, None] / 300, rng().permutation(follows(0.9))):
        assert findings(rows, None) == []
    assert "rises from row to row" in one(x[np.argsort(x[:, 0])], ["a", "b", "c"])


def test_clocks_in_numbers():
    x, g = gaussian(1)[:, 0], np.random.default_rng(1)
    seconds = 1.6e9 + g.uniform(0, 1e8, N)
    assert "seconds since 1970" in one(np.c_[seconds, x], ["time", "x"])
    assert findings(np.c_[seconds, x], ["income", "x"]) == []
    assert "milliseconds since 1970" in one(np.c_[np.floor(1e3 * seconds), x], ["income", "x"])
    hours, months = 100 * (g.permutation(N) % 24), 1_000_000 * g.integers(0, 12, N)
    minutes = 202_001_010_000 + months + hours + g.permutation(N) % 60
    minutes = np.unique(minutes)
    assert "read as dates" in one(np.c_[g.permutation(minutes), x[: len(minutes)]], ["at", "x"])
    assert findings(np.c_[1e9 + 1e-3 * x, gaussian(2)[:, 1]], None) == []  # coarse steps are no clock


def test_keys_and_dates_in_numbers():
    x, g = gaussian(1)[:, 0], np.random.default_rng(1)
    gaps = np.sort(g.choice(10 * N, N, replace=False)).astype(float)
    assert "whole numbers that rise from row to row" in one(np.c_[gaps, x], ["n", "x"])
    shuffled = g.permutation(gaps)
    assert "a number for every row" in one(np.c_[shuffled, x], ["patient_id", "x"])
    assert findings(np.c_[shuffled, x], ["income", "x"]) == []
    days = 20_200_000 + 100 * g.integers(1, 13, 300) + g.integers(1, 29, 300) + 10_000 * g.integers(-90, 90, 300)
    days = np.unique(days).astype(float)
    assert "read as dates" in one(np.c_[days, x[: len(days)]], ["day", "x"])
