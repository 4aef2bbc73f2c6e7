from __future__ import annotations

from importlib.resources import files

import pytest

from analysis.reference import load_reference


def test_the_published_rows_are_the_published_ones():
    # Read off the poster by hand: the unpruned row, the flattest, the last.
    hessian = load_reference().hessian
    assert (hessian.dataset, hessian.method, len(hessian.rows)) == ("gaussian_spiral", "structured", 7)
    assert vars(hessian.rows[0]) == {
        "prune_ratio": 0.0,
        "nll": 0.880,
        "lambda_max": 0.0130,
        "trace": 0.121,
        "kappa": 340,
    }
    assert (hessian.rows[2].prune_ratio, hessian.rows[2].lambda_max, hessian.rows[-1].kappa) == (0.48, 0.0049, 230)
    assert "100 Lanczos steps" in hessian.note
    assert "NeurIPS 2021" in hessian.source


@pytest.mark.parametrize(("ratio", "nearest"), [(0.0, 0.0), (0.247, 0.25), (0.899, 0.94), (0.5, 0.48), (0.99, 0.96)])
def test_nearest(ratio, nearest):
    assert load_reference().hessian.nearest(ratio).prune_ratio == nearest


def test_ratios_are_to_the_unpruned_row():
    hessian = load_reference().hessian
    assert hessian.ratios(hessian.rows[2]) == pytest.approx(
        {"nll": 0.634 - 0.880, "lambda_max": 0.0049 / 0.0130, "trace": 0.047 / 0.121, "kappa": 220 / 340}
    )
    assert hessian.ratios(hessian.dense) == {"nll": 0, "lambda_max": 1, "trace": 1, "kappa": 1}


def test_the_tabular_rows():
    tabular = load_reference().tabular
    assert tabular.datasets == ("POWER", "GAS", "HEPMASS", "MINIBOONE", "BSDS300")
    assert len(tabular.rows) == 13
    assert tabular.rows["FFJORD (Grathwohl et al., 2019)"]["MINIBOONE"] == (10.50, 821000)
    assert tabular.rows["Sparse Flow, 3"]["MINIBOONE"] == (9.95, 32000)
    assert tabular.rows["Glow (Kingma and Dhariwal, 2018)"]["POWER"] == (-0.17, None)
    assert "BSDS300 -157.40" in tabular.note


def test_the_measured_code():
    measured = load_reference().measured
    assert [(one.network, one.lambda_max) for one in measured.hessians] == [
        ("unpruned", 75.9), ("neurons 48 %", 73.6), ("neurons 82 %", 57.4), ("weights 82 %", 67.5)
    ]  # fmt: skip
    assert len(measured.flows) == 13
    assert measured.flows[4].nll_test == 0.701
    shares = [(one.within_2_std_percent, one.within_3_std_percent, one.within_5_std_percent) for one in measured.flows]
    assert all(a < b < c for a, b, c in shares)
    assert "10-15 %" in measured.hessian_note


def test_the_data_lie_in_the_package():
    assert files("analysis.reference").joinpath("published.yaml").is_file()
    assert files("analysis.report").joinpath("report.css").is_file()
