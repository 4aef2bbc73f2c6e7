"""Continuous normalizing flows: fields, divergences, solves, and the likelihood they give."""
