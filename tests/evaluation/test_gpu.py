"""Reported numbers of a flow on a GPU: those of the CPU, to the tolerance that they are reported at."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sparseflows.data.splits import make_splits
from sparseflows.evaluation.likelihood import evaluate
from sparseflows.evaluation.sampling import draw_standardised
from sparseflows.flow.build import build_flow
from sparseflows.specs import EvaluateSpec, FlowSpec

pytestmark = pytest.mark.gpu


def test_evaluation(gpu: torch.device) -> None:
    splits = make_splits("gaussian_spiral", n_train=400)
    here = build_flow(FlowSpec(hidden=[16, 16], activation="silu", time="concat", gain=2.0), 2, seed=0).eval()
    there, settings = copy.deepcopy(here).to(gpu), EvaluateSpec(max_rows=200)
    one, other = (evaluate(flow, splits, settings, 0) for flow in (here, there))
    for name in ("nll_test", "nll_val", "nll_train", "kl_gap", "nll_test_se"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-3), name
    assert other.n_test == one.n_test == 200
    assert next(there.parameters()).device == gpu


def test_samples_of_a_seed(gpu: torch.device) -> None:
    here = build_flow(FlowSpec(hidden=[16, 16], activation="silu", time="concat", gain=2.0), 2, seed=0).eval()
    one, other = (draw_standardised(flow, 2, 500, seed=3) for flow in (here, copy.deepcopy(here).to(gpu)))
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-3)
