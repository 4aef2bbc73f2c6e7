"""What a comparison of criteria and protocols is made of: the quantity, stages, differences. Pure."""

from dataclasses import dataclass

from analysis.compare.controls import UNTESTABLE, alike
from analysis.compare.stats import LEVEL
from analysis.runs.records import DENSE, Stage
from analysis.tables.numbers import LEAST_PAIRS, Mean
from sparseflows.specs import choices
from sparseflows.specs.choices import CASCADE, CONTROL, REDUCED
from sparseflows.specs.methods import METHODS, random_of

RANDOM = "random"
PROTOCOLS = tuple(protocol for protocol in choices.PROTOCOLS if protocol not in choices.OF_DENSE)
AGAINST = (RANDOM, CONTROL, DENSE, REDUCED, CASCADE)  # the questions, in the order they are answered
KINDS: dict[str, str] = {name: method.kind for name, method in METHODS.items()}
RANDOM_OF: dict[str, str] = {method.kind: random_of(method.kind) for method in METHODS.values()}
BEATS, LOSES, NO_DIFFERENCE, TOO_FEW = "beats", "loses", "no difference shown", "too few pairs"


def random_for(method: str) -> str | None:
    """Random pruning of the same kind; None for a criterion of the user's own, whose kind is not known."""
    return RANDOM_OF.get(KINDS.get(method, ""))


@dataclass(frozen=True)
class Quantity:
    """What is compared: a column of results.csv times `scale`; `unit` is that of a difference."""

    column: str
    label: str
    unit: str
    scale: float = 1.0
    higher_is_better: bool = False

    def of(self, stage: Stage) -> float | None:
        """Its value at a stage that is done; None where there is none."""
        value = getattr(stage, self.column) if stage.done else None
        return None if value is None else self.scale * float(value)


# The KL gap is paired with the truth on the same test points; the NLL alone moves with the test draw.
QUANTITIES = (
    Quantity("kl_gap", "KL gap", "nats"),
    Quantity("nll_test", "test NLL", "nats"),
    Quantity("accuracy_test", "test accuracy", "points", 100.0, higher_is_better=True),
)


@dataclass(frozen=True)
class StageMean:
    """One stage of one protocol and method, averaged over the seeds that are done.

    `seeds` are those that have the quantity; `params`, `value`, `validation` and `steps` are None where no seed has
    them. `validation` is the NLL, or a classifier's loss, on validation rows (nats, lower is better).
    """

    protocol: str
    method: str
    stage: int
    seeds: tuple[int, ...]
    keep_ratio_target: float | None
    prune_ratio: Mean | None
    params: float | None
    value: Mean | None
    validation: float | None
    steps: float | None

    @property
    def is_pruned(self) -> bool:
        """Whether it is a pruned stage, and neither dense nor one of the dense references."""
        return self.method != DENSE and self.protocol not in (CONTROL, REDUCED)


@dataclass(frozen=True)
class Difference:
    """A stage against another of the same seeds. `difference` is above 0 where the stage is the better of the two.

    `value` and `other_value` are the means over the pairs. `p` is that of the paired t-test, `p_holm` after Holm's
    correction over all comparisons of the table that answer the same question (`against`); None below three pairs.
    `params_gap` is the largest difference of params of a pair, as a share of the dense network's; `steps` the mean
    training steps behind both, None where not known.
    """

    protocol: str
    method: str
    stage: int
    against: str
    other_protocol: str
    other_method: str
    seeds: tuple[int, ...]
    prune_ratio: float
    value: float
    other_value: float
    difference: Mean
    p: float | None
    params_gap: float
    steps: tuple[float, float] | None
    p_holm: float | None = None

    @property
    def pairs(self) -> int:
        """How many seeds both are done for."""
        return len(self.seeds)

    @property
    def verdict(self) -> str:
        """`beats` or `loses` where that stands after Holm's correction at 5 %, `no difference shown` where not.

        Below three pairs `too few pairs`; `not testable here` where the other did not train for as long, unless
        that is the question (a protocol against the cascade).
        """
        if self.pairs < LEAST_PAIRS or self.difference.se is None:
            return TOO_FEW
        if self.against != CASCADE and self.steps is not None and not alike(*self.steps):
            return UNTESTABLE
        if self.p_holm is None or self.p_holm > LEVEL:
            return NO_DIFFERENCE
        return BEATS if self.difference.value > 0 else LOSES

    @property
    def survives(self) -> bool:
        """Whether it is a verdict: one that stands after Holm's correction at 5 %."""
        return self.verdict in (BEATS, LOSES)


@dataclass(frozen=True)
class Comparison:
    """All of one run, data set and objective.

    `best` is the pruned stage with the lowest mean validation loss; `failed` the stages that enter no mean, each
    with its reason.
    """

    run: str
    name: str
    dataset: str
    objective: str
    quantity: Quantity
    seeds: tuple[int, ...]
    stages: tuple[StageMean, ...]
    differences: tuple[Difference, ...]
    best: StageMean | None
    failed: tuple[tuple[Stage, str], ...]
