"""Stages back from a run folder: flows that compute what the table says, masks that fit the dense flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparseflows
from sparseflows import Flow, build_flow, load, load_masks, load_spec
from sparseflows.data.splits import make_splits
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import likelihood, subset
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.graph.groups import count_params

LABELS = ["dense-s0/0", *(f"{method}-s0/{k}" for method in ("unstructured", "structured") for k in (1, 2, 3))]


@pytest.fixture(scope="module")
def splits():
    return make_splits("gaussian_spiral", n_train=200)


@pytest.fixture(scope="module")
def test_rows(splits):
    """The rows that were reported on: 50 of the 100."""
    return subset(splits.test, 50, 0, "test")


def row_of(rows, folder, label):
    (row,) = [row for row in rows(folder) if f"{row['method']}-s{row['seed']}/{row['stage']}" == label]
    return row


def refusal(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_reported_nll_is_what_the_flow_computes(finished, rows, test_rows):
    for label in LABELS:
        flow = load(finished, label)
        assert isinstance(flow, Flow)
        assert not flow.training
        row = row_of(rows, finished, label)
        with torch.no_grad():
            log_prob = flow.double().log_prob(torch.from_numpy(test_rows))
        assert float(-log_prob.mean()) == pytest.approx(float(row["nll_test"]), abs=1e-12)
        error = float(log_prob.std()) / 50**0.5
        assert error == pytest.approx(float(row["nll_test_se"]), rel=1e-9)


def test_every_reported_nll_is_within_a_thousandth_of_the_exact_one(finished, rows, splits):
    for label in LABELS:
        row, tight = row_of(rows, finished, label), Solver("dopri5", 1e-8, 1e-8)
        parts = {
            "nll_test": subset(splits.test, 50, 0, "test"),
            "nll_val": subset(splits.validation, 50, 0, "validation"),
            "nll_train": subset(splits.train, 50, 0, "train"),
        }
        flow = load(finished, label)
        for name, points in parts.items():
            assert likelihood(flow, points, tight).nll == pytest.approx(float(row[name]), abs=1e-3), name
        gap = splits.log_prob_true(parts["nll_test"]) - likelihood(flow, parts["nll_test"], tight).log_prob
        assert gap.mean() == pytest.approx(float(row["kl_gap"]), abs=1e-3)
        assert gap.std(ddof=1) / 50**0.5 == pytest.approx(float(row["kl_gap_se"]), abs=1e-3)


def test_the_standardiser_comes_along_to_the_last_bit(finished, splits):
    found = load(finished).standardiser
    assert np.array_equal(found.shift, splits.standardiser.shift)
    assert np.array_equal(found.scale, splits.standardiser.scale)


def test_the_default_solver_is_the_one_of_reported_numbers(changed, tmp_path, call):
    param = changed({"prune": {}, "train.steps": 2, "evaluate": {"rtol": 1e-6, "atol": 1e-7, "max_nfe": 777}})
    assert call("run", param, "--out", tmp_path).status == 0
    solver = load(tmp_path / "tiny").solver
    assert (solver.method, solver.rtol, solver.atol, solver.max_nfe) == ("dopri5", 1e-6, 1e-7, 777)


def test_best_is_the_lowest_validation_nll(finished, rows):
    table = rows(finished)
    best = min(table, key=lambda row: float(row["nll_val"]))
    assert len({row["nll_val"] for row in table}) == 7
    label = f"{best['method']}-s0/{best['stage']}"
    x = torch.zeros(1, 2)
    for flow in (load(finished), load(str(finished), "best")):
        assert torch.equal(flow.log_prob(x), load(finished, label).log_prob(x))


def test_best_passes_over_failed_stages(changed, tmp_path, call, monkeypatch):
    from sparseflows.experiment.stages import stage
    from sparseflows.flow.solvers.ode import Status

    evaluate, count = stage.evaluate, []

    def fail_later(*args):
        count.append(0)
        return evaluate(*args) if len(count) == 1 else Status.UNDERFLOW

    monkeypatch.setattr(stage, "evaluate", fail_later)
    param = changed({"train.steps": 2, "prune.retrain": {"steps": 2}, "prune.keep_ratios": [0.5]})
    assert call("run", param, "--out", tmp_path).status == 0
    run = tmp_path / "tiny"
    assert count_params(load(run)) == 122
    assert refusal(load, run, "structured-s0/1") == (
        f"{run}: stage structured-s0/1 failed (trained, but its likelihood cannot be computed: "
        "the solver's step became too small for the precision); take another"
    )


@pytest.mark.parametrize("loader", [load, load_masks])
def test_refusals(finished, tmp_path, loader):
    assert "no such run folder" in refusal(loader, tmp_path / "nowhere")
    assert "not a run folder" in refusal(loader, tmp_path)
    for stage in ("dense-s0/1", "dense-s1/0", "dense", "", "../../x", "structured-s0/4"):
        message = refusal(loader, finished, stage)
        assert message == f"{finished}: no stage '{stage}' (there are: best, {', '.join(LABELS)})"


def test_a_run_without_a_stage(param, tmp_path):
    from sparseflows.experiment.folder.folder import RunFolder

    run = RunFolder.claim(tmp_path, load_spec(param), None).path
    assert "no stage is finished yet; run the experiment first" in refusal(load, run)


@pytest.mark.parametrize("name", ["model.safetensors", "masks.safetensors"])
def test_a_damaged_stage_is_refused_and_the_remedy_named(run, name):
    path = run / "cascades/structured-s0/stages/2" / name
    path.write_bytes(path.read_bytes()[:-1])
    message = refusal(load, run, "structured-s0/2")
    assert message == f"{path}: missing or damaged; `sparseflows run` with the same settings makes it again"
    load(run, "structured-s0/1")


def test_masks_fit_the_dense_architecture(finished, param, rows):
    for label in LABELS:
        masks, dense = load_masks(finished, label), build_flow(load_spec(param), 2)
        masks.check(dense)
        assert masks.kept(dense) == int(row_of(rows, finished, label)["params"])
        masks.apply_(dense)
        assert sum(int((p != 0).sum()) for p in dense.parameters()) <= masks.kept(dense)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_structured_masks_tell_which_weights_the_small_flow_has(finished, k):
    """The shrunk network's weights, put back where its masks say, compute the same as it does."""
    masks, small = load_masks(finished, f"structured-s0/{k}"), load(finished, f"structured-s0/{k}").double()
    dense = load(finished, "dense-s0/0").double()
    tensors = dict(small.named_parameters())
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.zero_()
            parameter[masks[name]] = tensors[name].flatten()
        x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(dense.log_prob(x), small.log_prob(x), rtol=1e-9, atol=1e-9)


