"""A flow on a GPU gives what it gives on the CPU. There the engine solves, here torchdiffeq: each to its tolerance."""

from __future__ import annotations

import copy

import pytest
import torch
from support.truths import normal

from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.specs import FlowSpec

pytestmark = pytest.mark.gpu

ROWS = 4096
# Tolerance of the solve, and how far log p may be off: some tens of steps, each of that error; float32 adds its own.
PRECISIONS = {torch.float64: (1e-8, 1e-5), torch.float32: (1e-5, 5e-3)}


def flow_of(time: str = "concat_squash", blocks: int = 1, dim: int = 2, dtype: torch.dtype = torch.float64) -> Flow:
    spec = FlowSpec(hidden=[32, 32], activation="tanh", time=time, blocks=blocks, gain=2.0)
    return build_flow(spec, dim, seed=0).to(dtype).eval()


@pytest.mark.parametrize("dtype", PRECISIONS, ids=["float64", "float32"])
@pytest.mark.parametrize(("time", "blocks", "dim"), [("none", 1, 2), ("concat", 1, 2), ("concat_squash", 2, 5)])
@torch.no_grad()
def test_log_p(gpu: torch.device, time: str, blocks: int, dim: int, dtype: torch.dtype) -> None:
    here, rows = flow_of(time, blocks, dim, dtype), normal(ROWS, dim, dtype=dtype)
    there = copy.deepcopy(here).to(gpu)
    tol, near = PRECISIONS[dtype]
    found = there.log_prob(rows.to(gpu), solver=Solver().at(tol))
    assert (found.device, found.dtype) == (gpu, dtype)
    torch.testing.assert_close(found.cpu(), here.log_prob(rows, solver=Solver().at(tol)), rtol=0, atol=near)


@torch.no_grad()
def test_both_directions(gpu: torch.device) -> None:
    here, rows = flow_of(), normal(500, 2)
    there, solver = copy.deepcopy(here).to(gpu), Solver().at(1e-8)
    noise = there.to_noise(rows.to(gpu), solver=solver)
    torch.testing.assert_close(noise.cpu(), here.to_noise(rows, solver=solver), rtol=0, atol=1e-5)
    torch.testing.assert_close(there.to_data(noise, solver=solver).cpu(), rows, rtol=0, atol=1e-5)


@torch.no_grad()
def test_samples_are_drawn_there(gpu: torch.device) -> None:
    there = flow_of().to(gpu)

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        return there.sample_and_log_prob(300, generator=torch.Generator(gpu).manual_seed(3), solver=Solver().at(1e-8))

    (samples, log_p), (again, _) = drawn(), drawn()
    assert samples.device == log_p.device == gpu
    assert torch.equal(samples, again)
    here = there.cpu()  # the flow itself: `to` moves it
    torch.testing.assert_close(here.log_prob(samples.cpu(), solver=Solver().at(1e-8)), log_p.cpu(), rtol=0, atol=1e-5)


def test_gradients(gpu: torch.device) -> None:
    found = []
    for device in (torch.device("cpu"), gpu):
        flow, rows = flow_of().to(device), normal(200, 2).to(device).requires_grad_(True)
        flow.log_prob(rows, solver=Solver().at(1e-8)).mean().backward()
        found.append([tensor.grad.cpu() for tensor in (rows, *flow.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_hutchinson_by_probes_of_its_own(gpu: torch.device) -> None:
    there, rows = flow_of(dim=5).to(gpu), normal(ROWS, 5).to(gpu)
    generator = torch.Generator(gpu).manual_seed(0)
    found = there.log_prob(rows, divergence="hutchinson", noise="rademacher", generator=generator)
    off = found - there.log_prob(rows)
    assert float(off.mean().abs()) < 4 * float(off.std()) / ROWS**0.5 + 1e-3  # unbiased; the solves' own error
    assert float(off.std()) > 1e-3  # and an estimate


@torch.no_grad()
def test_smaller_forms_of_a_pruned_flow(gpu: torch.device) -> None:
    dense, rows = flow_of(), normal(300, 2)
    masked = prune("magnitude", unpruned(dense), dense, 300).flow
    wanted = masked.log_prob(rows, solver=Solver().at(1e-8))
    there = copy.deepcopy(masked).to(gpu)
    for form in (there, there.compact(), there.to_sparse(), masked.to_sparse().to(gpu), masked.compact().to(gpu)):
        found = form.log_prob(rows.to(gpu), solver=Solver().at(1e-8))
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-5)


def test_points_and_generators_of_another_device_are_one_line(gpu: torch.device) -> None:
    elsewhere = gpu if gpu.type != "cpu" else torch.device("meta")
    flow = flow_of().to(elsewhere)
    with pytest.raises(InputError, match=f"points are on the device cpu, the flow on {elsewhere}"):
        flow.log_prob(normal(3, 2))
    with pytest.raises(InputError, match="generator draws on the device cpu"):
        flow.sample(3, generator=torch.Generator())
