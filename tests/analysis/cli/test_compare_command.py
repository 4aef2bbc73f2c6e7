"""`analysis compare` on run folders made by hand."""

from __future__ import annotations

import csv
import io
import json
import struct
from functools import partial

import numpy as np
import pytest
from support import small_runs
from support.compare_rows import classifier_of, run_of, series, stage_of

from analysis.cli import compare as command
from analysis.compare.compare import compare
from analysis.compare.formats import to_csv, to_json, to_markdown, to_text
from analysis.compare.types import KINDS
from analysis.plots.compare import compare_arrays, compare_figure
from analysis.plots.looks import look
from analysis.runs.records import read_run

TEXTS = {"compare.txt", "compare.csv", "compare.md", "compare.json"}
FIGURES = {"compare.png", "compare.pdf", "compare.npz"}
GAPS = {"magnitude": [0.10, 0.12, 0.15], "random_weights": [0.20, 0.225, 0.25]}


@pytest.fixture
def call(capsys):
    return partial(small_runs.call, capsys)


@pytest.fixture
def no_figure(monkeypatch):
    """Figures take longer than all else here; two tests draw them."""
    monkeypatch.setattr(command, "compare_figure", lambda arrays: {})


def comparisons_of(protocols=("cascade",), extra=()):
    """Two criteria at two prune ratios in every protocol, with a control and a dense flow."""
    pruned = [
        series(protocol, method, stage, [stage * gap for gap in gaps])
        for protocol in protocols
        for method, gaps in GAPS.items()
        for stage in (1, 2)
    ]
    control = [series("control", "dense", stage, [0.08, 0.09, 0.08]) for stage in (1, 2)]
    return compare(run_of(series("cascade", "dense", 0, [0.09, 0.10, 0.10]), *pruned, *control, *extra))


@pytest.fixture
def rows(row_of):
    """The same as rows of a file, in the cascade alone."""
    found = [row_of("dense", seed, 0, 1000, 0.6 + 0.01 * seed, keep_ratio_target="") for seed in range(3)]
    for stage, params in ((1, 500), (2, 200)):
        for method, gaps in GAPS.items():
            found += [row_of(method, seed, stage, params, 0.5 + stage * gap) for seed, gap in enumerate(gaps)]
        control = {"protocol": "control", "keep_ratio_target": params / 1000}
        found += [row_of("dense", seed, stage, 1000, 0.59, **control) for seed in range(3)]
    return found


def test_prints_the_text_and_writes_the_files(call, make_run, rows):
    run = make_run(rows)
    said = call("compare", run)
    assert said.status == 0, said.err
    assert said.out == (run / "analysis" / "compare.txt").read_text()
    assert said.out.startswith("rings (nll), run run: criteria and protocols compared\nKL gap, lower is better; ")
    assert "magnitude beats random at 2 of 2 prune ratios: by " in " ".join(said.out.split())
    assert said.err.count("\n") == 1
    assert {path.name for path in (run / "analysis").iterdir()} == TEXTS | FIGURES
    assert max(map(len, said.out.splitlines())) <= 100


