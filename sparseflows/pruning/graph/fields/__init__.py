"""The chains of a vector field of one's own, which may branch: evaluated, and read off the calls."""
