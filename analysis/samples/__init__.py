"""How good samples are: modes and coverage."""
