"""A logger that writes event files for TensorBoard."""
