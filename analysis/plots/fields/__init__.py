"""Figures of vector fields, densities and paths."""
