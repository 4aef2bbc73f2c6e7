"""Pickled frames as a machine without pyarrow writes them: those that are published know nothing of it."""

import pytest


@pytest.fixture(autouse=True)
def plain_strings():
    pandas = pytest.importorskip("pandas")
    with pandas.option_context("mode.string_storage", "python"):
        yield
