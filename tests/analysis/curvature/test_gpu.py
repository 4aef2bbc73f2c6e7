"""Products of the Hessian of a flow on a GPU: those of the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny import WHITENING, rows, tiny_flow
from support.truths import generator

from analysis.curvature.held_steps import HeldSteps
from analysis.curvature.losses import NLL, FlowMatchingLoss, MeanLoss
from analysis.curvature.operators import HessianOperator, Survivors

pytestmark = pytest.mark.gpu


def loss_of(kind: str, blocks: int) -> MeanLoss:
    if kind == "nll":
        return NLL(rows(21), HeldSteps(((0.4, 0.6),) * blocks))
    return FlowMatchingLoss.of(rows(21), 2.0, generator(5), 3)


def moved(loss: MeanLoss, device: torch.device) -> MeanLoss:
    """The same loss, its tensors on `device`."""
    return replace(loss, **{k: v.to(device) for k, v in vars(loss).items() if isinstance(v, torch.Tensor)})


@pytest.mark.parametrize(("kind", "blocks"), [("nll", 1), ("nll", 2), ("matching", 1)])
def test_products_gradient_and_value(kind: str, blocks: int, gpu: torch.device) -> None:
    here = tiny_flow((5, 4), "tanh", "concat", blocks=blocks, whitening=WHITENING)
    there, loss = copy.deepcopy(here).to(gpu), loss_of(kind, blocks)
    ours = HessianOperator(there, moved(loss, gpu), Survivors(there, {}), compiled=False)
    theirs = HessianOperator(here, loss, Survivors(here, {}), compiled=False)
    vectors = np.random.default_rng(0).standard_normal((ours.shape[0], 3))
    wanted = theirs @ vectors
    assert np.linalg.norm(ours @ vectors - wanted) < 1e-10 * np.linalg.norm(wanted)
    (value, gradient), (value_there, gradient_there) = theirs.value_and_gradient(), ours.value_and_gradient()
    assert value_there == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(gradient_there, gradient, rtol=0, atol=1e-12 * np.linalg.norm(gradient))
