"""The optimisers are PyTorch's, number for number, and leave the machinery of torch.compile alone."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from sparseflows.training import untraced

KINDS = {"SGD": {"momentum": 0.9}, "Adam": {"fused": True}, "AdamW": {"fused": True}}
PROGRAM = """
import sys
import torch
from sparseflows.training.optim import build_optimiser
from sparseflows.specs import TrainSpec
import copy
for kind in ("sgd", "adam", "adamw"):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimiser = build_optimiser(TrainSpec(objective="nll", steps=1, optimiser=kind), [parameter])
    for _ in range(2):
        optimiser.zero_grad()
        (parameter**2).sum().backward()
        optimiser.step()
        optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert float(parameter[0]) < 1
print("torch._dynamo" in sys.modules, "scipy" in sys.modules)
"""


@pytest.mark.parametrize("name", KINDS)
def test_they_step_as_those_of_pytorch(name: str) -> None:
    ended = []
    for kind in (getattr(untraced, name), getattr(torch.optim, name)):
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 50))
        optimiser = kind([parameter], lr=0.1, weight_decay=0.1, **KINDS[name])
        for step in range(6):
            optimiser.zero_grad()
            (parameter**4).sum().backward()
            optimiser.step()
            if step == 2:
                optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        assert parameter.requires_grad
        ended.append((parameter.detach(), optimiser.state_dict()))
    (ours, state), (theirs, their_state) = ended
    assert torch.equal(ours, theirs)
    assert state["param_groups"] == their_state["param_groups"]
    assert state["state"].keys() == their_state["state"].keys()
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(their_state["state"][0][key]))
        for key, value in state["state"][0].items()
    )


def test_a_closure_is_called_with_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimiser = untraced.SGD([parameter], lr=0.1)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert float(optimiser.step(closure).detach()) == 3.0
    assert torch.allclose(parameter, torch.full((3,), 0.8))


def test_steps_import_neither_the_tracer_nor_scipy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
