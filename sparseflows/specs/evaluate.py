"""The section `evaluate`: how every reported number is computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sparseflows.specs.choices import Dtype
from sparseflows.specs.section import Section


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
