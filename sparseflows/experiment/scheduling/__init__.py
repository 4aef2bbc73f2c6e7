"""Which cascade is worked on when, by whom."""
