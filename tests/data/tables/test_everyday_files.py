"""Tables as people write them: each gives the right numbers, or one line that names the remedy."""

import bz2
import csv
import gzip
import io
import lzma
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest

from sparseflows.data.tables.choosing import Expected, Reading
from sparseflows.data.tables.loading import load_points, load_table
from sparseflows.errors import InputError

A, B = [1.5, -2.25, 7.0, 0.125, 3.5], [10.5, 20.25, 3.0, 40.0625, 5.5]
ROWS = np.array([A, B]).T
FRAME = pd.DataFrame({"a": A, "b": B})
PLAIN = FRAME.to_csv(index=False)


def german(separator=";"):
    return FRAME.to_csv(index=False, sep=separator, decimal=",")


def reversed_index():
    return FRAME.set_index(pd.Index([4, 0, 3, 1, 2]))


# --- files that are read: name, content, how, names of the columns

READ = {
    "plain": ("r.csv", PLAIN, {}, "ab"),
    "tabs": ("r.tsv", FRAME.to_csv(index=False, sep="\t"), {}, "ab"),
    "tabs in .txt": ("r.txt", FRAME.to_csv(index=False, sep="\t"), {}, "ab"),
    "semicolons": ("r.csv", FRAME.to_csv(index=False, sep=";"), {}, "ab"),
    "bars": ("r.csv", FRAME.to_csv(index=False, sep="|"), {}, "ab"),
    "blanks": ("r.txt", "a b\n1.5   10.5\n -2.25 20.25\n7 3\n0.125 40.0625\n3.5 5.5\n", {}, "ab"),
    "decimal commas": ("r.csv", german(), {}, "ab"),
    "decimal commas and tabs": ("r.txt", german("\t"), {}, "ab"),
    "decimal commas without a header": ("r.csv", german().partition("\n")[2], {}, None),
    "decimal commas in quotes": (
        "r.csv",
        FRAME.to_csv(index=False, decimal=",", quoting=csv.QUOTE_NONNUMERIC),
        {},
        "ab",
    ),
    "mark of UTF-8": ("r.csv", "\ufeff" + PLAIN, {}, "ab"),
    "UTF-16": ("r.csv", PLAIN.encode("utf-16"), {}, "ab"),
    "UTF-32": ("r.csv", PLAIN.encode("utf-32"), {}, "ab"),
    "UTF-16 without a mark": ("r.txt", FRAME.to_csv(index=False, sep="\t").encode("utf-16-le"), {}, "ab"),
    "Windows-1252": ("r.csv", PLAIN.replace("a,b", "größe,b").encode("cp1252"), {}, ("größe", "b")),
    "CRLF, blank lines": ("r.csv", "\r\n" + PLAIN.replace("\n", "\r\n\r\n"), {}, "ab"),
    "exponents of Fortran": (
        "r.txt",
        "a b\n" + "".join(f"{x:.6E} {y:.6E}\n".replace("E", "D") for x, y in ROWS),
        {},
        "ab",
    ),
    "quoted": ("r.csv", '"a","b"\n' + "".join(f'"{x}","{y}"\n' for x, y in ROWS), {}, "ab"),
    "names with separators": ("r.csv", PLAIN.replace("a,b", '"a, in m","b"'), {}, ("a, in m", "b")),
    "comments above": ("r.csv", "# made in 2020\n# by hand, twice\n" + PLAIN, {}, "ab"),
    "remarks above": ("r.csv", "% by hand, twice\n% in 2020\n" + PLAIN, {}, "ab"),
    "remarks with slashes": ("r.csv", "// by hand\n" + PLAIN, {}, "ab"),
    "names in a remark": ("r.txt", "% a b\n" + PLAIN.partition("\n")[2].replace(",", " "), {}, "ab"),
    "a name with a mark of its own": ("r.csv", PLAIN.replace("a,b", "%a,b"), {}, ("%a", "b")),
    "comments below": ("r.csv", PLAIN + "# end\n", {}, "ab"),
    "savetxt": ("r.txt", "# a b\n" + "".join(f"{x:.18e} {y:.18e}\n" for x, y in ROWS), {}, "ab"),
    "separators at line ends": ("r.csv", PLAIN.replace("\n", ",\n"), {}, "ab"),
    "separators at the ends of rows": ("r.csv", PLAIN.replace("\n", ",\n").replace("b,", "b"), {}, "ab"),
    "index": ("r.csv", FRAME.to_csv(), {}, "ab"),
    "index from 1": ("r.csv", FRAME.set_index(pd.RangeIndex(1, 6)).to_csv(), {}, "ab"),
    "shuffled index": ("r.csv", reversed_index().to_csv(), {}, "ab"),
    "index with repetitions": ("r.csv", FRAME.set_index(pd.Index([4, 4, 1, 1, 2])).to_csv(), {}, "ab"),
    "two indices of numbers": (
        "r.csv",
        FRAME.set_index(pd.MultiIndex.from_tuples([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)])).to_csv(),
        {},
        "ab",
    ),
    "index of times": ("r.csv", FRAME.set_index(pd.Index([0.0, 0.5, 1.25, 3.0, 3.5])).to_csv(), {}, "ab"),
    "index of column numbers, with repetitions": (
        "r.csv",
        pd.DataFrame(ROWS, index=[4, 4, 1, 1, 2]).to_csv(),
        {},
        "01",
    ),
    "index of parts": ("r.csv", FRAME.set_index(pd.Index([0, 1, 2, 0, 1])).to_csv(), {}, "ab"),
    "index of dates": ("r.csv", FRAME.set_index(pd.date_range("2020-01-01", periods=5)).to_csv(), {}, "ab"),
    "index of words": ("r.csv", FRAME.set_index(pd.Index(list("vwxyz"))).to_csv(), {}, "ab"),
    "two indices": ("r.csv", FRAME.set_index([pd.Index(list("vvxyz")), pd.Index(range(5))]).to_csv(), {}, "ab"),
    "index written twice": ("r.csv", pd.read_csv(io.StringIO(FRAME.to_csv())).to_csv(), {}, "ab"),
    "rows named by R": (
        "r.txt",
        '"a" "b"\n' + "".join(f'"{k}" {x} {y}\n' for k, (x, y) in enumerate(ROWS, 1)),
        {},
        "ab",
    ),
    "rows of an index, as R shuffles them": (
        "r.txt",
        '"a" "b"\n' + "".join(f'"{k}" {x} {y}\n' for k, (x, y) in zip((9, 3, 12, 5, 1), ROWS, strict=True)),
        {},
        "ab",
    ),
    "column of numbers, with an index": ("r.csv", pd.DataFrame(ROWS, columns=[0.5, 1.5]).to_csv(), {}, ("0.5", "1.5")),
    "column numbers": ("r.csv", pd.DataFrame(ROWS).to_csv(index=False), {}, "01"),
    "column numbers and index": ("r.csv", pd.DataFrame(ROWS).to_csv(), {}, "01"),
    "years as names": ("r.csv", PLAIN.replace("a,b", "2019,2020").replace(",3.0", ",3.00"), {}, ("2019", "2020")),
    "header on demand": ("r.csv", PLAIN.replace("a,b", "7,1"), {"header": True}, "71"),
    "columns by name": ("r.csv", FRAME.assign(c=1.0, d="x").to_csv(), {"columns": ("a", "b")}, "ab"),
    "a mark of comments within cells": (
        "r.csv",
        FRAME.assign(c="no. #2")[["c", "a", "b"]].to_csv(index=False),
        {"drop": ("c",)},
        "ab",
    ),
    "comments between rows": ("r.csv", PLAIN.replace("7.0", "# later\n7.0") + "# end, of it\n", {}, "ab"),
    "comments beside words": (
        "r.csv",
        FRAME.assign(c="x")[["c", "a", "b"]].to_csv(index=False) + "# end\n",
        {"drop": ("c",), "missing": "drop"},
        "ab",
    ),
    "errors of a spreadsheet": ("r.csv", PLAIN + "#N/A,1\n#NA,2\n", {"missing": "drop"}, "ab"),
    "blanks around marks": ("r.csv", PLAIN + "1, NA \n", {"missing": "drop"}, "ab"),
    "columns by place": ("r.csv", FRAME.assign(c="x").to_csv(index=False), {"columns": (1, 2)}, "ab"),
    "dropped text": ("r.csv", FRAME.assign(day="2020-01-01", ok=True).to_csv(), {"drop": ("day", "ok")}, "ab"),
    "dropped rows": ("r.csv", PLAIN + "NA,1\n3,\n?,#N/A\n", {"missing": "drop"}, "ab"),
    "gz": ("r.csv.gz", gzip.compress(PLAIN.encode(), mtime=0), {}, "ab"),
    "bz2": ("r.tsv.bz2", bz2.compress(FRAME.to_csv(index=False, sep="\t").encode()), {}, "ab"),
    "xz": ("r.txt.xz", lzma.compress(PLAIN.encode()), {}, "ab"),
}
WITH_INDEX = {kind for kind in READ if "index" in kind or "indices" in kind} | {
    "rows named by R",
    "columns by name",
    "dropped text",
}


