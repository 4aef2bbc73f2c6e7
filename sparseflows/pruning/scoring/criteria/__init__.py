"""The criteria: a file each or a family, found by the entries of `specs.methods`, and `score`, which asks them."""

from sparseflows.pruning.scoring.criteria.by_name import score
from sparseflows.pruning.scoring.criteria.formulas import (
    fisher_neurons,
    fisher_weights,
    magnitude,
    neuron_l1,
    neuron_l2,
    snip,
    taylor,
)
from sparseflows.pruning.scoring.criteria.pfp import pfp
from sparseflows.pruning.scoring.criteria.sipp import sipp

__all__ = [
    "fisher_neurons",
    "fisher_weights",
    "magnitude",
    "neuron_l1",
    "neuron_l2",
    "pfp",
    "score",
    "sipp",
    "snip",
    "taylor",
]
