"""Figures, one kind a file; the only package that imports matplotlib."""
