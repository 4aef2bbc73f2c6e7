"""The training loop: what it draws, what it keeps, how it stops, and that it resumes to the bit."""

import copy
import io
import math
from dataclasses import dataclass, field

import pytest
import torch
from support.truths import gaussian_entropy, generator, normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import likelihood
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import torch_generator
from sparseflows.specs import TrainSpec
from sparseflows.training.flat import FlatParameters
from sparseflows.training.loop import CHECKPOINTS, RECORDS, Hooks, train
from sparseflows.training.objectives import FlowMatching, Loss, NegativeLogLikelihood

RK4 = Solver("rk4", steps=3)


def settings(**changes):
    length = {} if "epochs" in changes else {"steps": 30}
    return TrainSpec.model_validate({"batch": 16, "lr": 0.01} | length | changes)


def small_flow(seed=0, hidden=(6,), time="concat"):
    flow = Flow(MLPField(2, list(hidden), "tanh", time))
    seeded_initialise(flow, seed)
    return flow


def weights(flow):
    return {name: tensor.clone() for name, tensor in flow.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@dataclass
class Spy:
    """An objective that pulls the weights to 0, and keeps what it was given."""

    batches: list = field(default_factory=list)
    values: list = field(default_factory=list)
    draws: list = field(default_factory=list)
    spoil_at: int | None = None
    status: Status = Status.DONE
    scale: float = 1.0

    def __call__(self, flow, rows, generator):
        self.batches.append(rows.clone())
        self.draws.append(torch.rand(3, generator=generator))
        value = sum(p.square().sum() for p in flow.parameters())
        spoiled = self.spoil_at is not None and len(self.batches) == self.spoil_at
        self.values.append(value.item())
        return Loss(value * (self.scale if spoiled else 1), 4, self.status if spoiled else Status.DONE)


def numbered(n):
    """Rows that say which they are."""
    return torch.arange(n, dtype=torch.float32)[:, None].expand(n, 2).contiguous()


# Batches, steps, hooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "batch"), [(48, 16), (50, 16), (5, 16), (7, 1)])
def test_an_epoch_takes_every_row_once(rows, batch):
    spy = Spy()
    outcome = train(small_flow(), spy, numbered(rows), settings(epochs=3, batch=batch), seed=1, purpose="x")
    per_epoch = math.ceil(rows / batch)
    assert len(spy.batches) == outcome.steps == 3 * per_epoch
    orders = []
    for epoch in range(3):
        batches = spy.batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert [len(b) for b in batches] == [min(batch, rows - i * batch) for i in range(per_epoch)]
        orders.append(torch.cat(batches)[:, 0].int().tolist())
        assert sorted(orders[-1]) == list(range(rows))
    assert len({tuple(order) for order in orders}) == 3, "every epoch has an order of its own"


def test_a_length_in_steps_goes_on_into_the_next_epoch():
    spy = Spy()
    train(small_flow(), spy, numbered(40), settings(steps=5), seed=1, purpose="x")
    assert [len(b) for b in spy.batches] == [16, 16, 8, 16, 16]


def test_every_draw_depends_on_seed_purpose_and_step():
    spies = {}
    for name, (seed, purpose) in {"a": (1, "x"), "b": (1, "x"), "c": (2, "x"), "d": (1, "y")}.items():
        before = torch.get_rng_state()
        spies[name] = Spy()
        train(small_flow(), spies[name], numbered(40), settings(steps=6), seed=seed, purpose=purpose)
        assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from"
    for what in ("batches", "draws"):
        a, b, c, d = (torch.cat([t.flatten() for t in getattr(spies[name], what)]) for name in "abcd")
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a, d)
    assert len({tuple(draw.tolist()) for draw in spies["a"].draws}) == 6


