"""Many experiments from one param file."""

from sparseflows.experiment.sweep.points import Changes, Point, Sweep, expand, label_of, load_experiment, load_sweep

__all__ = ["Changes", "Point", "Sweep", "expand", "label_of", "load_experiment", "load_sweep"]
