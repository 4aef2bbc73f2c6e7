"""The settings of a table of one's own: what they take, and how anything else is refused."""

import pytest
import yaml

from sparseflows.errors import InputError
from sparseflows.specs.yaml import dump_spec, load_spec

TABLE = {"name": "t", "data": {"name": "table", "path": "t.csv"}, "train": {"steps": 1}}


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "t.yaml"

    def load(*settings, **data):
        path.write_text(yaml.safe_dump(TABLE | {"data": TABLE["data"] | data}))
        return load_spec(path, settings).data

    return load


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("header=yes", "header", True),
        ("header=no", "header", False),
        ("header=auto", "header", "auto"),
        ("index=false", "index", False),
        ("columns=[a, 3]", "columns", ["a", 3]),
        ("drop=date", "drop", ["date"]),
        ("drop=2", "drop", [2]),
        ("missing=drop", "missing", "drop"),
        ("copies=drop", "copies", "drop"),
        ("transform.pay=log", "transform", {"pay": "log"}),
        ("transform={a: {circular: [0, 360]}, '2': rank}", "transform", {"a": {"circular": [0, 360]}, "2": "rank"}),
    ],
)
def test_values_that_are_taken(read, setting, name, value, tmp_path):
    found = read(f"data.{setting}")
    assert getattr(found, name) == value
    spec = load_spec(tmp_path / "t.yaml", [f"data.{setting}"])
    (tmp_path / "again.yaml").write_text(dump_spec(spec))
    assert load_spec(tmp_path / "again.yaml") == spec


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("header=maybe", "data.header is auto, yes or no, not 'maybe'"),
        ("index=1", "data.index is auto, yes or no, not '1'"),
        ("columns={a: b}", "data.columns is a list of columns, by name or place from 1"),
        ("drop=[1.5]", "data.drop is a list of columns, by name or place from 1, not 1.5"),
        ("drop=[-1]", "not -1"),
        ("missing=fill", "'fill' is not one of 'refuse', 'drop'"),
        ("copies=apart", "'apart' is not one of 'together', 'drop'"),
        ("transform=log", "data.transform is a mapping of columns, as {income: log}"),
        ("transform.a=logs", "transform of 'a': 'logs' is not one of log, power, rank"),
        ("transform.a=logit", "transform of 'a': logit takes its two ends, as {logit: [0, 1]}"),
        ("transform.a={logit: [1, 0]}", "low below high"),
        ("transform.a={circular: [0, 1, 2]}", "low below high"),
        ("transform.a={log: [0, 1]}", "low below high"),
        ("transform.a=3", "low below high"),
    ],
)
def test_values_that_are_refused(read, setting, words):
    with pytest.raises(InputError) as caught:
        read(f"data.{setting}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["header=yes", "drop=a", "missing=drop", "copies=drop", "transform.a=log"])
def test_settings_of_a_table_are_no_settings_of_a_toy_set(read, setting):
    with pytest.raises(InputError, match=r"is for a table of your own \(data.name: table\), not for 'moons'"):
        read("data.name=moons", "data.path=null", f"data.{setting}")
