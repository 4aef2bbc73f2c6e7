"""The run folder on disk: stages, records, checkpoints, locks."""
