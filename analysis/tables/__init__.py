"""Tables as text, CSV, Markdown and LaTeX."""

from analysis.tables.means import Row, Table, label_of, mean_over_seeds, status_of, tabulate
from analysis.tables.numbers import Mean

__all__ = ["Mean", "Row", "Table", "label_of", "mean_over_seeds", "status_of", "tabulate"]
