"""Every setting of a param file: typed, bounded, with its default and what it means.

A param file is the only place where settings live; `Spec` is its resolved form, written to the run
folder as `spec.yaml`. Numbers are bounded so that a slip of the finger is refused before anything runs.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from sparseflows.errors import suggest
from sparseflows.pruning.schedule import expand_keep_ratios

FORMAT = 1  # of the run folder; raised when an older program could not read a newer folder

Positive = Annotated[float, Field(gt=0, lt=1e6)]
Tolerance = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0.01, le=0.8)]
Width = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]

ADAPTIVE = ("dopri5", "bosh3", "dopri8", "adaptive_heun", "fehlberg2")
FIXED = ("euler", "midpoint", "rk4")


class Section(BaseModel):
    """Base of all sections: unknown keys, NaN and values of the wrong type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class DataSpec(Section):
    """Where the rows come from, and how they are split."""

    name: str = Field(description="a known set (see `sparseflows data list`), or `table` for a file of your own")
    path: str | None = Field(
        None, description="the .npy or .csv file of `table`; the prepared folder of a benchmark set [data/<name>]"
    )
    n_train: Annotated[int, Field(ge=8, le=100_000_000)] | None = Field(
        None, description="training rows; toy sets: how many to draw (validation and test: half as many each)"
    )
    val_fraction: Fraction = Field(0.1, description="share of a table's rows for validation")
    test_fraction: Fraction = Field(0.1, description="share of a table's rows for the test set")
    seed: Seed = Field(0, description="of the draw (toy sets) or the split (tables)")
    split_by_seed: bool = Field(
        False,
        description="every seed s of `seeds` draws or splits the data its own way (by data.seed + s)",
    )
    whiten: bool = Field(False, description="begin with a fixed linear map that whitens the training rows")

    def seed_for(self, seed: int) -> int:
        """Of the draw or split that seed `seed` of the run trains on."""
        return self.seed + (seed if self.split_by_seed else 0)

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> DataSpec:
        if self.val_fraction + self.test_fraction > 0.9:
            raise ValueError("val_fraction + test_fraction must leave at least 0.1 of the rows for training")
        return self


class FlowSpec(Section):
    """The vector field and its blocks."""

    hidden: Annotated[list[Width], Field(min_length=1, max_length=32)] = Field(
        [64, 64, 64], description="neurons of each hidden layer"
    )
    activation: Literal["sigmoid", "tanh", "softplus", "relu", "silu"] = "sigmoid"
    time: Literal["none", "concat", "concat_squash"] = Field(
        "none",
        description="none; concat: t joins the first layer's input; concat_squash: gates on every layer",
    )
    blocks: Annotated[int, Field(ge=1, le=64)] = Field(1, description="flows that follow one another")
    train_end_time: bool = Field(False, description="each block's end time T = s² is trained, s = 1 at first")
    gain: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="factor on the initial weights of the hidden layers"
    )
    base: Literal["none", "gaussian"] = Field(
        "none",
        description="gaussian: the field starts as (2t − 1)/((1 − t)² + t²)·z, the straight-path velocity "
        "between two standard Gaussians, and the network learns the rest",
    )

    def dense_params(self, dim: int) -> int:
        """Trainable scalars of the dense flow in `dim` dimensions, by arithmetic."""
        widths = [dim, *self.hidden, dim]
        total = 0
        for index, (n_in, n_out) in enumerate(pairwise(widths)):
            vectors = {"none": 1, "concat": 2 if index == 0 else 1, "concat_squash": 4}[self.time]
            total += n_in * n_out + vectors * n_out
        return self.blocks * (total + int(self.train_end_time))


class SolveSpec(Section):
    """How the training objective solves the ODE (the reported NLL has its own solver: `evaluate`)."""

    method: Literal["dopri5", "bosh3", "dopri8", "adaptive_heun", "fehlberg2", "euler", "midpoint", "rk4"] = "dopri5"
    rtol: Tolerance = 1e-5
    atol: Tolerance = 1e-5
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = Field(None, description="of a fixed-step method")
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = Field(
        5000, description="a solve that needs more evaluations of the field than this is stopped and said so"
    )
    divergence: Literal["exact", "hutchinson"] = "exact"
    noise: Literal["rademacher", "gaussian"] = Field("rademacher", description="of the Hutchinson estimator")
    gradient: Literal["backprop", "adjoint"] = "backprop"

    @model_validator(mode="after")
    def _steps_go_with_fixed_methods(self) -> SolveSpec:
        if (self.steps is None) == (self.method in FIXED):
            raise ValueError(
                f"steps goes with the fixed-step methods ({', '.join(FIXED)}), "
                f"rtol and atol with the adaptive ones ({', '.join(ADAPTIVE)}); method is {self.method}"
            )
        return self


