"""Many experiments from one param file."""

from sparseflows.experiment.sweep.points import (
    LONGEST_LABEL,
    MOST_POINTS,
    SWEEP,
    ZIP,
    Changes,
    Point,
    Sweep,
    expand,
    label_of,
    load_experiment,
    load_sweep,
)

__all__ = [
    "LONGEST_LABEL",
    "MOST_POINTS",
    "SWEEP",
    "ZIP",
    "Changes",
    "Point",
    "Sweep",
    "expand",
    "label_of",
    "load_experiment",
    "load_sweep",
]
