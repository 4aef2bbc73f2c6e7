"""Training on a GPU: the losses and gradients of the CPU, checkpoints that cross over, masks that hold."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.truths import normal

from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.stages.stage import held
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.specs import FlowSpec, TrainSpec
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.loop import Checkpoint, Hooks, Outcome, train
from sparseflows.training.objectives import FlowMatching, NegativeLogLikelihood, Objective

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
FIXED = Solver("rk4", steps=8)
STEPS = 40


def adaptive(gradient: str = "backprop") -> Solver:
    return Solver("dopri5", 1e-7, 1e-7, gradient=gradient, norm="batch")


OBJECTIVES: dict[str, Objective] = {
    "flow matching": FlowMatching(2.0),
    "fixed steps": NegativeLogLikelihood(FIXED),
    "backpropagation": NegativeLogLikelihood(adaptive()),
    "adjoint": NegativeLogLikelihood(adaptive("adjoint")),
    "held steps": HeldStepsLikelihood(tol=1e-5, rows=32),
    "hutchinson": NegativeLogLikelihood(FIXED, "hutchinson"),
    "regularised": NegativeLogLikelihood(FIXED, kinetic=0.1, jacobian=0.1),
}


def flow_on(device: torch.device, dtype: torch.dtype = torch.float64) -> Flow:
    spec = FlowSpec(hidden=[12, 12], activation="silu", time="concat")
    return build_flow(spec, 2, seed=0).to(device=device, dtype=dtype)


def gradients(flow: Flow, value: torch.Tensor) -> list[torch.Tensor]:
    value.backward()
    return [parameter.grad.cpu() for parameter in flow.parameters()]


def trained(
    flow: Flow, name: str, rows: torch.Tensor, resume: Checkpoint | None = None, **hooks: Any
) -> tuple[Flow, Outcome]:
    settings = TrainSpec.model_validate({"objective": "nll", "steps": STEPS, "batch": 64, "lr": 0.01, "ema": 0.9})
    objective = copy.deepcopy(OBJECTIVES[name])
    outcome = train(flow, objective, rows, settings, seed=1, purpose="gpu", hooks=Hooks(**hooks), resume=resume)
    return flow, outcome


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("flow matching", "hutchinson")])
def test_loss_and_gradient_are_those_of_the_cpu(name: str, gpu: torch.device) -> None:
    found = []
    for device in (CPU, gpu):
        flow, generator = flow_on(device), torch.Generator(device).manual_seed(0)
        loss = copy.deepcopy(OBJECTIVES[name])(flow, normal(96, 2).to(device), generator)
        assert loss.status is Status.DONE
        found.append((float(loss.value.detach()), gradients(flow, loss.value)))
    (value, ours), (there, theirs) = found
    assert there == pytest.approx(value, abs=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_flow_matching_of_given_noise_and_times(gpu: torch.device) -> None:
    found = []
    for device in (CPU, gpu):
        flow = flow_on(device)
        rows, noise, t = (normal(96, n, seed=seed).to(device) for n, seed in ((2, 0), (2, 1), (1, 2)))
        found.append(gradients(flow, FlowMatching.errors(flow, rows, noise, t.sigmoid()).mean()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_training_there_learns_and_stays_there(name: str, dtype: torch.dtype, gpu: torch.device) -> None:
    rows = normal(256, 2).to(gpu, dtype) * torch.tensor([0.3, 2.0], device=gpu, dtype=dtype)
    before = flow_on(gpu, dtype)
    flow, outcome = trained(copy.deepcopy(before), name, rows)
    assert (outcome.status, outcome.steps) == (Status.DONE, STEPS)
    assert all(math.isfinite(line["loss"]) for line in outcome.history)
    assert {parameter.device for parameter in flow.parameters()} == {gpu}
    with torch.no_grad():
        assert float(flow.log_prob(rows).mean()) > float(before.log_prob(rows).mean()) + 0.01


@pytest.mark.parametrize("name", ["flow matching", "held steps"])
@pytest.mark.parametrize("way", ["to the GPU", "to the CPU"])
def test_a_checkpoint_is_taken_up_on_the_other_device(name: str, way: str, gpu: torch.device, tmp_path: Path) -> None:
    first, second = (CPU, gpu) if way == "to the GPU" else (gpu, CPU)
    rows, states = normal(256, 2), []
    written = Checkpoints(tmp_path / "there", 0, lambda path: path, print, device=first)

    def save(checkpoint: Checkpoint) -> None:
        if checkpoint["step"] == STEPS // 2:
            written.save(checkpoint, 0)
            states.append(copy.deepcopy(checkpoint))

    trained(flow_on(first), name, rows.to(first), save=save)
    taken = Checkpoints(tmp_path / "there", 0, lambda path: path, print, device=second).load_newest()
    assert taken is not None
    for part in ("model", "average"):
        for key, tensor in taken[part].items():
            if isinstance(tensor, torch.Tensor):
                assert tensor.device == second
                assert torch.equal(tensor.cpu(), states[0][part][key].cpu())
    flow, outcome = trained(flow_on(second), name, rows.to(second), resume=taken)
    assert (outcome.status, outcome.steps) == (Status.DONE, STEPS)
    assert outcome.history[0] == states[0]["history"][0]
    assert {parameter.device for parameter in flow.parameters()} == {second}


def test_a_training_that_is_taken_up_there_ends_as_if_nothing_had_happened(gpu: torch.device) -> None:
    rows, saved = normal(256, 2).to(gpu), []
    whole, _ = trained(
        flow_on(gpu), "flow matching", rows, save=lambda checkpoint: saved.append(copy.deepcopy(checkpoint))
    )
    again, _ = trained(flow_on(gpu), "flow matching", rows, resume=saved[len(saved) // 2])
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)  # kernels may add in another order


def test_masks_hold_through_every_step(gpu: torch.device) -> None:
    dense = flow_on(gpu)
    state = prune("unstructured", unpruned(dense), dense, 120)
    keep = held(state.flow, state.masks)
    flow, _ = trained(state.flow, "flow matching", normal(256, 2).to(gpu), after_step=keep)
    assert state.masks is not None
    moved = 0
    for name, parameter in flow.named_parameters():
        mask = state.masks.get(name)
        if mask is not None:
            assert not bool(parameter[~mask.to(gpu)].any())
            moved += int(mask.sum())
    assert moved > 0
