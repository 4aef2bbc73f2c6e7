"""The constants of the Runge-Kutta methods: order conditions, and the order that is measured."""

from __future__ import annotations

import math

import pytest
import torch
from support.plain_solve import plain_solve

from sparseflows.flow.fields import LinearField
from sparseflows.flow.solvers.tableaus import TABLEAUS, Tableau


def weights_of_error(tableau: Tableau) -> list[tuple[float, float]]:
    """(weight, time) of b̂, the embedded method, which has the step's end as a stage."""
    b, c = (*tableau.b, 0.0), (*tableau.c, 1.0)
    return [(weight - error, time) for weight, error, time in zip(b, tableau.error, c, strict=True)]


@pytest.mark.parametrize("name", TABLEAUS)
def test_quadrature_conditions_of_both_methods(name: str) -> None:
    tableau = TABLEAUS[name]
    for power in range(tableau.order):
        assert sum(b * c**power for b, c in zip(tableau.b, tableau.c, strict=True)) == pytest.approx(1 / (power + 1))
    for power in range(tableau.order - 1):
        assert sum(b * c**power for b, c in weights_of_error(tableau)) == pytest.approx(1 / (power + 1))


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_order_is_the_measured_one(name: str) -> None:
    tableau = TABLEAUS[name]
    matrix = torch.tensor([[0.3, -1.2], [0.9, -0.4]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = start @ torch.linalg.matrix_exp(matrix).T

    def error(steps: int) -> float:
        end, _ = plain_solve(
            LinearField(matrix), torch.ones((), dtype=torch.float64), start, [1 / steps] * steps, tableau, None
        )
        return float((end - exact).abs().max().detach())

    assert math.log2(error(8) / error(16)) == pytest.approx(tableau.order, abs=0.3)


def test_rows_that_do_not_add_up_are_refused() -> None:
    good = TABLEAUS["bosh3"]
    with pytest.raises(ValueError, match="rows do not agree"):
        Tableau(good.a, (0.2, *good.b[1:]), good.c, good.error, good.order)