def test_steps_against_a_loop():
    spec = settings(steps=25, optimiser="sgd", lr=0.05, schedule="cosine", clip=0.7)
    rows, flow, objective = normal(40, 2, dtype=torch.float32), small_flow(), FlowMatching()
    expected = copy.deepcopy(flow)
    outcome = train(flow, objective, rows, spec, seed=3, purpose="p", lr_scale=0.5)

    momentum = [torch.zeros_like(p) for p in expected.parameters()]
    losses, rates = [], []
    for step in range(25):
        epoch, place = divmod(step, 3)
        order = torch.randperm(40, generator=torch_generator(3, f"p/epoch/{epoch}"))
        batch = rows[order[16 * place : 16 * place + 16]]
        loss = objective(expected, batch, torch_generator(3, f"p/step/{step}")).value
        gradient = torch.autograd.grad(loss, list(expected.parameters()))
        norm = math.sqrt(sum(g.square().sum().item() for g in gradient))
        rates.append(0.5 * 0.05 * 0.5 * (1 + math.cos(math.pi * step / 25)))
        with torch.no_grad():
            for p, g, m in zip(expected.parameters(), gradient, momentum, strict=True):
                m.mul_(0.9).add_(g * min(1.0, 0.7 / (norm + 1e-6)))
                p.sub_(rates[-1] * m)
        losses.append(loss.item())
    for a, b in zip(flow.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # float32 rounding, 25 steps
    # 25 steps, 40 records asked for: every step is one.
    assert [record["step"] for record in outcome.history] == list(range(1, 26))
    assert [record["loss"] for record in outcome.history] == pytest.approx(losses, rel=1e-4)
    assert [record["lr"] for record in outcome.history] == pytest.approx(rates, rel=1e-12)
    assert [record["nfe"] for record in outcome.history] == [1.0] * 25


def test_records_are_means_since_the_last():
    spy = Spy()
    outcome = train(small_flow(), spy, numbered(40), settings(steps=100), seed=1, purpose="x")
    assert len(outcome.history) == RECORDS == 40
    ends = [record["step"] for record in outcome.history]
    assert ends == [math.ceil(100 * (k + 1) / 40) for k in range(40)]
    for first, last, record in zip([0, *ends], ends, outcome.history, strict=False):
        assert record["loss"] == pytest.approx(sum(spy.values[first:last]) / (last - first), rel=1e-12)
        assert record["nfe"] == 4.0
    assert (outcome.status, outcome.steps) == (Status.DONE, 100)
    assert outcome.seconds > 0
    assert outcome.best_val is None


def test_after_step_and_progress_follow_every_step():
    calls, flow = [], small_flow()
    mask = torch.ones(6, 2)
    mask[2] = 0

    def hold(given):
        assert given is flow
        calls.append("mask")
        with torch.no_grad():
            next(given.fields()).layers[0].weight.mul_(mask)

    def tell(step, total, loss):
        weight = next(flow.fields()).layers[0].weight
        assert torch.equal(weight[2], torch.zeros(2)), "the step undid the mask"
        calls.append((step, total, loss))

    rows = normal(40, 2, dtype=torch.float32)
    spec = settings(steps=7, weight_decay=0.1)
    outcome = train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=Hooks(after_step=hold, progress=tell))
    assert [call if call == "mask" else call[:2] for call in calls] == [
        entry for step in range(1, 8) for entry in ("mask", (step, 7))
    ]
    assert [call[2] for call in calls if call != "mask"] == [record["loss"] for record in outcome.history]


def test_masked_weights_stay_zero_in_the_average_too():
    flow = small_flow()

    def hold(given):
        with torch.no_grad():
            next(given.fields()).layers[0].weight[2] = 0

    hold(flow)
    rows = normal(40, 2, dtype=torch.float32)
    spec = settings(steps=20, ema=0.9)
    train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=Hooks(after_step=hold))
    weight = next(flow.fields()).layers[0].weight
    assert torch.equal(weight[2], torch.zeros(2))
    assert weight[1].abs().min() > 0


# Which weights are reported ------------------------------------------------------------------------------


