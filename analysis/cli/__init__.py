"""The command line of the analyses: one module a command; those of stages are made from their settings."""
