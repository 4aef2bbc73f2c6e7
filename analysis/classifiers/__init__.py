"""Classifiers: what pruning does to decision boundaries, weights and accuracy."""
