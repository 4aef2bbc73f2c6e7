"""What all sections of a param file share: the base class, and bounds that several of them use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, lt=1e6)]
Tolerance = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0.01, le=0.8)]
Width = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys, NaN and values of the wrong type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
