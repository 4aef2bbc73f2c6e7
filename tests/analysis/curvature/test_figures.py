"""The figures of a spectrum, by hand and from whole ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from analysis.curvature.figures import figures, kappa_exact
from analysis.curvature.krylov import block_lanczos
from analysis.curvature.lanczos import Products

VALUES = np.array([-2.0, -0.1, 0.0, 0.5, 1.0, 2.0, 6.0, 10.0])  # their sum is 17.4


def of(values=VALUES, residuals=None, trace=None, interval=None):
    trace = float(values.sum()) if trace is None else trace
    residuals = np.zeros(len(values)) if residuals is None else residuals
    return figures(values, residuals, len(values), trace, interval or (trace, trace))


def test_by_hand() -> None:
    found = of()
    assert found.effective_rank == pytest.approx(1.74)
    assert found.kappa_80 == pytest.approx(10 / 6)  # 80 % are 13.92; 10 + 6 reach them
    assert found.outliers == 3  # above 1
    assert found.negative_ratio == pytest.approx(-0.2)
    assert found.negative_share == pytest.approx(1 / 8)  # below -0.1: one of them


def test_the_interval_of_the_trace_is_that_of_kappa() -> None:
    found = of(interval=(12.0, 21.0))
    assert (found.kappa_80_low, found.kappa_80_high) == (1.0, 5.0)  # 10 >= 9.6; 10 + 6 < 16.8 <= 10 + 6 + 2


def test_a_value_that_is_not_resolved_is_no_figure() -> None:
    residuals = np.zeros(8)
    residuals[6] = 0.061
    assert math.isnan(of(residuals=residuals).kappa_80)
    residuals[6] = 0.059
    assert of(residuals=residuals).kappa_80 == pytest.approx(10 / 6)
    assert math.isnan(of(trace=50.0).kappa_80)  # what is known does not reach 80 % of it


def test_no_positive_eigenvalue_no_ratio() -> None:
    found = of(np.array([-3.0, -1.0]))
    assert math.isnan(found.effective_rank)
    assert math.isnan(found.kappa_80)
    assert math.isnan(found.negative_share)
    assert found.outliers == 0


def test_from_a_krylov_space_as_from_the_whole_spectrum() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([rng.standard_normal(190) * 0.005, [-0.5, -0.4, 1, 2, 3.5, 4, 6, 9, 15, 30.0]]))
    basis = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    matrix = (basis * values) @ basis.T
    space = block_lanczos(Products(aslinearoperator(matrix)), rng.standard_normal((200, 4)), 15)
    trace = float(values.sum())
    wanted, found = of(values, trace=trace), figures(space.values, space.residuals, 200, trace, (trace, trace))
    for name in vars(wanted):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-6), name


def test_kappa_by_a_cut() -> None:
    assert kappa_exact(np.array([4.0, 2.0, -0.5, 1e-6, 0.0])) == (8.0, 2)
    assert kappa_exact(np.array([4.0, 1e-3]), eps=1e-2) == (1.0, 1)
    kappa, below = kappa_exact(np.array([-1.0, 0.0]))
    assert math.isnan(kappa)
    assert below == 1
