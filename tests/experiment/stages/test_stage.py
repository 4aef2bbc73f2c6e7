"""One stage: what happens when its training diverges, cannot be evaluated, or its files are damaged."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest
import torch

from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.stages import protocols as protocols_module
from sparseflows.experiment.stages import stage as stage_module
from sparseflows.flow.solvers.ode import Status

COMPUTED = ("nll_val", "nll_test", "nll_test_se", "n_test", "nll_train", "kl_gap", "kl_gap_se", "nfe")


@pytest.fixture
def diverge(monkeypatch):
    """Make the loss of one stage NaN at one step while the rate is above a share of its own."""

    def arrange(stage, step, above, trained=None):
        train = stage_module.train
        trained = [] if trained is None else trained

        def fake(flow, objective, rows, settings, *, purpose, resume, lr_scale, **options):
            now = resume["step"] if resume else 0
            trained.append((purpose, now, lr_scale))

            def loss(flow, rows, generator):
                nonlocal now
                now += 1
                found = objective(flow, rows, generator)
                bad = purpose == stage and now == step and lr_scale > above
                return dataclasses.replace(found, value=found.value * math.nan) if bad else found

            return train(flow, loss, rows, settings, purpose=purpose, resume=resume, lr_scale=lr_scale, **options)

        monkeypatch.setattr(stage_module, "train", fake)
        return trained

    return arrange


@pytest.fixture
def short(changed):
    """A param file with one method and two short pruned stages."""
    return changed({"prune.methods": ["unstructured"], "prune.keep_ratios": [0.6, 0.3], "prune.retrain": {"steps": 20}})


def row_of(rows, folder, stage):
    method, k = stage.split("/")
    (row,) = [row for row in rows(folder) if (row["method"], row["stage"]) == (method, k)]
    return row


def metrics_of(folder, stage):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if f"{line['method']}/{line['stage']}" == stage]


# --- divergence


def test_again_from_the_last_good_checkpoint_at_a_lower_rate(diverge, short, tmp_path, call, rows):
    trained = diverge("unstructured/1", step=11, above=0.3)
    said = call("run", short, "--out", tmp_path)
    assert said.status == 0
    assert trained == [
        *[("dense/0", 0, 1.0), ("unstructured/1", 0, 1.0)],
        *[("unstructured/1", 10, 0.3), ("unstructured/2", 0, 1.0)],  # a checkpoint at every step of 20
    ]
    assert (
        "  unstructured-s0/1: training stopped at step 10: the state or the field became infinite or NaN; "
        "again from step 10 at 0.3 of the learning rate\n"
    ) in said.err
    row = row_of(rows, tmp_path / "tiny", "unstructured/1")
    assert (row["status"], row["reason"], row["train_steps"]) == ("done", "", "20")
    *history, summary = metrics_of(tmp_path / "tiny", "unstructured/1")
    assert summary["attempts"] == 2
    assert [line["lr"] for line in history] == [0.02] * 10 + [0.3 * 0.02] * 10


def test_then_from_the_start_at_a_still_lower_rate(diverge, short, tmp_path, call, rows):
    trained = diverge("dense/0", step=31, above=0.1)
    said = call("run", short, "--out", tmp_path)
    assert trained[:3] == [("dense/0", 0, 1.0), ("dense/0", 30, 0.3), ("dense/0", 0, 0.1)]
    assert "again from step 30 at 0.3 of the learning rate" in said.err
    assert "again from the start at 0.1 of the learning rate" in said.err
    assert row_of(rows, tmp_path / "tiny", "dense/0")["status"] == "done"
    *history, summary = metrics_of(tmp_path / "tiny", "dense/0")
    assert summary["attempts"] == 3
    assert {line["lr"] for line in history} == {0.1 * 0.02}
    assert not list(tmp_path.rglob("*.pt"))


def test_before_the_first_checkpoint_there_is_only_the_start(diverge, short, tmp_path, call):
    trained = diverge("dense/0", step=2, above=0.3)  # the first checkpoint is at step 3 of 60
    assert "again from the start at 0.3" in call("run", short, "--out", tmp_path).err
    assert trained[:2] == [("dense/0", 0, 1.0), ("dense/0", 0, 0.3)]


def test_a_failed_stage_is_recorded_and_its_cascade_goes_on_from_the_one_before(
    diverge, short, tmp_path, call, rows, stages
):
    diverge("unstructured/1", step=11, above=0.0)
    started = []
    original = protocols_module.read_pruned

    def note(context, name):
        started.append(name.label)
        return original(context, name)

    protocols_module.read_pruned = note
    try:
        said = call("run", short, "--out", tmp_path)
    finally:
        protocols_module.read_pruned = original
    assert said.status == 0
    reason = "training stopped at step 10: the state or the field became infinite or NaN"
    folder = tmp_path / "tiny"
    row = row_of(rows, folder, "unstructured/1")
    assert (row["status"], row["reason"]) == ("failed", reason)
    assert [row[name] for name in COMPUTED] == [""] * len(COMPUTED)
    assert row["params"] == "73"  # known all the same
    assert started == ["dense-s0/0"] * 4  # three attempts, and the next stage
    after = row_of(rows, folder, "unstructured/2")
    assert (after["status"], after["keep_ratio_target"]) == ("done", "0.3")
    assert abs(int(after["params"]) / 122 - 0.3) < 0.02
    assert f"unstructured-s0/1    failed: {reason}\n" in said.out
    assert f"[2/3] unstructured-s0/1  failed: {reason}; about " in said.err
    assert sorted(stages(folder)) == ["dense-s0/0", "unstructured-s0/1", "unstructured-s0/2"]
    assert [path.name for path in (folder / "cascades/unstructured-s0/stages/1").iterdir()] == ["record.json"]
    before = (folder / "results.csv").read_bytes()
    assert call("run", short, "--out", tmp_path).status == 0  # recorded is recorded
    assert (folder / "results.csv").read_bytes() == before


def test_retries_do_not_depend_on_interruptions(diverge, short, tmp_path, call, numbers, monkeypatch):
    diverge("dense/0", step=31, above=0.1)
    diverge("unstructured/2", step=9, above=0.0)
    assert call("run", short, "--out", tmp_path / "undisturbed").status == 0
    save, count = Checkpoints.save, 0

    def save_or_stop(self, checkpoint, attempt):
        nonlocal count
        count += 1
        if count % 9 == 0:
            raise KeyboardInterrupt  # before the checkpoint is there
        save(self, checkpoint, attempt)

    monkeypatch.setattr(Checkpoints, "save", save_or_stop)
    interruptions = 0
    while (status := call("run", short, "--out", tmp_path / "disturbed").status) == 130:
        interruptions += 1
        assert interruptions < 50
    assert status == 0
    assert interruptions >= 8
    assert numbers(tmp_path / "disturbed" / "tiny") == numbers(tmp_path / "undisturbed" / "tiny")


def test_an_absurd_rate_fails_the_dense_flow_and_all_its_cascades(changed, tmp_path, call, rows):
    param = changed({"train.lr": 100.0, "train.optimiser": "sgd", "seeds": [4]})
    said = call("run", param, "--out", tmp_path)
    assert said.status == 1
    table = rows(tmp_path / "tiny")
    assert len(table) == 7
    assert {row["status"] for row in table} == {"failed"}
    assert table[0]["reason"].startswith("training stopped at step ")
    assert {row["reason"] for row in table[1:]} == {"the dense flow of this seed failed"}
    assert all(row[name] == "" for row in table for name in COMPUTED)
    assert {row["params_dense"] for row in table} == {"122"}
    assert [row["params"] for row in table] == ["122", *[""] * 6]
    assert said.err.count("of the learning rate") == 2
    assert said.out.count("failed: the dense flow of this seed failed") == 6
    for stage, message in (("dense-s4/0", "stage dense-s4/0 failed (training stopped"), ("best", "every stage failed")):
        refused = call("sample", tmp_path / "tiny", "-n", "3", "-o", tmp_path / "x.npy", "--stage", stage)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        assert message in refused.err


# --- evaluation


def test_a_flow_that_cannot_be_evaluated_is_trained_again_from_the_start(short, tmp_path, call, rows, monkeypatch):
    evaluate, labels, trained = stage_module.evaluate, [], []

    def fail_twice(flow, *args):
        labels.append(sum(int((p != 0).sum()) for p in flow.parameters()))
        return Status.OUT_OF_STEPS if len(labels) in (2, 3) else evaluate(flow, *args)

    train = stage_module.train

    def note(*args, purpose, resume, lr_scale, **options):
        trained.append((purpose, resume, lr_scale))
        return train(*args, purpose=purpose, resume=resume, lr_scale=lr_scale, **options)

    monkeypatch.setattr(stage_module, "evaluate", fail_twice)
    monkeypatch.setattr(stage_module, "train", note)
    said = call("run", short, "--out", tmp_path)
    assert trained[1:4] == [("unstructured/1", None, scale) for scale in (1.0, 0.3, 0.1)]
    reason = "trained, but its likelihood cannot be computed: the solver ran out of steps"
    assert f"{reason}; again from the start at 0.3 of the learning rate" in said.err
    assert f"{reason}; again from the start at 0.1 of the learning rate" in said.err
    assert row_of(rows, tmp_path / "tiny", "unstructured/1")["status"] == "done"


def test_an_evaluation_that_runs_out_of_steps_is_a_failure_with_its_reason(changed, tmp_path, call, rows):
    tight = {"evaluate.rtol": 1e-10, "evaluate.atol": 1e-10}
    param = changed({"evaluate.max_nfe": 10, "train.steps": 20, **tight})
    said = call("run", param, "--out", tmp_path, "--json")
    assert said.status == 1
    dense, *others = rows(tmp_path / "tiny")
    assert dense["reason"] == "trained, but its likelihood cannot be computed: the solver ran out of steps"
    assert (dense["status"], dense["train_steps"]) == ("failed", "20")
    assert all(row["reason"] == "the dense flow of this seed failed" for row in others)
    document = json.loads(said.out)
    assert [stage["status"] for stage in document["stages"]] == ["failed"] * 7
    assert {stage["nll_test"] for stage in document["stages"]} == {None}


# --- damage


@pytest.mark.parametrize("name", ["model.safetensors", "record.json"])
def test_a_damaged_stage_is_named_set_aside_and_made_again(run, run_again, numbers, monkeypatch, name):
    before = numbers(run)
    stages = run / "cascades" / "unstructured-s0" / "stages"
    later = (stages / "3").stat().st_mtime_ns
    path = stages / "2" / name
    path.write_bytes(path.read_bytes()[:-7])
    train, trained = stage_module.train, []
    monkeypatch.setattr(stage_module, "train", lambda *a, **k: trained.append(k["purpose"]) or train(*a, **k))
    said = run_again(run)
    assert said.status == 0
    assert f"{path}: missing or damaged; set aside as .damaged-1-2, this stage is made again\n" in said.err
    assert trained == ["unstructured/2"]
    assert (stages / ".damaged-1-2" / name).is_file()
    assert (stages / "3").stat().st_mtime_ns == later  # whole, so it stays
    assert numbers(run) == before


def test_a_damaged_dense_stage_is_made_again_before_its_cascades_need_it(run, run_again, numbers):
    before = numbers(run)
    path = run / "cascades" / "dense-s0" / "stages" / "0" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    shutil.rmtree(run / "cascades" / "structured-s0" / "stages" / "1")
    said = run_again(run)
    assert said.status == 0
    assert f"{path}: missing or damaged; set aside as .damaged-1-0" in said.err
    assert numbers(run) == before


def test_checkpoints_of_a_stage_that_is_whole_are_removed(run, run_again):
    folder = run / "cascades" / "structured-s0" / "checkpoints"
    left = folder / "stage-2-attempt-0-step-40-0123456789ab.pt"
    left.touch()
    assert run_again(run).status == 0
    assert not left.exists()


# --- the training solver


def test_a_fixed_grid_is_compared_with_the_exact_likelihood(changed, tmp_path, call):
    param = changed(
        {
            "train": {"objective": "nll", "steps": 4, "batch": 50, "lr": 0.001},
            "flow": {"hidden": [16, 16, 16], "activation": "tanh", "gain": 8.0},
            "solve": {"method": "rk4", "steps": 2},
            "prune": {},
        }
    )
    said = call("run", param, "--out", tmp_path)
    assert said.status == 0
    *_, summary = metrics_of(tmp_path / "tiny", "dense/0")
    difference = summary["solver_discrepancy"]
    assert abs(difference) > 0.05
    assert (
        f"  the training solver's own NLL is {difference:+.3f} nats off the exact one; "
        "the reported numbers are exact, but train with an adaptive solver or more steps\n"
    ) in said.err
    from sparseflows import load
    from sparseflows.data.splits import make_splits
    from sparseflows.flow.solvers.ode import Solver

    flow = load(tmp_path / "tiny", "dense-s0/0").double()
    rows = torch.from_numpy(make_splits("gaussian_spiral", n_train=200).validation)
    with torch.no_grad():
        trained, exact = (-flow.log_prob(rows, solver=s).mean() for s in (Solver("rk4", steps=2), Solver().at(1e-9)))
    assert float(trained - exact) == pytest.approx(difference, abs=1e-4)


def test_an_adaptive_training_solver_is_near_the_exact_likelihood(changed, tmp_path, call):
    param = changed(
        {
            "train": {"objective": "nll", "steps": 4, "batch": 50},
            "flow": {"hidden": [8], "activation": "tanh"},
            "prune": {},
        }
    )
    said = call("run", param, "--out", tmp_path)
    *_, summary = metrics_of(tmp_path / "tiny", "dense/0")
    assert abs(summary["solver_discrepancy"]) < 1e-3
    assert "nats off" not in said.err


def test_best_val_reports_the_weights_it_chose(changed, tmp_path, call, rows):
    param = changed({"train.select": "best_val", "train.selections": 4, "train.lr": 0.3, "prune": {}})
    assert call("run", param, "--out", tmp_path).status == 0
    *_, summary = metrics_of(tmp_path / "tiny", "dense/0")
    row = row_of(rows, tmp_path / "tiny", "dense/0")
    # All 100 validation rows there, 50 here; the same weights would differ by the draw alone.
    from sparseflows import load
    from sparseflows.data.splits import make_splits

    validation = torch.from_numpy(make_splits("gaussian_spiral", n_train=200).validation)
    with torch.no_grad():
        nll = float(-load(tmp_path / "tiny", "dense-s0/0").double().log_prob(validation).mean())
    assert nll == pytest.approx(summary["best_val"], abs=1e-3)
    assert row["train_steps"] == "60"