def test_masks_of_an_unstructured_stage_are_where_its_weights_are(finished):
    masks, flow = load_masks(finished, "unstructured-s0/3"), load(finished, "unstructured-s0/3")
    for name, parameter in flow.named_parameters():
        assert not parameter[~masks[name]].any()


def test_the_public_names():
    assert set(sparseflows.__all__) <= set(dir(sparseflows))
    assert all(getattr(sparseflows, name) is not None for name in sparseflows.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sparseflows.nothing


@pytest.mark.parametrize("damage", ["gone", "a digit"])
def test_another_stage_is_not_taken_for_the_best_where_one_is_damaged(run, damage):
    path = run / "cascades/unstructured-s0/stages/1/record.json"
    text = path.read_text()
    path.unlink() if damage == "gone" else path.write_text(text.replace('"nll_val": ', '"nll_val": 1'))
    message = refusal(load, run)
    assert message.startswith(f"{path}: missing or damaged, and it may be the best stage; name one with --stage")
    load(run, "dense-s0/0")


def test_changed_settings_are_not_taken_for_those_of_the_run(run, run_again, numbers, finished):
    path = run / "spec.yaml"
    path.write_text(path.read_text().replace("rtol: 1.0e-05", "rtol: 1.0e-06", 1))
    assert refusal(load, run).startswith(f"{path}: not the settings that the run began with, changed or damaged since;")
    assert run_again(run).status == 0
    load(run)
    assert numbers(run) == numbers(finished)
