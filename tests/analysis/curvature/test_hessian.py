"""The Hessian report of a stage: what is refused, exact against estimated, seeds, real stages."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.curvature.losses import NLL, FlowMatchingLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.stage import (
    DRAWS,
    Settings,
    check,
    curvature,
    hessian_of_stage,
    mean_loss,
    rows_for,
    subset_rows,
    whole_matrix,
)
from analysis.runs.results import Result
from analysis.runs.study import Study
from sparseflows.errors import InputError, RunError
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.specs import FlowSpec

SMALL = Settings(subset=20, tol=1e-4, threads=1)


# --- how many rows, and what is refused


@pytest.mark.parametrize(
    ("settings", "rows", "dim", "expected"),
    [
        (Settings(), 16_384, 2, 512),
        (Settings(), 400, 2, 400),
        (Settings(), 16_384, 6, 219),  # 512 · 3 / 7: as many tangents as in two dimensions
        (Settings(), 29_556, 43, 64),
        (Settings(), 10_000, 200, 64),
        (Settings(), 50, 200, 50),
        (Settings(loss="flow_matching"), 29_556, 43, 512),
        (Settings(subset=7), 900, 43, 7),
        (Settings(subset=900), 900, 2, 900),
    ],
)
def test_rows(settings, rows, dim, expected):
    assert rows_for(settings, rows, dim) == expected


def study_of(flow: dict | None = None, rows: int = 60) -> SimpleNamespace:
    spec = SimpleNamespace(flow=FlowSpec(**({"hidden": [4], "time": "concat"} | (flow or {}))))
    splits = SimpleNamespace(train=np.zeros((rows, 2)))
    return SimpleNamespace(folder=SimpleNamespace(spec=spec), splits=splits, path="runs/x")


def subject_of(params: int | None) -> SimpleNamespace:
    return SimpleNamespace(record=SimpleNamespace(params=params), name="dense-s0/0")


@pytest.mark.parametrize(
    ("settings", "flow", "params", "message"),
    [
        (Settings(subset=61), {}, 80, "--subset is 61, but there are 60 training rows"),
        (Settings(loss="flow_matching"), {"time": "none"}, 80, "--loss flow_matching needs flows of one block"),
        (Settings(loss="flow_matching"), {"blocks": 2}, 80, "--loss flow_matching needs flows of one block"),
        (Settings(loss="flow_matching"), {"train_end_time": True}, 80, "use --loss nll"),
        (Settings(exact=True), {}, 10_001, "dense-s0/0 has 10,001 params, too many for --exact"),
        (Settings(tol=0.0), {}, 80, "--tol is 0; a tolerance lies between 0 and 1"),
        (Settings(tol=-1e-5), {}, 80, "--tol is -1e-05"),
        (Settings(tol=float("nan")), {}, 80, "--tol is nan"),
    ],
)
def test_refused_at_once(settings, flow, params, message):
    with pytest.raises(InputError, match=message):
        check(study_of(flow), [subject_of(20), subject_of(params)], settings)


def test_not_refused():
    subjects = [subject_of(10_000), subject_of(None)]  # a failed stage has no params
    check(study_of(), subjects, Settings(subset=60, loss="flow_matching", exact=True, tol=1e-9))
    check(study_of({"blocks": 3, "time": "none"}), [subject_of(100_000)], Settings())


def test_a_missing_pyhessian_is_noticed_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    check(study_of(), [], Settings())
    with pytest.raises(InputError, match="pip install pyhessian"):
        check(study_of(), [], Settings(check="pyhessian"))


def test_results_depend_on_every_setting_but_memory_and_threads():
    document = Settings(memory=99, threads=7).document()
    assert document == Settings().document()
    assert json.loads(json.dumps(document)) == document
    changed = [
        {"subset": 5}, {"seed": 1}, {"loss": "flow_matching"}, {"products": 91}, {"exact": True}, {"protocol": "paper"},
        {"check": "pyhessian"}, {"tol": 1e-5}, {"dtype": "float32"},
    ]  # fmt: skip
    names = {"protocol": "paper", "check": "pyhessian"}  # in what is kept of earlier results
    assert {names.get(key, key) for change in changed for key in change} == set(document)
    assert all(replace(Settings(), **change).document() != document for change in changed)


# --- whole against estimated, on a Hessian that is known


@dataclass(frozen=True)
class Quadratic:
    """½ θᵀAθ, in one term."""

    matrix: torch.Tensor
    terms: int = 1

    def total(self, flow, chosen):
        theta = torch.cat([p.flatten() for p in flow.parameters()])
        return theta @ self.matrix @ theta / 2


def known() -> tuple[HessianOperator, np.ndarray, dict[str, slice]]:
    """A spectrum as Hessians have it, on 200 params in two layers."""
    flow = Flow([LinearField(torch.ones(10, 10).double()), LinearField(torch.ones(10, 10).double())])
    eigenvalues = np.concatenate([[70.0, 30.0, 8.0, -5.0, -1.0], np.geomspace(1e-3, 2, 150), np.zeros(45)])
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))
    matrix = (axes * eigenvalues) @ axes.T
    survivors = Survivors(flow, {})
    operator = HessianOperator(flow, Quadratic(torch.tensor((matrix + matrix.T) / 2)), survivors)
    return operator, matrix, survivors.slices()


def test_whole_spectrum_and_estimates_agree():
    operator, matrix, layers = known()
    whole = curvature(operator, Settings(protocol="paper"), True, layers)
    assert operator.products == 200
    estimated = curvature(operator, Settings(products=60), False, layers)
    exact, guess = whole.values, estimated.values
    trace = float(np.trace(matrix))
    for values in (exact, guess):  # residuals are below 1e-6 · ‖A‖, and eigenvalues are closer still
        assert values["lambda_max"] == pytest.approx(70, abs=1e-6 * 70)
        assert values["lambda_min"] == pytest.approx(-5, abs=1e-6 * 70)
        assert values["converged"]
        assert sum(layer["trace"] for layer in values["layers"].values()) == pytest.approx(values["trace"], rel=1e-12)
        assert list(values["layers"]) == ["blocks.0.field.matrix", "blocks.1.field.matrix"]
        json.dumps(values, allow_nan=False)
    assert (exact["trace"], exact["trace_se"]) == (pytest.approx(trace, rel=1e-12), 0.0)
    assert exact["trace_99"] == [exact["trace"]] * 2
    assert 0 < guess["trace_se"] < 0.05 * trace
    assert abs(guess["trace"] - trace) < 4 * guess["trace_se"]
    assert guess["trace_99"][0] < guess["trace"] < guess["trace_99"][1]
    assert guess["trace_products"] <= 60
    diagonal = np.diagonal(matrix)
    for name, part in layers.items():
        assert exact["layers"][name]["trace"] == pytest.approx(diagonal[part].sum(), rel=1e-12)
        found = guess["layers"][name]
        assert abs(found["trace"] - diagonal[part].sum()) < 4 * found["trace_se"]
    # 70 over the smallest |λ| above 7e-5; zeros are below it.
    assert exact["kappa"] == pytest.approx(70 / 1e-3, rel=1e-6)
    assert exact["below_eps"] == 45
    assert (guess["kappa"], guess["below_eps"]) == (None, None)
    # Equal starts, so equal Lanczos runs, on the matrix or through the products.
    assert guess["kappa_lanczos"] == pytest.approx(exact["kappa_lanczos"], rel=0.01)
    assert exact["negative_share"] == 2 / 200
    assert guess["negative_share"] == pytest.approx(2 / 200, abs=4 * guess["negative_share_se"] + 0.002)
    assert (exact["whole_spectrum"], guess["whole_spectrum"]) == (True, False)
    assert "paper" not in guess
    assert exact["paper"]["lambda_max"] == pytest.approx(70, rel=1e-6)
    assert set(exact["paper"]) == {"lambda_max", "trace", "kappa"}
    assert estimated.arrays["eigenvalues"].size == 0
    np.testing.assert_allclose(whole.arrays["eigenvalues"], np.linalg.eigvalsh(matrix), rtol=0, atol=1e-10)
    for result in (whole, estimated):
        grid, density = result.arrays["grid"], result.arrays["density"]
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)


def test_seeds_of_the_probes():
    def trace(seed: int) -> dict:
        operator, _, layers = known()
        return curvature(operator, Settings(seed=seed, products=30), False, layers).values

    one, again, other = trace(1), trace(1), trace(2)
    assert one == again
    assert one["trace"] != other["trace"]
    assert one["lambda_max"] == pytest.approx(other["lambda_max"], rel=1e-6)


def test_products_that_are_not_finite_are_refused():
    operator, _, _ = known()
    object.__setattr__(operator.loss, "matrix", operator.loss.matrix * torch.nan)
    operator.forget_graphs()
    with pytest.raises(RunError, match="not finite"):
        whole_matrix(operator)


# --- stages of a run


def reports() -> tuple[list[tuple[int, int]], object]:
    told: list[tuple[int, int]] = []
    return told, lambda done, of: told.append((done, of))


def test_every_stage_of_a_run(tiny_run):
    study = Study.open(tiny_run)
    for subject in study.subjects():
        told, report = reports()
        values = hessian_of_stage(study, subject, SMALL, report).values
        json.dumps(values, allow_nan=False)
        params = subject.record.params
        assert values["hvps"] == params == told[-1][0] == told[-1][1]
        assert values["lambda_max"] > values["lambda_min"]
        assert values["whole_spectrum"]
        assert (values["subset"], values["subset_seed"], values["loss"]) == (20, 0, "nll")
        assert (values["tol"], values["dtype"]) == (1e-4, "float64")
        assert values["seconds"] > 0
        assert values["peak_mib"] > 50
        flow = subject.flow().double()
        rows = torch.as_tensor(subset_rows(study, SMALL))
        with torch.no_grad():  # the loss is the mean NLL of those rows, to the tolerance of the steps
            assert values["loss_value"] == pytest.approx(-flow.log_prob(rows).mean().item(), abs=1e-3)


def test_subsets_are_seeded_and_nested(tiny_run):
    study = Study.open(tiny_run)
    small, large = (subset_rows(study, Settings(subset=n)) for n in (10, 30))
    assert small.shape == (10, 2)
    train = study.splits.train.tolist()
    places = [train.index(row) for row in large.tolist()]
    assert places == sorted(set(places))
    assert {tuple(row) for row in small.tolist()} <= {tuple(row) for row in large.tolist()}
    np.testing.assert_array_equal(small, subset_rows(study, Settings(subset=10)))
    assert not np.array_equal(small, subset_rows(study, Settings(subset=10, seed=1)))
    np.testing.assert_array_equal(subset_rows(study, Settings()), study.splits.train)


def test_losses(tiny_run):
    study = Study.open(tiny_run)
    flow = study.subjects()[0].flow().double()
    nll = mean_loss(study, flow, SMALL, 1e-4)
    assert isinstance(nll, NLL)
    matching = mean_loss(study, flow, replace(SMALL, loss="flow_matching"), 1e-4)
    again, other = (mean_loss(study, flow, replace(SMALL, loss="flow_matching", seed=s), 1e-4) for s in (0, 1))
    assert isinstance(matching, FlowMatchingLoss)
    assert matching.terms == DRAWS * 20
    assert torch.equal(matching.rows[:20], matching.rows[20:40])
    assert torch.equal(matching.noise, again.noise)
    assert not torch.equal(matching.noise, other.noise)
    assert not torch.equal(matching.noise[:20], matching.noise[20:40])
    assert 0 <= float(matching.times.min()) < float(matching.times.max()) <= 1


def test_settings_of_a_stage(tiny_run):
    study = Study.open(tiny_run)
    subject = study.subjects(["structured-s0/1"])[0]
    _, report = reports()

    def values_with(**changes: object) -> dict:
        found: Result = hessian_of_stage(study, subject, replace(SMALL, **changes), report)
        return found.values

    double = values_with()
    single = values_with(dtype="float32", tol=None)  # the default of small flows in float64 is out of its reach
    assert (single["tol"], single["dtype"]) == (1e-4, "float32")
    assert single["lambda_max"] == pytest.approx(double["lambda_max"], rel=1e-3)
    matching = values_with(loss="flow_matching")
    assert (matching["loss"], matching["tol"], matching["nfe"]) == ("flow_matching", None, 1)
    assert matching["lambda_max"] > 0
    other = values_with(seed=1)
    assert other["lambda_max"] != double["lambda_max"]


def test_a_likelihood_that_cannot_be_solved(tiny_run):
    study = Study.open(tiny_run)
    subject = study.subjects()[0]
    broken = subject.flow()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    object.__setattr__(subject, "flow", lambda: broken)
    with pytest.raises(RunError, match="cannot be solved"):
        hessian_of_stage(study, subject, SMALL, reports()[1])
