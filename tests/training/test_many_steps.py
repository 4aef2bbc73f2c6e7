"""Many steps in one call of the engine, against the loop that takes them one by one with autograd and torch.optim."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager

import pytest
import torch
from support.arrays import pairwise
from support.plain_solve import drawn, drawn_field
from torch import nn

from sparseflows.experiment.stages.stage import held
from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.structures import OPTIMISER_ORDER
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.pruning.graph.masks import Masks
from sparseflows.specs import TrainSpec
from sparseflows.specs.choices import OPTIMISERS
from sparseflows.training import many_steps
from sparseflows.training.loop import Hooks, train
from sparseflows.training.many_steps import SECONDS_A_CALL, ManySteps
from sparseflows.training.objectives import FlowMatching, NegativeLogLikelihood

pytestmark = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")

PLAIN = FlowMatching(2.0, compiled=False)
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def settings(**changes):
    return TrainSpec.model_validate({"objective": "flow_matching", "steps": 9, "batch": 16, "lr": 0.02} | changes)


@pytest.fixture
def calls(monkeypatch):
    """How many steps went in each call of the engine."""
    found = []

    def counted(field, gradients, draws, rates, update):
        found.append(len(draws))
        return taken(field, gradients, draws, rates, update)

    taken = many_steps.take_steps
    monkeypatch.setattr(many_steps, "take_steps", counted)
    return found


@contextmanager
def so_many(monkeypatch, most):
    """At most so many steps a call, whatever their time."""
    with monkeypatch.context() as patched:
        ask = ManySteps.may_take
        patched.setattr(ManySteps, "may_take", lambda self, due: min(most, ask(self, due)))
        patched.setattr(many_steps, "SECONDS_A_CALL", 1e9)
        yield


def trained(flow, objective, spec, rows=None, masks=None, hold=True, resume=None, **hooks):
    """A copy of `flow`, trained; with its outcome and the checkpoints."""
    flow, saved = copy.deepcopy(flow), []
    after_step = (held if hold else Masks.keeper)(*((flow, masks) if hold else (masks, flow))) if masks else None
    hooks = Hooks(after_step, save=lambda checkpoint: saved.append(copy.deepcopy(checkpoint)), **hooks)
    rows = drawn(40, 2) if rows is None else rows
    outcome = train(flow, objective, rows, spec, seed=3, purpose="p", hooks=hooks, resume=resume)
    return flow, outcome, saved


def tensors_of(checkpoint):
    """Everything in a checkpoint that steps change, by name."""
    found = dict(checkpoint["model"])
    found |= {f"optimiser {name}": value for name, value in checkpoint["optimiser"]["state"][0].items()}
    found |= {f"average {name}": torch.as_tensor(value) for name, value in (checkpoint["average"] or {}).items()}
    return found


def assert_same(one, other, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def some_masks(flow):
    return Masks({name: torch.arange(p.numel()).view_as(p) % 3 != 1 for name, p in flow.named_parameters()})


FIELDS = (
    ([18, 7], "sigmoid", "none", "none"),
    ([5, 40], "tanh", "concat", "gaussian"),
    ([], "softplus", "concat_squash", "none"),
    ([9], "relu", "concat", "none"),
    ([6, 6], "silu", "concat_squash", "gaussian"),
)  # every activation and every time conditioning; the gradients of all of them are compared in test_engine


@pytest.mark.parametrize(
    *pairwise(
        kind=FIELDS,
        optimiser=OPTIMISER_ORDER,
        decay_and_clip=[(0.0, None), (0.1, None), (0.1, 0.5)],
        ema=[None, 0.3],
        masked=["no", "held", "weights alone"],
        frozen=[False, True],
        whitens=[False, True],
    )
)
def test_the_same_as_step_by_step(calls, kind, optimiser, decay_and_clip, ema, masked, frozen, whitens) -> None:
    matrix = torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=torch.float64) if whitens else None
    flow = Flow(drawn_field(2, *kind), whitening=matrix)
    masks = some_masks(flow) if masked != "no" else None
    if masks:
        masks.apply_(flow)
    if frozen:
        bias = next(flow.fields()).layers[-1].bias.requires_grad_(False)
        named = dict(flow.named_parameters())
        masks = masks and Masks({name: mask for name, mask in masks.items() if named[name] is not bias})
    decay, clip = decay_and_clip
    spec = settings(optimiser=optimiser, weight_decay=decay, clip=clip, ema=ema, schedule="cosine", lr=0.005)
    with pytest.MonkeyPatch.context() as patch, so_many(patch, 100):
        ours, outcome, saved = trained(flow, FlowMatching(2.0), spec, masks=masks, hold=masked == "held")
    assert sum(calls) == 9
    calls.clear()
    theirs, expected, wanted = trained(flow, PLAIN, spec, masks=masks, hold=masked == "held")
    assert not calls
    assert_same(ours.state_dict(), theirs.state_dict(), **ROUNDING)
    assert [c["step"] for c in saved] == [c["step"] for c in wanted]
    for one, other in zip(saved, wanted, strict=True):
        assert_same(tensors_of(one), tensors_of(other), **ROUNDING)
        assert [type(value) for value in one.values()] == [type(value) for value in other.values()]
    for one, other in zip(outcome.history, expected.history, strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    if masks:
        for name, mask in masks.items():
            assert not ours.state_dict()[name][~mask].any()


@pytest.mark.parametrize("optimiser", OPTIMISER_ORDER)
def test_which_steps_go_in_one_call_moves_no_bit(calls, monkeypatch, optimiser) -> None:
    flow, rows = Flow(drawn_field(2, [13, 6], "silu", "concat")).float(), drawn(40, 2).float()
    spec = settings(steps=210, optimiser=optimiser, clip=1.0, ema=0.9, lr=0.003)
    ends = []
    for most in (1, 2, 5, 1_000):
        calls.clear()
        with so_many(monkeypatch, most):
            ends.append(trained(flow, FlowMatching(), spec, rows, masks=some_masks(flow)))
        assert sum(calls) == 210
        assert max(calls) == min(most, 6)  # 210/40 steps from record to record
    for flow_there, outcome, saved in ends[1:]:
        assert_same(flow_there.state_dict(), ends[0][0].state_dict(), rtol=0, atol=0)
        assert outcome.history == ends[0][1].history
        for one, other in zip(saved, ends[0][2], strict=True):
            assert_same(tensors_of(one), tensors_of(other), rtol=0, atol=0)
    with so_many(monkeypatch, 4):
        again, outcome, _ = trained(flow, FlowMatching(), spec, rows, masks=some_masks(flow), resume=ends[0][2][7])
    assert_same(again.state_dict(), ends[0][0].state_dict(), rtol=0, atol=0)
    assert outcome.history == ends[0][1].history


@pytest.mark.parametrize("optimiser", OPTIMISER_ORDER)
@pytest.mark.parametrize(("first", "then"), [(PLAIN, FlowMatching(2.0)), (FlowMatching(2.0), PLAIN)])
def test_checkpoints_of_either_way_are_taken_up_by_the_other(first, then, optimiser) -> None:
    flow, spec = Flow(drawn_field(2, [8], "tanh", "concat")), settings(optimiser=optimiser, ema=0.8, steps=20, lr=0.003)
    whole, _, saved = trained(flow, first, spec)
    other, outcome, _ = trained(flow, then, spec, resume=saved[8])
    assert outcome.steps == 20
    assert_same(other.state_dict(), whole.state_dict(), **ROUNDING)


def test_float32_is_the_same_to_float32(calls) -> None:
    flow, rows = Flow(drawn_field(2, [64, 64], "silu", "concat")).float(), drawn(300, 2).float()
    spec = settings(batch=128, clip=1.0, optimiser="sgd")
    ours, theirs = (trained(flow, objective, spec, rows)[0] for objective in (FlowMatching(2.0), PLAIN))
    assert sum(calls) == 9
    assert_same(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-5)  # nine steps of rounding


@pytest.mark.parametrize("most", [1, 50])
def test_a_loss_that_is_not_finite_stops_before_its_step(calls, monkeypatch, most) -> None:
    rows = drawn(64, 2)
    flow, spec = Flow(drawn_field(2, [8], "tanh", "concat")), settings(steps=400, ema=0.9, epochs=None)
    rows[10] = math.inf
    theirs, expected, _ = trained(flow, PLAIN, spec, rows)
    with so_many(monkeypatch, most):
        ours, outcome, _ = trained(flow, FlowMatching(2.0), spec, rows)
    assert calls
    assert outcome.status is expected.status is Status.NON_FINITE
    assert outcome.steps == expected.steps < 4
    assert_same(ours.state_dict(), theirs.state_dict(), **ROUNDING)
    assert all(torch.isfinite(p).all() for p in ours.parameters())


def test_a_call_ends_where_something_is_due_and_after_a_tenth_of_a_second(calls) -> None:
    flow, seen = Flow(drawn_field(2, [8], "tanh", "concat")), []
    spec = settings(steps=90, select="best_val", selections=7)
    _, outcome, saved = trained(
        flow, FlowMatching(), spec, validate=lambda _: 1.0, progress=lambda *now: seen.append(now)
    )
    assert [c["step"] for c in saved] == [math.ceil(90 * k / 20) for k in range(1, 21)]
    assert [line["step"] for line in outcome.history if "val" in line] == [math.ceil(90 * k / 7) for k in range(1, 8)]
    assert [line["step"] for line in outcome.history if "loss" in line] == [
        math.ceil(90 * k / 40) for k in range(1, 41)
    ]
    assert [step for step, _, _ in seen] == torch.tensor(calls).cumsum(0).tolist()
    assert seen[-1][:2] == (90, 90)
    assert seen[-1][2] == saved[-1]["loss"]


@pytest.mark.parametrize(("pace", "wanted"), [(SECONDS_A_CALL / 7.5, 7), (10.0, 1), (1e-6, 30)])
def test_slow_steps_go_in_small_calls(monkeypatch, pace, wanted) -> None:
    told = []

    def takes(self, most):
        self.pace = pace
        told.append(ask(self, 30))
        return ask(self, most)

    ask = ManySteps.may_take
    monkeypatch.setattr(ManySteps, "may_take", takes)
    trained(Flow(drawn_field(2, [8], "tanh", "concat")), FlowMatching(), settings())
    assert set(told) == {wanted}


def spied(module):
    next(module.fields()).register_forward_hook(lambda *_: None)


def doubled(module):
    next(module.parameters()).register_hook(lambda gradient: 2 * gradient)


def halved(module):
    def halve(parameter) -> None:
        parameter.grad.mul_(0.5)

    next(module.parameters()).register_post_accumulate_grad_hook(halve)


@pytest.mark.parametrize(
    ("change", "objective", "hooks"),
    [
        (None, NegativeLogLikelihood(Solver("midpoint", steps=1)), {}),
        (None, PLAIN, {}),
        (None, FlowMatching(), {"after_step": lambda _: None}),
        (spied, FlowMatching(), {}),
        (doubled, FlowMatching(), {}),
        (halved, FlowMatching(), {}),
    ],
    ids=["nll", "not compiled", "an after_step of one's own", "module hook", "gradient hook", "accumulated hook"],
)
def test_everything_else_goes_step_by_step(calls, change, objective, hooks) -> None:
    flow = Flow(drawn_field(2, [8], "tanh", "concat"))
    if change:
        change(flow)
    outcome = train(flow, objective, drawn(40, 2), settings(), seed=1, purpose="x", hooks=Hooks(**hooks))
    assert (outcome.status, outcome.steps) == (Status.DONE, 9)
    assert not calls


def test_a_subclass_of_the_objective_is_asked_itself(calls) -> None:
    class Own(FlowMatching):
        def __call__(self, flow, rows, generator):
            asked.append(len(rows))
            return super().__call__(flow, rows, generator)

    asked = []
    train(Flow(drawn_field(2, [8], "tanh", "concat")), Own(), drawn(40, 2), settings(), seed=1, purpose="x")
    assert (len(asked), calls) == (9, [])


def test_the_order_of_the_engine_has_every_optimiser() -> None:
    assert set(OPTIMISER_ORDER) == set(OPTIMISERS)


def test_a_tensor_that_two_layers_share_gets_both_gradients(calls) -> None:
    def tied():
        flow = Flow(drawn_field(2, [6, 6, 6], "tanh", "concat"))
        layers = next(flow.fields()).layers
        layers[2].weight = nn.Parameter(layers[1].weight.detach().clone())
        layers[1].weight = layers[2].weight
        return flow

    spec = settings(clip=1.0)
    ours, _, _ = trained(tied(), FlowMatching(2.0), spec)
    theirs, _, _ = trained(tied(), PLAIN, spec)
    assert sum(calls) == 9
    assert_same(ours.state_dict(), theirs.state_dict(), **ROUNDING)