@pytest.mark.parametrize("kind", READ)
def test_everyday_files_give_the_numbers_that_are_in_them(tmp_path, kind):
    name, content, how, names = READ[kind]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = load_table(path, Reading(**how))
    np.testing.assert_array_equal(table.values, ROWS)
    assert table.names == (None if names is None else tuple(names))
    told = " ".join(table.notes)
    assert ("data.index" in told) == (kind in WITH_INDEX)
    assert ("decimal mark" in told) == ("decimal" in kind)


def test_a_zip_with_one_file(tmp_path):
    for name in ("r.zip", "r.csv.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("inside/r.csv", PLAIN)
            archive.writestr("__MACOSX/._r.csv", b"\0")
        np.testing.assert_array_equal(load_table(tmp_path / name).values, ROWS)


@pytest.mark.parametrize("suffix", ["parquet", "feather", "xlsx"])
def test_typed_files_give_the_same_table(tmp_path, suffix):
    pytest.importorskip("openpyxl" if suffix == "xlsx" else "pyarrow")
    path = tmp_path / f"r.{suffix}"
    frame = FRAME.assign(
        day=pd.date_range("2020", periods=5), kind=pd.Categorical(list("uuvvw")), ok=[True, False] * 2 + [True]
    )
    getattr(frame, {"xlsx": "to_excel"}.get(suffix, f"to_{suffix}"))(path)
    table = load_table(path, Reading(drop=("day", "kind", "ok")))
    np.testing.assert_array_equal(table.values, ROWS)
    assert table.names == ("a", "b")
    message = refusal(path)
    for word in ("'day' holds dates", "'kind' holds text", "'ok' holds yes and no", "data.drop: [day, kind, ok]"):
        assert word in message


@pytest.mark.parametrize("suffix", ["parquet", "xlsx"])
def test_missing_values_of_typed_files(tmp_path, suffix):
    pytest.importorskip("openpyxl" if suffix == "xlsx" else "pyarrow")
    path = tmp_path / f"r.{suffix}"
    frame = pd.concat([FRAME, pd.DataFrame({"a": [None], "b": [1.0]})])
    getattr(frame, {"xlsx": "to_excel"}.get(suffix, f"to_{suffix}"))(path, index=False)
    assert "row 6, column 'a': a value is missing" in refusal(path)
    np.testing.assert_array_equal(load_table(path, Reading(missing="drop")).values, ROWS)


# --- files that are refused, and what the line must name

REFUSED = {
    "dates": (
        FRAME.assign(date=pd.date_range("2020", periods=5)).to_csv(index=False),
        ["'date' holds dates", "data.drop: [date]"],
    ),
    "times": (FRAME.assign(t=["10:00", "10:05", "11:00", "12:30", "12:31"]).to_csv(), ["'t' holds dates or times"]),
    "German dates": (FRAME.assign(t="31.12.2020").to_csv(), ["'t' holds dates or times"]),
    "words": (FRAME.assign(who="bob").to_csv(), ["'who' holds text ('bob')", "data.drop: [who]"]),
    "booleans": (
        FRAME.assign(ok=[True, False, True, True, False]).to_csv(),
        ["'ok' holds yes and no", "data.drop: [ok]"],
    ),
    "a name to quote": (FRAME.assign(**{"who, exactly": "bob"}).to_csv(), ['data.drop: ["who, exactly"]']),
    "thousands": ('a,b\n"1,234.5",2\n"2,345",3\n"3,456",4\n', ["'a' holds numbers with thousands", "1234.5"]),
    "one cell with thousands": ("a;b\n1,5;2\n1.234,5;3\n0,5;4\n", ["line 3, column 1 ('a')", "thousands separator"]),
    "thousands by blanks": ("a;b\n1 234,5;2\n2 345,5;3\n", ["thousands"]),
    "decimal commas in one column": ("x\n1,5\n2,5\n3,5\n", ["line 2 has 2 cells", "decimal mark"]),
    "a missing cell": (PLAIN + "1,NA\n", ["line 7, column 2 ('b')", "'NA'", "data.missing: drop"]),
    "a short line": (PLAIN + "1\n", ["line 7 has 1 cell, the first line has 2"]),
    "a long line": (PLAIN + "1,2,3\n", ["line 7 has 3 cells, the first line has 2"]),
    "a word": (PLAIN + "1,x\n", ["line 7, column 2 ('b')", "'x' is not a number"]),
    "a word far down": (PLAIN + "1,2.5\n" * 60_000 + "1,x\n", ["line 60007, column 2 ('b')", "'x' is not a number"]),
    "a short line far down": (PLAIN + "1,2.5\n" * 60_000 + "1\n", ["line 60007 has 1 cell"]),
    "a long line far down": (PLAIN + "1,2.5\n" * 60_000 + "1,2,3\n", ["line 60007 has 3 cells"]),
    "an error of a spreadsheet in a first cell": (PLAIN + "#DIV/0!,2\n", ["line 7, column 1 ('a'): '#DIV/0!'"]),
    "units": (PLAIN.replace("b\n", "b\nm,kg\n", 1), ["line 2, column 1 ('a'): 'm'", "put # before"]),
    "a title": ("My table\n" + PLAIN, ["line 2 has 2 cells, the first line has 1", "put # before"]),
    "infinite": (PLAIN + "1,inf\n", ["row 6, column 'b'", "infinite"]),
    "empty": ("", ["is empty"]),
    "a header alone": ("a,b\n", ["is empty"]),
    "constant": (FRAME.assign(c=2.0).to_csv(), ["column 'c' (always 2)"]),
    "no text": (b"\x89PNG\r\n\x1a\n\0\xff\xfe" + bytes(range(128, 256)), ["r.csv: "]),
}


def refusal(path, **how):
    with pytest.raises(InputError) as caught:
        load_table(path, Reading(**how))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_names_of_several_lines_are_one_line_in_messages(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(FRAME.assign(who="bob").to_csv(index=False).replace("who", '"who\n(name)"'))
    assert 'data.drop: ["who\\n(name)"]' in refusal(path)
    assert load_table(path, Reading(drop=("who\n(name)",))).names == ("a", "b")
    assert "there are: a, b, who (name)" in refusal(path, drop=("d",))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_of_numbers_is_refused_by_name(tmp_path, kind):
    content, words = REFUSED[kind]
    path = tmp_path / "r.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(path)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"drop": ("c",)}, ["data.drop says 'c'", "there are: a, b"]),
        ({"columns": ("aa",)}, ["data.columns says 'aa'", "did you mean"]),
        ({"columns": (3,)}, ["data.columns says '3'", "from 1 to 2"]),
        ({"columns": ("a", 1)}, ["'a' twice"]),
        ({"drop": ("a", "b")}, ["leave no column"]),
    ],
)
def test_columns_that_are_not_there(tmp_path, how, words):
    path = tmp_path / "r.csv"
    path.write_text(PLAIN)
    message = refusal(path, **how)
    assert all(word in message for word in words), message


