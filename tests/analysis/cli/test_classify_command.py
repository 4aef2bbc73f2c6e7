"""`analysis classify` and `analysis table` on two runs of seconds: a neural ODE on a plane, a perceptron on digits."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from support import classify_runs, small_runs

from analysis.cli.app import app
from analysis.runs.study import Study
from sparseflows.cli.console import run_app
from sparseflows.evaluation.classification import logits_of
from sparseflows.experiment.loading import load_network
from sparseflows.flow.solvers.ode import Solver

# Against a solve at 1e-9. One at 1e-5 is off by 2e-5 at most here, one in 40 pieces by 4e-10; half-way by Euler's
# method in 2,000 steps by 2e-4.
ONE_SOLVE, PIECES, EULER = 1e-4, 1e-8, 1e-3
KINDS = ("png", "pdf", "npz")
TABLES = {"classify.txt", "classify.csv", "classify.json"}


def analysed(run, without=()):
    """The run's folder with `analysis classify` in it, and what that printed; figures take seconds to draw."""
    with pytest.MonkeyPatch.context() as patch:
        for name in without:
            patch.setattr(f"analysis.cli.classify.{name}", lambda *arguments: {})
        patch.setattr("analysis.classifiers.plane.CELLS", 30)
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            assert run_app(app, "analysis", ["classify", str(run)]) == 0
    return run, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    return analysed(classify_runs.train(tmp_path_factory.mktemp("moons"), classify_runs.MOONS), without=["_weights"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return analysed(classify_runs.train(tmp_path_factory.mktemp("digits"), classify_runs.DIGITS))


@pytest.fixture
def call(capsys):
    return partial(small_runs.call, capsys)


def arrays_of(run, name):
    with np.load(run / "analysis" / f"{name}.npz") as saved:
        return dict(saved)


def records_of(run):
    with (run / "results.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_means_are_those_of_results_csv_by_hand(digits):
    run, out, _ = digits
    with (run / "analysis" / "classify.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    means = json.loads((run / "analysis" / "classify.json").read_text())["means"]
    records = records_of(run)
    assert len(rows) == len(means) == 5
    for row, mean in zip(rows, means, strict=True):
        own = [r for r in records if (r["method"], r["stage"]) == (row["method"], row["stage"])]
        assert len(own) == 2
        for name in ("accuracy_test", "loss_test"):
            values = [float(r[name]) for r in own]
            centre, se = sum(values) / 2, abs(values[0] - values[1]) / 2  # s.e. of two: |a - b| / sqrt(2) / sqrt(2)
            assert float(row[name]) == pytest.approx(centre, abs=1e-14)
            assert float(row[f"{name}_se"]) == pytest.approx(se, abs=1e-14)
            assert mean[name] == pytest.approx(centre, abs=1e-14)
            assert mean[f"{name}_se"] == pytest.approx(se, abs=1e-14)
    accuracies = [float(row["accuracy_test"]) for row in rows]
    assert [float(row["accuracy_test"]) for row in rows if row["best"] == "1"] == [max(accuracies)]
    (line,) = [line for line in out.splitlines() if line.startswith("dense")]
    assert f"{100 * accuracies[0]:.2f} ± {100 * float(rows[0]['accuracy_test_se']):.2f}" in line
    np.testing.assert_array_equal(arrays_of(run, "classify")["accuracy"], accuracies)


def test_files_of_a_neural_ode_on_a_plane(moons):
    run, out, err = moons
    figures = {f"{name}.{kind}" for name in ("classify", "boundary", "trajectories") for kind in KINDS}
    assert {path.name for path in (run / "analysis").iterdir()} == figures | TABLES | {"cache"}
    assert (run / "analysis" / "classify.txt").read_text() == out
    assert out.splitlines()[0] == "moons (cross_entropy), run moons"
    assert "wrote classify.txt" in err
    for name in ("classify", "boundary", "trajectories"):
        with Image.open(run / "analysis" / f"{name}.png") as image:
            assert min(image.size) >= 600
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn


def test_the_probability_map_is_the_softmax_of_the_logits(moons):
    run, *_ = moons
    arrays = arrays_of(run, "boundary")
    assert arrays["row"].tolist() == ["unstructured"] * 2 + ["structured"] * 2
    assert arrays["stage"][0].startswith("dense, 42 params, accuracy")
    cells = arrays["probabilities"].shape[1]
    for place, stage in ((0, "dense-s0/0"), (1, "unstructured-s0/1"), (3, "structured-s0/1")):
        left, right, bottom, top = arrays["map_extent"][place]
        flow = load_network(run, stage).double()
        for row, column in ((0, 0), (cells - 1, 3), (cells // 2, cells // 3)):
            x = left + (column + 0.5) / cells * (right - left)
            y = bottom + (row + 0.5) / cells * (top - bottom)
            with torch.no_grad():
                first, second = flow.to_noise(torch.tensor([[x, y]], dtype=torch.float64))[0].tolist()
            share = 1 / (1 + math.exp(first - second))
            # single precision in the file, and an adaptive solve that chooses its steps for other points
            assert arrays["probabilities"][place, row, column] == pytest.approx([1 - share, share], abs=ONE_SOLVE)


def test_points_are_test_rows_and_their_logits_those_of_the_network(moons):
    run, *_ = moons
    arrays, splits = arrays_of(run, "boundary"), Study.open(run).splits_of(0)
    assert arrays["points"].shape == (4, len(splits.test), 2)  # there are fewer than 300
    np.testing.assert_array_equal(arrays["points"][3], splits.test)
    np.testing.assert_array_equal(arrays["labels"][3], splits.labels_test)
    network = load_network(run, "structured-s0/1")
    found, *_ = logits_of(network, splits.test, Solver("dopri5", 1e-9, 1e-9), "float64")
    np.testing.assert_allclose(arrays["logits"][3], found.numpy(), atol=ONE_SOLVE)
    right = float((found.argmax(1).numpy() == splits.labels_test).mean())
    (record,) = [r for r in records_of(run) if (r["method"], r["seed"], r["stage"]) == ("structured", "0", "1")]
    assert right == pytest.approx(float(record["accuracy_test"]), abs=1e-12)


def test_paths_lead_from_the_test_points_to_their_logits(moons):
    run, *_ = moons
    arrays, splits = arrays_of(run, "trajectories"), Study.open(run).splits_of(0)
    paths = arrays["paths"]
    shown = paths.shape[2]
    assert paths.shape == (4, 41, min(60, len(splits.test)), 2)
    np.testing.assert_array_equal(paths[:, 0], np.broadcast_to(splits.test[:shown], paths[:, 0].shape))
    for place, stage in ((0, "dense-s0/0"), (1, "unstructured-s0/1")):
        network = load_network(run, stage)
        found, *_ = logits_of(network, splits.test[:shown], Solver("dopri5", 1e-9, 1e-9), "float64")
        np.testing.assert_allclose(paths[place, -1], found.numpy(), atol=PIECES)
        # half-way by another way
        z = torch.as_tensor(splits.test[:shown])
        field = next(network.double().fields())
        with torch.no_grad():
            for step in range(2000):
                z = z + field(torch.tensor(step / 4000, dtype=torch.float64), z) / 4000
        np.testing.assert_allclose(paths[place, 20], z.numpy(), atol=EULER)


def test_histograms_count_every_surviving_weight(digits):
    run, *_ = digits
    arrays = arrays_of(run, "weights")
    assert arrays["sweep"].tolist() == ["one_shot magnitude"] * 3 + ["one_shot neuron_l1"] * 3
    assert arrays["stage"].tolist() == [0, 1, 2] * 2
    assert arrays["weight_counts"].shape == (6, 3, 80)
    assert arrays["norm_counts"].shape == (6, 2, 40)
    for place, (sweep, stage) in enumerate(zip(arrays["sweep"], arrays["stage"], strict=True)):
        cascade = "dense-s0" if stage == 0 else f"{sweep.replace(' ', '.')}-s0"
        tensors = load_file(run / "cascades" / cascade / "stages" / str(stage) / "model.safetensors")
        weights = [tensors[f"linear{number}.weight"] for number in (1, 2, 3)]
        # Of these runs no surviving weight is exactly 0, and every masked one is.
        assert arrays["weight_counts"][place].sum(1).tolist() == [np.count_nonzero(w) for w in weights]
        for layer, weight in enumerate(weights):
            low, high = arrays["weight_edges"][50], arrays["weight_edges"][51]
            inside = sum(low <= float(w) < high for w in weight.ravel() if w != 0)
            assert arrays["weight_counts"][place, layer, 50] == inside
        norms = [sum(abs(float(w)) for w in unit) for weight in weights[:2] for unit in weight]
        assert arrays["norm_counts"][place].sum() == sum(norm > 0 for norm in norms)
        assert max(norms) <= arrays["norm_edges"][-1] * (1 + 1e-6)
        method = "dense" if stage == 0 else sweep.removeprefix("one_shot ")
        (record,) = [r for r in records_of(run) if (r["method"], r["seed"], r["stage"]) == (method, "0", str(stage))]
        assert arrays["params"][place] == float(record["params"])
        assert arrays["accuracy"][place] == float(record["accuracy_test"])


def test_the_animation_has_a_frame_a_sparsity(digits):
    run, *_ = digits
    with Image.open(run / "analysis" / "weights.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (3, 0)
        frames = []
        for number in range(3):
            image.seek(number)
            frames.append(np.asarray(image.convert("L"), dtype=int))
        assert image.info["duration"] == 2500
    assert (np.abs(frames[1] - frames[0]) > 50).any()
    assert (np.abs(frames[2] - frames[1]) > 50).any()


def test_a_classic_network_has_no_pictures_of_a_plane(digits):
    run, out, _ = digits
    figures = {f"{name}.{kind}" for name in ("classify", "weights") for kind in KINDS}
    assert {path.name for path in (run / "analysis").iterdir()} == figures | TABLES | {"weights.gif"}
    labels = [" ".join(line.split()[:2]) for line in out.splitlines()[4:]]
    assert labels == ["dense 0", *["one_shot magnitude"] * 2, *["one_shot neuron_l1"] * 2]
    assert "± standard error over the seeds" in out


def test_the_second_time_networks_are_not_solved_again(call, moons, monkeypatch):
    run, *_ = moons

    def solved(*arguments):
        raise AssertionError("solved again")

    monkeypatch.setattr("analysis.classifiers.plane.plane", solved)
    for name in ("drawn", "_weights", "_planes"):  # figures take seconds
        monkeypatch.setattr(f"analysis.cli.classify.{name}", lambda *arguments: {})
    said = call("classify", run, "--json")
    assert said.status == 0, said.err
    document = json.loads(said.out, parse_constant=small_runs.refuse)
    assert set(document) == {"run", "dataset", "seeds", "se_over", "stages", "means"}
    assert len(document["stages"]) == 3
    assert set(document["stages"][0]) >= {"method", "seed", "stage", "prune_ratio", "params", "protocol"}
    accuracies = [float(record["accuracy_test"]) for record in records_of(run)]
    assert [stage["accuracy_test"] for stage in document["stages"]] == accuracies


def test_table_of_classifiers_shows_accuracy(call, moons, digits, tmp_path):
    runs = [moons[0], digits[0]]
    said = call("table", *runs, "--out", tmp_path)
    assert said.status == 0, said.err
    assert said.out.count("accuracy (%)") == 2
    assert "NLL" not in said.out
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"table.{kind}" for kind in ("txt", "csv", "md", "tex")),
        *(f"accuracy_vs_params-{dataset}.{kind}" for dataset in ("moons", "digits_labelled") for kind in KINDS),
    }
    with np.load(tmp_path / "accuracy_vs_params-moons.npz") as saved:
        assert saved["label"].tolist() == ["dense", "unstructured", "structured"]
        for number, record in enumerate(records_of(moons[0])):
            share, rows = float(record["accuracy_test"]), int(record["n_test"])
            assert saved["accuracy"][number] == share
            assert saved["accuracy_se"][number] == pytest.approx(math.sqrt(share * (1 - share) / (rows - 1)))
    with np.load(tmp_path / "accuracy_vs_params-digits_labelled.npz") as saved:
        assert saved["protocol"].tolist() == ["cascade", *["one_shot"] * 4]
    stages = small_runs.stages_of(call("table", digits[0], "--out", tmp_path, "--json"))
    assert [stage["protocol"] for stage in stages].count("one_shot") == 8
    assert all(0 <= stage["accuracy_test"] <= 1 for stage in stages)


@pytest.mark.parametrize("command", ["hessian", "modes", "field", "report"])
def test_analyses_of_densities_refuse_classifiers(call, moons, command):
    run, *_ = moons
    said = call(command, run)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"'{command}' is about densities" in said.err
    assert f"sparseflows classify {run}" in said.err


def test_classify_refuses_densities(call, tiny_run):
    said = call("classify", tiny_run)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert "train.objective: flow_matching" in said.err
    assert f"sparseflows table {tiny_run}" in said.err
    assert not (tiny_run / "analysis").exists()


def test_table_refuses_classifiers_beside_densities(call, moons, tiny_run, tmp_path):
    run, *_ = moons
    said = call("table", run, tiny_run, "--out", tmp_path / "both")
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert "tabulate each kind by itself" in said.err
