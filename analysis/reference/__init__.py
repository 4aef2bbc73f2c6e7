"""Published numbers as data: what the authors print, and what their code was measured to give. See published.yaml."""

from analysis.reference.loader import CurvatureRow, MeasuredCurvature, PublishedTables, load_reference

__all__ = ["CurvatureRow", "MeasuredCurvature", "PublishedTables", "load_reference"]
