"""analysis bounds: what was promised and observed, as the run's metrics have it."""

import csv
import json
import shutil

import pytest
from support.small_runs import call, train

from analysis.cli.bounds import bounds_of, sheet
from analysis.tables.text import text

TOY = {"name": "gaussian_spiral", "n_train": 60}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    prune = {"methods": ["sipp", "pfp"], "keep_ratios": [0.6, 0.3], "protocols": ["one_shot"], "sample": 8}
    return train(tmp_path_factory.mktemp("bounds"), TOY, prune=prune)


def test_text_json_and_csv_say_the_same(run, capsys):
    document = json.loads(call(capsys, "bounds", run, "--json").out)
    layers = document["layers"]
    assert [(one["method"], one["stage"]) for one in layers] == [
        *[("sipp", 1)] * 3,
        *[("sipp", 2)] * 3,
        *[("pfp", 1)] * 2,
        *[("pfp", 2)] * 2,
    ]
    assert all(one["protocol"] == "one_shot" and one["kept"] for one in layers)
    assert all(0 <= one["observed"] <= one["promised"] <= 1 for one in layers)
    with (run / "analysis" / "bounds.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["observed"]) for row in rows] == [one["observed"] for one in layers]
    said = call(capsys, "bounds", run).out
    assert said.strip() == (run / "analysis" / "bounds.txt").read_text().strip()
    assert "on the sample 10 of 10 layers kept their promise" in said
    assert "one_shot.pfp-s0/2" in said


def test_what_is_damaged_is_not_read(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    before = call(capsys, "bounds", run, "--json").out
    path = copy / "metrics.jsonl"
    path.write_text(path.read_text().replace('"observed": 0', '"observed": 1'))
    assert json.loads(call(capsys, "bounds", copy, "--json").out)["layers"] == json.loads(before)["layers"]
    record = copy / "cascades/one_shot.pfp-s0/stages/2/record.json"
    record.write_text(record.read_text().replace('"observed": 0', '"observed": 1'))
    said = call(capsys, "bounds", copy)
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        f"analysis: {record}: missing or damaged; `sparseflows run` with the same settings makes it again\n"
    )


def test_a_run_without_promises_is_refused(tmp_path, capsys):
    run = train(tmp_path, TOY, prune={"methods": ["magnitude"], "keep_ratios": [0.5], "protocols": ["one_shot"]})
    said = call(capsys, "bounds", run)
    assert said.status == 2
    assert "no stage was pruned by sipp or pfp" in said.err
    assert said.err.count("\n") == 1


def test_other_lines_of_the_metrics_are_left_out():
    promise = {"method": "sipp", "seed": 1, "stage": 2, "layer": "blocks.0.field.layers.1.weight", "promised": 0.5}
    promise |= {"observed": 0.25, "mean_promised": 0.4, "mean_observed": 0.1, "kept": True}
    found = bounds_of(
        [json.dumps({"method": "sipp", "seed": 1, "stage": 2, "step": 3, "loss": 1.0}), json.dumps(promise)]
    )
    assert [(one.protocol, one.layer, one.fresh_kept) for one in found] == [("cascade", promise["layer"], None)]
    said = text(sheet("name", found))
    assert "sipp-s1/2" in said
    assert "0/1" in said
    assert "0.5 (0.4)" in said
    assert "fresh rows" not in said
