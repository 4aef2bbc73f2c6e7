"""The sections `flow`, a vector field and its blocks, and `network`, a classifier without an ODE."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from sparseflows.specs.choices import ACTIVATIONS, BASES, NETWORKS, TIMES, OneOf, meanings
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


class NetworkSpec(Section):
    """A classifier without an ODE: a multilayer perceptron, or a small convolutional network for square images.

    A conv network's layers: for each of `channels` a 3 × 3 convolution that keeps the size and, after its activation, a
    maximum over 2 × 2 pixels that halves it; then the dense ones of `hidden`; then the logits.
    """

    kind: Annotated[str, OneOf(NETWORKS)] = "dense"
    hidden: Annotated[list[Width], Field(max_length=32)] = Field([], description="neurons of each hidden dense layer")
    channels: Annotated[list[Width], Field(max_length=12)] = Field([], description="conv: of each convolution")
    activation: Annotated[str, OneOf(ACTIVATIONS)] = "relu"
    batch_norm: bool = Field(False, description="batch normalisation after every layer but the last")

    @model_validator(mode="after")
    def _layers_go_with_the_kind(self) -> NetworkSpec:
        if self.kind == "dense" and (self.channels or not self.hidden):
            raise ValueError("kind: dense needs hidden, the neurons of its layers, and takes no channels")
        if self.kind == "conv" and not self.channels:
            raise ValueError("kind: conv needs channels, those of each convolution")
        return self

    def sides(self, dim: int) -> list[int]:
        """Pixels along the side of a conv network's images: of the rows of `dim` columns, and after each halving.

        Raises:
            ValueError: rows that are no square images, or too small for so many convolutions.
        """
        side = math.isqrt(dim)
        if side * side != dim:
            raise ValueError(f"network.kind: conv needs square images, and {dim} columns make none; use kind: dense")
        sides = [side]
        for _ in self.channels:
            sides.append(sides[-1] // 2)
        if sides[-1] < 1:
            most = side.bit_length() - 1
            raise ValueError(
                f"network.channels: {len(self.channels)} convolutions halve images of {side} × {side} pixels to "
                f"nothing; give at most {most}"
            )
        return sides

    def dense_params(self, dim: int, classes: int) -> int:
        """Trainable scalars of the dense network for rows of `dim` columns, by arithmetic.

        Raises:
            ValueError: as `sides`.
        """
        norm = 2 if self.batch_norm else 0
        total, n_in = 0, dim
        if self.kind == "conv":
            for channels_in, channels in pairwise([1, *self.channels]):
                total += channels * (9 * channels_in + 1 + norm)
            n_in = self.channels[-1] * self.sides(dim)[-1] ** 2
        for width_in, width in pairwise([n_in, *self.hidden]):
            total += width * (width_in + 1 + norm)
        last = self.hidden[-1] if self.hidden else n_in
        return total + classes * (last + 1)
