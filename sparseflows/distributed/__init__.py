"""Several processes, one flow."""
