"""`Spec`, all settings of a param file: typed, bounded, with their defaults and what they mean.

A param file is the only place where settings live; `Spec` is its resolved form, written to the run
folder as `spec.yaml`. Numbers are bounded so that a slip of the finger is refused before anything runs.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sparseflows.errors import suggest
from sparseflows.specs.choices import Dtype
from sparseflows.specs.data import DataSpec
from sparseflows.specs.flow import FlowSpec, NetworkSpec
from sparseflows.specs.prune import PruneSpec
from sparseflows.specs.section import Section, Seed
from sparseflows.specs.solve import EvaluateSpec, SolveSpec
from sparseflows.specs.train import TrainSpec

FORMAT = 1  # of the run folder; raised when an older program could not read a newer folder


class Spec(Section):
    """One experiment: a dense flow a seed, and a cascade for each method and seed."""

    format: Literal[1] = 1
    name: str = Field(description="of the run folder: letters, digits, '.', '_' and '-'")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = Field(
        [0], description="one dense flow, and one cascade a method, for each"
    )
    device: str = Field("cpu", description="cpu or cuda")
    dtype: Dtype = Field("float32", description="of training")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="of each process: small networks gain nothing from more, and the numbers may depend on it"
    )
    data: DataSpec
    flow: FlowSpec = Field(default_factory=lambda: FlowSpec.model_validate({}))
    network: NetworkSpec | None = Field(
        None, description="a classifier without an ODE, in place of the flow (train.objective: cross_entropy)"
    )
    solve: SolveSpec = Field(default_factory=lambda: SolveSpec.model_validate({}))
    train: TrainSpec
    prune: PruneSpec = Field(default_factory=lambda: PruneSpec.model_validate({}))
    evaluate: EvaluateSpec = Field(default_factory=lambda: EvaluateSpec.model_validate({}))

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError(
                f"name is the run folder's: at most 64 letters, digits, '.', '_' or '-', the first a letter or "
                f"digit, not {value[:64]!r}"
            )
        return value

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        if not re.fullmatch("cpu|cuda(:[0-9]{1,2})?", value):
            raise ValueError(f"device is cpu, cuda or one GPU of several, as cuda:1, not {value[:60]!r}")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Spec:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each one once")
        if self.train.objective == "flow_matching":
            self._check_flow_matching()
        elif self.flow.base == "gaussian":
            raise ValueError("flow.base: gaussian is the start of train.objective: flow_matching")
        if self.network is not None:
            self._check_network()
        try:
            retrained = self.retrain_spec()
        except ValidationError as error:
            # The same problems, where the user wrote them.
            problems: list[Any] = [one | {"loc": ("prune", "retrain", *one["loc"])} for one in error.errors()]
            raise ValidationError.from_exception_data(error.title, problems) from None
        if retrained.objective != self.train.objective:
            raise ValueError("prune.retrain.objective: a cascade keeps the objective it was trained with")
        return self

    def _check_network(self) -> None:
        if self.train.objective != "cross_entropy":
            raise ValueError(f"network is a classifier: train.objective: cross_entropy, not {self.train.objective}")
        if self.data.whiten:
            raise ValueError("data.whiten is the first step of a flow; a network has none: data.whiten: false")
        if self.train.ema is not None and self.network is not None and self.network.batch_norm:
            raise ValueError("train.ema averages weights, not the statistics of network.batch_norm; use one of the two")

    def _check_flow_matching(self) -> None:
        if self.flow.blocks != 1:
            raise ValueError(f"train.objective: flow_matching needs flow.blocks: 1, not {self.flow.blocks}")
        if self.flow.train_end_time:
            raise ValueError("train.objective: flow_matching needs T = 1: flow.train_end_time: false")
        if self.flow.time == "none":
            raise ValueError("train.objective: flow_matching needs a time input: flow.time: concat or concat_squash")

    def retrain_spec(self) -> TrainSpec:
        """The `train` section with the differences of `prune.retrain` (learning-rate rewinding repeats it all)."""
        settings = self.train.model_dump()
        changes = self.prune.retrain
        unknown = sorted(set(changes) - set(settings))
        if unknown:
            known = sorted(settings)
            key = unknown[0][:60]
            raise ValueError(f"prune.retrain: unknown key '{key}'{suggest(key, known)} (known: {', '.join(known)})")
        if "steps" in changes:
            settings["epochs"] = None
        if "epochs" in changes:
            settings["steps"] = None
        if changes.get("schedule", "multi_step") != "multi_step":
            settings["milestones"] = []
        return TrainSpec.model_validate(settings | changes)
