"""One stage after another: dense, pruned, retrained, evaluated."""
