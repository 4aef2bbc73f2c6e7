"""What a run tells while it works: progress, loggers, the table at its end."""
