"""The section `train`: the objective, its length and its optimiser."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sparseflows.specs.choices import OBJECTIVES, OPTIMISERS, SCHEDULES, SELECTIONS, OneOf
from sparseflows.specs.section import Positive, Section, Steps


class TrainSpec(Section):
    """One training: the objective, its length and its optimiser."""

    objective: Annotated[str, OneOf(OBJECTIVES)] = Field(
        "nll", description=f"cross_entropy: {OBJECTIVES['cross_entropy']}"
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="either this …")
    steps: Steps | None = Field(None, description="… or this")
    batch: Annotated[int, Field(ge=1, le=10_000_000)] = Field(1024, description="rows a step")
    optimiser: Annotated[str, OneOf(OPTIMISERS)] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = Field(1e-3, description="(top) learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="decoupled with adamw")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="of adam and adamw: decay of the mean squared gradient; 0.99 forgets a rough start sooner"
    )
    clip: Positive | None = Field(None, description="largest norm of the gradient")
    schedule: Annotated[str, OneOf(SCHEDULES)] = "constant"
    milestones: list[Steps] = Field([], description="of multi_step: the rate drops here; in epochs or in steps")
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of multi_step: by this factor")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="decay of the averaged weights")
    time_power: Annotated[float, Field(ge=0.1, le=10)] = Field(
        1.0, description="flow matching draws t = u^time_power, u uniform: above 1 it looks closer at the data"
    )
    kinetic: Annotated[float, Field(ge=0, lt=1e6)] = Field(0.0, description="weight of ∫|f|² dt (RNODE)")
    jacobian: Annotated[float, Field(ge=0, lt=1e6)] = Field(0.0, description="weight of ∫‖∂f/∂z‖²_F dt (RNODE)")
    select: Annotated[str, OneOf(SELECTIONS)] = Field(
        "last", description="report the last step's weights, or those of the lowest validation NLL"
    )
    selections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="of best_val: how often a training measures the validation NLL"
    )
    selection_rows: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2048, description="of best_val: on at most so many (seeded) validation rows"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> TrainSpec:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give the length once: either epochs or steps")
        if bool(self.milestones) != (self.schedule == "multi_step"):
            raise ValueError("milestones goes with schedule: multi_step, and multi_step needs them")
        if any(b <= a for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError("milestones must rise")
        if self.objective != "nll" and (self.kinetic or self.jacobian):
            instead = {"flow_matching": "has straight paths", "cross_entropy": "takes weight_decay"}[self.objective]
            raise ValueError(f"kinetic and jacobian regularise objective: nll; {self.objective} {instead}")
        return self

    def steps_for(self, rows: int) -> tuple[int, int]:
        """Total steps, and steps an epoch (its last batch may be smaller), for that many training rows."""
        per_epoch = -(-rows // self.batch)
        return self.steps or (self.epochs or 0) * per_epoch, per_epoch
