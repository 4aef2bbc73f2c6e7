"""Pruned flows executed with less work."""