def test_last_is_the_last_and_ema_the_average():
    rows, stages = normal(40, 2, dtype=torch.float32), []
    plain, averaged = small_flow(), small_flow()
    spec = settings(steps=12)
    hooks = Hooks(after_step=lambda flow: stages.append(weights(flow)))
    start = weights(plain)
    train(plain, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=hooks)
    assert same(weights(plain), stages[-1])
    train(averaged, FlowMatching(), rows, settings(steps=12, ema=0.8), seed=1, purpose="x")
    expected = start
    for n, stage in enumerate(stages, 1):
        decay = min(0.8, (1 + n) / (10 + n))
        expected = {name: decay * value + (1 - decay) * stage[name] for name, value in expected.items()}
    for name, value in weights(averaged).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)  # float32 rounding


@pytest.mark.parametrize("ema", [None, 0.8])
def test_best_val_takes_the_lowest(ema):
    nlls = [3.0, 1.0, float("nan"), 2.0, -1.5, float("inf"), -1.0, 0.0, -1.5, 4.0]
    seen = []

    def validate(flow):
        seen.append(weights(flow))
        return nlls[len(seen) - 1]

    rows, flow = normal(40, 2, dtype=torch.float32), small_flow()
    spec = settings(steps=30, select="best_val", ema=ema)
    outcome = train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=Hooks(validate=validate))
    assert len(seen) == spec.selections == 10
    assert outcome.best_val == -1.5
    assert same(weights(flow), seen[4]), "the first of equals"
    assert not same(seen[4], seen[8])


def test_what_validation_sees_with_an_average_is_the_average():
    rows, steps, seen = normal(40, 2, dtype=torch.float32), [], []
    spec = settings(steps=10, select="best_val", ema=0.8)
    flow = small_flow()
    hooks = Hooks(
        after_step=lambda flow: steps.append(weights(flow)),
        validate=lambda flow: seen.append(weights(flow)) or -float(len(seen)),
    )
    train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=hooks)
    last = small_flow()
    train(last, FlowMatching(), rows, settings(steps=10, ema=0.8), seed=1, purpose="x")
    assert same(seen[-1], weights(last))
    assert not same(seen[-1], steps[-1])


def test_without_a_finite_validation_the_last_weights_are_reported():
    rows, flow, last = normal(40, 2, dtype=torch.float32), small_flow(), small_flow()
    spec = settings(steps=10, select="best_val")
    hooks = Hooks(validate=lambda flow: float("nan"))
    outcome = train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=hooks)
    train(last, FlowMatching(), rows, settings(steps=10), seed=1, purpose="x")
    assert outcome.best_val is None
    assert same(weights(flow), weights(last))


def test_nobody_validates_unless_asked():
    def validate(flow):
        raise AssertionError

    rows = normal(40, 2, dtype=torch.float32)
    train(small_flow(), Spy(), rows, settings(steps=10), seed=1, purpose="x", hooks=Hooks(validate=validate))


# Resuming ------------------------------------------------------------------------------------------------


