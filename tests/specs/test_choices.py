"""The tables of names: what implements them has the same names, and a new criterion is one entry and one file."""

import inspect
import sys
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from pydantic import ValidationError

import sparseflows as sf
from analysis.curvature.fused_activations import DERIVATIVES
from analysis.settings import HessianSettings
from sparseflows.cli import app
from sparseflows.cli import data as cli_data
from sparseflows.cli.console import run_app
from sparseflows.flow import activations, divergence
from sparseflows.flow.compiled import structures
from sparseflows.networks import build
from sparseflows.pruning.scoring import allocation
from sparseflows.pruning.scoring.criteria.by_name import OF_THE_NEXT, rule_of
from sparseflows.specs import PruneSpec, TrainSpec, choices, methods
from sparseflows.specs.choices import OneOf
from sparseflows.specs.methods import METHODS, Method, criteria
from sparseflows.training import optim

OF_ROWS = {"shares", "neuron_shares", "means", "inputs"}
OF_A_LOSS = {"mean_gradient", "squared_gradients", "contributions"}


@pytest.mark.parametrize(
    ("implemented", "table"),
    [
        (activations.ACTIVATIONS, choices.ACTIVATIONS),
        (build.ACTIVATIONS, choices.ACTIVATIONS),
        (structures.ACTIVATION_ORDER, choices.ACTIVATIONS),
        (DERIVATIVES, choices.ACTIVATIONS),
        (optim.SCHEDULES, choices.SCHEDULES),
        (allocation.ALLOCATIONS, choices.ALLOCATIONS),
    ],
)
def test_what_implements_a_list_has_its_names(implemented, table):
    assert set(implemented) == set(table)


def literals(annotation):
    """The names in the `Literal`s of an annotation."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {name for part in get_args(annotation) for name in literals(part)}


def test_options_of_commands_have_the_names_of_their_lists():
    # Spelt out where they stand, for these modules are read before pydantic may be.
    score, split = (get_type_hints(command, include_extras=True) for command in (app.score, cli_data.prepare_data))
    hessian = get_type_hints(HessianSettings, include_extras=True)
    assert literals(score["coordinates"]) == literals(choices.Coordinates)
    assert literals(score["dtype"]) == literals(split["dtype"]) == literals(hessian["dtype"]) == literals(choices.Dtype)
    assert literals(hessian["loss"]) == {*choices.OBJECTIVES} - {"cross_entropy"}


def test_what_a_list_names_can_be_made():
    like, generator = torch.zeros(64, 2), torch.Generator().manual_seed(0)
    drawn = {name: divergence.draw_noise(name, like, generator) for name in choices.NOISES}
    assert {len(noise.unique()) for noise in drawn.values()} == {2, 128}
    parameters = [torch.nn.Parameter(torch.ones(2))]
    made = {name: optim.build_optimiser(TrainSpec(epochs=1, optimiser=name), parameters) for name in choices.OPTIMISERS}
    assert {name: type(one).__name__.lower() for name, one in made.items()} == {name: name for name in made}


def test_solvers():
    assert {*choices.ADAPTIVE, *choices.FIXED} == set(choices.SOLVERS)
    assert choices.HELD == ("bosh3", "dopri5")
    assert choices.OF_DENSE == ("reduced", "control")
    assert methods.DRAWN == ("sipp_randomised", "sipp_hybrid", "pfp_randomised", "pfp_top_random")
    assert methods.SYNONYMS == {"magnitude": "unstructured", "neuron_l1": "structured"}
    assert [methods.random_of(kind) for kind in get_args(methods.Kind)] == ["random_weights", "random_neurons"]


def test_the_help_names_every_choice():
    description = PruneSpec.model_fields["methods"].description
    assert all(name in description for name in METHODS)
    assert "; whole neurons by neuron_l1 (structured is the same), neuron_l2, pfp" in description
    assert all(f"{name}: " in PruneSpec.model_fields["protocols"].description for name in choices.PROTOCOLS)


@pytest.mark.parametrize("value", ["cascad", None, 3, ["cascade"], {}])
def test_a_name_that_is_none_is_refused_with_all_that_are(value):
    with pytest.raises(ValidationError) as caught:
        PruneSpec(protocols=[value])
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"], error["input"]) == ("literal_error", ("protocols", 0), value)
    assert error["msg"] == (
        "Input should be 'cascade', 'one_shot', 'gradual', 'scratch', 'rewind', 'reduced' or 'control'"
    )


@pytest.mark.parametrize("name", criteria())
def test_a_rule_asks_for_no_more_than_its_entry_says(name):
    method = METHODS[name]
    asked = set(inspect.signature(rule_of(method)).parameters)
    needs = "loss" if asked & OF_A_LOSS else "rows" if asked & OF_ROWS else "nothing"
    assert (method.needs, method.needs_data) == (needs, needs != "nothing")
    assert not (method.kind == "weights" and asked & set(OF_THE_NEXT))
    assert method.source


# --- a criterion that ships


def loudest(neuron_shares, weight):
    """A neuron's summed share over the next layer, times the norm of what comes in."""
    return neuron_shares.sum(0) * weight.norm(dim=1)


