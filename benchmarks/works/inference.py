"""log-prob, sample: a trained flow's likelihoods and samples, against zuko's with the same weights."""

from __future__ import annotations

import torch

from benchmarks.context import Context
from benchmarks.measure import Goal, Measurement, in_turns
from benchmarks.zuko_peer import DIFFERENCES, ZukoCNF
from sparseflows.flow.solvers.ode import Solver

TOLERANCE = 1e-5
ROWS, SAMPLES = 10_000, 100_000


@torch.no_grad()
def log_prob(context: Context) -> list[Measurement]:
    """10,000 rows."""
    flow, peer = context.trained_flow, _peer(context)
    rows, solver = context.rows[:ROWS], Solver().at(TOLERANCE)
    evaluations = flow.transform(rows, solver=solver).nfe
    off = (flow.log_prob(rows, solver=solver) - peer.log_prob(rows)).abs()
    theirs = peer.evaluations
    ours, took = in_turns(
        [lambda: flow.log_prob(rows, solver=solver), lambda: peer.log_prob(rows)],
        context.settings.repeats,
        context.tell,
        warm=True,
    )
    note = (
        f"NFE {evaluations} against {theirs}; the two differ by {float(off.median()):.1g} nats (median row), "
        f"{float(off.max()):.1g} (worst)"
    )
    extra = {"nfe_ours": evaluations, "nfe_peer": theirs, "rows": ROWS}
    return [Measurement("log-prob", f"{ROWS:,} rows, tol {TOLERANCE:g}", ours, took, note, extra=extra)]


@torch.no_grad()
def sample(context: Context) -> list[Measurement]:
    """100,000 samples."""
    flow, peer = context.trained_flow, _peer(context)
    solver, generator = Solver().at(TOLERANCE), torch.Generator().manual_seed(0)
    noise = torch.randn(SAMPLES, 2, generator=generator)
    evaluations = flow.transform(noise, reverse=True, solver=solver, divergence=None).nfe
    with torch.random.fork_rng(devices=[]):  # zuko draws from PyTorch's global generator
        torch.manual_seed(0)
        peer.sample(SAMPLES)
        theirs = peer.evaluations
        ours, took = in_turns(
            [lambda: flow.sample(SAMPLES, generator=generator, solver=solver), lambda: peer.sample(SAMPLES)],
            context.settings.repeats,
            context.tell,
            warm=True,
        )
    note = f"NFE {evaluations} against {theirs}"
    extra = {"nfe_ours": evaluations, "nfe_peer": theirs, "samples": SAMPLES}
    case = f"{SAMPLES:,} samples, tol {TOLERANCE:g}"
    return [Measurement("sample", case, ours, took, note, goal=Goal("at least", 5), extra=extra)]


def _peer(context: Context) -> ZukoCNF:
    context.remark(DIFFERENCES)
    peer = ZukoCNF(context.trained_flow, TOLERANCE)
    peer.cnf.eval()
    return peer
