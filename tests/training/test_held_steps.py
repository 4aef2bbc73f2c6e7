"""The NLL on held steps: its value, its gradient, when the steps are chosen anew, and that it resumes to the bit."""

from __future__ import annotations

import copy

import pytest
import torch

from sparseflows.flow.compiled.build import library
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import torch_generator
from sparseflows.specs import Spec, TrainSpec
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.loop import Hooks, train
from sparseflows.training.losses import with_gradients
from sparseflows.training.objectives import NegativeLogLikelihood, build_objective

needs_engine = pytest.mark.skipif(library(torch.float32) is None, reason="no C compiler here")


def small_flow(blocks: int = 1, time: str = "concat_squash", whitening: torch.Tensor | None = None) -> Flow:
    flow = Flow(
        [MLPField(2, [12, 9], "tanh", time) for _ in range(blocks)], train_end_time=blocks > 1, whitening=whitening
    )
    seeded_initialise(flow, 0, 2.0)
    return flow.double()


def rows(n: int = 40) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch_generator(0, "rows"), dtype=torch.float64)


def gradients(objective, flow: Flow, generator_seed: int = 0) -> tuple[float, list[torch.Tensor]]:
    flow.zero_grad()
    loss = objective(flow, rows(), torch_generator(generator_seed, "noise"))
    assert loss.status is Status.DONE
    loss.value.backward()
    return loss.value.item(), [p.grad.clone() for p in flow.parameters()]


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_engine), False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_at_a_small_tolerance_it_is_the_adaptive_solve(divergence: str, compiled: bool, blocks: int) -> None:
    whitening = torch.tensor([[1.5, 0.2], [-0.3, 0.8]], dtype=torch.float64)
    flow = small_flow(blocks, whitening=whitening)
    held = HeldStepsLikelihood("dopri5", 1e-9, rows=40, divergence=divergence, compiled=compiled)
    value, found = gradients(held, flow)
    wanted_value, wanted = gradients(NegativeLogLikelihood(Solver("dopri5", 1e-9, 1e-9), divergence), flow)
    assert value == pytest.approx(wanted_value, abs=1e-7)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@needs_engine
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_engine_and_the_plain_path_are_the_same(divergence: str, recompute: bool) -> None:
    flow = small_flow()
    engine = HeldStepsLikelihood(divergence=divergence)
    plain = HeldStepsLikelihood(divergence=divergence, compiled=False, recompute=recompute)
    (one, ours), (other, theirs) = gradients(engine, flow), gradients(plain, flow)
    # The choices of the steps differ by rounding alone.
    assert engine.grids[0] == pytest.approx(plain.grids[0], rel=1e-9)
    assert one == pytest.approx(other, rel=1e-9)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_steps_are_chosen_every_so_often_at_a_falling_tolerance() -> None:
    flow, chosen = small_flow(), []

    class Watched(HeldStepsLikelihood):
        def choose(self, *arguments):
            chosen.append((self._step, self.tolerance))
            return super().choose(*arguments)

    objective = Watched("bosh3", 1e-4, first_tol=1e-2, hold=4)
    for step in range(10):
        objective.begin_step(step, 10)
        objective(flow, rows(), torch_generator(step, "noise"))
    assert [step for step, _ in chosen] == [0, 4, 8]
    assert [tol for _, tol in chosen] == pytest.approx([10 ** (-2 - 2 * step / 10) for step in (0, 4, 8)])


def test_a_solve_that_fails_is_a_status() -> None:
    objective = HeldStepsLikelihood(tol=1e-7, max_nfe=20)
    assert objective(small_flow(), rows(), torch_generator(0, "noise")).status is Status.OUT_OF_STEPS
    flow = small_flow()
    with torch.no_grad():
        next(flow.parameters()).fill_(float("nan"))
    assert HeldStepsLikelihood()(flow, rows(), torch_generator(0, "noise")).status is Status.NON_FINITE


def test_a_training_resumes_between_two_choices_to_the_bit() -> None:
    settings, saved = TrainSpec.model_validate({"steps": 30, "batch": 16, "lr": 0.02}), []

    def trained(resume=None, keep=False) -> dict[str, torch.Tensor]:
        flow = small_flow()
        hooks = Hooks(save=lambda checkpoint: saved.append(copy.deepcopy(checkpoint))) if keep else None
        outcome = train(
            flow, HeldStepsLikelihood(hold=7), rows(), settings, seed=0, purpose="t", hooks=hooks, resume=resume
        )
        assert outcome.status is Status.DONE
        return flow.state_dict()

    whole = trained(keep=True)
    middle = next(checkpoint for checkpoint in saved if checkpoint["step"] % 7 not in (0, 1))
    again = trained(resume=middle)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_settings_become_it_and_wrong_ones_are_refused() -> None:
    def spec(**solve) -> Spec:
        document = {
            "name": "x",
            "data": {"name": "gaussians"},
            "train": {"objective": "nll", "steps": 10},
            "solve": solve,
        }
        return Spec.model_validate(document)

    tols = {"rtol": 1e-3, "atol": 1e-3}
    made = spec(method="bosh3", hold_grid=5, hold_rows=64, first_tol=1e-2, **tols)
    objective = build_objective(made, made.train)
    assert isinstance(objective, HeldStepsLikelihood)
    assert (objective.hold, objective.rows, objective.tol, objective.first_tol) == (5, 64, 1e-3, 1e-2)
    for wrong, said in (
        ({"first_tol": 1e-2}, "goes with hold_grid"),
        ({"method": "rk4", "steps": 4, "hold_grid": 8}, "bosh3 or dopri5"),
        ({"hold_grid": 8, "gradient": "adjoint"}, "gradient: backprop"),
        ({"hold_grid": 8, "rtol": 1e-3, "atol": 1e-4}, "rtol = atol"),
        ({"hold_grid": 8, "first_tol": 1e-4, **tols}, "at least rtol"),
    ):
        with pytest.raises(ValueError, match=said):
            spec(**wrong)


def test_known_gradients_reach_hooks_and_are_scaled() -> None:
    inputs, hooked = [torch.zeros(3, requires_grad=True), torch.zeros((), requires_grad=True)], []
    inputs[0].register_hook(lambda gradient: hooked.append(gradient) or gradient * 2)
    loss = with_gradients(torch.tensor(5.0), inputs, [torch.tensor([1.0, 2.0, 3.0]), torch.tensor(4.0)])
    (3 * loss).backward()
    assert loss.item() == 5
    assert inputs[0].grad.tolist() == [6, 12, 18]
    assert inputs[1].grad.item() == 12
    assert hooked[0].tolist() == [3, 6, 9]
