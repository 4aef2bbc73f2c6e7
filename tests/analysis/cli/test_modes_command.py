"""`analysis modes` on two runs of seconds: one of a set with modes, one of a table."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support import small_runs

from analysis import analyse
from analysis.analyses import modes
from analysis.plots.modes import mode_quality_arrays, mode_quality_figure
from analysis.runs.study import Study
from sparseflows.evaluation import sampling
from sparseflows.evaluation.sampling import noise_rows
from sparseflows.experiment import inference as use
from sparseflows.flow.solvers.ode import SolveFailed, Status

FIGURES = {f"mode_quality.{kind}" for kind in ("png", "pdf", "npz")}
SHARES = {f"good_within_{k}{end}" for k in (2, 3, 5) for end in ("", "_se")}
CLOSENESS = {
    f"{name}{end}" for name in ("density", "coverage", "sliced_wasserstein") for end in ("", "_se", "_data", "_data_se")
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_runs.train(tmp_path_factory.mktemp("plane"), {"name": "gaussian_spiral", "n_train": 400})


@pytest.fixture(scope="module")
def trained_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    np.save(folder / "rows.npy", np.random.default_rng(0).standard_normal((300, 3)))
    only = {"methods": ["structured"], "keep_ratios": [0.7], "retrain": {"steps": 10}}
    return small_runs.train(folder, {"name": "table", "path": str(folder / "rows.npy")}, prune=only)


@pytest.fixture
def plane(trained, tmp_path):
    """A copy: analyses write into the folder."""
    return shutil.copytree(trained, tmp_path / "plane")


@pytest.fixture
def table(trained_table, tmp_path):
    return shutil.copytree(trained_table, tmp_path / "table")


@pytest.fixture
def call(capsys):
    return partial(small_runs.call, capsys)


@pytest.fixture
def quick(call, monkeypatch):
    """The same without figures, which take a second each."""
    monkeypatch.setattr(modes, "mode_quality_figure", lambda arrays: {})
    return call


def test_modes_of_a_mixture(call, plane):
    said = call("modes", plane, "--samples", 400, "--json")
    stages = small_runs.stages_of(said)
    assert [stage["method"] for stage in stages] == ["dense", "unstructured", "structured"]
    for stage in stages:
        assert set(stage) >= SHARES | CLOSENESS | {"good_se", "modes_captured", "mode_shares", "seconds"}
        assert (stage["modes_total"], stage["samples"], stage["samples_seed"], stage["seed"]) == (10, 400, 0, 0)
        assert stage["perfect_within_2"] == pytest.approx(1 - math.exp(-2))
        assert stage["good_se"] == max(stage[f"good_within_{k}_se"] for k in (2, 3, 5))
        assert stage["data_within_2"] == pytest.approx(0.8647, abs=0.1)  # 200 rows: ± 0.024
        assert stage["data_modes_captured"] == 10
    assert {path.name for path in (plane / "analysis").iterdir()} == {"cache", "modes.json", "modes.csv", *FIGURES}
    rows = list(csv.DictReader((plane / "analysis" / "modes.csv").open()))
    assert [float(row["good_within_3"]) for row in rows] == [stage["good_within_3"] for stage in stages]


def test_the_shares_are_those_of_the_samples_of_sparseflows_sample(quick, plane):
    """Another way to the same number: the samples by `draw_samples`, the distances by hand."""
    (stage,) = small_runs.stages_of(
        quick("modes", plane, "--samples", 300, "--seed", 5, "--stage", "dense-s0/0", "--json")
    )
    splits = Study.open(plane).splits
    points = splits.standardiser.apply(use.draw_samples(plane, "dense-s0/0", 300, 5)[0])
    offsets = points[:, None] - splits.modes.means
    squares = np.einsum("nmd,mde,nme->nm", offsets, np.linalg.inv(splits.modes.covariances), offsets)
    for k in (2, 3, 5):
        # the two are solved in other chunks, to 1e-5: a sample at the very edge may fall on the other side
        assert stage[f"good_within_{k}"] == pytest.approx((squares.min(1) <= k**2).mean(), abs=1.5 / 300)


def test_equal_seeds_equal_numbers_and_a_cache(quick, plane):
    arguments = ("modes", plane, "--samples", 200, "--stage", "structured-s0/1", "--json")
    (first,) = small_runs.stages_of(quick(*arguments))
    said = quick(*arguments)
    (again,) = small_runs.stages_of(said)
    assert again["cached"]
    assert again | {"cached": False} == first
    assert "modes in" not in said.err
    shutil.rmtree(plane / "analysis")
    (anew,) = small_runs.stages_of(quick(*arguments))
    assert anew | {"seconds": 0} == first | {"seconds": 0}
    (other,) = small_runs.stages_of(quick(*arguments, "--seed", 1))
    assert other["sliced_wasserstein"] != first["sliced_wasserstein"]


def test_text_begins_with_the_references(quick, plane):
    said = quick("modes", plane, "--samples", 200)
    lines = said.out.splitlines()
    assert lines[0] == "gaussian_spiral (flow_matching), run tiny"
    assert "200 samples a stage, seed 0" in " ".join(lines[1:3])
    first = next(place for place, line in enumerate(lines) if line.startswith("perfect"))
    assert lines[first].split() == ["perfect", "sampler", "86.47", "98.89", "100.00", "10", "of", "10"]
    assert lines[first + 1].startswith("test rows")
    assert lines[first + 2].startswith("dense-s0/0")
    assert max(map(len, lines)) <= 100
    assert "wrote modes.json, modes.csv" in said.err


def test_paper_protocol(quick, plane, table):
    stages = small_runs.stages_of(quick("modes", plane, "--samples", 200, "--protocol", "paper", "--json"))
    # The toy set's modes are round: both distances are the same
    assert all(stage["paper_good_within_3"] == pytest.approx(stage["good_within_3"], abs=0.006) for stage in stages)
    assert "published distance" in quick("modes", plane, "--samples", 200, "--protocol", "paper").out
    said = quick("modes", table, "--protocol", "paper")
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert "no modes in the data" in said.err


def test_modes_of_a_table(call, table):
    said = call("modes", table, "--json")
    for stage in small_runs.stages_of(said):
        assert all(stage[name] is None for name in (*SHARES, "good_se", "modes_captured", "modes_total"))
        assert all(stage[name] is not None for name in CLOSENESS)
        # as many samples as there are test rows, and no fewer validation rows
        assert (stage["samples"], stage["neighbour_rows"], stage["wasserstein_rows"]) == (30, 30, 30)
        assert 0 <= stage["coverage"] <= 1
    with np.load(table / "analysis" / "mode_quality.npz") as saved:
        assert saved["quantities"].tolist() == ["density", "coverage", "sliced_wasserstein"]
    text = call("modes", table).out
    assert "validation rows" in text
    assert "no modes" in text


def test_lost_samples_count_as_bad_and_the_others_are_kept(quick, plane, monkeypatch):
    """Paths that start in the outermost corner run off: 2 or 3 of 400."""
    real = sampling.carry_rows

    def carry_rows(flow, noise, *arguments, **options):
        found, off = real(flow, noise, *arguments, **options), noise.norm(dim=1) > 3.2
        return replace(found, points=found.points.masked_fill(off[:, None], math.nan), unsolved=off)

    arguments = ("modes", plane, "--samples", 400, "--stage", "dense-s0/0")
    (before,) = small_runs.stages_of(quick(*arguments, "--json"))
    shutil.rmtree(plane / "analysis")
    monkeypatch.setattr(sampling, "carry_rows", carry_rows)
    far = int((np.linalg.norm(noise_rows(400, 2, 0), axis=1) > 3.2).sum())
    assert 1 <= far <= 4
    (stage,) = small_runs.stages_of(quick(*arguments, "--json"))
    assert stage["samples_lost"] == far
    assert before["samples_lost"] == 0
    assert before["good_within_5"] - far / 400 - 0.006 <= stage["good_within_5"] <= before["good_within_5"] + 0.006
    assert f"dense-s0/0 {far}" in quick(*arguments).out


@pytest.mark.parametrize("status", [Status.NON_FINITE, Status.OUT_OF_STEPS])
def test_a_stage_that_fails_is_told_and_the_others_go_on(quick, plane, monkeypatch, status):
    real, calls = sampling.carry_rows, []

    def carry_rows(flow, noise, *arguments, **options):
        found = real(flow, noise, *arguments, **options)
        if sum(p.numel() for p in flow.parameters()) >= 100:
            return found
        calls.append(1)  # the shrunk flow
        return replace(found, points=torch.full_like(noise, math.nan), status=status)

    monkeypatch.setattr(sampling, "carry_rows", carry_rows)
    said = quick("modes", plane, "--samples", 200, "--json")
    dense, _, failed = small_runs.stages_of(said)
    assert dense["status"] == "done"
    assert (failed["method"], failed["status"]) == ("structured", "failed")
    assert status.value in failed["reason"]
    assert re.search(f"no modes: .*of 200 samples cannot be solved: {status.value}", said.err)
    assert len(calls) < 50
    none = quick("modes", plane, "--samples", 200, "--stage", "structured-s0/1")
    assert none.status == 1
    assert f"cannot be solved: {status.value}" in " ".join(none.out.split())
    assert "no stage could be analysed" in none.err


def test_samples_far_out_are_lost(quick, plane, monkeypatch):
    real = sampling.draw_standardised
    monkeypatch.setattr(sampling, "draw_standardised", lambda *arguments: 1e4 * real(*arguments))
    said = quick("modes", plane, "--samples", 200, "--stage", "dense-s0/0")
    assert said.status == 1
    assert "standard deviations" in said.err


def test_seeds_are_averaged():
    def stage(method, number, seed, share, captured=10):
        shares = {f"good_within_{k}{end}": value for k in (2, 3) for end, value in (("", share), ("_se", 0.001))}
        references = {f"{who}_within_{k}": 0.9 for who in ("perfect", "data") for k in (2, 3)}
        return {
            **{"method": method, "stage": number, "seed": seed, "prune_ratio": 0.5 * number},
            **{"modes_total": 10, "modes_captured": captured, "data_modes_captured": 10},
            **{**shares, **references, "data_within_2_se": 0.01, "data_within_3_se": 0.01},
        }

    stages = [stage("dense", 0, seed, 0.8 + 0.03 * seed) for seed in range(3)]
    stages += [stage("structured", 1, seed, 0.7, captured=9 + (seed > 1)) for seed in range(3)]
    arrays = mode_quality_arrays(stages, "set")
    assert arrays["method"].tolist() == ["dense", "structured"]
    np.testing.assert_allclose(arrays["good_within_2"], [0.83, 0.7])
    np.testing.assert_allclose(arrays["good_within_2_se"], [0.03 / math.sqrt(3), 0], atol=1e-15)
    np.testing.assert_allclose(arrays["modes_captured"], [10, 9 + 1 / 3])
    assert arrays["se_over"] == "3 seeds"
    alone = mode_quality_arrays(stages[:1], "set")
    assert (alone["se_over"], alone["good_within_2_se"].tolist()) == ("the samples", [0.001])
    files = mode_quality_figure(alone)  # the dense flow alone is a figure too
    assert files["png"].startswith(b"\x89PNG")
    with np.load(io.BytesIO(files["npz"])) as saved:
        assert set(saved) == set(alone)


def test_files_without_a_result(call, plane, monkeypatch):
    def fails(*arguments):
        raise SolveFailed(Status.OUT_OF_STEPS, 9)

    monkeypatch.setattr(sampling, "draw_standardised", fails)
    entries = analyse(plane, "modes", samples=100)
    assert all(entry.result is None for entry in entries)
    assert call("modes", plane, "--samples", 100).status == 1
    assert {path.name for path in (plane / "analysis").iterdir()} == {"modes.csv", "modes.json"}
