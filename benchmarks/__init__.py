"""Ours and its peers, measured in turns in one run: `python -m benchmarks --help`."""
