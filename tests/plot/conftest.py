"""No window opens, and no figure outlives its test."""

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    matplotlib.use("agg")
    from matplotlib import pyplot

    def shown(*args, **kwargs):
        raise AssertionError("plt.show() was called")

    monkeypatch.setattr(pyplot, "show", shown)
    yield pyplot
    pyplot.close("all")
