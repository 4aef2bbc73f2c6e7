"""Every setting of a param file: typed, bounded, with its default and what it means.

A param file is the only place where settings live; `Spec` is its resolved form, written to the run
folder as `spec.yaml`. Numbers are bounded so that a slip of the finger is refused before anything runs.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from sparseflows.errors import suggest
from sparseflows.specs.keep_ratios import expand_keep_ratios

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


class NetworkSpec(Section):
    """A classifier without an ODE: a multilayer perceptron, or a small convolutional network for square images.

    A conv network's layers: for each of `channels` a 3 × 3 convolution that keeps the size and, after its activation, a
    maximum over 2 × 2 pixels that halves it; then the dense ones of `hidden`; then the logits.
    """

    kind: Literal["dense", "conv"] = "dense"
    hidden: Annotated[list[Width], Field(max_length=32)] = Field([], description="neurons of each hidden dense layer")
    channels: Annotated[list[Width], Field(max_length=12)] = Field([], description="conv: of each convolution")
    activation: Literal["relu", "tanh", "sigmoid", "softplus", "silu"] = "relu"
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


HELD = ("bosh3", "dopri5")  # methods whose steps can be held


class SolveSpec(Section):
    """How the training objective solves the ODE (the reported NLL has its own solver: `evaluate`)."""

    method: Literal["dopri5", "bosh3", "dopri8", "adaptive_heun", "fehlberg2", "euler", "midpoint", "rk4"] = "dopri5"
    rtol: Tolerance = Field(1e-5, description="relative tolerance of an adaptive method")
    atol: Tolerance = Field(1e-5, description="absolute tolerance")
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = Field(None, description="of a fixed-step method")
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = Field(
        5000, description="a solve that needs more evaluations of the field than this is stopped and said so"
    )
    divergence: Literal["exact", "hutchinson"] = "exact"
    noise: Literal["rademacher", "gaussian"] = Field("rademacher", description="of the Hutchinson estimator")
    gradient: Literal["backprop", "adjoint"] = "backprop"
    hold_grid: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="bosh3 and dopri5: choose the steps by the embedded error, then hold them for so many training "
        "steps, which then pay for no rejected step; the gradient is that of the steps themselves",
    )
    hold_rows: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        256, description="of hold_grid: rows of the batch that the steps are chosen by"
    )
    first_tol: Tolerance | None = Field(
        None, description="of hold_grid: tolerance of the first training step; it falls to rtol, geometrically"
    )

    @model_validator(mode="after")
    def _held_grids_are_consistent(self) -> SolveSpec:
        if self.hold_grid is None:
            if self.first_tol is not None:
                raise ValueError("first_tol goes with hold_grid")
            return self
        if self.method not in HELD:
            raise ValueError(f"hold_grid goes with method: {' or '.join(HELD)}, not {self.method}")
        if self.gradient != "backprop":
            raise ValueError("hold_grid has its own gradient, of constant memory already: gradient: backprop")
        if self.rtol != self.atol:
            raise ValueError("hold_grid has one tolerance: rtol = atol")
        if self.first_tol is not None and self.first_tol < self.rtol:
            raise ValueError("first_tol is where the tolerance falls from: at least rtol")
        return self

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

    objective: Literal["nll", "flow_matching", "cross_entropy"] = Field(
        "nll", description="cross_entropy: a classifier; of `network`, or of the final state of the flow's ODE"
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="either this …")
    steps: Steps | None = Field(None, description="… or this")
    batch: Annotated[int, Field(ge=1, le=10_000_000)] = Field(1024, description="rows a step")
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = Field(1e-3, description="(top) learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="decoupled with adamw")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="of adam and adamw: decay of the mean squared gradient; 0.99 forgets a rough start sooner"
    )
    clip: Positive | None = Field(None, description="largest norm of the gradient")
    schedule: Literal["constant", "one_cycle", "cosine", "warm_cosine", "multi_step"] = "constant"
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
        if self.objective == "cross_entropy" and (self.kinetic or self.jacobian):
            raise ValueError("kinetic and jacobian regularise objective: nll; cross_entropy takes weight_decay")
        return self

    def steps_for(self, rows: int) -> tuple[int, int]:
        """Total steps, and steps an epoch (its last batch may be smaller), for that many training rows."""
        per_epoch = -(-rows // self.batch)
        return self.steps or (self.epochs or 0) * per_epoch, per_epoch


WeightMethod = Literal[
    "unstructured",
    "magnitude",
    "snip",
    "sipp",
    "sipp_randomised",
    "sipp_hybrid",
    "fisher_weights",
    "random_weights",
]
UnitMethod = Literal[
    "structured",
    "neuron_l1",
    "neuron_l2",
    "pfp",
    "pfp_randomised",
    "pfp_top_random",
    "fisher_neurons",
    "taylor",
    "random_neurons",
]
MethodName = Literal[WeightMethod, UnitMethod]
ProtocolName = Literal["cascade", "one_shot", "gradual", "scratch", "rewind", "reduced", "control"]

CASCADE, ONE_SHOT, GRADUAL, SCRATCH, REWIND, REDUCED, CONTROL = get_args(ProtocolName)
OF_DENSE = (REDUCED, CONTROL)  # protocols that prune nothing: one sequence a seed, not one a method
DRAWN = ("sipp_randomised", "sipp_hybrid", "pfp_randomised", "pfp_top_random")  # chosen all at once, at random


class PruneSpec(Section):
    """What is pruned, how far, by which protocols, and how the flow is retrained."""

    methods: list[MethodName] = Field(
        [],
        description="single weights by magnitude (unstructured is the same), snip, sipp, sipp_randomised, sipp_hybrid, "
        "fisher_weights, random_weights; whole neurons by neuron_l1 (structured is the same), neuron_l2, pfp, "
        "pfp_randomised, pfp_top_random, fisher_neurons, taylor, random_neurons",
    )
    keep_ratios: list[float] = Field(
        [], description="falling, in (0, 1): the share of the dense flow's params that each stage keeps"
    )
    protocols: Annotated[list[ProtocolName], Field(min_length=1)] = Field(
        ["cascade"],
        description="cascade: prune a bit more, retrain, again; one_shot: the dense flow pruned at each ratio, not "
        "retrained; gradual: a neuron (or a few weights) goes every few steps of the retraining; scratch: the pruned "
        "architecture trained from fresh weights for as long in all; rewind: from its original initial weights; "
        "reduced: a narrower dense flow of its size; control: the dense flow trained on for as long as the pruned "
        "one was retrained",
    )
    allocation: Literal["uniform", "global"] = Field(
        "uniform",
        description="of neurons: the same share of every layer, or one ranking over all layers (pfp has its own)",
    )
    weight_allocation: Literal["global", "uniform"] = Field("global", description="of weights, likewise (sipp: global)")
    floor: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="share of each layer's weights or neurons that stays whatever their score"
    )
    compensate: bool = Field(
        False, description="give the biases that read removed neurons those neurons' mean activation on the sample"
    )
    sample: Annotated[int, Field(ge=1, le=100_000)] = Field(
        64, description="(seeded) training rows that the criteria which look at data are given"
    )
    gradual_every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="gradual: retraining steps from one neuron's going to the next (weights: an equal share)"
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
        for key, names in (("methods", self.methods), ("protocols", self.protocols)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: each one once")
        for short, long in (("magnitude", "unstructured"), ("neuron_l1", "structured")):
            if {short, long} <= set(self.methods):
                raise ValueError(f"methods: {short} and {long} are two names of one method; give one of them")
        if {SCRATCH, REWIND} & set(self.protocols) and not {CASCADE, ONE_SHOT} & set(self.protocols):
            raise ValueError(
                "protocols: scratch and rewind train what another one has pruned; add cascade (or one_shot)"
            )
        drawn = next((method for method in self.methods if method in DRAWN), None)
        if GRADUAL in self.protocols and drawn is not None:
            raise ValueError(f"protocols: gradual takes weights out bit by bit; {drawn} draws them all at once")
        return self

    def sequences(self) -> list[tuple[str, str]]:
        """(protocol, method) of all that is pruned or stands beside it, in the order of results.csv."""
        if not self.methods:
            return []
        return [
            (protocol, method)
            for protocol in self.protocols
            for method in (["dense"] if protocol in OF_DENSE else self.methods)
        ]


class EvaluateSpec(Section):
    """How every reported likelihood is computed: adaptive dopri5, exact divergence."""

    rtol: Annotated[float, Field(ge=1e-10, le=1e-5)] = Field(1e-5, description="relative tolerance")
    atol: Annotated[float, Field(ge=1e-10, le=1e-5)] = Field(1e-5, description="absolute tolerance")
    dtype: Literal["float32", "float64"] = "float64"
    max_rows: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="at most so many (seeded) rows of each part; of training rows never more than 2,048"
    )
    max_nfe: Annotated[int, Field(ge=10, le=10_000_000)] = Field(20_000, description="evaluations a solve may take")

    @model_validator(mode="after")
    def _float32_cannot_hold_it(self) -> EvaluateSpec:
        if self.dtype == "float32" and min(self.rtol, self.atol) < 1e-6:
            raise ValueError("float32 cannot resolve a tolerance below 1e-6; use dtype: float64")
        return self


class Spec(Section):
    """One experiment: a dense flow a seed, and a cascade for each method and seed."""

    format: Literal[1] = 1
    name: str = Field(description="of the run folder: letters, digits, '.', '_' and '-'")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = Field(
        [0], description="one dense flow, and one cascade a method, for each"
    )
    device: str = Field("cpu", description="cpu or cuda")
    dtype: Literal["float32", "float64"] = Field("float32", description="of training")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="of each process: small networks gain nothing from more, and the numbers may depend on it",
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
