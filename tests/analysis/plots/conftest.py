"""The figures that are drawn, as matplotlib's objects: a test can ask an axis what it shows."""

from __future__ import annotations

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """A list that every figure is added to when it is saved, once each, in order."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def remembered(figure, *args, **settings):
        if figure not in figures:
            figures.append(figure)
        return save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", remembered)
    return figures
