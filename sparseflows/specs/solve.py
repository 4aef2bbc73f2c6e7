"""The sections `solve`, the solver of the training objective, and `evaluate`, how every reported number is computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sparseflows.specs.choices import ADAPTIVE, FIXED, GRADIENTS, HELD, NOISES, SOLVERS, DivergenceKind, Dtype, OneOf
from sparseflows.specs.section import Section, Tolerance


class SolveSpec(Section):
    """How the training objective solves the ODE (the reported NLL has its own solver: `evaluate`)."""

    method: Annotated[str, OneOf(SOLVERS)] = "dopri5"
    rtol: Tolerance = Field(1e-5, description="relative tolerance of an adaptive method")
    atol: Tolerance = Field(1e-5, description="absolute tolerance")
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = Field(None, description="of a fixed-step method")
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = Field(
        5000, description="a solve that needs more evaluations of the field than this is stopped and said so"
    )
    divergence: DivergenceKind = "exact"
    noise: Annotated[str, OneOf(NOISES)] = Field("rademacher", description="of the Hutchinson estimator")
    gradient: Annotated[str, OneOf(GRADIENTS)] = "backprop"
    hold_grid: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description=f"{' and '.join(HELD)}: choose the steps by the embedded error, then hold them for so many "
        "training steps, which then pay for no rejected step; the gradient is that of the steps themselves",
    )
    hold_rows: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        256, description="of hold_grid: rows of the batch that the steps are chosen by"
    )
    first_tol: Tolerance | None = Field(
        None, description="of hold_grid: tolerance of the first training step; it falls to rtol, geometrically"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> SolveSpec:
        if self.hold_grid is None:
            if self.first_tol is not None:
                raise ValueError("first_tol goes with hold_grid")
        elif self.method not in HELD:
            raise ValueError(f"hold_grid goes with method: {' or '.join(HELD)}, not {self.method}")
        elif self.gradient != "backprop":
            raise ValueError("hold_grid has its own gradient, of constant memory already: gradient: backprop")
        elif self.rtol != self.atol:
            raise ValueError("hold_grid has one tolerance: rtol = atol")
        elif self.first_tol is not None and self.first_tol < self.rtol:
            raise ValueError("first_tol is where the tolerance falls from: at least rtol")
        if (self.steps is None) == (self.method in FIXED):
            raise ValueError(
                f"steps goes with the fixed-step methods ({', '.join(FIXED)}), "
                f"rtol and atol with the adaptive ones ({', '.join(ADAPTIVE)}); method is {self.method}"
            )
        return self


class EvaluateSpec(Section):
    """How every reported likelihood is computed: adaptive dopri5, exact divergence."""

    rtol: Annotated[float, Field(ge=1e-10, le=1e-5)] = Field(1e-5, description="relative tolerance")
    atol: Annotated[float, Field(ge=1e-10, le=1e-5)] = Field(1e-5, description="absolute tolerance")
    dtype: Dtype = "float64"
    max_rows: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="at most so many (seeded) rows of each part; of training rows never more than 2,048"
    )
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = Field(20_000, description="evaluations a solve may take")

    @model_validator(mode="after")
    def _float32_cannot_hold_it(self) -> EvaluateSpec:
        if self.dtype == "float32" and min(self.rtol, self.atol) < 1e-6:
            raise ValueError("float32 cannot resolve a tolerance below 1e-6; use dtype: float64")
        return self
