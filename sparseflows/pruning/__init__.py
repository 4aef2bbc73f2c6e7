"""Pruning: which weights or neurons go, and how they are taken out."""
