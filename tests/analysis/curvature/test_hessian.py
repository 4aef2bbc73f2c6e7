"""The Hessian report of a stage: what is refused, exact against estimated, seeds, real stages."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.matrices import Quadratic

from analysis.curvature.losses import NLL, FlowMatchingLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.spectrum import whole_matrix
from analysis.curvature.stage import (
    Settings,
    arrays_of,
    check,
    hessian_of_stage,
    seconds_for,
    spectrum_of,
    summary,
)
from analysis.curvature.subsets import DRAWS, mean_losses, rows_for, subsets_of
from analysis.runs.results import Result
from analysis.runs.study import Study
from sparseflows.errors import InputError, RunError
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.specs import FlowSpec

SMALL = Settings(subset=20, subsets=2, tol=1e-4, threads=1)


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
        {"subset": 5}, {"seed": 1}, {"loss": "flow_matching"}, {"subsets": 2}, {"steps": 31}, {"probes": 17},
        {"top": 1},
        {"exact": True}, {"protocol": "paper"}, {"check": "pyhessian"}, {"tol": 1e-5}, {"dtype": "float32"},
    ]  # fmt: skip
    names = {"protocol": "paper", "check": "pyhessian"}  # in what is kept of earlier results
    assert {names.get(key, key) for change in changed for key in change} == set(document)
    assert all(replace(Settings(), **change).document() != document for change in changed)


# --- whole against estimated, on a Hessian that is known


def known() -> tuple[HessianOperator, np.ndarray, dict[str, slice]]:
    """A spectrum as Hessians have it, on 200 params in two layers."""
    flow = Flow([LinearField(torch.ones(10, 10).double()), LinearField(torch.ones(10, 10).double())])
    eigenvalues = np.concatenate([[70.0, 30.0, 8.0, -5.0, -1.0], np.geomspace(1e-3, 2, 150), np.zeros(45)])
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))
    matrix = (axes * eigenvalues) @ axes.T
    survivors = Survivors(flow, {})
    operator = HessianOperator(flow, Quadratic(torch.tensor((matrix + matrix.T) / 2)), survivors)
    return operator, matrix, survivors.slices()


def values_of(settings: Settings, whole: bool, times: int = 1) -> dict:
    """As a stage has them, over so many subsets that are all alike but for the probes."""
    operator, _, layers = known()
    rng = np.random.default_rng(settings.seed)
    found = [spectrum_of(operator, settings, whole, layers, rng, first=not number) for number in range(times)]
    blank = {"loss_value": 1.0, "gradient_norm": 0.0}
    values = summary([(spectrum, own | blank) for spectrum, own in found], settings)
    json.dumps(values, allow_nan=False)
    return values


def test_whole_spectrum_and_estimates_agree():
    _, matrix, layers = known()
    exact = values_of(Settings(exact=True, protocol="paper"), True)
    guess = values_of(Settings(steps=20), False)
    trace = float(np.trace(matrix))
    for values in (exact, guess):
        assert values["lambda_max"] == pytest.approx(70, abs=1e-6 * 70)
        assert values["lambda_min"] == pytest.approx(-5, abs=1e-6 * 70)
        assert values["converged"]
        assert sum(layer["trace"] for layer in values["layers"].values()) == pytest.approx(values["trace"], rel=1e-12)
        assert list(values["layers"]) == ["blocks.0.field.matrix", "blocks.1.field.matrix"]
        assert values["effective_rank"] == pytest.approx(values["trace"] / 70, rel=1e-6)
        assert values["outliers"] == 3  # 70, 30, 8
        assert values["negative_ratio"] == pytest.approx(-5 / 70, rel=1e-6)
        assert values["negative_share"] == 2 / 200  # -5 and -1, below -0.7
        assert (values["subsets"], values["subset_spread"]) == (1, {})
    assert (exact["trace"], exact["trace_se"]) == (pytest.approx(trace, rel=1e-12), 0.0)
    assert 0 < guess["trace_se"] < 0.05 * trace
    assert abs(guess["trace"] - trace) < 4 * guess["trace_se"]
    assert exact["frobenius"] == pytest.approx(np.linalg.norm(matrix), rel=1e-12)
    assert guess["frobenius"] == pytest.approx(np.linalg.norm(matrix), rel=0.01)
    diagonal = np.diagonal(matrix)
    for name, part in layers.items():
        assert exact["layers"][name]["trace"] == pytest.approx(diagonal[part].sum(), rel=1e-12)
        found = guess["layers"][name]
        assert abs(found["trace"] - diagonal[part].sum()) < 4 * found["trace_se"]
    # 70 over the smallest |λ| above 7e-5; zeros are below it.
    assert exact["kappa"] == pytest.approx(70 / 1e-3, rel=1e-6)
    assert exact["below_eps"] == 45
    assert not {"kappa", "below_eps", "paper"} & set(guess)  # asked for only
    assert (exact["whole_spectrum"], guess["whole_spectrum"]) == (True, False)
    assert exact["paper"]["lambda_max"] == pytest.approx(70, rel=1e-6)
    assert set(exact["paper"]) == {"lambda_max", "trace", "kappa"}


def test_the_published_estimator_by_products_as_on_the_matrix():
    by_matrix, by_products = (
        values_of(Settings(protocol="paper", steps=20), whole)["paper"] for whole in (True, False)
    )
    assert by_matrix["lambda_max"] == pytest.approx(by_products["lambda_max"], rel=1e-9)
    assert by_matrix["trace"] == pytest.approx(by_products["trace"], rel=1e-6)


def test_the_mean_and_the_spread_over_the_subsets():
    values = values_of(Settings(steps=8), False, times=3)
    each = values["subset_values"]
    assert values["subsets"] == len(each["trace"]) == 3
    assert values["trace"] == pytest.approx(np.mean(each["trace"]))
    assert values["subset_spread"]["trace"] == pytest.approx(np.std(each["trace"], ddof=1))
    assert values["trace_se"] == pytest.approx(np.sqrt(np.sum(np.square(each["trace_se"]))) / 3)
    assert set(values["subset_spread"]) <= set(each)


def test_what_is_not_resolved_is_left_out_of_the_mean():
    values = values_of(Settings(steps=2), False, times=2)  # the eigenvalue at 80 % of the trace is none yet
    assert values["subset_values"]["kappa_80"] == [None, None]
    assert values["kappa_80"] is None
    assert "kappa_80" not in values["subset_spread"]
    assert not values["converged"]


def test_leading_eigenvalues_and_vectors():
    operator, matrix, layers = known()
    settings = Settings(steps=20, top=3)
    spectrum, own = spectrum_of(operator, settings, False, layers, np.random.default_rng(0))
    values = summary([(spectrum, own | {"loss_value": 1.0, "gradient_norm": 0.0})], settings)
    assert values["top"] == pytest.approx([70, 30, 8], rel=1e-6)
    vectors = arrays_of([spectrum])["eigenvectors"]
    assert vectors.shape == (200, 3)
    np.testing.assert_allclose(matrix @ vectors, vectors * values["top"], atol=1e-3)


def test_arrays():
    operator, matrix, layers = known()
    whole, _ = spectrum_of(operator, Settings(), True, layers, np.random.default_rng(0))
    guess, _ = spectrum_of(operator, Settings(steps=10), False, layers, np.random.default_rng(0))
    np.testing.assert_allclose(arrays_of([whole])["eigenvalues"], np.linalg.eigvalsh(matrix), rtol=0, atol=1e-10)
    arrays = arrays_of([guess, guess])
    assert arrays["eigenvalues"].size == 0
    assert arrays["ritz_1"].shape == arrays["weights_1"].shape == (40,)
    assert np.trapezoid(arrays["density"], arrays["grid"]) == pytest.approx(1, abs=1e-3)


def test_seeds_of_the_probes():
    one, again, other = (values_of(Settings(seed=seed, steps=10), False) for seed in (1, 1, 2))
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


def test_every_stage_of_a_run(tiny_run, tmp_path):
    study = Study.open(tiny_run)
    for subject in study.subjects():
        told, report = reports()
        values = hessian_of_stage(study, subject, SMALL, report, tmp_path / "products").values
        json.dumps(values, allow_nan=False)
        products = 2 * subject.record.params
        assert told[0] == (0, products)
        assert values["hvps"] == products == told[-1][0] == told[-1][1]
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert values["lambda_max"] > values["lambda_min"]
        assert values["whole_spectrum"]
        assert (values["subset"], values["subsets"], values["subset_seed"], values["loss"]) == (20, 2, 0, "nll")
        assert (values["tol"], values["dtype"]) == (1e-4, "float64")
        assert values["seconds"] > 0
        assert values["peak_mib"] > 50
        flow = subject.flow().double()
        with torch.no_grad():  # the loss is the mean NLL of those rows, to the tolerance of the steps
            for rows, loss in zip(subsets_of(study, SMALL), values["subset_values"]["loss_value"], strict=True):
                assert loss == pytest.approx(-flow.log_prob(torch.as_tensor(rows)).mean().item(), abs=1e-3)
    assert not (tmp_path / "products").exists()


def test_a_stage_goes_on_where_it_was_stopped(tiny_run, tmp_path):
    study, journal = Study.open(tiny_run), tmp_path / "products"
    subject = study.subjects(["dense-s0/0"])[0]
    settings = replace(SMALL, dtype="float64")
    undisturbed = hessian_of_stage(study, subject, settings, reports()[1], journal).values

    def stop(done: int, of: int) -> None:
        if done > 0.7 * of:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hessian_of_stage(study, subject, settings, stop, journal)
    told, report = reports()
    resumed = hessian_of_stage(study, subject, settings, report, journal).values
    assert told[0][0] > 0.5 * told[0][1]  # it begins with what is known
    for values in (undisturbed, resumed):
        del values["seconds"], values["peak_mib"]
    assert resumed == undisturbed


def test_how_long_it_will_take(tiny_run):
    study = Study.open(tiny_run)
    subjects = study.subjects()
    seconds = seconds_for(study, subjects, SMALL)
    assert list(seconds) == [subject.name for subject in subjects]
    assert all(0 < one < 60 for one in seconds.values())


def test_subsets_are_seeded_and_nested(tiny_run):
    study = Study.open(tiny_run)
    small, large = (subsets_of(study, Settings(subset=n))[0] for n in (10, 30))
    assert small.shape == (10, 2)
    train = study.splits.train.tolist()
    places = [train.index(row) for row in large.tolist()]
    assert places == sorted(set(places))
    assert {tuple(row) for row in small.tolist()} <= {tuple(row) for row in large.tolist()}
    np.testing.assert_array_equal(small, subsets_of(study, Settings(subset=10))[0])
    assert not np.array_equal(small, subsets_of(study, Settings(subset=10, seed=1))[0])
    (everything,) = subsets_of(study, Settings())  # 60 rows, fewer than one subset's 512
    np.testing.assert_array_equal(everything, study.splits.train)
    several = subsets_of(study, Settings(subset=20, subsets=5))
    assert len(several) == 3  # there are no more rows
    np.testing.assert_array_equal(several[0], subsets_of(study, Settings(subset=20, subsets=1))[0])
    assert len({tuple(row) for rows in several for row in rows.tolist()}) == 60  # no row twice


def test_losses(tiny_run):
    study = Study.open(tiny_run)
    flow = study.subjects()[0].flow().double()

    def losses(**changes: object) -> list:
        return [make() for make in mean_losses(study, flow, replace(SMALL, **changes), 1e-4)]

    assert all(isinstance(loss, NLL) for loss in losses())
    matching, second = losses(loss="flow_matching")
    again, other = (losses(loss="flow_matching", seed=s)[0] for s in (0, 1))
    assert isinstance(matching, FlowMatchingLoss)
    assert matching.terms == DRAWS * 20
    assert torch.equal(matching.rows[:20], matching.rows[20:40])
    assert torch.equal(matching.noise, again.noise)
    assert not torch.equal(matching.noise, other.noise)
    assert not torch.equal(matching.noise, second.noise)
    assert not torch.equal(matching.noise[:20], matching.noise[20:40])
    assert 0 <= float(matching.times.min()) < float(matching.times.max()) <= 1


def test_settings_of_a_stage(tiny_run, tmp_path):
    study = Study.open(tiny_run)
    subject = study.subjects(["structured-s0/1"])[0]
    _, report = reports()

    def values_with(**changes: object) -> dict:
        found: Result = hessian_of_stage(study, subject, replace(SMALL, **changes), report, tmp_path / "products")
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


def test_a_likelihood_that_cannot_be_solved(tiny_run, tmp_path):
    study = Study.open(tiny_run)
    subject = study.subjects()[0]
    broken = subject.flow()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    object.__setattr__(subject, "flow", lambda: broken)
    with pytest.raises(RunError, match="cannot be solved"):
        hessian_of_stage(study, subject, SMALL, reports()[1], tmp_path / "products")
