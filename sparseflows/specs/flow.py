"""The section `flow`: the vector field and its blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field

from sparseflows.specs.choices import ACTIVATIONS, BASES, TIMES, OneOf, meanings
from sparseflows.specs.section import Section, Width


class FlowSpec(Section):
    """The vector field and its blocks."""

    hidden: Annotated[list[Width], Field(min_length=1, max_length=32)] = Field(
        [64, 64, 64], description="neurons of each hidden layer"
    )
    activation: Annotated[str, OneOf(ACTIVATIONS)] = "sigmoid"
    time: Annotated[str, OneOf(TIMES)] = Field("none", description=meanings(TIMES))
    blocks: Annotated[int, Field(ge=1, le=64)] = Field(1, description="flows that follow one another")
    train_end_time: bool = Field(False, description="each block's end time T = s² is trained, s = 1 at first")
    gain: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="factor on the initial weights of the hidden layers"
    )
    base: Annotated[str, OneOf(BASES)] = Field("none", description=meanings(BASES).removeprefix("none; "))

    def dense_params(self, dim: int) -> int:
        """Trainable scalars of the dense flow in `dim` dimensions, by arithmetic."""
        widths = [dim, *self.hidden, dim]
        total = 0
        for index, (n_in, n_out) in enumerate(pairwise(widths)):
            vectors = {"none": 1, "concat": 2 if index == 0 else 1, "concat_squash": 4}[self.time]
            total += n_in * n_out + vectors * n_out
        return self.blocks * (total + int(self.train_end_time))
