"""Tables: what is read, what is refused and how that is said, splitting, standardising."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparseflows.data.files.reading import fingerprint
from sparseflows.data.tables import loading
from sparseflows.data.tables.choosing import Expected
from sparseflows.data.tables.tabular import Standardiser, recurring_columns, split, validate
from sparseflows.errors import InputError


def load_table(path):
    return loading.load_table(path).values


def load_points(path, columns):
    return loading.load_points(path, Expected(columns)).values


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(40, 3))


def save(folder, array, name="rows.npy"):
    path = folder / name
    np.save(path, array)
    return path


def write(folder, text, name="rows.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(call, *args):
    """The message of the InputError that `call` raises; always a single line."""
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- reading


def test_npy_round_trip(tmp_path, rows):
    assert np.array_equal(load_table(save(tmp_path, rows)), rows)
    save(tmp_path, np.asfortranarray(rows), "columns.npy").rename(tmp_path / "ROWS.NPY")
    assert np.array_equal(load_table(str(tmp_path / "ROWS.NPY")), rows)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float16, np.longdouble, ">f8"])
def test_real_dtypes_become_float64(tmp_path, dtype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    table = load_table(save(tmp_path, array))
    assert table.dtype == np.float64
    assert table.tolist() == [[0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("header", ["", "a,b,c", "# a,b,c", '"a","b, too","c"', "id,1,2", "Na,Ca,Mg"])
def test_csv_with_and_without_header(tmp_path, rows, header):
    ending = "\r\n" if " " in header else "\n"
    lines = ([header] if header else []) + [",".join(map(repr, row)) for row in rows.tolist()]
    path = write(tmp_path, ending.join(lines) + ending)
    assert np.array_equal(load_table(path), rows)  # repr and back is exact


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,5\n4,4",  # no last line end
        "\ufeff1,2\n3,5\n4,4\n",  # byte-order mark
        " 1 , 2\n3,5 \n\n4,4\n\n",  # blanks, blank lines
        '"1","2"\n"3","5"\n"4","4"\n',
        "\n\nx,y\n1,2\n3,5\n4,4\n",
        "1e0,2.\n+3,5\n4.0,4\n",
    ],
)
def test_csv_variants(tmp_path, text):
    assert load_table(write(tmp_path, text)).tolist() == [[1, 2], [3, 5], [4, 4]]


def test_a_single_column_is_fine(tmp_path):
    assert load_table(write(tmp_path, "x\n1\n2\n")).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,2\n3,x\n", ["line 2, column 2", "'x' is not a number"]),
        ("a,b\n1,2\n3,4\nfive,6\n", ["line 4, column 1", "'five'"]),
        ("1,2\n3,4,5\n", ["line 2 has 3 cells, the first line has 2"]),
        ("a,b\n1,2\n3\n", ["line 3 has 1 cell, the first line has 2"]),
        ("1,2\n3,\n", ["line 2, column 2", "missing"]),
        ("1,\n3,4\n", ["line 1, column 2", "missing"]),
        ("1,NA\n3,4\n", ["line 1, column 2", "'NA'", "missing"]),
        ("1;2\n3;x\n", ["line 2, column 2", "separated by ';'"]),
        ("1,2\n3,1_000\n", ["line 2, column 2", "'1_000'"]),
        ("1,2\n3,nan\n5,6\n", ["line 2, column 2", "'nan'", "data.missing: drop"]),
        ("a,b\n1,2\n3,1e999\n5,6\n", ["1 value NaN or infinite", "row 2, column 'b'"]),
        ("", ["is empty"]),
        ("a,b\n1,2\n1,3\n", ["column 'a' (always 1)"]),
        (b"1,2\n\xff\xfe,3\n", ["UTF-8"]),
        ("1," + "9" * 200_000 + "x\n2,3\n", ["line 1"]),
    ],
)
def test_csv_refusals(tmp_path, text, parts):
    path = write(tmp_path, text)
    message = refusal(load_table, path)
    assert message.startswith(f"{path}: ")
    assert all(part in message for part in parts), message
    assert len(message) < 400


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in refusal(load_table, tmp_path / "nothing.npy")
    assert "is a folder" in refusal(load_table, tmp_path)
    assert refusal(load_table, "a\0b.npy")
    assert refusal(load_table, "x" * 5000 + ".npy")


@pytest.mark.parametrize("name", ["rows.json", "rows", "rows.npz", "rows.gz"])
def test_unknown_suffix(tmp_path, name):
    message = refusal(load_table, write(tmp_path, "1,2\n", name))
    assert "give one of .npy, .csv" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    assert "not a regular file" in refusal(load_table, tmp_path / "rows.csv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read any file")
def test_a_closed_file(tmp_path, rows):
    path = save(tmp_path, rows)
    path.chmod(0)
    assert "cannot be read" in refusal(load_table, path)


def test_truncated_npy(tmp_path, rows):
    whole = save(tmp_path, rows).read_bytes()
    for length in (0, 3, 8, 50, len(whole) - 8):
        message = refusal(load_table, write(tmp_path, whole[:length], "cut.npy"))
        assert "cut off" in message or ".npy format" in message


def test_header_that_claims_too_much(tmp_path, rows):
    whole = save(tmp_path, rows).read_bytes()
    claimed = whole.replace(b"(40, 3), }", b"(9999999999999999, 3), }")[:-14]
    refusal(load_table, write(tmp_path, claimed, "claim.npy"))


def test_other_formats_under_the_suffix(tmp_path, rows):
    assert "numpy.save" in refusal(load_table, write(tmp_path, "1,2\n3,4\n", "text.npy"))
    assert "numpy.save" in refusal(load_table, write(tmp_path, pickle.dumps([1]), "pickle.npy"))
    np.savez(tmp_path / "many.npz", a=rows)
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    assert "archive" in refusal(load_table, tmp_path / "many.npy")


def test_objects_are_not_unpickled(tmp_path):
    path = save(tmp_path, np.array([[Path("x"), 1], [2, 3]], dtype=object))
    assert "Python objects" in refusal(load_table, path)


# --- validation


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.arange(5.0), "1 dimension (shape (5,))"),
        (np.float64(3), "0 dimensions"),
        (np.zeros((0, 3)), "is empty"),
        (np.zeros((3, 0)), "is empty"),
        (np.ones((3, 2)) * 1j, "complex numbers"),
        (np.array([[b"1"], [b"2"]]), "text"),
        (np.array([[1, None], [2, 3]]), "Python objects"),
        (np.zeros(4, dtype=[("a", float)]), "records"),
        (np.zeros((3, 2), dtype="datetime64[s]"), "dates or times"),
        (
            np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, -np.inf]]),
            "3 values NaN or infinite, the first in row 2",
        ),
        (np.random.default_rng(0).normal(size=(2, 3)), "2 rows and 3 columns, fewer rows than columns"),
        (np.array([[1.0, 5.0], [1.0, 6.0]]), "column 1 (always 1)"),
        (np.full((20, 10), 0.1), "column 6 (always 0.1) and 4 more"),
        (np.array([[1.5]]), "column 1 (always 1.5)"),
    ],
)
def test_refused_arrays(array, part):
    message = refusal(validate, array, "somewhere")
    assert message.startswith("somewhere: ")
    assert part in message


def test_long_doubles_beyond_float64_count_as_infinite():
    huge = np.array([[np.longdouble("1e400")], [np.longdouble(1)]])
    if np.isinf(huge[0, 0]):
        pytest.skip("long double is no wider than float64 here")
    assert "NaN or infinite" in refusal(validate, huge, "somewhere")


def test_validation_copies_and_accepts_lists():
    array = np.array([[1.0, 2.0], [3.0, 5.0]])
    table = validate(array, "x")
    table[0, 0] = 9
    assert array[0, 0] == 1
    assert validate([[1, 2], [3, 5]], "x").dtype == np.float64


def test_points_to_score(tmp_path, rows):
    assert np.array_equal(load_points(save(tmp_path, rows), 3), rows)
    assert load_points(save(tmp_path, np.ones((1, 3), dtype=int)), 3).tolist() == [[1, 1, 1]]
    message = refusal(load_points, save(tmp_path, rows), 4)
    assert "has 3 columns, the flow was trained on 4" in message
    assert "NaN" in refusal(load_points, save(tmp_path, rows * np.nan), 3)
    assert "is empty" in refusal(load_points, save(tmp_path, rows[:0]), 3)
    assert "1 dimension" in refusal(load_points, save(tmp_path, rows[0]), 3)


# --- recurring values


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [100, 3_000, 300_000])
def test_continuous_columns_raise_no_warning(n, dtype):
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=n), rng.exponential(size=n), 100 + rng.normal(size=n)]
    assert recurring_columns(np.stack(columns, axis=1).astype(dtype).astype(np.float64)) == []


def test_spikes_and_grids_are_named():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2000, 5))
    array[:100, 1] = -7.25  # 5 % in one value
    array[:, 2] = rng.integers(0, 2, 2000)  # binary
    array[:, 3] = rng.integers(0, 900, 2000)  # counts: no value above 1 %, few of them distinct
    array[:5, 4] = 0.0  # too few to matter
    warnings = recurring_columns(array)
    assert [w.split(":")[0] for w in warnings] == ["column 2", "column 3", "column 4"]
    assert "-7.25 in 5.0% of the rows" in warnings[0]
    assert "2 distinct values in 2,000 rows" in warnings[1]
    assert all("dequantise" in w and "drop" in w for w in warnings)


def test_a_few_repeats_in_few_rows_are_no_spike():
    array = np.arange(100.0).reshape(-1, 1)
    array[:5] = 0.0
    assert recurring_columns(array) == []
    array[:7] = 0.0
    assert len(recurring_columns(array)) == 1


def test_real_rows_have_one_spike():
    folder = os.environ.get("SPARSEFLOWS_DATA")
    if not folder or not (Path(folder) / "miniboone_rows.npy").exists():
        pytest.skip("needs miniboone_rows.npy in the folder that SPARSEFLOWS_DATA names")
    table = load_table(Path(folder) / "miniboone_rows.npy")
    assert table.shape == (3284, 43)
    assert table.dtype == np.float64
    (warning,) = recurring_columns(table)
    assert warning.startswith("column 5: -1.06942 in 9.1% of the rows")


# --- splitting


@given(rows=st.integers(20, 200), val=st.floats(0.05, 0.4), test=st.floats(0.05, 0.4), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_split_loses_and_repeats_no_row(rows, val, test, seed):
    array = np.arange(rows * 2).reshape(rows, 2)
    parts = split(array, val, test, np.random.default_rng(seed))
    assert sorted(np.concatenate(parts)[:, 0]) == array[:, 0].tolist()
    assert [len(p) for p in parts[1:]] == [round(rows * val), round(rows * test)]
    again = split(array, val, test, np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_split_shuffles():
    train, validation, test = split(np.arange(100).reshape(-1, 1), 0.1, 0.2, np.random.default_rng(0))
    assert (len(train), len(validation), len(test)) == (70, 10, 20)
    assert (np.diff(train[:, 0]) < 0).any()


@pytest.mark.parametrize(("rows", "val", "test"), [(1, 0.1, 0.1), (4, 0.1, 0.5), (10, 0.5, 0.5), (9, 0.6, 0.6)])
def test_a_part_without_rows_is_refused(rows, val, test):
    message = refusal(split, np.zeros((rows, 2)), val, test, np.random.default_rng(0))
    assert "each needs at least 1" in message
    assert f"{val:g}" in message


# --- standardising

tables = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8),
    elements=st.floats(-1e6, 1e6),
)


def spread_enough(table):
    return (np.ptp(table, axis=0) > 1e-3).all()


@given(tables.filter(spread_enough))
@settings(max_examples=60, deadline=None)
def test_standardiser_round_trips(table):
    for fit in (Standardiser.fit_columns, Standardiser.fit_scalar):
        standardiser = fit(table)
        np.testing.assert_allclose(standardiser.invert(standardiser.apply(table)), table, rtol=1e-12, atol=1e-9)
        again = Standardiser.from_dict(json.loads(json.dumps(standardiser.to_dict())))
        assert np.array_equal(again.shift, standardiser.shift)
        assert np.array_equal(again.scale, standardiser.scale)
        assert again.log_scale == standardiser.log_scale == pytest.approx(np.log(again.scale).sum())


def test_columns_have_their_own_statistics(rows):
    table = rows * [1, 10, 100] + [5, 0, -5]
    z = Standardiser.fit_columns(table).apply(table)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(z.std(axis=0), 1)


def test_scalar_statistics_are_shared(rows):
    table = rows * [1, 10, 100]
    standardiser = Standardiser.fit_scalar(table)
    z = standardiser.apply(table)
    assert z.mean() == pytest.approx(0, abs=1e-14)
    assert z.std() == pytest.approx(1)
    assert np.ptp(standardiser.scale) == np.ptp(standardiser.shift) == 0
    assert standardiser.log_scale == pytest.approx(3 * np.log(table.std()))


def test_log_scale_is_the_change_of_density(rows):
    """N(0, I) in standardised coordinates is N(shift, scale²) in the data's own."""
    from scipy import stats

    standardiser = Standardiser.fit_columns(rows * [1, 10, 100])
    x = rows[:5]
    own = stats.norm(standardiser.shift, standardiser.scale).logpdf(x).sum(axis=1)
    standardised = stats.norm.logpdf(standardiser.apply(x)).sum(axis=1)
    np.testing.assert_allclose(own, standardised - standardiser.log_scale)


@pytest.mark.parametrize("fit", [Standardiser.fit_columns, Standardiser.fit_scalar])
def test_constant_training_columns_are_refused(fit):
    message = refusal(fit, np.array([[1.0, 2.0], [0.5, 2.0]]), "wine, 2 training rows")
    assert message.startswith("wine, 2 training rows: ")
    assert "column 2 (always 2)" in message


@pytest.mark.parametrize("size", [1e308, 1e-310])
def test_columns_of_extreme_size_are_refused(size):
    table = np.array([[size, 1.0], [-size, 0.5], [size, 0.2]])
    assert "rescale" in refusal(Standardiser.fit_columns, table)


def test_shapes_of_a_standardiser_are_checked():
    assert "differ" in refusal(Standardiser, np.zeros(2), np.ones(3))
    assert "above 0" in refusal(Standardiser, np.zeros(2), np.array([1.0, 0.0]))


# --- files


def test_fingerprint(tmp_path):
    path = write(tmp_path, "abc")
    assert fingerprint(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert "no such file" in refusal(fingerprint, tmp_path / "nothing")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, sparseflows.data.splits as s; s.known_sets();"
        "print([m for m in ('torch', 'scipy', 'sklearn', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
