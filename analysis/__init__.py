"""Analysis of run folders: tables, figures, and what pruning did."""

from sparseflows.moved import keep_old_names

keep_old_names()
