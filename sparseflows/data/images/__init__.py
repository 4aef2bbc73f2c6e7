"""Labelled images in idx files."""
