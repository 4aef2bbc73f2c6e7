"""Solvers of the ODE, and which is taken when."""
