"""Stages put to use: densities that integrate to 1, maps that come back, samples in the data's coordinates."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sparseflows import load
from sparseflows.data.splits import make_splits

STAGES = ["dense-s0/0", "unstructured-s0/3", "structured-s0/3"]


@pytest.fixture(scope="module")
def splits():
    return make_splits("gaussian_spiral", n_train=200)


@pytest.fixture(scope="module")
def own(splits):
    """The test points in the generator's own coordinates."""
    return splits.standardiser.invert(splits.test)


@pytest.fixture
def points(own, tmp_path):
    path = tmp_path / "points.npy"
    np.save(path, own)
    return path


@pytest.fixture
def score(call, tmp_path):
    """The JSON document and the log densities."""

    def command(run, points, *options):
        output = tmp_path / "log_prob.npy"
        said = call("score", run, points, "--json", "-o", output, *options)
        assert said.status == 0, said.err
        return json.loads(said.out), np.load(output)

    return command


# --- score


@pytest.mark.parametrize("stage", STAGES)
def test_the_density_integrates_to_one_over_the_datas_own_space(finished, splits, score, tmp_path, stage):
    width = 7 * splits.standardiser.scale[0]  # seven standard deviations each way
    axis = np.linspace(-width, width, 141)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) + splits.standardiser.shift
    np.save(tmp_path / "grid.npy", grid)
    summary, log_prob = score(finished, tmp_path / "grid.npy", "--stage", stage, "--coordinates", "data")
    assert summary["n"] == len(log_prob) == 141**2
    assert np.exp(log_prob).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=0.01)
    edge = np.exp(log_prob.reshape(141, 141)[[0, -1]]).sum() * (axis[1] - axis[0])
    assert edge < 1e-3  # wide enough


def test_the_two_coordinates_differ_by_log_scale(finished, splits, points, score):
    standardised, one = score(finished, points)
    data, other = score(finished, points, "--coordinates", "data")
    assert standardised["log_scale"] == data["log_scale"] == splits.standardiser.log_scale
    assert abs(data["log_scale"]) > 1
    assert np.array_equal(other, one - data["log_scale"])
    assert data["nll"] == pytest.approx(standardised["nll"] + data["log_scale"], rel=1e-14)
    assert data["nll_se"] == pytest.approx(standardised["nll_se"], rel=1e-12)


@pytest.mark.parametrize("stage", STAGES)
def test_score_is_the_likelihood_of_the_flow(finished, splits, points, score, stage):
    summary, log_prob = score(finished, points, "--stage", stage)
    with torch.no_grad():
        expected = load(finished, stage).double().log_prob(torch.from_numpy(splits.test)).numpy()
    np.testing.assert_allclose(log_prob, expected, atol=1e-10)
    assert set(summary) == {"nll", "nll_se", "n", "nfe", "log_scale", "rows_infinite", "rows_unsolved", "nll_finite"}
    assert summary["nll"] == pytest.approx(-expected.mean(), abs=1e-12)
    assert summary["nll_se"] == pytest.approx(expected.std(ddof=1) / 10, rel=1e-9)
    assert summary["n"] == 100
    assert summary["nfe"] >= 14
    assert log_prob.dtype == np.float64


def test_tolerance_and_precision(finished, points, score):
    usual, one = score(finished, points)
    tight, exact = score(finished, points, "--tol", "1e-10", "--dtype", "float64")
    loose, rough = score(finished, points, "--tol", "1e-2")
    single, rounded = score(finished, points, "--dtype", "float32", "--tol", "1e-5")
    assert loose["nfe"] < usual["nfe"] < tight["nfe"]
    assert 0 < abs(one - exact).max() < 1e-3
    assert abs(one - exact).max() < abs(rough - exact).max()
    assert 1e-8 < abs(rounded - exact).max() < 1e-2
    assert single["n"] == usual["n"]


def test_the_precision_is_the_runs_own_unless_asked(changed, tmp_path, call, points, score):
    param = changed({"prune": {}, "train.steps": 2, "evaluate": {"dtype": "float32"}})
    assert call("run", param, "--out", tmp_path).status == 0
    run = tmp_path / "tiny"
    _, own = score(run, points)
    _, single = score(run, points, "--dtype", "float32")
    _, double = score(run, points, "--dtype", "float64")
    assert np.array_equal(own, single)
    assert not np.array_equal(own, double)


def test_a_single_row_has_no_standard_error(finished, own, tmp_path, score, call):
    np.save(tmp_path / "one.npy", own[:1])
    summary, log_prob = score(finished, tmp_path / "one.npy")
    assert (summary["n"], summary["nll_se"]) == (1, None)
    assert summary["nll"] == -log_prob[0]
    said = call("score", finished, tmp_path / "one.npy")
    assert said.out.startswith(f"NLL {summary['nll']:.4f} nats over 1 row, standardised coordinates (NFE ")


def test_what_score_prints_for_a_person(finished, points, score, call):
    summary, _ = score(finished, points)
    said = call("score", finished, points)
    assert said.out == (
        f"NLL {summary['nll']:.4f} ± {summary['nll_se']:.4f} nats over 100 rows, "
        f"standardised coordinates (NFE {summary['nfe']})\n"
    )
    assert said.err == ""
    assert "data coordinates" in call("score", finished, points, "--coordinates", "data").out


