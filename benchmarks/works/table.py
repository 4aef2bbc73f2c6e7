"""The works by name. Their modules, and PyTorch, are imported when one is run: help and lists answer at once."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.context import Context
    from benchmarks.measure import Measurement


@dataclass(frozen=True)
class Work:
    """Something to measure.

    Attributes:
        place: `module:function` in this folder; the function takes a `Context` and gives its measurements.
        summary: one line.
        quick, full: seconds it takes on one core, about; the bar goes by them.
        needs_zuko: a peer of it is zuko.
    """

    place: str
    summary: str
    quick: float
    full: float
    needs_zuko: bool = False

    def __call__(self, context: Context) -> list[Measurement]:
        """Measure."""
        module, function = self.place.split(":")
        found: list[Measurement] = getattr(importlib.import_module(f"benchmarks.works.{module}"), function)(context)
        return found


WORKS: dict[str, Work] = {
    "train-nll": Work("training:train_nll", "nll.yaml to an exact KL gap of 0.30, against plain FFJORD", 60, 1000),
    "train-fm": Work("training:train_fm", "flow matching to the same gap, against plain FFJORD", 40, 1000),
    "best-preset": Work("training:best_preset", "seconds and exact KL gap of best.yaml", 70, 350),
    "step-zuko": Work("steps:step_zuko", "one likelihood step against zuko's CNF, equal tolerance", 50, 60, True),
    "step-matmul": Work("steps:step_matmul", "one likelihood step against its own matrix products", 20, 30),
    "step-fm": Work("matching:step_fm", "one step by flow matching against autograd and torch.optim", 15, 15),
    "log-prob": Work("inference:log_prob", "log p of 10,000 rows against zuko's", 30, 20, True),
    "sample": Work("inference:sample", "100,000 samples against zuko's", 100, 30, True),
    "hessian": Work("hessian:run", "products, largest eigenvalue, trace, against PyHessian", 40, 200),
    "engine": Work("engine:run", "what the compiled engine is worth: steps, log p, Hessian products", 22, 22),
    "gpu": Work("gpu:run", "steps, log p, Hessian products on a GPU against the CPU; skipped without one", 120, 120),
    "cascade": Work("cascade:run", "a whole cascade's wall seconds, training and the rest", 25, 100),
    "scaling": Work("scaling:run", "a step by batch, width, dimension and prune ratio", 10, 150),
    "sweep": Work("sweep:sweep", "24 cascades by two processes against one", 120, 900),
    "scheduling": Work("sweep:scheduling", "what a task costs beside its work, 2,000 tiny cascades", 240, 1200),
    "memory": Work("memory:run", "peak memory of a step against the plain adjoint", 60, 300),
}