def recent(weight, mean_gradient):
    """Weights that the loss still moves."""
    return (weight - mean_gradient).abs()


@pytest.fixture
def shipped(monkeypatch):
    """Two criteria as they would ship: a rule each in a module, and an entry each in the table."""
    module = ModuleType("new_criteria")
    module.loudest, module.recent = loudest, recent
    monkeypatch.setitem(sys.modules, "new_criteria", module)
    monkeypatch.setitem(METHODS, "loudest", Method("neurons", "rows", "new_criteria:loudest", "here", "shares"))
    monkeypatch.setitem(METHODS, "recent", Method("weights", "loss", "new_criteria:recent", "here", "new"))
    return ["loudest", "recent"]


def test_a_new_criterion_scores_and_prunes(shipped):
    flow = sf.build_flow(sf.Spec.model_validate(SETTINGS), seed=0)
    sample = sf.Sample(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    for name in shipped:
        scores = sf.score(name, flow, sample)
        assert all(torch.isfinite(values).all() for values in scores.values())
        pruned = sf.prune(name, sf.unpruned(flow), flow, 50, sample=sample)
        assert pruned.params == pytest.approx(50, abs=8)
        assert (pruned.masks is None) == (METHODS[name].kind == "neurons")
        with pytest.raises(sf.errors.InputError, match=f"'{name}' looks at data"):
            sf.prune(name, sf.unpruned(flow), flow, 50)


SETTINGS = {
    "name": "new",
    "data": {"name": "moons", "n_train": 64},
    "flow": {"hidden": [8], "activation": "tanh", "time": "concat"},
    "train": {"objective": "flow_matching", "steps": 2, "batch": 32},
    "evaluate": {"max_rows": 8},
}


def test_a_new_criterion_is_a_method_of_param_files(shipped, tmp_path):
    file = tmp_path / "new.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"prune": {"methods": shipped, "keep_ratios": [0.6], "sample": 4}}))
    assert run_app(app.app, "sparseflows", ["run", str(file), "--out", str(tmp_path / "runs"), "--json"]) == 0
    rows = (tmp_path / "runs/new/results.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows[1:]] == ["dense", *shipped]
    assert all(",done," in row for row in rows[1:])


def test_a_method_without_an_entry_is_refused():
    with pytest.raises(ValidationError, match="'magnitude', 'snip'"):
        PruneSpec(methods=["loudest"], keep_ratios=[0.5])


def test_a_mark_reads_its_table_when_it_is_asked():
    table = {"a": ""}
    mark = OneOf(table)
    table["b"] = ""
    assert mark._check("b") == "b"