class TrainSpec(Section):
    """One training: the objective, its length and its optimiser."""

    objective: Literal["nll", "flow_matching"] = "nll"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="either this …")
    steps: Steps | None = Field(None, description="… or this")
    batch: Annotated[int, Field(ge=1, le=10_000_000)] = 1024
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    clip: Positive | None = Field(None, description="largest norm of the gradient")
    schedule: Literal["constant", "one_cycle", "cosine", "multi_step"] = "constant"
    milestones: list[Steps] = Field([], description="of multi_step: the rate drops here; in epochs or in steps")
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of multi_step: by this factor")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="decay of the averaged weights")
    time_power: Annotated[float, Field(ge=0.1, le=10)] = Field(
        1.0,
        description="flow matching draws t = u^time_power, u uniform: above 1 it looks closer at the data",
    )
    kinetic: Annotated[float, Field(ge=0, lt=1e6)] = Field(0.0, description="weight of ∫|f|² dt (RNODE)")
    jacobian: Annotated[float, Field(ge=0, lt=1e6)] = Field(0.0, description="weight of ∫‖∂f/∂z‖²_F dt (RNODE)")
    select: Literal["last", "best_val"] = Field(
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
        if self.objective == "flow_matching" and (self.kinetic or self.jacobian):
            raise ValueError("kinetic and jacobian regularise objective: nll; flow_matching has straight paths")
        return self

    def steps_for(self, rows: int) -> tuple[int, int]:
        """Total steps, and steps an epoch (its last batch may be smaller), for that many training rows."""
        per_epoch = -(-rows // self.batch)
        return self.steps or (self.epochs or 0) * per_epoch, per_epoch


class PruneSpec(Section):
    """The cascade: which methods, how far, and how the flow is retrained in between."""

    methods: list[Literal["unstructured", "structured"]] = Field(
        [],
        description="unstructured: single weights by magnitude; structured: whole neurons by their l1 norm",
    )
    keep_ratios: list[float] = Field(
        [], description="falling, in (0, 1): the share of the dense flow's params that each stage keeps"
    )
    allocation: Literal["uniform", "global"] = Field(
        "uniform", description="structured: the same share of every layer, or one ranking over all layers"
    )
    retrain: dict[str, Any] = Field({}, description="keys of `train` that differ when a pruned flow is retrained")

    @field_validator("keep_ratios", mode="before")
    @classmethod
    def _expand(cls, value: object) -> list[float]:
        return expand_keep_ratios(value)

    @model_validator(mode="after")
    def _is_consistent(self) -> PruneSpec:
        if bool(self.methods) != bool(self.keep_ratios):
            raise ValueError("methods and keep_ratios go together: give both, or neither for a dense flow only")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods: each one once")
        return self


class EvaluateSpec(Section):
    """How every reported likelihood is computed: adaptive dopri5, exact divergence."""

    rtol: Annotated[float, Field(ge=1e-10, le=1e-5)] = 1e-5
    atol: Annotated[float, Field(ge=1e-10, le=1e-5)] = 1e-5
    dtype: Literal["float32", "float64"] = "float64"
    max_rows: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="at most so many (seeded) rows of each part; of training rows never more than 2,048"
    )
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = 20_000

    @model_validator(mode="after")
    def _float32_cannot_hold_it(self) -> EvaluateSpec:
        if self.dtype == "float32" and min(self.rtol, self.atol) < 1e-6:
            raise ValueError("float32 cannot resolve a tolerance below 1e-6; use dtype: float64")
        return self


class Spec(Section):
    """One experiment: a dense flow a seed, and a cascade for each method and seed."""

    format: Literal[1] = 1
    name: str = Field(description="of the run folder: letters, digits, '.', '_' and '-'")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]
    device: str = Field("cpu", description="cpu or cuda")
    dtype: Literal["float32", "float64"] = Field("float32", description="of training")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="of each process: small networks gain nothing from more, and the numbers may depend on it",
    )
    data: DataSpec
    flow: FlowSpec = Field(default_factory=lambda: FlowSpec.model_validate({}))
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
        try:
            retrained = self.retrain_spec()
        except ValidationError as error:
            # The same problems, where the user wrote them.
            raise ValidationError.from_exception_data(
                error.title,
                [
                    InitErrorDetails(
                        type=problem["type"],
                        loc=("prune", "retrain", *problem["loc"]),
                        input=problem["input"],
                        ctx=problem.get("ctx", {}),
                    )
                    for problem in error.errors()
                ],
            ) from None
        if retrained.objective != self.train.objective:
            raise ValueError("prune.retrain.objective: a cascade keeps the objective it was trained with")
        return self

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
