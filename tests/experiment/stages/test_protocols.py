"""Protocols through the command line: their stages, what each begins with, and for how long it is trained."""

from __future__ import annotations

import json

import pytest
import torch

from sparseflows import load
from sparseflows.experiment.loading import load_masks
from sparseflows.experiment.stages import stage as stage_module
from sparseflows.experiment.stages.protocols import lasting
from sparseflows.flow.build import build_flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.specs import TrainSpec
from sparseflows.specs.yaml import load_spec
from sparseflows.training.loop import Outcome
from sparseflows.training.optim import learning_rate

ALL = ["cascade", "one_shot", "gradual", "scratch", "rewind", "reduced", "control"]
METHODS = ["magnitude", "neuron_l1"]
RATIOS = [0.6, 0.3]
TINY = {
    "prune.protocols": ALL,
    "prune.methods": METHODS,
    "prune.keep_ratios": RATIOS,
    "prune.gradual_every": 2,
    "prune.retrain": {"steps": 8},
    "train.steps": 20,
    "evaluate.max_rows": 20,
}
DENSE_PARAMS = 122  # 2-8-8-2, t beside the input: 16 + 8 + 8 + 64 + 8 + 16 + 2
STEPS = {  # of each stage: its own, and all behind its weights
    "cascade": lambda k: (8, 20 + 8 * k),
    "one_shot": lambda k: (0, 20),
    "scratch": lambda k: (20 + 8 * k, 20 + 8 * k),
    "rewind": lambda k: (20 + 8 * k, 20 + 8 * k),
    "reduced": lambda k: (20 + 8 * k, 20 + 8 * k),
    "control": lambda k: (8, 20 + 8 * k),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_params, call):
    """The run of all protocols, the weights that its trainings began with, and its param file. Not to be written to."""
    folder = tmp_path_factory.mktemp("protocols")
    param = folder / "tiny.yaml"
    param.write_text(tiny_params(TINY))
    begun, train = {}, stage_module.train

    def note(network, *args, purpose, **options):
        begun[purpose] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        return train(network, *args, purpose=purpose, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "train", note)
        said = call("run", param, "--out", folder)
    assert said.status == 0, said.err
    return folder / "tiny", begun, param


@pytest.fixture(scope="module")
def table(made, rows):
    """(protocol, method, stage) → row."""
    found = {(r["protocol"], r["method"], int(r["stage"])): r for r in rows(made[0])}
    assert len(found) == len(rows(made[0]))
    return found


def label(protocol, method, stage):
    return f"{'' if protocol == 'cascade' else protocol + '.'}{method}-s0/{stage}"


def methods_of(protocol):
    return ["dense"] if protocol in ("reduced", "control") else METHODS


def cases_of(protocol):
    return [(protocol, method, stage) for method in methods_of(protocol) for stage in (1, 2)]


CASES = [case for protocol in ALL for case in cases_of(protocol)]


# --- the stages


def test_every_stage_is_there_and_check_counts_them(made, table, call):
    dense = next(key for key in table if key[1] == "dense" and key[2] == 0)
    assert set(table) == {dense, *CASES}
    said = call("check", made[2], "--json")
    assert json.loads(said.out)["stages"] == len(table) == 1 + (5 * 2 + 2) * 2
    assert json.loads(said.out)["params_dense"] == DENSE_PARAMS


@pytest.mark.parametrize("protocol", ALL)
def test_the_columns_of_a_stage(table, protocol):
    for _, method, stage in cases_of(protocol):
        row = table[protocol, method, stage]
        assert row["status"] == "done"
        assert float(row["keep_ratio_target"]) == RATIOS[stage - 1]
        assert int(row["params_dense"]) == DENSE_PARAMS
        assert float(row["prune_ratio"]) == 1 - int(row["params"]) / DENSE_PARAMS
        assert (row["accuracy_test"], row["loss_test"], row["loss_val"]) == ("", "", "")
        assert float(row["nll_test"]) != 0
        if protocol in STEPS:
            assert (int(row["train_steps"]), int(row["steps_total"])) == STEPS[protocol](stage)


