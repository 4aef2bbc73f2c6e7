"""What each command of `python -m analysis` does: read, compute, print, write files. One module a command."""
