"""The kinds of cases, a module each sort of hostility."""
