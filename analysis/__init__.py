"""Analysis of run folders: tables, figures, and what pruning did."""
