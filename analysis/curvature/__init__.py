"""Curvature of the loss: operators, extreme eigenvalues, trace, density, and the Hessian of a stage."""