@pytest.mark.parametrize("value", [1e300, 1.7e308])
def test_a_point_that_is_too_far_out_has_no_density_and_the_others_keep_theirs(finished, tmp_path, score, call, value):
    near, far = tmp_path / "near.npy", tmp_path / "far.npy"
    np.save(near, [[0, 0], [1, 0]])
    np.save(far, [[0, 0], [1, 0], [-value, value]])
    (alone, expected), (summary, log_prob) = score(finished, near), score(finished, far)
    assert (summary["rows_infinite"], summary["rows_unsolved"], summary["nll"]) == (1, 0, None)
    assert np.isneginf(log_prob[2])
    np.testing.assert_allclose(log_prob[:2], expected, atol=1e-3)  # other steps at the same tolerance, 1e-5
    assert summary["nll_finite"] == pytest.approx(alone["nll"], abs=1e-3)
    said = call("score", finished, far, "--strict")
    assert said.status == 1
    assert "1 of 3 rows" in said.err


# --- map


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_to_noise_and_back(finished, own, tmp_path, call, stage, suffix):
    points = tmp_path / f"points{suffix}"
    if suffix == ".npy":
        np.save(points, own)
    else:
        np.savetxt(points, own, delimiter=",", header="x,y", comments="", fmt="%.17g")
    noise, back = tmp_path / "noise.npy", tmp_path / "back.npy"
    options = ("--stage", stage, "--tol", "1e-6", "--dtype", "float64")
    assert call("map", finished, points, "--to", "noise", "-o", noise, *options).status == 0
    assert call("map", finished, noise, "--to", "data", "-o", back, *options).status == 0
    assert abs(np.load(back) - own).max() <= 1e-4
    assert abs(np.load(noise) - own).max() > 0.1
    assert np.load(noise).shape == np.load(back).shape == own.shape


def test_map_carries_what_the_flow_carries(finished, splits, points, tmp_path, call):
    output = tmp_path / "noise.npy"
    assert call("map", finished, points, "--to", "noise", "-o", output, "--stage", "dense-s0/0").status == 0
    with torch.no_grad():
        expected = load(finished, "dense-s0/0").double().to_noise(torch.from_numpy(splits.test)).numpy()
    np.testing.assert_allclose(np.load(output), expected, atol=1e-10)
    said = call("map", finished, output, "--to", "data", "-o", tmp_path / "x.npy", "--stage", "dense-s0/0")
    assert said.err == f"wrote {tmp_path / 'x.npy'} (100, 2)\n"
    assert said.out == ""


# --- sample


@pytest.mark.parametrize("stage", STAGES)
def test_samples_are_in_the_datas_own_coordinates(finished, own, splits, tmp_path, call, stage):
    output = tmp_path / "samples.npy"
    said = call("sample", finished, "-n", "2000", "-o", output, "--stage", stage)
    assert said.status == 0
    samples = np.load(output)
    assert samples.shape == (2000, 2)
    assert samples.dtype == np.float64
    scale = splits.standardiser.scale[0]
    assert scale > 1.5
    # The flow is barely trained: within a third of a deviation of the mean, and of about the data's width.
    assert abs(samples.mean(0) - own.mean(0)).max() < scale / 3
    assert (abs(samples.std(0) / own.std(0) - 1) < 0.35).all()


def test_samples_follow_the_density(finished, tmp_path, call, score):
    """Mean log p over the samples against −entropy by quadrature over a grid: sampler and density agree."""
    samples, stage = tmp_path / "samples.npy", ("--stage", "dense-s0/0")
    assert call("sample", finished, "-n", "4000", "-o", samples, *stage).status == 0
    summary, _ = score(finished, samples, *stage, "--coordinates", "data")
    axis = np.linspace(-16, 16, 129)
    np.save(tmp_path / "grid.npy", np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    _, log_prob = score(finished, tmp_path / "grid.npy", *stage, "--coordinates", "data")
    entropy = -(np.exp(log_prob) * log_prob).sum() * 0.25**2
    assert summary["nll"] == pytest.approx(entropy, abs=4 * summary["nll_se"])


def test_the_seed_decides(finished, tmp_path, call):
    drawn = []
    for index, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{index}.npy"
        assert call("sample", finished, "-n", "7", "-o", path, "--seed", seed).status == 0
        drawn.append(np.load(path))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.isin(drawn[0], drawn[2]).any()
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()


def test_a_single_sample(finished, tmp_path, call):
    said = call("sample", finished, "-n", "1", "-o", tmp_path / "one.npy")
    assert said.status == 0
    assert said.err == f"wrote {tmp_path / 'one.npy'} (1, 2)\n"
    assert np.load(tmp_path / "one.npy").shape == (1, 2)


def test_samples_are_the_noise_that_comes_back(finished, tmp_path, call):
    samples, noise = tmp_path / "samples.npy", tmp_path / "noise.npy"
    stage = ("--stage", "structured-s0/1")
    assert call("sample", finished, "-n", "3000", "-o", samples, *stage).status == 0
    assert call("map", finished, samples, "--to", "noise", "-o", noise, *stage).status == 0
    z = np.load(noise)
    assert abs(z.mean(0)).max() < 4 / 3000**0.5
    assert abs(np.cov(z, rowvar=False) - np.eye(2)).max() < 0.12
