from __future__ import annotations

import io
import math
import struct

import numpy as np
import pytest

from analysis.plots.curves import hessian_vs_pr_arrays, nll_vs_pr_arrays, vs_pr_figure
from analysis.runs.records import read_run


def test_nll_arrays_are_the_networks_and_their_means(make_run, rows_of):
    arrays = nll_vs_pr_arrays(read_run(make_run(rows_of())))
    assert arrays["nll"].size == 15
    assert arrays["mean_method"].tolist() == ["dense", "unstructured", "unstructured", "structured", "structured"]
    np.testing.assert_allclose(arrays["mean_nll"], [0.61, 0.59, 0.71, 0.66, 0.91])
    np.testing.assert_allclose(arrays["mean_nll_se"], 0.01 / math.sqrt(3))
    np.testing.assert_allclose(arrays["mean_kl_gap"], arrays["mean_nll"] - 0.5)
    np.testing.assert_allclose(arrays["mean_prune_ratio"], [0, 0.5, 0.75, 0.52, 0.76])
    assert arrays["seeds"] == 3


def test_one_seed_has_the_error_of_the_test_set(make_run, rows_of):
    arrays = nll_vs_pr_arrays(read_run(make_run(rows_of([0]))))
    assert set(arrays["mean_nll_se"].tolist()) == {0.02}


def hessian_of(seeds=(0, 1), **changes):
    return {
        (method, seed, stage): {
            "status": "done", "prune_ratio": ratio, "lambda_max": 10.0 + seed, "trace": 40.0 - 10 * stage,
            "trace_se": 0.5, "kappa_80": 7.0 + stage, "effective_rank": 3.5, "subset_spread": {"kappa_80": 0.4},
        } | changes
        for seed in seeds
        for method, stage, ratio in (("dense", 0, 0.0), ("structured", 1, 0.5), ("structured", 2, 0.98))
    }  # fmt: skip


def test_hessian_arrays(make_run, rows_of):
    run = read_run(make_run(rows_of()))
    stages = hessian_of()
    stages["structured", 1, 2] = {"status": "failed", "reason": "no"}
    arrays = hessian_vs_pr_arrays(run, stages)
    np.testing.assert_allclose(arrays["mean_lambda_max"], [10.5, 10.5, 10.0])
    np.testing.assert_allclose(arrays["mean_lambda_max_se"], [0.5, 0.5, np.nan])  # |10 - 11| / 2; one seed has none
    assert arrays["trace"].size == 5


def test_files(make_run, rows_of):
    run = read_run(make_run(rows_of()))
    for arrays, figure, size in (
        (nll_vs_pr_arrays(run), vs_pr_figure, (1800, 860)),
        (hessian_vs_pr_arrays(run, hessian_of()), vs_pr_figure, (1800, 1320)),
    ):
        files = figure(arrays)
        assert struct.unpack(">II", files["png"][16:24]) == size
        assert files["pdf"].startswith(b"%PDF")
        with np.load(io.BytesIO(files["npz"])) as saved:
            np.testing.assert_array_equal(saved["prune_ratio"], arrays["prune_ratio"])


def test_what_the_curves_show(make_run, rows_of, drawn):
    run = read_run(make_run(rows_of()))
    vs_pr_figure(nll_vs_pr_arrays(run))
    vs_pr_figure(hessian_vs_pr_arrays(run, hessian_of()))
    likelihood, curvature = drawn
    assert [axes.get_ylabel() for axes in likelihood.axes] == ["test NLL (nats)", "KL gap (nats)"]
    assert [axes.get_yscale() for axes in curvature.axes] == ["linear"] * 4
    for axes in (*likelihood.axes, *curvature.axes):
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 1 > right  # pruned more is further right
        assert axes.get_xticklabels()[0].get_text() == "0 %"
        assert axes.get_xlabel().startswith("prune ratio")
    assert [text.get_text() for text in likelihood.legends[0].get_texts()] == ["unstructured", "structured", "dense"]
    nll = likelihood.axes[0]
    lines = [line for line in nll.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"]
    np.testing.assert_allclose(lines[0].get_xdata(), [0.5, 0.25])
    np.testing.assert_allclose(lines[0].get_ydata(), [0.59, 0.71])
    # A band a method; a dot a pruned network; the dense flow's star stands at 0 %.
    dots = [one for one in nll.collections if len(one.get_offsets()) == 12]
    bands = [one for one in nll.collections if len(one.get_offsets()) != 12]
    assert (len(dots), len(bands)) == (1, 2)
    assert [line.get_xdata()[0] for line in nll.lines if line.get_marker() == "*"] == [1.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["no kl", "one seed", "dense only", "odd names", "no kappa"])
def test_draws_without_a_warning(make_run, rows_of, kind):
    rows = rows_of([0] if kind in ("one seed", "dense only") else [0, 1])
    if kind == "no kl":
        rows = [row | {"kl_gap": ""} for row in rows]
    elif kind == "dense only":
        rows = rows[:1]
    elif kind == "odd names":
        rows = [row | {"method": row["method"].replace("unstructured", "_$x^"), "dataset": "$"} for row in rows]
    run = read_run(make_run(rows))
    assert vs_pr_figure(nll_vs_pr_arrays(run))["png"]
    if kind in ("one seed", "no kappa"):
        stages = hessian_of([0], **({"kappa_80": None} if kind == "no kappa" else {}))
        assert vs_pr_figure(hessian_vs_pr_arrays(run, stages))["png"]


def test_nothing_to_draw(make_run, rows_of):
    run = read_run(make_run([row | {"nll_test": "", "kl_gap": ""} for row in rows_of([0])]))
    with pytest.raises(ValueError, match="nothing to draw"):
        vs_pr_figure(nll_vs_pr_arrays(run))
