"""What a full run of the published tabular recipes would take: seconds of their first steps, printed.

Rows are made up, of each set's width; weights are fresh, so that these are lower bounds: trained fields need more
evaluations a solve.
"""

import math
import time
from pathlib import Path

import pytest
import torch

from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.flow.build import build_flow
from sparseflows.rng import torch_generator
from sparseflows.specs.yaml import load_spec
from sparseflows.training.loop import train
from sparseflows.training.objectives import build_objective

PARAM = Path(__file__).parents[2] / "param" / "tabular"
ROWS = {"power": 10_000, "gas": 1_000, "hepmass": 1_000, "miniboone": 1_000, "bsds300": 100}  # in a timed batch


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ffjord", "fm"])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_seconds_a_step(name, kind, capsys):
    torch.set_num_threads(1)
    spec = load_spec(PARAM / name / f"{kind}.yaml")
    known = BENCHMARKS[name]
    batch = min(ROWS[name], spec.train.batch) if kind == "ffjord" else spec.train.batch
    steps = 2 if kind == "ffjord" else 10
    short = {"batch": batch, "steps": steps, "epochs": None, "milestones": [], "schedule": "constant", "select": "last"}
    settings = spec.train.model_copy(update=short)
    flow = build_flow(spec, known.columns)
    rows = torch.randn(batch, known.columns, generator=torch_generator(0, "rows"))
    objective = build_objective(spec, spec.train)
    train(flow, objective, rows, settings.model_copy(update={"steps": 1}), seed=0, purpose="warm")
    started = time.perf_counter()
    outcome = train(flow, objective, rows, settings, seed=0, purpose="timed")
    seconds = (time.perf_counter() - started) / steps * spec.train.batch / batch
    assert math.isfinite(outcome.history[-1]["loss"])
    dense, _ = spec.train.steps_for(known.rows[0])
    again, _ = spec.retrain_spec().steps_for(known.rows[0])
    stages = len(spec.prune.methods) * len(spec.prune.keep_ratios)
    with capsys.disabled():
        print(
            f"\n{name:>9} {kind:>6}: {seconds:8.3g} s a step of {spec.train.batch:,} (timed with {batch:,}), "
            f"NFE {outcome.history[-1]['nfe']:.0f}; dense {dense:,} steps = {seconds * dense / 3600:.3g} h, "
            f"whole cascade {stages} × {again:,} steps = {seconds * again * stages / 3600:.3g} h"
        )