def on_disk(checkpoint):
    """There and back through what a run folder holds: tensors, numbers, lists and dicts, no code."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


VARIANTS = {
    "last": {},
    "best_val": {"select": "best_val", "selections": 7},
    "ema": {"ema": 0.9, "schedule": "one_cycle"},
    "best_val of ema": {"select": "best_val", "ema": 0.9, "optimiser": "adam", "weight_decay": 0.01},
    "sgd": {"optimiser": "sgd", "clip": 1.0, "schedule": "multi_step", "milestones": [11, 20], "lr": 0.002},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_from_any_checkpoint_is_not_to_be_seen(variant):
    spec = settings(steps=53, **VARIANTS[variant])  # 53 is no multiple of the records, selections or checkpoints
    rows = normal(40, 2, dtype=torch.float32)
    held_out = normal(30, 2, seed=1, dtype=torch.float32)
    objective = FlowMatching() if variant != "sgd" else NegativeLogLikelihood(Solver("midpoint", steps=1), "hutchinson")

    def validate(flow):
        return FlowMatching()(flow, held_out, generator(4)).value.item()

    def go(flow, save, resume=None):
        hooks = Hooks(validate=validate, save=save)
        return train(flow, objective, rows, spec, seed=2, purpose="x", hooks=hooks, resume=resume)

    flow, saved = small_flow(), []
    outcome = go(flow, lambda checkpoint: saved.append(on_disk(checkpoint)))
    assert [c["step"] for c in saved] == [math.ceil(53 * (k + 1) / CHECKPOINTS) for k in range(CHECKPOINTS)]
    assert (outcome.best_val is not None) == ("best_val" in variant)
    for number, checkpoint in enumerate(saved):
        again, rest = small_flow(seed=9), []  # none of its weights may matter
        resumed = go(again, lambda checkpoint, rest=rest: rest.append(checkpoint["step"]), checkpoint)
        assert same(weights(again), weights(flow)), f"from step {checkpoint['step']}"
        assert resumed.history == outcome.history
        assert (resumed.status, resumed.steps, resumed.best_val) == (Status.DONE, 53, outcome.best_val)
        assert resumed.seconds >= checkpoint["seconds"]
        assert rest == [c["step"] for c in saved[number + 1 :]]


def test_resuming_leaves_the_checkpoint_alone():
    rows, saved = normal(40, 2, dtype=torch.float32), []
    spec = settings(steps=20, ema=0.9)
    hooks = Hooks(save=lambda checkpoint: saved.append(on_disk(checkpoint)))
    train(small_flow(), FlowMatching(), rows, spec, seed=2, purpose="x", hooks=hooks)
    kept = copy.deepcopy(saved[5])
    for _ in range(2):  # a retry takes up the same checkpoint again
        flow = small_flow()
        train(flow, FlowMatching(), rows, spec, seed=2, purpose="x", resume=saved[5])
    assert same(kept["model"], saved[5]["model"])
    assert kept["history"] == saved[5]["history"]
    assert kept["average"].pop("updates") == saved[5]["average"].pop("updates")
    assert same(kept["average"], saved[5]["average"])
    for number, state in kept["optimiser"]["state"].items():
        assert all(torch.equal(v, saved[5]["optimiser"]["state"][number][k]) for k, v in state.items())


# Failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(scale):
    steps = []
    flow, spy = small_flow(), Spy(spoil_at=8, scale=scale)
    hooks = Hooks(after_step=lambda flow: steps.append(weights(flow)))
    outcome = train(flow, spy, numbered(40), settings(), seed=1, purpose="x", hooks=hooks)
    assert outcome.status is Status.NON_FINITE
    assert outcome.steps == len(steps) == 7
    assert same(weights(flow), steps[-1])
    assert len(outcome.history) == 7


@pytest.mark.parametrize("status", [Status.OUT_OF_STEPS, Status.UNDERFLOW, Status.NON_FINITE])
def test_a_failed_solve_stops_before_the_step(status):
    steps = []
    flow, spy = small_flow(), Spy(spoil_at=3, status=status)
    hooks = Hooks(after_step=lambda flow: steps.append(weights(flow)))
    outcome = train(flow, spy, numbered(40), settings(ema=0.9, select="best_val"), seed=1, purpose="x", hooks=hooks)
    assert (outcome.status, outcome.steps) == (status, 2)
    assert same(weights(flow), steps[-1])


class Stiff(nn.Module):
    """dz/dt = −κz: contracts so fast that the way back explodes."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(100.0))

    def forward(self, t, z):
        return -self.rate * z


