"""Flows in scikit-learn."""
