"""A run folder opened for analysis: its records, flows, kept results."""
