"""The sets that ship with scikit-learn."""

import numpy as np
import pytest

from sparseflows.data.tables.bundled import BUNDLED
from sparseflows.data.tables.tabular import recurring_columns, validate


@pytest.mark.parametrize("name", BUNDLED)
def test_sets_are_what_they_claim_to_be(name):
    known = BUNDLED[name]
    table = known.load(np.random.default_rng(0))
    assert known.name == name
    assert table.shape == (known.rows, known.columns)
    if known.classes is None:  # a classifier's pixels may be constant
        assert np.array_equal(validate(table, name), table)
    assert "CC BY" in known.source or name == "diabetes"
    assert "\n" not in known.description + known.source


def test_names():
    assert sorted(BUNDLED) == ["breast_cancer", "diabetes", "digits", "digits_labelled", "wine"]


def test_digits_are_dequantised_levels():
    from sklearn.datasets import load_digits

    table = BUNDLED["digits"].load(np.random.default_rng(0))
    assert table.min() >= 0
    assert table.max() < 1
    assert np.array_equal(np.floor(table * 17), load_digits().data)
    assert len(np.unique(table[:, 0])) == len(table), "a pixel that is always 0 should become uniform"
    assert recurring_columns(table) == []


def test_diabetes_has_no_binary_column_and_no_column_of_whole_numbers():
    from sklearn.datasets import load_diabetes

    raw = np.delete(load_diabetes(scaled=False).data, 1, axis=1)
    table = BUNDLED["diabetes"].load(np.random.default_rng(0))
    noise = table - raw
    dequantised = [k for k in range(9) if noise[:, k].any()]
    assert dequantised == [0, 2, 3, 5, 6, 8]  # age, blood pressure, cholesterol, HDL, their ratio, glucose
    assert ((noise >= 0) & (noise < 1)).all()
    assert all(len(np.unique(table[:, k])) == len(table) for k in dequantised)
    assert recurring_columns(table[:, dequantised]) == []


def test_the_generator_draws_the_noise_of_dequantised_sets_only():
    one, again, other = (BUNDLED["digits"].load(np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    for name in ("wine", "breast_cancer"):
        generator = np.random.default_rng(1)
        BUNDLED[name].load(generator)
        assert generator.bit_generator.state == np.random.default_rng(1).bit_generator.state


def test_columns_of_few_digits_are_warned_of():
    wine = recurring_columns(BUNDLED["wine"].load(np.random.default_rng(0)))
    assert [w for w in wine if w.startswith("column 5: 53 distinct values")]  # magnesium, whole numbers
    cells = recurring_columns(BUNDLED["breast_cancer"].load(np.random.default_rng(0)))
    assert [w.split(":")[0] for w in cells] == [f"column {k}" for k in (7, 8, 17, 18, 27, 28)]
    assert all(": 0 in 2.3%" in w for w in cells)  # concavities measured as none