def test_places_of_columns_whose_names_are_numbers_are_ambiguous(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(pd.DataFrame(np.c_[ROWS, ROWS[:, 0] ** 2]).to_csv(index=False))
    assert load_table(path, Reading(drop=("2",))).names == ("0", "1")
    assert "quotation marks" in refusal(path, drop=(2,))


def test_what_was_decided_can_be_decided_otherwise(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(FRAME.to_csv())
    assert load_table(path, Reading(index=False)).values.shape == (5, 3)
    path.write_text(pd.DataFrame(ROWS).to_csv(index=False))
    assert load_table(path, Reading(header=False)).values.shape == (6, 2)
    path.write_text("0,1\n1,0\n1,1\n0,0\n")  # all whole numbers: a row, and it is said
    table = load_table(path)
    assert table.values.shape == (4, 2)
    assert "data.header: yes" in table.notes[0]
    assert load_table(path, Reading(header=True)).names == ("0", "1")


WHOLE = "".join(f"{a},{b},{c}\n" for a, b, c in np.random.default_rng(0).integers(0, 90, (30, 3)))
FRACTIONS = "".join(f"{a},{b},{c}\n" for a, b, c in np.random.default_rng(0).normal(size=(30, 3)))


@pytest.mark.parametrize(
    ("text", "names", "noted"),
    [
        ("0,1,2\n" + WHOLE, ("0", "1", "2"), True),
        ("2019,2020,2021\n" + WHOLE, ("2019", "2020", "2021"), True),
        ("2019,2020,2021\n" + FRACTIONS, ("2019", "2020", "2021"), True),
        ("400,420,450\n" + FRACTIONS, ("400", "420", "450"), True),  # wavelengths
        ("0,1,2\n" + "1,2,0\n0,1,2\n2,1,0\n" * 5, None, True),  # ranks
        ("7,3,5\n" + FRACTIONS, None, True),
        ("7,3,5\n" + WHOLE, None, False),
        ("# mine, too, and more\n2019,2020,2021\n" + FRACTIONS, ("2019", "2020", "2021"), True),
        ("2019\n" + FRACTIONS.replace(",", "\n"), None, True),
        ("2019,2020\n" + "5,3\n8,7\n" * 9, None, True),
        (WHOLE, None, False),
        (FRACTIONS, None, False),
    ],
)
def test_first_lines_of_numbers(tmp_path, text, names, noted):
    path = tmp_path / "r.csv"
    path.write_text(text)
    table = load_table(path)
    assert table.names == names
    assert len(table.values) == text.count("\n") - text.count("#") - (names is not None)
    assert any("data.header" in note for note in table.notes) == noted


def test_a_first_column_that_counts_the_rows_is_an_index_without_a_header_too(tmp_path):
    rng = np.random.default_rng(0)
    rows, path = rng.normal(size=(20, 2)), tmp_path / "r.csv"
    path.write_text(pd.DataFrame(rows).to_csv(header=False))
    table = load_table(path)
    np.testing.assert_array_equal(table.values, rows)
    assert "data.index" in table.notes[0]
    np.testing.assert_array_equal(load_points(path, Expected(2)).values, rows)
    np.testing.assert_array_equal(load_points(path, Expected(3)).values[:, 1:], rows)


def test_every_bit_of_a_number_is_read(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2000, 3)) * 10.0 ** np.random.default_rng(1).integers(
        -300, 300, (2000, 1)
    )
    path = tmp_path / "r.csv"
    pd.DataFrame(rows, columns=list("abc")).to_csv(path, index=False)
    np.testing.assert_array_equal(load_table(path).values, rows)
    pd.DataFrame(rows, columns=list("abc")).to_csv(path, index=False, sep=";", decimal=",")
    np.testing.assert_array_equal(load_table(path).values, rows)


def test_a_first_line_of_words_and_numbers_is_a_row_where_the_rows_are_like_it(tmp_path):
    path = tmp_path / "r.data"
    path.write_text("".join(f"{x},{y},{'setosa' if x > 0 else 'virginica'}\n" for x, y in ROWS))
    assert "column 3 holds text ('setosa'); leave it out with data.drop: [3]" in refusal(path)
    table = load_table(path, Reading(drop=(3,)))
    np.testing.assert_array_equal(table.values, ROWS)
    assert (table.names, table.decided) == (None, ("header",))
    assert "data.header: yes takes it for names" in table.notes[0]
    path.write_text("country,2019,2020\n" + "".join(f"c{k},{x},{y}\n" for k, (x, y) in enumerate(ROWS)))
    table = load_table(path, Reading(drop=("country",)))
    np.testing.assert_array_equal(table.values, ROWS)
    assert table.names == ("2019", "2020")
    assert "data.header: no reads it as a row" in table.notes[0]
    path.write_text("id,7,2\n" + "".join(f"c{k},{x + 0.01},{y + 0.01}\n" for k, (x, y) in enumerate(ROWS)))
    assert load_table(path, Reading(drop=("id",))).names == ("7", "2")


GRID = "".join(f"{a:.3f},{b:.3f},{c:.3f}\n" for a, b, c in np.random.default_rng(1).normal(size=(30, 3)))


@pytest.mark.parametrize(
    ("first", "a_header"),
    [
        ("0.0,1.0,2.0", True),
        ("0.5,1.5,2.5", True),
        ("1960.0,1961.0,1962.0", True),
        ("400.25,402.5,403.75", True),  # beyond all that is below
        ("0.125,0.25,0.75", False),
        ("0.125,0.250,0.375", False),
    ],
)
def test_a_first_line_of_fractions(tmp_path, first, a_header):
    path = tmp_path / "r.csv"
    path.write_text(f"{first}\n{GRID}")
    table = load_table(path)
    assert table.names == (tuple(first.split(",")) if a_header else None)
    assert len(table.values) == 31 - a_header
    assert any("data.header" in note for note in table.notes) == (a_header or first.endswith("375"))


def test_an_unnamed_first_column_of_data_is_kept_and_noted(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(PLAIN.replace("a,b", ",b"))
    table = load_table(path)
    np.testing.assert_array_equal(table.values, ROWS)
    assert table.names == ("column 1", "b")
    assert load_table(path, Reading(drop=("column 1",))).names == ("b",)
    assert "data.drop: [column 1]" in table.notes[0]


def test_halves_of_numbers_with_decimal_commas_are_noted(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("0,1257,-1,321\n2,0049,-5,3567\n-0,25,3,5\n7,125,8,25\n")
    assert any("decimal commas" in note for note in load_table(path).notes)
    path.write_text("# one, two\n1,257e+02\n-1,3e-03\n")
    assert any("decimal commas" in note for note in load_table(path).notes)
    path.write_text("12,1257,-1,321\n2,49,-5,3567\n-3,25,3,5\n7,125,8,25\n")
    assert load_table(path).notes == ()


@pytest.mark.parametrize(
    ("content", "word"),
    [(gzip.compress(b"a", mtime=0), ".csv.gz"), (b"PK\3\4", ".xlsx"), (b"PAR1", ".parquet"), (b"\x93NUMPY", ".npy")],
)
def test_files_whose_name_says_text_but_who_are_none(tmp_path, content, word):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    message = refusal(path)
    assert "not text; give it a name that ends in" in message
    assert message.endswith(word)


# --- points to score


def points(tmp_path, text, names=("a", "b"), **how):
    path = tmp_path / "p.csv"
    path.write_text(text)
    return load_points(path, Expected(2, names), Reading(**how))


def test_columns_to_score_are_found_by_name(tmp_path):
    np.testing.assert_array_equal(points(tmp_path, PLAIN).values, ROWS)
    turned = points(tmp_path, FRAME[["b", "a"]].to_csv())
    np.testing.assert_array_equal(turned.values, ROWS)
    assert any("another order" in note for note in turned.notes)
    np.testing.assert_array_equal(points(tmp_path, PLAIN.partition("\n")[2]).values, ROWS)  # by place
    np.testing.assert_array_equal(points(tmp_path, PLAIN, names=None).values, ROWS)
    one = points(tmp_path, "0,1\n1,0\n", names=("1", "0"))  # a header, since the run has these names
    assert one.values.tolist() == [[0, 1]]


def test_files_without_names_are_taken_by_place(tmp_path):
    numbered = pd.DataFrame(ROWS)
    for text in (numbered.to_csv(header=False), numbered.to_csv(index=False), numbered.to_csv()):
        np.testing.assert_array_equal(points(tmp_path, text, drop=("who",)).values, ROWS)


def test_a_file_without_names_is_read_as_the_runs_own_was(tmp_path):
    text = FRAME.assign(who="bob", c=[0.5, 3.5, 1.5, 7.5, 2.5]).to_csv(header=False, index=False)
    got = points(tmp_path, text, names=None, drop=(3, 4))
    np.testing.assert_array_equal(got.values, ROWS)
    text = FRAME.assign(c=[0.5, 3.5, 1.5, 7.5, 2.5])[["c", "a", "b"]].to_csv(header=False, index=False)
    for how in ({"drop": (1,)}, {"columns": (2, 3)}):
        np.testing.assert_array_equal(points(tmp_path, text, names=None, **how).values, ROWS)
    with pytest.raises(InputError, match="has 3 columns, the flow was trained on 2"):
        points(tmp_path, text, names=None)
    with pytest.raises(InputError, match="has 3 columns, the flow was trained on 2"):  # not: the index and a
        points(tmp_path, FRAME.to_csv(header=False), names=None, columns=(1, 2))


def test_columns_that_the_run_left_out_may_be_there(tmp_path):
    text = FRAME.assign(who="bob").to_csv()
    np.testing.assert_array_equal(points(tmp_path, text, drop=("who",)).values, ROWS)
    np.testing.assert_array_equal(points(tmp_path, PLAIN, drop=("who",)).values, ROWS)
    np.testing.assert_array_equal(points(tmp_path, text, columns=("a", "b")).values, ROWS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FRAME.rename(columns={"b": "c"}).to_csv(), ["lacks 'b'", "has 'c'", "the columns a, b"]),
        (FRAME.assign(c=1.0).to_csv(), ["has 'c', which the run has never seen"]),
        (FRAME[["a"]].to_csv(), ["lacks 'b'"]),
        ("1.5,2.5,3.5\n2,3,4\n", ["has 3 columns, the flow was trained on 2 (a, b)"]),
    ],
)
def test_other_columns_than_the_runs_are_refused_by_name(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        points(tmp_path, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n3,4\n#5,6\n7,8\n", "left out 1 line that is a comment and would otherwise be a row in line 3"),
        (
            "#1,2\n3,4\n5,6\n#7,8\n",
            "left out 2 lines that are comments and would otherwise be rows, the first in line 1",
        ),
        ("a,b\n1,2\n# 3,4\n5,6\n", "left out 1 line that is a comment and would otherwise be a row in line 3"),
        ("a;b\n1,5;2\n#3;4,5\n5;6\n", "left out 1 line that is a comment and would otherwise be a row in line 3"),
        ("1 2\n3 4\n  #5   6\n7 8\n", "left out 1 line that is a comment and would otherwise be a row in line 3"),
        ("1\n2\n#3\n4\n", "left out 1 line that is a comment and would otherwise be a row in line 3"),
        ("% 1,2\n% a,b\n3,4\n5,6\n", "left out 1 line that is a comment and would otherwise be a row in line 1"),
        ("# 2020\n1\n2\n# 3\n4\n", ""),
        ("# of 3,4 rows\n1,2\n# later, perhaps\n3,4\n# 1,2,3\n", ""),
    ],
)
def test_rows_that_are_commented_out_are_told(tmp_path, text, said):
    (tmp_path / "r.csv").write_text(text)
    notes = [note for note in load_table(tmp_path / "r.csv").notes if "comment" in note]
    assert notes == [said] * bool(said)


def test_comments_and_lines_within_columns_of_text(tmp_path):
    path = tmp_path / "r.csv"
    rows = [f"g{k},{x},{y}" for k, (x, y) in enumerate(ROWS)]
    header = "who,a,b\n"
    path.write_text(header + "\n".join(["#g,0.5,0.5", *rows, "# g,1.5,0.5"]))
    np.testing.assert_array_equal(load_table(path, Reading(drop=("who",))).values, ROWS)
    path.write_text(header + "\n".join([f'"#{row}'.replace(",", '",', 1) for row in rows]))
    np.testing.assert_array_equal(load_table(path, Reading(drop=("who",))).values, ROWS)
    path.write_text(header + "\n".join([f'"two\n# lines of {row}'.replace(",", '",', 1) for row in rows]))
    np.testing.assert_array_equal(load_table(path, Reading(drop=("who",))).values, ROWS)
    for opened in ([2], [1, 3]):
        path.write_text(header + "\n".join(['"' * (k in opened) + row for k, row in enumerate(rows)]))
        assert "a quotation mark is not closed" in refusal(path, drop=("who",))


# --- what it takes


def test_a_typed_file_without_its_library(tmp_path, monkeypatch):
    path = tmp_path / "r.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "sparseflows[tables]"' in refusal(path)


def test_damaged_files(tmp_path):
    for name, content in (
        ("r.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-9]),
        ("r.zip", b"PK"),
        ("r.csv.xz", b"xx"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert "damaged" in refusal(path)
    pytest.importorskip("pyarrow")
    (tmp_path / "r.parquet").write_bytes(b"PAR1 no more")
    assert "cannot be read" in refusal(tmp_path / "r.parquet")


def test_a_refusal_needs_no_pandas(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(PLAIN + "1,x\n")
    code = (
        "import sys\nfrom sparseflows.data.tables.loading import load_table\n"
        f"try:\n    load_table({str(path)!r})\nexcept ValueError as error:\n    print('pandas' in sys.modules, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
    assert "line 7" in done.stdout


# --- stranger ones


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", "sep=;\n" + german()),
        ("r.csv", PLAIN.replace("\n", "\r")),
        ("r.csv", PLAIN.replace("a,b", '"a\n(m)",b')),
        ("r.csv", german().replace(";", " ; ")),
        ("r.CSV.GZ", gzip.compress(PLAIN.encode("utf-16"), mtime=0)),
        ("r.csv", PLAIN.replace("10.5", "1.05e1").replace("3.5", "+35E-1")),
        ("r.csv", PLAIN.replace("a,b", "a\u2028,b")),
        ("r.txt", PLAIN.replace(",", "   ")),
    ],
)
def test_stranger_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    np.testing.assert_array_equal(load_table(path).values, ROWS)


@pytest.mark.parametrize(
    "text", ["a;b\n1.950,00;-4,50\n-12,25;5.750,50\n", "a\tb\n1,950.00\t-4.50\n-12.25\t5,750.50\n"]
)
def test_thousands_and_decimal_marks_together(tmp_path, text):
    path = tmp_path / "r.csv"
    path.write_text(text)
    assert "thousands" in refusal(path)


@pytest.mark.parametrize("text", ["a;b\n950;1\n1,234;2\n12,000;3\n", "a;b\n950;1\n1.234;2\n12.000;3\n"])
def test_separators_of_thousands_that_could_be_decimal_marks(tmp_path, text):
    path = tmp_path / "r.csv"
    path.write_text(text)
    assert "'a'" in refusal(path)
    assert "thousands" in refusal(path)


def test_decimal_commas_that_come_late(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("a;b\n" + "".join(f"{k % 7};{k % 11}\n" for k in range(5000)) + "1,5;2\n")
    assert load_table(path).values[-1].tolist() == [1.5, 2]
    path.write_text("a;b\n" + "".join(f"{k % 7};{k % 11}\n" for k in range(90_000)) + "1,5;2\n")
    assert "line 90002, column 1 ('a'): '1,5' has a decimal comma" in refusal(path)


def test_a_column_that_is_always_missing(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("a,b,c\n" + "".join(f"{x},,{y}\n" for x, y in ROWS))
    assert "column 2 ('b'): a value is missing" in refusal(path)
    assert "in 100% of them in column 'b'" in refusal(path, missing="drop")
    assert "data.drop: [b]" in refusal(path, missing="drop")


def test_a_point_beyond_all_numbers_costs_one_row(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(PLAIN + "1e999,-inf\n")
    assert load_points(path, Expected(2)).values[-1].tolist() == [np.inf, -np.inf]
    np.save(tmp_path / "p.npy", np.r_[ROWS, [[np.inf, 1.0]]])
    np.testing.assert_array_equal(load_points(tmp_path / "p.npy", Expected(2)).values[:-1], ROWS)


def test_points_with_a_missing_value_have_another_remedy(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(PLAIN + "1,\n")
    with pytest.raises(InputError) as caught:
        load_points(path, Expected(2), Reading())
    assert "line 7, column 2 ('b'): a value is missing" in str(caught.value)
    assert "data.missing" not in str(caught.value)
    kept = load_points(path, Expected(2), Reading(missing="drop")).values  # each row has its place
    assert np.isnan(kept).tolist() == [[False, False]] * (len(kept) - 1) + [[False, True]]


# --- whatever a DataFrame writes


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("header", ["names", "numbers", "none"])
@pytest.mark.parametrize("rows", [12, 3000])
def test_all_that_to_csv_writes_gives_the_same_array(tmp_path, separator, decimal, index, header, rows):
    if separator == decimal:
        pytest.skip("not told apart by anyone")
    values = np.random.default_rng(rows).normal(size=(rows, 3)) * [1, 1e-3, 1e5]
    frame = pd.DataFrame(values, columns=["a", "b", "c"] if header == "names" else None)
    path = tmp_path / ("r.tsv.gz" if separator == "\t" else "r.csv")
    frame.to_csv(path, sep=separator, decimal=decimal, index=index, header=header != "none", encoding="utf-8-sig")
    table = load_table(path)
    np.testing.assert_array_equal(table.values, values)
    assert table.names == {"names": ("a", "b", "c"), "numbers": ("0", "1", "2"), "none": None}[header]
    assert any("data.index" in note for note in table.notes) == index
    assert table.decided == ("header",) * (header == "numbers") + ("index",) * index


def test_columns_of_one_name_are_told_apart_and_noted(tmp_path):
    (tmp_path / "t.csv").write_text("a,a,b\n" + "\n".join(f"{k},{k * k % 7},{-k * 3 % 11}" for k in range(12)))
    table = load_table(tmp_path / "t.csv")
    assert table.names == ("a", "a.1", "b")
    assert any("several columns are called 'a'; the next is 'a.1' here" in note for note in table.notes)


def test_a_signalling_nan_is_one_that_is_missing(tmp_path):
    array = np.ones((30, 2), dtype=np.float32) * np.arange(30, dtype=np.float32)[:, None]
    array.view(np.uint32)[3, 1] = 0x7F800001  # NumPy warns where such a one becomes float64
    np.save(tmp_path / "r.npy", array)
    with warnings.catch_warnings(action="error"), pytest.raises(InputError, match="row 4, column 2"):
        load_table(tmp_path / "r.npy")
