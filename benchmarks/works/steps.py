"""step-zuko, step-matmul: one training step by likelihood, against zuko's and against its own matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from benchmarks.context import Context
from benchmarks.measure import OURS_OVER_PEER, Goal, Measurement, seconds
from benchmarks.stepping import blocks_of_steps, step_changes
from benchmarks.zuko_peer import DIFFERENCES, ZukoCNF
from sparseflows.training.optim import build_optimiser

CASES = ((256, 1e-3), (256, 1e-5), (1024, 1e-3), (1024, 1e-5))  # batch, tolerance
EVALUATIONS_TIMED = 20  # of the matrix products alone: a few milliseconds, as a step takes

Shape = tuple[int, int, int]  # (m, k, n): an (m, k) matrix by a (k, n) one


def step_zuko(context: Context) -> list[Measurement]:
    """Loss, backward pass and optimiser, from the same trained weights."""
    return [_against_zuko(context, number, *case) for number, case in enumerate(CASES)]


def _against_zuko(context: Context, number: int, batch: int, tolerance: float) -> Measurement:
    repeats = context.settings.repeats
    spec = context.nll_spec(*step_changes(tolerance, batch, repeats))
    peer = ZukoCNF(context.trained_flow, tolerance)
    peer.cnf.train()
    optimiser = build_optimiser(spec.train, peer.cnf.parameters())
    batches = context.rows.split(batch)
    taken: list[float] = []

    def step() -> None:
        optimiser.zero_grad()
        loss = -peer.log_prob(batches[len(taken)]).mean()
        loss.backward()
        optimiser.step()

    def its_turn() -> None:
        taken.append(seconds(step))
        context.tell((number + len(taken) / (repeats + 1)) / len(CASES))

    ours = blocks_of_steps(spec, context.trained_flow, context.rows, its_turn)
    evaluations = peer.evaluations / len(taken)
    context.remark(DIFFERENCES)
    return Measurement(
        "step-zuko",
        f"batch {batch}, tol {tolerance:g}",
        ours.seconds,
        taken[1:],
        f"NFE {ours.nfe:.0f} ({spec.solve.method}) against {evaluations:.0f}, zuko's backward pass included",
        goal=Goal("at least", 4),
        extra={"nfe_ours": ours.nfe, "evaluations_peer": evaluations},
    )


def step_matmul(context: Context) -> list[Measurement]:
    """A step against its matrix products alone: what no implementation of the same evaluations can be faster than."""
    return [_against_products(context, number, *case) for number, case in enumerate(CASES)]


def _against_products(context: Context, number: int, batch: int, tolerance: float) -> Measurement:
    spec = context.nll_spec(*step_changes(tolerance, batch, context.settings.repeats))
    evaluation = Products(products(batch, context.rows.shape[1], spec.flow.hidden))
    taken: list[float] = []

    def its_turn() -> None:
        taken.append(seconds(lambda: evaluation.run(EVALUATIONS_TIMED)) / EVALUATIONS_TIMED)

    ours = blocks_of_steps(spec, context.trained_flow, context.rows, its_turn)
    context.tell((number + 1) / len(CASES))
    return Measurement(
        "step-matmul",
        f"batch {batch}, tol {tolerance:g}",
        ours.seconds,
        [one * ours.least for one in taken[1:]],
        f"{ours.least:.0f} evaluations a step ({spec.solve.method}), {evaluation.flops / 1e6:.0f} MFLOP each, "
        "forward and backward",
        ratio=OURS_OVER_PEER,
        goal=Goal("at most", 1.6),
        extra={"nfe": ours.nfe, "nfe_least": ours.least, "flops_an_evaluation": evaluation.flops},
    )


def products(batch: int, dim: int, hidden: Sequence[int]) -> list[Shape]:
    """Matrix products of one evaluation of value and exact divergence, forward and backward.

    Forward, D tangents go through the hidden-to-hidden matrices together with the value. The first layer's tangents are
    columns of its matrix, and the last layer's trace is a weighted sum, so there only the value is multiplied.
    Backward, every product has two: one for what went into it, one for the matrix.
    """
    widths = [dim, *hidden, dim]
    last = len(widths) - 2
    forward = [
        (batch * (1 if number in (0, last) else 1 + dim), n_in, n_out)
        for number, (n_in, n_out) in enumerate(pairwise(widths))
    ]
    backward = [shape for m, k, n in reversed(forward) for shape in ((m, n, k), (k, m, n))]
    return forward + backward


class Products:
    """Products of given shapes into buffers made beforehand."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        generator = torch.Generator().manual_seed(0)
        self._operands = [
            (
                torch.randn(m, k, generator=generator),
                torch.randn(k, n, generator=generator),
                torch.empty(m, n),
            )
            for m, k, n in shapes
        ]
        self.flops = sum(2 * m * k * n for m, k, n in shapes)

    def run(self, times: int = 1) -> None:
        """All of them, so many times."""
        for _ in range(times):
            for left, right, out in self._operands:
                torch.mm(left, right, out=out)
