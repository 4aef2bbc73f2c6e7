"""A campaign against the toolkit: kills, full disks, damaged and mutated files; `python -m tests.campaign`."""
