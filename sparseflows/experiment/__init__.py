"""Experiments: a param file, its run folder, and the cascade between them."""
