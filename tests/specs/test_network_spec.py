"""The `network` section of a param file, and what goes with the objective cross_entropy."""

import sys
from subprocess import run

import pytest
from pydantic import ValidationError

from sparseflows.specs import NetworkSpec, Spec

TRAIN = {"objective": "cross_entropy", "steps": 10}
DENSE = {"kind": "dense", "hidden": [8]}


def whole(**sections):
    return Spec.model_validate({"name": "x", "data": {"name": "digits_labelled"}, "train": TRAIN} | sections)


def test_defaults():
    assert whole().network is None  # the final state of the flow's ODE
    network = whole(network=DENSE).network
    assert (network.activation, network.batch_norm, network.channels) == ("relu", False, [])


def test_a_spec_comes_back_from_its_own_dump():
    for spec in (whole(), whole(network={"kind": "conv", "channels": [4, 8], "hidden": [5], "batch_norm": True})):
        assert Spec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("network", "part"),
    [
        ({"kind": "dense"}, "kind: dense needs hidden"),
        ({"kind": "dense", "hidden": [4], "channels": [4]}, "takes no channels"),
        ({"kind": "conv", "hidden": [4]}, "kind: conv needs channels"),
        ({"kind": "conv", "channels": [0]}, "greater than or equal to 1"),
        ({"kind": "dense", "hidden": [4], "widths": [4]}, "widths"),
        ({"kind": "dense", "hidden": [4], "activation": "gelu"}, "'tanh', 'softplus', 'relu' or 'silu'"),
    ],
)
def test_refused_networks(network, part):
    with pytest.raises(ValidationError, match=part):
        NetworkSpec.model_validate(network)


@pytest.mark.parametrize(
    ("sections", "part"),
    [
        ({"network": DENSE, "train": {"steps": 1}}, "train.objective: cross_entropy, not nll"),
        ({"network": DENSE, "data": {"name": "moons", "whiten": True}}, "data.whiten: false"),
        ({"train": TRAIN | {"kinetic": 0.1}}, "cross_entropy takes weight_decay"),
        ({"flow": {"base": "gaussian"}}, "start of train.objective: flow_matching"),
        ({"network": DENSE | {"batch_norm": True}, "train": TRAIN | {"ema": 0.9}}, "statistics of network.batch_norm"),
    ],
)
def test_what_does_not_go_together(sections, part):
    with pytest.raises(ValidationError, match=part):
        whole(**sections)


@pytest.mark.parametrize(("dim", "channels", "sides"), [(64, [1] * 3, [8, 4, 2, 1]), (784, [1] * 2, [28, 14, 7])])
def test_sides(dim, channels, sides):
    assert NetworkSpec(kind="conv", channels=channels).sides(dim) == sides


def test_settings_and_labelled_sets_do_not_load_pytorch():
    code = "import sys, sparseflows.specs, sparseflows.experiment.plan; print('torch' in sys.modules)"
    found = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
