"""`sweep:` → points: which ones, in which order, by which names; and what is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparseflows.errors import InputError
from sparseflows.experiment.sweep.points import expand, label_of, load_experiment, load_sweep
from sparseflows.specs import Spec
from sparseflows.specs.yaml import load_spec

ROOT = Path(__file__).resolve().parents[3]
BASE = {"name": "s", "data": {"name": "moons"}, "train": {"steps": 2}}


def points(sweep, **changes):
    return expand(BASE | changes | {"sweep": sweep}, "s.yaml").points


def test_lists_are_crossed_the_last_fastest():
    found = points({"train.lr": [0.1, 0.2], "flow": {"activation": ["tanh", "relu"]}})
    assert [(p.spec.train.lr, p.spec.flow.activation) for p in found] == [
        *[(0.1, "tanh"), (0.1, "relu"), (0.2, "tanh"), (0.2, "relu")]
    ]
    assert [p.label for p in found][:2] == ["lr-0.1_activation-tanh", "lr-0.1_activation-relu"]
    assert found[1].changes == {"train.lr": 0.1, "flow.activation": "relu"}
    assert [p.spec.name for p in found] == [p.label for p in found]


def test_zipped_lists_go_side_by_side_and_are_crossed_with_the_rest():
    found = points(
        {
            "solve.gradient": ["adjoint", "backprop"],
            "zip": [
                {"solve.method": ["euler", "dopri5"], "solve.steps": [9, None]},
                {"train": {"lr": [0.1, 0.2], "weight_decay": [0.0, 0.5]}},
            ],
        }
    )
    solves = [("euler", 9), ("dopri5", None)]
    rates = [(0.1, 0.0), (0.2, 0.5)]
    wanted = [(*s, *r, g) for s, r, g in itertools.product(solves, rates, ["adjoint", "backprop"])]
    assert [
        (p.spec.solve.method, p.spec.solve.steps, p.spec.train.lr, p.spec.train.weight_decay, p.spec.solve.gradient)
        for p in found
    ] == wanted


KEYS = st.lists(st.text("abcxyz_", min_size=1, max_size=9), min_size=1, max_size=3).map(
    lambda words: ".".join(["x" + words[0], *words[1:]])
)


@given(
    st.lists(
        st.dictionaries(
            KEYS,
            st.one_of(
                *[st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=90)],
                *[st.lists(st.integers(1, 99), max_size=40), st.lists(st.floats(0, 1), max_size=5)],
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_labels_name_folders(several):
    for changes in several:
        assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", label_of(changes)), changes


def test_labels_say_what_was_changed():
    assert label_of({"flow.hidden": [64, 64, 64]}) == "hidden-3x64"
    assert label_of({"flow.hidden": [1700]}) == "hidden-1x1700"
    assert label_of({"seeds": [1, 1]}) == "seeds-1-1"
    assert label_of({"prune.keep_ratios": [0.5, 0.25]}) == "keep_ratios-0.5-0.25"
    assert label_of({"train.weight_decay": 1e-7, "solve.steps": None}) == "weight_decay-1e-07_steps-none"
    assert label_of({"train.lr": 0.1, "prune.retrain.lr": 0.2}) == "train.lr-0.1_prune.retrain.lr-0.2"
    long = [label_of({"data.path": f"{'x' * 80}{n}"}) for n in range(2)]
    assert len(set(long)) == 2


def test_points_of_one_label_are_told_apart():
    near = [0.1234567, 0.12345671]  # the same to six digits
    labels = [p.label for p in points({"train.lr": near})]
    assert len(set(labels)) == 2
    same = [p.label for p in points({"train.steps": [1, 2], "flow.activation": ["tanh"]})]
    assert same == ["steps-1_activation-tanh", "steps-2_activation-tanh"]


def test_a_point_is_the_experiment_written_out():
    (one,) = points({"flow.hidden": [[8]], "prune.retrain.lr": [0.5]})
    wanted = Spec.model_validate(BASE | {"name": one.label, "flow": {"hidden": [8]}, "prune": {"retrain": {"lr": 0.5}}})
    assert one.spec == wanted


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"flow.activaton": ["tanh"]}, "unknown key 'flow.activaton'; did you mean 'activation'"),
        ({"nosuch.key": [1]}, "unknown key 'nosuch'"),
        ({"train.steps.more": [1]}, "train.steps.more: 'train.steps' is a single value (2) and has no keys below it"),
        ({"train.lr": 0.1}, "sweep.train.lr: give a list of values to try, not one value"),
        ({"train.lr": []}, "sweep.train.lr: give a list of values to try, not an empty list"),
        ({"train.lr": [0.1, -1.0]}, "sweep point lr--1: train.lr"),
        ({"name": ["a", "b"]}, "name cannot be swept"),
        ({"train": [{"lr": 1}]}, "sweep: train is a section; name the key in it that is to be swept"),
        ({"sweep": {"train.lr": [1]}}, "s.yaml: sweep: sweep cannot be swept"),
        ({}, "give a mapping of keys to lists"),
        (7, "give a mapping of keys to lists"),
        ({"zip": {}}, "sweep.zip: give a mapping of keys to lists of one length"),
        ({"zip": {"train.lr": [1, 2], "train.batch": [1, 2, 3]}}, "of one length, not train.lr 2, train.batch 3"),
        ({"train.lr": [0.1], "zip": {"train.lr": [0.2]}}, "train.lr is swept twice"),
        ({"train.lr": [0.1, 0.1]}, "comes twice"),
        ({f"train.{k}": list(range(1, 30)) for k in ("lr", "batch", "clip", "steps")}, "707,281 points; give at most"),
    ],
)
def test_refusals_are_one_line(sweep, said):
    with pytest.raises(InputError) as caught:
        points(sweep)
    assert said in str(caught.value)
    assert str(caught.value).startswith("s.yaml")
    assert "\n" not in str(caught.value)


def test_a_sweep_is_no_single_experiment_and_the_reverse(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(BASE | {"sweep": {"train.lr": [0.1]}}))
    assert load_sweep(path).keys == ("train.lr",)
    with pytest.raises(InputError, match="a sweep, that is many experiments"):
        load_spec(path)
    path.write_text(yaml.safe_dump(BASE))
    assert load_experiment(path) == load_spec(path)
    with pytest.raises(InputError, match="one experiment, no sweep"):
        load_sweep(path)


@pytest.mark.parametrize(("name", "count"), [("depth_width", 15), ("activation", 4), ("solver", 6), ("optimiser", 18)])
def test_the_published_sweeps(name, count):
    sweep = load_sweep(ROOT / "param" / "sweeps" / f"{name}.yaml")
    assert len(sweep.points) == count
    assert sweep.name == f"sweep-{name.replace('_', '-')}"
    if name == "depth_width":  # layers × width: about equal size within each five
        sizes = [p.spec.flow.dense_params(2) for p in sweep.points]
        assert all(max(sizes[i : i + 5]) < 1.12 * min(sizes[i : i + 5]) for i in (0, 5, 10))
        assert sizes[2] == 8642  # the published flow


def test_set_reaches_into_a_sweep(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(BASE | {"sweep": {"train.lr": [0.1]}}))
    found = load_sweep(path, ["sweep.flow.activation=[tanh, relu]", "train.batch=7"])
    assert [p.label for p in found.points] == ["lr-0.1_activation-tanh", "lr-0.1_activation-relu"]
    assert {p.spec.train.batch for p in found.points} == {7}
