"""Vector fields and densities of a stage on grids, and what is projected where the data have more columns."""