@pytest.mark.parametrize("capped", [False, True])
def test_a_failed_backward_solve_of_the_adjoint_stops_before_the_step(capped):
    flow, solver = Flow(Stiff()), Solver("bosh3", 1e-2, 1e-2, gradient="adjoint")
    forward = NegativeLogLikelihood(solver)(flow, torch.ones(2, 1), generator())
    assert forward.status is Status.DONE
    if capped:
        solver = Solver("bosh3", 1e-2, 1e-2, max_nfe=forward.nfe + 5, gradient="adjoint")
    outcome = train(flow, NegativeLogLikelihood(solver), torch.ones(2, 1), settings(steps=3), seed=1, purpose="x")
    # The way back overflows float32, which torchdiffeq takes for a step that cannot be made small enough.
    assert outcome.status is (Status.OUT_OF_STEPS if capped else Status.UNDERFLOW)
    assert outcome.steps == 0
    assert flow.chain()[0].field.module.rate.item() == 100.0


def test_weights_that_are_not_finite_are_never_saved():
    class Spoiler(Spy):
        def __call__(self, flow, rows, generator):
            loss = super().__call__(flow, rows, generator)
            # sqrt(0) has an infinite slope: a finite loss whose gradient is NaN.
            zero = (next(flow.parameters()) * 0).sum()
            return Loss(loss.value + (zero.sqrt() if len(self.batches) == 12 else zero), 4, Status.DONE)

    saved = []
    outcome = train(
        small_flow(),
        Spoiler(),
        numbered(40),
        settings(),
        seed=1,
        purpose="x",
        hooks=Hooks(save=lambda checkpoint: saved.append(on_disk(checkpoint))),
    )
    assert outcome.status is Status.NON_FINITE
    assert saved
    assert all(torch.isfinite(t).all() for checkpoint in saved for t in checkpoint["model"].values())


# Learning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [NegativeLogLikelihood(RK4), FlowMatching()], ids=["nll", "flow_matching"])
def test_a_small_flow_learns(objective):
    rows = torch.cat([normal(150, 2, seed=k, dtype=torch.float32) * 0.2 + 2 * k - 1 for k in (0, 1)])
    flow = small_flow(hidden=(16,), time="concat")
    spec = settings(steps=60, batch=300, lr=0.03)
    outcome = train(flow, objective, rows, spec, seed=1, purpose="x")
    losses = [record["loss"] for record in outcome.history]
    # The two lumps hold about a nat less than the Gaussian that the flow starts near.
    assert losses[-1] < losses[0] - 0.3
    assert outcome.status is Status.DONE


def test_a_gaussian_is_learnt_to_its_entropy():
    mean, scales = torch.tensor([0.8, -0.5]), torch.tensor([0.5, 1.6])
    rows = mean + scales * normal(1024, 2, dtype=torch.float32)
    test = mean + scales * normal(4000, 2, seed=1, dtype=torch.float32)
    flow = Flow(MLPField(2, [16], "tanh", "concat"))
    seeded_initialise(flow, 0)
    spec = settings(steps=150, batch=256, lr=0.03, schedule="one_cycle")
    objective = NegativeLogLikelihood(Solver("midpoint", steps=5))
    outcome = train(flow, objective, rows, spec, seed=1, purpose="x")
    assert outcome.status is Status.DONE
    found = likelihood(flow, test.double().numpy(), Solver())
    truth = torch.distributions.Normal(mean.double(), scales.double()).log_prob(test.double()).sum(1)
    # The paired difference is the KL divergence: at least 0, and about (number of moments)/2n = 0.002 for the
    # moments that 1,024 rows leave open; the small network adds its own.
    gap = (truth.numpy() - found.log_prob).mean()
    assert -0.002 < gap < 0.03
    # NLL itself moves with the test draw: the standard error is √(D/2n) = 0.016.
    assert found.nll == pytest.approx(gaussian_entropy(scales.tolist()), abs=0.03 + 4 * 0.016)


def test_a_network_whose_params_are_all_frozen_is_refused():
    with pytest.raises(InputError, match="frozen"):
        FlatParameters(nn.Linear(2, 2).requires_grad_(False))
