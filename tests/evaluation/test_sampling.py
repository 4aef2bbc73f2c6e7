"""Samples of flows whose paths run off: what is lost is NaN, and the search for it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sparseflows.evaluation.sampling import draw_again, draw_standardised, noise_rows
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import SolveFailed, Solver


class RunsOff(nn.Module):
    """Nothing moves, but what is farther out than `radius` runs off, e-fold by e-fold a hundredth of the time."""

    def __init__(self, radius):
        super().__init__()
        self.radius, self.rate = radius, nn.Parameter(torch.tensor(-100.0))

    def forward(self, t, z):
        return torch.where(z.norm(dim=1, keepdim=True) > self.radius, self.rate * z, 0.0)


def flow_of(radius, **options):
    return Flow(RunsOff(radius), solver=Solver(**options))


@pytest.mark.parametrize("n", [40, 1000])
def test_only_what_runs_off_is_lost(n):
    flow, noise = flow_of(3.3), noise_rows(n, 2, 0)
    samples = draw_standardised(flow, 2, n, 0)
    far = np.linalg.norm(noise, axis=1) > 3.3
    assert far.any() == (n == 1000)
    assert np.isnan(samples[far]).all()
    # The solver's last interpolation rounds, in float32.
    np.testing.assert_allclose(samples[~far], noise[~far], atol=1e-5)


def test_progress_and_seeds():
    steps = []
    first = draw_standardised(flow_of(9.0), 2, 5000, 1, lambda *step: steps.append(step))
    assert steps[-1] == (5000, 5000)
    assert steps == sorted(set(steps))
    np.testing.assert_array_equal(first, draw_standardised(flow_of(9.0), 2, 5000, 1))
    assert not np.array_equal(first, draw_standardised(flow_of(9.0), 2, 5000, 2))


def test_too_many_lost_samples_are_a_failure():
    with pytest.raises(SolveFailed, match="of 1000 samples cannot be solved"):
        draw_standardised(flow_of(1.0), 2, 1000, 0)


def test_a_solver_out_of_steps_says_so():
    with pytest.raises(SolveFailed, match="out of steps"):
        draw_standardised(flow_of(3.3, max_nfe=5), 2, 1000, 0)


def test_lost_samples_are_counted_where_they_are_drawn_again():
    seeds = iter(range(100))
    samples, lost = draw_again(flow_of(2.0), 2, 300, lambda: next(seeds))
    far = sum(np.linalg.norm(noise_rows(300, 2, 0), axis=1) > 2.0)
    assert lost >= far > 20
    assert np.linalg.norm(samples, axis=1).max() < 2.0 + 1e-5
