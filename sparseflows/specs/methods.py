"""The methods of pruning by name: what goes, what it looks at, and where the rule stands that scores it.

A new criterion is one entry here and the file that `rule` names. The settings, their help, the documentation,
`sparseflows.score` and `sparseflows.prune`, the comparison of criteria and its colours follow from the entry.
"""

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["weights", "neurons"]
Needs = Literal["nothing", "rows", "loss"]
Choice = Literal["top", "sampled", "mixed"]


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        kind: single weights are masked, or whole neurons (channels of a convolution) are removed.
        needs: what its criterion looks at: nothing but the weights; rows of data; or the gradient of a loss over them.
        rule: `module:function`, imported when it is first asked for; the function has the criterion's name. It gives
            one score a weight or neuron, higher stays, and its arguments say what it looks at (see
            `pruning.scoring.criteria.by_name`).
        source: where the criterion comes from.
        kin: the idea behind it; criteria of one idea share a colour in figures.
        choice: `top` keeps what scores highest. `sampled` keeps weights (sipp) or neurons (pfp) at random in proportion
            and reweights them; `mixed` is sipp's hybrid, or pfp's top-then-random.
    """

    kind: Kind
    needs: Needs
    rule: str
    source: str
    kin: str
    choice: Choice = "top"

    @property
    def criterion(self) -> str:
        """The criterion that scores for it."""
        return self.rule.partition(":")[2]

    @property
    def needs_data(self) -> bool:
        """Whether it looks at a sample."""
        return self.needs != "nothing"


_RULES = "sparseflows.pruning.scoring.criteria"
_BASELINE = "the baseline every claim needs"
_MAGNITUDE = Method("weights", "nothing", f"{_RULES}.formulas:magnitude", "weight thresholding", "size")
_SIPP = Method("weights", "rows", f"{_RULES}.sipp:sipp", "Baykal, Liebenwein et al. 2019", "shares")
_NEURON_L1 = Method("neurons", "nothing", f"{_RULES}.formulas:neuron_l1", "Li et al. 2017", "size")
_PFP = Method("neurons", "rows", f"{_RULES}.pfp:pfp", "Liebenwein, Baykal et al. 2020", "shares")

METHODS: dict[str, Method] = {
    "unstructured": _MAGNITUDE,
    "magnitude": _MAGNITUDE,
    "snip": Method("weights", "loss", f"{_RULES}.formulas:snip", "Lee et al. 2019", "gradient"),
    "sipp": _SIPP,
    "sipp_randomised": replace(_SIPP, choice="sampled"),
    "sipp_hybrid": replace(_SIPP, choice="mixed"),
    "fisher_weights": Method(
        "weights", "loss", f"{_RULES}.formulas:fisher_weights", "diagonal empirical Fisher", "fisher"
    ),
    "random_weights": Method("weights", "nothing", f"{_RULES}.formulas:random_weights", _BASELINE, "random"),
    "structured": _NEURON_L1,
    "neuron_l1": _NEURON_L1,
    "neuron_l2": Method("neurons", "nothing", f"{_RULES}.formulas:neuron_l2", "He et al. 2018", "euclidean"),
    "pfp": _PFP,
    "pfp_randomised": replace(_PFP, choice="sampled"),
    "pfp_top_random": replace(_PFP, choice="mixed"),
    "fisher_neurons": Method(
        "neurons", "loss", f"{_RULES}.formulas:fisher_neurons", "Theis et al. 2018; Crowley et al. 2018", "fisher"
    ),
    "taylor": Method("neurons", "loss", f"{_RULES}.formulas:taylor", "Molchanov et al. 2017", "gradient"),
    "random_neurons": Method("neurons", "nothing", f"{_RULES}.formulas:random_neurons", _BASELINE, "random"),
}
DRAWN = tuple(name for name, method in METHODS.items() if method.choice != "top")  # chosen all at once, at random
SYNONYMS = {
    method.criterion: name for name, method in METHODS.items() if method.criterion != name and method.choice == "top"
}
"""A criterion → its other name: `magnitude` → `unstructured`."""


def criteria(kind: Kind | None = None) -> dict[str, Method]:
    """The methods that have a rule of their own; of one kind, where it is given."""
    return {
        name: method for name, method in METHODS.items() if method.criterion == name and kind in (None, method.kind)
    }


def random_of(kind: Kind) -> str:
    """The baseline that prunes weights or neurons at random."""
    return next(name for name, method in criteria(kind).items() if method.kin == "random")


def methods_in_words() -> str:
    """All methods as one line for a help text."""

    def listed(kind: Kind) -> str:
        names = [name for name in METHODS if METHODS[name].kind == kind and name not in SYNONYMS.values()]
        return ", ".join(f"{name} ({SYNONYMS[name]} is the same)" if name in SYNONYMS else name for name in names)

    return f"single weights by {listed('weights')}; whole neurons by {listed('neurons')}"
