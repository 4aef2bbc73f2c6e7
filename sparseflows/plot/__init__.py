"""Figures of flows on a user's axes, and the drawing that the figures of runs share."""
