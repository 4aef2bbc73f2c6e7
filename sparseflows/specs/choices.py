"""Every list of names that a setting chooses from, once: what each name means, and what else is known of it.

Settings, help texts, the documentation and the analyses read these tables; a table of implementations elsewhere (name →
function) has the same names, which a test holds it to. The methods of pruning have a table of their own: `methods`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

Dtype = Literal["float32", "float64"]
Coordinates = Literal["standardised", "data"]
DivergenceKind = Literal["exact", "hutchinson"]

ACTIVATIONS = dict.fromkeys(("sigmoid", "tanh", "softplus", "relu", "silu"), "")
TIMES = {"none": "", "concat": "t joins the first layer's input", "concat_squash": "gates on every layer"}
BASES = {
    "none": "",
    "gaussian": "the field starts as (2t − 1)/((1 − t)² + t²)·z, the straight-path velocity between two standard "
    "Gaussians, and the network learns the rest",
}
NETWORKS = {"dense": "a multilayer perceptron", "conv": "a small convolutional network for square images"}
NOISES = {"rademacher": "±1", "gaussian": "standard normal"}
GRADIENTS = {"backprop": "through the solver's steps", "adjoint": "constant memory, no second derivative"}
OBJECTIVES = {
    "nll": "",
    "flow_matching": "",
    "cross_entropy": "a classifier; of `network`, or of the final state of the flow's ODE",
}
OPTIMISERS = {"adamw": "decoupled weight decay", "adam": "weight decay in the gradient", "sgd": "momentum 0.9"}
SCHEDULES = dict.fromkeys(("constant", "one_cycle", "cosine", "warm_cosine", "multi_step"), "")
SELECTIONS = {"last": "the last step's weights", "best_val": "those of the lowest validation NLL"}
ALLOCATIONS = {"uniform": "the same share of every layer", "global": "one ranking over all layers"}


@dataclass(frozen=True)
class SolverMethod:
    """A Runge–Kutta method: its order, whether it adapts its steps to the error, and whether these can be held."""

    order: int
    adaptive: bool = False
    held: bool = False


SOLVERS = {
    "dopri5": SolverMethod(5, adaptive=True, held=True),
    "bosh3": SolverMethod(3, adaptive=True, held=True),
    "dopri8": SolverMethod(8, adaptive=True),
    "adaptive_heun": SolverMethod(2, adaptive=True),
    "fehlberg2": SolverMethod(2, adaptive=True),
    "euler": SolverMethod(1),
    "midpoint": SolverMethod(2),
    "rk4": SolverMethod(4),
}
ADAPTIVE = tuple(name for name, method in SOLVERS.items() if method.adaptive)
FIXED = tuple(name for name, method in SOLVERS.items() if not method.adaptive)
HELD = tuple(sorted(name for name, method in SOLVERS.items() if method.held))

PROTOCOLS = {
    "cascade": "prune a bit more, retrain, again",
    "one_shot": "the dense flow pruned at each ratio, not retrained",
    "gradual": "a neuron (or a few weights) goes every few steps of the retraining",
    "scratch": "the pruned architecture trained from fresh weights for as long in all",
    "rewind": "from its original initial weights",
    "reduced": "a narrower dense flow of its size",
    "control": "the dense flow trained on for as long as the pruned one was retrained",
}
CASCADE, ONE_SHOT, GRADUAL, SCRATCH, REWIND, REDUCED, CONTROL = PROTOCOLS
OF_DENSE = (REDUCED, CONTROL)  # protocols that prune nothing: one sequence a seed, not one a method


class OneOf:
    """Marks a text setting that is one of a table's names, as they are when it is read; refused as by a `Literal`."""

    def __init__(self, table: Mapping[str, object]) -> None:
        self.table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema that pydantic asks for."""
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> Any:
        if isinstance(value, str) and value in self.table:
            return value
        *names, last = [repr(name) for name in self.table]
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(names)} or {last}"})


def meanings(table: Mapping[str, str]) -> str:
    """The names of a table, each with what it means, as one line for a help text."""
    return "; ".join(f"{name}: {meaning}" if meaning else name for name, meaning in table.items())