def test_json_is_one_document(call, make_run, rows, no_figure):
    run = make_run(rows)
    said = call("compare", run, "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out, parse_constant=small_runs.refuse)
    assert found == json.loads((run / "analysis" / "compare.json").read_text())
    assert found["run"] == str(run)
    assert [one["method"] for one in found["stages"]][:3] == ["dense", "magnitude", "magnitude"]
    first = found["stages"][1]
    assert (first["stage"], first["seeds"], first["params"], first["prune_ratio"]) == (1, [0, 1, 2], 500, 0.5)
    assert first["value"] == pytest.approx((0.10 + 0.12 + 0.15) / 3)
    # two against random, four against control
    assert len(found["differences"]) == 6
    difference = found["differences"][0]
    assert (difference["against"], difference["pairs"], difference["verdict"]) == ("random", 3, "beats")
    assert difference["difference"] == pytest.approx((0.10 + 0.105 + 0.10) / 3)
    assert difference["unit"] == "nats"
    assert [(one["method"], one["against"], one["ratios"]) for one in found["verdicts"]] == [
        ("magnitude", "random", 2),
        ("magnitude", "control", 2),
        ("random_weights", "control", 2),
    ]
    assert found["verdicts"][0]["sentence"] in [one.replace("\n  ", " ") for one in found_sentences(run)]


def test_without_a_control_the_command_that_adds_one_is_on_one_line(call, make_run, rows, no_figure):
    run = make_run([row for row in rows if row.get("protocol") != "control"])
    command = f"sparseflows run {run}/spec.yaml --out {run.parent} --set 'prune.protocols=[cascade,control]'"
    assert call("compare", run).out.endswith(
        f"\nWhat makes more of it testable, in a run folder of its own:\n  {command}\n"
    )
    assert json.loads(call("compare", run, "--json").out)["remedies"] == [command]


def found_sentences(run):
    text = (run / "analysis" / "compare.md").read_text()
    return [line.removeprefix("- ") for line in text.replace("\\", "").splitlines() if line.startswith("- After")]


def test_csv_keeps_every_digit():
    (found,) = comparisons_of()
    read = list(csv.DictReader(io.StringIO(to_csv([found]))))
    assert len(read) == len(found.differences) == 6
    for cells, one in zip(read, found.differences, strict=True):
        assert float(cells["difference"]) == one.difference.value
        assert float(cells["se"]) == one.difference.se
        assert float(cells["p_holm"]) == one.p_holm
        assert (cells["verdict"], cells["survives_holm"]) == (one.verdict, str(int(one.survives)))
        assert (cells["protocol"], cells["method"], cells["against"]) == (one.protocol, one.method, one.against)


def test_markdown_has_whole_tables_and_says_what_survives():
    (found,) = comparisons_of()
    lines = [line for line in to_markdown([found]).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {7, 8}
    assert sum("**" in line for line in lines) == sum(one.survives for one in found.differences) > 0
    assert "\N{NO-BREAK SPACE}" not in to_text([found])


def test_several_runs(call, make_run, rows, row_of, tmp_path, no_figure):
    one, two = make_run(rows, folder="one"), make_run(rows, folder="two")
    refused = call("compare", one, two)
    assert refused.status == 2
    assert "--out DIR" in refused.err
    lonely = make_run([row_of("magnitude", 0, 1, 500, 0.7)], folder="lonely")
    said = call("compare", one, two, lonely, "--out", tmp_path / "out", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["run"] == [str(one), str(two), str(lonely)]
    assert len(found["differences"]) == 12
    assert f"{lonely}: nothing to hold the pruned stages against; add random_weights to prune.methods" in said.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == TEXTS


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("dense alone", "set prune.methods"),
        ("nothing to hold against", "or add control to prune.protocols"),
        ("missing", "no such folder"),
        ("twice", "given twice"),
    ],
)
def test_bad_input_is_one_line(call, make_run, row_of, tmp_path, case, message):
    dense = [row_of("dense", seed, 0, 1000, 0.6) for seed in range(3)]
    pruned = [row_of("magnitude", seed, 1, 500, 0.7) for seed in range(3)]
    run = make_run(dense if case == "dense alone" else dense + pruned)
    args = {"missing": [tmp_path / "nowhere"], "twice": [run, run]}.get(case, [run])
    said = call("compare", *args)
    assert said.status == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (run / "analysis").exists()


def test_later_columns_are_read_where_they_are(make_run, rows):
    run = make_run(rows)
    assert {stage.steps_total for stage in read_run(run).stages} == {None}
    path = run / "results.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head + ",steps_total,loss_val", *(f"{line},{k},0.25" for k, line in enumerate(lines))]))
    stages = read_run(run).stages
    assert [stage.steps_total for stage in stages] == list(range(len(rows)))
    assert {stage.loss_val for stage in stages} == {0.25}


def test_one_document_of_classifiers_and_failures_has_no_nan():
    pruned = [classifier_of("cascade", "snip", seed, 1, 0.9) for seed in (0, 1)]
    blind = [classifier_of("cascade", "random_weights", seed, 1, 0.8) for seed in (1, 2)]
    found = compare(run_of(pruned, blind, [stage_of("cascade", "snip", 2, 1, None)]))
    document = json.loads(to_json(found, ["run"]), parse_constant=small_runs.refuse)
    (one,) = document["differences"]
    assert (one["unit"], one["se"], one["p"], one["seeds"]) == ("points", None, None, [1])
    assert one["difference"] == pytest.approx(10.0)
    assert "test accuracy (%)" in to_text(found)


def test_arrays_are_the_comparison():
    (found,) = comparisons_of()
    arrays = compare_arrays(found)
    assert arrays["value"].tolist() == [one.value.value for one in found.stages]
    assert arrays["value_se"].tolist() == [one.value.se for one in found.stages]
    # control is unpruned, and is drawn at the ratio of the pruned stage it belongs to
    assert arrays["prune_ratio"][arrays["protocol"] == "control"] == pytest.approx([0.5, 0.8])
    random = [one for one in found.differences if one.against == "random"]
    assert arrays["random_difference"].tolist() == [one.difference.value for one in random]
    assert arrays["random_pairs"].tolist() == [3, 3]


def test_the_figure_has_a_panel_a_protocol():
    # values of one seed, far apart and on both sides of zero in one panel, all positive in the other
    rows = [stage_of(one, "magnitude", 0, stage, 10.0**stage) for one in ("cascade", "one_shot") for stage in (1, 2)]
    rows += [stage_of("cascade", "random_weights", 0, stage, -(10.0 ** (2 * stage))) for stage in (1, 2)]
    files = compare_figure(compare_arrays(compare(run_of(rows))[0]))
    width, height = struct.unpack(">II", files["png"][16:24])
    assert width == 1520  # two panels; one is 1,080 wide
    assert height > 1000  # two rows of them
    with np.load(io.BytesIO(files["npz"])) as stored:
        assert stored["random_difference"].tolist() == [-110.0, -10_100.0]
    with pytest.raises(ValueError, match="no pruned stage"):
        compare_figure(compare_arrays(compare(run_of(series("cascade", "dense", 0, [0.1, 0.2])))[0]))


def test_no_two_criteria_look_the_same():
    names = [name for name in KINDS if name not in ("unstructured", "structured")]  # the older names of two of them
    assert len({look(name) for name in names}) == len(names)
    assert look("unstructured") == look("magnitude")
    assert look("structured") == look("neuron_l1")
