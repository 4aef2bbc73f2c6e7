"""The report's own tables."""

import pytest

from analysis.report.tables import cost_sheet, modes_sheet

REFERENCES = {
    **{f"perfect_within_{k}": share for k, share in ((2, 0.865), (3, 0.989), (5, 1.0))},
    **{f"data_within_{k}": 0.9 for k in (2, 3, 5)},
    **{f"data_within_{k}_se": 0.01 for k in (2, 3, 5)},
    **{"modes_total": 10, "data_modes_captured": 10},
}


def shares(value, captured, ratio):
    return {
        **{f"good_within_{k}": value for k in (2, 3, 5)},
        **{f"good_within_{k}_se": 0.01 for k in (2, 3, 5)},
        **{"modes_captured": captured, "prune_ratio": ratio},
        **REFERENCES,
    }


def test_shares_of_good_samples_over_the_seeds():
    stages = {
        ("structured", 0, 1): shares(0.7, 8, 0.5),
        ("structured", 1, 1): shares(0.5, 9, 0.5),
        ("dense", 0, 0): shares(0.8, 10, 0.0),
        ("dense", 1, 0): shares(0.8, 10, 0.0),
        ("structured", 0, 2): {"status": "failed"},
    }
    sheet = modes_sheet("quick", stages)
    assert sheet.body == (
        ("perfect sampler", "-", "86.5 %", "98.9 %", "100.0 %", "10 of 10"),
        ("the data's own", "-", *["90.0 ± 1.0 %"] * 3, "10 of 10"),
        ("dense", "0.0 %", *["80.0 %"] * 3, "10 of 10"),
        ("structured", "50.0 %", *["60.0 ± 10.0 %"] * 3, "8–9 of 10"),
    )
    assert "means over 2 seeds" in sheet.legend
    assert sheet.notes == ("1 of 5 networks have no result; see What failed.",)


@pytest.mark.parametrize("error", ["coverage_data_se", "coverage_se_data"])
def test_closeness_where_no_modes_are_known(error):
    own = {"prune_ratio": 0.5, "density": 0.9, "coverage": 0.8, "coverage_se": 0.02, "sliced_wasserstein": 0.1}
    own |= {"density_data": 1.0, "coverage_data": 0.95, "sliced_wasserstein_data": 0.05, error: 0.01}
    sheet = modes_sheet("wine", {("structured", 0, 1): own})
    assert sheet.heading[2:] == ("density", "coverage", "sliced Wasserstein")
    assert sheet.body == (
        ("two sets of true rows", "-", "1.00", "0.950 ± 0.010", "0.0500"),
        ("structured", "50.0 %", "0.900", "0.800 ± 0.020", "0.100"),
    )
    assert "± s.e. of the samples" in sheet.legend


def test_costs_have_the_columns_that_are_known():
    stages = {("dense", 0, 0): {"prune_ratio": 0, "params": 8706, "bytes": 34_824, "log_prob_seconds": 0.002}}
    sheet = cost_sheet("quick", stages)
    assert sheet.heading == ("method", "prune ratio", "params", "bytes", "log p (ms)")
    assert sheet.body == (("dense", "0.0 %", "8,706", "34,824", "2.00"),)