def test_params_are_near_the_target(table):
    for protocol, method, stage in CASES:
        params, target = int(table[protocol, method, stage]["params"]), round(RATIOS[stage - 1] * DENSE_PARAMS)
        # A neuron of 8-8 costs 12 or 11; the reduced one's layers lose a neuron each; a weight costs 1.
        tolerance = {"magnitude": 1, "neuron_l1": 6, "dense": 12}[method]
        assert abs(params - target) <= tolerance or protocol == "control", (protocol, method, stage)


def test_steps_of_the_gradual_ones(made, table):
    assert int(table["gradual", "magnitude", 1]["train_steps"]) == 8
    assert int(table["gradual", "magnitude", 2]["steps_total"]) == 20 + 8 + 8
    total, neurons = 20, 16
    for stage in (1, 2):
        row = table["gradual", "neuron_l1", stage]
        left = sum(next(load(made[0], label("gradual", "neuron_l1", stage)).fields()).hidden)
        assert int(row["train_steps"]) == 2 * (neurons - left) > 0  # one every `gradual_every` steps
        total, neurons = total + int(row["train_steps"]), left
        assert int(row["steps_total"]) == total


@pytest.mark.parametrize("protocol", ALL)
def test_every_stage_loads_and_has_the_params_it_says(made, table, protocol):
    for _, method, stage in cases_of(protocol):
        name = label(protocol, method, stage)
        flow, masks = load(made[0], name), load_masks(made[0], name)
        params = int(table[protocol, method, stage]["params"])
        if method == "magnitude":
            assert masks.kept(flow) == params
            assert all(not flow.get_parameter(key)[~mask].any() for key, mask in masks.items())
        else:
            assert sum(p.numel() for p in flow.parameters()) == params
        if protocol != "reduced":  # whose masks are those of its own dense shapes
            assert masks.kept(build_flow(load_spec(made[2]), 2)) == params


# --- what they begin with


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def tensors(run, name):
    return load(run, name).state_dict()


@pytest.mark.parametrize("stage", [1, 2])
def test_one_shot_leaves_the_dense_weights_as_they_are(made, stage):
    run = made[0]
    dense = tensors(run, "dense-s0/0")
    name = label("one_shot", "magnitude", stage)
    masks, pruned = load_masks(run, name), tensors(run, name)
    assert all(torch.equal(pruned[key], torch.where(masks[key], dense[key], 0.0)) for key in dense)
    name = label("one_shot", "neuron_l1", stage)
    masks, shrunk = load_masks(run, name), tensors(run, name)
    assert all(torch.equal(shrunk[key].flatten(), dense[key][masks[key]]) for key in dense)


def test_what_is_pruned_at_once_is_the_weakest(made):
    # By hand, for the first stage of the cascade and the one-shot alike: ℓ₁ norms of the rows.
    dense = tensors(made[0], "dense-s0/0")
    for protocol in ("cascade", "one_shot"):
        masks = load_masks(made[0], label(protocol, "neuron_l1", 1))
        for layer in (0, 1):
            key = f"blocks.0.field.layers.{layer}"
            kept = masks[f"{key}.bias"]
            norms = dense[f"{key}.weight"].abs().sum(1)
            assert 1 <= int(kept.sum()) < 8
            assert norms[kept].min() > norms[~kept].max()


