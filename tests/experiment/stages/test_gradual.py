"""Pruning while training: when something goes, what goes, and that an interruption changes nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.stages import gradual as gradual_module
from sparseflows.experiment.stages import stage as stage_module
from sparseflows.experiment.stages.gradual import Gradual
from sparseflows.flow.build import build_flow
from sparseflows.flow.compiled.build import library
from sparseflows.pruning.methods import METHODS, unpruned
from sparseflows.pruning.observing.observe import Sample
from sparseflows.specs import FlowSpec, TrainSpec
from sparseflows.specs.methods import DRAWN
from sparseflows.training import loop, many_steps
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import FlowMatching

CHANGES = {
    "prune.protocols": ["gradual"],
    "prune.keep_ratios": [0.6, 0.3],
    "prune.gradual_every": 3,
    "prune.retrain": {"steps": 12},
    "train.steps": 5,
    "evaluate.max_rows": 20,
}
TOP = [method for method in METHODS if method not in DRAWN]


def dense_flow(hidden=(6, 4), **settings):
    return build_flow(FlowSpec(hidden=list(hidden), **settings), 2, seed=0).double()


def total_of(network):
    return sum(p.numel() for p in network.parameters())


def alive(network):
    """Neurons of each hidden layer that have a bias."""
    field = next(network.fields())
    return [int((layer.bias != 0).sum()) for layer in field.linear_layers()[:-1]]


def shaken(network, seed):
    """As an optimiser's step does: every parameter moves, masked or not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def walk(plan, network, steps):
    """The network after every one of `steps` steps, as (alive, params that are not 0)."""
    after = plan.begin(unpruned(network), None)
    seen = []
    for step in range(steps):
        shaken(network, step)
        after(network)
        seen.append((alive(network), sum(int((p != 0).sum()) for p in network.parameters())))
    return seen


# --- events


