"""One table over data sets, in the published layout, with baselines."""

from analysis.tabular.table import Cell, Curve, Line, TabularTable, candidates, selected, tabular_table, words

__all__ = ["Cell", "Curve", "Line", "TabularTable", "candidates", "selected", "tabular_table", "words"]