def test_the_control_goes_on_from_the_dense_flow(made, table):
    run, begun, _ = made
    assert same(begun["control/dense/1"], tensors(run, "dense-s0/0"))
    assert same(begun["control/dense/2"], tensors(run, label("control", "dense", 1)))
    for stage in (1, 2):
        row = table["control", "dense", stage]
        assert int(row["params"]) == DENSE_PARAMS
        assert {row["steps_total"]} == {table["cascade", method, stage]["steps_total"] for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", [1, 2])
def test_rewind_begins_with_the_initial_weights_of_what_the_cascade_kept(made, method, stage):
    run, begun, param = made
    masks = load_masks(run, label("cascade", method, stage))
    for protocol in ("rewind", "scratch"):
        own = load_masks(run, label(protocol, method, stage))
        assert same(dict(own), dict(masks))
    initial = build_flow(load_spec(param), 2, seed=0).state_dict()
    assert same(begun["dense/0"], initial)
    for key, start in begun[f"rewind/{method}/{stage}"].items():
        kept = initial[key][masks[key]]
        assert torch.equal(start[masks[key]] if method == "magnitude" else start.flatten(), kept)


@pytest.mark.parametrize("method", METHODS)
def test_scratch_begins_with_other_weights(made, method):
    begun = made[1]
    for stage in (1, 2):
        fresh, original = begun[f"scratch/{method}/{stage}"], begun[f"rewind/{method}/{stage}"]
        for key, tensor in fresh.items():
            assert tensor.shape == original[key].shape
            assert not torch.equal(tensor, original[key])
            bound = 1 / (2 if ".layers.0." in key else 8) ** 0.5  # of the dense layer's fan-in
            assert 0 < tensor.abs().max() <= bound


def test_reduced_is_a_narrower_dense_flow(made, table):
    run, begun, _ = made
    for stage in (1, 2):
        field = next(load(run, label("reduced", "dense", stage)).fields())
        assert len(field.hidden) == 2
        assert 1 <= min(field.hidden) <= max(field.hidden) < 8
        params = int(table["reduced", "dense", stage]["params"])
        # 2-n-n-2 has n² + 8n + 2 params, t beside the input included.
        assert params == min((n * n + 7 * n + 2 for n in range(1, 9)), key=lambda p: abs(p - RATIOS[stage - 1] * 122))
        assert all(tensor.any() for tensor in begun[f"reduced/dense/{stage}"].values())


# --- again, side by side, refused, failing


def test_a_rerun_makes_nothing_anew(made, call, monkeypatch, tree):
    run, _, param = made
    monkeypatch.setattr(stage_module, "train", None)
    before = tree(run / "cascades")
    said = call("run", param, "--out", run.parent)
    assert said.status == 0, said.err
    assert tree(run / "cascades") == before


def test_two_jobs_compute_what_one_computes(changed, tmp_path, call, numbers):
    protocols = ["scratch", "one_shot", "gradual", "control"]
    changes = {"prune.protocols": protocols, "prune.methods": ["snip"], "prune.keep_ratios": [0.6]}
    param = changed(TINY | changes | {"train.steps": 6, "prune.retrain": {"steps": 3}})
    for jobs in (1, 2):
        said = call("run", param, "--out", tmp_path / str(jobs), "--jobs", jobs)
        assert said.status == 0, said.err
    one, two = (numbers(tmp_path / str(jobs) / "tiny") for jobs in (1, 2))
    assert len(one["rows"]) == 1 + 4
    assert one == two


REFUSED = [
    ({"prune.protocols": ["scratch"]}, "scratch and rewind train what another one has pruned; add cascade"),
    ({"prune.protocols": ["rewind", "control"]}, "scratch and rewind train what another one has pruned"),
    (
        {"prune.protocols": ["gradual"], "prune.methods": ["pfp_randomised"]},
        "gradual takes weights out bit by bit; pfp_randomised draws them all at once",
    ),
    ({"prune.protocols": ["cascade", "one_shot", "cascade"]}, "protocols: each one once"),
    ({"prune.protocols": ["cascde"]}, "'cascde' is not one of 'cascade', 'one_shot'"),
    ({"prune.protocols": "control"}, "prune.protocols"),
    ({"prune.protocols": []}, "prune.protocols"),
    ({"prune.methods": ["magnitude", "magnitude"]}, "methods: each one once"),
    ({"prune.gradual_every": 0}, "prune.gradual_every"),
    ({"prune.floor": 0.6}, "prune.floor"),
    ({"prune.sample": 0}, "prune.sample"),
    ({"prune.allocation": "layer"}, "prune.allocation"),
    ({"prune.protocols": ["reduced"], "prune.keep_ratios": [], "prune.methods": ["magnitude"]}, "go together"),
]


def test_what_cannot_be_compared_is_refused(changed, call, tmp_path):
    for number, (changes, words) in enumerate(REFUSED):
        param = changed(changes)
        # The settings are the same thing to both commands: one case of `run`, too, shows that it leaves nothing.
        for command in [("check", param), ("run", param, "--out", tmp_path / "runs")][: 2 if number == 0 else 1]:
            said = call(*command)
            assert said.status == 2, changes
            assert len(said.err.splitlines()) == 1
            assert words in said.err
            assert said.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_dense_flow_that_fails_takes_all_others_with_it(changed, call, tmp_path, rows, monkeypatch):
    monkeypatch.setattr(stage_module, "train", lambda *args, **options: Outcome(Status.NON_FINITE, 3, 0.0))
    param = changed(TINY)
    assert call("run", param, "--out", tmp_path).status in (0, 1)
    found = rows(tmp_path / "tiny")
    assert len(found) == 25
    assert {row["status"] for row in found} == {"failed"}
    reasons = {row["reason"] for row in found if row["stage"] != "0"}
    assert reasons == {"the dense flow of this seed failed"}
    assert next(row["reason"] for row in found if row["stage"] == "0").startswith("training stopped at step 3")
    assert {row["params"] for row in found if row["stage"] != "0"} == {""}


def test_what_stands_on_a_failed_stage_fails_and_says_so(changed, call, tmp_path, rows, monkeypatch):
    train = stage_module.train

    def fails(*args, purpose, **options):
        if purpose == "magnitude/1":
            return Outcome(Status.NON_FINITE, 1, 0.0)
        return train(*args, purpose=purpose, **options)

    monkeypatch.setattr(stage_module, "train", fails)
    protocols = {"prune.protocols": ["cascade", "rewind"], "prune.methods": ["magnitude"]}
    call("run", changed(TINY | protocols), "--out", tmp_path)
    found = {(row["protocol"], row["stage"]): row for row in rows(tmp_path / "tiny")}
    assert [found["cascade", k]["status"] for k in "12"] == ["failed", "done"]
    assert found["cascade", "2"]["steps_total"] == "28"  # it stands on the dense flow
    assert found["rewind", "1"]["reason"] == "the stage whose architecture it takes failed"
    assert (found["rewind", "2"]["status"], found["rewind", "2"]["train_steps"]) == ("done", "28")


def test_scratch_takes_the_one_shots_architecture_where_there_is_no_cascade(changed, call, tmp_path):
    changes = {"prune.protocols": ["scratch", "one_shot"], "prune.keep_ratios": [0.5]}
    assert call("run", changed(TINY | changes), "--out", tmp_path).status == 0
    run = tmp_path / "tiny"
    for method in METHODS:
        ours, theirs = (dict(load_masks(run, label(p, method, 1))) for p in ("scratch", "one_shot"))
        assert same(ours, theirs)


@pytest.mark.parametrize(
    ("method", "sampled"),
    [("sipp_randomised", True), ("taylor", True), ("random_neurons", False)],
)
def test_methods_that_look_at_data_and_those_that_draw(method, sampled, changed, call, tmp_path, rows):
    changes = {"prune.protocols": ["one_shot"], "prune.methods": [method], "seeds": [0, 1], "prune.keep_ratios": [0.5]}
    assert call("run", changed(TINY | changes | {"prune.sample": 8}), "--out", tmp_path).status == 0
    found = [row for row in rows(tmp_path / "tiny") if row["stage"] == "1"]
    assert [row["status"] for row in found] == ["done"] * 2
    one, other = (dict(load_masks(tmp_path / "tiny", f"one_shot.{method}-s{seed}/1")) for seed in (0, 1))
    assert not same(one, other)


# --- how long


def rates(settings, rows):
    total, per_epoch = settings.steps_for(rows)
    return [learning_rate(settings, step, total, per_epoch) for step in range(total)]


@pytest.mark.parametrize("length", [{"epochs": 20, "milestones": [10, 15]}, {"steps": 80, "milestones": [40, 60]}])
def test_a_longer_training_drops_its_rate_at_the_same_shares(length):
    settings = TrainSpec.model_validate({"batch": 32, "schedule": "multi_step", "lr": 1.0, "gamma": 0.1, **length})
    whole = rates(settings, 128)  # 4 steps an epoch
    assert [len(whole), whole.count(1.0)] == [80, 40]
    longer = rates(lasting(settings, 120, 128), 128)
    assert len(longer) == 120
    assert longer[::3] == whole[::2]
    shorter = rates(lasting(settings, 8, 128), 128)
    assert shorter == whole[::10]
    assert lasting(settings, 80, 128) is settings
    TrainSpec.model_validate(lasting(settings, 1, 128).model_dump())  # drops that fall together are one