def test_a_neuron_goes_every_so_many_steps():
    dense = dense_flow()
    plan = Gradual("neuron_l1", dense, total_of(dense) // 2, every=3, weight_steps=999)
    steps = plan.steps(unpruned(dense))
    network = dense_flow()
    neurons = [sum(layers) for layers, _ in walk(plan, network, steps)]
    assert steps % 3 == 0
    assert neurons == [10 - (step + 1) // 3 for step in range(steps)]
    finished = plan.finish(unpruned(network))
    assert sum(next(finished.flow.fields()).hidden) == neurons[-1]
    assert finished.params == total_of(finished.flow) == finished.dense_masks.kept(dense)


def test_the_layer_with_the_largest_share_left_gives_a_neuron():
    dense = dense_flow((6, 4))
    plan = Gradual("neuron_l2", dense, 20, every=1, weight_steps=1)
    network, sizes = dense_flow((6, 4)), [6, 4]
    for layers, _ in walk(plan, network, plan.steps(unpruned(dense))):
        shares = [sizes[0] / 6, sizes[1] / 4]
        giver = shares.index(max(shares))
        expected = [size - (i == giver) for i, size in enumerate(sizes)]
        assert layers == expected
        sizes = expected


def test_the_weakest_neuron_goes():
    dense = dense_flow((6,))
    network = dense_flow((6,))
    after = Gradual("neuron_l1", dense, 12, every=1, weight_steps=1).begin(unpruned(network), None)
    layer = next(network.fields()).linear_layers()[0]
    for step in range(3):
        shaken(network, step)
        norms = layer.weight.detach().abs().sum(1)
        gone = norms == 0
        before, weakest = layer.bias.detach() != 0, int(norms.masked_fill(gone, torch.inf).argmin())
        after(network)
        if step == 0:
            assert bool(before[weakest])
        assert int((layer.bias == 0).sum()) == step + 1


@pytest.mark.parametrize("method", TOP)
def test_what_is_gone_stays_gone_and_the_target_is_met(method):
    dense = dense_flow((6, 5), time="concat", activation="softplus")
    rows = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = total_of(dense) // 2
    plan = Gradual(method, dense, target, 2, 6, Sample(rows))
    network = dense_flow((6, 5), time="concat", activation="softplus")
    steps = plan.steps(unpruned(network))
    counts = [count for _, count in walk(plan, network, steps)]
    assert counts == sorted(counts, reverse=True)
    finished = plan.finish(unpruned(network))
    cost = 12 if plan.by_neurons else 2
    assert abs(finished.params - target) <= cost / 2
    assert finished.dense_masks.kept(dense) == finished.params
    with torch.no_grad():
        ours, theirs = (next(flow.fields())(torch.tensor(0.3), rows) for flow in (finished.flow, network))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_weights_go_in_equal_shares():
    dense = dense_flow((10, 10))
    network = dense_flow((10, 10))
    plan = Gradual("magnitude", dense, 92, every=2, weight_steps=8)
    assert total_of(dense) == 162
    counts = [count for _, count in walk(plan, network, plan.steps(unpruned(network)))]
    expected = [162, 145, 145, 127, 127, 109, 109, 92]
    assert all(abs(count - wanted) <= 1 for count, wanted in zip(counts, expected, strict=True)), counts


@pytest.mark.parametrize(("every", "weight_steps"), [(10, 5), (4, 6), (7, 7), (1, 1)])
def test_weights_reach_the_target_whatever_the_lengths(every, weight_steps):
    dense = dense_flow((10, 10))
    network = dense_flow((10, 10))
    plan = Gradual("magnitude", dense, 92, every, weight_steps)
    walk(plan, network, plan.steps(unpruned(network)))
    assert abs(plan.finish(unpruned(network)).params - 92) <= 1


def test_a_target_that_is_met_already_takes_nothing():
    dense = dense_flow()
    for method in ("neuron_l1", "magnitude"):
        plan = Gradual(method, dense, total_of(dense), 2, 4)
        network = dense_flow()
        steps = plan.steps(unpruned(network))
        assert steps >= 1
        walk(plan, network, steps)
        assert plan.finish(unpruned(network)).params == total_of(dense)


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_no_layer_vanishes_and_floors_hold(floor):
    dense = dense_flow((6, 4))
    plan = Gradual("neuron_l1", dense, 1, 1, 1, floor=floor)
    network = dense_flow((6, 4))
    walk(plan, network, plan.steps(unpruned(network)))
    assert alive(network) == ([3, 2] if floor else [1, 1])


def test_an_entry_that_is_0_by_itself_is_trained():
    # Batch norms begin with a bias of 0, and a fresh last layer may be all 0: nothing of it is gone.
    dense = dense_flow((6, 4))
    network = dense_flow((6, 4))
    with torch.no_grad():
        next(network.fields()).linear_layers()[0].bias.zero_()
    plan = Gradual("neuron_l1", dense, total_of(dense) // 2, 5, 5)
    after = plan.begin(unpruned(network), None)
    shaken(network, 0)
    after(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert all(tensor.all() for tensor in state.values())


# --- in a run


def begins(monkeypatch):
    begun, train = [], stage_module.train

    def note(*args, purpose, resume, **options):
        begun.append((purpose, resume["step"] if resume else 0))
        return train(*args, purpose=purpose, resume=resume, **options)

    monkeypatch.setattr(stage_module, "train", note)
    return begun


@pytest.mark.parametrize("method", ["magnitude", "neuron_l1", "taylor"])
def test_an_interrupted_one_ends_with_the_same_weights(method, changed, call, tmp_path, numbers, monkeypatch):
    param = changed(CHANGES | {"prune.methods": [method]})
    assert call("run", param, "--out", tmp_path / "whole").status == 0
    save, saved = Checkpoints.save, []

    def save_and_stop(self, checkpoint, attempt):
        save(self, checkpoint, attempt)
        saved.append(checkpoint["step"])
        if len(saved) in (5 + 7, 5 + 7 + 12):  # once within each stage, or twice within the first
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    begun = begins(monkeypatch)
    for _ in range(2):
        assert call("run", param, "--out", tmp_path / "broken").status == 130
    assert call("run", param, "--out", tmp_path / "broken").status == 0
    resumed = [step for purpose, step in begun if purpose.startswith("gradual") and step]
    assert len(resumed) == 2
    assert all(step % 3 for step in resumed[:1])  # between two events
    assert numbers(tmp_path / "broken" / "tiny") == numbers(tmp_path / "whole" / "tiny")


def test_what_is_reported_is_what_is_left_at_the_end(changed, call, tmp_path, monkeypatch):
    settings, train = {}, stage_module.train

    def note(network, objective, rows, spec, *, purpose, **options):
        settings[purpose] = spec
        return train(network, objective, rows, spec, purpose=purpose, **options)

    monkeypatch.setattr(stage_module, "train", note)
    changes = {"train.select": "best_val", "train.ema": 0.9, "prune.methods": ["neuron_l1"], "prune.keep_ratios": [0.5]}
    assert call("run", changed(CHANGES | changes), "--out", tmp_path).status == 0
    assert (settings["dense/0"].select, settings["dense/0"].ema) == ("best_val", 0.9)
    assert (settings["gradual/neuron_l1/1"].select, settings["gradual/neuron_l1/1"].ema) == ("last", None)


def test_scores_are_taken_of_the_network_as_it_is_then(monkeypatch):
    seen, score = [], gradual_module.score
    monkeypatch.setattr(
        gradual_module,
        "score",
        lambda criterion, network, *args, **options: (
            seen.append(copy_of(network)) or score(criterion, network, *args, **options)
        ),
    )
    dense = dense_flow()
    plan = Gradual("neuron_l1", dense, total_of(dense) // 2, 2, 4)
    walk(plan, dense_flow(), plan.steps(unpruned(dense)))
    assert len(seen) == plan.steps(unpruned(dense)) // 2
    assert all(not torch.equal(a, b) for a, b in pairwise(seen))


@pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")
@pytest.mark.parametrize("method", ["neuron_l1", "unstructured"])
def test_steps_between_two_events_go_in_one_call(method, monkeypatch):
    calls, ends, counts = [], [], []
    taken = many_steps.take_steps
    monkeypatch.setattr(many_steps, "take_steps", lambda *given: calls.append(len(given[2])) or taken(*given))
    monkeypatch.setattr(many_steps, "SECONDS_A_CALL", 1e9)
    settings = TrainSpec(objective="flow_matching", steps=24, batch=16, lr=0.01, selections=1, clip=1.0)
    rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(loop, "CHECKPOINTS", 1)
    monkeypatch.setattr(loop, "RECORDS", 2)
    for objective in (FlowMatching(), FlowMatching(compiled=False)):
        network = dense_flow((6, 4), time="concat")
        before = unpruned(network)
        plan = Gradual(method, dense_flow((6, 4), time="concat"), before.params // 2, every=5, weight_steps=24)
        after = plan.begin(before, None)
        train(network, objective, rows, settings, seed=0, purpose="x", hooks=Hooks(after_step=after))
        assert after.step == 24
        ends.append(network.state_dict())
        counts.append(plan.finish(before).params)
    # Events after 5, 10, 15 and 20 steps, each a step by itself; a record after 12.
    assert calls == [4, 4, 2, 2, 4, 4]
    assert counts[0] == counts[1] < before.params
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-12, atol=1e-12)


def copy_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])
