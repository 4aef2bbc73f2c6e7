"""Settings: defaults, bounds, what goes with what, and the arithmetic that `check` rests on."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from support.arrays import pairwise

from sparseflows.flow.build import build_flow
from sparseflows.pruning.graph.groups import count_params
from sparseflows.specs import DataSpec, EvaluateSpec, FlowSpec, PruneSpec, SolveSpec, Spec, TrainSpec
from sparseflows.specs.choices import ADAPTIVE, FIXED, TIMES

MINIMAL = {"name": "a", "data": {"name": "moons"}, "train": {"epochs": 2}}


def spec(**sections):
    return Spec.model_validate(MINIMAL | sections)


def refusal(section, **settings):
    """All messages of the error that the settings raise."""
    with pytest.raises(ValidationError) as caught:
        section.model_validate(settings)
    return "; ".join(".".join(map(str, e["loc"])) + ": " + e["msg"] for e in caught.value.errors())


def test_defaults():
    found = spec()
    assert (found.format, found.seeds, found.device, found.dtype, found.threads) == (1, [0], "cpu", "float32", 1)
    assert (found.data.val_fraction, found.data.test_fraction, found.data.seed) == (0.1, 0.1, 0)
    assert (found.flow.hidden, found.flow.activation, found.flow.time) == ([64, 64, 64], "sigmoid", "none")
    assert (found.solve.method, found.solve.rtol, found.solve.divergence) == ("dopri5", 1e-5, "exact")
    assert (found.train.objective, found.train.optimiser, found.train.select) == ("nll", "adamw", "last")
    assert (found.prune.methods, found.prune.keep_ratios, found.prune.allocation) == ([], [], "uniform")
    assert (found.evaluate.rtol, found.evaluate.atol, found.evaluate.dtype) == (1e-5, 1e-5, "float64")


def test_no_default_is_shared():
    assert spec().seeds is not spec().seeds
    assert spec().flow.hidden is not spec().flow.hidden


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        spec().name = "b"
    with pytest.raises(ValidationError):
        spec().train.lr = 0.1


# --- params by arithmetic


def test_the_usual_toy_flow_has_8642_params():
    assert FlowSpec().dense_params(2) == 8642  # 2·64 + 64, 64·64 + 64 twice, 64·2 + 2


@pytest.mark.parametrize(*pairwise(time=TIMES, hidden=[[7], [5, 3], [4, 6, 3]], end_time=[False, True]))
def test_dense_params_are_those_of_the_flow(time, hidden, end_time):
    for dim, blocks in product([1, 2, 5], [1, 3]):
        settings = FlowSpec(hidden=hidden, time=time, blocks=blocks, train_end_time=end_time)
        assert settings.dense_params(dim) == count_params(build_flow(settings, dim))
    whitened = build_flow(settings, 5, whitening=torch.eye(5))
    assert count_params(whitened) == settings.dense_params(5)  # the whitening is fixed, so no params


# --- lengths


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        ({"epochs": 3, "batch": 10}, 100, (30, 10)),
        ({"epochs": 3, "batch": 10}, 101, (33, 11)),
        ({"epochs": 3, "batch": 1000}, 100, (3, 1)),
        ({"steps": 7, "batch": 10}, 101, (7, 11)),
        ({"steps": 1, "batch": 1}, 8, (1, 8)),
    ],
)
def test_steps_of_a_training(settings, rows, expected):
    assert TrainSpec.model_validate(settings).steps_for(rows) == expected


def test_the_length_is_given_once():
    for settings in [{}, {"epochs": 3, "steps": 7}, {"epochs": None}]:
        assert "give the length once: either epochs or steps" in refusal(TrainSpec, **settings)


# --- retraining


def retrain(train=None, **changes):
    prune = {"methods": ["structured"], "keep_ratios": [0.5], "retrain": changes}
    return spec(train=train or {"epochs": 2, "lr": 0.1}, prune=prune).retrain_spec()


def test_retraining_repeats_the_training_unless_told_otherwise():
    assert retrain() == spec(train={"epochs": 2, "lr": 0.1}).train
    changed = retrain(lr=0.01, optimiser="sgd", ema=0.9)
    assert (changed.lr, changed.optimiser, changed.ema, changed.epochs) == (0.01, "sgd", 0.9, 2)


def test_a_length_of_one_kind_replaces_the_other():
    assert (retrain(steps=7).steps, retrain(steps=7).epochs) == (7, None)
    by_steps = {"steps": 9}
    assert (retrain(by_steps, epochs=3).steps, retrain(by_steps, epochs=3).epochs) == (None, 3)
    assert retrain(by_steps).steps == 9


def test_milestones_go_with_their_schedule():
    stepped = {"epochs": 9, "schedule": "multi_step", "milestones": [3, 6]}
    assert retrain(stepped, schedule="cosine").milestones == []
    assert retrain(stepped, schedule="multi_step").milestones == [3, 6]
    assert retrain(stepped, epochs=4).milestones == [3, 6]
    assert retrain(stepped, milestones=[2]).milestones == [2]
    assert retrain(schedule="multi_step", milestones=[1]).milestones == [1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": -1}, "prune.retrain.lr: Input should be greater than 0"),
        ({"lr": "fast"}, "prune.retrain.lr: Input should be a valid number"),
        ({"optimiser": "adm"}, "prune.retrain.optimiser: Input should be 'adamw', 'adam' or 'sgd'"),
        ({"steps": 3, "epochs": 2}, "prune.retrain: Value error, give the length once"),
        ({"milestones": [2]}, "prune.retrain: Value error, milestones goes with schedule: multi_step"),
        ({"stps": 3}, "prune.retrain: unknown key 'stps'; did you mean 'steps'? (known: batch, "),
        ({"objective": "flow_matching"}, "prune.retrain.objective: a cascade keeps the objective"),
        ({"lr": -1, "batch": 0}, "prune.retrain.batch: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_in_retrain_is_said_of_retrain(changes, words):
    prune = {"methods": ["structured"], "keep_ratios": [0.5], "retrain": changes}
    assert words in refusal(Spec, **MINIMAL, prune=prune)


# --- what goes with what


@pytest.mark.parametrize("method", FIXED)
def test_fixed_methods_need_steps(method):
    assert SolveSpec(method=method, steps=8).steps == 8
    assert (
        f"steps goes with the fixed-step methods (euler, midpoint, rk4), rtol and atol with the adaptive ones "
        f"(dopri5, bosh3, dopri8, adaptive_heun, fehlberg2); method is {method}" in refusal(SolveSpec, method=method)
    )


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_take_no_steps(method):
    assert SolveSpec(method=method).steps is None
    assert f"method is {method}" in refusal(SolveSpec, method=method, steps=8)


MATCHING = {"epochs": 2, "objective": "flow_matching"}


@pytest.mark.parametrize("time", ["concat", "concat_squash"])
@pytest.mark.parametrize("base", ["none", "gaussian"])
def test_flow_matching_with_one_block_and_a_time_input(time, base):
    assert spec(train=MATCHING, flow={"time": time, "base": base}).train.objective == "flow_matching"


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({"time": "concat", "blocks": 2}, "flow_matching needs flow.blocks: 1, not 2"),
        ({"time": "concat", "train_end_time": True}, "flow_matching needs T = 1: flow.train_end_time: false"),
        ({"time": "none"}, "flow_matching needs a time input: flow.time: concat or concat_squash"),
    ],
)
def test_flow_matching_with_anything_else_is_refused_by_name(flow, words):
    assert words in refusal(Spec, **MINIMAL | {"train": MATCHING}, flow=flow)
    flow = {"blocks": 2, "train_end_time": True} | {k: v for k, v in flow.items() if k == "time"}
    spec(flow=flow)  # all of these are fine for the likelihood


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"flow": {"base": "gaussian"}}, "flow.base: gaussian is the start of train.objective: flow_matching"),
        ({"train": MATCHING | {"kinetic": 0.1}, "flow": {"time": "concat"}}, "kinetic and jacobian regularise"),
        ({"train": MATCHING | {"jacobian": 0.1}, "flow": {"time": "concat"}}, "kinetic and jacobian regularise"),
        ({"seeds": [1, 2, 1]}, "seeds: each one once"),
        ({"prune": {"methods": ["structured"]}}, "methods and keep_ratios go together"),
        ({"prune": {"keep_ratios": [0.5]}}, "methods and keep_ratios go together"),
        ({"prune": {"methods": ["structured"] * 2, "keep_ratios": [0.5]}}, "methods: each one once"),
        ({"train": {"epochs": 2, "schedule": "multi_step"}}, "milestones goes with schedule: multi_step"),
        ({"train": {"epochs": 2, "milestones": [1]}}, "milestones goes with schedule: multi_step"),
        (
            {"train": {"epochs": 2, "schedule": "multi_step", "milestones": [3, 3]}},
            "milestones must rise",
        ),
        ({"data": {"name": "table", "val_fraction": 0.5, "test_fraction": 0.45}}, "at least 0.1 of the rows"),
        ({"evaluate": {"dtype": "float32", "atol": 1e-7}}, "float32 cannot resolve a tolerance below 1e-6"),
    ],
)
def test_settings_that_contradict_each_other(sections, words):
    assert words in refusal(Spec, **MINIMAL | sections)


# --- names and devices


def test_names_of_runs():
    for name in ["a", "quick", "2024", "a.b_c-d", "1e5", "A" * 64, "x..y"]:
        assert spec(name=name).name == name


def test_names_that_make_no_folder():
    for name in ["", "a/b", "../a", ".hidden", "-a", "_a", "a b", "ä", "a\n", "A" * 65, "a\\b", "a\0"]:
        message = refusal(Spec, **MINIMAL | {"name": name})
        assert "at most 64 letters, digits, '.', '_' or '-', the first a letter or digit" in message
        assert repr(name[:64]) in message
        assert "^" not in message  # no regular expression


def test_devices():
    for device in ["cpu", "cuda", "cuda:0", "cuda:15"]:
        assert spec(device=device).device == device


def test_unknown_devices():
    for device in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:123", "mps", "cpu\n"]:
        message = refusal(Spec, **MINIMAL | {"device": device})
        assert f"device is cpu, cuda or one GPU of several, as cuda:1, not {device!r}" in message


# --- bounds

BOUNDS = [
    (DataSpec, {"name": "x"}, "n_train", [8, 100_000_000], [7, 0, -1, 100_000_001]),
    (DataSpec, {"name": "x"}, "val_fraction", [0.01, 0.8], [0.0, 0.009, 0.81, 1.0]),
    (DataSpec, {"name": "x"}, "test_fraction", [0.01, 0.8], [0.0, 0.81]),
    (DataSpec, {"name": "x"}, "seed", [0, 2**31 - 1], [-1, 2**31]),
    (FlowSpec, {}, "hidden", [[1], [8192], [1] * 32], [[], [0], [8193], [1] * 33]),
    (FlowSpec, {}, "blocks", [1, 64], [0, 65]),
    (FlowSpec, {}, "gain", [0.001, 100], [0, -1.0, 101]),
    (SolveSpec, {}, "rtol", [1e-12, 1], [0, -1e-5, 1.1]),
    (SolveSpec, {}, "atol", [1e-12, 1], [0, 1.1]),
    (SolveSpec, {}, "max_nfe", [10, 10_000_000], [9, 10_000_001]),
    (SolveSpec, {"method": "rk4"}, "steps", [1, 100_000], [0, 100_001]),
    (TrainSpec, {}, "epochs", [1, 1_000_000], [0, -1, 1_000_001]),
    (TrainSpec, {}, "steps", [1, 10_000_000], [0, 10_000_001]),
    (TrainSpec, {"epochs": 1}, "batch", [1, 10_000_000], [0, 10_000_001]),
    (TrainSpec, {"epochs": 1}, "lr", [1e-9, 100], [0, -1, 101]),
    (TrainSpec, {"epochs": 1}, "weight_decay", [0, 10], [-0.1, 11]),
    (TrainSpec, {"epochs": 1}, "clip", [1e-9, 999_999], [0, -1, 1e6]),
    (TrainSpec, {"epochs": 1}, "gamma", [0.01, 1], [0, 1.1]),
    (TrainSpec, {"epochs": 1}, "ema", [0.5, 0.9999], [0, 1, 1.5]),
    (TrainSpec, {"epochs": 1}, "time_power", [0.1, 10], [0.09, 11]),
    (TrainSpec, {"epochs": 1}, "kinetic", [0, 10], [-1, 1e6]),
    (TrainSpec, {"epochs": 1}, "jacobian", [0, 10], [-1, 1e6]),
    (TrainSpec, {"epochs": 1}, "selections", [1, 10_000], [0, 10_001]),
    (EvaluateSpec, {}, "rtol", [1e-10, 1e-5], [1e-11, 2e-5, 0]),
    (EvaluateSpec, {}, "atol", [1e-10, 1e-5], [1e-11, 2e-5]),
    (EvaluateSpec, {}, "max_rows", [1, 100_000_000], [0, -1]),
    (EvaluateSpec, {}, "max_nfe", [10, 10_000_000], [9]),
    (Spec, MINIMAL, "threads", [1, 1024], [0, 1025]),
    (Spec, MINIMAL, "seeds", [[0], list(range(1000))], [[], [-1], list(range(1001)), [2**31]]),
]


@pytest.mark.parametrize(
    ("section", "others", "key", "good", "bad"), BOUNDS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_bounds(section, others, key, good, bad):
    for value in good:
        assert getattr(section.model_validate(others | {key: value}), key) == value
    for value in bad:
        assert refusal(section, **others | {key: value}).startswith(key)


def test_a_whole_number_is_asked_for():
    for value in [True, "3", 3.0, None, [3], {"a": 3}, float("nan")]:
        assert refusal(TrainSpec, epochs=1, batch=value).startswith("batch: ")


def test_a_number_is_asked_for():
    for value in [True, "0.1", None, [0.1], float("nan"), float("inf"), -float("inf")]:
        assert refusal(TrainSpec, epochs=1, lr=value).startswith("lr: ")


def test_whole_numbers_are_numbers():
    assert TrainSpec(epochs=1, lr=1).lr == 1.0


def test_keep_ratios_are_written_out():
    prune = PruneSpec(methods=["structured"], keep_ratios=[{"linear": [0.8, 0.4, 3]}])
    assert prune.keep_ratios == pytest.approx([0.8, 0.6, 0.4], abs=1e-12)
    assert "keep_ratios must fall" in refusal(PruneSpec, methods=["structured"], keep_ratios=[0.2, 0.8])
