"""Toy sets whose density is known."""

from sparseflows.data.toy.toy import SPIRAL_LENGTH, TOYS, Modes, Sampler, Toy, equal_labels

__all__ = ["SPIRAL_LENGTH", "TOYS", "Modes", "Sampler", "Toy", "equal_labels"]
