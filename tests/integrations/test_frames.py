"""What is no number in a data frame is refused by the name of its column, in a fit and in a score; numbers pass."""

import numpy as np
import pandas as pd
import pytest

from sparseflows import SparseFlowDensity
from sparseflows.errors import InputError
from sparseflows.integrations.frames import refuse_what_is_no_number

A = np.random.default_rng(0).normal(size=12)
WRONG = {
    "text": (["x"] * 12, "'x'"),
    "a word among numbers": ([1.5] * 11 + ["n/a"], "'n/a'"),
    "dates": (pd.date_range("2020", periods=12), "dates (2020-01-01"),
    "spans": (pd.to_timedelta(np.arange(12), unit="s"), "spans of time"),
    "categories": (pd.Categorical(["u", "v"] * 6), "categories ('u')"),
    "complex": (A + 1j, "complex numbers"),
    "a missing value": (np.where(np.arange(12) == 3, np.nan, A), "1 missing value (NaN), the first in row 3"),
    "missing whole numbers": (pd.array([1, None] * 6, dtype="Int64"), "6 missing values (NaN), the first in row 1"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_columns_are_refused_by_name(kind):
    values, said = WRONG[kind]
    frame = pd.DataFrame({"good": A, "other one": values})
    fitted = SparseFlowDensity(hidden=(4,), steps=1, keep_ratio=None).fit(pd.DataFrame({"good": A, "other one": A**3}))
    for call in (SparseFlowDensity().fit, fitted.score, fitted.score_samples):
        with pytest.raises(InputError) as caught:
            call(frame)
        assert "column 'other one'" in str(caught.value)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [np.arange(12), pd.array(range(12), dtype="Int32"), [True, False] * 6, A.astype("float32"), A.astype(object)],
    ids=["whole", "Int32", "bool", "float32", "objects"],
)
def test_numbers_of_every_kind_pass(values):
    refuse_what_is_no_number(pd.DataFrame({"a": A, "b": values}))


def test_masked_entries_are_not_forgotten():
    rows = np.ma.masked_array(np.stack([A, A**2], axis=1), mask=np.eye(12, 2) > 0)
    with pytest.raises(InputError, match="2 rows with masked entries"):
        SparseFlowDensity().fit(rows)
    refuse_what_is_no_number(rows[2:])
