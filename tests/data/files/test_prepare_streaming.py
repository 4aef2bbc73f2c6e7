"""Moments, correlations and spikes in blocks are those of the whole array."""

from __future__ import annotations

import numpy as np
import pytest

from sparseflows.data.files import streaming
from sparseflows.data.files.streaming import blocks, correlation, gathered, moments, on_disk, write_npy
from sparseflows.data.recipes.base import unspiked
from sparseflows.data.recipes.gas import independent


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1000)


@pytest.mark.parametrize("ddof", [0, 1])
def test_moments_of_far_off_columns(ddof):
    """A mean of 1e6 deviations: one pass over squares would keep 4 digits."""
    data = np.random.default_rng(0).normal(size=(3001, 4)) * [1, 1e-3, 1e5, 1] + [0, 1e3, -1e2, 1e6]
    found = moments(lambda: blocks(data), ddof)
    exact = data.astype(np.longdouble)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0).astype(float), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found.std, exact.std(axis=0, ddof=ddof).astype(float), rtol=1e-13)
    np.testing.assert_array_equal(found.minimum, data.min(axis=0))
    np.testing.assert_array_equal(found.maximum, data.max(axis=0))
    assert found.rows == 3001


def test_correlation():
    data = np.random.default_rng(1).normal(size=(997, 5)) @ np.random.default_rng(2).normal(size=(5, 5)) + 1e4
    np.testing.assert_allclose(correlation(lambda: blocks(data), data.mean(axis=0)), np.corrcoef(data.T), atol=1e-12)


def test_the_first_of_a_close_pair_goes_until_none_is_left():
    close = np.eye(5)
    close[0, 1] = close[1, 0] = close[1, 2] = close[2, 1] = 0.99  # 0 goes, then 1, and 2 stays
    close[3, 4] = close[4, 3] = -0.999
    assert independent(close) == [2, 3, 4]


def test_spikes_that_straddle_blocks():
    data = np.random.default_rng(3).uniform(1, 2, size=(500, 4))
    data[::80, 0] = 0  # seven times
    data[::100, 1] = 0  # five times
    data[::50, 2] = 3  # the largest
    data[:10, 3], data[300, 3] = 0.5, 0.25  # frequent, but not the smallest
    assert unspiked(data, "x") == [1, 2, 3]


def test_tables_on_disk_and_npy(tmp_path):
    data = np.random.default_rng(4).normal(size=(333, 3))
    made = [*(data[start : start + 50] for start in range(0, 333, 50)), data[:0]]
    table = on_disk(tmp_path / "table", made, "x")
    np.testing.assert_array_equal(table, data)
    order = np.random.default_rng(5).permutation(333)
    np.testing.assert_array_equal(np.vstack(list(gathered(table, order))), data[order])
    write_npy(tmp_path / "x.npy", 333, 3, "float32", blocks(table))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy", mmap_mode="r"), data.astype(np.float32))
